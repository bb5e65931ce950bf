//! The builder `default` with a daemon of `BuildKit`'s own, which no engine has.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::docker::{
    HOST, PASSWORD, WHOLE, interrupt, shares_layers, sleeping, until, write_sources,
};
use crate::engine::{Polite, root};
use crate::place::{Place, has, tools};
use crate::registry::Served;

/// A daemon with a folder of its own.
pub(crate) struct Daemon {
    _process: Polite,
    folder: tempfile::TempDir,
    address: String,
}

impl Daemon {
    /// A daemon, if this machine has what it takes: at a socket, or where it wants to know who asks, by the files of a
    /// folder.
    pub(crate) fn start(certificates: Option<&Path>) -> Option<Self> {
        if !has("runc") || !root() {
            return None;
        }
        let program = tools("IMAGESPEC_TEST_BUILDKIT")?[0].join("buildkitd");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut command = Command::new(program);
        command
            .args(["--oci-worker-net", "host", "--containerd-worker=false"])
            .args(["--allow-insecure-entitlement", "network.host", "--root"])
            .arg(at("root"))
            .stdout(Stdio::null())
            .stderr(
                fs_err::File::create(at("log"))
                    .expect("a file")
                    .into_parts()
                    .0,
            );
        let address = match certificates {
            None => format!("unix://{}", at("sock").display()),
            Some(certificates) => {
                for (flag, file) in [
                    ("--tlscacert", "ca.pem"),
                    ("--tlscert", "server.pem"),
                    ("--tlskey", "server-key.pem"),
                ] {
                    command.arg(flag).arg(certificates.join(file));
                }
                let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
                format!("tcp://{}", free.local_addr().expect("an address"))
            }
        };
        let process = command.args(["--addr", &address]).spawn();
        let daemon = Self {
            _process: Polite(process.expect("buildkitd")),
            folder,
            address,
        };
        let log = daemon.folder.path().join("log");
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let log = fs_err::read_to_string(&log).unwrap_or_default();
            if log.contains("running server on") {
                return Some(daemon);
            }
            assert!(Instant::now() < until, "{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The option that names it.
    pub(crate) fn option(&self) -> String {
        format!("buildkit_host={}", self.address)
    }
}

/// Writes an authority, and what it says of a server and a client of this machine.
pub(crate) fn certify(folder: &Path) {
    let authority = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let name = rcgen::DnType::CommonName;
    parameters.distinguished_name.push(name, "an authority");
    let certificate = parameters.self_signed(&authority).expect("an authority");
    fs_err::write(folder.join("ca.pem"), certificate.pem()).expect("a file");
    let issuer = rcgen::Issuer::new(parameters, authority);
    for (name, key) in [("server", "server-key"), ("cert", "key")] {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]);
        let signed = parameters.expect("parameters").signed_by(&pair, &issuer);
        let files = [
            (name, signed.expect("a certificate").pem()),
            (key, pair.serialize_pem()),
        ];
        for (name, text) in files {
            fs_err::write(folder.join(format!("{name}.pem")), text).expect("a file");
        }
    }
}

#[test]
fn a_daemon_of_its_own_builds_everything_and_pushes_it() {
    let certificates = tempfile::tempdir().expect("a folder");
    certify(certificates.path());
    if !has("docker-registry") || !has("curl") {
        return;
    }
    let Some(daemon) = Daemon::start(Some(certificates.path())) else {
        return;
    };
    let served = Served::new(&[]);
    let place = Place::new(&format!(
        "{WHOLE}\n[images.base]\npackages = [\"six\"]\n\
         [images.child]\nbase_image = {{ image = \"base\" }}\npackages = [\"idna\"]\n\
         [images.broken]\ncommands = [\"true\", \"echo so it is >&2; exit 3\"]\n\
         [images.slow]\ncommands = [\"echo begun; sleep 296\"]\n\
         [deployments.there]\nregistry = \"{}/acme\"\n",
        served.address
    ));
    write_sources(&place);
    let at = daemon.option();
    let tls = format!("buildkit_tlsdir={}", certificates.path().display());
    let there = [
        &HOST[..],
        &["--builder", "default", "--option", &at, "--option", &tls],
    ]
    .concat();
    let builds = |more: &[&str]| place.builds(&[&there[..], more].concat());

    // Of a base that only this machine has, the very layers are pushed.
    let pushed = builds(&["app", "--deployment", "there", "--tag", "v1"]);
    assert_eq!(
        (&pushed["built"], &pushed["builder"]),
        (&true.into(), &"default".into())
    );
    let digest = pushed["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(served.digest("acme/app", "v1"), digest);
    let native = place.builds(&["app", "--builder", "native", "--output", "store"]);
    let first = |image: &serde_json::Value| image["layers"][0]["digest"].clone();
    assert_eq!(first(&pushed), first(&native));
    let again = builds(&["app", "--deployment", "there"]);
    assert_eq!(
        (&again["built"], &again["digest"]),
        (&false.into(), &pushed["digest"])
    );

    // Without a registry, images stay here; one starts from the other.
    let both = "import six, idna; print('both')";
    let exec = [
        &["exec", "child"],
        &there[..],
        &["--", "python", "-c", both],
    ]
    .concat();
    assert_eq!(place.says(&exec), "both");
    let zstd = builds(&["base", "--output", "oci:layout", "--compression", "zstd"]);
    let index = place.path("project/layout/blobs/sha256");
    let manifest = zstd["digest"]
        .as_str()
        .and_then(|digest| digest.strip_prefix("sha256:"));
    let manifest = fs_err::read_to_string(index.join(manifest.expect("a digest")));
    let manifest = manifest.expect("a manifest");
    assert!(
        manifest.contains("tar+zstd") && !manifest.contains("tar+gzip"),
        "{manifest}"
    );
    let tar = builds(&["app", "--output", "tar:image.tar"]);
    assert_eq!(tar["builder"], "default");
    let tar = fs_err::read(place.path("project/image.tar")).expect("an archive");
    assert_eq!(memchr::memmem::find(&tar, PASSWORD.as_bytes()), None);

    let (code, said) = place.fails(&[&["build", "broken"], &there[..]].concat());
    assert_eq!(code, Some(1), "{said}");
    let failed = "cannot run `echo so it is >&2; exit 3`: it ended with code 3";
    assert!(
        said.contains(failed) && said.contains("caused by: so it is"),
        "{said}"
    );

    // A person who interrupts stops the daemon's work, too.
    interrupt(&place, &[&["slow"], &there[..]].concat(), "sleep 296");
    until("the daemon stops", || sleeping("sleep 296") == 0);

    // Who asks what works here is told of it.
    place.write(
        "set-up.toml",
        &format!(
            "deployment = \"team\"\n[deployments.team.builders.default]\nbuildkit_host = \"{}\"\nbuildkit_tlsdir = \"{}\"\n",
            daemon.address,
            certificates.path().display()
        ),
    );
    for asks in ["builders", "doctor"] {
        let mut command = place.command(&[asks]);
        command.env("IMAGESPEC_CONFIG", place.path("project/set-up.toml"));
        let told = command.output().expect("the command").stdout;
        let told = String::from_utf8(told).expect("a text");
        assert!(told.contains("BuildKit v"), "{told}");
    }

    // Who does not say who it is is not let in; without a daemon, the embedded builder takes over.
    let strange = [&["build", "base", "--option", &at], &HOST[..]].concat();
    let (code, said) = place.fails(&[&strange[..], &["--builder", "default"]].concat());
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("(at `tcp://127.0.0.1:") && said.contains("start `buildkitd`"),
        "{said}"
    );
    drop(daemon);
    let (code, said) = place.fails(&[&["build", "base", "--force"], &there[..]].concat());
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn layers_of_a_daemon_are_anothers_where_a_registry_or_a_folder_has_them() {
    if !has("docker-registry") {
        return;
    }
    let [Some(one), Some(other)] = [None; 2].map(Daemon::start) else {
        return;
    };
    let served = Served::new(&[]);
    let at = [one.option(), other.option()];
    let options = at.each_ref().map(|at| ["--option", at.as_str()]);
    let [one, other] = options
        .each_ref()
        .map(|options| ("unix:///nowhere/docker.sock", &options[..]));
    let cache = format!("type=registry,ref={}/acme/cache:1", served.address);
    let to = format!("cache_to={cache},mode=max");
    shares_layers([one, other], &to, &format!("cache_from={cache}"), &served);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache");
    let to = format!("cache_to=type=local,dest={},mode=max", path.display());
    let from = format!("cache_from=type=local,src={}", path.display());
    // What they have kept of the first time is forced in the first and another's in the second.
    let Some(third) = Daemon::start(None) else {
        return;
    };
    let third = third.option();
    let third = ["--option", third.as_str()];
    shares_layers([one, (one.0, &third[..])], &to, &from, &served);
    let index = fs_err::read(path.join("index.json")).expect("an index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    let layers = index["manifests"].as_array().map(Vec::len);
    assert_eq!(layers, Some(1), "{index}");
}
