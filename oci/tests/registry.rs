//! The client against a real registry: Debian's `docker-registry`, on a free port of this machine.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use imagespec_core::digest::Digest;
use imagespec_core::error::ErrorKind;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Descriptor, Image, Runtime, reachable, write_index};
use imagespec_oci::registry::{Pull, Push, Pushed};
use imagespec_oci::store::BlobStore;
use imagespec_oci::{Reference, Registry, RegistryError};
use tokio_util::sync::CancellationToken;

/// `user` and `secret`, as `htpasswd -nbB` writes them.
const HTPASSWD: &str = "user:$2y$05$5/N1dg02z7nJnvsEsBF1GObOhDfiGJfRC9KCzuVOGIy01BBvl5.KO\n";
/// `user:secret` in Base64.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";

struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the tests must learn what was not tested"
    )]
    /// Starts a registry; without one on this machine there is no test, which in CI is a failure.
    fn start(protected: bool) -> Option<Self> {
        // Somebody else may take a free port before the registry does.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder");
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            let config = folder.path().join("config.yml");
            fs_err::write(folder.path().join("htpasswd"), HTPASSWD).expect("a file");
            fs_err::write(&config, configuration(folder.path(), port, protected)).expect("a file");
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = child else {
                let required = std::env::var_os("CI").is_some();
                assert!(!required, "docker-registry is not installed");
                println!("skipped: docker-registry is not installed");
                return None;
            };
            let mut server = Self {
                child,
                port,
                _folder: folder,
            };
            if server.answers() {
                return Some(server);
            }
        }
        panic!("docker-registry does not start");
    }

    fn answers(&mut self) -> bool {
        for _ in 0..200 {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.name())
            .parse()
            .expect("a reference")
    }
}

fn configuration(folder: &Path, port: u16, protected: bool) -> String {
    let folder = folder.display();
    let auth = if protected {
        format!("auth:\n  htpasswd:\n    realm: test\n    path: {folder}/htpasswd\n")
    } else {
        String::new()
    };
    format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: \
         {folder}/data\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
}

struct Images {
    _folder: tempfile::TempDir,
    store: BlobStore,
}

impl Images {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        Self {
            _folder: folder,
            store,
        }
    }

    /// An image of a large layer and a small one.
    fn image(&self, platform: Platform, content: &str) -> Descriptor {
        let layer = |content: &[u8]| {
            let digest = self.store.put(content).expect("a blob");
            Layer {
                digest,
                diff_id: digest,
                size: content.len() as u64,
                uncompressed_size: content.len() as u64,
                media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                created_by: "test".to_owned(),
            }
        };
        let image = Image {
            platform,
            runtime: Runtime::default(),
            layers: vec![layer(&vec![7; 3 << 20]), layer(content.as_bytes())],
        };
        image.write(&self.store).expect("an image")
    }
}

async fn push(
    registry: &Registry,
    images: &Images,
    image: &Descriptor,
    reference: &Reference,
    mounts: &BTreeMap<Digest, String>,
) -> Result<(Pushed, u64), RegistryError> {
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let pushed = registry
        .push_image(Push {
            store: &images.store,
            image,
            reference,
            extra_tags: &["extra".to_owned()],
            mounts,
            parallelism: 4,
            progress: &progress,
            cancel: &CancellationToken::new(),
        })
        .await?;
    Ok((pushed, told.into_inner()))
}

async fn pull(
    registry: &Registry,
    into: &Images,
    reference: &Reference,
    platform: &Platform,
) -> Result<Descriptor, RegistryError> {
    registry
        .pull_image(Pull {
            store: &into.store,
            reference,
            platform,
            layers: true,
            parallelism: 4,
            progress: &|_| (),
            cancel: &CancellationToken::new(),
        })
        .await
}

fn blobs_of(images: &Images, image: &Descriptor) -> u64 {
    let blobs = reachable(&images.store, image).expect("blobs");
    let sizes = blobs
        .iter()
        .filter(|blob| !blob.media_type.contains("manifest") && !blob.media_type.contains("index"))
        .map(|blob| blob.size);
    sizes.sum()
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed_and_is_sent_once() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let registry = Registry::new(&Host::default(), &server.name()).expect("a registry");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("team/app:1");
    let none = BTreeMap::new();
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
    push(&registry, &images, &first, &reference, &BTreeMap::new())
        .await
        .expect("a push");
    let second = images.image(Platform::amd64(), "two");
    let large = Digest::of(vec![7; 3 << 20]);
    fs_err::remove_file(images.store.path(&large)).expect("a blob less");
    let reference = server.reference("app:1");
    let missing = push(&registry, &images, &second, &reference, &BTreeMap::new()).await;
    assert!(matches!(missing, Err(RegistryError::Io(_))), "{missing:?}");
    assert_eq!(registry.exists(&reference).await, Ok(None));
    let mounts = BTreeMap::from([(large, "base".to_owned())]);
    let (pushed, told) = push(&registry, &images, &second, &reference, &mounts)
        .await
        .expect("a push");
    assert!(pushed.bytes < 1 << 20, "{pushed:?}");
    assert_eq!(told, blobs_of(&images, &second));
    assert_eq!(registry.exists(&reference).await, Ok(Some(second.digest)));
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
    push(&registry, &images, &index, &reference, &BTreeMap::new())
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
    let denied = push(&stranger, &images, &image, &reference, &BTreeMap::new()).await;
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
    push(&known, &images, &image, &reference, &BTreeMap::new())
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
            image: &image,
            reference: &reference,
            extra_tags: &[],
            mounts: &BTreeMap::new(),
            parallelism: 1,
            progress: &|_| cancel.cancel(),
            cancel: &cancel,
        })
        .await;
    assert!(matches!(pushed, Err(RegistryError::Interrupted)));
    assert_eq!(registry.exists(&reference).await, Ok(None));
}
