//! The builder `default` with an engine of Docker's.

use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{Engine, Release, with_every_engine};
use crate::place::{Place, has, told};
use crate::registry::Served;

/// The engine of the tests has no network of its own.
pub(crate) const HOST: [&str; 2] = ["--option", "network=host"];

fn place(engine: &Engine, declaration: &str) -> Place {
    let mut place = Place::new(declaration);
    place.set("DOCKER_HOST", &engine.address());
    place
}

/// Everything of a declaration that needs no lock file, with words that a shell would take apart.
pub(crate) const WHOLE: &str = r#"
[images.app]
packages = ["six>=1.16", "tomli; python_version < '3.11'"]
apt_packages = ["tree"]
commands = ["tree --version > /root/tree.txt", "pip list > /root/pip.txt\ntest -f /root/main.py"]
source_root = "src"
copy = ["data"]
entrypoint = ["env", "WITH=a b"]
env = { A = "a \"b\" $HOME 'c' \\ d", _F_RUNTIME = "" }
runtime_packages = ["tabulate"]
pip_secret_mounts = [["netrc", "/run/secrets/netrc"]]
"#;
/// What is in the secret, and nowhere else.
pub(crate) const PASSWORD: &str = "hunter2-hunter2";

pub(crate) fn write_sources(place: &Place) {
    place.write("src/main.py", "print('main')\n");
    place.write("src/pkg/__init__.py", "");
    place.write("src/__pycache__/x.pyc", "");
    place.write("data/a b.txt", "data\n");
    let secret = format!("machine nowhere.invalid login me password {PASSWORD}\n");
    place.write("netrc", &secret);
}

/// What an image of the contract answers, whoever built it.
const QUESTIONS: &str = r#"
import importlib.metadata, json, os, pwd, site, subprocess, sys
def told(path):
    status = os.lstat(path)
    return [oct(status.st_mode), status.st_uid, status.st_gid]
paths = ["/root", "/root/main.py", "/root/data/a b.txt", "/opt/venv", "/opt/venv/bin/python",
         "/opt/venv/pyvenv.cfg", "/home/flytekit", "/root/pkg/__init__.py"]
print(json.dumps({
    "user": [os.getuid(), os.getgid(), list(pwd.getpwuid(os.getuid()))],
    "where": os.getcwd(),
    "python": [sys.version, sys.prefix, sys.base_prefix, sys.path],
    "packages": sorted(d.metadata["Name"] + " " + d.version for d in importlib.metadata.distributions()),
    "installer": sorted(os.listdir("/opt/venv/bin")),
    "files": {path: told(path) for path in paths},
    "ignored": os.path.exists("/root/__pycache__/x.pyc"),
    "authorities": os.path.getsize("/etc/ssl/certs/ca-certificates.crt") > 1000,
    "debian": subprocess.run(["dpkg-query", "-W", "tree"], capture_output=True, text=True).stdout,
    "audit": subprocess.run(["dpkg", "--audit"], capture_output=True, text=True).stdout,
    "lent": [path for path in ["/dev/imagespec", "/run/imagespec", "/root/.cache", "/opt/venv/.lock"]
             if os.path.exists(path)],
    "lists": os.listdir("/var/lib/apt/lists"),
    "run": sorted(os.listdir("/run")),
    "compiled": os.path.exists(importlib.import_module("six").__cached__),
}))
"#;

/// The answers of an image in the engine, and how it is run.
fn answers(engine: &Engine, reference: &str) -> (Value, Value) {
    let answers = serde_json::from_str(&engine.python(reference, QUESTIONS)).expect("JSON");
    let inspected = engine.inspect(reference, "{{json .Config}}");
    let mut config: Value = serde_json::from_str(&inspected).expect("JSON");
    let kept = ["User", "WorkingDir", "Entrypoint", "Cmd", "Env", "Labels"];
    let object = config.as_object_mut().expect("an object");
    object.retain(|name, value| kept.contains(&name.as_str()) && !value.is_null());
    // The order says nothing.
    if let Some(Value::Array(env)) = object.get_mut("Env") {
        env.sort_by_key(ToString::to_string);
    }
    (answers, config)
}

with_every_engine! {
    the_same_declaration_is_the_same_image_whoever_builds_it
    an_edit_builds_one_layer_and_a_failure_names_its_field
    every_output_has_the_image_and_every_kind_of_requirements_its_packages
    a_dockerfile_that_is_written_builds_without_us_to_the_same_image
}

fn the_same_declaration_is_the_same_image_whoever_builds_it(engine: &Engine) {
    let place = place(engine, WHOLE);
    write_sources(&place);
    let mut told = Vec::new();
    for builder in ["default", "native"] {
        let output = [
            "--builder",
            builder,
            "--output",
            "docker",
            "--label",
            "team=ml",
        ];
        let network: &[&str] = if builder == "default" { &HOST } else { &[] };
        // Both have the same name: the second takes it from the first.
        let built = place.builds(&[&output[..], network, &["--force"]].concat());
        assert_eq!(
            (&built["builder"], &built["built"]),
            (&builder.into(), &true.into())
        );
        let reference = built["reference"].as_str().expect("a name").to_owned();
        let (answers, config) = answers(engine, &reference);
        assert_eq!(answers["lent"], Value::Array(Vec::new()), "{builder}");
        assert_eq!(answers["audit"], "", "{builder}");
        assert_eq!(config["Labels"]["team"], "ml", "{builder}");
        for arguments in [
            &["history", "--no-trunc", &reference][..],
            &["save", &reference],
        ] {
            let output = engine.client().args(arguments).output().expect("docker");
            assert!(output.status.success(), "{output:?}");
            let found = memchr::memmem::find(&output.stdout, PASSWORD.as_bytes());
            assert_eq!(found, None, "{builder}: {arguments:?}");
        }
        told.push((answers, config));
    }
    let [engine_s, native_s] = <[_; 2]>::try_from(told).expect("two");
    assert_eq!(engine_s.1, native_s.1);
    for (name, answer) in native_s.0.as_object().expect("an object") {
        assert_eq!(engine_s.0[name], *answer, "{name}");
    }
}

fn an_edit_builds_one_layer_and_a_failure_names_its_field(engine: &Engine) {
    // Tests of several engines run at once.
    let pause = match engine.release {
        Release::Oldest => "sleep 298",
        Release::Current => "sleep 297",
        Release::Podman => "sleep 295",
    };
    let mut place = place(
        engine,
        &format!(
            "[images.app]\npackages = [\"six\"]\nsource_root = \"src\"\n\
         [images.broken]\ncommands = [\"true\", \"echo so it is >&2; exit 3\"]\n\
         [images.slow]\ncommands = [\"echo begun; {pause}\"]\n\
         [images.lost]\ncommands = [\"echo begun; sleep 30\"]\n"
        ),
    );
    write_sources(&place);
    let first = place.builds(&[&["app"], &HOST[..]].concat());
    assert_eq!(
        (&first["built"], &first["builder"]),
        (&true.into(), &"default".into())
    );
    let again = place.builds(&[&["app"], &HOST[..]].concat());
    assert_eq!(again["built"], false);

    place.write("src/main.py", "print('edited')\n");
    let events = |more: &[&'static str]| events(&place, &[&["app"], &HOST[..], more].concat());
    let edited = events(&[]);
    assert!(cached(&edited, "install Python packages"));
    assert!(!cached(&edited, "copy files to /root"));
    let name = place.builds(&[&["app"], &HOST[..]].concat());
    let name = name["reference"].as_str().expect("a name").to_owned();
    assert_eq!(engine.python(&name, "import main"), "edited\n");
    // An edit that no size tells of.
    place.write("src/main.py", "print('EDITED')\n");
    let name = place.builds(&[&["app"], &HOST[..]].concat());
    let name = name["reference"].as_str().expect("a name").to_owned();
    assert_eq!(engine.python(&name, "import main"), "EDITED\n");
    // What is not pinned is chosen again where a person insists.
    assert!(!cached(&events(&["--force"]), "install Python packages"));

    let (code, said) =
        place.fails(&[&["build", "broken", "--progress", "plain"], &HOST[..]].concat());
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "cannot build `broken`, because of `commands`",
        "cannot run `echo so it is >&2; exit 3`: it ended with code 3",
        "caused by: so it is",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    // A person who interrupts stops the engine, too.
    interrupt(&place, &[&["slow"], &HOST[..]].concat(), pause);
    if engine.release == Release::Podman {
        // It goes on with a command that nobody waits for any more.
        let ended = Command::new("pkill").args(["-fx", pause]).status();
        assert!(ended.expect("pkill").success());
    }
    until("the engine stops", || sleeping(pause) == 0);

    // An engine that ends during a build is lost, and says so.
    let mut running = place
        .command(&[&["build", "lost", "--progress", "plain"], &HOST[..]].concat())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut lines = std::io::BufReader::new(running.stderr.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line").contains("begun")));
    engine.end();
    let said: Vec<_> = lines.map_while(Result::ok).collect();
    let code = running.wait().expect("an end").code();
    // Podman first kills the command, and tells of that.
    let lost = if engine.release == Release::Podman {
        1
    } else {
        3
    };
    assert_eq!(code, Some(lost), "{said:?}");
    place.set("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let (code, said) = place.fails(&["build", "app", "--builder", "default"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("no container engine answers: `unix:///nowhere/docker.sock`"),
        "{said}"
    );
    assert!(
        said.contains("start the engine, or name its address"),
        "{said}"
    );
}

/// What a build tells of, which must succeed.
fn events(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let output = place.run(&[&["build", "--progress", "json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let lines = output.stderr.lines();
    lines
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect()
}

/// Whether a step was not done again.
fn cached(events: &[Value], title: &str) -> bool {
    let started = events.iter().find(|event| event["title"] == title);
    let step = &started.unwrap_or_else(|| panic!("{title}: {events:?}"))["step"];
    let finished = events
        .iter()
        .find(|event| event["event"] == "step_finished" && event["step"] == *step);
    finished.expect("an end")["cached"]
        .as_bool()
        .expect("yes or no")
}

/// Layers of a builder are another's where a registry has them.
pub(crate) fn shares_layers(builders: [(&str, &[&str]); 2], to: &str, from: &str, served: &Served) {
    let place = |host: &str| {
        let mut place = Place::new(&format!(
            "[images.app]\npackages = [\"six\"]\nregistry = \"{}/acme\"\n",
            served.address
        ));
        place.set("DOCKER_HOST", host);
        place
    };
    let [one, other] = builders;
    let all = ["--builder", "default", "--force"];
    // What is forced is not taken from anywhere.
    let build = |(host, options): (&str, &[&str]), force: bool, more: &[&str]| {
        let all = if force { &all[..] } else { &all[..2] };
        let place = place(host);
        events(&place, &[&["app"], all, &HOST[..], options, more].concat())
    };
    let first = build(one, true, &["--option", to]);
    assert!(!cached(&first, "install Python packages"));
    // The tag is there, so that another label is asked for: labels are in no layer.
    let label = ["--label", "again=1"];
    let fresh = build(other, false, &[&["--option", from], &label[..]].concat());
    assert!(cached(&fresh, "install Python packages"), "{fresh:?}");
}

#[test]
fn layers_of_an_engine_are_anothers_where_a_registry_has_them() {
    if !has("docker-registry") {
        return;
    }
    for release in [Release::Oldest, Release::Current] {
        let [Some(one), Some(other)] = [release; 2].map(Engine::start) else {
            return;
        };
        let served = Served::new(&[]);
        let addresses = [one.address(), other.address()];
        let [one, other] = addresses
            .each_ref()
            .map(|address| (address.as_str(), &[][..]));
        let from = format!("cache_from={}/acme/app:shared", served.address);
        let tag = ["--tag", "shared"];
        let one = (one.0, &tag[..]);
        shares_layers([one, other], "cache_to=type=inline", &from, &served);
    }
}

/// Interrupts a build that has begun to run a command.
pub(crate) fn interrupt(place: &Place, arguments: &[&str], command: &str) {
    let mut running = place
        .command(&[&["build", "--progress", "plain"], arguments].concat())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command");
    let mut lines = std::io::BufReader::new(running.stderr.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line").contains("begun")));
    until("the command runs", || sleeping(command) == 1);
    let id = running.id().to_string();
    let asked = Command::new("kill").args(["-INT", &id]).status();
    assert!(asked.expect("kill").success());
    assert_eq!(running.wait().expect("an end").code(), Some(130));
}

pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many commands run that are this one.
pub(crate) fn sleeping(command: &str) -> usize {
    let output = Command::new("pgrep")
        .args(["-fx", command])
        .output()
        .expect("pgrep");
    output.stdout.lines().count()
}

fn every_output_has_the_image_and_every_kind_of_requirements_its_packages(engine: &Engine) {
    if !has("docker-registry") || !has("uv") {
        return;
    }
    let served = Served::new(&[]);
    let place = place(
        engine,
        &format!(
            "[images.text]\nrequirements = \"text/requirements.txt\"\n\
             [images.project]\nrequirements = \"uv/pyproject.toml\"\n\
             [images.uv]\nrequirements = \"uv/uv.lock\"\n\
             [images.pushed]\npackages = [\"six\"]\nregistry = \"{0}/acme\"\n\
             [images.child]\nbase_image = {{ image = \"pushed\" }}\nregistry = \"{0}/acme\"\npackages = [\"idna\"]\n",
            served.address
        ),
    );
    place.write("text/requirements.txt", "-r more.txt\n");
    place.write("text/more.txt", "six==1.16.0\n");
    let project = "[project]\nname = \"x\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six==1.16.0\"]\n";
    place.write("uv/pyproject.toml", project);
    let locked = Command::new("uv")
        .arg("lock")
        .current_dir(place.path("project").join("uv"))
        .output()
        .expect("uv");
    assert!(locked.status.success(), "{locked:?}");
    let six = "import importlib.metadata as m; print(m.version('six'))";
    for target in ["text", "project", "uv"] {
        let arguments = [&["exec", target], &HOST[..], &["--", "python", "-c", six]].concat();
        assert_eq!(place.says(&arguments), "1.16.0", "{target}");
    }

    let pushed = place.builds(&[&["pushed", "--tag", "v1"], &HOST[..]].concat());
    let digest = pushed["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(served.digest("acme/pushed", "v1"), digest);
    assert!(pushed["layers"].as_array().expect("layers").len() > 3);
    let again = place.builds(&[&["pushed", "--tag", "v2"], &HOST[..]].concat());
    assert_eq!(
        (&again["built"], &again["digest"]),
        (&false.into(), &pushed["digest"])
    );
    assert_eq!(served.digest("acme/pushed", "v2"), digest);
    let labelled = place.builds(&[&["pushed", "--label", "team=ml"], &HOST[..]].concat());
    assert_eq!(labelled["built"], true);
    let again = place.builds(&[&["pushed", "--label", "team=ml"], &HOST[..]].concat());
    assert_eq!(
        (&again["built"], &again["digest"]),
        (&false.into(), &labelled["digest"])
    );
    let child = place.builds(&[&["child"], &HOST[..]].concat());
    let child = child["reference"].as_str().expect("a name");
    assert_eq!(
        engine.python(child, "import six, idna; print('both')"),
        "both\n"
    );

    for output in ["oci:layout", "tar:image.tar"] {
        let built = place.builds(&[&["text", "--output", output], &HOST[..]].concat());
        assert_eq!(built["builder"], "default");
        assert!(built["digest"].is_string(), "{output}");
    }
    assert!(place.path("project/layout/index.json").is_file());
    let loaded = engine
        .client()
        .arg("load")
        .arg("--input")
        .arg(place.path("project/image.tar"))
        .output()
        .expect("docker");
    assert!(loaded.status.success(), "{loaded:?}");
    let (code, said) = place.fails(&[
        "build",
        "text",
        "--builder",
        "default",
        "--compression",
        "zstd",
    ]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_helper_image_that_is_declared_has_the_uv_that_is_used() {
    let Some(engine) = Engine::start(Release::Oldest) else {
        return;
    };
    let place = place(
        &engine,
        "[images.app]\npackages = [\"six\"]\nbuilder_config = { uv_image = \"helper:1\" }\n\
         [images.own]\npackages = [\"six\"]\n",
    );
    // The static one that is in the context otherwise.
    place.says(&["plan", "own", "--write", "own"]);
    place.says(&["plan", "app", "--write", "app"]);
    let folder = place.path("project/own/.imagespec/bin");
    assert!(folder.join("uv").is_file());
    assert!(!place.path("project/app/.imagespec/bin/uv").exists());
    let packed = place.path("helper.tar");
    let tar = Command::new("tar")
        .args(["--create", "--directory"])
        .arg(&folder)
        .arg("--file")
        .arg(&packed)
        .arg("uv")
        .status();
    assert!(tar.expect("tar").success());
    let import = engine
        .client()
        .arg("import")
        .arg(&packed)
        .arg("helper:1")
        .output();
    let imported = import.expect("docker");
    assert!(imported.status.success(), "{imported:?}");
    let built = place.builds(&[&["app"], &HOST[..]].concat());
    let name = built["reference"].as_str().expect("a name");
    assert_eq!(
        engine.python(name, "import six; print(six.__name__)"),
        "six\n"
    );
    let native = ["build", "app", "--builder", "native", "--output", "store"];
    let output = place.run(&native);
    assert!(output.status.success(), "{output:?}");
    let said = told(&output);
    assert!(said.contains("`helper:1` is not used"), "{said}");
}

/// A client with the builder of 20.10 in it, or with `buildx`.
fn building_client() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let clients = std::env::split_paths(&path).map(|folder| folder.join("docker"));
    let able = |client: &std::path::PathBuf| {
        let output = |arguments: &[&str]| Command::new(client).args(arguments).output();
        let old = output(&["--version"])
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(" 20.10"));
        old || output(&["buildx", "version"]).is_ok_and(|output| output.status.success())
    };
    clients.filter(|client| client.is_file()).find(able)
}

fn a_dockerfile_that_is_written_builds_without_us_to_the_same_image(engine: &Engine) {
    let place = place(engine, WHOLE);
    write_sources(&place);
    let said = place.says(&["plan", "app", "--write", "out"]);
    assert!(said.ends_with("out/Dockerfile"), "{said}");
    let shown = place.says(&["plan", "app", "--format", "dockerfile"]);
    let written = fs_err::read_to_string(place.path("project/out/Dockerfile")).expect("a file");
    let after_base = |text: &str| {
        text[text.find("USER 0:0").expect("the user")..]
            .trim_end()
            .to_owned()
    };
    assert_eq!(after_base(&shown), after_base(&written));
    let mut client = match engine.release {
        Release::Podman => engine.client(),
        Release::Oldest | Release::Current => {
            let mut client = Command::new(building_client().expect("a client that builds"));
            client.arg("--host").arg(engine.address());
            client.env("DOCKER_BUILDKIT", "1");
            client
        }
    };
    client.args(["build", "--network", "host", "--tag", "plain:1"]);
    if engine.release == Release::Podman {
        // Its version is a label otherwise.
        client.arg("--identity-label=false");
    }
    let built = client.arg(place.path("project/out")).output();
    let built = built.expect("a client");
    assert!(built.status.success(), "{built:?}");
    let ours = place.builds(&HOST);
    let ours = answers(engine, ours["reference"].as_str().expect("a name"));
    assert_eq!(answers(engine, "plain:1"), ours);

    let (code, said) = place.fails(&["plan", "app", "--write", "out"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("name a folder that does not exist yet"),
        "{said}"
    );
}
