//! The files a spec names, gathered into a build context.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::ResolveContext;
use crate::context::ContextFiles as _;
use crate::contract::WORKDIR;
use crate::digest::Digest;
use crate::error::BuildError;
use crate::files::{self, DigestCache, ResolvedFiles};
use crate::ignore::Ignore;
use crate::login::IndexLogins;
use crate::plan::{ContextEntry, Step};
use crate::spec::{ImageSpec, SourceCopyMode};

/// Extensions of files that declare packages or images.
const DECLARATIONS: [&str; 8] = ["txt", "in", "toml", "lock", "yaml", "yml", "json", "cfg"];
/// The largest such file, in bytes.
const DECLARATION_LIMIT: u64 = 1 << 20;

/// The build context in the making.
pub(super) struct Inputs<'a> {
    cx: &'a ResolveContext<'a>,
    cache: &'a DigestCache,
    files: &'a mut ResolvedFiles,
    entries: BTreeMap<String, ContextEntry>,
    logins: IndexLogins,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(
        cx: &'a ResolveContext<'a>,
        cache: &'a DigestCache,
        files: &'a mut ResolvedFiles,
    ) -> Self {
        Self {
            cx,
            cache,
            files,
            entries: BTreeMap::new(),
            logins: IndexLogins::default(),
        }
    }

    pub(super) fn into_parts(self) -> (BTreeMap<String, ContextEntry>, IndexLogins) {
        (self.entries, self.logins)
    }

    /// A text of the declaration without its logins, which are kept beside the plan.
    pub(super) fn strip(&mut self, text: &str) -> String {
        self.logins.strip(text)
    }

    pub(super) fn has(&self, context: &str) -> bool {
        self.entries.contains_key(context)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.cx.folder.join(path).exists()
    }

    /// Reads a file that a field names, at most `limit` bytes.
    pub(super) fn read(&self, field: &str, path: &str, limit: u64) -> Result<Vec<u8>, BuildError> {
        let host = self.host(field, path)?;
        let mut bytes = Vec::new();
        let read =
            fs_err::File::open(&host).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        read.map_err(|error| unreadable(field, path, &error))?;
        if bytes.len() as u64 > limit {
            return Err(BuildError::input(format!(
                "`{field}` names a file of more than {limit} bytes: `{path}`"
            ))
            .field(field));
        }
        Ok(bytes)
    }

    /// Adds a file of Python packages that has been read, without the logins in its URLs.
    pub(super) fn insert(&mut self, context: String, bytes: Vec<u8>) {
        let bytes = match std::str::from_utf8(&bytes) {
            Ok(text) => self.logins.strip(text).into_bytes(),
            Err(_) => bytes,
        };
        let entry = ContextEntry::File {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            executable: false,
        };
        self.entries.insert(context.clone(), entry);
        self.files.insert_bytes(context, bytes);
    }

    /// The lines of a text that has been added.
    pub(super) fn lines(&self, context: &str) -> Vec<String> {
        let bytes = self.files.read(context).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// Where a path of the spec is on this machine, if anything is there.
    fn host(&self, field: &str, path: &str) -> Result<PathBuf, BuildError> {
        let host = self.cx.folder.join(path);
        if host.exists() {
            return Ok(host);
        }
        let error = BuildError::input(format!(
            "`{field}` names a path that does not exist: `{path}`"
        ))
        .field(field);
        let beside = self
            .cx
            .spec_folder
            .filter(|folder| folder.join(path).exists());
        Err(match beside {
            Some(folder) => error.hint(format!(
                "it exists beside the spec file; paths start at the working directory, so use `-C {}`",
                folder.display()
            )),
            None => error.hint(format!("paths start at `{}`", self.cx.folder.display())),
        })
    }

    /// Adds what was found, below a folder of the context.
    fn add(
        &mut self,
        field: &str,
        context: &str,
        found: Vec<files::Found>,
    ) -> Result<(), BuildError> {
        self.refuse_logins(field, &found)?;
        let entries = files::digest(&found, self.cache)
            .map_err(|error| unreadable(field, context, &error))?;
        let mut hosts = Vec::with_capacity(entries.len());
        let added = found.into_iter().zip(entries).map(|(found, entry)| {
            let path = format!("{context}/{}", found.path);
            if let ContextEntry::File { digest, .. } = &entry {
                hosts.push((path.clone(), found.host, *digest));
            }
            (path, entry)
        });
        self.entries.append(&mut added.collect());
        self.files.extend_files(hosts);
        Ok(())
    }
}

impl Inputs<'_> {
    /// A declaration that holds a login is not copied into an image, where everyone could read it.
    fn refuse_logins(&self, field: &str, found: &[files::Found]) -> Result<(), BuildError> {
        if self.logins.is_empty() {
            return Ok(());
        }
        let needles: BTreeSet<_> = self
            .logins
            .iter()
            .map(|login| format!("{}@", login.userinfo()))
            .collect();
        let holds = |found: &&files::Found| {
            let extension = found.path.rsplit_once('.').map(|(_, extension)| extension);
            let mut text = Vec::new();
            extension.is_some_and(|extension| DECLARATIONS.contains(&extension))
                && fs_err::File::open(&found.host)
                    .and_then(|file| file.take(DECLARATION_LIMIT).read_to_end(&mut text))
                    .is_ok()
                && needles
                    .iter()
                    .any(|needle| String::from_utf8_lossy(&text).contains(needle))
        };
        let Some(found) = found.iter().find(holds) else {
            return Ok(());
        };
        let message = format!(
            "`{field}` copies a file that holds the login of a package index: `{}`",
            found.path
        );
        Err(BuildError::input(message)
            .field(field)
            .hint("keep the file out of the image with a `.dockerignore`, or the login in pip's configuration or a netrc file"))
    }
}

fn unreadable(field: &str, path: &str, error: &io::Error) -> BuildError {
    BuildError::input(format!(
        "`{field}` names something that cannot be read: `{path}`"
    ))
    .field(field)
    .caused_by(error)
}

/// The folder whose files are copied to the working directory.
pub(super) fn source_root(
    spec: &ImageSpec,
    inputs: &mut Inputs<'_>,
) -> Result<Option<Step>, BuildError> {
    let Some(root) = &spec.source_root else {
        return Ok(None);
    };
    if spec.source_copy_mode == Some(SourceCopyMode::NoCopy) {
        return Ok(None);
    }
    let loaded = inputs.cx.code.and_then(|code| code.loaded);
    if spec.source_copy_mode == Some(SourceCopyMode::LoadedModules) && loaded.is_none() {
        let message =
            "`source_copy_mode` is `loaded_modules`, which only running Python code can answer";
        let error = BuildError::input(message)
            .field("source_copy_mode")
            .hint("use `all`, or `no_copy`");
        return Err(match inputs.cx.code {
            Some(_) => error.hint(super::BY_PYTHON),
            None => error,
        });
    }
    let host = inputs.host("source_root", root)?;
    if !host.is_dir() {
        return Err(
            BuildError::input(format!("`source_root` is not a folder: `{root}`"))
                .field("source_root"),
        );
    }
    let found = match loaded {
        Some(paths) => listed(&host, paths),
        None => Ignore::load(&host).and_then(|mut ignore| files::walk(&host, Some(&mut ignore))),
    };
    let found = found.map_err(|error| unreadable("source_root", root, &error))?;
    inputs.add("source_root", "src", found)?;
    Ok(Some(Step::Copy {
        field: "source_root".to_owned(),
        from: "src".to_owned(),
        to: WORKDIR.to_owned(),
    }))
}

/// Files of a folder that are named one by one.
fn listed(host: &Path, paths: &[String]) -> io::Result<Vec<files::Found>> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let message = format!("a path that leads elsewhere: `{path}`");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        all.extend(files::found(path.clone(), host.join(path))?);
    }
    Ok(all)
}

/// The files and folders that `copy` names, to the same relative paths.
pub(super) fn copies(
    spec: &ImageSpec,
    inputs: &mut Inputs<'_>,
) -> Result<Option<Step>, BuildError> {
    let Some(paths) = spec.copy.as_ref().filter(|paths| !paths.is_empty()) else {
        return Ok(None);
    };
    for path in paths {
        let host = inputs.host("copy", path)?;
        let parts: Vec<_> = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        let clean = parts.join("/");
        let error = |error| unreadable("copy", path, &error);
        if host.is_dir() {
            let context = if clean.is_empty() {
                "copy".to_owned()
            } else {
                format!("copy/{clean}")
            };
            let found = files::walk(&host, None).map_err(error)?;
            inputs.add("copy", &context, found)?;
        } else {
            let found = files::found(clean, host).map_err(error)?;
            inputs.add("copy", "copy", found.into_iter().collect())?;
        }
    }
    Ok(Some(Step::Copy {
        field: "copy".to_owned(),
        from: "copy".to_owned(),
        to: WORKDIR.to_owned(),
    }))
}
