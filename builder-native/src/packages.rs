//! Debian packages that a spec adds.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_debian::{Archive, Installed, Package, layers, scripts};
use indexmap::IndexMap;

use crate::assemble::{Assembly, Draft};
use crate::machine::program;
use crate::run::{Script, open};

/// Forbids the scripts to start services: nothing runs in an image that is being made.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where the files of packages appear while they are installed.
const FILES: &str = "/var/cache/imagespec";
/// The largest package database, in bytes.
const STATUS_LIMIT: u64 = 256 << 20;

impl Assembly<'_> {
    pub(crate) async fn apt_packages(
        &self,
        draft: &mut Draft,
        names: &[String],
    ) -> Result<(), BuildError> {
        let step = self.cx.progress.step(
            format!("apt {}", draft.platform),
            format!("apt_packages: {}", names.join(", ")),
        );
        let archive = Archive::open(self.http.clone(), &self.native.host, &self.native.archive)?;
        let suite = archive
            .suite(&draft.provenance.suite, &draft.provenance.architecture)
            .await?;
        let installed = tokio::task::block_in_place(|| self.installed(draft))?;
        let added = tokio::task::block_in_place(|| suite.closure(names, &installed))
            .map_err(|error| BuildError::from(error).field("apt_packages"))?;
        if added.is_empty() {
            step.finish(true, "all there already");
            return Ok(());
        }
        archive.fetch(&added, &|_| (), &self.cx.cancel).await?;
        let file = |package: &Package| archive.package_file(package);
        let scripted: Vec<_> =
            tokio::task::block_in_place(|| scripts::needing_scripts(&added, &file))?
                .into_iter()
                .map(|package| package.name.clone())
                .collect();
        let summary = format!("{} packages", added.len());
        let all: Vec<_> = draft
            .provenance
            .packages
            .iter()
            .cloned()
            .chain(added.clone())
            .collect();
        let cached = if scripted.is_empty() {
            let (made, cached) = self
                .debian_layers(&archive, vec![layers::additional(&added)], &all, &step)
                .await?;
            draft.layers.extend(made);
            cached
        } else {
            self.configured(draft, &archive, &added, &scripted).await?
        };
        draft.provenance.packages = all;
        step.finish(cached, summary);
        Ok(())
    }

    /// What dpkg's database in the image says is installed: the topmost layer that has one counts.
    fn installed(&self, draft: &Draft) -> Result<Vec<Installed>, BuildError> {
        let failed = |error: std::io::Error| {
            BuildError::failed("cannot read the package database of the base").caused_by(&error)
        };
        for layer in draft.layers.iter().rev() {
            let tar = open(&self.native.store, layer).map_err(failed)?;
            for entry in tar::Archive::new(tar).entries().map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if *entry.path_bytes() == *b"var/lib/dpkg/status" {
                    let mut status = String::new();
                    entry
                        .take(STATUS_LIMIT)
                        .read_to_string(&mut status)
                        .map_err(failed)?;
                    return Installed::read(&status).map_err(failed);
                }
            }
        }
        Err(BuildError::failed("the base has no package database").field("apt_packages"))
    }

    /// Installs packages whose maintainer scripts matter, with the image's own dpkg in the sandbox.
    async fn configured(
        &self,
        draft: &mut Draft,
        archive: &Archive,
        added: &[Package],
        scripted: &[String],
    ) -> Result<bool, BuildError> {
        let mut key = Framed::new("imagespec apt");
        key.list(&draft.layers, |key, layer| {
            key.digest(&layer.diff_id);
        });
        key.list(added, |key, package| {
            key.digest(&package.sha256);
        });
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
            (
                "PATH".to_owned(),
                imagespec_core::contract::DEFAULT_PATH.to_owned(),
            ),
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
            key: key.finish(),
            title: format!(
                "debian {} with the scripts of {}",
                names(added),
                scripted.join(", ")
            ),
            field: "apt_packages",
            line,
            env: &env,
            lent: Vec::new(),
            mounts,
            exclude: vec![
                PathBuf::from(FILES),
                PathBuf::from("/var/log"),
                PathBuf::from("/var/cache/apt"),
                PathBuf::from("/var/lib/apt/lists"),
                PathBuf::from("/var/cache/debconf"),
            ],
        };
        let cached = self.script(draft, script).await;
        drop(policy);
        cached
    }
}

fn names(packages: &[Package]) -> String {
    packages
        .iter()
        .map(|package| package.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
