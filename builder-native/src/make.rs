//! From a recipe to a layer in the store.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use imagespec_conda::layers as conda;
use imagespec_core::context::Compression;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_debian::{Archive, Package, layers, state};
use imagespec_oci::cache::Layer;
use imagespec_python::layers::Member;
use imagespec_python::lock::LockedWheel;
use imagespec_python::{bytecode, fetch, layers as wheels, standalone, venv};

use crate::accounts;
use crate::assemble::Assembly;
use crate::layers::Fill;
use crate::lazy::count;
use crate::recipe::{Commands, Interpreter, LazyLayer, Recipe};

impl Assembly<'_> {
    /// Writes the layer of a recipe, after fetching what it is made from.
    pub(crate) async fn write(
        &self,
        below: &[LazyLayer],
        recipe: &Recipe,
    ) -> Result<Layer, BuildError> {
        let cancel = self.cx.cancel.clone();
        let (layers, recipe) = match recipe {
            Recipe::Owned { uid, gid, recipe } => (self.layers.owned_by((*uid, *gid)), &**recipe),
            recipe => (self.layers.clone(), recipe),
        };
        let fill: Fill = match recipe {
            Recipe::Debian(plan) => {
                let (plan, archive) = (plan.clone(), self.archive()?);
                self.fetch_packages(&archive, &plan.members).await?;
                Box::new(move |layer| {
                    let file = |package: &Package| archive.package_file(package);
                    Ok(layers::write(&plan, &file, layer, &cancel)?)
                })
            }
            Recipe::State(packages) => {
                let (packages, archive) = (packages.clone(), self.archive()?);
                self.fetch_packages(&archive, &packages).await?;
                Box::new(move |layer| {
                    let file = |package: &Package| archive.package_file(package);
                    Ok(state::write(&packages, &file, layer, &cancel)?)
                })
            }
            Recipe::Accounts(files) => {
                let files = files.clone();
                Box::new(move |layer| Ok(accounts::write(&files, layer)?))
            }
            Recipe::Standalone(python) => {
                let host = &self.native.host;
                standalone::fetch(host, python).await?;
                let archive = standalone::cached(host, python);
                Box::new(move |layer| Ok(standalone::write(&archive, layer)?))
            }
            Recipe::Venv(venv) => {
                let venv = venv.clone();
                Box::new(move |layer| Ok(venv::write(&venv, layer)?))
            }
            Recipe::Wheels { wheels, layout, .. } => {
                let (files, layout) = (self.files(wheels), layout.clone());
                Box::new(move |layer| {
                    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
                    Ok(wheels::write(&files, &layout, layer)?)
                })
            }
            Recipe::Bytecode {
                wheels,
                layout,
                interpreter,
                ..
            } => {
                let files = self.files(wheels);
                self.compiled(below, interpreter, files, layout).await?
            }
            Recipe::StandardLibrary(interpreter) => {
                self.compiled_standard_library(below, interpreter).await?
            }
            Recipe::Copy { field, from, to } => {
                // On this task's thread, since the files are only lent; they are small beside packages.
                return tokio::task::block_in_place(|| {
                    layers.write_here(recipe.title(), |layer| self.copied(layer, field, from, to))
                });
            }
            Recipe::Commands(commands) => {
                let title = recipe.title();
                return self.run_commands(below, title, commands).await;
            }
            Recipe::Trigger(trigger) => {
                return self.run_trigger(below, recipe.title(), trigger).await;
            }
            Recipe::Conda {
                packages, layout, ..
            } => self.conda_layer(packages, layout).await?,
            Recipe::CondaRecords {
                packages,
                layout,
                specs,
            } => self.conda_records(packages, layout, specs).await?,
            Recipe::CondaScripts(packages) => {
                return self.conda_scripts(below, recipe.title(), packages).await;
            }
            Recipe::Apt { added, .. } => return self.install(below, recipe, added).await,
            Recipe::Owned { .. } => return Err(BuildError::failed("a layer has two owners")),
        };
        let title = recipe.title();
        let written = layers.write(title.clone(), fill).await;
        written.map_err(|error| match recipe {
            Recipe::Wheels { .. } => error
                .context(format!("cannot install: {title}"))
                .field("requirements"),
            _ => error,
        })
    }

    pub(crate) fn archive(&self) -> Result<Archive, BuildError> {
        let (host, options) = (&self.native.host, &self.native.archive);
        Ok(Archive::open(self.http.clone(), host, options)?)
    }

    /// Fetches the Debian packages that are not here.
    pub(crate) async fn fetch_packages(
        &self,
        archive: &Archive,
        packages: &[Package],
    ) -> Result<(), BuildError> {
        let absent = |package: &&Package| !archive.package_file(package).is_file();
        let missing: Vec<_> = packages.iter().filter(absent).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let title = format!("fetch {} Debian packages", missing.len());
        let step = self.cx.progress.step(title.clone(), title);
        let total: u64 = missing.iter().map(|package| package.size).sum();
        let done = AtomicU64::new(0);
        let advance = |bytes: u64| {
            let before = done.fetch_add(bytes, Ordering::Relaxed);
            step.advance(before + bytes, Some(total));
        };
        archive.fetch(&missing, &advance, &self.cx.cancel).await?;
        count(&self.tally.packages, missing.len() as u64);
        count(&self.tally.bytes, total);
        step.finish(false, format!("{:.1} MB", crate::deliver::megabytes(total)));
        Ok(())
    }

    /// Where the files of wheels are once they are fetched.
    fn files(&self, wheels: &[LockedWheel]) -> Vec<PathBuf> {
        let file = |wheel| fetch::cached(&self.native.host, wheel);
        wheels.iter().map(file).collect()
    }

    /// What the layer of a recipe over `below` depends on.
    pub(crate) fn key(&self, below: &[LazyLayer], recipe: &Recipe) -> Digest {
        let content = match recipe {
            Recipe::Debian(plan) => plan.key,
            Recipe::State(packages) => state::key(packages),
            Recipe::Accounts(files) => {
                let mut key = Framed::new("imagespec accounts");
                key.list(files, |key, file| {
                    let owner = [file.mode, file.uid, file.gid];
                    key.text(&file.path)
                        .text(&file.text)
                        .list(owner, |key, id| {
                            key.number(id.into());
                        });
                });
                key.finish()
            }
            Recipe::Standalone(python) => {
                let mut key = Framed::new("imagespec standalone python");
                key.number(standalone::RECIPE.into()).digest(&python.digest);
                key.finish()
            }
            Recipe::Venv(venv) => {
                let mut key = Framed::new("imagespec venv");
                key.number(venv::RECIPE.into())
                    .text(&venv.interpreter)
                    .text(&venv.python)
                    .number(u64::from(venv.system_site_packages));
                key.finish()
            }
            Recipe::Wheels { wheels, layout, .. } => {
                return wheels_key(wheels, layout, self.cx.settings.compression());
            }
            Recipe::Bytecode {
                wheels,
                layout,
                interpreter,
                ..
            } => {
                let wheels = wheels_key(wheels, layout, self.cx.settings.compression());
                bytecode_key(interpreter, &wheels)
            }
            Recipe::StandardLibrary(interpreter) => {
                bytecode_key(interpreter, &Digest::of("standard library"))
            }
            Recipe::Copy { from, to, .. } => self.copy_key(from, to),
            Recipe::Commands(Commands {
                lines,
                env,
                strange,
                ..
            }) => {
                let mut key = over(below, "imagespec run");
                key.number(u64::from(*strange));
                key.list(lines, |key, command| {
                    key.text(command);
                });
                key.list(env, |key, (name, value)| {
                    key.text(name).text(value);
                });
                key.finish()
            }
            Recipe::Trigger(trigger) => {
                let mut key = over(below, "imagespec trigger");
                trigger.frame(&mut key);
                key.finish()
            }
            Recipe::Owned { uid, gid, recipe } => {
                let mut key = Framed::new("imagespec owner");
                key.number((*uid).into())
                    .number((*gid).into())
                    .digest(&self.key(below, recipe));
                key.finish()
            }
            Recipe::Conda {
                packages, layout, ..
            } => conda::key(packages, layout),
            Recipe::CondaRecords {
                packages,
                layout,
                specs,
            } => conda::records_key(packages, layout, specs),
            Recipe::CondaScripts(packages) => {
                let mut key = over(below, "imagespec conda scripts");
                key.list(packages, |key, package| {
                    key.text(&package.title());
                });
                key.finish()
            }
            Recipe::Apt { added, .. } => {
                let mut key = over(below, "imagespec apt");
                key.list(added, |key, package| {
                    key.digest(&package.sha256);
                });
                key.finish()
            }
        };
        self.layers.key(&content)
    }
}

fn wheels_key(
    wheels: &[LockedWheel],
    layout: &imagespec_python::wheel::Layout,
    compression: Compression,
) -> Digest {
    let members: Vec<_> = wheels.iter().map(member).collect();
    wheels::key(members.iter(), layout, compression)
}

/// A wheel of a lock, for grouping.
pub(crate) fn member(wheel: &LockedWheel) -> Member {
    Member {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        digest: wheel.digest,
        size: wheel.size.unwrap_or(0),
    }
}

/// What bytecode depends on: what is compiled, and the interpreter with all it stands on.
fn bytecode_key(interpreter: &Interpreter, content: &Digest) -> Digest {
    let mut key = Framed::new("imagespec bytecode");
    key.number(bytecode::RECIPE.into())
        .digest(content)
        .text(&interpreter.program);
    key.list(&interpreter.layers, |key, layer| {
        key.digest(layer);
    });
    key.finish()
}

/// The start of the key of what runs over layers.
fn over(below: &[LazyLayer], what: &str) -> Framed {
    let mut key = Framed::new(what);
    key.number(crate::run::RECIPE);
    key.list(below, |key, lazy| {
        key.digest(&lazy.layer.diff_id);
    });
    key
}
