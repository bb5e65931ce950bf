//! Builds as pages: rendered here, without anything from elsewhere, and of use without scripts.

mod list;
mod login;
mod one;
mod steps;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};

use crate::api::{self, Caller, Refusal};
use crate::service::Service;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("follow.js");
/// What a page may load and do.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(crate) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route("/", get(list::show))
        .route("/login", get(login::ask).post(login::enter))
        .route("/logout", post(login::leave))
        .route("/builds/{id}", get(one::show))
        .route("/builds/{id}/events", get(one::follow))
        .route("/builds/{id}/cancel", post(cancel))
        .route("/builds/{id}/retry", post(retry))
        .route(
            "/style.css",
            get(async || asset("text/css; charset=utf-8", STYLE)),
        )
        .route(
            "/follow.js",
            get(async || asset("text/javascript; charset=utf-8", SCRIPT)),
        )
        .layer(map_response(guarded))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whoever looks at a page, by the token in a cookie. Others are asked for one.
struct Visitor(Caller);

impl FromRequestParts<Arc<Service>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<Service>,
    ) -> Result<Self, Response> {
        let (secret, project) = login::of(&parts.headers);
        match Caller::of(service, secret.as_deref(), project.as_deref()).await {
            Ok(caller) => Ok(Self(caller)),
            Err(refusal) if refusal.is_unknown() => Err(Redirect::to("/login").into_response()),
            Err(refusal) => Err(Trouble(refusal).into_response()),
        }
    }
}

/// A refusal as a page.
struct Trouble(Refusal);

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let error = self.0.error.clone();
        let status = self.0.into_response().status();
        let body = html! {
            h1 { (status.canonical_reason().unwrap_or("Trouble")) }
            p.error { (error.message) }
            @for hint in &error.hints { p { (hint) } }
            p { a href="/" { "All builds" } }
        };
        (status, frame("Trouble", None, false, &body)).into_response()
    }
}

/// Refuses a form that another site sent, as far as cookies do not.
fn same_site(headers: &HeaderMap) -> Result<(), Trouble> {
    let site = headers.get("sec-fetch-site");
    if site.is_none_or(|site| site == "same-origin" || site == "none") {
        return Ok(());
    }
    Err(Trouble(Refusal::forbidden("the form is of another site")))
}

async fn cancel(
    State(service): State<Arc<Service>>,
    Visitor(caller): Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Redirect, Trouble> {
    same_site(&headers)?;
    api::stop(&service, &caller, &id).await?;
    Ok(Redirect::to(&format!("/builds/{id}")))
}

async fn retry(
    State(service): State<Arc<Service>>,
    Visitor(caller): Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Redirect, Trouble> {
    same_site(&headers)?;
    let accepted = api::again(&service, &caller, &id).await?;
    Ok(Redirect::to(&format!("/builds/{}", accepted.id)))
}

/// A whole page. One that is `fresh` comes again by itself where no script keeps it up to date.
fn frame(title: &str, caller: Option<&Caller>, fresh: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · imagespec" }
                link rel="stylesheet" href="/style.css";
                @if fresh { noscript { meta http-equiv="refresh" content="5"; } }
                script src="/follow.js" defer {}
            }
            body {
                header {
                    a.home href="/" { "imagespec" }
                    @if let Some(caller) = caller {
                        span.project { "project " b { (caller.project) } }
                        form action="/logout" method="post" {
                            span { (caller.token.name) }
                            button { "Log out" }
                        }
                    }
                }
                main { (body) }
            }
        }
    }
}

/// Milliseconds as a person says them.
fn duration(milliseconds: i64) -> String {
    let milliseconds = milliseconds.max(0);
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A moment as machines and people write it, in UTC.
fn moment(milliseconds: i64) -> String {
    let since = u64::try_from(milliseconds).unwrap_or_default();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(since);
    httpdate::fmt_http_date(time)
}

/// Bytes as a person says them.
#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn bytes(number: u64) -> String {
    match number {
        0..1000 => format!("{number} B"),
        1000..1_000_000 => format!("{:.1} kB", number as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        _ => format!("{:.2} GB", number as f64 / 1e9),
    }
}
