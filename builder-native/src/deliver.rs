//! Finished images: named in the store, pushed, or written to files.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use imagespec_core::builder::{BuiltImage, BuiltLayer};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;
use imagespec_oci::image::Image;
use imagespec_oci::images::ImageRecord;
use imagespec_oci::registry::Push;
use imagespec_oci::{Reference, Registry, archive, layout};

use crate::assemble::{Assembled, built_layer};
use crate::backend::Native;
use crate::layers::store_error;

/// The image of a name, where the output says that it should be.
pub(crate) async fn find(
    native: &Native,
    cx: &BuildContext<'_>,
) -> Result<Option<BuiltImage>, BuildError> {
    let reference = cx.destination.reference();
    match cx.output {
        Output::Store => {
            let Some(record) = native
                .store
                .find(&reference)
                .map_err(|error| store_error(&error))?
            else {
                return Ok(None);
            };
            let layers = layers_of(native, &record)?;
            Ok(Some(built(
                reference,
                Some(record.descriptor.digest),
                layers,
                false,
                0,
            )))
        }
        Output::Push => {
            let parsed = parse(&reference)?;
            let registry = Registry::new(&native.host, &parsed.registry)?;
            let digest = registry.exists(&parsed).await?;
            Ok(digest.map(|digest| built(reference, Some(digest), Vec::new(), false, 0)))
        }
        Output::Docker | Output::OciDir(_) | Output::Tar(_) => Ok(None),
    }
}

/// Names the image in the store, and brings it where it should go.
pub(crate) async fn deliver(
    native: &Native,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    image: Assembled,
) -> Result<BuiltImage, BuildError> {
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
            size: image.size,
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
        Output::Store | Output::Docker => {}
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
        Output::Push => pushed = push(native, cx, &image).await?,
    }
    Ok(built(
        reference,
        Some(image.descriptor.digest),
        image.layers,
        true,
        pushed,
    ))
}

async fn push(
    native: &Native,
    cx: &BuildContext<'_>,
    image: &Assembled,
) -> Result<u64, BuildError> {
    let reference = parse(&cx.destination.reference())?;
    let registry = Registry::new(&native.host, &reference.registry)?;
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
                total: Some(image.size),
            });
    };
    let push = Push {
        store: native.store.blobs(),
        image: &image.descriptor,
        reference: &reference,
        extra_tags: &cx.destination.extra_tags,
        mounts: &BTreeMap::new(),
        parallelism: cx.settings.jobs.clamp(1, 8),
        progress: &advance,
        cancel: &cx.cancel,
    };
    let pushed = registry.push_image(push).await?;
    step.finish(
        pushed.bytes == 0,
        format!("{:.1} MB sent", megabytes(pushed.bytes)),
    );
    Ok(pushed.bytes)
}

/// Bytes in millions, to one digit after the point.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 100_000).unwrap_or(u32::MAX)) / 10.0
}

fn parse(reference: &str) -> Result<Reference, BuildError> {
    reference
        .parse()
        .map_err(|error: imagespec_oci::ReferenceError| BuildError::from(error).field("registry"))
}

fn output_error(cx: &BuildContext<'_>, error: &std::io::Error) -> BuildError {
    let built = BuildError::failed(format!("cannot write the output `{}`", cx.output))
        .field("output")
        .caused_by(error);
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => BuildError {
            kind: imagespec_core::error::ErrorKind::Input,
            ..built
        }
        .hint("name a folder that does not exist yet"),
        _ => built,
    }
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
    digest: Option<imagespec_core::digest::Digest>,
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
    }
}
