//! What one image has sent, the next one mounts, also in another process.

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::Registry;
use imagespec_oci::image::reachable;
use imagespec_oci::registry::{Mounts, Pull};
use tokio_util::sync::CancellationToken;

use crate::images::{Images, push, push_asked};
use crate::proxy::Proxy;
use crate::server::Server;

#[tokio::test]
async fn the_next_image_mounts_what_it_shares() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let folder = tempfile::tempdir().expect("a folder");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let first = server.reference("first:1");
    push(
        &registry,
        &images,
        &image,
        &first,
        &Mounts::open(folder.path()),
    )
    .await
    .expect("a push");
    // Another process, with the same cache.
    let mounts = Mounts::open(folder.path());
    let second = server.reference("second:1");
    let (pushed, _) = push(&registry, &images, &image, &second, &mounts)
        .await
        .expect("a push");
    // Configurations are too small to be worth a note.
    assert!(pushed.bytes < 1000, "{pushed:?}");
    let large = Digest::of(vec![7; 3 << 20]);
    let known = mounts.find(&server.name(), "third", &large);
    assert_eq!(known.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_note_that_is_wrong_costs_nothing_and_is_mended() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let proxy = Proxy::start(&server.name(), Vec::new()).await;
    let registry = Registry::new(&Host::default(), &proxy.name).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let large = Digest::of(vec![7; 3 << 20]);
    let mounts = Mounts::default();
    mounts.holds(&proxy.name, "gone", &large);
    let reference = format!("{}/app:1", proxy.name)
        .parse()
        .expect("a reference");
    push(&registry, &images, &image, &reference, &mounts)
        .await
        .expect("a push");
    // The session that the registry gives in place of the mount is the one that is used.
    let started = proxy.seen();
    let started = started.iter().filter(|request| request.method == "POST");
    assert_eq!(started.count(), 3, "one a blob");
    let known = mounts.find(&proxy.name, "other", &large);
    assert_eq!(known.as_deref(), Some("app"));
    assert_eq!(mounts.find(&proxy.name, "app", &large), None);
}

#[tokio::test]
async fn what_is_pulled_can_be_mounted_without_its_layers() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let base = server.reference("base:1");
    push(&registry, &images, &image, &base, &Mounts::default())
        .await
        .expect("a push");
    let copy = Images::new();
    let mounts = Mounts::default();
    let pull = Pull {
        store: &copy.store,
        reference: &base,
        platform: &Platform::amd64(),
        layers: false,
        mounts: &mounts,
        parallelism: 1,
        progress: &|_| (),
        cancel: &CancellationToken::new(),
    };
    registry.pull_image(pull).await.expect("a pull");
    // Neither layer is here; the push has them mounted, or fails.
    let app = server.reference("app:1");
    push(&registry, &copy, &image, &app, &mounts)
        .await
        .expect("a push");
    assert_eq!(registry.exists(&app).await, Ok(Some(image.digest)));
}

#[tokio::test]
async fn what_the_last_image_holds_is_not_asked_for() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let proxy = Proxy::start(&server.name(), Vec::new()).await;
    let registry = Registry::new(&Host::default(), &proxy.name).expect("a registry");
    let folder = tempfile::tempdir().expect("a folder");
    let images = Images::new();
    let named = |tag: &str| {
        let name = format!("{}/app:{tag}", proxy.name);
        name.parse().expect("a reference")
    };
    let mounts = Mounts::open(folder.path());
    let none = registry.held("app", &mounts, &images.store).await;
    assert!(none.is_empty() && proxy.seen().is_empty());
    let one = images.image(Platform::amd64(), "one");
    push(&registry, &images, &one, &named("1"), &mounts)
        .await
        .expect("a push");
    // Another process, with the same cache.
    let mounts = Mounts::open(folder.path());
    let before = proxy.seen().len();
    let held = registry.held("app", &mounts, &images.store).await;
    assert_eq!(proxy.seen().len(), before + 1, "one HEAD");
    let blobs = reachable(&images.store, &one).expect("blobs");
    assert!(blobs.iter().all(|blob| held.contains(&blob.digest)));
    let elsewhere = registry.held("other", &mounts, &images.store).await;
    assert!(elsewhere.is_empty());

    // A registry that has lost a layer of an image that it has: the layer is sent again.
    let large = Digest::of(vec![7; 3 << 20]);
    server.lose(&large);
    let two = images.image(Platform::amd64(), "two");
    let asked = held.iter().map(|digest| (*digest, true)).collect();
    let (pushed, _) = push_asked(&asked, 4, &registry, &images, &two, &named("2"), &mounts)
        .await
        .expect("a push");
    assert!(pushed.bytes > 3 << 20, "{pushed:?}");
    let again = Registry::new(&Host::default(), &proxy.name).expect("a registry");
    let found = again.head_blob("app", &large).await.expect("an answer");
    assert_eq!(found, Some(3 << 20));
    assert_eq!(mounts.last_image(&proxy.name, "app"), Some(two.digest));

    // A registry that has lost the image.
    server.forget("app", &two.digest);
    let held = again.held("app", &mounts, &images.store).await;
    assert!(held.is_empty());
}
