//! A registry, and what the command makes of one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::{Daemon, certify};
use crate::docker::HOST;
use crate::engine::{Engine, Release, with_every_engine};
use crate::place::{Place, Running, has};

/// `user` and [`PASSWORD`], as `htpasswd -nbB` writes them.
const HTPASSWD: &str = "user:$2y$05$RUI722TZ8JH5sSO.XqTqn.785Mz3FfakQS/jRAz9HGe7YMxo.F51W\n";
/// The password of a registry.
pub(crate) const PASSWORD: &str = "planted-registry-password";
/// `user` and [`PASSWORD`], as Docker keeps them.
pub(crate) const AUTH: &str = "dXNlcjpwbGFudGVkLXJlZ2lzdHJ5LXBhc3N3b3Jk";

/// A registry of Docker's with its own folder, and what else it is told by variables.
pub(crate) struct Served {
    _process: Running,
    folder: tempfile::TempDir,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn new(variables: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let configuration = folder.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.path().display()
        );
        fs_err::write(&configuration, text).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in variables {
            command.env(name, value);
        }
        let process = Running(command.spawn().expect("a registry"));
        for _ in 0..100 {
            if std::net::TcpStream::connect(&address).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Self {
            _process: process,
            folder,
            address,
        }
    }

    /// One that lets in only whoever has [`AUTH`]. A folder gets what it needs for that.
    pub(crate) fn guarded(folder: &Path) -> Self {
        let users = folder.join("htpasswd");
        fs_err::write(&users, HTPASSWD).expect("a file");
        Self::new(&[
            ("REGISTRY_AUTH", Path::new("htpasswd")),
            ("REGISTRY_AUTH_HTPASSWD_REALM", Path::new("test")),
            ("REGISTRY_AUTH_HTPASSWD_PATH", &users),
        ])
    }

    /// The digest of the manifest of a tag.
    pub(crate) fn digest(&self, repository: &str, tag: &str) -> String {
        let headers = self.headers(repository, tag);
        let digest = headers.lines().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("docker-content-digest:")
                .map(str::to_owned)
        });
        digest.expect("a digest").trim().to_owned()
    }

    /// Whether it has a tag.
    pub(crate) fn has(&self, repository: &str, tag: &str) -> bool {
        !self.headers(repository, tag).is_empty()
    }

    /// What it says of a tag, or nothing.
    fn headers(&self, repository: &str, tag: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--head", "--header"])
            .arg("Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json")
            .arg(format!("http://{}/v2/{repository}/manifests/{tag}", self.address))
            .output()
            .expect("curl");
        if !output.status.success() {
            return String::new();
        }
        String::from_utf8(output.stdout).expect("headers")
    }

    /// The manifest of a tag, without a login and without TLS.
    fn manifest(&self, repository: &str, tag: &str) -> String {
        self.document(
            repository,
            tag,
            "application/vnd.oci.image.manifest.v1+json",
        )
    }

    /// The index of a tag.
    pub(crate) fn index(&self, repository: &str, tag: &str) -> String {
        self.document(repository, tag, "application/vnd.oci.image.index.v1+json")
    }

    fn document(&self, repository: &str, tag: &str, media_type: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--header"])
            .arg(format!("Accept: {media_type}"))
            .arg(format!(
                "http://{}/v2/{repository}/manifests/{tag}",
                self.address
            ))
            .output()
            .expect("curl");
        assert!(output.status.success(), "{repository}:{tag}: {output:?}");
        String::from_utf8(output.stdout).expect("JSON")
    }
}

#[test]
fn tags_and_labels_reach_images_that_are_in_the_registry() {
    if !has("docker-registry") || !has("curl") {
        return;
    }
    let served = Served::new(&[]);
    let place = Place::new(&format!(
        "deployment = \"here\"\n[deployments.here]\nregistry = \"{}/acme\"\npull_registry = \"registry.flyte:5000/acme\"\n\
         [images.app]\nenv = {{ A = \"registry\" }}\n",
        served.address
    ));
    let plain = ["build", "--no-bytecode", "--progress", "quiet"];
    let line = place.says(&plain);
    let (name, digest) = line.split_once('@').expect("a digest");
    assert!(name.starts_with("registry.flyte:5000/acme/app:"), "{line}");
    let tag = name.rsplit_once(':').expect("a tag").1;
    let first = served.manifest("acme/app", tag);

    let found = place.builds(&["--tag", "v1", "--tag", "v2"]);
    assert_eq!(
        (&found["built"], found["digest"].as_str()),
        (&false.into(), Some(digest))
    );
    for tag in ["v1", "v2"] {
        assert_eq!(served.manifest("acme/app", tag), first, "{tag}");
    }

    let labelled = ["--no-bytecode", "--label", "team=ml"];
    let built = place.builds(&labelled);
    assert_eq!(built["built"], true);
    assert_ne!(built["digest"].as_str(), Some(digest));
    assert_eq!(place.builds(&labelled)["built"], false);
    assert_eq!(
        place.builds(&["--label", "team=other", "--dry-run"])["would_build"],
        true
    );
    assert_eq!(place.builds(&["--dry-run"])["built"], false);
    assert_ne!(served.manifest("acme/app", tag), first);
    assert_eq!(served.manifest("acme/app", "v1"), first);
}

#[test]
fn layers_are_sent_while_the_image_is_still_being_made() {
    if !has("docker-registry") {
        return;
    }
    let served = Served::new(&[]);
    let place =
        Place::new("[images.app]\npackages = [\"iniconfig\"]\ncommands = [\"sleep 3; exit 7\"]\n");
    let (code, told) = place.fails(&["build", "--registry", &served.address, "--no-bytecode"]);
    assert_eq!(code, Some(1), "{told}");
    let blobs = served.folder.path().join("docker/registry/v2/blobs/sha256");
    let blobs = fs_err::read_dir(blobs).expect("blobs of an image that never was");
    assert_ne!(blobs.count(), 0);
}

fn openssl(folder: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn a_registry_may_be_signed_by_an_authority_beside_the_declaration() {
    if !has("docker-registry") || !has("openssl") {
        return;
    }
    let keys = tempfile::tempdir().expect("a folder");
    let folder = keys.path();
    let (key, days) = ("-newkey rsa:2048 -nodes", "-days 2");
    openssl(
        folder,
        &format!("req -x509 {key} {days} -keyout ca.key -out ca.pem -subj /CN=authority"),
    );
    openssl(
        folder,
        &format!("req {key} -keyout tls.key -out tls.csr -subj /CN=localhost"),
    );
    fs_err::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    openssl(
        folder,
        &format!(
            "x509 -req {days} -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tls.pem -extfile names"
        ),
    );
    let served = Served::new(&[
        ("REGISTRY_HTTP_TLS_CERTIFICATE", &folder.join("tls.pem")),
        ("REGISTRY_HTTP_TLS_KEY", &folder.join("tls.key")),
    ]);
    let declaration = |settings: &str| {
        format!(
            "[images.app]\nregistry = \"{0}\"\nenv = {{ A = \"registry\" }}\n[registries.\"{0}\"]\n{settings}\n",
            served.address
        )
    };
    let authority = fs_err::read_to_string(folder.join("ca.pem")).expect("a certificate");
    let place = Place::new(&declaration("ca = \"keys/ca.pem\""));
    place.write("keys/ca.pem", &authority);
    // The file's folder counts, not the one the command works in.
    place.write("deeper/nothing", "");
    let line = place.says(&[
        "-C",
        "deeper",
        "build",
        "--no-bytecode",
        "--progress",
        "quiet",
    ]);
    assert!(line.contains("@sha256:"), "{line}");

    let other = Place::new(&declaration("ca = \"keys/ca.pem\""));
    openssl(
        folder,
        &format!("req -x509 {key} {days} -keyout other.key -out other.pem -subj /CN=other"),
    );
    let stranger = fs_err::read_to_string(folder.join("other.pem")).expect("a certificate");
    other.write("keys/ca.pem", &stranger);
    let (code, told) = other.fails(&["build", "--no-bytecode"]);
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("certificate"), "{told}");
}

with_every_engine!(a_registry_is_reached_as_the_declaration_says);

/// It is signed by an authority that no engine trusts, and wants to know who asks.
fn a_registry_is_reached_as_the_declaration_says(engine: &Engine) {
    if !has("docker-registry") {
        return;
    }
    let keys = tempfile::tempdir().expect("a folder");
    let key = |name: &str| keys.path().join(name);
    certify(keys.path());
    let clients = format!("[{}]", key("ca.pem").display());
    let served = Served::new(&[
        ("REGISTRY_HTTP_TLS_CERTIFICATE", &key("server.pem")),
        ("REGISTRY_HTTP_TLS_KEY", &key("server-key.pem")),
        ("REGISTRY_HTTP_TLS_CLIENTCAS", Path::new(&clients)),
    ]);
    let registry = &served.address;
    let mut place = Place::new(&format!(
        "[images.base]\nregistry = \"{registry}\"\nregistry_config = \"registries.json\"\n\
         packages = [\"six\"]\nbuilder = \"native\"\n\
         [images.app]\nregistry = \"{registry}\"\nregistry_config = \"registries.json\"\n\
         base_image = \"{registry}/base:1\"\npackages = [\"tabulate\"]\n"
    ));
    place.set("DOCKER_HOST", &engine.address());
    let settings = |text: &str| {
        let text = text.replace("KEYS", &keys.path().display().to_string());
        place.write("registries.json", &text);
    };
    let known = format!(
        r#"{{"registry": [{{"name": "{registry}", "ca": "KEYS/ca.pem", "cert": "KEYS/cert.pem", "key": "KEYS/key.pem"}}]}}"#
    );
    settings(&known);
    let base = place.builds(&["base", "--tag", "1"]);
    assert_eq!(base["builder"], "native");
    let built = place.builds(&[&["app", "--builder", "default"], &HOST[..]].concat());
    assert_eq!(built["builder"], "default");
    assert!(built["digest"].is_string(), "{built}");
    let again = place.builds(&[&["app", "--builder", "default"], &HOST[..]].concat());
    assert_eq!(
        (&again["built"], &again["digest"]),
        (&false.into(), &built["digest"])
    );
    // The same by the builder that reaches it itself.
    let native = place.builds(&[
        "app",
        "--builder",
        "native",
        "--force",
        "--output",
        "docker",
    ]);
    let name = native["reference"].as_str().expect("a name");
    assert_eq!(engine.python(name, "import six, tabulate; print(1)"), "1\n");

    if engine.release == Release::Oldest
        && let Some(daemon) = Daemon::start(None)
    {
        let daemon = daemon.option();
        let asked = [
            "app",
            "--builder",
            "default",
            "--force",
            "--option",
            &daemon,
        ];
        let there = place.builds(&[&asked[..], &HOST[..]].concat());
        assert!(there["pushed_bytes"].as_u64() > Some(0), "{there}");
    }

    settings(&known.replace(r#", "cert": "KEYS/cert.pem", "key": "KEYS/key.pem""#, ""));
    let (code, said) = place.fails(&["build", "app", "--builder", "native"]);
    assert_eq!(code, Some(4), "{said}");
    settings(&known.replace(r#""name""#, r#""insecure": true, "name""#));
    let (code, said) = place.fails(&["build", "app"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`registry_config`"), "{said}");
    assert!(said.contains("certificates are always verified"), "{said}");
}
