//! Methods of texts, paths, lists, dictionaries and images.

use std::rc::Rc;

use ruff_text_size::Ranged;

use super::expressions::{LARGE, insert};
use super::library;
use super::value::{Arguments, Image, Pairs, Shared, Value};
use super::{Frame, Reader};

/// The largest file that a declaration takes its text from, in bytes.
const READABLE: u64 = 1 << 20;

impl Reader<'_> {
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
    let fits = |value: &Value| !value.reaches(owner);
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
        ("setdefault", [key, default]) if !default.reaches(owner) => {
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
            if further.iter().any(|(_, value)| value.reaches(owner)) {
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

pub(super) fn deep_copy(value: &Value) -> Value {
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
