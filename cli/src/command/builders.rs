//! The builders, what they can do, and whether each works here.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use imagespec_core::builder::{Availability, BuilderConfig, Capability, CapabilitySet};
use imagespec_core::error::BuildError;
use imagespec_core::registry::{BuilderEntry, Registry};
use serde_json::{Map, Value, json};

use super::Context;
use crate::builders;
use crate::env;
use crate::report::{Table, print, print_json};

pub(super) struct Found {
    entry: BuilderEntry,
    able: CapabilitySet,
    pub(super) availability: Availability,
}

pub(super) async fn builders(cx: &Context, json: bool) -> Result<u8, BuildError> {
    let registry = Registry::linked()?;
    let options = options(cx)?;
    let all = builders::all(&registry, &cx.host);
    let found = join_all(all.into_iter().map(|entry| look(cx, entry, &options))).await;
    if json {
        let documents: Vec<_> = found.iter().map(document).collect();
        print_json(&json!({ "builders": documents }))?;
    } else {
        print(&table(&found).render())?;
        print("")?;
        print(&abilities(&found).render())?;
    }
    Ok(0)
}

/// The options of builders in the active deployment, by their names.
pub(super) type Options = BTreeMap<String, Map<String, Value>>;

/// The options of the active deployment.
pub(super) fn options(cx: &Context) -> Result<Options, BuildError> {
    let deployment = cx.project.deployment(cx.variable(env::DEPLOYMENT))?;
    Ok(deployment.builders)
}

/// What a builder with the options of a deployment says of this machine.
pub(super) async fn look(cx: &Context, entry: BuilderEntry, options: &Options) -> Found {
    let none = Map::new();
    let made = (entry.create)(BuilderConfig {
        name: entry.name,
        host: &cx.host,
        options: options.get(entry.name).unwrap_or(&none),
    });
    match made {
        Ok(builder) => Found {
            entry,
            able: builder.capabilities(),
            availability: builder.probe().await,
        },
        // A program that is none of ours must not hide the others.
        Err(error) => Found {
            entry,
            able: CapabilitySet::new(),
            availability: Availability::missing(&error),
        },
    }
}

fn document(found: &Found) -> Value {
    let entry = &found.entry;
    let options = entry.options.iter();
    let options: Map<_, _> = options
        .map(|(name, meaning)| ((*name).to_owned(), json!(meaning)))
        .collect();
    json!({
        "name": entry.name,
        "aliases": entry.aliases,
        "summary": entry.summary,
        "fallback": entry.fallback,
        "options": options,
        "capabilities": found.able,
        "availability": found.availability,
    })
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new(["name", "aliases", "works here", "because", "builds with"]);
    for Found {
        entry,
        availability,
        ..
    } in found
    {
        let (works, because) = match availability {
            Availability::Ready { detail } => ("yes", detail.clone()),
            Availability::Missing { reason, hint } if hint.is_empty() => ("no", reason.clone()),
            Availability::Missing { reason, hint } => ("no", format!("{reason}; {hint}")),
        };
        table.row([
            entry.name.to_owned(),
            entry.aliases.join(", "),
            works.to_owned(),
            because,
            entry.summary.to_owned(),
        ]);
    }
    table
}

/// A row a capability that any builder has, a column a builder.
fn abilities(found: &[Found]) -> Table {
    let names = found.iter().map(|found| found.entry.name);
    let mut table = Table::new(std::iter::once("can").chain(names));
    let all: BTreeSet<Capability> = found.iter().flat_map(|found| found.able.clone()).collect();
    for capability in all {
        let has = found.iter().map(|found| {
            let mark = if found.able.contains(&capability) {
                "yes"
            } else {
                "-"
            };
            mark.to_owned()
        });
        table.row(std::iter::once(capability.name()).chain(has));
    }
    table
}
