//! Downloads that go on where they broke off, and that a registry sends elsewhere.

use std::collections::BTreeMap;

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::Registry;
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::Mounts;

use crate::images::{Images, push};
use crate::proxy::{Fault, Proxy, Rule};
use crate::server::{AUTH, Server};

const SIZE: u64 = 3 << 20;

fn wrong(method: &'static str, fault: Fault) -> Rule {
    Rule {
        method,
        path: "/blobs/sha256:",
        fault,
        times: 1,
    }
}

async fn pushed(server: &Server) -> Descriptor {
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("app:1");
    push(&registry, &images, &image, &reference, &Mounts::default())
        .await
        .expect("a push");
    Descriptor::new("layer", Digest::of(vec![7; 3 << 20]), SIZE)
}

fn known(name: &str) -> Registry {
    let config = format!(r#"{{"auths":{{"{name}":{{"auth":"{AUTH}"}}}}}}"#);
    let host = Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        ..Host::default()
    };
    Registry::new(&host, name).expect("a registry")
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off_also_when_the_token_ended() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let blob = pushed(&server).await;
    let rules = vec![
        wrong("GET", Fault::Truncate),
        // In the middle: the first is the answer to the rest.
        wrong("GET", Fault::Status(401)),
        wrong("HEAD", Fault::Status(401)),
    ];
    let proxy = Proxy::start(&server.name(), rules).await;
    let images = Images::new();
    let told = std::sync::atomic::AtomicU64::new(0);
    known(&proxy.name)
        .get_blob("app", &blob, &images.store, &|bytes| {
            told.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        })
        .await
        .expect("a blob");
    assert_eq!(told.into_inner(), SIZE);
    assert_eq!(proxy.left(), 0);
    let seen = proxy.seen();
    let gets = seen.iter().filter(|request| request.method == "GET");
    let ranges: Vec<_> = gets.map(|request| request.header("range")).collect();
    let rest = format!("bytes={}-", SIZE / 2);
    assert_eq!(ranges, [None, Some(rest.as_str()), Some(rest.as_str())]);
}

#[tokio::test]
async fn where_a_blob_is_fetched_from_nobody_learns_who_we_are() {
    let Some(server) = Server::start(true) else {
        return;
    };
    let Some(open) = Server::start(false) else {
        return;
    };
    let blob = pushed(&open).await;
    let storage = Proxy::start(&open.name(), Vec::new()).await;
    let (_, port) = storage.name.rsplit_once(':').expect("a port");
    let port = port.parse().expect("a port");
    let rules = vec![
        wrong("GET", Fault::Status(401)),
        wrong("HEAD", Fault::Status(401)),
        wrong("HEAD", Fault::Elsewhere(port)),
        wrong("GET", Fault::Elsewhere(port)),
    ];
    let proxy = Proxy::start(&server.name(), rules).await;
    let images = Images::new();
    known(&proxy.name)
        .get_blob("app", &blob, &images.store, &|_| ())
        .await
        .expect("a blob");
    let at_home = proxy.seen();
    let shown = at_home
        .last()
        .and_then(|request| request.header("authorization"));
    assert_eq!(shown, Some(format!("Basic {AUTH}").as_str()));
    let away = storage.seen();
    assert_eq!(away.len(), 2);
    assert!(
        away.iter()
            .all(|request| request.header("authorization").is_none())
    );
}
