//! Calls: of functions of the project, of what is known of libraries, and of what is not.

use std::path::Path;
use std::rc::Rc;

use indexmap::IndexMap;
use ruff_text_size::Ranged;

use super::expressions::{LARGE, insert};
use super::library;
use super::statements::{Flow, value_reaches};
use super::value::{
    Arguments, Body, Declaring, Function, Image, Names, Pairs, Shared, Unknown, Value,
};
use super::{Declared, Frame, Reader};
use crate::code::{Entity, EntityKind};

/// The largest file that a declaration takes its text from, in bytes.
const READABLE: u64 = 1 << 20;
/// Keywords by which tasks and pods are given images.
const IMAGES: [&str; 8] = [
    "container_image",
    "image",
    "pod_template",
    "pod_spec",
    "containers",
    "init_containers",
    "task_config",
    "spec",
];

impl Reader<'_> {
    pub(super) fn call(
        &mut self,
        called: &Value,
        arguments: Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        match called {
            Value::Function(function) => self.call_function(function, &arguments, at, frame),
            Value::Partial(partial) => {
                let (called, first) = &**partial;
                let mut all = first.clone();
                all.positional.extend(arguments.positional);
                all.named.extend(arguments.named);
                all.open = all.open.or(arguments.open);
                self.call(called, all, at, frame)
            }
            Value::Method(method) => self.method(&method.0, &method.1, &arguments, at, frame),
            Value::Decorator(_) => self.decorate(called, arguments, "", at, frame),
            Value::Library(name) => self.call_library(name, arguments, at, frame),
            // Tasks called in the module do nothing to images.
            Value::Entity => frame.lost(at, "what a task returns"),
            Value::Holder(_) => called.clone(),
            Value::Class(names) => {
                let why = frame.unknown(at, "an object of a class");
                for made in ["__init__", "__new__"] {
                    let made = names.borrow().get(made).cloned();
                    if let Some(made) = made {
                        self.forget_called(&made, &why);
                    }
                }
                self.hand_over(&arguments, &why);
                Value::Unknown(why)
            }
            _ => {
                let why = called
                    .unknown()
                    .unwrap_or_else(|| frame.unknown(at, "what is called here"));
                self.forget_called(called, &why);
                self.hand_over(&arguments, &why);
                Value::Unknown(why)
            }
        }
    }

    /// Hands values to something that is not known: it may change them, and make tasks of images.
    fn hand_over(&mut self, arguments: &Arguments, why: &Rc<Unknown>) {
        let mut images = Vec::new();
        for value in arguments.values() {
            value.images(&mut images);
            value.lose(why);
            self.forget_called(value, why);
        }
        if !images.is_empty() {
            self.doubts.push(Rc::clone(why));
        }
    }

    /// A decorator or a call that is given a function: `name` is what the function is bound to.
    pub(super) fn decorate(
        &mut self,
        decorator: &Value,
        arguments: Arguments,
        name: &str,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        let declaring = match decorator {
            Value::Decorator(declaring) => Rc::clone(declaring),
            Value::Holder(images) => Rc::new(Declaring {
                is_workflow: false,
                is_dynamic: false,
                images: images.to_vec(),
            }),
            Value::Library(library)
                if matches!(
                    library::flyte_name(library),
                    Some("task" | "dynamic" | "eager" | "workflow")
                ) =>
            {
                Rc::new(Declaring {
                    is_workflow: library.ends_with("workflow"),
                    is_dynamic: library.ends_with("dynamic"),
                    images: Vec::new(),
                })
            }
            Value::Partial(_) | Value::Function(_) => {
                return self.call(decorator, arguments, at, frame);
            }
            Value::Library(library)
                if library::is_flyte(library) || library.starts_with("functools.") =>
            {
                return arguments
                    .positional
                    .into_iter()
                    .next()
                    .unwrap_or(Value::None);
            }
            _ => {
                let why = decorator
                    .unknown()
                    .unwrap_or_else(|| frame.unknown(at, "what this decorator makes"));
                if why.may_declare.get() {
                    self.doubts.push(Rc::clone(&why));
                }
                return Value::Unknown(why);
            }
        };
        let bound = match arguments.positional.first() {
            Some(Value::Function(function)) if name.is_empty() => function.name.clone(),
            _ => name.to_owned(),
        };
        self.declare(&declaring, &bound, at, frame);
        Value::Entity
    }

    fn declare(&mut self, declaring: &Declaring, name: &str, at: &impl Ranged, frame: &Frame) {
        self.declared.push(Declared {
            entity: Entity {
                module: frame.module.name.clone(),
                name: name.to_owned(),
                kind: if declaring.is_workflow {
                    EntityKind::Workflow
                } else {
                    EntityKind::Task
                },
                images: Vec::new(),
            },
            images: declaring.images.clone(),
            is_dynamic: declaring.is_dynamic,
            spot: frame.spot(at),
        });
    }

    /// The values by which a task is given images.
    fn images_of(arguments: &Arguments) -> Vec<Value> {
        let given = IMAGES.iter().filter_map(|name| arguments.named.get(*name));
        let given = given.filter(|value| !matches!(value, Value::None));
        let open = arguments
            .open
            .iter()
            .filter(|_| !arguments.named.contains_key("container_image"));
        given
            .cloned()
            .chain(open.map(|why| Value::Unknown(Rc::clone(why))))
            .collect()
    }

    fn call_flyte(
        &mut self,
        name: &str,
        last: &str,
        mut arguments: Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        match last {
            "ImageSpec" => Self::image(arguments, at, frame),
            "from_env" if name.ends_with("ImageSpec.from_env") => {
                self.image_from_env(arguments, at, frame)
            }
            "task" | "dynamic" | "eager" | "workflow" => {
                let declaring = Value::Decorator(Rc::new(Declaring {
                    is_workflow: last == "workflow",
                    is_dynamic: last == "dynamic",
                    images: Self::images_of(&arguments),
                }));
                let function = arguments
                    .positional
                    .first()
                    .cloned()
                    .or_else(|| arguments.named.shift_remove("_task_function"));
                match function.filter(|function| !matches!(function, Value::None)) {
                    Some(function) => {
                        let given = Arguments {
                            positional: vec![function],
                            ..Arguments::default()
                        };
                        self.decorate(&declaring, given, "", at, frame)
                    }
                    None => declaring,
                }
            }
            _ if library::is_task_class(last) => {
                let declaring = Declaring {
                    is_workflow: false,
                    is_dynamic: false,
                    images: Self::images_of(&arguments),
                };
                let name = arguments.named.get("name").or(arguments.positional.first());
                let name = name.and_then(Value::to_text).unwrap_or_else(|| last.into());
                self.declare(&declaring, &name, at, frame);
                Value::Entity
            }
            "ActorEnvironment" | "PodTemplate" => {
                Value::Holder(Rc::new(Self::images_of(&arguments)))
            }
            "map_task" | "array_node" | "LaunchPlan" | "get_or_create" | "create" => Value::Entity,
            _ => {
                // It may refuse its arguments.
                self.unknowns.set(self.unknowns.get() + 1);
                Value::library(format!("{name}()"))
            }
        }
    }

    fn call_library(
        &mut self,
        name: &str,
        arguments: Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        if let Some(last) = library::flyte_name(name) {
            return self.call_flyte(name, last, arguments, at, frame);
        }
        if name.starts_with("kubernetes.") {
            return Value::Holder(Rc::new(Self::images_of(&arguments)));
        }
        if let Some(value) = self.known_call(name, &arguments, at, frame) {
            return value;
        }
        if name.contains("dotenv") {
            self.environment_lost = Some(frame.unknown(at, "what this makes of the environment"));
        }
        if name.starts_with("logging.") {
            return Value::library(format!("{name}()"));
        }
        let why = arguments.values().find_map(Value::unknown);
        let why = why.unwrap_or_else(|| {
            let shown = name.strip_prefix("builtins.").unwrap_or(name);
            frame.unknown(at, format!("what `{shown}` returns"))
        });
        if !library::is_harmless(name) {
            self.hand_over(&arguments, &why);
        }
        Value::Unknown(why)
    }

    /// Calls of Python's own library whose answer is known.
    fn known_call(
        &mut self,
        name: &str,
        arguments: &Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Option<Value> {
        let first = arguments.positional.first();
        let second = arguments
            .positional
            .get(1)
            .or_else(|| arguments.named.get("default"));
        if arguments.open.is_some() {
            return None;
        }
        let path = |value: Option<&Value>| value.and_then(path_of);
        Some(match name {
            "os.getenv" | "os.environ.get" => {
                let name = path(first.or_else(|| arguments.named.get("key")))?;
                match self.variable(&name) {
                    Some(value) => value,
                    None => second.cloned().unwrap_or(Value::None),
                }
            }
            "os.environ.setdefault" => {
                let name = path(first)?;
                if let Some(value) = self.variable(&name) {
                    value
                } else {
                    let value = second?.clone();
                    let lost = frame.lost(at, "what the variable is set to");
                    self.set_variable(first?, value.to_text(), &lost);
                    value
                }
            }
            "functools.partial" => {
                let mut rest = arguments.clone();
                if rest.positional.is_empty() {
                    return None;
                }
                let called = rest.positional.remove(0);
                Value::Partial(Rc::new((called, rest)))
            }
            "copy.copy" | "copy.deepcopy" => deep_copy(first?),
            "typing.cast" => second?.clone(),
            _ => match name.strip_prefix("builtins.") {
                Some(name) => return self.builtin(name, arguments, at, frame),
                None => return self.path_call(name, arguments),
            },
        })
    }

    /// Calls that make paths of paths.
    fn path_call(&self, name: &str, arguments: &Arguments) -> Option<Value> {
        let texts = arguments.positional.iter().map(path_of);
        let texts = texts.collect::<Option<Vec<_>>>()?;
        let first = texts.first().cloned();
        Some(match name {
            "pathlib.Path" | "pathlib.PurePath" | "pathlib.PosixPath" => {
                let joined = texts
                    .iter()
                    .fold(String::new(), |path, more| library::join(&path, more));
                let joined = if joined.is_empty() {
                    ".".to_owned()
                } else {
                    joined
                };
                Value::Path(joined.into())
            }
            "os.getcwd" => Value::text(self.around.folder.to_string_lossy()),
            "pathlib.Path.cwd" => Value::Path(self.around.folder.to_string_lossy().as_ref().into()),
            "os.path.join" => {
                // As it joins, nothing is cleaned.
                let joined = texts
                    .iter()
                    .fold(String::new(), |path, more| match path.as_str() {
                        _ if more.starts_with('/') => more.to_string(),
                        "" => more.to_string(),
                        path if path.ends_with('/') => format!("{path}{more}"),
                        path => format!("{path}/{more}"),
                    });
                Value::text(joined)
            }
            "os.path.dirname" => {
                let path = first?;
                let end = path.rfind('/').map_or(0, |at| at + 1);
                let head = &path[..end];
                let trimmed = head.trim_end_matches('/');
                Value::text(if trimmed.is_empty() { head } else { trimmed })
            }
            "os.path.basename" => Value::text(first?.rsplit('/').next().unwrap_or_default()),
            "os.path.abspath" | "os.path.normpath" => {
                let path = first?;
                let whole = if name.ends_with("abspath") {
                    self.around.folder.join(&*path)
                } else {
                    Path::new(&*path).to_path_buf()
                };
                Value::text(library::normal(&whole))
            }
            "os.path.realpath" => {
                let path = self.around.folder.join(&*first?);
                Value::text(path.canonicalize().ok()?.to_string_lossy())
            }
            "os.fspath" => Value::Str(first?),
            "os.path.exists" | "os.path.isfile" | "os.path.isdir" => {
                let path = self.around.folder.join(&*first?);
                Value::Bool(match name {
                    "os.path.exists" => path.exists(),
                    "os.path.isfile" => path.is_file(),
                    _ => path.is_dir(),
                })
            }
            _ => return None,
        })
    }

    fn builtin(
        &mut self,
        name: &str,
        arguments: &Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Option<Value> {
        let first = arguments.positional.first();
        Some(match (name, arguments.positional.as_slice()) {
            ("str", [value]) => Value::Str(value.to_text()?),
            ("str", []) => Value::text(""),
            ("int", [Value::Int(number)]) => Value::Int(*number),
            ("int", [Value::Str(text)]) => Value::Int(text.trim().parse().ok()?),
            ("bool", [value]) => Value::Bool(value.truth()?),
            ("len", [Value::Str(text)]) => Value::Int(i64::try_from(text.chars().count()).ok()?),
            ("len", [value]) => Value::Int(i64::try_from(value.items()?.len()).ok()?),
            ("list", []) => Value::list(Vec::new()),
            ("list", [value]) => Value::list(value.items()?),
            ("tuple", [value]) => Value::Tuple(value.items()?.into()),
            ("any", [value]) => Value::Bool(truths(value)?.contains(&true)),
            ("all", [value]) => Value::Bool(!truths(value)?.contains(&false)),
            ("sorted", [value]) if arguments.named.is_empty() => {
                let items = value.items()?;
                let mut texts = items
                    .iter()
                    .map(|item| match item {
                        Value::Str(text) => Some(Rc::clone(text)),
                        _ => None,
                    })
                    .collect::<Option<Vec<_>>>()?;
                texts.sort();
                Value::list(texts.into_iter().map(Value::Str).collect())
            }
            ("reversed", [value]) => Value::list(value.items()?.into_iter().rev().collect()),
            ("enumerate", [value]) if arguments.named.is_empty() => Value::list(
                (0..)
                    .zip(value.items()?)
                    .map(|(at, value)| Value::Tuple([Value::Int(at), value].into()))
                    .collect(),
            ),
            ("zip", [a, b]) => Value::list(
                a.items()?
                    .into_iter()
                    .zip(b.items()?)
                    .map(|(a, b)| Value::Tuple([a, b].into()))
                    .collect(),
            ),
            ("range", [Value::Int(end)]) if (0..=10_000).contains(end) => {
                Value::list((0..*end).map(Value::Int).collect())
            }
            ("range", [Value::Int(start), Value::Int(end)])
                if end.checked_sub(*start)? <= 10_000 =>
            {
                Value::list((*start..*end).map(Value::Int).collect())
            }
            ("dict", _) => {
                let mut pairs = Pairs::new();
                match first {
                    None => {}
                    Some(Value::Dict(other)) if first?.unknown().is_none() => {
                        pairs.clone_from(&other.held.borrow());
                    }
                    Some(other) => {
                        for pair in other.items()? {
                            let pair = pair.items().filter(|pair| pair.len() == 2)?;
                            insert(&mut pairs, pair[0].clone(), pair[1].clone());
                        }
                    }
                }
                for (name, value) in &arguments.named {
                    insert(&mut pairs, Value::text(name), value.clone());
                }
                Value::dict(pairs)
            }
            ("map", [called, values]) => {
                let mut items = Vec::new();
                for value in values.items()? {
                    let given = Arguments {
                        positional: vec![value],
                        ..Arguments::default()
                    };
                    items.push(self.call(called, given, at, frame));
                }
                Value::list(items)
            }
            ("filter", [Value::None, values]) => {
                let items = values.items()?;
                let wanted = items.iter().map(Value::truth).collect::<Option<Vec<_>>>()?;
                Value::list(
                    items
                        .into_iter()
                        .zip(wanted)
                        .filter(|(_, wanted)| *wanted)
                        .map(|(item, _)| item)
                        .collect(),
                )
            }
            ("print", _) => Value::None,
            ("staticmethod" | "classmethod", [function]) => function.clone(),
            _ => return None,
        })
    }

    /// A variable of the environment, as the code sees it.
    pub(super) fn variable(&self, name: &str) -> Option<Value> {
        match self.set.get(name) {
            Some(value) => Some(value.clone()),
            None => match (self.around.variables.get(name), &self.environment_lost) {
                (Some(value), _) => Some(Value::text(value)),
                // What is set already stays.
                (None, Some(why)) => Some(Value::Unknown(Rc::clone(why))),
                (None, None) => None,
            },
        }
    }

    /// A variable that the code sets; without a text, nobody knows to what.
    pub(super) fn set_variable(&mut self, name: &Value, text: Option<Rc<str>>, lost: &Value) {
        if let Some(name) = name.to_text() {
            let value = text.map_or_else(|| lost.clone(), Value::Str);
            self.set.insert(name.to_string(), value);
        }
    }

    fn call_function(
        &mut self,
        function: &Rc<Function>,
        arguments: &Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        if self.depth >= super::DEPTH {
            return frame.lost(at, "there is too much to do before this");
        }
        let locals: Names = Rc::default();
        let inside = self.frame_of(function, Rc::clone(&locals));
        if let Err(why) = bind(function, arguments, &locals, at, frame) {
            return self.unfollowed(function, arguments, &why);
        }
        self.depth += 1;
        let flow = match &function.body {
            Body::Later(_) => {
                Flow::Lost(frame.unknown(at, "what a generator or a coroutine makes"))
            }
            Body::Expression(body) => Flow::Return(self.eval(body, &inside)),
            Body::Statements(body) => self.run(body, &inside),
        };
        self.depth -= 1;
        match flow {
            Flow::Return(value) => value,
            Flow::Next | Flow::Break | Flow::Continue => Value::None,
            Flow::Raise(spot) => {
                let why = Unknown::new(spot, "this raises an exception");
                self.unfollowed(function, arguments, &why)
            }
            Flow::Lost(why) => self.unfollowed(function, arguments, &why),
        }
    }

    /// A function that was not followed to its end: it may have changed what it was given and its module, and declared
    /// tasks.
    fn unfollowed(
        &mut self,
        function: &Rc<Function>,
        arguments: &Arguments,
        why: &Rc<Unknown>,
    ) -> Value {
        arguments.values().for_each(|value| value.lose(why));
        let called = Value::Function(Rc::clone(function));
        self.forget_called(&called, why);
        let why = why.about(vec![called]);
        if let Body::Statements(body) | Body::Later(body) = &function.body {
            let frame = self.frame_of(function, Rc::default());
            if self.doubted.insert(Rc::as_ptr(function)) {
                self.held.push(Rc::clone(function));
                if self.may_declare(body, &frame) {
                    self.doubts.push(Rc::clone(&why));
                }
            }
        }
        Value::Unknown(why)
    }

    fn image(arguments: Arguments, at: &impl Ranged, frame: &Frame) -> Value {
        let mut fields: IndexMap<String, Value> = IndexMap::new();
        let positional = library::FIELDS.iter().zip(arguments.positional);
        for (name, value) in positional {
            fields.insert((*name).to_owned(), value);
        }
        for (name, value) in arguments.named {
            fields.insert(name, value);
        }
        let image = Image {
            fields: Shared::of(fields),
            spot: frame.spot(at),
        };
        if let Some(why) = &arguments.open {
            image.fields.lose(why);
        }
        Value::Image(Rc::new(image))
    }

    /// `ImageSpec.from_env`: with the interpreter's version, and the versions of packages in it.
    fn image_from_env(
        &mut self,
        mut arguments: Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        let pinned = arguments
            .named
            .shift_remove("pinned_packages")
            .unwrap_or(Value::None);
        let given = arguments.named.get("python_version");
        if given.is_some_and(|given| !matches!(given, Value::None)) {
            return frame.lost(
                at,
                "`python_version` can not be used with `from_env`: it is the interpreter's",
            );
        }
        let Some(interpreter) = self.around.interpreter else {
            return frame.lost(at, "the interpreter's version: there is no Python here");
        };
        let names: Option<Vec<_>> = match &pinned {
            Value::None => Some(Vec::new()),
            value => value
                .items()
                .map(|items| items.iter().filter_map(Value::to_text).collect()),
        };
        let Some(names) = names else {
            return Value::Unknown(
                pinned
                    .unknown()
                    .unwrap_or_else(|| frame.unknown(at, "which packages are pinned")),
            );
        };
        let wanted: Vec<_> = names.iter().map(std::string::ToString::to_string).collect();
        let (version, found) = match interpreter.ask(&wanted) {
            Ok(answer) => answer,
            Err(error) => return frame.lost(at, error.message),
        };
        let packages = match arguments.named.get("packages") {
            // flytekit adds to the very list.
            Some(Value::List(list)) => Rc::clone(list),
            None => Shared::new(Vec::new()),
            Some(_) => return frame.lost(at, "`packages` must be a list of strings"),
        };
        for name in &names {
            let Some(version) = found.get(&**name) else {
                return frame.lost(at, format!("the interpreter has no package `{name}`"));
            };
            packages
                .held
                .borrow_mut()
                .push(Value::text(format!("{name}=={version}")));
        }
        arguments
            .named
            .insert("packages".to_owned(), Value::List(packages));
        arguments
            .named
            .insert("python_version".to_owned(), Value::text(version));
        Self::image(arguments, at, frame)
    }

    pub(super) fn method(
        &mut self,
        owner: &Value,
        name: &str,
        arguments: &Arguments,
        at: &impl Ranged,
        frame: &Frame,
    ) -> Value {
        if let Some(why) = owner.unknown() {
            if library::is_of_texts(name) {
                return Value::Unknown(why);
            }
            owner.lose(&why);
            self.forget_called(owner, &why);
            self.hand_over(arguments, &why);
            return Value::Unknown(why);
        }
        let known = if arguments.open.is_some() {
            None
        } else {
            match owner {
                Value::Str(text) => text_method(text, name, arguments),
                Value::Path(path) => self.path_method(path, name, arguments),
                Value::List(list) => list_method(owner, &list.held, name, arguments),
                Value::Dict(dict) => dict_method(owner, &dict.held, name, arguments),
                Value::Image(image) => image_method(image, name, arguments),
                _ => None,
            }
        };
        known.unwrap_or_else(|| {
            let why = arguments.values().find_map(Value::unknown);
            let why = why.unwrap_or_else(|| frame.unknown(at, format!("what `{name}` does here")));
            owner.lose(&why);
            self.hand_over(arguments, &why);
            Value::Unknown(why)
        })
    }

    fn path_method(&self, path: &str, name: &str, arguments: &Arguments) -> Option<Value> {
        let host = self.around.folder.join(path);
        let texts = arguments
            .positional
            .iter()
            .map(Value::to_text)
            .collect::<Option<Vec<_>>>()?;
        Some(match (name, texts.as_slice()) {
            ("resolve", []) => {
                Value::Path(host.canonicalize().ok()?.to_string_lossy().as_ref().into())
            }
            ("absolute", []) => Value::Path(library::clean(&host).into()),
            ("as_posix" | "__str__" | "__fspath__", []) => Value::text(path),
            ("joinpath", parts) => Value::Path(
                parts
                    .iter()
                    .fold(path.to_owned(), |path, part| library::join(&path, part))
                    .into(),
            ),
            ("with_name", [name]) => {
                Value::Path(library::join(&library::parent(path), name).into())
            }
            ("exists", []) => Value::Bool(host.exists()),
            ("is_file", []) => Value::Bool(host.is_file()),
            ("is_dir", []) => Value::Bool(host.is_dir()),
            ("read_text", _) => {
                let small = host
                    .metadata()
                    .is_ok_and(|found| found.is_file() && found.len() <= READABLE);
                let text = small
                    .then(|| std::fs::read_to_string(&host).ok())
                    .flatten()?;
                // As Python reads text.
                Value::text(text.replace("\r\n", "\n").replace('\r', "\n"))
            }
            _ => return None,
        })
    }
}

fn path_of(value: &Value) -> Option<Rc<str>> {
    match value {
        Value::Str(text) | Value::Path(text) => Some(Rc::clone(text)),
        _ => None,
    }
}

fn truths(value: &Value) -> Option<Vec<bool>> {
    value.items()?.iter().map(Value::truth).collect()
}

/// Arguments to parameters.
fn bind(
    function: &Function,
    arguments: &Arguments,
    locals: &Names,
    at: &impl Ranged,
    frame: &Frame,
) -> Result<(), Rc<Unknown>> {
    if let Some(why) = &arguments.open {
        return Err(Rc::clone(why));
    }
    let wrong = || frame.unknown(at, format!("`{}` takes other arguments", function.name));
    let mut locals = locals.borrow_mut();
    let mut named = arguments.named.clone();
    let mut given = arguments.positional.iter();
    let parameters = &function.parameters;
    let with_place = parameters.posonlyargs.iter().chain(&parameters.args);
    let all = with_place.map(|parameter| (parameter, true)).chain(
        parameters
            .kwonlyargs
            .iter()
            .map(|parameter| (parameter, false)),
    );
    for (parameter, has_place) in all {
        let name = parameter.parameter.name.as_str();
        let value = if has_place {
            given.next().cloned()
        } else {
            None
        };
        let value = value
            .or_else(|| named.shift_remove(name))
            .or_else(|| function.defaults.get(name).cloned());
        locals.insert(name.to_owned(), value.ok_or_else(wrong)?);
    }
    let rest: Vec<_> = given.cloned().collect();
    match &parameters.vararg {
        Some(parameter) => drop(locals.insert(
            parameter.name.as_str().to_owned(),
            Value::Tuple(rest.into()),
        )),
        None if !rest.is_empty() => return Err(wrong()),
        None => {}
    }
    match &parameters.kwarg {
        Some(parameter) => {
            let pairs = named
                .into_iter()
                .map(|(name, value)| (Value::text(name), value))
                .collect();
            locals.insert(parameter.name.as_str().to_owned(), Value::dict(pairs));
        }
        None if !named.is_empty() => return Err(wrong()),
        None => {}
    }
    Ok(())
}

fn text_method(text: &Rc<str>, name: &str, arguments: &Arguments) -> Option<Value> {
    if name == "format" {
        let named = |name: &str| arguments.named.get(name).cloned();
        return library::format(text, &arguments.positional, named).map(Value::text);
    }
    if name == "join" {
        let items = arguments.positional.first()?.items()?;
        let parts = items.iter().map(|item| match item {
            Value::Str(part) => Some(Rc::clone(part)),
            _ => None,
        });
        return Some(Value::text(parts.collect::<Option<Vec<_>>>()?.join(text)));
    }
    // Which of these are white space is another matter in Python.
    let is_odd = |c: char| ('\x1c'..='\x1f').contains(&c) || c == '\u{85}';
    if !arguments.named.is_empty() || text.contains(is_odd) {
        return None;
    }
    let given = arguments.positional.iter().map(|value| match value {
        Value::Str(text) => Some(Rc::clone(text)),
        _ => None,
    });
    let given = given.collect::<Option<Vec<_>>>()?;
    let list = |parts: Vec<&str>| Value::list(parts.into_iter().map(Value::text).collect());
    let set = |characters: &Rc<str>| {
        let characters: Vec<char> = characters.chars().collect();
        move |c: char| characters.contains(&c)
    };
    Some(match (name, given.as_slice()) {
        ("strip", []) => Value::text(text.trim()),
        ("lstrip", []) => Value::text(text.trim_start()),
        ("rstrip", []) => Value::text(text.trim_end()),
        ("strip", [of]) => Value::text(text.trim_matches(set(of))),
        ("lstrip", [of]) => Value::text(text.trim_start_matches(set(of))),
        ("rstrip", [of]) => Value::text(text.trim_end_matches(set(of))),
        // Of other letters, Python's answer depends on its version.
        ("lower", []) if text.is_ascii() => Value::text(text.to_lowercase()),
        ("upper", []) if text.is_ascii() => Value::text(text.to_uppercase()),
        ("replace", [from, to]) if !from.is_empty() => Value::text(text.replace(&**from, to)),
        ("split", []) => list(text.split_whitespace().collect()),
        ("split", [by]) if !by.is_empty() => list(text.split(&**by).collect()),
        ("splitlines", [])
            if text.is_ascii()
                && !text.contains(['\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\r']) =>
        {
            list(text.lines().collect())
        }
        ("startswith", [with]) => Value::Bool(text.starts_with(&**with)),
        ("endswith", [with]) => Value::Bool(text.ends_with(&**with)),
        ("removeprefix", [with]) => Value::text(text.strip_prefix(&**with).unwrap_or(text)),
        ("removesuffix", [with]) => Value::text(text.strip_suffix(&**with).unwrap_or(text)),
        _ => return None,
    })
}

fn list_method(
    owner: &Value,
    held: &std::cell::RefCell<Vec<Value>>,
    name: &str,
    arguments: &Arguments,
) -> Option<Value> {
    let fits = |value: &Value| !value_reaches(value, owner);
    match (name, arguments.positional.as_slice()) {
        ("append", [value]) if fits(value) => held.borrow_mut().push(value.clone()),
        ("extend", [values]) => {
            let items = values.items()?;
            if !items.iter().all(fits) || items.len() + held.borrow().len() > LARGE {
                return None;
            }
            held.borrow_mut().extend(items);
        }
        ("insert", [Value::Int(at), value]) if fits(value) => {
            let mut items = held.borrow_mut();
            let length = i64::try_from(items.len()).ok()?;
            let at = if *at < 0 {
                (at + length).max(0)
            } else {
                (*at).min(length)
            };
            items.insert(usize::try_from(at).ok()?, value.clone());
        }
        ("remove", [value]) => {
            let known = held
                .borrow()
                .iter()
                .map(|item| item.equals(value))
                .collect::<Option<Vec<_>>>()?;
            let at = known.iter().position(|equal| *equal)?;
            held.borrow_mut().remove(at);
        }
        ("clear", []) => held.borrow_mut().clear(),
        ("copy", []) => return Some(Value::list(held.borrow().clone())),
        ("pop", []) => return held.borrow_mut().pop(),
        _ => return None,
    }
    Some(Value::None)
}

fn dict_method(
    owner: &Value,
    held: &std::cell::RefCell<Pairs>,
    name: &str,
    arguments: &Arguments,
) -> Option<Value> {
    let find = |key: &Value| -> Option<Option<Value>> {
        for (known, value) in held.borrow().iter() {
            if known.equals(key)? {
                return Some(Some(value.clone()));
            }
        }
        Some(None)
    };
    let pairs =
        |of: fn(&(Value, Value)) -> Value| Value::list(held.borrow().iter().map(of).collect());
    Some(match (name, arguments.positional.as_slice()) {
        ("get", [key]) => find(key)?.unwrap_or(Value::None),
        ("get", [key, default]) => find(key)?.unwrap_or_else(|| default.clone()),
        ("keys", []) => pairs(|(key, _)| key.clone()),
        ("values", []) => pairs(|(_, value)| value.clone()),
        ("items", []) => pairs(|(key, value)| Value::Tuple([key.clone(), value.clone()].into())),
        ("copy", []) => Value::dict(held.borrow().clone()),
        ("setdefault", [key, default]) if !value_reaches(default, owner) => {
            if let Some(value) = find(key)? {
                value
            } else {
                held.borrow_mut().push((key.clone(), default.clone()));
                default.clone()
            }
        }
        ("update", given) if given.len() <= 1 => {
            let mut further = Pairs::new();
            match given.first() {
                None => {}
                Some(value @ Value::Dict(other)) if value.unknown().is_none() => {
                    further.clone_from(&other.held.borrow());
                }
                Some(_) => return None,
            }
            further.extend(
                arguments
                    .named
                    .iter()
                    .map(|(name, value)| (Value::text(name), value.clone())),
            );
            if further.iter().any(|(_, value)| value_reaches(value, owner)) {
                return None;
            }
            for (key, value) in further {
                insert(&mut held.borrow_mut(), key, value);
            }
            Value::None
        }
        _ => return None,
    })
}

/// `with_packages` and its like: a new image with one field longer; the others are shared, as `dataclasses.replace` has
/// it.
fn image_method(image: &Rc<Image>, name: &str, arguments: &Arguments) -> Option<Value> {
    let fields = image.fields.held.borrow().clone();
    let mut made = Image {
        fields: Shared::of(fields),
        spot: image.spot.clone(),
    };
    let field = match name {
        "force_push" => return Some(Value::Image(Rc::new(made))),
        // Code is read as it is before anything runs in a container.
        "is_container" => return Some(Value::Bool(true)),
        "with_commands" => "commands",
        "with_packages" => "packages",
        "with_apt_packages" => "apt_packages",
        "with_copy" => "copy",
        "with_runtime_packages" => "runtime_packages",
        "with_builder_options" => "builder_options",
        _ => return None,
    };
    let given = arguments
        .positional
        .first()
        .or_else(|| arguments.named.values().next())?;
    let fields = made.fields.held.get_mut();
    let current = fields
        .get(field)
        .filter(|value| !matches!(value, Value::None));
    let longer = match given {
        _ if given.unknown().is_some() => given.clone(),
        Value::Dict(more) => {
            let mut pairs = match current {
                None => Pairs::new(),
                Some(value @ Value::Dict(known)) if value.unknown().is_none() => {
                    known.held.borrow().clone()
                }
                Some(_) => return None,
            };
            for (key, value) in more.held.borrow().iter() {
                insert(&mut pairs, key.clone(), value.clone());
            }
            Value::dict(pairs)
        }
        _ => {
            let mut items = match current {
                None => Vec::new(),
                Some(value @ Value::List(_)) => match value.unknown() {
                    None => value.items()?,
                    Some(why) => {
                        fields.insert(field.to_owned(), Value::Unknown(why));
                        return Some(Value::Image(Rc::new(made)));
                    }
                },
                Some(Value::Unknown(why)) => {
                    let lost = Value::Unknown(Rc::clone(why));
                    fields.insert(field.to_owned(), lost);
                    return Some(Value::Image(Rc::new(made)));
                }
                Some(_) => return None,
            };
            match given {
                Value::Str(_) => items.push(given.clone()),
                Value::List(_) => items.extend(given.items()?),
                _ => return None,
            }
            Value::list(items)
        }
    };
    fields.insert(field.to_owned(), longer);
    Some(Value::Image(Rc::new(made)))
}

fn deep_copy(value: &Value) -> Value {
    match value {
        _ if value.unknown().is_some() => value.clone(),
        Value::List(list) => Value::list(list.held.borrow().iter().map(deep_copy).collect()),
        Value::Dict(dict) => Value::dict(
            dict.held
                .borrow()
                .iter()
                .map(|(key, value)| (key.clone(), deep_copy(value)))
                .collect(),
        ),
        Value::Tuple(items) => Value::Tuple(items.iter().map(deep_copy).collect()),
        Value::Image(image) => {
            let fields = image.fields.held.borrow();
            let copied = fields
                .iter()
                .map(|(name, value)| (name.clone(), deep_copy(value)))
                .collect();
            Value::Image(Rc::new(Image {
                fields: Shared::of(copied),
                spot: image.spot.clone(),
            }))
        }
        other => other.clone(),
    }
}
