//! Modules: files into names.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imagespec_core::error::BuildError;
use imagespec_core::place::Place;
use indexmap::IndexMap;
use ruff_python_ast::{Alias, StmtImport, StmtImportFrom};

use super::statements::Flow;
use super::value::{Module, Source, Value};
use super::{Frame, Reader};
use crate::project::Project;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;

impl Reader<'_> {
    /// Imports what a person named, and of a package every module in it.
    pub(super) fn import_project(&mut self, project: &Project) -> Result<(), BuildError> {
        let imported = self.import(&project.module)?;
        let Some(module) = imported else {
            let message = format!("there is no Python module: `{}`", project.module);
            return Err(BuildError::input(message)
                .hint(format!("looked for it in `{}`", project.root.display())));
        };
        if !project.is_package {
            return Ok(());
        }
        let Some(folder) = module.package.clone() else {
            return Ok(());
        };
        self.walk(&project.module, &folder)
    }

    /// As `pkgutil.walk_packages`: modules in the order of their names, and packages before what is in them.
    fn walk(&mut self, package: &str, folder: &Path) -> Result<(), BuildError> {
        let unread = |error: &std::io::Error| {
            BuildError::input(format!("cannot read the folder: `{}`", folder.display()))
                .caused_by(error)
        };
        let mut names = Vec::new();
        for entry in fs_err::read_dir(folder).map_err(|error| unread(&error))? {
            let path = entry.map_err(|error| unread(&error))?.path();
            let is_package = path.join("__init__.py").is_file();
            let is_module = path.extension().is_some_and(|extension| extension == "py");
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .map(str::to_owned);
            if let Some(name) = name.filter(|name| {
                (is_package || is_module) && name != "__init__" && !name.contains('.')
            }) {
                names.push((name, is_package.then_some(path)));
            }
        }
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        for (name, inner) in names {
            let name = format!("{package}.{name}");
            self.import(&name)?;
            if let Some(inner) = inner {
                self.walk(&name, &inner)?;
            }
        }
        Ok(())
    }

    /// The folders in which modules are looked for.
    fn roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<_> = self
            .projects
            .iter()
            .map(|project| project.root.clone())
            .collect();
        let path = self.around.variables.get("PYTHONPATH");
        let further = path.iter().flat_map(|path| path.split(':'));
        roots.extend(
            further
                .filter(|path| !path.is_empty())
                .map(|path| self.around.folder.join(path)),
        );
        roots
    }

    /// Imports a module of the project and the packages it is in. None, where it is none of the project's.
    pub(super) fn import(&mut self, name: &str) -> Result<Option<Rc<Module>>, BuildError> {
        let Some(first) = name.split('.').next() else {
            return Ok(None);
        };
        let root = self
            .roots()
            .into_iter()
            .find(|root| root.join(format!("{first}.py")).is_file() || root.join(first).is_dir());
        let Some(mut folder) = root else {
            return Ok(None);
        };
        // A folder of the name of a library is the library's, where it is no package: `flytekit`, `tests`.
        let mut module: Option<Rc<Module>> = None;
        let mut full = String::new();
        for part in name.split('.') {
            if !full.is_empty() {
                full.push('.');
            }
            full.push_str(part);
            let inner = folder.join(part);
            let init = inner.join("__init__.py");
            let file = folder.join(format!("{part}.py"));
            let found = if init.is_file() {
                self.load(&full, &init, Some(inner.clone()))?
            } else if file.is_file() {
                self.load(&full, &file, None)?
            } else if inner.is_dir() && !super::library::is_known(&full) {
                Rc::new(Module {
                    name: full.clone(),
                    names: Rc::default(),
                    package: Some(inner.clone()),
                })
            } else {
                return Ok(None);
            };
            if let Some(package) = &module {
                let mut names = package.names.borrow_mut();
                names.insert(part.to_owned(), Value::Module(Rc::clone(&found)));
            }
            module = Some(found);
            folder = inner;
        }
        Ok(module)
    }

    fn load(
        &mut self,
        name: &str,
        file: &Path,
        package: Option<PathBuf>,
    ) -> Result<Rc<Module>, BuildError> {
        if let Some(known) = self.modules.get(file) {
            return Ok(Rc::clone(known));
        }
        let source = self.source(file)?;
        let text = |value: String| Value::text(value);
        let names = IndexMap::from([
            ("__name__".to_owned(), text(name.to_owned())),
            ("__file__".to_owned(), text(file.display().to_string())),
            ("__doc__".to_owned(), Value::None),
        ]);
        let module = Rc::new(Module {
            name: name.to_owned(),
            names: Rc::new(RefCell::new(names)),
            package,
        });
        self.modules.insert(file.to_path_buf(), Rc::clone(&module));
        let frame = Frame {
            source: Rc::clone(&source),
            module: Rc::clone(&module),
            locals: Vec::new(),
            globals: Rc::default(),
            in_class: false,
            unknowns: Rc::clone(&self.unknowns),
        };
        let steps = std::mem::take(&mut self.steps);
        let flow = self.run(&source.syntax.body, &frame);
        self.steps = steps;
        match flow {
            Flow::Raise(spot) => Err(spot
                .error("the module ends with an exception", "raised here")
                .hint("`--via python` shows what Python says")),
            Flow::Lost(why) => {
                self.doubts.push(why);
                Ok(module)
            }
            Flow::Next | Flow::Return(_) | Flow::Break | Flow::Continue => Ok(module),
        }
    }

    fn source(&self, file: &Path) -> Result<Rc<Source>, BuildError> {
        let shown = file
            .strip_prefix(self.around.folder)
            .unwrap_or(file)
            .to_path_buf();
        let unread = || BuildError::input(format!("cannot read the code: `{}`", shown.display()));
        let size = file
            .metadata()
            .map_err(|error| unread().caused_by(&error))?
            .len();
        if size > LIMIT {
            return Err(unread().hint(format!("it has more than {LIMIT} bytes")));
        }
        // Not through `fs_err`: the message names the path already.
        let text = std::fs::read_to_string(file).map_err(|error| unread().caused_by(&error))?;
        let syntax = ruff_python_parser::parse_module(&text).map_err(|error| {
            let place = Place::at(&text, error.location.start().to_usize());
            let length = error.location.len().to_usize();
            let said = error.error.to_string();
            let mut letters = said.chars();
            let said: String = letters
                .next()
                .into_iter()
                .flat_map(char::to_lowercase)
                .chain(letters)
                .collect();
            place.error("malformed Python", &shown, &said, length.clamp(1, 200))
        })?;
        Ok(Rc::new(Source {
            path: file.to_path_buf(),
            shown,
            syntax: syntax.into_syntax(),
            text,
        }))
    }

    /// `import a.b as c`.
    pub(super) fn import_names(&mut self, statement: &StmtImport, frame: &Frame) {
        for Alias { name, asname, .. } in &statement.names {
            let found = self.imported(name, frame, statement);
            let first = name.split('.').next().unwrap_or(name);
            let (bound, value) = match asname {
                Some(alias) => (alias.as_str(), found),
                None if first == name.as_str() => (first, found),
                // The name stands for the outermost package.
                None => (first, self.imported(first, frame, statement)),
            };
            self.doubt_library(&value);
            frame.bind(bound, value);
        }
    }

    /// What is imported of a library may not be there.
    fn doubt_library(&self, value: &Value) {
        if matches!(value, Value::Library(name) if !super::library::is_there(name)) {
            self.unknowns.set(self.unknowns.get() + 1);
        }
    }

    /// `from a import b as c`.
    pub(super) fn import_from(&mut self, statement: &StmtImportFrom, frame: &Frame) {
        let written = statement
            .module
            .as_ref()
            .map_or("", |module| module.as_str());
        let name = match statement.level {
            0 => written.to_owned(),
            level => match package_of(&frame.module, level) {
                Some(package) if written.is_empty() => package,
                Some(package) => format!("{package}.{written}"),
                None => {
                    let value = frame.lost(statement, "an import from outside the package");
                    for alias in &statement.names {
                        frame.bind(alias.asname.as_ref().unwrap_or(&alias.name), value.clone());
                    }
                    return;
                }
            },
        };
        let found = self.imported(&name, frame, statement);
        for Alias {
            name: item, asname, ..
        } in &statement.names
        {
            if item.as_str() == "*" {
                Self::import_all(&found, statement, frame);
                continue;
            }
            let value = self.member(&found, item, frame, statement);
            self.doubt_library(&value);
            frame.bind(asname.as_ref().unwrap_or(item), value);
        }
    }

    fn import_all(found: &Value, statement: &StmtImportFrom, frame: &Frame) {
        match found {
            Value::Module(module) => {
                let all = module.names.borrow().get("__all__").and_then(Value::items);
                let all: Option<Vec<_>> =
                    all.map(|all| all.iter().filter_map(Value::to_text).collect());
                let names = module.names.borrow().clone();
                for (name, value) in names {
                    let public = match &all {
                        Some(all) => all.iter().any(|listed| **listed == *name),
                        None => !name.starts_with('_'),
                    };
                    if public {
                        frame.bind(&name, value);
                    }
                }
            }
            Value::Library(library) if super::library::is_flyte(library) => {
                for name in super::library::STAR {
                    frame.bind(name, Value::library(format!("{library}.{name}")));
                }
            }
            _ => {
                // Any name may be another one now.
                let lost = frame.unknown(statement, "what this import brings is not known");
                let names: Vec<_> = frame.names().borrow().keys().cloned().collect();
                for name in names.into_iter().filter(|name| !name.starts_with("__")) {
                    let before = frame.lookup(&name).into_iter().collect();
                    frame.bind(&name, Value::Unknown(lost.about(before)));
                }
            }
        }
    }

    /// A member of a module: a name of it, or a module in it.
    fn member(&mut self, found: &Value, item: &str, frame: &Frame, at: &StmtImportFrom) -> Value {
        match found {
            Value::Module(module) => {
                let known = module.names.borrow().get(item).cloned();
                if let Some(value) = known {
                    return value;
                }
                if module.package.is_some() {
                    return match self.import(&format!("{}.{item}", module.name)) {
                        Ok(Some(module)) => Value::Module(module),
                        Ok(None) => frame.lost(
                            at,
                            format!("`{}` has no `{item}` that is known here", module.name),
                        ),
                        Err(error) => self.broken(&error, frame, at),
                    };
                }
                frame.lost(
                    at,
                    format!("`{}` has no `{item}` that is known here", module.name),
                )
            }
            Value::Library(library) => Value::library(format!("{library}.{item}")),
            Value::Unknown(_) => found.clone(),
            _ => frame.lost(at, "nothing is known of this import"),
        }
    }

    fn imported(&mut self, name: &str, frame: &Frame, at: &impl ruff_text_size::Ranged) -> Value {
        match self.import(name) {
            Ok(Some(module)) => Value::Module(module),
            Ok(None) => Value::library(name),
            Err(error) => self.broken(&error, frame, at),
        }
    }

    /// An import of a file that cannot be read: nothing is known of what is in it, its tasks included.
    fn broken(
        &mut self,
        error: &BuildError,
        frame: &Frame,
        at: &impl ruff_text_size::Ranged,
    ) -> Value {
        let why = match &error.source {
            Some(cause) => format!(
                "{}: {}",
                error.message,
                cause.message.lines().next().unwrap_or_default()
            ),
            None => error.message.clone(),
        };
        let why = frame.unknown(at, why);
        self.doubts.push(Rc::clone(&why));
        Value::Unknown(why)
    }
}

/// The package that an import with so many dots starts at.
fn package_of(module: &Module, level: u32) -> Option<String> {
    let mut parts: Vec<_> = module.name.split('.').collect();
    let up = if module.package.is_some() {
        level - 1
    } else {
        level
    };
    for _ in 0..up {
        parts.pop()?;
    }
    (!parts.is_empty()).then(|| parts.join("."))
}
