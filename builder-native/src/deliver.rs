//! Finished images: named in the store, pushed, or written to files.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use imagespec_core::builder::{BuiltImage, BuiltLayer};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan};
use imagespec_core::platform::Platform;
use imagespec_oci::delivery::parse;
use imagespec_oci::engine::EngineImage;
use imagespec_oci::image::{Descriptor, Image};
use imagespec_oci::images::ImageRecord;
use imagespec_oci::registry::{BlobSource, Existing, Mounts, Pull, Push, Stored};
use imagespec_oci::{Engine, Reference, Registry, archive, layout};

use crate::assemble::{Assembled, Assembly, built_layer};
use crate::backend::Native;
use crate::early::Early;
use crate::form;
use crate::layers::store_error;
use crate::lazy::count;
use crate::recipe::LazyLayer;
use crate::reference::resolve;

/// The image of a name, where the output says that it should be, if it is as the settings ask for.
pub(crate) async fn find(
    native: &Native,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Option<BuiltImage>, BuildError> {
    let reference = cx.destination.reference();
    let base = followed(native, plan, cx).await?;
    match cx.output {
        Output::Store => {
            let Some(record) = native
                .store
                .find(&reference)
                .map_err(|error| store_error(&error))?
            else {
                return Ok(None);
            };
            let digest = record.descriptor.digest;
            if !fits(native, plan, cx, &digest, base)? {
                return Ok(None);
            }
            let layers = layers_of(native, &record)?;
            Ok(Some(built(reference, Some(digest), layers, false, 0)))
        }
        Output::Push => {
            let parsed = parse(&reference)?;
            let registry = Registry::new(&native.host, &parsed.registry)?;
            let blobs = native.store.blobs();
            let found = registry.existing(&parsed, &plan.platforms, blobs).await?;
            let Some(Existing { digest, .. }) = found else {
                return Ok(None);
            };
            if cx.settings.is_particular() || base.is_some() {
                documents(native, plan, cx, &registry, &parsed).await?;
                if !fits(native, plan, cx, &digest, base)? {
                    return Ok(None);
                }
            }
            Ok(Some(built(reference, Some(digest), Vec::new(), false, 0)))
        }
        Output::Docker => {
            let found = Engine::new(&native.host)?.find(&reference).await?;
            // An engine keeps neither the compression nor what a manifest says of bytecode and of the base.
            let form = cx.settings.compression.is_none() && cx.settings.bytecode.is_none();
            let form = form && base.is_none();
            let fits = |image: &EngineImage| form && cx.settings.has_labels(&image.labels);
            Ok(found.filter(fits).map(|image| BuiltImage {
                size: image.size,
                ..built(reference, None, Vec::new(), false, 0)
            }))
        }
        Output::OciDir(_) | Output::Tar(_) => Ok(None),
    }
}

/// The digest that the tag of the base leads to at this moment, where that is to be followed.
async fn followed(
    native: &Native,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Option<Digest>, BuildError> {
    match &plan.base {
        Base::Reference { reference } if cx.settings.pull => {
            let named = resolve(&native.host, reference).await?;
            Ok(named.digest)
        }
        _ => Ok(None),
    }
}

/// Whether the image of a manifest or index in the store is as the settings ask for, for all platforms, and starts
/// from `base` if that is given.
fn fits(
    native: &Native,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    digest: &Digest,
    base: Option<Digest>,
) -> Result<bool, BuildError> {
    if !cx.settings.is_particular() && base.is_none() {
        return Ok(true);
    }
    for platform in &plan.platforms {
        let image = Image::read(native.store.blobs(), digest, platform)
            .map_err(|error| store_error(&error))?;
        let stands = base.is_none_or(|base| form::starts_from(&image, &base));
        if !stands || !form::fits(&image, cx.settings) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Brings the documents of an image of a registry into the store.
async fn documents(
    native: &Native,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    registry: &Registry,
    reference: &Reference,
) -> Result<(), BuildError> {
    for platform in &plan.platforms {
        let pull = Pull {
            store: native.store.blobs(),
            reference,
            platform,
            layers: false,
            mounts: &mounts(native),
            parallelism: 1,
            progress: &|_| (),
            cancel: &cx.cancel,
        };
        registry.pull_image(pull).await?;
    }
    Ok(())
}

/// Gives an image that was found its further tags.
pub(crate) async fn tag(
    native: &Native,
    image: &BuiltImage,
    cx: &BuildContext<'_>,
) -> Result<(), BuildError> {
    let repository = cx.destination.repository();
    let names = cx.destination.extra_tags.iter();
    match cx.output {
        Output::Store => {
            let found = native.store.find(&image.reference);
            let Some(record) = found.map_err(|error| store_error(&error))? else {
                return Err(gone(image));
            };
            for tag in names {
                let record = ImageRecord {
                    reference: format!("{repository}:{tag}"),
                    ..record.clone()
                };
                let result = native.store.tag(&record);
                result.map_err(|error| store_error(&error))?;
            }
            Ok(())
        }
        Output::Push => {
            let parsed = parse(&image.reference)?;
            let registry = Registry::new(&native.host, &parsed.registry)?;
            let digest = image.digest.ok_or_else(|| gone(image))?;
            let (descriptor, bytes) = registry
                .get_manifest(&parsed.repository, &digest.to_string())
                .await?
                .ok_or_else(|| gone(image))?;
            for tag in names {
                let media_type = &descriptor.media_type;
                registry
                    .put_manifest(&parsed.repository, tag, media_type, bytes.clone())
                    .await?;
            }
            Ok(())
        }
        Output::Docker => {
            let engine = Engine::new(&native.host)?;
            for tag in names {
                engine.tag(&image.reference, &repository, tag).await?;
            }
            Ok(())
        }
        // Always written, so never found.
        Output::OciDir(_) | Output::Tar(_) => Ok(()),
    }
}

fn gone(image: &BuiltImage) -> BuildError {
    let reference = &image.reference;
    BuildError::failed(format!(
        "the image disappeared while it was tagged: `{reference}`"
    ))
    .hint("try again: it is then built")
}

/// Names the image in the store, and brings it where it should go.
pub(crate) async fn deliver(
    assembly: &Assembly<'_>,
    image: Assembled,
    early: Option<Early>,
) -> Result<BuiltImage, BuildError> {
    let (native, plan, cx) = (assembly.native, assembly.plan, assembly.cx);
    // A registry may have them, or take them from elsewhere; nobody else does.
    if early.is_none() {
        assembly.complete(&image).await?;
    }
    let reference = cx.destination.reference();
    let repository = cx.destination.repository();
    let extra = cx
        .destination
        .extra_tags
        .iter()
        .map(|tag| format!("{repository}:{tag}"));
    let references: Vec<_> = std::iter::once(reference.clone()).chain(extra).collect();
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    for reference in &references {
        let record = ImageRecord {
            reference: reference.clone(),
            descriptor: image.descriptor.clone(),
            platforms: plan.platforms.clone(),
            size: image.size(),
            created,
            builder: "native".to_owned(),
        };
        native
            .store
            .tag(&record)
            .map_err(|error| store_error(&error))?;
    }
    let blobs = native.store.blobs();
    let mut pushed = 0;
    match cx.output {
        Output::Store => {}
        Output::Docker => return load(assembly, &image, &references).await,
        Output::OciDir(folder) => layout::write(blobs, &image.descriptor, &references, folder)
            .map_err(|error| output_error(cx, &error))?,
        Output::Tar(file) => {
            let platform = plan
                .platforms
                .first()
                .ok_or_else(|| BuildError::failed("the plan has no platform"))?;
            archive::write(blobs, &image.descriptor, platform, &references, file)
                .map_err(|error| output_error(cx, &error))?;
        }
        Output::Push => {
            if let Some(early) = early {
                pushed = push(assembly, &image, early).await?;
            }
        }
    }
    let digest = Some(image.descriptor.digest);
    Ok(BuiltImage {
        work: Some(assembly.work()),
        ..built(reference, digest, image.layers(), true, pushed)
    })
}

async fn load(
    assembly: &Assembly<'_>,
    image: &Assembled,
    references: &[String],
) -> Result<BuiltImage, BuildError> {
    let (native, plan, cx) = (assembly.native, assembly.plan, assembly.cx);
    let engine = Engine::new(&native.host)?;
    let host = Platform::host();
    let platform = plan.platforms.iter().find(|platform| **platform == host);
    let platform = platform
        .or(plan.platforms.first())
        .ok_or_else(|| BuildError::failed("the plan has no platform"))?;
    let title = format!("load into the engine at {}", engine.address());
    let step = cx.progress.step("load", title);
    let blobs = native.store.blobs();
    engine
        .load(blobs, &image.descriptor, platform, references)
        .await?;
    step.finish(false, format!("{:.1} MB", megabytes(image.size())));
    let reference = cx.destination.reference();
    // An engine knows no digest of a manifest before the image is pushed.
    Ok(BuiltImage {
        work: Some(assembly.work()),
        ..built(reference, None, image.layers(), true, 0)
    })
}

/// Whether the output can be delivered to, before there is anything to deliver.
pub(crate) async fn reach(native: &Native, cx: &BuildContext<'_>) -> Result<(), BuildError> {
    if matches!(cx.output, Output::Docker) {
        Engine::new(&native.host)?.answers().await?;
    }
    Ok(())
}

/// Brings the layers that a registry lacks into the store.
struct Missing<'a> {
    assembly: &'a Assembly<'a>,
    images: &'a [Vec<LazyLayer>],
}

#[async_trait]
impl BlobSource for Missing<'_> {
    async fn provide(&self, blob: &Descriptor) -> Result<(), BuildError> {
        for image in self.images {
            let at = image
                .iter()
                .position(|lazy| lazy.layer.digest == blob.digest);
            if let Some(at) = at {
                return self.assembly.bring(image, at).await;
            }
        }
        Stored.provide(blob).await
    }
}

async fn push(assembly: &Assembly<'_>, image: &Assembled, early: Early) -> Result<u64, BuildError> {
    let (native, cx) = (assembly.native, assembly.cx);
    let reference = parse(&cx.destination.reference())?;
    let step = cx
        .progress
        .step("push", format!("push to {}", reference.registry));
    let done = std::sync::atomic::AtomicU64::new(0);
    let advance = |bytes: u64| {
        let before = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        cx.progress
            .emit(imagespec_core::event::BuildEvent::StepProgress {
                step: "push".to_owned(),
                done: before + bytes,
                total: Some(image.size()),
            });
    };
    let push = Push {
        store: native.store.blobs(),
        source: &Missing {
            assembly,
            images: &image.images,
        },
        image: &image.descriptor,
        reference: &reference,
        extra_tags: &cx.destination.extra_tags,
        mounts: &early.mounts,
        asked: &early.asked,
        parallelism: cx.settings.jobs.clamp(1, 8),
        progress: &advance,
        cancel: &cx.cancel,
    };
    let pushed = early.registry.push_image(push).await?;
    count(&assembly.tally.mounted, early.registry.mounted());
    count(&assembly.tally.requests, early.registry.requests());
    let bytes = early.bytes + pushed.bytes;
    step.finish(bytes == 0, format!("{:.1} MB sent", megabytes(bytes)));
    Ok(bytes)
}

/// Which repositories are known to hold which layers.
pub(crate) fn mounts(native: &Native) -> Mounts {
    Mounts::open(native.host.cache_dir.join("registries"))
}

/// Bytes in millions, to one digit after the point.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 100_000).unwrap_or(u32::MAX)) / 10.0
}

fn output_error(cx: &BuildContext<'_>, error: &std::io::Error) -> BuildError {
    let message = format!("cannot write the output `{}`", cx.output);
    BuildError::unwritten(message, "output", error)
}

fn layers_of(native: &Native, record: &ImageRecord) -> Result<Vec<BuiltLayer>, BuildError> {
    let Some(platform) = record.platforms.first() else {
        return Ok(Vec::new());
    };
    let image = Image::read(native.store.blobs(), &record.descriptor.digest, platform)
        .map_err(|error| store_error(&error))?;
    Ok(image.layers.into_iter().map(built_layer).collect())
}

fn built(
    reference: String,
    digest: Option<Digest>,
    layers: Vec<BuiltLayer>,
    built: bool,
    pushed_bytes: u64,
) -> BuiltImage {
    let size = layers.iter().map(|layer| layer.size).sum();
    BuiltImage {
        reference,
        digest,
        builder: "native".to_owned(),
        built,
        size,
        pushed_bytes,
        layers,
        work: None,
    }
}
