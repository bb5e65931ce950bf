//! What code says to flytekit: images, tasks and workflows.

use std::rc::Rc;

use indexmap::IndexMap;
use ruff_text_size::Ranged;

use super::library;
use super::value::{Arguments, Declaring, Image, Shared, Value};
use super::{Declared, Frame, Reader};
use crate::code::{Entity, EntityKind};

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

    pub(super) fn declare(
        &mut self,
        declaring: &Declaring,
        name: &str,
        at: &impl Ranged,
        frame: &Frame,
    ) {
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
    pub(super) fn images_of(arguments: &Arguments) -> Vec<Value> {
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

    pub(super) fn call_flyte(
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

    pub(super) fn image(arguments: Arguments, at: &impl Ranged, frame: &Frame) -> Value {
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
    pub(super) fn image_from_env(
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
}
