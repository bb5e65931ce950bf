//! Images that Flyte code declares.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use imagespec_core::error::BuildError;
use imagespec_core::spec::BaseImage;
use imagespec_core::tag::flytekit::Named;
use imagespec_flyte::interpreter::Interpreter;
use imagespec_flyte::{Around, Code, CodeImage, Project as CodeProject, python, read};

use super::project::Target;
use crate::args::Via;
use crate::report::note;

/// The target whose declarations stand on standard input, as the plugin of an SDK writes them.
pub(crate) const STDIN: &str = "-";
/// The longest such document, in bytes.
const LIMIT: u64 = 64 << 20;
/// The builder by which code says that it is this command's.
const OURS: &str = "imagespec";
/// flytekit's builder for which the image is the base image.
const NOTHING: &str = "noop";

/// How code is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// `--via`.
    pub(crate) via: Option<Via>,
    /// The environment.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// Whether the platform brings the code to the images: else they hold it.
    pub(crate) fast: bool,
}

/// What code says of an image beside its declaration.
#[derive(Debug, Clone)]
pub(crate) struct Coded {
    /// flytekit's names, where it was asked.
    pub(crate) named: Option<Named>,
    /// Files of the modules that its process had loaded.
    pub(crate) loaded: Option<Vec<String>>,
    /// The SDK, as a requirement.
    pub(crate) sdk: String,
}

/// Whether a target is code: a file of Python, a folder, or what a plugin writes.
pub(super) fn is_code(name: &str, folder: &Path) -> bool {
    let (file, _) = split(name);
    let python = Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "py");
    python || name == STDIN || folder.join(file).is_dir()
}

/// A file and the task of it that is meant: `app.py:train`.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(".py:") {
        Some((file, task)) if !task.is_empty() => (&name[..file.len() + ".py".len()], Some(task)),
        _ => (name, None),
    }
}

/// The images of the tasks of one target.
pub(super) fn targets(
    name: &str,
    folder: &Path,
    reading: Reading<'_>,
) -> Result<Vec<Target>, BuildError> {
    let code = if name == STDIN {
        let mut document = String::new();
        let read = std::io::stdin()
            .lock()
            .take(LIMIT)
            .read_to_string(&mut document);
        read.map_err(|error| BuildError::input("cannot read standard input").caused_by(&error))?;
        python::parse(&document)?
    } else {
        read_code(&[split(name).0.to_owned()], folder, reading)?
    };
    let (file, task) = split(name);
    if code.images.is_empty() {
        let message = format!("no task of the code names an image: `{name}`");
        return Err(
            BuildError::input(message).hint("`@task(container_image=ImageSpec(…))` names one")
        );
    }
    let Some(task) = task else {
        return code_targets(&code, file, folder, None);
    };
    let named: Vec<_> = code
        .entities
        .iter()
        .filter(|entity| entity.name == task)
        .collect();
    if named.is_empty() {
        let known: Vec<_> = code
            .entities
            .iter()
            .map(|entity| entity.name.as_str())
            .collect();
        let message = format!("`{file}` declares no task of this name: `{task}`");
        return Err(BuildError::input(message).hint(format!("it declares {}", known.join(", "))));
    }
    let images: Vec<_> = named
        .iter()
        .flat_map(|entity| entity.images.clone())
        .collect();
    if images.is_empty() {
        return Err(
            BuildError::input(format!("the task names no image: `{name}`"))
                .hint("`@task(container_image=ImageSpec(…))` names one"),
        );
    }
    code_targets(&code, file, folder, Some(&images))
}

/// Reads files and packages.
pub(crate) fn read_code(
    names: &[String],
    folder: &Path,
    reading: Reading<'_>,
) -> Result<Code, BuildError> {
    let projects = names
        .iter()
        .map(|name| CodeProject::of(folder, name))
        .collect::<Result<Vec<_>, _>>()?;
    if let [first, rest @ ..] = projects.as_slice()
        && let Some(at) = rest.iter().position(|other| other.root != first.root)
    {
        let message = format!(
            "modules are imported from one folder, and these are in two: `{}` and `{}`",
            names[0],
            names[at + 1],
        );
        return Err(BuildError::input(message).hint("name them one by one"));
    }
    let interpreter = Interpreter::find(folder, reading.variables);
    let mut code = match reading.via {
        None | Some(Via::Static) => {
            if !reading.fast {
                let message = "images that hold the code depend on the modules that Python loads";
                return Err(BuildError::input(message)
                    .hint("`--via python` runs the code and asks flytekit"));
            }
            let around = Around {
                folder,
                variables: reading.variables,
                interpreter: interpreter.as_ref(),
            };
            read(&projects, around)?
        }
        Some(Via::Python) => {
            let interpreter = interpreter.as_ref().ok_or_else(|| {
                BuildError::input("there is no Python to run the code").hint(
                    "activate the environment that has flytekit; `pyflyte` on PATH says which",
                )
            })?;
            let question = python::Question {
                projects: &projects,
                folder,
                variables: reading.variables,
                fast: reading.fast,
            };
            python::read(interpreter, question)?
        }
    };
    if code.flytekit.is_none() {
        code.flytekit = interpreter.and_then(|interpreter| interpreter.flytekit());
    }
    Ok(code)
}

/// The images of code as targets, in its order; those that are wanted, where not all are. Those that flytekit's builder
/// `noop` makes are there already: they are only told of.
pub(crate) fn code_targets(
    code: &Code,
    name: &str,
    folder: &Path,
    wanted: Option<&[usize]>,
) -> Result<Vec<Target>, BuildError> {
    let sdk = match code.flytekit.as_deref() {
        // As flytekit's own builder has it: what is being developed is in no index.
        Some(version) if !version.contains("dev") => format!("flytekit=={version}"),
        _ => "flytekit".to_owned(),
    };
    let mut targets = Vec::new();
    for (index, image) in code.images.iter().enumerate() {
        if wanted.is_some_and(|wanted| !wanted.contains(&index)) {
            continue;
        }
        let label = match name {
            STDIN => image
                .spec
                .name
                .clone()
                .unwrap_or_else(|| "flytekit".to_owned()),
            _ => format!("{name}:{}", code.label(index)),
        };
        match (image.spec.builder.as_deref(), &image.spec.base_image) {
            (Some(NOTHING), Some(BaseImage::Reference(reference))) => {
                note(&format!(
                    "{label}: builder `{NOTHING}`: the image is {reference}"
                ));
            }
            (Some(NOTHING), _) => {
                let message = format!("builder `{NOTHING}` needs the reference of an image");
                return Err(BuildError::input(message)
                    .field("base_image")
                    .context(format!("invalid `base_image` of the image: `{label}`")));
            }
            _ => targets.push(target(image, label, folder, &sdk)),
        }
    }
    Ok(targets)
}

fn target(image: &CodeImage, name: String, folder: &Path, sdk: &str) -> Target {
    let base = image.base.as_ref();
    let base = base.map(|base| Box::new(target(base, format!("base of {name}"), folder, sdk)));
    let mut spec = image.spec.clone();
    spec.builder = spec.builder.filter(|builder| builder != OURS);
    Target {
        name,
        default_name: "flytekit".to_owned(),
        spec,
        folder: PathBuf::from(folder),
        spec_folder: None,
        base,
        code: Some(Coded {
            named: image.named.clone(),
            loaded: image.loaded.clone(),
            sdk: sdk.to_owned(),
        }),
    }
}
