//! Debian's `docker-registry`, on a free port of this machine.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use imagespec_core::digest::Digest;
use imagespec_oci::Reference;

/// `user` and `secret`, as `htpasswd -nbB` writes them.
const HTPASSWD: &str = "user:$2y$05$5/N1dg02z7nJnvsEsBF1GObOhDfiGJfRC9KCzuVOGIy01BBvl5.KO\n";
/// `user:secret` in Base64.
pub(crate) const AUTH: &str = "dXNlcjpzZWNyZXQ=";

pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a registry; without one on this machine there is no test, which in CI is a failure.
    pub(crate) fn start(protected: bool) -> Option<Self> {
        Self::start_with(protected, None)
    }

    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the tests must learn what was not tested"
    )]
    /// As [`Server::start`], with the certificate and the key of TLS.
    pub(crate) fn start_with(protected: bool, tls: Option<(&str, &str)>) -> Option<Self> {
        // Somebody else may take a free port before the registry does.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder");
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            let config = folder.path().join("config.yml");
            fs_err::write(folder.path().join("htpasswd"), HTPASSWD).expect("a file");
            let mut text = configuration(folder.path(), port, protected);
            if let Some((certificate, key)) = tls {
                fs_err::write(folder.path().join("tls.pem"), certificate).expect("a file");
                fs_err::write(folder.path().join("tls.key"), key).expect("a file");
                text = text.replace("http:\n", &with_tls(folder.path()));
            }
            fs_err::write(&config, text).expect("a file");
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
                folder,
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

    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.name())
            .parse()
            .expect("a reference")
    }

    /// Has it lose the bytes of a blob.
    pub(crate) fn lose(&self, blob: &Digest) {
        let hex = blob.hex();
        let blobs = self.storage().join("blobs/sha256");
        fs_err::remove_dir_all(blobs.join(&hex[..2]).join(&hex)).expect("a blob");
    }

    /// Has a repository of it lose an image.
    pub(crate) fn forget(&self, repository: &str, image: &Digest) {
        let manifests = self.storage().join("repositories").join(repository);
        let revisions = manifests.join("_manifests/revisions/sha256");
        fs_err::remove_dir_all(revisions.join(image.hex())).expect("an image");
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("data/docker/registry/v2")
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

fn with_tls(folder: &Path) -> String {
    let folder = folder.display();
    format!("http:\n  tls:\n    certificate: {folder}/tls.pem\n    key: {folder}/tls.key\n")
}
