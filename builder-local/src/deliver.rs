//! Images that the engine has: found, named, and brought where they should go.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard::auth::DockerCredentials;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;
use imagespec_core::plan::BuildPlan;
use imagespec_oci::credentials::{Credential, Credentials};
use imagespec_oci::delivery::{is_untold, parse, platform, references, unwritten};
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::{Mounts, Push, Stored};
use imagespec_oci::{Reference, Registry, saved};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::backend::Local;

/// Name of the step in which the engine pushes.
const PUSH: &str = "push";

/// The image of a name, where the output says that it should be.
pub(crate) async fn find(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Option<BuiltImage>, BuildError> {
    if is_untold(cx) {
        return Ok(None);
    }
    match cx.output {
        Output::Docker => {
            let reference = cx.destination.reference();
            let found = local.engine()?.find(&reference).await?;
            let found = found.filter(|image| cx.settings.has_labels(&image.labels));
            Ok(found.map(|image| BuiltImage {
                size: image.size,
                ..local.delivery().built(reference, None, Vec::new(), false)
            }))
        }
        Output::Push => local.delivery().find_pushed(plan, cx).await,
        Output::Store => local.delivery().find_stored(plan, cx),
        Output::OciDir(_) | Output::Tar(_) => Ok(None),
    }
}

/// Gives an image that was found its further tags.
pub(crate) async fn tag(
    local: &Local,
    image: &BuiltImage,
    cx: &BuildContext<'_>,
) -> Result<(), BuildError> {
    match cx.output {
        Output::Docker => {
            let engine = local.engine()?;
            let repository = cx.destination.repository();
            for tag in &cx.destination.extra_tags {
                engine.tag(&image.reference, &repository, tag).await?;
            }
            Ok(())
        }
        Output::Push => local.delivery().tag_pushed(image, cx).await,
        Output::Store => local.delivery().tag_stored(image, cx),
        // Always written, so never found.
        Output::OciDir(_) | Output::Tar(_) => Ok(()),
    }
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
                ..local.delivery().built(reference, None, Vec::new(), true)
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
    let image = local
        .delivery()
        .confirm(plan, cx, |digest| is_among(&known, &repository, digest))
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
    local
        .delivery()
        .confirm(plan, cx, |found| {
            digest.is_none_or(|digest| digest == *found)
        })
        .await
}

/// Whether a digest is what the engine knows of a repository, if it knows anything of it.
fn is_among(known: &[String], repository: &str, digest: &Digest) -> bool {
    let mut here = known
        .iter()
        .filter_map(|name| name.strip_prefix(repository)?.strip_prefix('@'))
        .peekable();
    here.peek().is_none() || here.any(|known| known == digest.to_string())
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
pub(crate) async fn take_out(
    local: &Local,
    cx: &BuildContext<'_>,
) -> Result<Descriptor, BuildError> {
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
    push_taken(local, plan, cx, taken).await
}

/// Pushes an image of the store.
pub(crate) async fn push_taken(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    taken: Descriptor,
) -> Result<BuiltImage, BuildError> {
    let reference = cx.destination.reference();
    let parsed = parse(&reference)?;
    let registry = Registry::new(&local.host, &parsed.registry)?;
    let (layers, size) = local.delivery().layers(plan, &taken)?;
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
        asked: &BTreeMap::new(),
        parallelism: cx.settings.jobs.clamp(1, 8),
        progress: &advance,
        cancel: &cx.cancel,
    };
    let pushed = registry.push_image(push).await?;
    step.finish(pushed.bytes == 0, taken.digest.to_string());
    Ok(BuiltImage {
        pushed_bytes: pushed.bytes,
        ..local
            .delivery()
            .built(reference, Some(taken.digest), layers, true)
    })
}

/// Names an image of the store, and brings it from there where it should go.
pub(crate) async fn keep(
    local: &Local,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    taken: Descriptor,
) -> Result<BuiltImage, BuildError> {
    let kept = local.delivery().keep(plan, cx, &taken)?;
    if *cx.output != Output::Docker {
        return Ok(kept);
    }
    let engine = local.engine()?;
    let title = format!("load into the engine at {}", engine.address());
    let step = cx.progress.step("load", title);
    let names = references(cx);
    let blobs = local.store.blobs();
    engine.load(blobs, &taken, &platform(plan), &names).await?;
    step.finish(false, String::new());
    // An engine knows no digest of a manifest before the image is pushed.
    Ok(BuiltImage {
        digest: None,
        ..kept
    })
}
