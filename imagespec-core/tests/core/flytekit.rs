//! flytekit's names of images. The golden ones are flytekit's own answers.

use std::path::Path;

use imagespec_core::spec::ImageSpec;
use imagespec_core::tag::flytekit::{Named, Surroundings, name};
use serde_json::{Value, json};

fn around<'a>(folder: &'a Path, spec: &'a ImageSpec) -> Surroundings<'a> {
    Surroundings {
        folder,
        default_name: "flytekit",
        registry: spec.registry.as_deref(),
        platform: None,
        base: None,
    }
}

fn read(fields: &Value) -> ImageSpec {
    serde_json::from_value(fields.clone()).expect("a spec")
}

fn named(folder: &Path, fields: &Value) -> Named {
    let spec = read(fields);
    let base = spec
        .base_image
        .as_ref()
        .and_then(|_| fields["base_image"].as_object());
    let Some(base) = base else {
        return name(&spec, &around(folder, &spec)).expect("names");
    };
    let fields = Value::Object(base.clone());
    let parent = named(folder, &fields);
    let around = Surroundings {
        base: Some(&parent),
        ..around(folder, &spec)
    };
    name(&spec, &around).expect("names")
}

#[test]
fn names_are_those_of_flytekit() {
    let golden: Value = serde_json::from_str(include_str!("flytekit-golden.json")).expect("JSON");
    let mut compared = 0;
    for vector in golden["vectors"].as_array().expect("vectors") {
        let fields = &vector["input"];
        // A version is quoted here.
        if fields["python_version"].is_number() {
            continue;
        }
        let named = named(Path::new("/nowhere"), fields);
        assert_eq!(named.id, vector["id"], "{fields}");
        assert_eq!(named.tag, vector["tag"], "{fields}");
        compared += 1;
    }
    assert_eq!(compared, 13);
}

#[test]
fn what_depends_on_chance_has_no_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in ["two/a/x", "two/b/y", "one/a/x", "one/z", "src/x.py"] {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs_err::write(path, "x").expect("a file");
    }
    fs_err::create_dir(folder.path().join("one/empty")).expect("a folder");
    let refused = |fields: Value| {
        let spec = read(&fields);
        let error = name(&spec, &around(folder.path(), &spec)).expect_err("no name");
        (error.field.unwrap_or_default(), error.message)
    };
    for (fields, field, said) in [
        (json!({"source_root": "src"}), "source_copy_mode", "modules"),
        (
            json!({"source_root": "src", "source_copy_mode": "LOADED_MODULES"}),
            "source_copy_mode",
            "modules",
        ),
        (
            json!({"copy": ["two"]}),
            "copy",
            "order in which the file system",
        ),
        (json!({"commands": ["\u{1fae8}"]}), "commands", "U+1FAE8"),
        (
            json!({"source_copy_mode": "all"}),
            "source_root",
            "there is none",
        ),
        (
            json!({"requirements": "gone.txt"}),
            "requirements",
            "gone.txt",
        ),
    ] {
        let (at, message) = refused(fields.clone());
        assert_eq!(at, field, "{fields}");
        assert!(message.contains(said), "{message}");
    }
    named(folder.path(), &json!({"copy": ["one"]}));
}
