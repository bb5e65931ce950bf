//! Follows a build to its end, over as many connections as it takes.

use std::time::Duration;

use futures::StreamExt as _;
use imagespec_build_api::{Build, Outcome};
use imagespec_core::builder::BuiltImage;
use imagespec_core::error::BuildError;
use imagespec_core::event::{BuildEvent, Progress};
use tokio::time::Instant;

use crate::backend::ENTRY;
use crate::remote::{Gone, Remote, Told};

/// How long a service may be away.
const PATIENCE: Duration = Duration::from_mins(5);
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
        let begun = Instant::now();
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
        // A build may be quiet for long: a connection that lasted was one to a service that is there.
        if begun.elapsed() > WAITS.1 {
            (heard, wait) = (Instant::now(), WAITS.0);
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::stream::{self, BoxStream};
    use imagespec_build_api::{State, Wanted};
    use imagespec_core::digest::Digest;
    use imagespec_core::event::Silent;

    use super::*;
    use crate::remote::{Open, Submitted};

    /// A service whose connections last for some time and break, until one tells the end.
    #[derive(Default)]
    struct Breaking {
        lasting: Duration,
        breaks: u32,
        asked: AtomicU32,
    }

    fn ended() -> Build {
        Build {
            id: "1".to_owned(),
            project: "default".to_owned(),
            state: State::Done,
            image: "app".to_owned(),
            reference: "r/app:1".to_owned(),
            who: "me".to_owned(),
            created: 0,
            started: None,
            ended: None,
            attempts: 1,
            outcome: None,
        }
    }

    #[async_trait]
    impl Remote for Breaking {
        async fn events(
            &self,
            _: &str,
            _: i64,
        ) -> Result<BoxStream<'static, Result<Told, BuildError>>, Gone> {
            let lasting = self.lasting;
            let over = self.asked.fetch_add(1, Ordering::Relaxed) >= self.breaks;
            Ok(stream::once(async move {
                tokio::time::sleep(lasting).await;
                if over {
                    Ok(Told::Ended(Box::new(ended())))
                } else {
                    Err(BuildError::unavailable("it broke"))
                }
            })
            .boxed())
        }

        async fn hello(&self) -> Result<String, BuildError> {
            unreachable!()
        }

        async fn find(&self, _: &Wanted) -> Result<Option<BuiltImage>, BuildError> {
            unreachable!()
        }

        async fn missing(&self, _: &[Digest]) -> Result<Vec<Digest>, BuildError> {
            unreachable!()
        }

        fn packing(&self) -> (u64, u64) {
            unreachable!()
        }

        async fn send_pack(&self, _: Vec<(Digest, Bytes)>) -> Result<(), BuildError> {
            unreachable!()
        }

        async fn send(&self, _: &Digest, _: u64, _: Open<'_>) -> Result<(), BuildError> {
            unreachable!()
        }

        async fn submit(&self, _: &Wanted) -> Result<Submitted, BuildError> {
            unreachable!()
        }

        async fn show(&self, _: &str) -> Result<Build, BuildError> {
            unreachable!()
        }

        async fn cancel(&self, _: &str) -> Result<(), BuildError> {
            unreachable!()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_build_that_is_quiet_for_long_is_no_service_that_is_away() {
        let progress = Progress::new("app", &Silent);
        let quiet = Breaking {
            lasting: Duration::from_secs(1000),
            breaks: 3,
            ..Breaking::default()
        };
        follow(&quiet, "1", progress).await.expect("an end");
        // One that breaks every connection at once is given up.
        let broken = Breaking {
            breaks: u32::MAX,
            ..Breaking::default()
        };
        let error = follow(&broken, "1", progress).await.expect_err("none");
        assert!(error.message.contains("is away"), "{error:?}");
        assert!(error.hints[0].contains("--attach 1"), "{error:?}");
    }
}
