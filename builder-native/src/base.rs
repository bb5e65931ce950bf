//! What an image starts from: our own Debian base, or an image built before.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::plan::Base;
use imagespec_core::platform::Platform;
use imagespec_debian::{Archive, LayerPlan, Package, base as debian, layers, state};
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Document, Image, Runtime};
use imagespec_oci::store::write_atomically;

use crate::assemble::{Assembly, Draft};
use crate::layers::store_error;
use crate::provenance::Provenance;

/// How long the packages of a base are taken from what was resolved before.
const FRESH: Duration = Duration::from_secs(24 * 3600);

impl Assembly<'_> {
    pub(crate) async fn base(&self, platform: &Platform) -> Result<Draft, BuildError> {
        match &self.plan.base {
            Base::Debian { suite } => self.debian(suite, platform).await,
            Base::Image { .. } => self.image(platform),
            Base::Reference { reference } => Err(BuildError::input(format!(
                "builder `native` does not start from images of registries: `{reference}`"
            ))
            .field("base_image")),
        }
    }

    async fn debian(&self, suite: &str, platform: &Platform) -> Result<Draft, BuildError> {
        let architecture = debian::architecture(platform).ok_or_else(|| {
            BuildError::input(format!("Debian is not made for the platform `{platform}`"))
                .field("platform")
        })?;
        let step = self.cx.progress.step(
            format!("base {platform}"),
            format!("Debian {suite} for {platform}"),
        );
        let archive = Archive::open(self.http.clone(), &self.native.host, &self.native.archive)?;
        let packages = self.base_packages(&archive, suite, architecture).await?;
        let (made, cached) = self
            .debian_layers(&archive, layers::group(&packages), &packages, &step)
            .await?;
        let python =
            debian::python_of(suite).and_then(|version| version.strip_prefix("3.")?.parse().ok());
        let python = python.ok_or_else(|| {
            BuildError::input(format!("the release has no Python: `{suite}`"))
                .field("python_version")
        })?;
        step.finish(cached, format!("{} packages", packages.len()));
        let provenance = Provenance {
            suite: suite.to_owned(),
            architecture: architecture.to_owned(),
            python,
            interpreter: made.iter().map(|layer| layer.diff_id).collect(),
            packages,
            venv: false,
        };
        let runtime = Runtime {
            cmd: Some(vec!["/bin/bash".to_owned()]),
            ..Runtime::default()
        };
        let mut draft = Draft {
            platform: platform.clone(),
            layers: made,
            runtime,
            provenance,
        };
        self.standard_library(&mut draft).await?;
        Ok(draft)
    }

    /// The packages of a base, as the archive has them now or had them within a day.
    async fn base_packages(
        &self,
        archive: &Archive,
        suite: &str,
        architecture: &str,
    ) -> Result<Vec<Package>, BuildError> {
        let mut key = Framed::new("imagespec base packages");
        key.number(layers::RECIPE)
            .text(suite)
            .text(architecture)
            .text(&format!("{:?}", self.native.archive));
        let kept: PathBuf = self
            .native
            .host
            .cache_dir
            .join("debian")
            .join(format!("base-{}.json", key.finish().hex()));
        let fresh = fs_err::metadata(&kept)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age < FRESH)
            });
        if fresh && !self.cx.settings.pull {
            let known = fs_err::read(&kept)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(packages) = known {
                return Ok(packages);
            }
        }
        let suite = archive.suite(suite, architecture).await?;
        let packages = tokio::task::block_in_place(|| suite.base_packages())?;
        write_atomically(&kept, &serde_json::to_vec(&packages).unwrap_or_default())
            .map_err(|error| store_error(&error))?;
        Ok(packages)
    }

    /// Layers of Debian packages and the layer of their state, and whether all were there before. `all` is every
    /// package of the image.
    pub(crate) async fn debian_layers(
        &self,
        archive: &Archive,
        plans: Vec<LayerPlan>,
        all: &[Package],
        step: &imagespec_core::event::StepProgress<'_>,
    ) -> Result<(Vec<Layer>, bool), BuildError> {
        let keys: Vec<_> = plans
            .iter()
            .map(|plan| self.layers.key(&plan.key))
            .collect();
        let state_key = self.layers.key(&state::key(all));
        let known: Option<Vec<_>> = keys
            .iter()
            .chain([&state_key])
            .map(|key| self.layers.get(key))
            .collect();
        if let Some(known) = known {
            return Ok((known, true));
        }
        let total: u64 = all.iter().map(|package| package.size).sum();
        let done = std::sync::atomic::AtomicU64::new(0);
        let advance = |bytes: u64| {
            let before = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            step.advance(before + bytes, Some(total));
        };
        archive.fetch(all, &advance, &self.cx.cancel).await?;
        let one = |(plan, key): (LayerPlan, Digest)| async move {
            if let Some(layer) = self.layers.get(&key) {
                return Ok(layer);
            }
            let (archive, cancel) = (archive.clone(), self.cx.cancel.clone());
            let title = plan.title.clone();
            let fill = move |layer: &mut _| {
                Ok(layers::write(
                    &plan,
                    &|package| archive.package_file(package),
                    layer,
                    &cancel,
                )?)
            };
            self.layers.write(Some(key), title, fill).await
        };
        let jobs = self.cx.settings.jobs.max(1);
        let mut made: Vec<Layer> = stream::iter(plans.into_iter().zip(keys).map(one))
            .buffered(jobs)
            .try_collect()
            .await?;
        let (archive, cancel, packages) = (archive.clone(), self.cx.cancel.clone(), all.to_vec());
        let fill = move |layer: &mut _| {
            Ok(state::write(
                &packages,
                &|package| archive.package_file(package),
                layer,
                &cancel,
            )?)
        };
        made.push(
            self.layers
                .write(Some(state_key), "debian state".to_owned(), fill)
                .await?,
        );
        Ok((made, false))
    }

    /// An image that was built before this one and is in the store.
    fn image(&self, platform: &Platform) -> Result<Draft, BuildError> {
        let missing = |what: &str| {
            BuildError::failed(format!("the image that this one starts from {what}"))
                .field("base_image")
                .hint("build it here with the `native` builder: `imagespec build --force` on its target")
        };
        let digest = self
            .cx
            .base
            .and_then(|base| base.digest)
            .ok_or_else(|| missing("has no digest"))?;
        let blobs = self.native.store.blobs();
        let absent = |error: std::io::Error| missing("is not in the local store").caused_by(&error);
        let manifest = match Document::read(blobs, &digest).map_err(absent)? {
            Document::Manifest(_) => digest,
            Document::Index(index) => {
                index
                    .select(platform)
                    .map_err(|error| missing("is not for this platform").caused_by(&error))?
                    .digest
            }
        };
        let image = Image::read(blobs, &manifest, platform).map_err(absent)?;
        let provenance = Provenance::read(&self.native.host, &manifest)
            .ok_or_else(|| missing("was not made here"))?;
        Ok(Draft {
            platform: platform.clone(),
            layers: image.layers,
            runtime: image.runtime,
            provenance,
        })
    }
}
