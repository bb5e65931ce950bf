//! Images that the engine has: found, named, and brought where they should go.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::auth::DockerCredentials;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use imagespec_core::builder::{BuiltImage, BuiltLayer};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::event::BuildEvent;
use imagespec_core::plan::BuildPlan;
use imagespec_core::platform::Platform;
use imagespec_oci::credentials::{Credential, Credentials};
use imagespec_oci::image::{Descriptor, Image};
use imagespec_oci::images::ImageRecord;
use imagespec_oci::registry::{Existing, Mounts, Pull, Push, Stored};
use imagespec_oci::{BuildLock, Reference, Registry, archive, layout, saved};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::backend::{ENTRY, Local};

/// Name of the step in which the engine pushes.
const PUSH: &str = "push";

/// The names of an image, the computed one first.
pub(crate) fn references(cx: &BuildContext<'_>) -> Vec<String> {
    let repository = cx.destination.repository();
    let extra = cx.destination.extra_tags.iter();
    let extra = extra.map(|tag| format!("{repository}:{tag}"));
    std::iter::once(cx.destination.reference())
        .chain(extra)
        .collect()
}

/// The image of a name, where the output says that it should be. Neither an engine nor its images tell of compression, of
/// bytecode and of what a base's tag led to: an image that is asked for in that way is built, which costs little where it
/// was built so before.
pub(crate) async fn find(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Option<BuiltImage>, BuildError> {
    let reference = cx.destination.reference();
    let settings = cx.settings;
    if settings.compression.is_some() || settings.bytecode.is_some() || settings.pull {
        return Ok(None);
    }
    match cx.output {
        Output::Docker => {
            let found = local.engine()?.find(&reference).await?;
            let found = found.filter(|image| settings.has_labels(&image.labels));
            Ok(found.map(|image| BuiltImage {
                size: image.size,
                ..built(reference, None, Vec::new(), false)
            }))
        }
        Output::Push => {
            let parsed = parse(&reference)?;
            let registry = Registry::new(&local.host, &parsed.registry)?;
            let blobs = local.store.blobs();
            let found = registry.existing(&parsed, &plan.platforms, blobs).await?;
            let Some(Existing { digest, .. }) = found else {
                return Ok(None);
            };
            if !settings.labels.is_empty() {
                let image = documents(local, plan, cx, &registry, &parsed, &digest).await?;
                if !image.is_some_and(|image| settings.has_labels(&image.runtime.labels)) {
                    return Ok(None);
                }
            }
            Ok(Some(built(reference, Some(digest), Vec::new(), false)))
        }
        Output::Store => {
            let found = local.store.find(&reference);
            let Some(record) = found.map_err(|error| unwritten(&error))? else {
                return Ok(None);
            };
            let digest = record.descriptor.digest;
            let image = Image::read(local.store.blobs(), &digest, &platform(plan));
            let image = image.map_err(|error| unwritten(&error))?;
            let fits = settings.has_labels(&image.runtime.labels);
            let found = built(reference, Some(digest), told_of(image), false);
            Ok(Some(found).filter(|_| fits))
        }
        Output::OciDir(_) | Output::Tar(_) => Ok(None),
    }
}

/// Gives an image that was found its further tags.
pub(crate) async fn tag(
    local: &Local,
    image: &BuiltImage,
    cx: &BuildContext<'_>,
) -> Result<(), BuildError> {
    let repository = cx.destination.repository();
    let gone = || {
        let message = format!(
            "the image disappeared while it was tagged: `{}`",
            image.reference
        );
        BuildError::failed(message).hint("try again: it is then built")
    };
    match cx.output {
        Output::Docker => {
            let engine = local.engine()?;
            for tag in &cx.destination.extra_tags {
                engine.tag(&image.reference, &repository, tag).await?;
            }
        }
        Output::Push => {
            let parsed = parse(&image.reference)?;
            let registry = Registry::new(&local.host, &parsed.registry)?;
            let digest = image.digest.ok_or_else(gone)?.to_string();
            let manifest = registry.get_manifest(&parsed.repository, &digest).await?;
            let (descriptor, bytes) = manifest.ok_or_else(gone)?;
            for tag in &cx.destination.extra_tags {
                let media_type = &descriptor.media_type;
                registry
                    .put_manifest(&parsed.repository, tag, media_type, bytes.clone())
                    .await?;
            }
        }
        Output::Store => {
            let found = local.store.find(&image.reference);
            let record = found.map_err(|error| unwritten(&error))?.ok_or_else(gone)?;
            for tag in &cx.destination.extra_tags {
                let record = ImageRecord {
                    reference: format!("{repository}:{tag}"),
                    ..record.clone()
                };
                local
                    .store
                    .tag(&record)
                    .map_err(|error| unwritten(&error))?;
            }
        }
        // Always written, so never found.
        Output::OciDir(_) | Output::Tar(_) => {}
    }
    Ok(())
}

/// Brings the image that the engine has just built where it should go.
pub(crate) async fn deliver(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<BuiltImage, BuildError> {
    let reference = cx.destination.reference();
    match cx.output {
        Output::Docker => {
            let image = local.engine()?.find(&reference).await?;
            Ok(BuiltImage {
                size: image.map(|image| image.size).unwrap_or_default(),
                ..built(reference, None, Vec::new(), true)
            })
        }
        Output::Push => push(local, plan, cx).await,
        Output::Store | Output::OciDir(_) | Output::Tar(_) => {
            let taken = take_out(local, cx).await?;
            keep(local, plan, cx, taken).await
        }
    }
}

async fn push(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<BuiltImage, BuildError> {
    let reference = cx.destination.reference();
    let parsed = parse(&reference)?;
    let login = login(local, &parsed).await?;
    let title = format!("push to {}", parsed.registry);
    let step = cx.progress.step(PUSH, title);
    let engine = local.engine()?;
    let repository = cx.destination.repository();
    let moved = std::sync::Mutex::new(std::collections::HashMap::new());
    let advance = |layer: &str, done: u64, total: Option<u64>| {
        let Ok(mut moved) = moved.lock() else { return };
        moved.insert(layer.to_owned(), (done, total.unwrap_or(done)));
        let sum = moved.values().fold((0, 0), |sum: (u64, u64), layer| {
            (sum.0 + layer.0, sum.1 + layer.1)
        });
        cx.progress.emit(BuildEvent::StepProgress {
            step: PUSH.to_owned(),
            done: sum.0,
            total: Some(sum.1),
        });
    };
    let extra = cx.destination.extra_tags.iter();
    for tag in std::iter::once(&cx.destination.tag).chain(extra) {
        let pushed = engine.push(&repository, tag, login.clone(), &advance).await;
        pushed.map_err(|error| {
            BuildError::from(error)
                .hint(format!(
                    "the engine pushes with your login: `docker login {}`",
                    parsed.registry
                ))
                .hint("a registry without TLS must be among the engine's `insecure-registries`")
        })?;
    }
    let known = engine.find(&reference).await?;
    let known = known.map(|image| image.digests).unwrap_or_default();
    let image = confirm(local, plan, cx, |digest| {
        is_among(&known, &repository, digest)
    })
    .await?;
    step.finish(
        false,
        image
            .digest
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
    );
    Ok(image)
}

/// What a daemon has pushed, by the digest that it says it has.
pub(crate) async fn pushed(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    digest: Option<Digest>,
) -> Result<BuiltImage, BuildError> {
    confirm(local, plan, cx, |found| {
        digest.is_none_or(|digest| digest == *found)
    })
    .await
}

/// What was pushed is what the registry says it has.
async fn confirm(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    is_ours: impl Fn(&Digest) -> bool,
) -> Result<BuiltImage, BuildError> {
    let reference = cx.destination.reference();
    let parsed = parse(&reference)?;
    let registry = Registry::new(&local.host, &parsed.registry)?;
    let blobs = local.store.blobs();
    let found = registry.existing(&parsed, &[], blobs).await?;
    let Some(Existing { digest, .. }) = found else {
        let message = "the image was pushed, and the registry does not have it";
        return Err(BuildError::failed(format!("{message}: `{reference}`")));
    };
    if !is_ours(&digest) {
        let message = "somebody else pushed another image under the same tag at the same time";
        return Err(BuildError::failed(format!("{message}: `{reference}`")));
    }
    let image = documents(local, plan, cx, &registry, &parsed, &digest).await?;
    let layers = image.map(told_of).unwrap_or_default();
    Ok(built(reference, Some(digest), layers, true))
}

/// Whether a digest is what the engine knows of a repository, if it knows anything of it.
fn is_among(known: &[String], repository: &str, digest: &Digest) -> bool {
    let mut here = known
        .iter()
        .filter_map(|name| name.strip_prefix(repository)?.strip_prefix('@'))
        .peekable();
    here.peek().is_none() || here.any(|known| known == digest.to_string())
}

/// What the documents of an image of a registry say.
async fn documents(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    registry: &Registry,
    reference: &Reference,
    digest: &Digest,
) -> Result<Option<Image>, BuildError> {
    let blobs = local.store.blobs();
    let Some(platform) = plan.platforms.first() else {
        return Ok(None);
    };
    let pull = Pull {
        store: blobs,
        reference,
        platform,
        layers: false,
        mounts: &Mounts::open(local.host.cache_dir.join("registries")),
        parallelism: 1,
        progress: &|_| (),
        cancel: &cx.cancel,
    };
    registry.pull_image(pull).await?;
    let image = Image::read(blobs, digest, platform);
    image.map(Some).map_err(|error| unwritten(&error))
}

fn told_of(image: Image) -> Vec<BuiltLayer> {
    let layer = |layer: imagespec_oci::cache::Layer| BuiltLayer {
        digest: layer.digest,
        diff_id: layer.diff_id,
        size: layer.size,
        created_by: layer.created_by,
    };
    image.layers.into_iter().map(layer).collect()
}

/// What the engine is told to push with. It keeps none of it.
async fn login(
    local: &Local,
    reference: &Reference,
) -> Result<Option<DockerCredentials>, BuildError> {
    let credentials = Credentials::new(&local.host);
    let found = credentials
        .find(&reference.registry, &reference.repository)
        .await;
    let found = found.map_err(|error| {
        BuildError::unavailable(format!(
            "the credentials of the registry cannot be had: `{}`",
            reference.registry
        ))
        .caused_by(&error)
        .hint(format!(
            "log in again: `docker login {}`",
            reference.registry
        ))
    })?;
    let serveraddress = Some(reference.registry.clone());
    Ok(found.map(|credential| match credential {
        Credential::Basic { username, password } => DockerCredentials {
            username: Some(username),
            password: Some(password.expose().to_owned()),
            serveraddress,
            ..DockerCredentials::default()
        },
        Credential::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token.expose().to_owned()),
            serveraddress,
            ..DockerCredentials::default()
        },
        Credential::RegistryToken(token) => DockerCredentials {
            registrytoken: Some(token.expose().to_owned()),
            serveraddress,
            ..DockerCredentials::default()
        },
    }))
}

/// Keeps others from removing what is in the store.
pub(crate) async fn lock(local: &Local) -> Result<BuildLock, BuildError> {
    let store = local.store.clone();
    let lock = tokio::task::spawn_blocking(move || store.lock_shared()).await;
    let lock = lock.map_err(io::Error::other).and_then(|lock| lock);
    lock.map_err(|error| unwritten(&error))
}

/// Takes an image that comes as an archive into the store.
pub(crate) async fn take(
    local: &Local,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<Descriptor, BuildError> {
    let work = tempfile::Builder::new()
        .prefix(".saved-")
        .tempdir_in(&local.host.cache_dir)
        .map_err(|error| unwritten(&error))?;
    let bytes = SyncIoBridge::new(StreamReader::new(Box::pin(archive)));
    let blobs = local.store.blobs().clone();
    let taken = tokio::task::spawn_blocking(move || saved::read(&blobs, bytes, work.path())).await;
    let taken = taken.map_err(io::Error::other).and_then(|taken| taken);
    taken.map_err(|error| BuildError::failed("cannot take the finished image").caused_by(&error))
}

/// Takes the image that an engine has built into the store.
async fn take_out(local: &Local, cx: &BuildContext<'_>) -> Result<Descriptor, BuildError> {
    let title = "take the image out of the engine";
    let step = cx.progress.step("take", title);
    let saved = local.engine()?.save(&cx.destination.reference())?;
    let taken = take(local, saved.map_err(io::Error::other)).await?;
    step.finish(false, taken.digest.to_string());
    Ok(taken)
}

/// Takes the image that an engine has built, and pushes it with the credentials and the trust of this machine.
pub(crate) async fn push_from_here(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<BuiltImage, BuildError> {
    let taken = take_out(local, cx).await?;
    let reference = cx.destination.reference();
    let parsed = parse(&reference)?;
    let registry = Registry::new(&local.host, &parsed.registry)?;
    let (layers, size) = layers(local, plan, &taken)?;
    let step = cx
        .progress
        .step(PUSH, format!("push to {}", parsed.registry));
    let done = AtomicU64::new(0);
    let advance = |bytes: u64| {
        let before = done.fetch_add(bytes, Ordering::Relaxed);
        cx.progress.emit(BuildEvent::StepProgress {
            step: PUSH.to_owned(),
            done: before + bytes,
            total: Some(size),
        });
    };
    let push = Push {
        store: local.store.blobs(),
        source: &Stored,
        image: &taken,
        reference: &parsed,
        extra_tags: &cx.destination.extra_tags,
        mounts: &Mounts::open(local.host.cache_dir.join("registries")),
        there: &BTreeSet::new(),
        parallelism: cx.settings.jobs.clamp(1, 8),
        progress: &advance,
        cancel: &cx.cancel,
    };
    let pushed = registry.push_image(push).await?;
    step.finish(pushed.bytes == 0, taken.digest.to_string());
    Ok(BuiltImage {
        pushed_bytes: pushed.bytes,
        ..built(reference, Some(taken.digest), layers, true)
    })
}

/// The layers of an image of the store, and their bytes.
fn layers(
    local: &Local,
    plan: &BuildPlan,
    image: &Descriptor,
) -> Result<(Vec<BuiltLayer>, u64), BuildError> {
    let image = Image::read(local.store.blobs(), &image.digest, &platform(plan));
    let layers = told_of(image.map_err(|error| unwritten(&error))?);
    let size = layers.iter().map(|layer| layer.size).sum();
    Ok((layers, size))
}

fn platform(plan: &BuildPlan) -> Platform {
    let first = plan.platforms.first().cloned();
    first.unwrap_or_else(Platform::host)
}

/// Names an image of the store, and brings it from there where it should go.
pub(crate) async fn keep(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    taken: Descriptor,
) -> Result<BuiltImage, BuildError> {
    let reference = cx.destination.reference();
    let platform = platform(plan);
    let (layers, size) = layers(local, plan, &taken)?;
    write(local, plan, cx, &taken, &platform, size)?;
    if *cx.output != Output::Docker {
        return Ok(built(reference, Some(taken.digest), layers, true));
    }
    let engine = local.engine()?;
    let title = format!("load into the engine at {}", engine.address());
    let step = cx.progress.step("load", title);
    let names = references(cx);
    let blobs = local.store.blobs();
    engine.load(blobs, &taken, &platform, &names).await?;
    step.finish(false, String::new());
    // An engine knows no digest of a manifest before the image is pushed.
    Ok(built(reference, None, layers, true))
}

fn write(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    image: &Descriptor,
    platform: &Platform,
    size: u64,
) -> Result<(), BuildError> {
    let references = references(cx);
    let created = SystemTime::now().duration_since(UNIX_EPOCH);
    for reference in &references {
        let record = ImageRecord {
            reference: reference.clone(),
            descriptor: image.clone(),
            platforms: plan.platforms.clone(),
            size,
            created: created.as_ref().map_or(0, std::time::Duration::as_secs),
            builder: ENTRY.name.to_owned(),
        };
        local
            .store
            .tag(&record)
            .map_err(|error| unwritten(&error))?;
    }
    let blobs = local.store.blobs();
    let written = match cx.output {
        Output::OciDir(folder) => layout::write(blobs, image, &references, folder),
        Output::Tar(file) => archive::write(blobs, image, platform, &references, file),
        _ => Ok(()),
    };
    let message = format!("cannot write the output `{}`", cx.output);
    written.map_err(|error| output_error(&message, "output", &error))
}

/// The error of something that cannot be written where a person wants it.
pub(crate) fn output_error(message: &str, field: &str, error: &io::Error) -> BuildError {
    let failed = BuildError::failed(message).field(field).caused_by(error);
    match error.kind() {
        io::ErrorKind::AlreadyExists => BuildError {
            kind: ErrorKind::Input,
            ..failed
        }
        .hint("name a folder that does not exist yet"),
        _ => failed,
    }
}

fn parse(reference: &str) -> Result<Reference, BuildError> {
    reference
        .parse()
        .map_err(|error: imagespec_oci::ReferenceError| BuildError::from(error).field("registry"))
}

pub(crate) fn unwritten(error: &io::Error) -> BuildError {
    BuildError::failed("cannot use the local store").caused_by(error)
}

fn built(
    reference: String,
    digest: Option<Digest>,
    layers: Vec<BuiltLayer>,
    built: bool,
) -> BuiltImage {
    BuiltImage {
        reference,
        digest,
        builder: ENTRY.name.to_owned(),
        built,
        size: layers.iter().map(|layer| layer.size).sum(),
        pushed_bytes: 0,
        layers,
        work: None,
    }
}
