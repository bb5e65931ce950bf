//! Workers: each takes a build, has it built, and tells what happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imagespec_build_api::{Outcome, State, Wanted};
use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildSettings, ContextFiles, Output};
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::event::{BuildEvent, Event, EventSink};
use imagespec_core::execute::{
    Below, Candidate, Job, OnUnknown, Options, Outcome as Built, execute,
};
use imagespec_core::login::IndexLogins;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::builds::{self, Standing, Taken};
use crate::clock::{identifier, now};
use crate::service::Service;
use crate::vet;

/// How often a worker says that it is still there.
const RENEWAL: Duration = Duration::from_secs(1);
/// How often idle workers look for what others left.
const IDLE: Duration = Duration::from_secs(1);
/// How many events are kept at once.
const BATCH: usize = 256;
/// How often a step may tell how far it is, in milliseconds.
const PROGRESS: i64 = 1000;

/// Starts the workers of a service; they end when it is asked to.
pub(crate) fn start(service: &Arc<Service>) -> Vec<tokio::task::JoinHandle<()>> {
    let workers = 0..service.settings.workers.max(1);
    let start = |_| tokio::spawn(work(Arc::clone(service)));
    workers.map(start).collect()
}

async fn work(service: Arc<Service>) {
    let name = identifier();
    while !service.ending.is_cancelled() {
        let taken = {
            // Those of this service look one after another: a project's limit holds among them.
            let _alone = service.taking.lock().await;
            builds::take(&service.database, &name, &service.settings).await
        };
        match taken {
            Ok(Some(taken)) => build(&service, &name, &taken).await,
            Ok(None) => {
                let woken = tokio::time::timeout(IDLE, service.work.notified());
                let _ = service.ending.run_until_cancelled(woken).await;
            }
            // The database may come back.
            Err(_) => {
                let wait = tokio::time::sleep(IDLE);
                let _ = service.ending.run_until_cancelled(wait).await;
            }
        }
    }
}

/// Does a build, whatever becomes of it.
async fn build(service: &Arc<Service>, name: &str, taken: &Taken) {
    let cancel = &CancellationToken::new();
    let id = || taken.id.clone();
    let (sink, told) = mpsc::unbounded_channel();
    let limits = service.settings.limits(&taken.project);
    let sink = Sink {
        events: sink,
        log_bytes: Mutex::new(limits.log_bytes),
        progress: Mutex::default(),
    };
    // Tasks of their own: a build may compute for long before it lets others do something, and neither its lease nor a
    // transaction of the database waits for that.
    let teller = tell(Arc::clone(service), id(), told, cancel.clone());
    let teller = tokio::spawn(teller);
    let mut watch = tokio::spawn(watch(Arc::clone(service), name.to_owned(), id()));
    let done = async {
        let made = async move {
            let seconds = Duration::from_secs(limits.build_seconds);
            let made = make(service, taken, &sink, cancel);
            tokio::pin!(made);
            tokio::select! {
                made = &mut made => made,
                () = tokio::time::sleep(seconds) => {
                    cancel.cancel();
                    // It cleans up.
                    drop(made.await);
                    let message = format!("the build took longer than it may: {} s", seconds.as_secs());
                    Err(BuildError::failed(message))
                }
            }
        };
        let made = made.await;
        // All that happened is kept before its end.
        drop(teller.await);
        made
    };
    tokio::pin!(done);
    let (made, standing) = tokio::select! {
        made = &mut done => (made, Standing::On),
        standing = &mut watch => {
            cancel.cancel();
            (done.await, standing.unwrap_or(Standing::Lost))
        }
    };
    watch.abort();
    let (state, outcome) = match made {
        Ok(image) => (State::Done, Outcome::Image(Box::new(image))),
        Err(error) if standing == Standing::Stop => (State::Cancelled, Outcome::Error(error)),
        Err(error) if error.kind == ErrorKind::Interrupted => {
            // The service ends, or another worker has it: one goes on with it.
            let _ = builds::release(&service.database, name, &taken.id).await;
            return;
        }
        Err(error) => (State::Failed, Outcome::Error(error)),
    };
    // A database that is away for a moment must not cost a build; where it was away for longer, another has it.
    while builds::end(&service.database, name, &taken.id, state, &outcome)
        .await
        .is_err()
    {
        let wait = tokio::time::sleep(RENEWAL);
        if service.ending.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
    service.happened(&taken.id);
    // Its project may do another.
    service.work.notify_one();
}

/// Renews a lease until the build has to stop: somebody wants it, it is another's, or the service ends.
async fn watch(service: Arc<Service>, name: String, id: String) -> Standing {
    let mut renewed = now();
    loop {
        let wait = tokio::time::sleep(RENEWAL);
        if service.ending.run_until_cancelled(wait).await.is_none() {
            return Standing::Lost;
        }
        match builds::renew(&service.database, &name, &id).await {
            Ok(Standing::On) => renewed = now(),
            Ok(standing) => return standing,
            // Whoever cannot say so for too long has it no more.
            Err(_) if now() - renewed > builds::LEASE => return Standing::Lost,
            Err(_) => {}
        }
    }
}

/// Looks for the image, and builds it where it is not there.
async fn make(
    service: &Service,
    taken: &Taken,
    sink: &Sink,
    cancel: &CancellationToken,
) -> Result<BuiltImage, BuildError> {
    if taken.is_hopeless() {
        let message = "the build was given up: every worker that took it on was lost";
        return Err(BuildError::failed(message)
            .hint("it may take more memory than there is; the log of the service says more"));
    }
    sink.begin(&service.builders(&taken.project).builder, &taken.wanted);
    if taken.attempts > 1 {
        let message = "the worker was lost, and another begins again".to_owned();
        sink.keep(BuildEvent::Notice { message });
    }
    let limits = service.settings.limits(&taken.project);
    let plan = &taken.wanted.plan;
    service.files.bring(&taken.project, plan).await?;
    let files = service.files.for_plan(&taken.project, plan);
    tokio::task::block_in_place(|| vet::files(plan, &files, limits))?;
    let files = Arc::new(files);
    let built = pipeline(
        service,
        &taken.project,
        &taken.wanted,
        files,
        false,
        sink,
        cancel,
    );
    match built.await {
        Ok(Built::Done(image)) => Ok(image),
        Ok(Built::WouldBuild { .. }) => Err(BuildError::failed("nothing was built")),
        Err(error) if error.kind == ErrorKind::Failed => {
            Err(service.files.mended(&taken.project, plan, error).await)
        }
        Err(error) => Err(error),
    }
}

/// The pipeline over one image.
pub(crate) async fn pipeline(
    service: &Service,
    project: &str,
    wanted: &Wanted,
    files: Arc<dyn ContextFiles>,
    dry_run: bool,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Built, BuildError> {
    let builders = service.builders(project);
    let Wanted {
        image,
        plan,
        destination,
        base,
        settings,
        secrets,
    } = wanted.clone();
    let secrets = vet::mounts(&secrets, service.settings.limits(project))?;
    let jobs = service.settings.workers.max(1);
    // How much is done at once here is no matter of the client's.
    let settings = BuildSettings {
        jobs: BuildSettings::default().jobs,
        ..settings
    };
    let job = Job {
        target: image,
        plan,
        destination,
        output: Some(Output::Push),
        push: true,
        files,
        secrets,
        logins: IndexLogins::default(),
        settings,
        builder: builders.builder.clone(),
        fallback: None,
        base_maker: builders.base_maker.clone(),
        base: base.map(Below::Built),
    };
    let options = Options {
        jobs,
        on_unknown: OnUnknown::Build,
        dry_run,
    };
    let mut results = execute(&[job], options, sink, cancel).await;
    let none = || Err(BuildError::failed("nothing was built"));
    let result = results.pop().unwrap_or_else(none);
    // Which image it is about is said by whoever asked for it.
    result.map_err(BuildError::without_context)
}

/// Where a build's events go: to whoever keeps them, with limits.
#[derive(Debug)]
struct Sink {
    events: mpsc::UnboundedSender<(i64, BuildEvent)>,
    /// What commands may still print.
    log_bytes: Mutex<u64>,
    /// When each step last said how far it is.
    progress: Mutex<HashMap<String, i64>>,
}

impl Sink {
    /// Tells at once that a worker has the build; the pipeline says so when it knows that there is something to do.
    fn begin(&self, builder: &Candidate, wanted: &Wanted) {
        self.keep(BuildEvent::Started {
            builder: builder.name.to_owned(),
            reference: wanted.destination.reference(),
        });
    }

    fn keep(&self, event: BuildEvent) {
        // Nobody keeps them any more where the build is another's.
        let _ = self.events.send((now(), event));
    }
}

impl EventSink for Sink {
    fn emit(&self, event: Event) {
        let at = now();
        let mut event = event.event;
        match &event {
            BuildEvent::Started { .. } => return,
            BuildEvent::StepProgress { step, done, total } if Some(*done) != *total => {
                let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                let last = progress.entry(step.clone()).or_default();
                if at - *last < PROGRESS {
                    return;
                }
                *last = at;
            }
            BuildEvent::Log { step, line } => {
                let mut left = self
                    .log_bytes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if *left == 0 {
                    return;
                }
                *left = left.saturating_sub(line.len() as u64 + 1);
                if *left == 0 {
                    event = BuildEvent::Log {
                        step: step.clone(),
                        line: "(what is printed from here on is not kept)".to_owned(),
                    };
                }
            }
            _ => {}
        }
        self.keep(event);
    }
}

/// Keeps what happens, until the build ends or turns out to be another's.
async fn tell(
    service: Arc<Service>,
    id: String,
    mut told: mpsc::UnboundedReceiver<(i64, BuildEvent)>,
    cancel: CancellationToken,
) {
    let (database, id) = (&service.database, &*id);
    let mut last = loop {
        match builds::last_event(database, id).await {
            Ok(last) => break last,
            Err(_) if service.ending.is_cancelled() => return,
            Err(_) => tokio::time::sleep(RENEWAL).await,
        }
    };
    let mut batch = Vec::new();
    loop {
        if told.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        while let Err(error) = builds::tell(database, id, last, &batch).await {
            let taken = error.as_database_error();
            if taken.is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
                let count = i64::try_from(batch.len()).unwrap_or(i64::MAX);
                // It was kept, and the answer was lost on its way; or somebody else tells.
                if builds::last_event(database, id).await.ok() == Some(last + count) {
                    break;
                }
                return cancel.cancel();
            }
            if service.ending.is_cancelled() {
                return;
            }
            tokio::time::sleep(RENEWAL).await;
        }
        last += i64::try_from(batch.len()).unwrap_or(i64::MAX);
        batch.clear();
        // What happens while these are kept shares the next transaction.
        service.happened(id);
    }
}
