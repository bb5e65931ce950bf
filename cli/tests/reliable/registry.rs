//! Debian's `docker-registry` on a free port of this machine.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::wheels::sha256;

/// `user` and [`PASSWORD`], as `htpasswd -nbB` writes them.
const HTPASSWD: &str = "user:$2y$05$RUI722TZ8JH5sSO.XqTqn.785Mz3FfakQS/jRAz9HGe7YMxo.F51W\n";
/// The password of a protected registry.
pub(crate) const PASSWORD: &str = "planted-registry-password";

/// A registry that ends with the test.
pub(crate) struct Registry {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts a registry, with a password or without. There is none where the machine has no
    /// `docker-registry`, which in CI is a failure.
    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the tests must learn what was not tested"
    )]
    pub(crate) fn start(protected: bool) -> Option<Self> {
        // Somebody else may take a free port before the registry does.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
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
            let mut registry = Self {
                child,
                port,
                folder,
            };
            if registry.answers() {
                return Some(registry);
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

    /// The folder of everything it holds.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// All blobs, each of which has the digest it is kept under.
    pub(crate) fn verified_blobs(&self) -> Vec<PathBuf> {
        let root = self.data().join("docker/registry/v2/blobs/sha256");
        let below = |folder: PathBuf| {
            let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path())
        };
        let mut blobs = Vec::new();
        for folder in below(root).flat_map(below) {
            let data = folder.join("data");
            // A folder without data is a blob that never was.
            if data.is_file() {
                let digest = folder.file_name().expect("a name").display().to_string();
                assert_eq!(sha256(&data), digest, "in the registry");
                blobs.push(data);
            }
        }
        blobs
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
