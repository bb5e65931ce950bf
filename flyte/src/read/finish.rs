//! Values into declarations: what tasks were given, as `ImageSpec`s.

use std::rc::Rc;

use imagespec_core::error::BuildError;
use imagespec_core::spec::{BaseImage, ImageSpec, SourceCopyMode};
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
        for Declared {
            mut entity,
            images,
            spot,
        } in self.declared
        {
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
                // As flytekit has it for an image that copies sources and does not say from where.
                let root = source_root(&spot.source.path).display().to_string();
                let added = code.add(finished(&image, Some(&root))?);
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

fn finished(image: &Rc<Image>, root: Option<&str>) -> Result<CodeImage, BuildError> {
    if let Some(why) = image.fields.lost.borrow().as_ref() {
        return Err(why.error());
    }
    let mut spec = ImageSpec::default();
    let mut below = None;
    let mut json = Map::new();
    let fields = image.fields.held.borrow();
    let wrong = |field: &str, expected: &str| {
        let error = image.spot.error(
            "malformed declaration",
            &format!("`{field}` must be {expected}"),
        );
        error.field(field.to_owned())
    };
    for (name, value) in &*fields {
        if let Some(why) = value.unknown() {
            return Err(why.error());
        }
        let field = name.as_str();
        match (field, value) {
            (_, Value::None) => {}
            ("base_image", Value::Image(base)) => {
                let base = finished(base, None)?;
                spec.base_image = Some(BaseImage::Spec(Box::new(base.spec.clone())));
                below = Some(Box::new(base));
            }
            ("base_image", Value::Str(reference)) => {
                spec.base_image = Some(BaseImage::Reference(reference.to_string()));
            }
            ("base_image", _) => {
                return Err(wrong(field, "the reference of an image or an `ImageSpec`"));
            }
            ("source_copy_mode", Value::Library(mode)) if mode.contains("CopyFileDetection.") => {
                spec.source_copy_mode = match mode.rsplit('.').next() {
                    Some("ALL") => Some(SourceCopyMode::All),
                    Some("NO_COPY") => Some(SourceCopyMode::NoCopy),
                    Some("LOADED_MODULES") => Some(SourceCopyMode::LoadedModules),
                    _ => return Err(wrong(field, "a `CopyFileDetection`")),
                };
            }
            ("source_copy_mode", _) => return Err(wrong(field, "a `CopyFileDetection`")),
            (_, Value::Path(_)) if TEXTS.contains(&field) => {
                return Err(wrong(
                    field,
                    "a string, not a `Path`: flytekit's names depend on it",
                )
                .hint("`str(…)` around it, or `--via python`"));
            }
            ("python_version", Value::Float(_)) => {
                return Err(wrong(field, "a string")
                    .hint("put the version in quotes: as a number, `3.10` would be `3.1`"));
            }
            (_, Value::Str(text)) if TEXTS.contains(&field) => {
                drop(json.insert(name.clone(), Json::from(&**text)));
            }
            (_, Value::Library(library)) => {
                let why = format!("what `{library}` is, in `{field}`");
                return Err(image
                    .spot
                    .error("not known without running the code", &why)
                    .hint("`--via python` runs the code and asks flytekit"));
            }
            _ if TEXTS.contains(&field) => return Err(wrong(field, "a string")),
            (_, Value::List(_)) if LISTS.contains(&field) => {
                let items = value.items().unwrap_or_default();
                if let Some(why) = items.iter().find_map(Value::unknown) {
                    return Err(why.error());
                }
                let texts = items.iter().map(|item| match item {
                    Value::Str(text) => Some(Json::from(&**text)),
                    _ => None,
                });
                let texts: Option<Vec<_>> = texts.collect();
                let Some(texts) = texts else {
                    return Err(wrong(field, "a list of strings or None"));
                };
                json.insert(name.clone(), texts.into());
            }
            _ if LISTS.contains(&field) => return Err(wrong(field, "a list of strings or None")),
            ("env", Value::Dict(dict)) => {
                let mut pairs = Map::new();
                for (key, value) in dict.held.borrow().iter() {
                    if let Some(why) = value.unknown() {
                        return Err(why.error());
                    }
                    let (Value::Str(key), Value::Str(value)) = (key, value) else {
                        return Err(
                            wrong(field, "a dictionary of strings").hint("`str(…)` around numbers")
                        );
                    };
                    pairs.insert(key.to_string(), Json::from(&**value));
                }
                json.insert(name.clone(), pairs.into());
            }
            ("pip_secret_mounts", Value::List(_)) => {
                let mut mounts = Vec::new();
                for mount in value.items().unwrap_or_default() {
                    if let Some(why) = mount.unknown() {
                        return Err(why.error());
                    }
                    let pair = match &mount {
                        Value::Tuple(pair) => pair
                            .iter()
                            .map(|part| match part {
                                Value::Str(part) => Some(Json::from(&**part)),
                                _ => None,
                            })
                            .collect::<Option<Vec<_>>>(),
                        _ => None,
                    };
                    match pair.filter(|pair| pair.len() == 2) {
                        Some(pair) => mounts.push(Json::from(pair)),
                        None => {
                            return Err(wrong(field, "a list of tuples of two strings or None"));
                        }
                    }
                }
                json.insert(name.clone(), mounts.into());
            }
            ("builder_options" | "builder_config", Value::Dict(_)) => match to_json(value) {
                Ok(value) => drop(json.insert(name.clone(), value)),
                Err(Some(why)) => return Err(why.error()),
                Err(None) => return Err(wrong(field, "a dictionary of what JSON can hold")),
            },
            ("env" | "builder_options" | "builder_config", _) => {
                return Err(wrong(field, "a dictionary or None"));
            }
            _ => return Err(wrong(field, "something else")),
        }
    }
    drop(fields);
    let declared: ImageSpec = serde_json::from_value(Json::Object(json)).map_err(|error| {
        image
            .spot
            .error("malformed declaration", &error.to_string())
    })?;
    let (base_image, source_copy_mode) = (spec.base_image, spec.source_copy_mode);
    let mut spec = ImageSpec {
        base_image,
        source_copy_mode,
        ..declared
    };
    if spec
        .source_copy_mode
        .is_some_and(|mode| mode != SourceCopyMode::NoCopy)
        && spec.source_root.is_none()
    {
        spec.source_root = root.map(str::to_owned);
    }
    Ok(CodeImage {
        spec,
        base: below,
        named: None,
        loaded: None,
    })
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
