//! Conda packages: from channels that the tests make, beside what another installer makes of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::contract::{answers, differences, in_cluster};
use crate::docker::HOST;
use crate::engine::{Engine, Release, with_every_engine};
use crate::logins::script;
use crate::place::{Place, Running, exec, has};
use crate::pythons;
use crate::service::fixture::Service;

/// The installer of somebody else, which also makes the lists of channels, and what packs packages.
const TOOLS: [&str; 4] = [
    "--with",
    "py-rattler==0.28.0",
    "--with",
    "conda-package-handling==2.6.0",
];
const PREFIX: &str = "/opt/micromamba/envs/runtime";
const TOKEN: &str = "tk-0123456789abcdef";

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new("uv");
    command.args(["run", "--quiet", "--no-project"]).args(TOOLS);
    command.arg(script("conda.py")).args(arguments);
    command
}

/// The channels, made once for this and later runs of the tests.
fn channels() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let text = fs_err::read(script("conda.py")).expect("a script");
        let digest = imagespec_core::digest::Digest::of(text);
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = target.join(format!("channels-{}", &digest.hex()[..16]));
        if !folder.is_dir() {
            let partial = tempfile::tempdir_in(target).expect("a folder");
            let (source, made) = (pythons::files(), partial.path().join("made"));
            let arguments = ["make", text_of(&source), text_of(&made)];
            let status = tool(&arguments).status();
            assert!(status.expect("uv").success());
            // Whoever was faster made the same.
            let _ = fs_err::rename(&made, &folder);
        }
        folder
    })
}

with_every_engine!(conda_packages_are_the_same_whoever_builds);

fn conda_packages_are_the_same_whoever_builds(engine: &Engine) {
    let declaration = "[images.app]\npython_version = \"3.14\"\nconda_packages = [\"greeting\"]\n\
         packages = [\"python-dateutil==2.9.0.post0\", \"acme-greeting\"]\nenv = { A = \"b\" }\n";
    let Some((mut place, _served)) = place(declaration) else {
        return;
    };
    place.set("DOCKER_HOST", &engine.address());
    let asked = |place: &Place, arguments: &[&str]| {
        let built = place.builds(&[&["--force", "--output", "docker"], arguments].concat());
        let name = built["reference"].as_str().expect("a name");
        let run = engine.python(name, "import subprocess as s; print(s.check_output('greet; greeted', shell=True, text=True))");
        (answers(engine, name), run)
    };
    let (ours, run) = asked(&place, &["--builder", "native"]);
    assert_eq!(run.trim(), "greetings True\ngreetings True");
    let network = &HOST[..];
    let (theirs, same) = asked(&place, &[&["--builder", "default"], network].concat());
    assert_eq!(differences(&ours, &theirs, "default"), [""; 0]);
    assert_eq!(run, same);

    // Where what the environment has does not fit, what was asked for comes instead.
    let other = declaration.replace("\"acme-greeting\"", "\"six==1.17.0\"");
    place.write("imagespec.toml", &other);
    for builder in ["native", "default"] {
        let options = if builder == "default" { network } else { &[] };
        let arguments = [&["--builder", builder, "--output", "docker"], options].concat();
        let built = place.builds(&arguments);
        let name = built["reference"].as_str().expect("a name");
        let look = "import six; print(six.__version__, six.__file__)";
        let said = engine.python(name, look);
        assert_eq!(
            said.trim(),
            "1.17.0 /opt/venv/lib/python3.14/site-packages/six.py",
            "{builder}"
        );
    }

    // Over an image that whoever builds made itself, under a name that no other test gives to one of its own.
    let first = format!("first-{:?}", engine.release).to_lowercase();
    let on_top = format!(
        "[images.app]\nbase_image = {{ image = \"{first}\" }}\nconda_packages = [\"greeting\"]\n\
         packages = [\"acme-greeting\"]\n[images.{first}]\npython_version = \"3.14\"\n\
         conda_packages = [\"hello=1\"]\npackages = [\"python-dateutil==2.9.0.post0\"]\nenv = {{ A = \"b\" }}\n"
    );
    place.write("imagespec.toml", &on_top);
    let (above, run) = asked(&place, &["--builder", "native"]);
    assert_eq!(run.trim(), "greetings True\ngreetings True");
    let (theirs, same) = asked(&place, &[&["--builder", "default"], network].concat());
    assert_eq!(differences(&above, &theirs, "default"), [""; 0]);
    assert_eq!(run, same);
    if engine.release != Release::Oldest {
        return;
    }
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    for (declaration, here) in [(declaration, ours), (&*on_top, above)] {
        place.write("imagespec.toml", declaration);
        for options in [cluster.options(), Cluster::own_options()] {
            let there = in_cluster(&mut place, engine, &cluster, &options);
            assert_eq!(differences(&here, &there, "kaniko"), [""; 0], "{options:?}");
        }
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A server of channels, and what it was asked.
struct Served {
    _server: Running,
    log: PathBuf,
    url: String,
}

impl Served {
    /// Serves a folder of channels to the commands of a place.
    fn to(place: &mut Place, folder: &Path) -> Self {
        let log = place.path("requests");
        let mut server = Command::new("python3");
        server
            .arg(script("conda.py"))
            .args(["serve", text_of(folder), text_of(&log), TOKEN])
            .stderr(Stdio::null());
        let (server, port) = Running::telling(&mut server);
        let url = format!("http://127.0.0.1:{port}");
        place.set("CONDA_CHANNEL_ALIAS", &url);
        let home = place.path("home");
        fs_err::create_dir_all(&home).expect("a folder");
        place.set("HOME", text_of(&home));
        Self {
            _server: server,
            log,
            url,
        }
    }

    fn asked(&self) -> Vec<String> {
        let text = fs_err::read_to_string(&self.log).unwrap_or_default();
        let _ = fs_err::remove_file(&self.log);
        text.lines().map(str::to_owned).collect()
    }
}

/// Whether channels can be made here.
fn can_make() -> bool {
    ["uv", "go", "python3", "cc"].into_iter().all(has)
}

/// A project whose builds find channels.
fn place(declaration: &str) -> Option<(Place, Served)> {
    if !can_make() {
        return None;
    }
    let mut place = Place::new(declaration);
    let served = Served::to(&mut place, channels());
    Some((place, served))
}

#[test]
fn an_environment_is_what_another_installer_makes() {
    let declaration = r#"
[images.app]
python_version = "3.14"
conda_packages = ["greeting"]
packages = ["python-dateutil==2.9.0.post0", "acme-greeting"]
commands = ["greet > /root/greeted; hello >> /root/greeted"]
[images.plain]
conda_packages = ["python=3.14"]
"#;
    if !can_make() {
        return;
    }
    // One of its own, as it loses files in between.
    let mut place = Place::with_own_cache(declaration);
    let served = Served::to(&mut place, channels());
    let built = place.builds(&["app", "--output", "store"]);
    let asked = served.asked();
    let whole = |path: &&String| path.contains("repodata.json");
    assert_eq!(asked.iter().find(whole), None, "{asked:?}");

    let peer = tool(&[
        "install",
        text_of(channels()),
        PREFIX,
        "greeting",
        "python=3.14",
    ])
    .output();
    let peer = peer.expect("uv").stdout;
    let peer: Value = serde_json::from_slice(&peer).expect("what the other installer made");
    let look = "import sys; sys.argv = ['-', 'look', '/opt/micromamba/envs/runtime']; exec(open('/dev/stdin').read())";
    let mut looking = place.command(&exec("app", &["python", "-c", look]));
    looking.stdin(
        fs_err::File::open(script("conda.py"))
            .expect("a script")
            .into_parts()
            .0,
    );
    let found = looking.output().expect("the command").stdout;
    let mut found: Value = serde_json::from_slice(&found).expect("what is in the image");
    let mut expected = peer["files"].clone();
    // Its own, to be left out of backups.
    expected
        .as_object_mut()
        .expect("files")
        .remove("CACHEDIR.TAG");
    let (found, expected) = (
        found.as_object_mut().expect("files"),
        expected.as_object_mut().expect("files"),
    );
    for (path, said) in expected.iter() {
        assert_eq!(found.get(path), Some(said), "{path}");
    }
    let more = found.keys().find(|path| !expected.contains_key(*path));
    assert_eq!(more, None);
    assert!(expected.len() > 400, "{}", expected.len());

    // Its Python is the image's; what the environment has is in no wheel.
    let look = "import glob, json, os, pathlib, six, dateutil, sys; meta = pathlib.Path(sys.base_prefix) / 'conda-meta'; \
        of = lambda path: json.loads(path.read_text()); \
        print(sys.prefix, sys.base_prefix, six.conda, os.getuid(), dateutil.__version__, \
        sorted(record['name'] for record in map(of, meta.glob('*.json'))), \
        glob.glob('/opt/venv/lib/python3.14/site-packages/six*'), \
        len(glob.glob(sys.base_prefix + '/lib/python3.14/site-packages/__pycache__/*.pyc')), \
        os.access(sys.base_prefix, os.W_OK), 'greeting-1.5-0' in (meta / 'history').read_text())";
    assert_eq!(
        place.says(&exec("app", &["python", "-c", look])),
        "/opt/venv /opt/micromamba/envs/runtime True 1000 2.9.0.post0 ['greeting', 'hello', 'python', 'six'] [] 2 True True"
    );
    let said = format!("greetings True\nhello 1.0 from {PREFIX}/share/hello:{PREFIX}/etc");
    assert_eq!(place.says(&exec("app", &["cat", "/root/greeted"])), said);
    assert_eq!(place.says(&exec("app", &["greeted"])), "greetings True");
    assert_eq!(
        place.says(&exec("app", &["which", "python"])),
        "/opt/venv/bin/python"
    );

    // Another image with the same Python takes its layer, and nothing is fetched.
    let plain = place.builds(&["plain", "--output", "store"]);
    let layer = |image: &Value| {
        let layers = image["layers"].as_array().expect("layers").clone();
        let is_python = |layer: &Value| layer["created_by"] == "conda package python 3.14.6";
        layers.into_iter().find(is_python).expect("a layer")["digest"].clone()
    };
    assert_eq!(layer(&built), layer(&plain));
    assert_eq!(plain["work"]["packages_fetched"], 0, "{plain}");

    // Without the files of packages, and without a channel, it is made of what is known.
    fs_err::remove_dir_all(place.cache().join("conda/packages")).expect("packages");
    served.asked();
    let again = place.builds(&["app", "--output", "store", "--force"]);
    assert_eq!(again["digest"], built["digest"]);
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn channels_count_in_their_order_and_what_packages_run_is_run() {
    let declaration = r#"
[images.app]
conda_packages = ["scripted", "python=3.14"]
conda_channels = ["acme"]
[images.other]
conda_packages = ["acme::hello", "python=3.14"]
[images.gpu]
conda_packages = ["gpu", "python=3.14"]
[images.accelerated]
conda_packages = ["gpu", "python=3.14"]
cuda = "12.4.1"
cudnn = "9.1"
[images.old]
python_version = "3.14"
cuda = "11.8"
[images.missing]
python_version = "3.14"
cuda = "19"
[images.folder]
conda_packages = ["scripted", "python=3.14"]
conda_channels = ["FOLDER/acme"]
"#;
    let Some((mut place, served)) = place(&declaration.replace("FOLDER", text_of(channels())))
    else {
        return;
    };
    place.builds(&["app", "--output", "store"]);
    let asked = served.asked();
    let lists = asked
        .iter()
        .filter(|path| path.contains("/acme/noarch/repodata"));
    let lists: Vec<_> = lists.collect();
    assert_eq!(
        lists,
        [
            "/acme/noarch/repodata_shards.msgpack.zst",
            "/acme/noarch/repodata.json.zst",
            "/acme/noarch/repodata.json",
        ]
    );
    let said = place.says(&exec(
        "app",
        &["cat", &format!("{PREFIX}/share/scripted.txt")],
    ));
    assert_eq!(
        said,
        format!("scripted 0.1 was here\nhello 2.0 from {PREFIX}/share/hello:{PREFIX}/etc")
    );
    // The list is not sent again while it is the same, and a folder is as good as a server.
    place.builds(&["folder", "--output", "store"]);
    place.builds(&["other", "--output", "store"]);
    assert_eq!(place.says(&exec("other", &["hello"])), "not this");

    let (code, told) = place.fails(&["build", "gpu", "--output", "store"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("__cuda >=12"), "{told}");
    // Who names a version of CUDA has its libraries, and packages may count on it.
    place.builds(&["accelerated", "--output", "store"]);
    let libraries = format!(
        "cat {PREFIX}/lib/libcudart.so.12 {PREFIX}/lib/libcudnn.so.9 {PREFIX}/share/gpu; ls {PREFIX}/share/cuda"
    );
    let said = place.says(&exec("accelerated", &["sh", "-c", &libraries]));
    assert_eq!(said, "12.49.1g12.4");
    place.builds(&["old", "--output", "store"]);
    let library = format!("{PREFIX}/lib/libcudart.so.11");
    assert_eq!(place.says(&exec("old", &["cat", &library])), "11.8");
    let (code, told) = place.fails(&["build", "missing", "--output", "store"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("cuda-version") && told.contains("`cuda` and `cudnn` are Conda"),
        "{told}"
    );

    place.set("CONDA_OVERRIDE_CUDA", "12.4");
    place.builds(&["gpu", "--output", "store"]);
}

#[test]
fn what_cannot_be_solved_is_explained() {
    let declaration = r#"
[images.impossible]
conda_packages = ["impossible", "python=3.14"]
[images.unknown]
conda_packages = ["greetin", "python=3.14"]
[images.python]
python_version = "3.10"
conda_packages = ["hello"]
[images.text]
conda_packages = ["hello ==="]
[images.channel]
conda_packages = ["hello"]
conda_channels = ["nowhere"]
[images.token]
conda_packages = ["hello"]
conda_channels = ["https://conda.test/t/tk-77/acme"]
[images.url]
conda_packages = ["https://conda.test/acme/noarch/hello-1.0-0.conda"]
"#;
    let Some((place, _served)) = place(declaration) else {
        return;
    };
    for (name, parts) in [
        (
            "impossible",
            &[
                "no set of Conda packages is what was asked for",
                "hello >=3",
            ][..],
        ),
        (
            "unknown",
            &[
                "no Conda channel has the package `greetin`",
                "did you mean `greeting`?",
            ],
        ),
        ("python", &["no set of Conda packages", "python 3.10.*"]),
        ("text", &["expected a Conda package", "hello ==="]),
        (
            "channel",
            &[
                "the Conda channel `nowhere` has no packages for",
                "`conda_channels`",
            ],
        ),
        (
            "token",
            &["the URL of a Conda channel has a token", ".condarc"],
        ),
        ("url", &["is named by its URL"]),
    ] {
        let (code, told) = place.fails(&["build", name, "--output", "store"]);
        assert_eq!(code, Some(2), "{name}: {told}");
        for part in parts {
            assert!(told.contains(part), "{name}: {told}");
        }
        assert!(!told.contains("tk-77"), "{told}");
    }
}

#[test]
fn a_token_of_the_configuration_is_shown_and_kept_nowhere() {
    let declaration = "[images.app]\nconda_packages = [\"secretive\", \"python=3.14\"]\nconda_channels = [\"private\"]\n";
    let Some((mut place, served)) = place(declaration) else {
        return;
    };
    let (code, told) = place.fails(&["build", "--output", "store"]);
    assert_eq!(code, Some(2), "{told}");
    let host = served.url.strip_prefix("http://").expect("a host");
    let condarc = format!("custom_channels:\n  private: http://{host}/t/${{CHANNEL_TOKEN}}\n");
    fs_err::write(place.path("home/.condarc"), condarc).expect("a file");
    place.set("CHANNEL_TOKEN", TOKEN);
    let output = place.run(&[
        "build",
        "--output",
        "oci:image",
        "--progress",
        "plain",
        "--json",
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let look = format!("cat {PREFIX}/share/secretive {PREFIX}/conda-meta/secretive*.json");
    place.builds(&["--output", "store"]);
    let said = place.says(&exec("app", &["sh", "-c", &look]));
    assert!(
        said.contains("/private/noarch/secretive-1.0-0.conda"),
        "{said}"
    );
    for text in [&output.stdout, &output.stderr, said.as_bytes()] {
        assert!(!String::from_utf8_lossy(text).contains(TOKEN));
    }
    for folder in [place.cache(), &place.path("project/image")] {
        // What other tests do meanwhile comes and goes.
        let found = Command::new("grep")
            .args(["-rslF", TOKEN])
            .arg(folder)
            .output();
        let found = String::from_utf8(found.expect("grep").stdout).expect("paths");
        assert_eq!(found, "");
    }
}

#[test]
fn an_image_on_top_adds_and_changes_nothing() {
    let declaration = r#"
[images.first]
conda_packages = ["greeting", "python=3.14"]
[images.more]
base_image = { image = "first" }
conda_packages = ["six"]
packages = ["acme-greeting"]
[images.scripted]
base_image = { image = "first" }
conda_packages = ["scripted"]
conda_channels = ["acme"]
[images.changed]
base_image = { image = "first" }
conda_packages = ["hello=2"]
[images.plain]
packages = ["six"]
[images.late]
base_image = { image = "plain" }
conda_packages = ["hello"]
"#;
    let Some((place, _served)) = place(declaration) else {
        return;
    };
    place.builds(&["more", "--output", "store"]);
    let look = "import greeting, glob; greeting.main(); print(glob.glob('/opt/venv/lib/python3.14/site-packages/*.dist-info'))";
    assert_eq!(
        place.says(&exec("more", &["python", "-c", look])),
        "greetings True\n[]"
    );
    place.builds(&["scripted", "--output", "store"]);
    let said = place.says(&exec(
        "scripted",
        &["cat", &format!("{PREFIX}/share/scripted.txt")],
    ));
    assert!(said.contains("hello 1.0"), "{said}");
    for (name, part) in [
        ("changed", "no set of Conda packages is what was asked for"),
        ("late", "has a virtual environment for another Python"),
    ] {
        let (code, told) = place.fails(&["build", name, "--output", "store"]);
        assert_eq!(code, Some(2), "{name}: {told}");
        assert!(told.contains(part), "{name}: {told}");
    }
}

#[test]
fn a_build_service_makes_the_same() {
    let declaration = "[images.app]\nconda_packages = [\"greeting\", \"python=3.14\"]\npackages = [\"acme-greeting\"]\n";
    let Some((place, served)) = place(declaration) else {
        return;
    };
    let Some(service) = Service::with_builder(&[], &[("CONDA_CHANNEL_ALIAS", &served.url)]) else {
        return;
    };
    let asks = service.place(declaration);
    let union = ["--builder", "union", "--registry", &service.registry()];
    let built = asks.builds(&union);
    let here = place.builds(&["--output", "store"]);
    assert_eq!(built["digest"], here["digest"], "{built} {here}");
}

#[test]
fn a_package_that_is_not_what_its_channel_says_is_refused() {
    let declaration = "[images.app]\nconda_packages = [\"fragile\", \"python=3.14\"]\n";
    let Some((mut place, served)) = place(declaration) else {
        return;
    };
    let folder = place.path("channels");
    let status = Command::new("cp")
        .arg("-r")
        .args([channels(), &folder])
        .status();
    assert!(status.expect("cp").success());
    let package = folder.join("conda-forge/noarch/fragile-1.0-0.conda");
    let mut bytes = fs_err::read(&package).expect("a package");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&package, bytes).expect("a package");
    drop(served);
    let _served = Served::to(&mut place, &folder);
    let (code, told) = place.fails(&["build", "--output", "store"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("has the wrong content"), "{told}");
    let kept = fs_err::read_dir(place.cache().join("conda/packages"))
        .into_iter()
        .flatten();
    for entry in kept {
        let folder = entry.expect("an entry").path();
        let mut files = fs_err::read_dir(&folder).expect("a folder");
        assert!(!files.any(|file| file.expect("a file").file_name() == "fragile-1.0-0.conda"));
    }
}
