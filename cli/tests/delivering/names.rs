//! Names of images beside those of the real flytekit, for declarations and files that chance makes.

use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::spec::ImageSpec;
use imagespec_core::tag::flytekit::{Named, Surroundings, name};
use imagespec_testkit::fuzz;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::engine::{Engine, Release};
use crate::flytekit::Peer;
use crate::place::{Place, has};
use crate::registry::Served;

/// Declarations of a run.
const RUNS: usize = 3000;

/// Pieces of text, of which some are hard to print.
const PIECES: [&str; 28] = [
    "a",
    "pandas",
    "==2.2.3",
    " ",
    "'",
    "\"",
    "\\",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{1b}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "é",
    "ß",
    "\u{301}",
    "\u{200b}",
    "\u{2028}",
    "\u{3000}",
    "漢字",
    "😀",
    "\u{feff}",
    "\u{e000}",
    "\u{10fffd}",
    "{x}",
    "$HOME",
];
const REGISTRIES: [&str; 6] = [
    "",
    "localhost:30000",
    "GHCR.io/Acme",
    "registry.example:5000/a/b",
    "r-1.example",
    "127.0.0.1:5000",
];

fn text(random: &mut StdRng) -> String {
    let pieces = random.random_range(0..6);
    let mut text = String::new();
    for _ in 0..pieces {
        // Of any plane, now and then.
        if random.random_bool(0.01) {
            text.push(random.random());
        } else {
            text.push_str(PIECES.choose(random).expect("pieces"));
        }
    }
    text
}

fn list(random: &mut StdRng) -> Value {
    let length = random.random_range(0..4);
    (0..length).map(|_| text(random)).collect()
}

fn any(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => random.random::<i64>().into(),
        3 => random.random::<u64>().into(),
        4 => {
            let mut number = f64::from_bits(random.random());
            if random.random_bool(0.5) {
                // Often in the middle between two texts that are equally short.
                number = f64::from(random.random::<u32>()) * 524_288.0 + 0.25;
            }
            if number.is_finite() {
                number.into()
            } else {
                0.5.into()
            }
        }
        5 => text(random).into(),
        6 => (0..random.random_range(0..3))
            .map(|_| any(random, depth - 1))
            .collect(),
        _ => table(random, depth - 1),
    }
}

fn table(random: &mut StdRng, depth: u32) -> Value {
    let length = random.random_range(0..4);
    let fields: Map<_, _> = (0..length)
        .map(|_| (text(random), any(random, depth)))
        .collect();
    fields.into()
}

/// A folder with sources, ignore files, odd names and links.
fn write_files(random: &mut StdRng, folder: &Path) {
    const NAMES: [&str; 12] = [
        "a.py",
        "b.pyc",
        "é.txt",
        "a b",
        "c.log",
        ".hidden",
        "__pycache__/x.pyc",
        "pkg/__init__.py",
        "pkg/sub/m.py",
        "data/x.csv",
        ".cache/y",
        "d'q\".txt",
    ];
    let write = |path: PathBuf, content: String| {
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::write(path, content).expect("a file");
    };
    for name in NAMES {
        if random.random_bool(0.6) {
            write(folder.join("src").join(name), text(random));
        }
    }
    if random.random_bool(0.5) {
        write(
            folder.join("src/.dockerignore"),
            "*.log\n# note\ndata\n!data/x.csv\n**/sub\n[A-b].py\nSRC/a b\n".to_owned(),
        );
    }
    for name in ["one/f", "one/g", "one/deep/h", "plain.txt"] {
        write(folder.join("copied").join(name), text(random));
    }
    write(
        folder.join("requirements.txt"),
        format!("  \n{}\n\t", text(random)),
    );
    if random.random_bool(0.3) {
        std::os::unix::fs::symlink("a.py", folder.join("src/link.py")).expect("a link");
        std::os::unix::fs::symlink("nowhere", folder.join("src/lost.py")).expect("a link");
    }
    if random.random_bool(0.02) {
        // A file that nobody can read, root included.
        std::os::unix::fs::symlink("/proc/self/mem", folder.join("src/mem.txt")).expect("a link");
    }
}

fn fields(random: &mut StdRng, folder: &Path, depth: u32) -> Value {
    let mut fields = Map::new();
    let names = ["app", "My-Image", "a/b.c"];
    fields.insert(
        "name".to_owned(),
        (*names.choose(random).expect("names")).into(),
    );
    let some = |random: &mut StdRng| random.random_bool(0.3);
    for field in [
        "packages",
        "conda_packages",
        "conda_channels",
        "apt_packages",
        "pip_extra_index_url",
        "entrypoint",
        "commands",
        "runtime_packages",
    ] {
        if some(random) {
            fields.insert(field.to_owned(), list(random));
        }
    }
    for field in [
        "python_version",
        "cuda",
        "cudnn",
        "pip_index",
        "pip_extra_args",
        "registry_config",
        "python_exec",
        "platform",
        "builder",
    ] {
        if random.random_bool(0.2) {
            fields.insert(field.to_owned(), text(random).into());
        }
    }
    if random.random_bool(0.7) {
        fields.insert(
            "registry".to_owned(),
            (*REGISTRIES.choose(random).expect("some")).into(),
        );
    }
    if some(random) {
        let variables =
            (0..random.random_range(0..4)).map(|_| (text(random), Value::from(text(random))));
        fields.insert("env".to_owned(), Value::Object(variables.collect()));
    }
    for field in ["builder_options", "builder_config"] {
        if some(random) {
            fields.insert(field.to_owned(), table(random, 2));
        }
    }
    if some(random) {
        let roots = ["src", "src/", "./src", "/"];
        let root = match *roots.choose(random).expect("roots") {
            // From the root on.
            "/" => folder.join("src").display().to_string(),
            root => root.to_owned(),
        };
        fields.insert("source_root".to_owned(), root.into());
        fields.insert(
            "source_copy_mode".to_owned(),
            (*["all", "no_copy"].choose(random).expect("two")).into(),
        );
    } else if random.random_bool(0.1) {
        fields.insert("source_copy_mode".to_owned(), "no_copy".into());
    }
    if some(random) {
        let copied = ["copied", "copied/one", "copied/plain.txt", "gone"];
        let length = random.random_range(0..3);
        let paths = (0..length).map(|_| Value::from(*copied.choose(random).expect("some")));
        fields.insert("copy".to_owned(), paths.collect());
    }
    if some(random) {
        // A file that is not there and a folder cannot be read by anybody.
        let odd = random.random_bool(0.03);
        let paths: &[&str] = if odd {
            &["gone.txt", "copied"]
        } else {
            &["requirements.txt"]
        };
        fields.insert(
            "requirements".to_owned(),
            (*paths.choose(random).expect("some")).into(),
        );
    }
    if some(random) {
        fields.insert("pip_secret_mounts".to_owned(), json!([["a", "b"]]));
    }
    if some(random) {
        fields.insert("tag_format".to_owned(), "{spec_hash}-dev".into());
    }
    match random.random_range(0..4) {
        0 => drop(fields.insert("base_image".to_owned(), text(random).into())),
        1 if depth > 0 => drop(fields.insert(
            "base_image".to_owned(),
            self::fields(random, folder, depth - 1),
        )),
        _ => {}
    }
    fields.into()
}

/// Our names of an image.
fn named(folder: &Path, fields: &Value) -> Result<Named, BuildError> {
    let parent = fields["base_image"].as_object();
    let parent = parent.map(|parent| named(folder, &Value::Object(parent.clone())));
    let parent = parent.transpose()?;
    let spec: ImageSpec = serde_json::from_value(fields.clone()).expect("a spec");
    let around = Surroundings {
        folder,
        default_name: "flytekit",
        registry: spec.registry.as_deref(),
        platform: None,
        base: parent.as_ref(),
    };
    name(&spec, &around)
}

#[test]
fn names_are_those_of_the_real_flytekit() {
    if !has("uv") || !has("git") {
        return;
    }
    let seed = fuzz::seed();
    println!("IMAGESPEC_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut peer = Peer::start("names.py");
    let mut unsure = 0;
    for run in 0..RUNS {
        let folder = tempfile::tempdir().expect("a folder");
        write_files(&mut random, folder.path());
        if run % 20 == 0 {
            let ran = std::process::Command::new("git")
                .args(["init", "--quiet"])
                .current_dir(folder.path())
                .status();
            assert!(ran.expect("git").success());
            fs_err::write(folder.path().join("src/.gitignore"), "*.csv\nsub/\n").expect("a file");
        }
        let fields = fields(&mut random, folder.path(), 2);
        let theirs = peer.ask(&json!({"folder": folder.path(), "fields": fields}));
        match named(folder.path(), &fields) {
            Ok(ours) => assert_eq!(
                theirs,
                json!({"id": ours.id, "name": ours.image}),
                "{fields}"
            ),
            // There is no answer where another Python would give another.
            Err(error) if error.message.contains("the version of Python") => unsure += 1,
            Err(error) => assert!(theirs["error"].is_string(), "{error}: {theirs} {fields}"),
        }
    }
    assert!(
        unsure < RUNS / 4,
        "{unsure} names depend on the version of Python"
    );
}

#[test]
fn flytekit_finds_what_is_pushed_under_its_names() {
    if !has("uv") || !has("docker-registry") {
        return;
    }
    let Some(engine) = Engine::start(Release::Oldest) else {
        return;
    };
    let served = Served::new(&[]);
    let registry = format!("{}/acme", served.address);
    let place = Place::new(&format!(
        "[images.base]\npackages = [\"six\"]\nregistry = \"{registry}\"\n\
         [images.app]\nbase_image = {{ image = \"base\" }}\nregistry = \"{registry}\"\nenv = {{ A = \"it's\" }}\n\
         source_root = \"src\"\nsource_copy_mode = \"all\"\nrequirements = \"requirements.txt\"\n",
    ));
    place.write("src/app.py", "print('app')\n");
    place.write("requirements.txt", "idna\n");
    let folder = place.path("project");
    let base = json!({"name": "base", "registry": registry, "packages": ["six"]});
    let fields = json!({
        "name": "app", "registry": registry, "base_image": base, "env": {"A": "it's"}, "source_root": "src",
        "source_copy_mode": "all", "requirements": "requirements.txt",
    });
    let question = json!({"folder": folder, "fields": fields, "engine": engine.address()});
    let mut peer = Peer::start("names.py");
    assert_eq!(peer.ask(&question)["exists"], false);

    let flags = ["app", "--builder", "native", "--tag-scheme", "flytekit"];
    let built = place.builds(&flags);
    let theirs = peer.ask(&question);
    assert_eq!(theirs["name"], built["reference"]);
    assert_eq!(theirs["exists"], true);
    let scheme = ["--tag-scheme", "flytekit", "app"];
    assert_eq!(
        Value::from(place.says(&[&["tag"], &scheme[..]].concat())),
        theirs["name"]
    );
    // A container asks whether it is of this image.
    let id = [
        &["exec"],
        &scheme[..],
        &["--", "sh", "-c", "echo $_F_IMG_ID"],
    ]
    .concat();
    assert_eq!(Value::from(place.says(&id)), theirs["id"]);
}
