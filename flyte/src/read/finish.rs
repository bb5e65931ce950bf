//! Values into declarations: what tasks were given, as `ImageSpec`s.

use std::rc::Rc;

use imagespec_core::error::BuildError;
use imagespec_core::spec::{BaseImage, FIELDS, ImageSpec, SourceCopyMode};
use serde_json::{Map, Number, Value as Json};

use super::value::{Image, Value};
use super::{Declared, Reader};
use crate::code::{Code, CodeImage};
use crate::project::source_root;

/// Fields of one text.
const TEXTS: [&str; 14] = [
    "name",
    "python_version",
    "builder",
    "source_root",
    "registry",
    "requirements",
    "cuda",
    "cudnn",
    "platform",
    "pip_index",
    "pip_extra_args",
    "registry_config",
    "tag_format",
    "python_exec",
];
/// Fields of many.
const LISTS: [&str; 9] = [
    "packages",
    "conda_packages",
    "conda_channels",
    "apt_packages",
    "pip_extra_index_url",
    "entrypoint",
    "commands",
    "runtime_packages",
    "copy",
];

impl Reader<'_> {
    /// The images of what was declared.
    pub(super) fn finish(self) -> Result<Code, BuildError> {
        let mut code = Code::default();
        let is_dynamic = self.declared.iter().any(|declared| declared.is_dynamic);
        for declared in self.declared {
            let Declared {
                mut entity,
                images,
                spot,
                ..
            } = declared;
            let mut found = Vec::new();
            for value in &images {
                if let Value::Unknown(why) = value {
                    return Err(why.error());
                }
                value.images(&mut found);
                if let (Some(why), []) = (value.unknown(), found.as_slice()) {
                    return Err(why.error());
                }
            }
            for image in found {
                // As flytekit has it for an image that copies sources and does not say from where. Beside a dynamic task,
                // it names the image before.
                let root = source_root(&spot.source.path).display().to_string();
                let root = Some(root.as_str()).filter(|_| !is_dynamic);
                let added = code.add(finished(&image, root)?);
                if !entity.images.contains(&added) {
                    entity.images.push(added);
                }
            }
            code.entities.push(entity);
        }
        code.bases_first();
        Ok(code)
    }
}

/// The declaration of an image. `root` is where flytekit copies sources from, where the declaration does not say.
fn finished(image: &Rc<Image>, root: Option<&str>) -> Result<CodeImage, BuildError> {
    let finish = Finish { image };
    known(&Value::Image(Rc::clone(image)))?;
    let (mut base_image, mut base, mut mode) = (None, None, None);
    let mut json = Map::new();
    for (field, value) in &*image.fields.held.borrow() {
        if !FIELDS.contains(&field.as_str()) {
            let error = finish.malformed(&format!("`ImageSpec` has no field `{field}`"));
            return Err(error.hint(format!("known fields: {}", FIELDS.join(", "))));
        }
        known(value)?;
        match (field.as_str(), value) {
            (_, Value::None) => {}
            ("base_image", Value::Image(below)) => {
                let below = finished(below, None)?;
                base_image = Some(BaseImage::Spec(Box::new(below.spec.clone())));
                base = Some(Box::new(below));
            }
            ("base_image", Value::Str(reference)) => {
                base_image = Some(BaseImage::Reference(reference.to_string()));
            }
            ("base_image", _) => {
                return Err(finish.wrong(field, "the reference of an image or an `ImageSpec`"));
            }
            ("source_copy_mode", value) => mode = Some(finish.mode(value)?),
            (_, value) => {
                json.insert(field.clone(), finish.field(field, value)?);
            }
        }
    }
    let spec: Result<ImageSpec, _> = serde_json::from_value(Json::Object(json));
    let mut spec = spec.map_err(|error| finish.malformed(&error.to_string()))?;
    spec.base_image = base_image;
    spec.source_copy_mode = mode;
    if mode.is_some_and(|mode| mode != SourceCopyMode::NoCopy) && spec.source_root.is_none() {
        let Some(root) = root else {
            let error =
                finish.malformed("`source_root` must be set where `source_copy_mode` copies it");
            let error = error.field("source_root");
            return Err(
                error.hint("of the images of tasks, flytekit may know it: `--via python` asks")
            );
        };
        spec.source_root = Some(root.to_owned());
    }
    Ok(CodeImage {
        spec,
        base,
        named: None,
        loaded: None,
    })
}

/// Refuses what is not known.
fn known(value: &Value) -> Result<(), BuildError> {
    match value.unknown() {
        Some(why) => Err(why.error()),
        None => Ok(()),
    }
}

/// An image whose fields are looked at.
struct Finish<'a> {
    image: &'a Image,
}

impl Finish<'_> {
    fn malformed(&self, summary: &str) -> BuildError {
        self.image.spot.error("malformed declaration", summary)
    }

    fn wrong(&self, field: &str, expected: &str) -> BuildError {
        let summary = format!("`{field}` must be {expected}");
        self.malformed(&summary).field(field)
    }

    fn mode(&self, value: &Value) -> Result<SourceCopyMode, BuildError> {
        let mode = match value {
            Value::Library(name) => name.split_once("CopyFileDetection.").map(|(_, mode)| mode),
            _ => None,
        };
        match mode {
            Some("ALL") => Ok(SourceCopyMode::All),
            Some("NO_COPY") => Ok(SourceCopyMode::NoCopy),
            Some("LOADED_MODULES") => Ok(SourceCopyMode::LoadedModules),
            _ => Err(self.wrong("source_copy_mode", "a `CopyFileDetection`")),
        }
    }

    fn field(&self, field: &str, value: &Value) -> Result<Json, BuildError> {
        match field {
            _ if TEXTS.contains(&field) => self.text(field, value),
            _ if LISTS.contains(&field) => self.texts(field, value),
            "env" => self.env(value),
            "pip_secret_mounts" => self.mounts(value),
            _ => self.table(field, value),
        }
    }

    fn text(&self, field: &str, value: &Value) -> Result<Json, BuildError> {
        match value {
            Value::Str(text) => Ok(Json::from(&**text)),
            Value::Path(_) => Err(self
                .wrong(
                    field,
                    "a string, not a `Path`: flytekit's names depend on it",
                )
                .hint("`str(…)` around it, or `--via python`")),
            Value::Float(_) if field == "python_version" => Err(self
                .wrong(field, "a string")
                .hint("put the version in quotes: as a number, `3.10` would be `3.1`")),
            _ => Err(self.wrong(field, "a string")),
        }
    }

    fn texts(&self, field: &str, value: &Value) -> Result<Json, BuildError> {
        let wrong = || self.wrong(field, "a list of strings or None");
        let Value::List(list) = value else {
            return Err(wrong());
        };
        let mut texts = Vec::new();
        for item in &*list.held.borrow() {
            known(item)?;
            match item {
                Value::Str(text) => texts.push(Json::from(&**text)),
                _ => return Err(wrong()),
            }
        }
        Ok(texts.into())
    }

    fn env(&self, value: &Value) -> Result<Json, BuildError> {
        let wrong = || self.wrong("env", "a dictionary of strings or None");
        let Value::Dict(dict) = value else {
            return Err(wrong());
        };
        let mut pairs = Map::new();
        for (key, value) in &*dict.held.borrow() {
            known(value)?;
            match (key, value) {
                (Value::Str(key), Value::Str(value)) => {
                    pairs.insert(key.to_string(), Json::from(&**value))
                }
                _ => return Err(wrong().hint("`str(…)` around numbers")),
            };
        }
        Ok(pairs.into())
    }

    fn mounts(&self, value: &Value) -> Result<Json, BuildError> {
        let wrong = || {
            self.wrong(
                "pip_secret_mounts",
                "a list of tuples of two strings or None",
            )
        };
        let Value::List(list) = value else {
            return Err(wrong());
        };
        let mut mounts = Vec::new();
        for mount in &*list.held.borrow() {
            known(mount)?;
            match mount {
                Value::Tuple(pair) => match &**pair {
                    [Value::Str(from), Value::Str(to)] => {
                        mounts.push(Json::from(vec![&**from, &**to]));
                    }
                    _ => return Err(wrong()),
                },
                _ => return Err(wrong()),
            }
        }
        Ok(mounts.into())
    }

    fn table(&self, field: &str, value: &Value) -> Result<Json, BuildError> {
        if !matches!(value, Value::Dict(_)) {
            return Err(self.wrong(field, "a dictionary or None"));
        }
        to_json(value).map_err(|why| match why {
            Some(why) => why.error(),
            None => self.wrong(field, "a dictionary of what JSON can hold"),
        })
    }
}

fn to_json(value: &Value) -> Result<Json, Option<Rc<super::Unknown>>> {
    if let Some(why) = value.unknown() {
        return Err(Some(why));
    }
    Ok(match value {
        Value::None => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::Number(Number::from_f64(*value).ok_or(None)?),
        Value::Str(text) => Json::from(&**text),
        Value::List(_) => Json::Array(
            value
                .items()
                .unwrap_or_default()
                .iter()
                .map(to_json)
                .collect::<Result<_, _>>()?,
        ),
        Value::Dict(dict) => {
            let mut object = Map::new();
            for (key, value) in dict.held.borrow().iter() {
                let Value::Str(key) = key else {
                    return Err(None);
                };
                object.insert(key.to_string(), to_json(value)?);
            }
            Json::Object(object)
        }
        _ => return Err(None),
    })
}
