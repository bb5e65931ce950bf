//! The builders, what they can do, and whether each works here.

use std::collections::BTreeSet;

use futures::future::join_all;
use imagespec_core::builder::{Availability, BuilderConfig, Capability, CapabilitySet};
use imagespec_core::error::BuildError;
use imagespec_core::registry::{BuilderEntry, Registry};
use serde_json::{Map, Value, json};

use super::Context;
use crate::report::{Table, print, print_json};

struct Found<'a> {
    entry: &'a BuilderEntry,
    able: CapabilitySet,
    availability: Availability,
}

pub(super) async fn builders(cx: &Context, json: bool) -> Result<u8, BuildError> {
    let registry = Registry::linked()?;
    let found = join_all(registry.entries().map(|entry| look(cx, entry))).await;
    let found: Vec<_> = found.into_iter().collect::<Result<_, _>>()?;
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

async fn look<'a>(cx: &Context, entry: &'a BuilderEntry) -> Result<Found<'a>, BuildError> {
    let builder = (entry.create)(BuilderConfig {
        host: &cx.host,
        options: &Map::new(),
    })?;
    Ok(Found {
        entry,
        able: builder.capabilities(),
        availability: builder.probe().await,
    })
}

fn document(found: &Found<'_>) -> Value {
    let entry = found.entry;
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

fn table(found: &[Found<'_>]) -> Table {
    let mut table = Table::new(["name", "aliases", "works here", "because", "builds with"]);
    for Found {
        entry,
        availability,
        ..
    } in found
    {
        let (works, because) = match availability {
            Availability::Ready { detail } => ("yes", detail.clone()),
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
fn abilities(found: &[Found<'_>]) -> Table {
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
