//! Who looks at pages: a token in a cookie that scripts cannot read and other sites cannot send.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Trouble, frame, same_site};
use crate::api::{Caller, Refusal};
use crate::service::Service;

/// The cookies with the token and the project of whoever looks.
const TOKEN: &str = "imagespec_token";
const PROJECT: &str = "imagespec_project";
/// For how long a browser knows it, in seconds: a week.
const AGE: u32 = 604_800;

/// The token's secret and the project of whoever asks.
pub(super) fn of(headers: &HeaderMap) -> (Option<String>, Option<String>) {
    let value = |name: &str| {
        let cookies = headers.get_all(COOKIE).into_iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split("; "));
        pairs.find_map(|pair| {
            let value = pair.strip_prefix(name)?.strip_prefix('=')?;
            (!value.is_empty()).then(|| value.to_owned())
        })
    };
    (value(TOKEN), value(PROJECT))
}

fn page(problem: Option<&str>) -> Markup {
    let body = html! {
        h1 { "Log in" }
        @if let Some(problem) = problem { p.error role="alert" { (problem) } }
        form.login action="/login" method="post" {
            input type="hidden" name="username" value="imagespec" autocomplete="username";
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
            label for="project" { "Project " small { "(only with a token that is for all)" } }
            input id="project" name="project" autocomplete="off";
            button.primary { "Log in" }
        }
    };
    frame("Log in", None, false, &body)
}

pub(super) async fn ask() -> Markup {
    page(None)
}

#[derive(Deserialize)]
pub(super) struct Entry {
    token: String,
    #[serde(default)]
    project: String,
}

pub(super) async fn enter(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Form(entry): Form<Entry>,
) -> Result<Response, Trouble> {
    same_site(&headers)?;
    let project = Some(entry.project.trim()).filter(|project| !project.is_empty());
    match Caller::of(&service, Some(entry.token.trim()), project).await {
        Ok(_) => {
            let token = cookie(TOKEN, entry.token.trim(), AGE)?;
            let project = cookie(PROJECT, project.unwrap_or_default(), AGE)?;
            Ok(with(Redirect::to("/"), [token, project]))
        }
        Err(refusal) => {
            let problem = refusal.error.message.clone();
            Ok((StatusCode::FORBIDDEN, page(Some(&problem))).into_response())
        }
    }
}

pub(super) async fn leave(headers: HeaderMap) -> Result<Response, Trouble> {
    same_site(&headers)?;
    let gone = [cookie(TOKEN, "", 0)?, cookie(PROJECT, "", 0)?];
    Ok(with(Redirect::to("/login"), gone))
}

fn with(redirect: Redirect, cookies: [HeaderValue; 2]) -> Response {
    let mut response = redirect.into_response();
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn cookie(name: &str, value: &str, age: u32) -> Result<HeaderValue, Trouble> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !value.chars().all(plain) {
        return Err(Trouble(Refusal::unknown()));
    }
    let cookie = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&cookie).map_err(|_| Trouble(Refusal::unknown()))
}
