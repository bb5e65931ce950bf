//! Plans: the order of their steps, their context, and what they ask of a builder.

use std::io::ErrorKind;

use imagespec_core::builder::Capability;
use imagespec_core::context::ContextFiles as _;
use imagespec_core::deployment::{Deployment, Sdk};
use imagespec_core::plan::{Base, BuildPlan, ContextEntry, RequirementsKind, Step};
use imagespec_core::resolve::{ResolveContext, Resolved, resolve};
use serde_json::json;

use crate::support::{context, folder, resolved, spec, write};

fn python(resolved: &Resolved) -> (Option<RequirementsKind>, Vec<String>) {
    let step = resolved.plan.steps.iter().find_map(|step| match step {
        Step::PythonPackages {
            requirements,
            packages,
            ..
        } => Some((
            requirements.as_ref().map(|file| file.kind),
            packages.clone(),
        )),
        _ => None,
    });
    step.expect("a step for Python")
}

#[test]
fn steps_come_in_flytekit_s_order_and_files_by_what_asks_for_them() {
    let folder = folder(&[
        ("app/main.py", ""),
        ("data/x/a.txt", ""),
        ("data/.gitignore", "*"),
        ("r/requirements.txt", "-r more/a.txt\n"),
        ("r/more/a.txt", "-c b.txt\n"),
        ("r/more/b.txt", ""),
    ]);
    fs_err::create_dir(folder.path().join("data/empty")).expect("a folder");
    let resolved = resolved(
        folder.path(),
        &spec(json!({
            "commands": ["true"], "copy": ["./data/", "app/main.py"], "source_root": "app",
            "requirements": "r/requirements.txt", "apt_packages": ["git"],
        })),
    )
    .expect("resolved");
    let fields: Vec<_> = resolved.plan.steps.iter().map(Step::field).collect();
    assert_eq!(
        fields,
        [
            "apt_packages",
            "requirements",
            "source_root",
            "copy",
            "commands"
        ]
    );
    let files: Vec<_> = resolved.plan.files.keys().collect();
    let expected = [
        "copy/app/main.py",
        "copy/data/.gitignore",
        "copy/data/empty",
        "copy/data/x/a.txt",
        "python/more/a.txt",
        "python/more/b.txt",
        "python/requirements.txt",
        "src/main.py",
    ];
    assert_eq!(files, expected);
    assert_eq!(
        resolved.plan.files["copy/data/empty"],
        ContextEntry::Directory
    );
    for (path, entry) in &resolved.plan.files {
        assert_eq!(
            matches!(entry, ContextEntry::File { .. }),
            resolved.files.read(path).is_ok(),
            "{path}"
        );
    }
    let json = serde_json::to_string(&resolved.plan).expect("JSON");
    let again: BuildPlan = serde_json::from_str(&json).expect("a plan");
    assert_eq!(
        (again.digest(), &again),
        (resolved.plan.digest(), &resolved.plan)
    );
}

#[test]
fn a_file_that_changes_after_the_plan_is_an_error_at_its_end() {
    let folder = folder(&[("app/main.py", "one")]);
    let resolved = resolved(folder.path(), &spec(json!({"source_root": "app"}))).expect("resolved");
    assert_eq!(
        resolved.files.read("src/main.py").expect("unchanged"),
        b"one"
    );
    write(folder.path(), "app/main.py", "two");
    let error = resolved.files.read("src/main.py").expect_err("changed");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(
        resolved.files.read("src/none").expect_err("none").kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn requirements_are_known_by_their_name() {
    let files = [
        "a/reqs.in",
        "a/uv.lock",
        "a/poetry.lock",
        "a/pyproject.toml",
    ];
    let folder = folder(&files.map(|file| (file, "")));
    let kinds = files.map(|file| {
        python(&resolved(folder.path(), &spec(json!({"requirements": file}))).expect(file)).0
    });
    let expected = [
        RequirementsKind::RequirementsTxt,
        RequirementsKind::UvLock,
        RequirementsKind::PoetryLock,
        RequirementsKind::Pyproject,
    ];
    assert_eq!(kinds, expected.map(Some));
}

#[test]
fn the_sdk_is_added_where_the_deployment_says_so_and_nobody_else_did() {
    let folder = folder(&[
        ("requirements.txt", "flytekit>=1.14\n"),
        ("plugin.txt", "flytekit-extra\nflytekitplugins-x\n"),
        ("uv.lock", ""),
        ("pyproject.toml", ""),
    ]);
    let with = |sdk, json| {
        let deployment = Deployment {
            sdk,
            ..Deployment::default()
        };
        python(&resolve(&spec(json), &context(folder.path(), &deployment)).expect("resolved")).1
    };
    let sdk = Some(Sdk::Flytekit);
    let none: [&str; 0] = [];
    assert_eq!(with(sdk, json!({"packages": ["six"]})), ["six", "flytekit"]);
    assert_eq!(
        with(sdk, json!({"requirements": "plugin.txt"})),
        ["flytekit"]
    );
    assert_eq!(
        with(sdk, json!({"packages": ["flytekit==1.16"]})),
        ["flytekit==1.16"]
    );
    assert_eq!(with(sdk, json!({"requirements": "requirements.txt"})), none);
    assert_eq!(with(sdk, json!({"requirements": "uv.lock"})), none);
    assert_eq!(with(None, json!({"packages": ["six"]})), ["six"]);
}

#[test]
fn the_base_follows_the_version_of_python() {
    let folder = folder(&[]);
    for (version, suite, standalone) in [
        (None, "bookworm", None),
        (Some("3.9"), "bullseye", None),
        (Some("3.11.4"), "bookworm", None),
        (Some("3.13"), "trixie", None),
        (Some("3.12.1"), "bookworm", Some("3.12")),
    ] {
        let resolved =
            resolved(folder.path(), &spec(json!({"python_version": version}))).expect("resolved");
        let plan = resolved.plan;
        let suite = suite.into();
        assert_eq!(plan.base, Base::Debian { suite });
        assert_eq!(plan.standalone_python(), standalone);
    }
    let there = json!({"python_version": "3.12", "base_image": "python:3.12-slim"});
    let plan = resolved(folder.path(), &spec(there))
        .expect("resolved")
        .plan;
    assert_eq!(plan.standalone_python(), None);
}

#[test]
fn the_builder_is_the_flag_s_then_the_spec_s_then_the_variable_s_then_the_deployment_s() {
    let folder = folder(&[]);
    let choose = |flag, spec_s: Option<&str>, variable, deployment_s: Option<&str>| {
        let deployment = Deployment {
            builder: deployment_s.map(Into::into),
            ..Deployment::default()
        };
        let cx = ResolveContext {
            builder_flag: flag,
            builder_variable: variable,
            ..context(folder.path(), &deployment)
        };
        resolve(&spec(json!({"builder": spec_s})), &cx)
            .expect("resolved")
            .builder
    };
    let (flag, spec, variable, deployment) = (Some("f"), Some("s"), Some("v"), Some("d"));
    assert_eq!(choose(flag, spec, variable, deployment), ("f".into(), true));
    assert_eq!(
        choose(None, spec, variable, deployment),
        ("s".into(), false)
    );
    assert_eq!(
        choose(None, None, variable, deployment),
        ("v".into(), false)
    );
    assert_eq!(choose(None, None, None, deployment), ("d".into(), false));
    assert_eq!(choose(None, None, None, None), ("default".into(), false));
}

#[test]
fn what_a_plan_needs_is_named_by_its_field() {
    let folder = folder(&[("data", "")]);
    for (field, value, capability) in [
        ("apt_packages", json!(["git"]), Capability::AptPackages),
        (
            "conda_packages",
            json!(["numpy"]),
            Capability::CondaPackages,
        ),
        (
            "conda_channels",
            json!(["bioconda"]),
            Capability::CondaPackages,
        ),
        ("cuda", json!("12"), Capability::CondaPackages),
        ("cudnn", json!("9"), Capability::CondaPackages),
        (
            "registry_config",
            json!("r.json"),
            Capability::RegistryConfig,
        ),
        (
            "runtime_packages",
            json!(["six"]),
            Capability::RuntimePackages,
        ),
        (
            "builder_config",
            json!({"uv_image": "uv"}),
            Capability::HelperImages,
        ),
        (
            "python_exec",
            json!("/usr/bin/python3"),
            Capability::PythonExec,
        ),
        ("commands", json!(["true"]), Capability::Run),
        ("packages", json!(["six"]), Capability::PythonPackages),
        ("requirements", json!("data"), Capability::PythonPackages),
        ("base_image", json!("debian"), Capability::BaseReference),
        (
            "platform",
            json!("linux/amd64,linux/arm64"),
            Capability::MultiPlatform,
        ),
    ] {
        let resolved = resolved(folder.path(), &spec(json!({field: value}))).expect(field);
        assert_eq!(
            resolved.plan.required().get(&capability),
            Some(&field),
            "{field}"
        );
    }
}
