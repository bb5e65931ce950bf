//! Follows a build to its end, over as many connections as it takes.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use imagespec_build_api::{Build, Outcome};
use imagespec_core::builder::BuiltImage;
use imagespec_core::error::BuildError;
use imagespec_core::event::{BuildEvent, Progress};

use crate::backend::ENTRY;
use crate::remote::{Gone, Remote, Told};

/// How long a service may be away.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first and the longest wait before a connection is made again.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Tells of everything that happens in a build, each thing once, until it is over.
pub(crate) async fn follow(
    remote: &dyn Remote,
    id: &str,
    progress: Progress<'_>,
) -> Result<Build, BuildError> {
    let mut after = 0;
    let mut wait = WAITS.0;
    let mut heard = Instant::now();
    let mut is_told = false;
    loop {
        let lost = match remote.events(id, after).await {
            Ok(mut events) => loop {
                match events.next().await {
                    Some(Ok(Told::Happened(number, happened))) => {
                        (heard, wait) = (Instant::now(), WAITS.0);
                        after = number;
                        // That it was taken on is told here.
                        if !matches!(happened.event, BuildEvent::Started { .. }) {
                            progress.emit(happened.event);
                        }
                    }
                    Some(Ok(Told::Ended(build))) => return Ok(*build),
                    Some(Err(error)) => break error,
                    None => break BuildError::unavailable("the connection ended"),
                }
            },
            Err(Gone::Refused(error)) => return Err(error),
            Err(Gone::Lost(error)) => error,
        };
        if heard.elapsed() > PATIENCE {
            let message = format!("the build service is away for {} s", PATIENCE.as_secs());
            return Err(lost.context(message).hint(format!(
                "the build goes on there; `imagespec build --attach {id}` follows it"
            )));
        }
        if !is_told && heard.elapsed() > WAITS.1 {
            is_told = true;
            progress.notice(format!("waiting for the build service: {lost}"));
        }
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
        wait = (wait * 2).min(WAITS.1);
    }
}

/// The image that came of a build.
pub(crate) fn image(build: Build) -> Result<BuiltImage, BuildError> {
    match build.outcome {
        Some(Outcome::Image(image)) => Ok(BuiltImage {
            builder: ENTRY.name.to_owned(),
            ..*image
        }),
        Some(Outcome::Error(error)) if build.state == imagespec_build_api::State::Cancelled => {
            let message = format!("somebody stopped the build: `{}`", build.id);
            Err(BuildError::failed(message).caused_by_source_of(&error))
        }
        Some(Outcome::Error(error)) => Err(error),
        None => Err(BuildError::failed("the build ended without an image")),
    }
}
