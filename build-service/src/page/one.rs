//! One build: what it is about, its steps with their log, and its image.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, TryStreamExt as _};
use imagespec_build_api::{Build, Outcome, Scope, State};
use imagespec_core::builder::BuiltImage;
use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, Cause};
use maud::{Markup, html};
use serde::Deserialize;

use super::list::{badge, took};
use super::steps::{Step, Story};
use super::{Trouble, Visitor, bytes, duration, frame, moment};
use crate::api::{self, Refusal};
use crate::builds;
use crate::clock::now;
use crate::service::Service;

pub(super) async fn show(
    Shared(service): Shared<Arc<Service>>,
    Visitor(caller): Visitor,
    Path(id): Path<String>,
) -> Result<Markup, Trouble> {
    let build = builds::find(&service.database, &caller.project, &id).await?;
    let build = build.ok_or_else(|| Refusal::absent("there is no such build"))?;
    let mut story = Story::default();
    let mut events = std::pin::pin!(api::so_far(Arc::clone(&service), id));
    while let Some((number, happened)) = events.try_next().await? {
        story.take(number, happened);
    }
    let is_over = build.state.is_final();
    let may = caller.needs(Scope::Build).is_ok();
    let body = html! {
        div.title {
            h1 { (build.image) " " (badge(build.state)) }
            @if may {
                form method="post" action={ "/builds/" (build.id) "/" (if is_over { "retry" } else { "cancel" }) } {
                    button { (if is_over { "Build again" } else { "Cancel" }) }
                }
            }
        }
        (facts(&build))
        @match &build.outcome {
            Some(Outcome::Error(error)) => (failure(error)),
            _ => {}
        }
        @for notice in &story.notices { p.notice { (notice) } }
        section aria-labelledby="steps" {
            div.title {
                h2 id="steps" { "Steps" }
                label.search hidden { "Search the log " input id="search" type="search" accesskey="s"; }
            }
            @if is_over { (timeline(&build, &story.steps)) }
            div id="story" data-events={ "/builds/" (build.id) "/events" } data-after=(story.last) data-live[!is_over] {
                @for step in &story.steps { (one(step, build.state)) }
            }
        }
        @if let Some(Outcome::Image(image)) = &build.outcome { (layers(image)) }
    };
    Ok(frame(&build.image, Some(&caller), !is_over, &body))
}

fn facts(build: &Build) -> Markup {
    html! {
        dl.facts {
            dt { "Reference" } dd { code { (build.reference) } }
            @if let Some(digest) = digest(build) {
                dt { "Digest" } dd { code { (digest) } }
            }
            dt { "Asked for" } dd { (moment(build.created)) " by " (build.who) }
            @if build.ended.is_some() { dt { "Took" } dd { (took(build)) } }
            @if build.attempts > 1 { dt { "Workers" } dd { (build.attempts) ", as some were lost" } }
            dt { "Build" } dd { code { (build.id) } }
        }
    }
}

fn digest(build: &Build) -> Option<&Digest> {
    match build.outcome.as_ref()? {
        Outcome::Image(image) => image.digest.as_ref(),
        Outcome::Error(_) => None,
    }
}

fn failure(error: &BuildError) -> Markup {
    fn causes(cause: Option<&Cause>) -> Markup {
        html! {
            @if let Some(cause) = cause {
                li { pre { (cause.message) } }
                (causes(cause.source.as_deref()))
            }
        }
    }
    html! {
        div.error role="alert" {
            p { (error.message) }
            @if error.source.is_some() { ul { (causes(error.source.as_deref())) } }
            @for hint in &error.hints { p.hint { (hint) } }
        }
    }
}

fn one(step: &Step, build: State) -> Markup {
    let state = match (step.ended, build) {
        (Some(_), _) if step.is_cached => "cached",
        (Some(_), _) | (None, State::Done) => "done",
        (None, State::Queued | State::Running) => "running",
        (None, State::Failed | State::Cancelled) => "failed",
    };
    html! {
        details.step.(state) data-step=(step.name) open[state == "failed" && !step.lines.is_empty()] {
            summary {
                span.name { (step.title) }
                span.summary { (step.summary) }
                span.took { @if state == "cached" { "reused" } @else if let Some(ended) = step.ended { (duration(ended - step.started)) } }
            }
            pre.log tabindex="0" {
                @for line in &step.lines { span { (line) "\n" } }
                @if step.left_out > 0 { span { "… and " (step.left_out) " lines more\n" } }
            }
        }
    }
}

/// The steps as bars over time.
fn timeline(build: &Build, steps: &[Step]) -> Markup {
    let Some(started) = build.started else {
        return html! {};
    };
    let end = build.ended.unwrap_or_else(now);
    let first = steps.iter().map(|step| step.started).min();
    let begin = first.unwrap_or(started).min(started);
    let span = (end - begin).max(1);
    // In thousandths of the width.
    let place = |at: i64| (at - begin).clamp(0, span) * 1000 / span;
    let height = 14 * i64::try_from(steps.len()).unwrap_or_default();
    html! {
        @if !steps.is_empty() {
            svg.timeline width="100%" height=(height) viewBox={ "0 0 1000 " (height) } preserveAspectRatio="none" role="img" aria-label={ "Steps over " (duration(span)) } {
                @for (at, step) in (0_i64..).zip(steps) {
                    @let left = place(step.started);
                    @let right = place(step.ended.unwrap_or(end));
                    rect.(if step.is_cached { "cached" } else { "done" }) x=(left) y=(at * 14 + 2) width=((right - left).max(2)) height="10" {
                        title { (step.title) ": " (duration(step.ended.unwrap_or(end) - step.started)) }
                    }
                }
            }
            p.scale { span { "0" } span { (duration(span)) } }
        }
    }
}

/// The layers by their sizes.
fn layers(image: &BuiltImage) -> Markup {
    let largest = image.layers.iter().map(|layer| layer.size).max();
    let largest = largest.unwrap_or(0).max(1);
    html! {
        section aria-labelledby="layers" {
            h2 id="layers" { "Layers" }
            @if image.layers.is_empty() {
                p { "The image was there already." }
            } @else {
                p { (image.layers.len()) " layers, " (bytes(image.size)) " compressed, " (bytes(image.pushed_bytes)) " sent to the registry" }
                ol.layers {
                    @for layer in &image.layers {
                        li {
                            span.from { (layer.created_by) }
                            svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                                rect x="0" y="0" height="10" width=((layer.size.saturating_mul(1000) / largest).max(2)) {}
                            }
                            span.size { (bytes(layer.size)) }
                        }
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: i64,
}

/// What happens from here on, for the page's script.
pub(super) async fn follow(
    Shared(service): Shared<Arc<Service>>,
    Visitor(caller): Visitor,
    Path(id): Path<String>,
    Query(asked): Query<After>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let build = builds::find(&service.database, &caller.project, &id).await?;
    let build = build.ok_or_else(|| Refusal::absent("there is no such build"))?;
    let last = headers.get("last-event-id");
    let last = last.and_then(|last| last.to_str().ok()?.parse().ok());
    let after = last.unwrap_or(asked.after);
    Ok(api::stream_of(service, &build, after))
}
