//! flytekit's own names of images: its `ImageSpec.id` and `ImageSpec.tag`, bit for bit.
//!
//! Both are digests of what Python prints of the declaration, so this module prints as Python does. Where flytekit's
//! answer depends on chance, there is none here.

mod ignore;
mod repr;
mod younger;

use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::Md5;
use serde_json::{Map, Value};
use sha1::{Digest as _, Sha1};

use crate::error::BuildError;
use crate::spec::{BaseImage, ImageSpec, SourceCopyMode};
use crate::validate;
use ignore::Rules;
use repr::Unsure;

/// Fields that are in neither digest.
const EXCLUDED: [&str; 3] = ["pip_secret_mounts", "builder", "runtime_packages"];

/// What flytekit calls an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its `id`, which a running container is known by.
    pub id: String,
    /// Its tag.
    pub tag: String,
    /// Its name: `[registry/]name:tag`.
    pub image: String,
    /// The declaration as Python prints it, for images that start from this one.
    printed: String,
}

/// What a name depends on beside the declaration itself.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where its paths start.
    pub folder: &'a Path,
    /// The name of an image that has none.
    pub default_name: &'a str,
    /// The registry that counts, wherever it was said.
    pub registry: Option<&'a str>,
    /// The platforms, separated by commas, where a flag says them.
    pub platform: Option<&'a str>,
    /// The names of the image it starts from, where that is one of ours.
    pub base: Option<&'a Named>,
}

impl Named {
    /// The names that flytekit itself has given.
    pub fn given(id: String, tag: String, image: String) -> Self {
        Self {
            id,
            tag,
            image,
            printed: String::new(),
        }
    }
}

/// Computes flytekit's names of a declaration.
pub fn name(spec: &ImageSpec, around: &Surroundings<'_>) -> Result<Named, BuildError> {
    let mut fields = fields(spec, around)?;
    let base = around.base.map(|named| named.printed.as_str());
    let printed = print(&fields, spec.source_copy_mode, base)?;
    let id = digest(&printed);

    if let Some(named) = around.base {
        fields.insert("base_image".to_owned(), named.image.as_str().into());
    }
    if let (Some(mode), Some(root)) = (spec.source_copy_mode, &spec.source_root)
        && mode != SourceCopyMode::NoCopy
    {
        let found = sources(around.folder, root);
        let found = found.map_err(|error| unreadable("source_root", root, &error))?;
        fields.insert("source_root".to_owned(), found.into());
    }
    if let Some(paths) = spec.copy.as_ref().filter(|paths| !paths.is_empty()) {
        let found = copies(around.folder, paths)?;
        fields.insert("copy".to_owned(), found.into());
    }
    if let Some(path) = spec.requirements.as_ref().filter(|path| !path.is_empty()) {
        let bytes = fs_err::read(around.folder.join(path));
        let bytes = bytes.map_err(|error| unreadable("requirements", path, &error))?;
        let digest = hex::encode(Sha1::digest(stripped(&bytes)));
        fields.insert("requirements".to_owned(), digest.into());
    }
    fields.remove("registry_config");
    let tag = digest(&print(&fields, spec.source_copy_mode, None)?).replace('-', "_");
    let tag = match &spec.tag_format {
        Some(format) => validate::format_tag(format, &tag)?,
        None => tag,
    };
    let name = spec.name.as_deref().unwrap_or(around.default_name);
    let name = format!("{}:{tag}", name.to_lowercase());
    let registry = around.registry.filter(|registry| !registry.is_empty());
    Ok(Named {
        id,
        image: match registry {
            Some(registry) => format!("{}/{name}", registry.to_lowercase()),
            None => name,
        },
        tag,
        printed,
    })
}

/// The fields that count, in flytekit's order.
fn fields(spec: &ImageSpec, around: &Surroundings<'_>) -> Result<Map<String, Value>, BuildError> {
    let is_loaded = match (spec.source_copy_mode, &spec.source_root) {
        (Some(mode), _) => mode == SourceCopyMode::LoadedModules,
        (None, root) => root.as_ref().is_some_and(|root| !root.is_empty()),
    };
    if is_loaded {
        let message = "flytekit's tag depends on the modules that its process has loaded";
        return Err(BuildError::input(message).field("source_copy_mode").hint(
            "`source_copy_mode = \"all\"`, here and in the code, depends on the files alone",
        ));
    }
    let needs_root = spec.source_copy_mode == Some(SourceCopyMode::All);
    if needs_root && spec.source_root.as_ref().is_none_or(String::is_empty) {
        let message = "`source_copy_mode` copies from a `source_root`, and there is none";
        return Err(BuildError::input(message).field("source_root"));
    }
    let name = spec.name.as_deref().unwrap_or(around.default_name);
    let platform = around.platform.or(spec.platform.as_deref());
    let is_local = |registry: &str| registry.starts_with("localhost:");
    if platform.is_none() && cfg!(target_arch = "aarch64") && around.registry.is_some_and(is_local)
    {
        let message = "flytekit builds for this machine where the registry is on it, and for `linux/amd64` elsewhere";
        return Err(BuildError::input(message)
            .field("platform")
            .hint("say the platform, here and in the code: `platform = \"linux/arm64\"`"));
    }
    let platform = platform.unwrap_or("linux/amd64");
    let whole = ImageSpec {
        name: Some(name.to_lowercase()),
        registry: around.registry.map(str::to_lowercase),
        platform: Some(platform.to_owned()),
        // Printed apart: they are no values of JSON.
        source_copy_mode: None,
        base_image: match &spec.base_image {
            Some(BaseImage::Reference(reference)) => Some(BaseImage::Reference(reference.clone())),
            Some(_) => Some(BaseImage::Reference(String::new())),
            None => None,
        },
        ..spec.clone()
    };
    let unprintable = |error: serde_json::Error| {
        BuildError::failed("the declaration cannot be written as JSON").caused_by(&error)
    };
    let mut fields = match serde_json::to_value(&whole).map_err(unprintable)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|name, _| !EXCLUDED.contains(&name.as_str()));
    Ok(fields)
}

/// The fields as Python prints a dictionary of them. `base` is what stands for `base_image`, already printed.
fn print(
    fields: &Map<String, Value>,
    mode: Option<SourceCopyMode>,
    base: Option<&str>,
) -> Result<String, BuildError> {
    let unsure = |field: &str| {
        let field = field.to_owned();
        move |Unsure(c): Unsure| {
            let number = u32::from(c);
            BuildError::input(format!(
                "flytekit's tag depends on the version of Python, because of the character U+{number:04X}"
            ))
            .field(field)
            .hint("leave the character out, or let flytekit's tag be: `--tag-scheme imagespec`")
        }
    };
    let mode = mode.filter(|mode| *mode != SourceCopyMode::LoadedModules);
    let mode = mode.map(|mode| match mode {
        SourceCopyMode::LoadedModules => "<CopyFileDetection.LOADED_MODULES: 1>",
        SourceCopyMode::All => "<CopyFileDetection.ALL: 2>",
        SourceCopyMode::NoCopy => "<CopyFileDetection.NO_COPY: 3>",
    });
    let mut parts = Vec::with_capacity(fields.len() + 1);
    for name in crate::spec::FIELDS {
        let mut part = format!("'{name}': ");
        match (name, fields.get(name)) {
            ("source_copy_mode", _) => match mode {
                Some(mode) => part.push_str(mode),
                None => continue,
            },
            ("base_image", Some(_)) if base.is_some() => part.push_str(base.unwrap_or_default()),
            (_, Some(value)) => repr::value(value, &mut part).map_err(unsure(name))?,
            (_, None) => continue,
        }
        parts.push(part);
    }
    Ok(format!("{{{}}}", parts.join(", ")))
}

fn digest(printed: &str) -> String {
    URL_SAFE_NO_PAD.encode(Md5::digest(printed.as_bytes()))
}

/// Bytes without the white space around them, as Python's `bytes.strip` has it.
fn stripped(bytes: &[u8]) -> &[u8] {
    let is_other = |byte: &u8| !b" \t\n\r\x0b\x0c".contains(byte);
    let first = bytes.iter().position(is_other).unwrap_or(bytes.len());
    let last = bytes.iter().rposition(is_other).map_or(first, |at| at + 1);
    &bytes[first..last]
}

/// Adds a file: its content, then its path without the separators.
fn add(hash: &mut Md5, file: &Path, relative: &str) -> io::Result<()> {
    let mut content = fs_err::File::open(file)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    hash.update(relative.replace('/', "").as_bytes());
    Ok(())
}

/// The digest of a source tree: of every file that the rules leave, in the order of their paths.
fn sources(folder: &Path, root: &str) -> io::Result<String> {
    let host = folder.join(root);
    let rules = Rules::load(&host)?;
    // The rules see what was walked, and from the root only what is below it.
    let seen = match root {
        root if root.starts_with('/') => String::new(),
        root if root.ends_with('/') => root.to_owned(),
        root => format!("{root}/"),
    };
    let mut found = Vec::new();
    list(&host, "", &mut found)?;
    found.retain(|path| !rules.ignore(&format!("{seen}{path}")));
    found.sort();
    let mut hash = Md5::new();
    for relative in found {
        add(&mut hash, &host.join(&relative), &relative)?;
    }
    Ok(hex::encode(hash.finalize()))
}

/// The files below a folder. Links are followed to files, and to nothing else.
fn list(folder: &Path, relative: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if name != ".git" {
                list(&path, &format!("{relative}{name}/"), found)?;
            }
        } else if path.is_file() {
            found.push(format!("{relative}{name}"));
        }
    }
    Ok(())
}

/// The digest of what `copy` names.
fn copies(folder: &Path, paths: &[String]) -> Result<String, BuildError> {
    let mut hash = Md5::new();
    for path in paths {
        let host = folder.join(path);
        let added = if host.is_dir() {
            walk(&mut hash, &host, "")
        } else if host.is_file() {
            let name = host.file_name().unwrap_or_default().to_string_lossy();
            add(&mut hash, &host, &name).map(|()| true)
        } else {
            Ok(true)
        };
        let is_sure = added.map_err(|error| unreadable("copy", path, &error))?;
        if !is_sure {
            let message = format!(
                "flytekit's tag depends on the order in which the file system lists folders: `{path}`"
            );
            return Err(BuildError::input(message)
                .field("copy")
                .hint("name the folders in it one by one, here and in the code"));
        }
    }
    Ok(hex::encode(hash.finalize()))
}

/// Adds a folder's files, then its folders. Whether there is only one order of these.
fn walk(hash: &mut Md5, folder: &Path, relative: &str) -> io::Result<bool> {
    let (mut names, mut folders) = (Vec::new(), Vec::new());
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?.to_owned();
        // A link to a folder is a folder that nobody walks into.
        match (entry.path().is_dir(), entry.file_type()?.is_symlink()) {
            (true, false) => folders.push(name),
            (true, true) => {}
            (false, _) => names.push(name),
        }
    }
    names.sort();
    for name in names {
        let file = folder.join(&name);
        if file.is_file() {
            add(hash, &file, &format!("{relative}{name}"))?;
        }
    }
    let mut counted = 0;
    for name in folders {
        let inside = folder.join(&name);
        counted += u32::from(has_files(&inside)?);
        if counted > 1 || !walk(hash, &inside, &format!("{relative}{name}/"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_files(folder: &Path) -> io::Result<bool> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if if is_folder {
            has_files(&entry.path())?
        } else {
            entry.path().is_file()
        } {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(field: &str, path: &str, error: &io::Error) -> BuildError {
    BuildError::input(format!("cannot read `{field}`: `{path}`"))
        .field(field)
        .caused_by(error)
}
