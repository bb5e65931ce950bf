//! Whole images, against a real registry.

use std::collections::BTreeMap;
use std::sync::Mutex;

use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::image::{Descriptor, reachable, write_index};
use imagespec_oci::registry::{BlobSource, Mounts, Push, Pushed, Stored};
use imagespec_oci::store::BlobStore;
use imagespec_oci::{Registry, RegistryError};
use tokio_util::sync::CancellationToken;

use crate::images::{Images, blobs_of, pull, push};
use crate::server::{AUTH, Server};

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed_and_is_sent_once() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("team/app:1");
    let none = Mounts::default();
    assert_eq!(registry.exists(&reference).await, Ok(None));

    let all = blobs_of(&images, &image);
    let (pushed, told) = push(&registry, &images, &image, &reference, &none)
        .await
        .expect("a push");
    assert_eq!((pushed.bytes, told), (all, all));
    assert_eq!(registry.exists(&reference).await, Ok(Some(image.digest)));
    let extra = server.reference("team/app:extra");
    assert_eq!(registry.exists(&extra).await, Ok(Some(image.digest)));
    let again = push(&registry, &images, &image, &reference, &none)
        .await
        .expect("a push");
    assert_eq!(again, (Pushed { bytes: 0 }, all));

    let copy = Images::new();
    let platform = Platform::amd64();
    let pulled = pull(&registry, &copy, &reference, &platform)
        .await
        .expect("a pull");
    assert_eq!(pulled.digest, image.digest);
    for blob in reachable(&copy.store, &pulled).expect("blobs") {
        let (found, _) =
            Digest::of_reader(&mut copy.store.open_blob(&blob.digest).expect("a blob"))
                .expect("content");
        assert_eq!(found, blob.digest);
    }
}

#[tokio::test]
async fn what_another_repository_has_is_mounted_also_when_it_is_not_here() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let first = images.image(Platform::amd64(), "one");
    let reference = server.reference("base:1");
    push(&registry, &images, &first, &reference, &Mounts::default())
        .await
        .expect("a push");
    let second = images.image(Platform::amd64(), "two");
    let large = Digest::of(vec![7; 3 << 20]);
    fs_err::remove_file(images.store.path(&large)).expect("a blob less");
    let reference = server.reference("app:1");
    let missing = push(&registry, &images, &second, &reference, &Mounts::default()).await;
    assert!(
        matches!(missing, Err(RegistryError::Source(_))),
        "{missing:?}"
    );
    assert_eq!(registry.exists(&reference).await, Ok(None));
    let mounts = Mounts::default();
    mounts.holds(&server.name(), "base", &large);
    let (pushed, told) = push(&registry, &images, &second, &reference, &mounts)
        .await
        .expect("a push");
    assert!(pushed.bytes < 1 << 20, "{pushed:?}");
    assert_eq!(told, blobs_of(&images, &second));
    assert_eq!(registry.exists(&reference).await, Ok(Some(second.digest)));
}

/// Makes the large layer of [`Images::image`], and remembers what it was asked for.
struct Maker {
    store: BlobStore,
    asked: Mutex<Vec<Digest>>,
}

#[async_trait::async_trait]
impl BlobSource for Maker {
    async fn provide(&self, blob: &Descriptor) -> Result<(), BuildError> {
        self.asked.lock().expect("a list").push(blob.digest);
        self.store.put(&vec![7; 3 << 20]).expect("a blob");
        Ok(())
    }
}

#[tokio::test]
async fn only_what_the_registry_lacks_and_cannot_mount_is_made() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let large = Digest::of(vec![7; 3 << 20]);
    let mounts = Mounts::default();
    mounts.holds(&server.name(), "first", &large);
    let cancel = CancellationToken::new();
    for (name, made) in [
        ("first:1", true),
        ("first:2", false),
        ("second:1", false),
        ("third:1", true),
    ] {
        fs_err::remove_file(images.store.path(&large)).expect("a blob less");
        let maker = Maker {
            store: images.store.clone(),
            asked: Mutex::default(),
        };
        let none = Mounts::default();
        let reference = server.reference(name);
        let push = Push {
            store: &images.store,
            source: &maker,
            image: &image,
            reference: &reference,
            extra_tags: &[],
            mounts: if name.starts_with("second") {
                &mounts
            } else {
                &none
            },
            asked: &BTreeMap::new(),
            parallelism: 2,
            progress: &|_| (),
            cancel: &cancel,
        };
        registry.push_image(push).await.expect("a push");
        let asked = maker.asked.into_inner().expect("a list");
        assert_eq!(asked, vec![large; usize::from(made)], "{name}");
        assert_eq!(registry.exists(&reference).await, Ok(Some(image.digest)));
        images.store.put(&vec![7; 3 << 20]).expect("a blob");
    }
}

#[tokio::test]
async fn an_index_is_pushed_whole_and_pulled_by_platform() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let arm: Platform = "linux/arm64".parse().expect("a platform");
    let manifests = [
        images.image(Platform::amd64(), "one"),
        images.image(arm.clone(), "two"),
    ];
    let index = write_index(&images.store, &manifests).expect("an index");
    let reference = server.reference("app:both");
    push(&registry, &images, &index, &reference, &Mounts::default())
        .await
        .expect("a push");
    assert_eq!(registry.exists(&reference).await, Ok(Some(index.digest)));
    let copy = Images::new();
    let pulled = pull(&registry, &copy, &reference, &arm)
        .await
        .expect("a pull");
    assert_eq!(pulled.digest, manifests[1].digest);
    let s390x = "linux/s390x".parse().expect("a platform");
    let error = pull(&registry, &copy, &reference, &s390x).await;
    let error = error.expect_err("no such platform").to_string();
    assert!(error.contains("linux/arm64"), "{error}");
    let single = reference.with_digest(manifests[0].digest);
    let error = pull(&registry, &copy, &single, &arm).await;
    assert!(matches!(error, Err(RegistryError::Platform { .. })));
}

#[tokio::test]
async fn credentials_decide_who_may() {
    let Some(server) = Server::start(true) else {
        return;
    };
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("app:1");
    let stranger = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let denied = push(&stranger, &images, &image, &reference, &Mounts::default()).await;
    assert!(
        matches!(denied, Err(RegistryError::Denied { .. })),
        "{denied:?}"
    );
    let unknown = stranger.exists(&reference).await.expect_err("no answer");
    assert_eq!(unknown.kind, ErrorKind::Unknown);

    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{AUTH}"}}}}}}"#, server.name());
    let host = Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        ..Host::default()
    };
    let known = Registry::new(&host, &server.name()).expect("a registry");
    push(&known, &images, &image, &reference, &Mounts::default())
        .await
        .expect("a push");
    let copy = Images::new();
    let platform = Platform::amd64();
    let pulled = pull(&known, &copy, &reference, &platform)
        .await
        .expect("a pull");
    assert_eq!(pulled.digest, image.digest);
}

#[tokio::test]
async fn only_a_registry_can_say_that_an_image_is_absent() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let proxy = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let name = format!("127.0.0.1:{port}");
    let registry = Registry::new(&Host::default(), &name).expect("a registry");
    let reference = format!("{name}/app:1").parse().expect("a reference");
    let unknown = registry.exists(&reference).await.expect_err("no registry");
    assert_eq!(unknown.kind, ErrorKind::Unknown);
    proxy.abort();
}

#[tokio::test]
async fn a_cancelled_push_sets_no_tag() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("app:1");
    let cancel = CancellationToken::new();
    let pushed = registry
        .push_image(Push {
            store: &images.store,
            source: &Stored,
            image: &image,
            reference: &reference,
            extra_tags: &[],
            mounts: &Mounts::default(),
            asked: &BTreeMap::new(),
            parallelism: 1,
            progress: &|_| cancel.cancel(),
            cancel: &cancel,
        })
        .await;
    assert!(matches!(pushed, Err(RegistryError::Interrupted)));
    assert_eq!(registry.exists(&reference).await, Ok(None));
}
