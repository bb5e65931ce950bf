//! What expressions are worth.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;

use indexmap::IndexMap;
use ruff_python_ast::{Expr, ModModule, Parameters, Stmt};
use ruff_text_size::TextRange;

/// A file of code.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// As a person would write it.
    pub(super) shown: PathBuf,
    /// Its text.
    pub(super) text: String,
    /// What the text says.
    pub(super) syntax: ModModule,
}

/// A place in a file of code.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) source: Rc<Source>,
    pub(super) range: TextRange,
}

/// Why a value is not known without running the code.
#[derive(Debug)]
pub(super) struct Unknown {
    /// Where the knowledge ends.
    pub(super) spot: Spot,
    /// What is there.
    pub(super) why: String,
    /// What it may be: changing it may change these.
    pub(super) aliases: RefCell<Aliases>,
    /// Whether it may be what makes tasks of functions.
    pub(super) may_declare: Cell<bool>,
}

impl Unknown {
    pub(super) fn new(spot: Spot, why: impl Into<String>) -> Rc<Self> {
        Rc::new(Self {
            spot,
            why: why.into(),
            aliases: RefCell::default(),
            may_declare: Cell::default(),
        })
    }

    /// The same doubt about something else, which may be any of these values.
    pub(super) fn about(&self, aliases: Vec<Value>) -> Rc<Self> {
        let about = Self::new(self.spot.clone(), self.why.clone());
        about.may_declare.set(self.may_declare.get());
        about.may_be(aliases);
        about
    }

    pub(super) fn may_be(&self, values: Vec<Value>) {
        let mut aliases = self.aliases.borrow_mut();
        for value in values {
            let declares = match &value {
                Value::Library(name) => super::library::declares(name),
                Value::Decorator(_) | Value::Holder(_) => true,
                Value::Unknown(unknown) => unknown.may_declare.get(),
                _ => false,
            };
            if declares {
                self.may_declare.set(true);
            }
            if let Some(object) = value.object() {
                aliases.entry(object).or_insert(value);
            }
        }
    }
}

/// Values that can be changed, by their identity.
pub(super) type Aliases = IndexMap<*const (), Value>;

/// A value that several names may stand for, and that changes. It is lost when something unknown may have changed it.
#[derive(Debug)]
pub(super) struct Shared<T> {
    pub(super) held: RefCell<T>,
    pub(super) lost: RefCell<Option<Rc<Unknown>>>,
}

impl<T> Shared<T> {
    pub(super) fn of(held: T) -> Self {
        Self {
            held: RefCell::new(held),
            lost: RefCell::default(),
        }
    }

    pub(super) fn new(held: T) -> Rc<Self> {
        Rc::new(Self::of(held))
    }

    pub(super) fn lose(&self, why: &Rc<Unknown>) {
        self.lost.borrow_mut().get_or_insert_with(|| Rc::clone(why));
    }
}

pub(super) type Pairs = Vec<(Value, Value)>;
/// Names of a module, of a call, or of a class.
pub(super) type Names = Rc<RefCell<IndexMap<String, Value>>>;

/// What an expression is worth.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    Path(Rc<str>),
    Tuple(Rc<[Value]>),
    List(Rc<Shared<Vec<Value>>>),
    Dict(Rc<Shared<Pairs>>),
    /// An `ImageSpec`.
    Image(Rc<Image>),
    Function(Rc<Function>),
    /// `functools.partial`.
    Partial(Rc<(Value, Arguments)>),
    /// A method with what it belongs to.
    Method(Rc<(Value, String)>),
    Module(Rc<Module>),
    /// A class without bases: its attributes.
    Class(Names),
    /// Something of a library, by its name with dots.
    Library(Rc<str>),
    /// `@task(…)`, which awaits its function.
    Decorator(Rc<Declaring>),
    /// A task or workflow.
    Entity,
    /// Something that holds images, such as the containers of a pod.
    Holder(Rc<Vec<Value>>),
    Unknown(Rc<Unknown>),
}

/// Arguments of a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: IndexMap<String, Value>,
    /// `*args` or `**kwargs` that are not known.
    pub(super) open: Option<Rc<Unknown>>,
}

impl Arguments {
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.positional.iter().chain(self.named.values())
    }
}

/// An `ImageSpec`: its fields as they were given.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) fields: Shared<IndexMap<String, Value>>,
    pub(super) spot: Spot,
}

/// A task, or what makes one of a function.
#[derive(Debug)]
pub(super) struct Declaring {
    pub(super) is_workflow: bool,
    /// Whether it makes tasks when it runs: flytekit then looks at all images before it changes them.
    pub(super) is_dynamic: bool,
    /// Values of which those that are images are the task's.
    pub(super) images: Vec<Value>,
}

/// A function of the project.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) source: Rc<Source>,
    pub(super) module: Rc<Module>,
    /// Names of the functions around it, the nearest last.
    pub(super) around: Vec<Names>,
    pub(super) parameters: Parameters,
    pub(super) defaults: IndexMap<String, Value>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Statements(Vec<Stmt>),
    /// Of a lambda.
    Expression(Expr),
    /// Of generators and coroutines, which do not answer when they are called.
    Later(Vec<Stmt>),
}

/// A module of the project.
#[derive(Debug)]
pub(super) struct Module {
    /// Name, with dots.
    pub(super) name: String,
    pub(super) names: Names,
    /// Whether it is a package, and where its modules are.
    pub(super) package: Option<PathBuf>,
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Str(text.as_ref().into())
    }

    pub(super) fn library(name: impl AsRef<str>) -> Self {
        Self::Library(name.as_ref().into())
    }

    pub(super) fn list(items: Vec<Value>) -> Self {
        Self::List(Shared::new(items))
    }

    pub(super) fn dict(pairs: Pairs) -> Self {
        Self::Dict(Shared::new(pairs))
    }

    /// Why it is not known, where it is not.
    pub(super) fn unknown(&self) -> Option<Rc<Unknown>> {
        match self {
            Self::Unknown(why) => Some(Rc::clone(why)),
            Self::List(list) => list.lost.borrow().clone(),
            Self::Dict(dict) => dict.lost.borrow().clone(),
            Self::Image(image) => image.fields.lost.borrow().clone(),
            _ => None,
        }
    }

    /// Whether Python takes it for true, where that is known.
    pub(super) fn truth(&self) -> Option<bool> {
        if self.unknown().is_some() {
            return None;
        }
        Some(match self {
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::Tuple(items) => !items.is_empty(),
            Self::List(list) => !list.held.borrow().is_empty(),
            Self::Dict(dict) => !dict.held.borrow().is_empty(),
            Self::Path(_)
            | Self::Image(_)
            | Self::Function(_)
            | Self::Partial(_)
            | Self::Method(_)
            | Self::Module(_)
            | Self::Class(_)
            | Self::Decorator(_)
            | Self::Entity => true,
            Self::Library(name) if name.ends_with("TYPE_CHECKING") => false,
            Self::Library(_) | Self::Holder(_) | Self::Unknown(_) => return None,
        })
    }

    /// Whether two values are equal, where that is known.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        if self.unknown().or_else(|| other.unknown()).is_some() {
            return None;
        }
        let all = |mine: &[Value], theirs: &[Value]| {
            let mut equal = mine.len() == theirs.len();
            for (mine, theirs) in mine.iter().zip(theirs) {
                equal &= mine.equals(theirs)?;
            }
            Some(equal)
        };
        Some(match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Str(a), Self::Str(b)) | (Self::Path(a), Self::Path(b)) => a == b,
            (Self::Tuple(a), Self::Tuple(b)) => all(a, b)?,
            (Self::List(a), Self::List(b)) => all(&a.held.borrow(), &b.held.borrow())?,
            // Values of different simple kinds differ, but for numbers.
            (
                Self::None
                | Self::Bool(_)
                | Self::Int(_)
                | Self::Str(_)
                | Self::Tuple(_)
                | Self::List(_)
                | Self::Path(_),
                Self::None | Self::Str(_) | Self::Tuple(_) | Self::List(_) | Self::Path(_),
            )
            | (
                Self::None | Self::Str(_) | Self::Tuple(_) | Self::List(_) | Self::Path(_),
                Self::Bool(_) | Self::Int(_),
            ) => false,
            _ => return None,
        })
    }

    /// The items that a loop over it sees, where they are known.
    pub(super) fn items(&self) -> Option<Vec<Value>> {
        if self.unknown().is_some() {
            return None;
        }
        match self {
            Self::Tuple(items) => Some(items.to_vec()),
            Self::List(list) => Some(list.held.borrow().clone()),
            Self::Dict(dict) => Some(
                dict.held
                    .borrow()
                    .iter()
                    .map(|(key, _)| key.clone())
                    .collect(),
            ),
            Self::Str(text) => Some(text.chars().map(|c| Self::text(c.to_string())).collect()),
            _ => None,
        }
    }

    /// How much work it was, in steps, so that memory is bounded with them.
    pub(super) fn weight(&self) -> u32 {
        let size = match self {
            Self::Str(text) => text.len() / 16,
            Self::Tuple(items) => items.len(),
            _ => self.length().unwrap_or(0),
        };
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// How many items a list or a dictionary has.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::List(list) => Some(list.held.borrow().len()),
            Self::Dict(dict) => Some(dict.held.borrow().len()),
            _ => None,
        }
    }

    /// What `str` makes of it, where that is known.
    pub(super) fn to_text(&self) -> Option<Rc<str>> {
        Some(match self {
            Self::None => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Int(value) => value.to_string().into(),
            Self::Str(text) | Self::Path(text) => Rc::clone(text),
            _ => return None,
        })
    }

    /// The identity of what can be changed, or leads to it.
    pub(super) fn object(&self) -> Option<*const ()> {
        Some(match self {
            Self::List(value) => Rc::as_ptr(value).cast(),
            Self::Dict(value) => Rc::as_ptr(value).cast(),
            Self::Image(value) => Rc::as_ptr(value).cast(),
            Self::Tuple(value) => Rc::as_ptr(value).cast(),
            Self::Holder(value) => Rc::as_ptr(value).cast(),
            Self::Function(value) => Rc::as_ptr(value).cast(),
            Self::Partial(value) => Rc::as_ptr(value).cast(),
            Self::Method(value) => Rc::as_ptr(value).cast(),
            Self::Class(value) => Rc::as_ptr(value).cast(),
            Self::Module(value) => Rc::as_ptr(value).cast(),
            Self::Unknown(value) => Rc::as_ptr(value).cast(),
            _ => return None,
        })
    }

    /// Marks whatever may have been changed through this value.
    pub(super) fn lose(&self, why: &Rc<Unknown>) {
        let mut seen = HashSet::new();
        let mut open = vec![self.clone()];
        while let Some(value) = open.pop() {
            if !value.object().is_some_and(|object| seen.insert(object)) {
                continue;
            }
            match &value {
                Self::List(list) => {
                    list.lose(why);
                    open.extend(list.held.borrow().iter().cloned());
                }
                Self::Dict(dict) => {
                    dict.lose(why);
                    open.extend(dict.held.borrow().iter().map(|(_, value)| value.clone()));
                }
                Self::Image(image) => {
                    image.fields.lose(why);
                    open.extend(image.fields.held.borrow().values().cloned());
                }
                Self::Tuple(items) => open.extend(items.iter().cloned()),
                Self::Holder(items) => open.extend(items.iter().cloned()),
                Self::Unknown(unknown) => open.extend(unknown.aliases.borrow().values().cloned()),
                Self::Method(method) => open.push(method.0.clone()),
                _ => {}
            }
        }
    }

    /// Whether a value is, or holds, another one that can change.
    pub(super) fn reaches(&self, target: &Self) -> bool {
        let within = |items: &[Value]| items.iter().any(|item| item.reaches(target));
        match (self, target) {
            (Value::List(a), Value::List(b)) if Rc::ptr_eq(a, b) => true,
            (Value::Dict(a), Value::Dict(b)) if Rc::ptr_eq(a, b) => true,
            (Value::Image(a), Value::Image(b)) if Rc::ptr_eq(a, b) => true,
            (Value::List(list), _) => within(&list.held.borrow()),
            (Value::Dict(dict), _) => dict
                .held
                .borrow()
                .iter()
                .any(|(_, value)| value.reaches(target)),
            (Value::Tuple(items), _) => within(items),
            (Value::Holder(items), _) => within(items),
            (Value::Image(image), _) => image
                .fields
                .held
                .borrow()
                .values()
                .any(|value| value.reaches(target)),
            _ => false,
        }
    }

    /// The images in it.
    pub(super) fn images(&self, into: &mut Vec<Rc<Image>>) {
        match self {
            Self::Image(image) => into.push(Rc::clone(image)),
            Self::Holder(held) => held.iter().for_each(|value| value.images(into)),
            Self::List(list) => list
                .held
                .borrow()
                .iter()
                .for_each(|value| value.images(into)),
            Self::Tuple(items) => items.iter().for_each(|value| value.images(into)),
            Self::Dict(dict) => dict
                .held
                .borrow()
                .iter()
                .for_each(|(_, value)| value.images(into)),
            _ => {}
        }
    }
}
