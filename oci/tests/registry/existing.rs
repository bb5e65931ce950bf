//! Whether an image is there, for the platforms that are asked for.

use imagespec_core::error::ErrorKind;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::Registry;
use imagespec_oci::image::write_index;
use imagespec_oci::registry::Mounts;

use crate::images::{Images, push};
use crate::proxy::{Fault, Proxy, Rule};
use crate::server::Server;

#[tokio::test]
async fn an_image_is_there_for_all_the_platforms_that_are_asked_for() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let proxy = Proxy::start(&server.name(), Vec::new()).await;
    let registry = Registry::new(&Host::default(), &proxy.name).expect("a registry");
    let images = Images::new();
    let (amd64, arm64): (_, Platform) = (
        Platform::amd64(),
        "linux/arm64".parse().expect("a platform"),
    );
    let single = images.image(amd64.clone(), "one");
    let manifests = [single.clone(), images.image(arm64.clone(), "two")];
    let both = write_index(&images.store, &manifests).expect("an index");
    let none = Mounts::default();
    let name = |tag| {
        let name: String = format!("{}/app:{tag}", proxy.name);
        name.parse().expect("a reference")
    };
    for (tag, image) in [("single", &single), ("both", &both)] {
        push(&registry, &images, image, &name(tag), &none)
            .await
            .expect("a push");
    }
    let store = Images::new().store;
    for (tag, wanted, there) in [
        ("single", vec![], true),
        ("single", vec![amd64.clone()], true),
        ("single", vec![arm64.clone()], false),
        ("single", vec![amd64.clone(), arm64.clone()], false),
        ("both", vec![arm64.clone()], true),
        ("both", vec![amd64.clone(), arm64.clone()], true),
        (
            "both",
            vec!["linux/s390x".parse().expect("a platform")],
            false,
        ),
        ("absent", vec![], false),
    ] {
        let found = registry.existing(&name(tag), &wanted, &store).await;
        let found = found.expect("an answer");
        assert_eq!(found.is_some(), there, "{tag} {wanted:?}");
        let digest = if tag == "both" {
            both.digest
        } else {
            single.digest
        };
        assert!(found.is_none_or(|found| found.digest == digest));
        // Once more: everything but the tag is known.
        let before = proxy.seen().len();
        let again = registry.existing(&name(tag), &wanted, &store).await;
        assert_eq!(again.expect("an answer").is_some(), there);
        assert_eq!(proxy.seen().len() - before, 1, "{tag} {wanted:?}");
    }
}

#[tokio::test]
async fn a_platform_that_cannot_be_learned_leaves_it_unknown() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let refuse = Rule {
        method: "GET",
        path: "/blobs/",
        fault: Fault::Status(403),
        times: 1,
    };
    let proxy = Proxy::start(&server.name(), vec![refuse]).await;
    let registry = Registry::new(&Host::default(), &proxy.name).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let name = format!("{}/app:1", proxy.name)
        .parse()
        .expect("a reference");
    push(&registry, &images, &image, &name, &Mounts::default())
        .await
        .expect("a push");
    let store = Images::new();
    let wanted = [Platform::amd64()];
    let unknown = registry.existing(&name, &wanted, &store.store).await;
    assert_eq!(unknown.expect_err("no answer").kind, ErrorKind::Unknown);
    let found = registry.existing(&name, &wanted, &store.store).await;
    assert!(found.expect("an answer").is_some());
}
