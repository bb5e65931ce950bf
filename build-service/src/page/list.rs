//! All builds of a project.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use imagespec_build_api::{Build, Outcome, State as At};
use maud::{Markup, html};

use super::{Trouble, Visitor, duration, frame, moment};
use crate::builds;
use crate::clock::now;
use crate::service::Service;

/// What the form asks for: as the API, but an empty field asks for nothing.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default)]
    text: String,
    before: Option<String>,
}

pub(super) async fn show(
    State(service): State<Arc<Service>>,
    Visitor(caller): Visitor,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Markup, Trouble> {
    let asked = asked.map(|Query(asked)| asked).unwrap_or_default();
    let query = builds::Query {
        state: At::of(&asked.state),
        text: Some(asked.text.clone()).filter(|text| !text.is_empty()),
        before: asked.before,
        limit: None,
    };
    let listed = builds::list(&service.database, &caller.project, &query).await?;
    let is_busy = listed.builds.iter().any(|build| !build.state.is_final());
    let states = ["queued", "running", "done", "failed", "cancelled"];
    let body = html! {
        h1 { "Builds" }
        form.filter method="get" action="/" role="search" {
            label { "Image " input name="text" type="search" value=(asked.text); }
            label { "State "
                select name="state" {
                    option value="" { "any" }
                    @for state in states {
                        option value=(state) selected[asked.state == state] { (state) }
                    }
                }
            }
            button { "Show" }
        }
        @if listed.builds.is_empty() {
            p.empty { "No builds. " code { "imagespec build --builder union" } " makes one." }
        } @else {
            table data-refresh[is_busy] {
                thead { tr { th { "State" } th { "Image" } th { "Who" } th { "When" } th.number { "Took" } th.number { "Reused" } } }
                tbody {
                    @for build in &listed.builds { (row(build)) }
                }
            }
        }
        @if let Some(next) = &listed.next {
            p { a.more href={ "/?before=" (next) "&state=" (asked.state) "&text=" (urlencoded(&asked.text)) } { "Older builds" } }
        }
    };
    Ok(frame("Builds", Some(&caller), is_busy, &body))
}

fn row(build: &Build) -> Markup {
    html! {
        tr {
            td { (badge(build.state)) }
            td.image { a href={ "/builds/" (build.id) } { (build.image) } small { (build.reference) } }
            td { (build.who) }
            td { time datetime=(build.created) { (moment(build.created)) } }
            td.number data-name="took" { (took(build)) }
            td.number data-name="reused" { (reused(build)) }
        }
    }
}

/// A state, told by its name and not only by its colour.
pub(super) fn badge(state: At) -> Markup {
    html! { span.state.(state.name()) { (state.name()) } }
}

/// How long a build took, or has taken so far.
pub(super) fn took(build: &Build) -> String {
    match (build.started, build.ended) {
        (Some(started), Some(ended)) => duration(ended - started),
        (Some(started), None) => duration(now() - started),
        (None, _) => String::new(),
    }
}

/// How many layers did not have to be written.
fn reused(build: &Build) -> String {
    let Some(Outcome::Image(image)) = &build.outcome else {
        return String::new();
    };
    if !image.built {
        return "all".to_owned();
    }
    let layers = image.layers.len() as u64;
    match image.work {
        Some(work) => format!("{} of {layers}", layers.saturating_sub(work.layers_written)),
        None => String::new(),
    }
}

fn urlencoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
