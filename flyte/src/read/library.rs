//! What is known of Python's own modules and of flytekit's.

use std::path::{Component, Path, PathBuf};

use super::value::Value;
use super::{Around, Frame};
use ruff_text_size::Ranged;

pub(super) use imagespec_core::spec::FIELDS;

/// Names that `from flytekit import *` brings, of those that declare something.
pub(super) const STAR: [&str; 13] = [
    "ImageSpec",
    "task",
    "dynamic",
    "workflow",
    "eager",
    "map_task",
    "ContainerTask",
    "PodTemplate",
    "Resources",
    "Secret",
    "LaunchPlan",
    "reference_task",
    "current_context",
];

const BUILTINS: [&str; 44] = [
    "print",
    "len",
    "sorted",
    "list",
    "dict",
    "tuple",
    "set",
    "str",
    "int",
    "float",
    "bool",
    "range",
    "enumerate",
    "zip",
    "map",
    "filter",
    "min",
    "max",
    "sum",
    "any",
    "all",
    "open",
    "repr",
    "isinstance",
    "getattr",
    "hasattr",
    "setattr",
    "reversed",
    "type",
    "object",
    "Exception",
    "ValueError",
    "KeyError",
    "ImportError",
    "RuntimeError",
    "super",
    "property",
    "staticmethod",
    "classmethod",
    "globals",
    "exec",
    "eval",
    "iter",
    "next",
];

/// Callables that neither keep nor change what they are given.
const HARMLESS: [&str; 16] = [
    "builtins.print",
    "builtins.len",
    "builtins.repr",
    "builtins.isinstance",
    "builtins.type",
    "builtins.hasattr",
    "builtins.any",
    "builtins.all",
    "builtins.min",
    "builtins.max",
    "builtins.sum",
    "builtins.open",
    "builtins.int",
    "builtins.float",
    "warnings.warn",
    "json.dumps",
];

pub(super) fn is_builtin(name: &str) -> bool {
    BUILTINS.contains(&name)
}

/// Whether a call of it leaves its arguments alone.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || name.starts_with("logging.") || name.starts_with("rich.")
}

/// Whether a method is one that only texts have, which change nothing.
pub(super) fn is_of_texts(name: &str) -> bool {
    [
        "strip",
        "lstrip",
        "rstrip",
        "split",
        "rsplit",
        "splitlines",
        "lower",
        "upper",
        "title",
        "format",
        "join",
        "replace",
        "startswith",
        "endswith",
        "encode",
        "decode",
        "removeprefix",
        "removesuffix",
        "partition",
        "isdigit",
    ]
    .contains(&name)
}

/// Modules that every Python has.
const STANDARD: [&str; 62] = [
    "__future__",
    "abc",
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "collections",
    "concurrent",
    "contextlib",
    "contextvars",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "email",
    "enum",
    "fractions",
    "functools",
    "getpass",
    "glob",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "multiprocessing",
    "operator",
    "os",
    "pathlib",
    "pickle",
    "pkgutil",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "uuid",
];

/// Whether a module can be imported wherever the code runs.
pub(super) fn is_there(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    first == "flytekit" || STANDARD.contains(&first)
}

/// Whether a name belongs to flytekit or to what is built on it.
pub(super) fn is_flyte(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    ["flytekit", "flytekitplugins", "union", "unionai"].contains(&first)
}

/// Whether a module is a library's, even where a folder of the project has its name.
pub(super) fn is_known(name: &str) -> bool {
    is_flyte(name) || ["os", "sys", "pathlib", "functools", "typing"].contains(&name)
}

/// The last part of a name of flytekit.
pub(super) fn flyte_name(name: &str) -> Option<&str> {
    is_flyte(name).then(|| name.rsplit('.').next().unwrap_or(name))
}

/// Whether a call of it declares a task.
pub(super) fn declares(name: &str) -> bool {
    flyte_name(name).is_some_and(|last| {
        matches!(last, "task" | "dynamic" | "eager" | "workflow") || is_task_class(last)
    })
}

/// Whether it is a class of tasks: `ContainerTask`, `ShellTask`, `NotebookTask`.
pub(super) fn is_task_class(last: &str) -> bool {
    last.ends_with("Task") && last != "Task"
}

/// An attribute of a library whose value is known.
pub(super) fn constant(library: &str, name: &str, around: Around<'_>) -> Option<Value> {
    Some(match (library, name) {
        ("os", "sep") => Value::text("/"),
        ("os", "curdir") => Value::text("."),
        ("os", "linesep") => Value::text("\n"),
        ("sys", "platform") if cfg!(target_os = "linux") => Value::text("linux"),
        ("sys.version_info", "major") => Value::Int(3),
        ("sys.version_info", "minor") => Value::Int(i64::from(around.interpreter?.version()?.1)),
        _ => return None,
    })
}

/// A field of an image that was not given.
pub(super) fn default_of(name: &str, at: &impl Ranged, frame: &Frame) -> Value {
    match name {
        "name" => Value::text("flytekit"),
        "platform" | "builder" | "source_copy_mode" => {
            frame.lost(at, format!("what flytekit makes of `{name}`"))
        }
        _ => Value::None,
    }
}

/// As `pathlib` joins.
pub(super) fn join(path: &str, more: &str) -> String {
    clean(&Path::new(path).join(more))
}

/// As `pathlib` prints a path: without `.` and without doubled separators.
pub(super) fn clean(path: &Path) -> String {
    let cleaned: PathBuf = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    let text = cleaned.to_string_lossy().into_owned();
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

pub(super) fn parent(path: &str) -> String {
    match Path::new(path).parent() {
        Some(parent) if parent.as_os_str().is_empty() => ".".to_owned(),
        Some(parent) => parent.to_string_lossy().into_owned(),
        None => path.to_owned(),
    }
}

/// As `os.path.normpath`: `..` taken out of the text, links or not.
pub(super) fn normal(path: &Path) -> String {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if parts.file_name().is_some() => drop(parts.pop()),
            Component::ParentDir if parts.has_root() => {}
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    let text = parts.to_string_lossy().into_owned();
    if text.is_empty() {
        ".".to_owned()
    } else {
        text
    }
}

pub(super) fn path_attribute(path: &str, name: &str) -> Option<Value> {
    let as_path = Path::new(path);
    let text = |part: Option<&std::ffi::OsStr>| {
        Value::text(part.map(|part| part.to_string_lossy()).unwrap_or_default())
    };
    Some(match name {
        "parent" => Value::Path(parent(path).into()),
        "parents" => {
            let mut all = Vec::new();
            let mut current = path.to_owned();
            loop {
                let above = parent(&current);
                if above == current {
                    break;
                }
                all.push(Value::Path(above.as_str().into()));
                current = above;
            }
            Value::Tuple(all.into())
        }
        "name" => text(as_path.file_name()),
        "stem" => text(as_path.file_stem()),
        "suffix" => Value::text(
            as_path
                .extension()
                .map(|part| format!(".{}", part.to_string_lossy()))
                .unwrap_or_default(),
        ),
        _ => return None,
    })
}

/// `%` with texts and whole numbers.
pub(super) fn percent(format: &str, value: &Value) -> Option<String> {
    let values = match value {
        Value::Tuple(items) => items.to_vec(),
        Value::Dict(_) => return None,
        other => vec![other.clone()],
    };
    let mut values = values.into_iter();
    let mut made = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            made.push(c);
            continue;
        }
        match rest.next()? {
            '%' => made.push('%'),
            's' => made.push_str(&values.next()?.to_text()?),
            'd' => match values.next()? {
                Value::Int(number) => made.push_str(&number.to_string()),
                _ => return None,
            },
            _ => return None,
        }
    }
    values.next().is_none().then_some(made)
}

/// `str.format` with plain fields: `{}`, `{0}`, `{name}`.
pub(super) fn format(
    format: &str,
    positional: &[Value],
    named: impl Fn(&str) -> Option<Value>,
) -> Option<String> {
    let mut made = String::new();
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        made.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            made.push_str(brace);
            rest = &rest[1..];
            continue;
        }
        if brace == "}" {
            return None;
        }
        let (field, after) = rest.split_once('}')?;
        rest = after;
        let value = if field.is_empty() {
            next += 1;
            positional.get(next - 1).cloned()
        } else if let Ok(index) = field.parse::<usize>() {
            positional.get(index).cloned()
        } else if field.chars().all(|c| c.is_alphanumeric() || c == '_') {
            named(field)
        } else {
            None
        };
        made.push_str(&value?.to_text()?);
    }
    made.push_str(rest);
    Some(made)
}
