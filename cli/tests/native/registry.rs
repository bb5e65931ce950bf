//! Images whose layers a registry has already.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Person;

/// Debian's `docker-registry` on a free port of this machine, until it is dropped.
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
    /// Without a registry on this machine there is no test, which in CI is a failure.
    #[expect(
        clippy::print_stdout,
        reason = "whoever runs the tests must learn what was not tested"
    )]
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            folder.path().join("data").display()
        );
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
        let server = Self {
            child,
            port,
            _folder: folder,
        };
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not start");
    }

    fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn spec(person: &Person, name: &str, greeting: &str) {
    let text = format!(
        "[images.{name}]\npackages = [\"six\", \"tabulate\"]\napt_packages = [\"libedit2\"]\nenv = {{ GREETING = \"{greeting}\" }}\n"
    );
    fs_err::write(person.path("imagespec.toml"), text).expect("a file");
}

/// Builds and pushes all images, and returns what `--json` says of the first.
fn push(person: &Person, server: &Server) -> Value {
    let registry = server.name();
    let arguments = ["build", "--json", "--registry", &registry];
    let text = person.says(".", &arguments);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    document["images"][0].clone()
}

/// Removes what was downloaded and made, and leaves what is known of it.
fn forget_bytes(person: &Person) {
    for folder in ["blobs", "wheels", "debian/packages", "snapshots"] {
        let path = person.path("cache").join(folder);
        fs_err::remove_dir_all(&path).expect(folder);
    }
}

#[test]
fn what_the_registry_has_is_neither_fetched_nor_made() {
    let Some(server) = Server::start() else {
        return;
    };
    let person = Person::new(false);
    spec(&person, "app", "hello");
    let first = push(&person, &server);
    assert!(
        first["work"]["layers_written"].as_u64() > Some(5) && first["work"]["wheels_fetched"] == 2,
        "{first}"
    );

    forget_bytes(&person);
    spec(&person, "app", "hi");
    let second = push(&person, &server);
    for counter in [
        "wheels_fetched",
        "packages_fetched",
        "base_layers_fetched",
        "bytes_fetched",
        "layers_written",
    ] {
        assert_eq!(second["work"][counter], 0, "{counter}: {second}");
    }
    assert_ne!(second["digest"], first["digest"]);
    assert_eq!(second["layers"], first["layers"]);
    assert!(second["pushed_bytes"].as_u64() < Some(20_000), "{second}");

    // The image before it has all layers, and is asked for in their place; the configuration in three, the manifest.
    spec(&person, "app", "hey");
    let edited = push(&person, &server);
    let requests = edited["work"]["requests"].as_u64();
    assert!(requests <= Some(6), "{edited}");

    // Another repository takes them from the first.
    spec(&person, "other", "hi");
    let mounted = push(&person, &server);
    assert_eq!(mounted["work"]["layers_written"], 0, "{mounted}");
    let layers = mounted["layers"].as_array().map_or(0, Vec::len);
    assert_eq!(mounted["work"]["layers_mounted"], layers, "{mounted}");
    // A look and a mount for each layer, the configuration, the manifest and its tag.
    let requests = mounted["work"]["requests"].as_u64().expect("a number");
    assert!(requests <= 2 * layers as u64 + 8, "{mounted}");
    assert!(mounted["pushed_bytes"].as_u64() < Some(20_000), "{mounted}");

    // What is needed after all comes out as the same bytes.
    let archive = format!("tar:{}", person.path("app.tar").display());
    let text = person.says(".", &["build", "--json", "--output", &archive]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let third = &document["images"][0];
    assert_eq!(third["digest"], mounted["digest"]);
    assert_eq!(third["work"]["wheels_fetched"], 2, "{third}");
}
