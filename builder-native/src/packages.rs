//! Debian packages that a spec adds.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use imagespec_core::contract::{DEFAULT_PATH, WORKDIR};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_debian::{Archive, ArchiveOptions, Installed, Package, layers, scripts};
use imagespec_oci::cache::Layer;
use imagespec_oci::store::write_atomically;
use imagespec_sandbox::Network;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::assemble::{Assembly, Draft};
use crate::inspect::database;
use crate::layers::store_error;
use crate::machine::program;
use crate::provenance::{Packages, System};
use crate::recipe::{LazyLayer, Recipe};
use crate::run::{Script, can_run, open};

/// Forbids the scripts to start services: nothing runs in an image that is being made.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where the files of packages appear while they are installed.
const FILES: &str = "/var/cache/imagespec";
/// The largest package database, in bytes.
const STATUS_LIMIT: u64 = 256 << 20;

/// What has to be added to an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Added {
    /// The packages, dependencies first.
    packages: Vec<Package>,
    /// Those whose maintainer scripts matter.
    scripted: Vec<String>,
}

impl Assembly<'_> {
    pub(crate) async fn apt_packages(
        &self,
        draft: &mut Draft,
        names: &[String],
    ) -> Result<(), BuildError> {
        let step = self.cx.progress.step(
            // Lines of scripts, which run on this machine's platform alone, are told under the field's name.
            if draft.platform.is_host() {
                "apt_packages".to_owned()
            } else {
                format!("apt_packages {}", draft.platform)
            },
            format!("apt_packages: {}", names.join(", ")),
        );
        let added = self.added(draft, names).await?;
        if added.packages.is_empty() {
            step.finish(true, "all there already");
            return Ok(());
        }
        let summary = format!("{} packages", added.packages.len());
        let ours = match &draft.foundation.system.packages {
            Packages::Ours(before) => Some(before.iter().chain(&added.packages).cloned().collect()),
            Packages::Theirs { .. } | Packages::None => None,
        };
        let cached = match &ours {
            Some(all) if added.scripted.is_empty() => {
                let data = Recipe::Debian(layers::additional(&added.packages));
                let recipes = [data, Recipe::State(Vec::clone(all))];
                let recipes = recipes.map(|recipe| (self.key(&draft.layers, &recipe), recipe));
                let (made, known) = self.layers(&draft.layers, recipes.into()).await?;
                draft.layers.extend(made);
                known
            }
            // The state of a system that somebody else put together is for its own dpkg to change.
            _ => {
                can_run(draft, "apt_packages")?;
                let recipe = Recipe::Apt {
                    added: added.packages,
                    scripted: added.scripted,
                };
                self.add(draft, recipe).await?
            }
        };
        if let Some(all) = ours {
            draft.foundation.system.packages = Packages::Ours(all);
        }
        step.finish(cached, summary);
        Ok(())
    }

    /// The archive of a system's distribution, and the release it is of.
    fn archive_of<'s>(&self, system: &'s System) -> Result<(Archive, &'s str), BuildError> {
        let refused = |problem: &str| BuildError::input(problem).field("apt_packages");
        match system.packages {
            Packages::None => {
                return Err(
                    refused("`apt_packages` needs a base of Debian or Ubuntu, and the base image has no database of dpkg").hint(
                        "leave `apt_packages` out, or name a `base_image` of Debian or Ubuntu",
                    ),
                );
            }
            Packages::Theirs { apt: false, .. } => {
                return Err(refused(
                    "`apt_packages` needs `/usr/bin/apt-get`, which the base image has not",
                )
                .hint("leave `apt_packages` out, or name a `base_image` that has it"));
            }
            Packages::Theirs { .. } | Packages::Ours(_) => {}
        }
        let distribution = system.distribution.as_deref().unwrap_or("unknown");
        let origin = match distribution {
            "debian" => "Debian",
            "ubuntu" => "Ubuntu",
            other => {
                let message = format!(
                    "`apt_packages` needs a base of Debian or Ubuntu, and the base image is: `{other}`"
                );
                return Err(refused(&message)
                    .hint("leave `apt_packages` out, or name a `base_image` of Debian or Ubuntu"));
            }
        };
        let suite = system.suite.as_deref().ok_or_else(|| {
            refused("`apt_packages` needs to know the release of the base image, which has no `VERSION_CODENAME` in `/etc/os-release`")
        })?;
        let options = ArchiveOptions {
            origin: origin.to_owned(),
            ..self.native.archive.clone()
        };
        let archive = Archive::open(self.http.clone(), &self.native.host, &options)?;
        Ok((archive, suite))
    }

    /// What `names` add to an image, as the archive has it now or had it within a day.
    async fn added(&self, draft: &Draft, names: &[String]) -> Result<Added, BuildError> {
        let (host, system) = (&self.native.host, &draft.foundation.system);
        let mut key = Framed::new("imagespec added packages");
        let (archive, suite) = self.archive_of(system)?;
        key.text(archive.origin())
            .text(suite)
            .text(&system.architecture)
            .text(&format!("{:?}", self.native.archive));
        key.list(names, |key, name| {
            key.text(name);
        });
        key.list(&draft.layers, |key, lazy| {
            key.digest(&lazy.layer.diff_id);
        });
        let kept = host.cache_dir.join("debian");
        let kept = kept.join(format!("added-{}.json", key.finish().hex()));
        if let Some(added) = self.fresh(&kept) {
            return Ok(added);
        }
        let suite = archive.suite(suite, &system.architecture).await;
        let suite = suite.map_err(|error| BuildError::from(error).field("apt_packages"))?;
        let installed = self.installed(draft).await?;
        let packages = tokio::task::block_in_place(|| suite.closure(names, &installed))
            .map_err(|error| BuildError::from(error).field("apt_packages"))?;
        self.fetch_packages(&archive, &packages).await?;
        let file = |package: &Package| archive.package_file(package);
        let scripted = tokio::task::block_in_place(|| scripts::needing_scripts(&packages, &file))?;
        let scripted = scripted
            .iter()
            .map(|package| package.name.clone())
            .collect();
        let added = Added { packages, scripted };
        write_atomically(&kept, &serde_json::to_vec(&added).unwrap_or_default())
            .map_err(|error| store_error(&error))?;
        Ok(added)
    }

    /// What dpkg's database in the image says is installed: the topmost layer that has one counts.
    /// That of a base of a registry was kept when it was looked into.
    async fn installed(&self, draft: &Draft) -> Result<Vec<Installed>, BuildError> {
        let image = &draft.layers;
        let kept = match &draft.foundation.system.packages {
            Packages::Theirs { base, layers, .. } => {
                let kept = database(&self.native.host, base);
                fs_err::read(kept).ok().map(|status| (status, *layers))
            }
            Packages::Ours(_) | Packages::None => None,
        };
        let lowest = kept.as_ref().map_or(0, |(_, layers)| *layers);
        for at in (lowest..image.len()).rev() {
            let only = image[at].layer.diff_id;
            self.ensure(image, &|lazy| lazy.layer.diff_id == only)
                .await?;
            let layer = &image[at].layer;
            if let Some(found) = tokio::task::block_in_place(|| self.find_database(layer))? {
                return Ok(found);
            }
        }
        if let Some((status, _)) = kept {
            let read = Installed::read(&String::from_utf8_lossy(&status));
            return read.map_err(|error| unreadable(&error));
        }
        Err(BuildError::failed("the base has no package database").field("apt_packages"))
    }

    fn find_database(&self, layer: &Layer) -> Result<Option<Vec<Installed>>, BuildError> {
        let failed = |error: std::io::Error| unreadable(&error);
        let tar = open(&self.native.store, layer).map_err(failed)?;
        for entry in tar::Archive::new(tar).entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if *entry.path_bytes() == *b"var/lib/dpkg/status" {
                let mut status = String::new();
                entry
                    .take(STATUS_LIMIT)
                    .read_to_string(&mut status)
                    .map_err(failed)?;
                return Installed::read(&status).map(Some).map_err(failed);
            }
        }
        Ok(None)
    }

    /// Installs packages whose maintainer scripts matter, with the image's own apt in the sandbox.
    pub(crate) async fn install(
        &self,
        below: &[LazyLayer],
        recipe: &Recipe,
        added: &[Package],
    ) -> Result<Layer, BuildError> {
        let archive = self.archive()?;
        self.fetch_packages(&archive, added).await?;
        let target = |package: &Package| format!("{FILES}/{}.deb", package.sha256.hex());
        let files: Vec<_> = added.iter().map(target).collect();
        let mut mounts: Vec<(PathBuf, PathBuf)> = added
            .iter()
            .map(|package| {
                (
                    archive.package_file(package),
                    Path::new(&target(package)).to_path_buf(),
                )
            })
            .collect();
        let env = IndexMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
        ]);
        // apt rather than dpkg: it knows which packages have to be configured before others are unpacked.
        let line = format!(
            "apt-get -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
             install --yes --no-install-recommends {}",
            files.join(" ")
        );
        let (policy, path) = program(&self.native.host, "policy", "#!/bin/sh\nexit 101\n")?;
        mounts.push((path, PathBuf::from(POLICY)));
        let script = Script {
            title: recipe.title(),
            field: "apt_packages",
            // Every package system has it.
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            cwd: PathBuf::from(WORKDIR),
            ids: (0, 0),
            network: Network::Host,
            env: &env,
            lent: Vec::new(),
            mounts,
            below: None,
            exclude: vec![
                PathBuf::from(FILES),
                PathBuf::from("/var/log"),
                PathBuf::from("/var/cache/apt"),
                PathBuf::from("/var/lib/apt/lists"),
                PathBuf::from("/var/cache/debconf"),
            ],
        };
        let layer = self.script(below, script).await;
        drop(policy);
        layer
    }
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot read the package database of the base").caused_by(error)
}
