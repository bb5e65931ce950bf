//! Code read by running it: in the user's own interpreter, by asking flytekit.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use imagespec_core::error::{BuildError, Cause};
use imagespec_core::spec::{BaseImage, ImageSpec};
use imagespec_core::tag::flytekit::Named;
use serde::Deserialize;
use serde_json::json;

use crate::code::{Code, CodeImage, Entity, EntityKind};
use crate::interpreter::Interpreter;
use crate::project::Project;

/// What makes documents of declarations: it is a file of the plugin, too.
const DECLARATION: &str =
    include_str!("../../flytekit-plugin/src/imagespec_flytekit/declaration.py");
const READER: &str = include_str!("python/reader.py");
/// The format of documents.
const FORMAT: u32 = 1;

/// What the code said of its images.
#[derive(Debug, Deserialize)]
struct Document {
    format: u32,
    flytekit: Option<String>,
    images: Vec<Declaration>,
    #[serde(default)]
    entities: Vec<Said>,
}

#[derive(Debug, Deserialize)]
struct Declaration {
    fields: serde_json::Map<String, serde_json::Value>,
    base: Option<Box<Declaration>>,
    named: Given,
    loaded: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Given {
    id: String,
    tag: String,
    image: String,
}

#[derive(Debug, Deserialize)]
struct Said {
    module: String,
    name: String,
    kind: String,
    images: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Failed { error: Failure },
    Read(Document),
}

#[derive(Debug, Deserialize)]
struct Failure {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    traceback: String,
}

/// What is asked of the reader.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Files and packages.
    pub projects: &'a [Project],
    /// The working directory.
    pub folder: &'a Path,
    /// The environment.
    pub variables: &'a BTreeMap<String, String>,
    /// Whether the platform brings the code to the image: else the image holds it.
    pub fast: bool,
}

/// Runs the code in an interpreter and asks flytekit for the images of its tasks.
pub fn read(interpreter: &Interpreter, question: Question<'_>) -> Result<Code, BuildError> {
    let program = interpreter.path.display();
    let failed = || BuildError::input(format!("the code cannot be read by Python: `{program}`"));
    let script = format!("import sys; sys.path[0:1] = []\n{READER}");
    let projects: Vec<_> = question
        .projects
        .iter()
        .map(|project| json!({ "root": project.root, "module": project.module }))
        .collect();
    let asked = json!({ "projects": projects, "fast": question.fast, "declaration": DECLARATION });
    let output = Command::new(&interpreter.path)
        .args(["-c", &script])
        .arg(asked.to_string())
        .current_dir(question.folder)
        .env_clear()
        .envs(question.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed().caused_by(&error))?;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.map_err(|error| {
        failed()
            .caused_by(&error)
            .hint("its own messages are above")
    })?;
    let document = match answer {
        Answer::Read(document) => document,
        Answer::Failed { error }
            if error.kind == "ModuleNotFoundError" && error.message.contains("'flytekit") =>
        {
            let message = format!("this Python has no flytekit: `{program}`");
            return Err(BuildError::input(message)
                .hint("install it there, or activate the environment that has it; `pyflyte` on PATH says which"));
        }
        Answer::Failed { error } => {
            let mut told = BuildError::input("the code ends with an exception when it is imported");
            told.source = Some(Box::new(Cause {
                message: error.traceback,
                source: None,
            }));
            return Err(told);
        }
    };
    code(document)
}

/// A document that a plugin hands over.
pub fn parse(document: &str) -> Result<Code, BuildError> {
    let document = serde_json::from_str(document);
    code(
        document.map_err(|error| {
            BuildError::input("this is no declaration document").caused_by(&error)
        })?,
    )
}

fn code(document: Document) -> Result<Code, BuildError> {
    if document.format != FORMAT {
        let message = format!("a document of another format: `{}`", document.format);
        return Err(BuildError::input(message)
            .hint("install the same version of the plugin and of the command"));
    }
    let images = document
        .images
        .into_iter()
        .map(image)
        .collect::<Result<Vec<_>, _>>()?;
    let entities = document.entities.into_iter().map(|said| Entity {
        module: said.module,
        name: said.name,
        kind: if said.kind == "workflow" {
            EntityKind::Workflow
        } else {
            EntityKind::Task
        },
        images: said
            .images
            .into_iter()
            .filter(|image| *image < images.len())
            .collect(),
    });
    let mut code = Code {
        entities: entities.collect(),
        images,
        flytekit: document.flytekit,
    };
    code.bases_first();
    Ok(code)
}

fn image(declared: Declaration) -> Result<CodeImage, BuildError> {
    let base = declared
        .base
        .map(|base| image(*base))
        .transpose()?
        .map(Box::new);
    let name = declared.named.image.clone();
    let spec: ImageSpec = serde_json::from_value(declared.fields.into()).map_err(|error| {
        BuildError::input(format!("malformed declaration of the image: `{name}`")).caused_by(&error)
    })?;
    let base_image = base
        .as_ref()
        .map(|base| BaseImage::Spec(Box::new(base.spec.clone())));
    Ok(CodeImage {
        spec: ImageSpec {
            base_image: base_image.or(spec.base_image.clone()),
            ..spec
        },
        base,
        named: Some(Named::given(
            declared.named.id,
            declared.named.tag,
            declared.named.image,
        )),
        loaded: declared.loaded,
    })
}
