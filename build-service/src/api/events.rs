//! What happens in a build, as it happens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, TryStreamExt as _, stream};
use imagespec_build_api::{Build, Failure, Happened};

use super::{Caller, Refusal, builds::found};
use crate::builds;
use crate::service::Service;

/// Events that are read at once.
const PAGE: i64 = 500;
/// How long nothing is heard of a build that another service works on.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Follows a build
///
/// A stream of server-sent events: an event `build` for everything that happened, with its number as id, and at the end
/// one `end` with the build. `Last-Event-ID` goes on after that number.
#[utoipa::path(
    get, path = "/v1/builds/{id}/events", operation_id = "followBuild", tag = "builds",
    params(
        ("id" = String, Path, description = "The build"),
        ("last-event-id" = Option<u32>, Header, description = "Number of the last event that is known"),
    ),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = "4XX", description = "Refused", body = Failure),
        (status = "5XX", description = "Failed", body = Failure),
    ),
)]
pub(super) async fn follow(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let build = found(&service, &caller, &id).await?;
    let after = headers.get("last-event-id");
    let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
    Ok(stream_of(service, &build, after.unwrap_or(0)))
}

/// The events of a build after one, as a browser takes them.
pub(crate) fn stream_of(
    service: Arc<Service>,
    build: &Build,
    after: i64,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let follower = Follower {
        project: build.project.clone(),
        id: build.id.clone(),
        after,
        ready: VecDeque::new(),
        is_over: false,
        service,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let next = follower.next().await?;
        Some((Ok(next), follower))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

struct Follower {
    service: Arc<Service>,
    project: String,
    id: String,
    after: i64,
    ready: VecDeque<Event>,
    is_over: bool,
}

impl Follower {
    /// The next event. A database that fails ends the stream: whoever follows asks again.
    async fn next(&mut self) -> Option<Event> {
        let notify = self.service.follow(&self.id);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over || self.service.ending.is_cancelled() {
                return None;
            }
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let database = &self.service.database;
            // Everything is told before a build ends.
            let build = builds::find(database, &self.project, &self.id)
                .await
                .ok()??;
            let events = builds::events(database, &self.id, self.after, PAGE);
            for (number, happened) in events.await.ok()? {
                self.after = number;
                let event = Event::default().event("build").id(number.to_string());
                self.ready.push_back(event.json_data(happened).ok()?);
            }
            if !self.ready.is_empty() {
                continue;
            }
            if build.state.is_final() {
                self.is_over = true;
                let event = Event::default().event("end");
                self.ready.push_back(event.json_data(build).ok()?);
                continue;
            }
            let ending = self.service.ending.cancelled();
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep(ELSEWHERE) => {}
                () = ending => {}
            }
        }
    }
}

/// What has happened so far, with its numbers.
pub(crate) fn so_far(
    service: Arc<Service>,
    id: String,
) -> impl Stream<Item = Result<(i64, Happened), sqlx::Error>> + Send + 'static {
    let pages = stream::try_unfold((service, id, 0), |(service, id, after)| async move {
        let events = builds::events(&service.database, &id, after, PAGE).await?;
        let last = events.last().map(|(number, _)| *number);
        Ok::<_, sqlx::Error>(last.map(|last| {
            let events = stream::iter(events.into_iter().map(Ok));
            (events, (service, id, last))
        }))
    });
    pages.try_flatten()
}
