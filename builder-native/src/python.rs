//! Python packages: locked, fetched, written as layers.

use std::collections::BTreeMap;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{PackageIndex, Requirements};
use imagespec_oci::cache::Layer;
use imagespec_python::fetch;
use imagespec_python::layers::{self, Group, Member};
use imagespec_python::lock::{Lock, LockRequest, LockedWheel, Target, lock};
use imagespec_python::venv::{self, Venv};
use imagespec_python::wheel::Layout;

use crate::assemble::{Assembly, Draft};

/// glibc of the Debian releases we know.
const GLIBC: [(&str, (u32, u32)); 3] = [
    ("bullseye", (2, 31)),
    ("bookworm", (2, 36)),
    ("trixie", (2, 41)),
];

impl Assembly<'_> {
    pub(crate) async fn python_packages(
        &self,
        draft: &mut Draft,
        requirements: Option<&Requirements>,
        packages: &[String],
        index: &PackageIndex,
    ) -> Result<(), BuildError> {
        let python = draft.provenance.python;
        let layout = Layout {
            python: format!("3.{python}"),
        };
        if !draft.provenance.venv {
            draft.layers.push(self.venv(&layout).await?);
            draft.provenance.venv = true;
        }
        let suite = draft.provenance.suite.as_str();
        let glibc = GLIBC
            .iter()
            .find(|(known, _)| *known == suite)
            .map_or((2, 17), |(_, glibc)| *glibc);
        let target = Target {
            python,
            platform: draft.platform.clone(),
            glibc,
        };
        let step = self.cx.progress.step(
            format!("resolve {}", draft.platform),
            "resolve Python packages",
        );
        let request = LockRequest {
            requirements,
            packages,
            index,
            entries: &self.plan.files,
            files: self.cx.files,
            target: &target,
            refresh: self.cx.settings.force,
        };
        let (lock, cached) = lock(&self.native.host, request).await?;
        step.finish(cached, format!("{} packages", lock.wheels.len()));
        self.wheels(draft, &lock, &layout).await
    }

    async fn venv(&self, layout: &Layout) -> Result<Layer, BuildError> {
        let venv = Venv {
            interpreter: format!("/usr/bin/python{}", layout.python),
            python: layout.python.clone(),
            system_site_packages: false,
        };
        let mut key = Framed::new("imagespec venv");
        key.number(venv::RECIPE.into())
            .text(&venv.interpreter)
            .text(&venv.python);
        let key = self.layers.key(&key.finish());
        match self.layers.get(&key) {
            Some(layer) => Ok(layer),
            None => {
                self.layers
                    .write(Some(key), "virtual environment".to_owned(), move |layer| {
                        Ok(venv::write(&venv, layer)?)
                    })
                    .await
            }
        }
    }

    async fn wheels(
        &self,
        draft: &mut Draft,
        lock: &Lock,
        layout: &Layout,
    ) -> Result<(), BuildError> {
        let members: Vec<_> = lock
            .wheels
            .iter()
            .map(|wheel| Member {
                name: wheel.name.clone(),
                version: wheel.version.clone(),
                digest: wheel.digest,
                size: wheel.size.unwrap_or(0),
            })
            .collect();
        let groups = layers::group(&members);
        let keys: Vec<_> = groups
            .iter()
            .map(|group| {
                layers::key(
                    group.members.iter().map(|member| &members[*member]),
                    layout,
                    self.cx.settings.compression,
                )
            })
            .collect();
        let bytecode = self.bytecode(draft, layout, &keys).await?;
        let mut known: BTreeMap<usize, Layer> = BTreeMap::new();
        let mut needed: Vec<LockedWheel> = Vec::new();
        for (at, (group, key)) in groups.iter().zip(&keys).enumerate() {
            let layer = self.layers.get(key);
            let compiled = bytecode.as_ref().is_none_or(|bytecode| bytecode.has(at));
            if layer.is_none() || !compiled {
                needed.extend(
                    group
                        .members
                        .iter()
                        .map(|member| lock.wheels[*member].clone()),
                );
            }
            known.extend(layer.map(|layer| (at, layer)));
        }
        self.fetch(draft, &needed).await?;
        let step = self.cx.progress.step(
            format!("layers {}", draft.platform),
            format!("{} layers of wheels", groups.len()),
        );
        let cached = known.len() == groups.len();
        let one = |(at, group): (usize, &Group)| {
            let (known, key, title) = (known.get(&at).cloned(), keys[at], group.title.clone());
            let layout = layout.clone();
            let files: Vec<_> = group
                .members
                .iter()
                .map(|member| fetch::cached(&self.native.host, &lock.wheels[*member]))
                .collect();
            async move {
                if let Some(layer) = known {
                    return Ok(layer);
                }
                let fill = move |layer: &mut _| {
                    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
                    Ok(layers::write(&files, &layout, layer)?)
                };
                let written = self.layers.write(Some(key), title.clone(), fill).await;
                written.map_err(|error: BuildError| {
                    error
                        .context(format!("cannot install: {title}"))
                        .field("requirements")
                })
            }
        };
        let jobs = self.cx.settings.jobs.max(1);
        let made: Vec<Layer> = stream::iter(groups.iter().enumerate().map(one))
            .buffered(jobs)
            .try_collect()
            .await?;
        let size: u64 = made.iter().map(|layer| layer.size).sum();
        step.finish(cached, format!("{} MB", size / 1_000_000));
        draft.layers.extend(made);
        if let Some(bytecode) = bytecode {
            let files = |group: &Group| {
                group
                    .members
                    .iter()
                    .map(|member| fetch::cached(&self.native.host, &lock.wheels[*member]))
                    .collect()
            };
            draft.layers.extend(
                bytecode
                    .layers(
                        groups
                            .iter()
                            .map(|group| (group.title.clone(), files(group)))
                            .collect(),
                    )
                    .await?,
            );
        }
        Ok(())
    }

    async fn fetch(&self, draft: &Draft, wheels: &[LockedWheel]) -> Result<(), BuildError> {
        let missing: Vec<_> = wheels
            .iter()
            .filter(|wheel| !fetch::cached(&self.native.host, wheel).is_file())
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let step = self.cx.progress.step(
            format!("fetch {}", draft.platform),
            format!("fetch {} wheels", missing.len()),
        );
        let total = missing.iter().map(|wheel| wheel.size).sum();
        let advance = |done: u64| step.advance(done, total);
        let bytes = fetch::fetch(&self.native.host, &self.http, &missing, 8, &advance).await?;
        step.finish(false, format!("{:.1} MB", crate::deliver::megabytes(bytes)));
        Ok(())
    }
}
