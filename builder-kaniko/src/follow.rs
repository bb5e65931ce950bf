//! A Job followed to its end: what the cluster says of it, what its executor prints, and the context on its way there.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use imagespec_core::error::BuildError;
use imagespec_core::event::{Progress, StepProgress};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event as Watched, watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use crate::cluster::{Cluster, is_code};
use crate::context::Archive;
use crate::logs;
use crate::output::Output;
use crate::send::Sender;
use crate::state::{self, State};

/// How often events are looked at while a Job waits.
const LOOK: Duration = Duration::from_secs(2);
/// How long a cluster may answer nothing but errors.
const SILENCE: Duration = Duration::from_mins(3);
/// How far two errors may be apart that belong together: watches are begun again at least that often.
const APART: Duration = Duration::from_mins(1);
/// How long the last lines of a log may take after the executor's end.
const LAST_LINES: Duration = Duration::from_secs(15);
/// Lines of a log that wait to be taken.
const QUEUE: usize = 256;

/// How a Job ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Well. This is what its executor left as its message: the digest.
    Done(String),
    /// Not well, with what the executor said.
    Failed(i32),
    /// Not well, and it would not be otherwise if it were begun anew.
    Refused(BuildError),
    /// The cluster lost it.
    Lost(BuildError),
    /// Somebody removed it.
    Gone,
}

/// A Job that is followed.
pub(crate) struct Following<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    progress: Progress<'a>,
    archive: Option<&'a Archive>,
    step: Option<StepProgress<'a>>,
    /// Why it waits, as it was last told.
    why: String,
    /// The name of its pod.
    pod: Option<String>,
    logs: Option<JoinHandle<()>>,
    /// Whether its executor is listened to, or was.
    listens: bool,
    sender: Sender<'a>,
    ended: Option<Ended>,
    silence: Silence,
}

/// Errors of a cluster with no answer in between. A cluster where nothing happens answers nothing either.
#[derive(Debug, Default)]
struct Silence(Option<(Instant, Instant)>);

impl Silence {
    fn answer(&mut self) {
        self.0 = None;
    }

    /// Takes an error, and says whether it is one too many.
    fn error(&mut self, now: Instant) -> bool {
        let first = match self.0 {
            Some((first, last)) if now.duration_since(last) < APART => first,
            _ => now,
        };
        self.0 = Some((first, now));
        now.duration_since(first) > SILENCE
    }
}

/// An executor that ended.
struct Ended {
    code: i32,
    message: String,
    at: Instant,
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        if let Some(logs) = &self.logs {
            logs.abort();
        }
    }
}

impl<'a> Following<'a> {
    /// Follows a Job; `archive` is the context, where it has to be sent to the pod.
    pub(crate) fn new(
        cluster: &'a Cluster,
        name: &'a str,
        progress: Progress<'a>,
        archive: Option<&'a Archive>,
    ) -> Self {
        Self {
            cluster,
            name,
            progress,
            archive,
            step: None,
            why: String::new(),
            pod: None,
            logs: None,
            listens: false,
            sender: Sender::default(),
            ended: None,
            silence: Silence::default(),
        }
    }

    /// Follows it to its end.
    pub(crate) async fn end(mut self, said: &mut Output<'_>) -> Result<End, BuildError> {
        let jobs = Config::default().fields(&format!("metadata.name={}", self.name));
        let mut jobs = watch(self.cluster.api::<Job>(), jobs);
        let pods = Config::default().labels(&format!("batch.kubernetes.io/job-name={}", self.name));
        let mut pods = watch(self.cluster.api::<Pod>(), pods);
        let (lines, mut printed) = mpsc::channel::<String>(QUEUE);
        let mut look = every(LOOK);
        loop {
            let end = tokio::select! {
                biased;
                Some(line) = printed.recv() => {
                    said.take(&line);
                    said.pushed().map(|digest| End::Done(digest.to_owned()))
                }
                Some(change) = pods.next() => match self.heard(change)? {
                    Some(Watched::Apply(pod) | Watched::InitApply(pod)) => self.see(&pod, &lines).await?,
                    Some(Watched::Delete(pod)) if Some(pod.name_any()) == self.pod => Some(self.why_gone().await?),
                    _ => None,
                },
                Some(change) = jobs.next() => match self.heard(change)? {
                    Some(Watched::Apply(job) | Watched::InitApply(job)) => self.see_job(&job),
                    Some(Watched::Delete(_)) => Some(self.settle(End::Gone)),
                    _ => None,
                },
                sent = self.sender.go_on() => {
                    sent?;
                    None
                }
                () = over(&mut self.logs), if self.ended.is_some() => {
                    self.logs = None;
                    self.ended.take().map(of)
                }
                _ = look.tick() => self.look().await?,
            };
            // What was printed before counts.
            if let Some(end) = end {
                while let Ok(line) = printed.try_recv() {
                    said.take(&line);
                }
                return Ok(end);
            }
        }
    }

    /// What a watch says, if it says anything; a cluster that does not answer for a while is asked again.
    fn heard<K>(
        &mut self,
        change: Result<Watched<K>, watcher::Error>,
    ) -> Result<Option<Watched<K>>, BuildError> {
        match change {
            Ok(change) => {
                self.silence.answer();
                Ok(Some(change))
            }
            Err(
                watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error),
            ) if is_code(&error, 403) || is_code(&error, 401) => {
                Err(self.cluster.refusal("watch Jobs and pods", &error))
            }
            Err(_) if self.silence.error(Instant::now()) => {
                let message = format!("the cluster at {} has gone silent", self.cluster.place);
                Err(BuildError::unavailable(message)
                    .hint("the build goes on there; the same command finds it again"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Takes what a pod says.
    async fn see(
        &mut self,
        pod: &Pod,
        lines: &mpsc::Sender<String>,
    ) -> Result<Option<End>, BuildError> {
        let name = pod.name_any();
        if self.pod.as_ref() != Some(&name) {
            if state::is_leaving(pod) {
                return Ok(None);
            }
            self.pod = Some(name.clone());
        }
        let memory = state::memory(pod);
        match state::of_pod(pod, memory.as_deref()) {
            State::Waits(why) => {
                self.wait(&why);
                Ok(None)
            }
            State::Runs => {
                self.run();
                self.listen(&name, lines);
                self.send(&name);
                Ok(None)
            }
            // Who takes a pod away ends what is in it.
            State::Ended(code, _) if code != 0 && state::is_leaving(pod) => {
                self.why_gone().await.map(Some)
            }
            State::Ended(code, message) => {
                self.run();
                self.listen(&name, lines);
                let at = Instant::now();
                self.ended.get_or_insert(Ended { code, message, at });
                Ok(None)
            }
            State::Lost(error) => Ok(Some(End::Lost(error))),
            State::Fails(error) => {
                // What it printed may say more.
                self.drain().await;
                Ok(Some(End::Refused(error)))
            }
        }
    }

    /// Why its pod is taken away.
    async fn why_gone(&mut self) -> Result<End, BuildError> {
        let jobs = self.cluster.api::<Job>();
        let job = self.cluster.ask("read Jobs", || jobs.get_opt(self.name));
        let end = match job.await? {
            None => End::Gone,
            Some(job) if job.metadata.deletion_timestamp.is_some() => End::Gone,
            Some(job) => match state::of_job(&job) {
                Some(State::Fails(error)) => End::Refused(error),
                _ => End::Lost(state::lost("its pod was removed")),
            },
        };
        Ok(self.settle(end))
    }

    /// Takes what a Job says.
    fn see_job(&mut self, job: &Job) -> Option<End> {
        if job.metadata.deletion_timestamp.is_some() {
            return Some(self.settle(End::Gone));
        }
        if state::is_complete(job) && self.pod.is_none() {
            // Its pod is gone already: the registry knows the digest.
            return Some(End::Done(String::new()));
        }
        // Its pod says why, and the Job when nothing else does.
        match state::of_job(job)? {
            State::Fails(error) => Some(End::Refused(error)),
            State::Lost(error) if self.pod.is_none() => Some(End::Lost(error)),
            _ => None,
        }
    }

    /// What is known of the executor's own end comes before another.
    fn settle(&mut self, other: End) -> End {
        match self.ended.take() {
            Some(ended) => of(ended),
            None => other,
        }
    }

    /// Looks at what nobody tells of by itself.
    async fn look(&mut self) -> Result<Option<End>, BuildError> {
        if let Some(ended) = &self.ended {
            let waits = ended.at.elapsed() < LAST_LINES;
            return Ok(self.ended.take_if(|_| !waits).map(of));
        }
        if let Some(pod) = self.pod.clone().filter(|_| self.listens) {
            self.send(&pod);
            return Ok(None);
        }
        let subjects = [Some(self.name.to_owned()), self.pod.clone()];
        for subject in subjects.iter().flatten() {
            let about = ListParams::default().fields(&format!("involvedObject.name={subject}"));
            // Events are a help that a Role may not give, and a cluster that is lost is heard of elsewhere.
            let Ok(events) = self.cluster.api::<Event>().list(&about).await else {
                continue;
            };
            let told = events
                .items
                .iter()
                .filter(|event| state::subject(event) == subject);
            let mut told = told.filter_map(|event| state::of_event(event, self.name));
            match told.next_back() {
                Some(State::Fails(error)) => return Ok(Some(End::Refused(error))),
                Some(State::Waits(why)) if self.pod.is_none() => self.wait(&why),
                _ => {}
            }
        }
        if self.pod.is_none() {
            self.wait("waits for its pod");
        }
        Ok(None)
    }

    fn wait(&mut self, why: &str) {
        let step = self
            .step
            .get_or_insert_with(|| self.progress.step("cluster", "wait for the cluster"));
        if self.why != why {
            why.clone_into(&mut self.why);
            step.log(why);
        }
    }

    fn run(&mut self) {
        if let Some(step) = self.step.take() {
            step.finish(false, self.pod.clone().unwrap_or_default());
        }
    }

    /// Begins to take what a pod's executor prints.
    fn listen(&mut self, pod: &str, lines: &mpsc::Sender<String>) {
        if !self.listens {
            self.listens = true;
            let follow = logs::follow(self.cluster.api::<Pod>(), pod.to_owned(), lines.clone());
            self.logs = Some(tokio::spawn(follow));
        }
    }

    /// Sends the context, unless somebody else does.
    fn send(&mut self, pod: &str) {
        if let Some(archive) = self.archive {
            self.sender
                .begin(self.cluster, self.name, pod, archive, self.progress);
        }
    }

    /// Waits a little for the last lines.
    async fn drain(&mut self) {
        // What is not there by then is not waited for.
        let _ = timeout(LOOK, over(&mut self.logs)).await;
        self.logs = None;
    }
}

/// Waits until everything that was printed is read, or nobody reads it.
async fn over(logs: &mut Option<JoinHandle<()>>) {
    if let Some(logs) = logs {
        // What it did not come to is not heard of.
        let _ = logs.await;
    }
}

fn of(ended: Ended) -> End {
    match ended.code {
        0 => End::Done(ended.message),
        code => End::Failed(code),
    }
}

/// All changes of objects, through restarts of the cluster's API.
fn watch<K>(
    api: kube::Api<K>,
    config: Config,
) -> std::pin::Pin<Box<dyn Stream<Item = Result<Watched<K>, watcher::Error>> + Send>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    watcher(api, config).default_backoff().boxed()
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
