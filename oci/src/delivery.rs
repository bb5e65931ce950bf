//! Images that somebody else builds, an engine or a cluster: found, named, and brought where they should go.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use imagespec_core::builder::{BuiltImage, BuiltLayer};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::platform::Platform;

use crate::cache::Layer;
use crate::image::{Descriptor, Image};
use crate::images::{ImageRecord, ImageStore};
use crate::registry::{Existing, Mounts, Pull};
use crate::{BuildLock, Reference, ReferenceError, Registry, archive, layout};

/// Where a builder's images are looked for and brought to.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// This machine.
    pub host: &'a Host,
    /// Its images.
    pub store: &'a ImageStore,
    /// The builder's name.
    pub builder: &'static str,
}

/// The names of an image, the computed one first.
pub fn references(cx: &BuildContext<'_>) -> Vec<String> {
    let repository = cx.destination.repository();
    let extra = cx.destination.extra_tags.iter();
    let extra = extra.map(|tag| format!("{repository}:{tag}"));
    std::iter::once(cx.destination.reference())
        .chain(extra)
        .collect()
}

/// Whether something is asked for that neither an image nor a registry tells of whoever else built it: compression,
/// bytecode, and what a base's tag led to. Such an image is built, which costs little where it was built so before.
pub fn is_untold(cx: &BuildContext<'_>) -> bool {
    let settings = cx.settings;
    settings.compression.is_some() || settings.bytecode.is_some() || settings.pull
}

/// The reference of a text.
pub fn parse(reference: &str) -> Result<Reference, BuildError> {
    reference
        .parse()
        .map_err(|error: ReferenceError| BuildError::from(error).field("registry"))
}

/// The error of a store that cannot be used.
pub fn unwritten(error: &io::Error) -> BuildError {
    BuildError::failed("cannot use the local store").caused_by(error)
}

/// The platform of a plan that is built for one.
pub fn platform(plan: &BuildPlan) -> Platform {
    let first = plan.platforms.first().cloned();
    first.unwrap_or_else(Platform::host)
}

impl Delivery<'_> {
    /// Keeps others from removing what is in the store.
    pub async fn lock(&self) -> Result<BuildLock, BuildError> {
        let store = self.store.clone();
        let lock = tokio::task::spawn_blocking(move || store.lock_shared()).await;
        let lock = lock.map_err(io::Error::other).and_then(|lock| lock);
        lock.map_err(|error| unwritten(&error))
    }

    /// The image of the destination's name in its registry, with the labels that are asked for.
    pub async fn find_pushed(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        let reference = cx.destination.reference();
        let parsed = parse(&reference)?;
        let registry = Registry::new(self.host, &parsed.registry)?;
        let blobs = self.store.blobs();
        let found = registry.existing(&parsed, &plan.platforms, blobs).await?;
        let Some(Existing { digest, .. }) = found else {
            return Ok(None);
        };
        if !cx.settings.labels.is_empty() {
            let image = self
                .documents(plan, cx, &registry, &parsed, &digest)
                .await?;
            if !image.is_some_and(|image| cx.settings.has_labels(&image.runtime.labels)) {
                return Ok(None);
            }
        }
        Ok(Some(self.built(reference, Some(digest), Vec::new(), false)))
    }

    /// The image of the destination's name in the store, with the labels that are asked for.
    pub fn find_stored(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        let reference = cx.destination.reference();
        let found = self.store.find(&reference);
        let Some(record) = found.map_err(|error| unwritten(&error))? else {
            return Ok(None);
        };
        let digest = record.descriptor.digest;
        let image = Image::read(self.store.blobs(), &digest, &platform(plan));
        let image = image.map_err(|error| unwritten(&error))?;
        let fits = cx.settings.has_labels(&image.runtime.labels);
        let found = self.built(reference, Some(digest), told_of(image), false);
        Ok(Some(found).filter(|_| fits))
    }

    /// Gives an image of a registry its further tags.
    pub async fn tag_pushed(
        &self,
        image: &BuiltImage,
        cx: &BuildContext<'_>,
    ) -> Result<(), BuildError> {
        let parsed = parse(&image.reference)?;
        let registry = Registry::new(self.host, &parsed.registry)?;
        let digest = image.digest.ok_or_else(|| gone(image))?.to_string();
        let manifest = registry.get_manifest(&parsed.repository, &digest).await?;
        let (descriptor, bytes) = manifest.ok_or_else(|| gone(image))?;
        for tag in &cx.destination.extra_tags {
            let media_type = &descriptor.media_type;
            registry
                .put_manifest(&parsed.repository, tag, media_type, bytes.clone())
                .await?;
        }
        Ok(())
    }

    /// Gives an image of the store its further tags.
    pub fn tag_stored(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        let found = self.store.find(&image.reference);
        let record = found.map_err(|error| unwritten(&error))?;
        let record = record.ok_or_else(|| gone(image))?;
        let repository = cx.destination.repository();
        for tag in &cx.destination.extra_tags {
            let record = ImageRecord {
                reference: format!("{repository}:{tag}"),
                ..record.clone()
            };
            self.store.tag(&record).map_err(|error| unwritten(&error))?;
        }
        Ok(())
    }

    /// What was pushed is what the registry says it has.
    pub async fn confirm(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        is_ours: impl Fn(&Digest) -> bool,
    ) -> Result<BuiltImage, BuildError> {
        let reference = cx.destination.reference();
        let parsed = parse(&reference)?;
        let registry = Registry::new(self.host, &parsed.registry)?;
        let blobs = self.store.blobs();
        let found = registry.existing(&parsed, &[], blobs).await?;
        let Some(Existing { digest, .. }) = found else {
            let message = "the image was pushed, and the registry does not have it";
            return Err(BuildError::failed(format!("{message}: `{reference}`")));
        };
        if !is_ours(&digest) {
            let message = "somebody else pushed another image under the same tag at the same time";
            return Err(BuildError::failed(format!("{message}: `{reference}`")));
        }
        let image = self
            .documents(plan, cx, &registry, &parsed, &digest)
            .await?;
        let layers = image.map(told_of).unwrap_or_default();
        Ok(self.built(reference, Some(digest), layers, true))
    }

    /// Takes the image of the destination's name out of its registry into the store.
    pub async fn pull(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Descriptor, BuildError> {
        let parsed = parse(&cx.destination.reference())?;
        let registry = Registry::new(self.host, &parsed.registry)?;
        let platform = platform(plan);
        let step = cx
            .progress
            .step("pull", format!("pull from {}", parsed.registry));
        let pull = Pull {
            store: self.store.blobs(),
            reference: &parsed,
            platform: &platform,
            layers: true,
            mounts: &Mounts::open(self.host.cache_dir.join("registries")),
            parallelism: cx.settings.jobs.clamp(1, 8),
            progress: &|bytes| step.advance(bytes, None),
            cancel: &cx.cancel,
        };
        let pulled = registry.pull_image(pull).await?;
        step.finish(false, pulled.digest.to_string());
        Ok(pulled)
    }

    /// What the documents of an image of a registry say.
    async fn documents(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        registry: &Registry,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Option<Image>, BuildError> {
        let blobs = self.store.blobs();
        let Some(platform) = plan.platforms.first() else {
            return Ok(None);
        };
        let pull = Pull {
            store: blobs,
            reference,
            platform,
            layers: false,
            mounts: &Mounts::open(self.host.cache_dir.join("registries")),
            parallelism: 1,
            progress: &|_| (),
            cancel: &cx.cancel,
        };
        registry.pull_image(pull).await?;
        let image = Image::read(blobs, digest, platform);
        image.map(Some).map_err(|error| unwritten(&error))
    }

    /// The layers of an image of the store, and their bytes.
    pub fn layers(
        &self,
        plan: &BuildPlan,
        image: &Descriptor,
    ) -> Result<(Vec<BuiltLayer>, u64), BuildError> {
        let image = Image::read(self.store.blobs(), &image.digest, &platform(plan));
        let layers = told_of(image.map_err(|error| unwritten(&error))?);
        let size = layers.iter().map(|layer| layer.size).sum();
        Ok((layers, size))
    }

    /// Names an image of the store, and writes it to the folder or the file that the output names.
    pub fn keep(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        image: &Descriptor,
    ) -> Result<BuiltImage, BuildError> {
        let (layers, size) = self.layers(plan, image)?;
        let references = references(cx);
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        for reference in &references {
            let record = ImageRecord {
                reference: reference.clone(),
                descriptor: image.clone(),
                platforms: plan.platforms.clone(),
                size,
                created: created.as_ref().map_or(0, std::time::Duration::as_secs),
                builder: self.builder.to_owned(),
            };
            self.store.tag(&record).map_err(|error| unwritten(&error))?;
        }
        let blobs = self.store.blobs();
        let written = match cx.output {
            Output::OciDir(folder) => layout::write(blobs, image, &references, folder),
            Output::Tar(file) => archive::write(blobs, image, &platform(plan), &references, file),
            _ => Ok(()),
        };
        written.map_err(|error| {
            let message = format!("cannot write the output `{}`", cx.output);
            BuildError::unwritten(message, "output", &error)
        })?;
        let reference = cx.destination.reference();
        Ok(self.built(reference, Some(image.digest), layers, true))
    }

    /// An image of this builder.
    pub fn built(
        &self,
        reference: String,
        digest: Option<Digest>,
        layers: Vec<BuiltLayer>,
        built: bool,
    ) -> BuiltImage {
        BuiltImage {
            reference,
            digest,
            builder: self.builder.to_owned(),
            built,
            size: layers.iter().map(|layer| layer.size).sum(),
            pushed_bytes: 0,
            layers,
            work: None,
        }
    }
}

fn gone(image: &BuiltImage) -> BuildError {
    let message = format!(
        "the image disappeared while it was tagged: `{}`",
        image.reference
    );
    BuildError::failed(message).hint("try again: it is then built")
}

fn told_of(image: Image) -> Vec<BuiltLayer> {
    let layer = |layer: Layer| BuiltLayer {
        digest: layer.digest,
        diff_id: layer.diff_id,
        size: layer.size,
        created_by: layer.created_by,
    };
    image.layers.into_iter().map(layer).collect()
}
