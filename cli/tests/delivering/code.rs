//! Code as the source: read without running it, beside what the real flytekit says of it.

mod platform;
mod plugin;
mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::spec::ImageSpec;
use imagespec_core::tag::flytekit::{Named, Surroundings, name};
use imagespec_flyte::interpreter::Interpreter;
use imagespec_flyte::{Around, Code, CodeImage, Project, python, read};
use imagespec_testkit::fuzz;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::flytekit::Peer;
use crate::place::has;

/// Programs of a run that chance makes.
const RUNS: usize = 2500;
/// What the plugin and the reader make documents with.
const DECLARATION: &str =
    include_str!("../../../flytekit-plugin/src/imagespec_flytekit/declaration.py");

/// A folder with code, and what its code sees.
pub(crate) struct Sources {
    root: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Sources {
    fn new(root: PathBuf) -> Self {
        let variables = [
            ("CORPUS_REGISTRY", "Reg.example/Acme"),
            ("CORPUS_NAME", "said"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            root,
            variables: variables.into(),
        }
    }

    fn read(&self, file: &str, interpreter: Option<&Interpreter>) -> Result<Code, BuildError> {
        let around = Around {
            folder: &self.root,
            variables: &self.variables,
            interpreter,
        };
        read(&[Project::of(&self.root, file)?], around)
    }

    fn ask(&self, peer: &mut Peer, module: &str) -> Result<Code, String> {
        let answer = peer.ask(&json!({
            "root": self.root, "module": module, "variables": self.variables, "declaration": DECLARATION,
        }));
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(python::parse(&answer.to_string()).expect("a document")),
        }
    }
}

/// Names of an image of code.
fn named(image: &CodeImage, folder: &Path) -> Result<Named, BuildError> {
    if let Some(named) = &image.named {
        return Ok(named.clone());
    }
    let base = image
        .base
        .as_ref()
        .map(|base| named(base, folder))
        .transpose()?;
    let around = Surroundings {
        folder,
        default_name: "flytekit",
        registry: image.spec.registry.as_deref(),
        platform: None,
        base: base.as_ref(),
    };
    name(&image.spec, &around)
}

/// A declaration with what flytekit fills in.
fn filled(spec: &ImageSpec) -> Value {
    let mut spec = spec.clone();
    spec.name = Some(spec.name.as_deref().unwrap_or("flytekit").to_lowercase());
    spec.registry = spec.registry.map(|registry| registry.to_lowercase());
    spec.platform = spec.platform.filter(|platform| platform != "linux/amd64");
    if let Some(imagespec_core::spec::BaseImage::Spec(base)) = &spec.base_image {
        let base = serde_json::from_value(filled(base)).expect("a spec");
        spec.base_image = Some(imagespec_core::spec::BaseImage::Spec(Box::new(base)));
    }
    serde_json::to_value(spec).expect("JSON")
}

/// What a module's tasks need: by the task's name, the declarations of its images.
fn needs(code: &Code, module: &str) -> Vec<(String, Vec<Value>)> {
    let own = code
        .entities
        .iter()
        .filter(|entity| entity.module == module);
    let mut needs: Vec<_> = own
        .map(|entity| {
            let images = entity
                .images
                .iter()
                .map(|image| filled(&code.images[*image].spec));
            (entity.name.clone(), images.collect())
        })
        .collect();
    // flytekit keeps what is declared twice under one name, too; only the order of classes of tasks may differ.
    needs.sort_by(|a, b| a.0.cmp(&b.0));
    needs
}

/// The names of a module's images, as far as both know them.
fn compare_names(ours: &Code, theirs: &Code, folder: &Path) -> usize {
    let mut compared = 0;
    for entity in &theirs.entities {
        let same = |other: &&imagespec_flyte::Entity| {
            other.name == entity.name && other.module == entity.module
        };
        let mut mine = ours.entities.iter().filter(same);
        for image in &entity.images {
            let theirs = theirs.images[*image].named.as_ref().expect("names");
            let said = |entity: &imagespec_flyte::Entity| {
                let names = entity
                    .images
                    .iter()
                    .filter_map(|image| named(&ours.images[*image], folder).ok());
                names
                    .map(|named| (named.id, named.image))
                    .collect::<Vec<_>>()
            };
            let all: Vec<_> = mine.by_ref().flat_map(said).collect();
            if !all.is_empty() {
                assert!(
                    all.contains(&(theirs.id.clone(), theirs.image.clone())),
                    "{}: {all:?} and {theirs:?}",
                    entity.name
                );
                compared += 1;
            }
        }
    }
    compared
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivering/code")
}

/// The Python that answers for flytekit.
fn interpreter(peer: &mut Peer) -> Interpreter {
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::write(
        folder.path().join("who.py"),
        "import sys\nraise Exception(sys.executable)\n",
    )
    .expect("a file");
    let asked = json!({"root": folder.path(), "module": "who", "variables": {}});
    let said = peer.ask(&asked)["error"]
        .as_str()
        .expect("a path")
        .to_owned();
    Interpreter {
        path: said.trim_start_matches("Exception: ").into(),
    }
}

#[test]
fn code_means_what_it_means_to_flytekit() {
    if !has("uv") {
        return;
    }
    let mut peer = Peer::start("code.py");
    let interpreter = interpreter(&mut peer);
    let sources = Sources::new(corpus());
    let mut names = 0;
    for entry in fs_err::read_dir(corpus().join("corpus")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "py") {
            continue;
        }
        let stem = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let module = match stem.as_str() {
            "__init__" => "corpus".to_owned(),
            stem => format!("corpus.{stem}"),
        };
        let theirs = sources
            .ask(&mut peer, &module)
            .unwrap_or_else(|error| panic!("{module}: {error}"));
        let file = format!("corpus/{stem}.py");
        let ours = sources.read(&file, Some(&interpreter));
        let ours = ours.unwrap_or_else(|error| panic!("{module}: {error:?}"));
        assert_eq!(needs(&ours, &module), needs(&theirs, &module), "{module}");
        names += compare_names(&ours, &theirs, &corpus());
    }
    assert!(names >= 25, "only {names} names were compared");
}

#[test]
fn programs_that_chance_makes_mean_what_they_mean_to_flytekit() {
    if !has("uv") {
        return;
    }
    let seed = fuzz::seed();
    println!("IMAGESPEC_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut peer = Peer::start("code.py");
    let folder = tempfile::tempdir().expect("a folder");
    let sources = Sources::new(folder.path().canonicalize().expect("a path"));
    let (mut known, mut raised) = (0, 0);
    for run in 0..RUNS {
        let module = format!("program_{run}");
        let file = format!("{module}.py");
        let text = program::program(&mut random);
        fs_err::write(folder.path().join(&file), &text).expect("a file");
        let Ok(ours) = sources.read(&file, None) else {
            // What is not known is not guessed: nothing to compare.
            continue;
        };
        match sources.ask(&mut peer, &module) {
            Ok(theirs) => {
                assert_eq!(needs(&ours, &module), needs(&theirs, &module), "{text}");
                known += 1;
            }
            // Only that nothing is built of code that does not run would be better.
            Err(error) => {
                raised += 1;
                assert!(!error.contains("SyntaxError"), "{error}\n{text}");
            }
        }
        fs_err::remove_file(folder.path().join(&file)).expect("a file");
    }
    println!("{known} of {RUNS} programs were known, {raised} ended with an exception");
    assert!(known > RUNS / 5, "only {known} programs were known");
}
