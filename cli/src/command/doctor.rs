//! What building needs: what `native` does, and the builders that the active deployment has options for.

use std::collections::BTreeSet;

use imagespec_builder_native::{Finding, State, examine};
use imagespec_core::builder::Availability;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::registry::Registry;
use serde_json::json;

use super::{Context, builders};
use crate::report::{print, print_json};

/// Prints a line a finding, and one a fix. Exit code 3 says that something needed does not work.
pub(super) async fn doctor(
    cx: &Context,
    builder: Option<&str>,
    json: bool,
) -> Result<u8, BuildError> {
    let mut findings = examine(&cx.host, &cx.project.places()).await;
    findings.extend(set_up(cx, builder).await?);
    let works = findings
        .iter()
        .all(|finding| finding.state != State::Broken);
    if json {
        print_json(&json!({ "works": works, "findings": findings }))?;
    } else {
        for finding in &findings {
            print(&text(finding))?;
        }
    }
    Ok(if works {
        0
    } else {
        ErrorKind::Unavailable.exit_code()
    })
}

/// The builders that the active deployment has options for, and the one that has to work.
async fn set_up(cx: &Context, needed: Option<&str>) -> Result<Vec<Finding>, BuildError> {
    let registry = Registry::linked()?;
    let options = builders::options(cx)?;
    let needed = match needed {
        Some(name) => Some(crate::builders::find(&registry, &cx.host, name)?.name),
        None => None,
    };
    let names: BTreeSet<&str> = options.keys().map(String::as_str).chain(needed).collect();
    let mut findings = Vec::new();
    for name in names {
        let availability = match crate::builders::find(&registry, &cx.host, name) {
            Ok(entry) => builders::look(cx, entry, &options).await.availability,
            Err(error) => Availability::missing(&error),
        };
        let (state, detail, fixes) = match availability {
            Availability::Ready { detail } => (State::Fine, detail, Vec::new()),
            Availability::Missing { reason, hint } => {
                let state = if needed == Some(name) {
                    State::Broken
                } else {
                    State::Absent
                };
                (state, reason, vec![hint])
            }
        };
        findings.push(Finding {
            name: format!("builder {name}"),
            state,
            detail,
            fixes,
        });
    }
    Ok(findings)
}

fn text(finding: &Finding) -> String {
    let state = match finding.state {
        State::Fine => "ok",
        State::Absent => "absent",
        State::Broken => "broken",
    };
    let mut text = format!("{state:<7} {}: {}", finding.name, finding.detail);
    for fix in &finding.fixes {
        text.push_str("\n        fix: ");
        text.push_str(&fix.replace('\n', "\n        "));
    }
    text
}
