//! What the canonical tag depends on, and what it does not.

use std::path::Path;

use crate::support::{context, folder, resolved, spec, write};
use imagespec_core::deployment::Deployment;
use imagespec_core::digest::Digest;
use imagespec_core::resolve::{ResolveContext, resolve};
use imagespec_core::spec::FIELDS;
use serde_json::{Value, json};

type Change = fn(&Path);

const FILES: [(&str, &str); 7] = [
    ("app/main.py", "print('hello')"),
    ("app/pkg/mod.py", "x = 1"),
    ("other/main.py", "print('other')"),
    ("data/a.txt", "a"),
    ("requirements.txt", "requests\n-r base.txt\n"),
    ("base.txt", "idna\n"),
    ("secret", "s"),
];

/// A spec that every field below can be changed in.
fn everything() -> Value {
    json!({"source_root": "app", "requirements": "requirements.txt", "env": {"A": "1", "B": "2"}, "packages": ["six"]})
}

fn digest(folder: &Path, json: Value) -> Digest {
    resolved(folder, &spec(json))
        .expect("resolved")
        .plan
        .digest()
}

fn with(field: &str, value: Value) -> Value {
    let mut json = everything();
    json[field] = value;
    json
}

#[test]
fn every_field_that_changes_the_image_changes_the_digest_and_no_other_does() {
    let folder = folder(&FILES);
    let table = [
        ("name", json!("other"), false),
        ("python_version", json!("3.13"), true),
        ("builder", json!("native"), false),
        ("source_root", json!("other"), true),
        ("env", json!({"A": "1"}), true),
        ("registry", json!("ghcr.io/acme"), false),
        ("packages", json!(["seven"]), true),
        ("conda_packages", json!(["numpy"]), true),
        ("conda_channels", json!(["bioconda"]), true),
        ("requirements", json!("base.txt"), true),
        ("apt_packages", json!(["git"]), true),
        ("cuda", json!("12"), true),
        ("cudnn", json!("9"), true),
        ("base_image", json!("debian:bookworm-slim"), true),
        ("platform", json!("linux/arm64"), true),
        ("pip_index", json!("https://index.example/simple"), true),
        (
            "pip_extra_index_url",
            json!(["https://index.example/simple"]),
            true,
        ),
        (
            "pip_secret_mounts",
            json!([["secret", "/run/secret"]]),
            false,
        ),
        ("pip_extra_args", json!("--pre"), true),
        ("registry_config", json!("registry.json"), false),
        ("entrypoint", json!([]), true),
        ("commands", json!(["true"]), true),
        ("tag_format", json!("v-{spec_hash}"), false),
        ("source_copy_mode", json!("no_copy"), true),
        ("copy", json!(["data"]), true),
        ("python_exec", json!("/usr/bin/python3"), true),
        ("runtime_packages", json!(["six"]), false),
        ("builder_options", json!({"x": 1}), false),
        ("builder_config", json!({"uv_image": "uv:1"}), false),
    ];
    assert_eq!(table.clone().map(|(field, ..)| field), FIELDS);
    let before = digest(folder.path(), everything());
    for (field, value, changes) in table {
        let after = digest(folder.path(), with(field, value));
        assert_eq!(before != after, changes, "{field}");
    }
}

#[test]
fn the_tag_is_the_digest_in_the_format_asked_for() {
    let folder = folder(&FILES);
    let tag = |json| {
        resolved(folder.path(), &spec(json))
            .expect("resolved")
            .destination
            .tag
    };
    let plain = tag(everything());
    assert_eq!(plain.len(), 32);
    assert!(
        plain
            .bytes()
            .all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7')),
        "{plain}"
    );
    assert_eq!(
        tag(with("tag_format", json!("v1.{spec_hash}-x"))),
        format!("v1.{plain}-x")
    );
}

#[test]
fn where_and_how_the_image_is_made_does_not_matter() {
    let (here, there) = (folder(&FILES), folder(&FILES));
    let before = digest(here.path(), everything());
    assert_eq!(before, digest(there.path(), everything()), "checkout path");
    let reordered = json!({"packages": ["six"], "env": {"B": "2", "A": "1"}, "requirements": "requirements.txt", "source_root": "./app/"});
    assert_eq!(before, digest(here.path(), reordered), "order of keys");
    let deployment = Deployment {
        registry: Some("ghcr.io/acme".into()),
        builder: Some("kaniko".into()),
        ..Deployment::default()
    };
    let cx = ResolveContext {
        builder_flag: Some("native"),
        registry: Some("localhost:5000"),
        extra_tags: &["latest".to_owned()],
        default_name: "another",
        ..context(here.path(), &deployment)
    };
    let elsewhere = resolve(&spec(everything()), &cx).expect("resolved");
    assert_eq!(before, elsewhere.plan.digest(), "destination and builder");
    let sorted = digest(here.path(), with("apt_packages", json!(["a", "b"])));
    assert_eq!(
        sorted,
        digest(here.path(), with("apt_packages", json!(["b", "a", "b"])))
    );
}

#[cfg(unix)]
#[test]
fn of_a_mode_only_the_owner_s_right_to_execute_counts() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder(&FILES);
    let file = folder.path().join("app/main.py");
    let at = |mode| {
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
        digest(folder.path(), everything())
    };
    let plain = at(0o644);
    assert_eq!(plain, at(0o600));
    assert_eq!(plain, at(0o664));
    let executable = at(0o755);
    assert_ne!(plain, executable);
    assert_eq!(executable, at(0o700));
}

#[test]
fn content_and_path_of_every_file_count() {
    let changes: [(&str, Change); 7] = [
        ("content", |folder| {
            write(folder, "app/main.py", "print('hullo')");
        }),
        ("another file", |folder| write(folder, "app/new.py", "")),
        ("a file gone", |folder| {
            fs_err::remove_file(folder.join("app/main.py")).expect("removed");
        }),
        ("path", |folder| {
            fs_err::rename(folder.join("app/pkg"), folder.join("app/pkh")).expect("moved");
        }),
        ("requirements", |folder| {
            write(folder, "requirements.txt", "requests\n-r base.txt\n#\n");
        }),
        ("included requirements", |folder| {
            write(folder, "base.txt", "idna>3\n");
        }),
        ("copied file", |folder| write(folder, "data/a.txt", "b")),
    ];
    for (what, change) in changes {
        let folder = folder(&FILES);
        let spec = with("copy", json!(["data"]));
        let before = digest(folder.path(), spec.clone());
        change(folder.path());
        assert_ne!(before, digest(folder.path(), spec), "{what}");
    }
    let folder = folder(&FILES);
    let before = digest(folder.path(), everything());
    write(folder.path(), "app/__pycache__/main.pyc", "x");
    write(folder.path(), "unrelated.py", "x");
    assert_eq!(
        before,
        digest(folder.path(), everything()),
        "files that are not copied"
    );
}

#[test]
fn a_lock_file_counts_with_the_project_beside_it() {
    let folder = folder(&[
        ("p/uv.lock", "version = 1"),
        ("p/pyproject.toml", "[project]"),
    ]);
    let spec = json!({"requirements": "p/uv.lock"});
    let before = digest(folder.path(), spec.clone());
    write(folder.path(), "p/pyproject.toml", "[project]\n");
    assert_ne!(before, digest(folder.path(), spec));
}

#[test]
fn a_parent_s_plan_is_part_of_its_child_s() {
    let folder = folder(&FILES);
    let child = spec(json!({"base_image": {"image": "parent"}}));
    let digest = |parent: Value| {
        let parent = resolved(folder.path(), &spec(parent)).expect("the parent");
        let deployment = Deployment::default();
        let cx = ResolveContext {
            base: Some(&parent),
            ..context(folder.path(), &deployment)
        };
        resolve(&child, &cx).expect("the child").plan.digest()
    };
    assert_ne!(digest(json!({})), digest(json!({"packages": ["six"]})));
    assert_eq!(digest(json!({})), digest(json!({"registry": "ghcr.io"})));
}
