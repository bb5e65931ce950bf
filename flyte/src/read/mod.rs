//! Reading code without running it.
//!
//! An interpreter of the part of Python in which people declare images: constants and what is made of them, imports
//! between files of the project, simple functions. It goes through modules as importing them would. What it does not
//! know becomes an unknown value that remembers where the knowledge ended; whatever an unknown call or an undecided
//! branch may have changed becomes unknown, too. Only where such a value reaches an image of a task is that an error:
//! then the place is shown, and nothing is guessed.

mod calls;
mod doubts;
mod expressions;
mod finish;
mod flytekit;
mod library;
mod methods;
mod modules;
mod operators;
mod reach;
mod statements;
mod syntax;
mod value;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use imagespec_core::error::BuildError;
use ruff_text_size::{Ranged, TextRange};

use crate::code::Code;
use crate::interpreter::Interpreter;
use crate::project::Project;
use value::{Module, Names, Source, Spot, Unknown, Value};

/// How many expressions and statements of a module are looked at: far more than declarations need. They also bound
/// how deep values lie in each other.
const STEPS: u32 = 400_000;
/// How deeply calls and expressions lie in each other.
const DEPTH: u32 = 400;
/// For that depth, in bytes.
const STACK: usize = 256 << 20;

/// What the code would see of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The working directory.
    pub folder: &'a Path,
    /// The environment.
    pub variables: &'a BTreeMap<String, String>,
    /// The user's interpreter, which is asked for versions of packages where the code pins those it has.
    pub interpreter: Option<&'a Interpreter>,
}

/// Reads the images of files and packages without running them.
pub fn read(projects: &[Project], around: Around<'_>) -> Result<Code, BuildError> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK);
        let reader = reader.spawn_scoped(scope, || Reader::new(projects, around).read());
        let reader = reader
            .map_err(|error| BuildError::failed("cannot start a thread").caused_by(&error))?;
        reader
            .join()
            .unwrap_or_else(|_| Err(BuildError::failed("the reader of Python code broke")))
    })
}

/// An entity of the code, with the values of which those that are images are its own.
#[derive(Debug)]
struct Declared {
    entity: crate::code::Entity,
    images: Vec<Value>,
    is_dynamic: bool,
    spot: Spot,
}

/// The interpreter.
struct Reader<'a> {
    projects: &'a [Project],
    around: Around<'a>,
    /// Modules of the project that were imported, by their file; those under way, too.
    modules: HashMap<PathBuf, Rc<Module>>,
    /// What code declares, in the order in which it does.
    declared: Vec<Declared>,
    /// What may declare tasks, nobody knows which.
    doubts: Vec<Rc<Unknown>>,
    /// Variables of the environment that the code has set.
    set: HashMap<String, Value>,
    /// What may have changed it in a way that is not known.
    environment_lost: Option<Rc<Unknown>>,
    steps: u32,
    depth: u32,
    /// How many values were found unknown so far. Where none was, no exception was raised.
    unknowns: Rc<Cell<u64>>,
    /// Functions of which a doubt was told.
    doubted: HashSet<*const value::Function>,
    /// These functions, so that their addresses stay theirs.
    held: Vec<Rc<value::Function>>,
}

/// Where names are looked up.
#[derive(Debug, Clone)]
struct Frame {
    source: Rc<Source>,
    module: Rc<Module>,
    /// Names of the function and of those around it, the nearest last; none in a module.
    locals: Vec<Names>,
    /// Names that a function declares to be the module's.
    globals: Rc<RefCell<HashSet<String>>>,
    /// Whether the nearest names are those of a class, which functions in it do not see.
    in_class: bool,
    /// How many values were found unknown so far.
    unknowns: Rc<Cell<u64>>,
}

impl Frame {
    fn spot(&self, at: &impl Ranged) -> Spot {
        Spot {
            source: Rc::clone(&self.source),
            range: at.range(),
        }
    }

    /// The names that assignments go to.
    fn names(&self) -> Names {
        match self.locals.last() {
            Some(locals) => Rc::clone(locals),
            None => Rc::clone(&self.module.names),
        }
    }

    /// Binds a name.
    fn bind(&self, name: &str, value: Value) {
        let names = if self.globals.borrow().contains(name) {
            Rc::clone(&self.module.names)
        } else {
            self.names()
        };
        names.borrow_mut().insert(name.to_owned(), value);
    }

    /// What a name stands for.
    fn lookup(&self, name: &str) -> Option<Value> {
        let locals = self.locals.iter().rev();
        let locals = locals.filter(|_| !self.globals.borrow().contains(name));
        let found = locals
            .chain([&self.module.names])
            .find_map(|names| names.borrow().get(name).cloned());
        let builtin =
            || library::is_builtin(name).then(|| Value::library(format!("builtins.{name}")));
        found.or_else(builtin)
    }

    fn unknown(&self, at: &impl Ranged, why: impl Into<String>) -> Rc<Unknown> {
        self.unknowns.set(self.unknowns.get() + 1);
        Unknown::new(self.spot(at), why)
    }

    /// The doubt about a value, or else a new one.
    fn doubt(&self, value: &Value, at: &impl Ranged, why: &str) -> Value {
        let why = value.unknown().unwrap_or_else(|| self.unknown(at, why));
        Value::Unknown(why)
    }

    /// A value that is not known from here on.
    fn lost(&self, at: &impl Ranged, why: impl Into<String>) -> Value {
        Value::Unknown(self.unknown(at, why))
    }
}

impl Spot {
    fn error(&self, message: &str, summary: &str) -> BuildError {
        let text = &self.source.text;
        let place = imagespec_core::place::Place::at(text, self.range.start().to_usize());
        let length = text.get(self.range.start().to_usize()..self.range.end().to_usize());
        let length = length.map_or(1, |text| {
            text.lines().next().unwrap_or_default().chars().count()
        });
        place.error(message, &self.source.shown, summary, length)
    }
}

impl Unknown {
    fn error(&self) -> BuildError {
        self.spot
            .error("not known without running the code", &self.why)
            .hint("`--via python` runs the code and asks flytekit")
    }
}

impl<'a> Reader<'a> {
    fn new(projects: &'a [Project], around: Around<'a>) -> Self {
        Self {
            projects,
            around,
            modules: HashMap::new(),
            declared: Vec::new(),
            doubts: Vec::new(),
            set: HashMap::new(),
            environment_lost: None,
            steps: 0,
            depth: 0,
            unknowns: Rc::default(),
            doubted: HashSet::new(),
            held: Vec::new(),
        }
    }

    fn read(mut self) -> Result<Code, BuildError> {
        for project in self.projects {
            self.import_project(project)?;
        }
        if let Some(doubt) = self.doubts.first() {
            return Err(doubt.error());
        }
        self.finish()
    }
}

/// A place that a node has no range of its own for.
struct At(TextRange);

impl Ranged for At {
    fn range(&self) -> TextRange {
        self.0
    }
}
