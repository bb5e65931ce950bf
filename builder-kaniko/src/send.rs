//! The context over the standard input of an executor: by one of all clients that follow a Job.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use imagespec_core::error::BuildError;
use imagespec_core::event::Progress;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{AttachParams, AttachedProcess, Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cluster::{Cluster, is_code};
use crate::context::{Archive, unread};
use crate::job::{CONTEXT, EXECUTOR, SENDING, SENT};

/// How often whoever sends says that it still does.
const BEAT: Duration = Duration::from_secs(10);
/// After what silence somebody else sends.
const SILENCE: Duration = Duration::from_secs(45);
/// Bytes that are sent at once: larger messages break connections through some proxies.
const CHUNK: usize = 32 << 10;

/// How an attempt to send ended.
enum Sent {
    /// All was sent; what is under way goes by this connection.
    Whole(AttachedProcess),
    /// All is there.
    Needless,
    /// Somebody else sends, who says this.
    Elsewhere(String),
    /// The executor does not read on, and says why.
    Broken,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Sent, BuildError>> + Send + 'a>>;

/// Whether this client sends, and how far it is.
#[derive(Default)]
pub(crate) struct Sender<'a> {
    attempt: Option<Attempt<'a>>,
    connection: Option<AttachedProcess>,
    is_over: bool,
    /// What the Job says of somebody else's sending, and since when it says so.
    seen: Option<(String, Instant)>,
}

impl<'a> Sender<'a> {
    /// Begins to send to a pod that runs, unless that is done or under way.
    pub(crate) fn begin(
        &mut self,
        cluster: &'a Cluster,
        job: &'a str,
        pod: &str,
        archive: &'a Archive,
        progress: Progress<'a>,
    ) {
        if self.is_over || self.attempt.is_some() {
            return;
        }
        let seen = self.seen.clone();
        let pod = pod.to_owned();
        self.attempt = Some(Box::pin(async move {
            if let Some(not) = claim(cluster, job, seen).await? {
                return Ok(not);
            }
            send(cluster, job, &pod, archive, progress).await
        }));
    }

    /// Goes on with it, as long as there is anything to do.
    pub(crate) async fn go_on(&mut self) -> Result<(), BuildError> {
        let Some(attempt) = &mut self.attempt else {
            return pending().await;
        };
        let sent = attempt.await;
        self.attempt = None;
        match sent? {
            Sent::Whole(connection) => {
                self.connection = Some(connection);
                self.is_over = true;
            }
            Sent::Needless | Sent::Broken => self.is_over = true,
            Sent::Elsewhere(said) => {
                let known = self.seen.as_ref().is_some_and(|(seen, _)| *seen == said);
                if !known {
                    self.seen = Some((said, Instant::now()));
                }
            }
        }
        Ok(())
    }
}

/// Becomes the one that sends; or says who is instead.
async fn claim(
    cluster: &Cluster,
    job: &str,
    seen: Option<(String, Instant)>,
) -> Result<Option<Sent>, BuildError> {
    let jobs = cluster.api::<Job>();
    let found = cluster.ask("read Jobs", || jobs.get_opt(job)).await?;
    let Some(found) = found else {
        return Ok(Some(Sent::Needless));
    };
    let value = found
        .annotations()
        .get(CONTEXT)
        .cloned()
        .unwrap_or_default();
    if value == SENT {
        return Ok(Some(Sent::Needless));
    }
    if value.starts_with(SENDING) {
        let silent = seen.is_some_and(|(seen, since)| seen == value && since.elapsed() > SILENCE);
        if !silent {
            return Ok(Some(Sent::Elsewhere(value)));
        }
    }
    match say(cluster, job, SENDING, found.resource_version()).await {
        Ok(()) => Ok(None),
        // Somebody else was first.
        Err(error) if is_code(&error, 409) => Ok(Some(Sent::Elsewhere(value))),
        Err(error) if is_code(&error, 404) => Ok(Some(Sent::Needless)),
        Err(error) => Err(cluster.refusal("patch Jobs", &error)),
    }
}

/// Sends the context.
async fn send(
    cluster: &Cluster,
    job: &str,
    pod: &str,
    archive: &Archive,
    progress: Progress<'_>,
) -> Result<Sent, BuildError> {
    let total = archive.size;
    let step = progress.step("context", "send the context");
    let params = AttachParams::default()
        .container(EXECUTOR)
        .stdin(true)
        .stdout(false)
        .stderr(false)
        .max_stdin_buf_size(CHUNK);
    let pods = cluster.api::<Pod>();
    let attached = cluster.ask("attach to pods", || pods.attach(pod, &params));
    let mut attached = attached.await?;
    let Some(mut stdin) = attached.stdin() else {
        return Ok(Sent::Broken);
    };
    let mut file = archive.open()?;
    let mut buffer = vec![0; CHUNK];
    let (mut done, mut beats) = (0, 0_u32);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|error| unread(&error))?;
        if read == 0 {
            break;
        }
        let mut chunk = &buffer[..read];
        while !chunk.is_empty() {
            tokio::select! {
                written = stdin.write(chunk) => match written {
                    Ok(written) if written > 0 => {
                        chunk = &chunk[written..];
                        done += written as u64;
                    }
                    Ok(_) | Err(_) => return Ok(Sent::Broken),
                },
                _ = beat.tick() => {
                    beats += 1;
                    // Where it is not heard, it is said again soon.
                    let _ = say(cluster, job, &format!("{SENDING} {beats}"), None).await;
                }
            }
        }
        step.advance(done, Some(total));
    }
    if stdin.shutdown().await.is_err() {
        return Ok(Sent::Broken);
    }
    // Who does not hear of it waits, and sees the executor go on.
    let _ = say(cluster, job, SENT, None).await;
    step.finish(false, archive.megabytes());
    Ok(Sent::Whole(attached))
}

/// Says in a Job how far its context is; with a version, only if nobody said anything since.
async fn say(
    cluster: &Cluster,
    job: &str,
    value: &str,
    version: Option<String>,
) -> kube::Result<()> {
    let mut metadata = json!({ "annotations": { CONTEXT: value } });
    if let Some(version) = version {
        metadata["resourceVersion"] = version.into();
    }
    let patch = json!({ "metadata": metadata });
    let jobs = cluster.api::<Job>();
    let said = jobs
        .patch(job, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    said.map(drop)
}
