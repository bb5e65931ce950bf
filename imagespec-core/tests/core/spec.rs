//! Specs as they are written, and their JSON Schema.

use imagespec_core::spec::{BaseImage, FIELDS, ImageSpec, SourceCopyMode};
use serde_json::json;

use crate::support::spec;

#[test]
fn every_field_survives_a_round_trip_in_its_place() {
    let written = json!({
        "name": "n", "python_version": "3.11", "builder": "native", "source_root": ".",
        "env": {"Z": "1", "A": "2"}, "registry": "ghcr.io/acme", "packages": ["a"],
        "conda_packages": ["b"], "conda_channels": ["c"], "requirements": "requirements.txt",
        "apt_packages": ["d"], "cuda": "12", "cudnn": "9",
        "base_image": {"packages": ["e"], "base_image": {"image": "f"}},
        "platform": "linux/amd64", "pip_index": "https://index.example/simple",
        "pip_extra_index_url": ["https://extra.example/simple"],
        "pip_secret_mounts": [["s", "/s"]], "pip_extra_args": "--pre", "registry_config": "r.json",
        "entrypoint": [], "commands": ["true"], "tag_format": "{spec_hash}",
        "source_copy_mode": "all", "copy": ["x"], "python_exec": "/usr/bin/python3",
        "runtime_packages": ["g"], "builder_options": {"k": [1, null]},
        "builder_config": {"uv_image": "uv"},
    });
    let fields: Vec<_> = written.as_object().expect("an object").keys().collect();
    assert_eq!(fields, FIELDS);
    let read = spec(written.clone());
    let again = serde_json::to_string(&read).expect("JSON");
    assert_eq!(again, written.to_string());
}

#[test]
fn a_base_is_a_reference_a_name_or_a_spec() {
    let base =
        |value| serde_json::from_value::<BaseImage>(value).map_err(|error| error.to_string());
    assert_eq!(
        base(json!("debian")),
        Ok(BaseImage::Reference("debian".into()))
    );
    assert_eq!(
        base(json!({"image": "a"})),
        Ok(BaseImage::Image { image: "a".into() })
    );
    assert_eq!(base(json!({})), Ok(BaseImage::Spec(Box::default())));
    let error = base(json!({"image": "a", "name": "b"})).expect_err("neither");
    assert!(error.contains("unknown field `name`"), "{error}");
    let error = base(json!({"pakages": []})).expect_err("an unknown field");
    assert!(error.contains("unknown field `pakages`"), "{error}");
    let error = base(json!(3)).expect_err("a number");
    assert!(error.contains("expected an image reference"), "{error}");
}

#[test]
fn a_version_that_is_a_number_is_to_be_quoted() {
    for number in [json!(3.9), json!(3)] {
        let error = serde_json::from_value::<ImageSpec>(json!({"python_version": number}));
        let error = error.expect_err("a number").to_string();
        assert!(
            error.contains("expected a version in quotes, such as \"3.11\""),
            "{error}"
        );
    }
    assert_eq!(spec(json!({"python_version": null})), ImageSpec::default());
}

#[test]
fn a_copy_mode_is_known_in_any_case() {
    for name in ["no_copy", "NO_COPY", "No_Copy"] {
        assert_eq!(
            spec(json!({"source_copy_mode": name})).source_copy_mode,
            Some(SourceCopyMode::NoCopy)
        );
    }
    let error = serde_json::from_value::<ImageSpec>(json!({"source_copy_mode": "some"}));
    let error = error.expect_err("an unknown mode").to_string();
    assert!(
        error.contains("`loaded_modules`, `all`, `no_copy`"),
        "{error}"
    );
}

#[test]
fn the_schema_says_what_is_read() {
    let schema = schemars::schema_for!(ImageSpec).to_value();
    let fields: Vec<_> = schema["properties"]
        .as_object()
        .expect("fields")
        .keys()
        .collect();
    assert_eq!(fields.len(), FIELDS.len());
    assert!(
        FIELDS
            .iter()
            .all(|field| fields.iter().any(|known| known == field))
    );
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(
        schema["properties"]["python_version"]["type"],
        json!(["string", "null"])
    );
    let base = schema["$defs"]["BaseImage"]["anyOf"]
        .as_array()
        .expect("kinds of bases");
    assert_eq!(base[0]["type"], "string");
    assert_eq!(base[1]["required"], json!(["image"]));
    assert_eq!(base[1]["additionalProperties"], json!(false));
    assert_eq!(base[2]["$ref"], "#");
    let mode = &schema["$defs"]["SourceCopyMode"];
    assert_eq!(mode["type"], "string");
    assert_eq!(mode["anyOf"][0]["enum"], json!(SourceCopyMode::NAMES));
    let pattern = mode["anyOf"][1]["pattern"].as_str().expect("a pattern");
    assert!(
        pattern.ends_with("|[Nn][Oo][__][Cc][Oo][Pp][Yy])$"),
        "{pattern}"
    );
}
