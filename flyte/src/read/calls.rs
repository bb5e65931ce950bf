//! Calls: of functions of the project, of what is known of libraries, and of what is not.

use std::path::Path;
use std::rc::Rc;

use ruff_text_size::Ranged;

use super::expressions::insert;
use super::library;
use super::methods::deep_copy;
use super::statements::Flow;
use super::value::{Arguments, Body, Function, Names, Pairs, Unknown, Value};
use super::{Frame, Reader};

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
    pub(super) fn hand_over(&mut self, arguments: &Arguments, why: &Rc<Unknown>) {
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
