//! Names, plans and checks of what is declared.

use insta::assert_snapshot;

use crate::place::Place;

const TWO: &str = r#"
[deployments.sandbox]
registry = "localhost:30000"
pull_registry = "registry.flyte:5000"

[images.base]
packages = ["requests>=2"]
apt_packages = ["git"]
[images.base.env]
GREETING = "hello"

[images.child]
base_image = { image = "base" }
commands = ["true"]
entrypoint = ["python"]
"#;

#[test]
fn tags_are_printed_in_order() {
    let place = Place::declaring(TWO);
    assert_snapshot!(place.run(&["tag"]), @r"
    exit code: 0
    --- stdout
    base:[TAG]
    child:[TAG]
    --- stderr
    ");
    assert_snapshot!(place.run(&["tag", "child", "base", "--registry", "ghcr.io/acme"]), @r"
    exit code: 0
    --- stdout
    ghcr.io/acme/child:[TAG]
    ghcr.io/acme/base:[TAG]
    --- stderr
    ");
    assert_snapshot!(place.run(&["tag", "base", "--deployment", "sandbox"]), @r"
    exit code: 0
    --- stdout
    registry.flyte:5000/base:[TAG]
    --- stderr
    ");
    assert_snapshot!(place.run_with(("IMAGESPEC_DEPLOYMENT", "sandbox"), &["tag", "base"]), @r"
    exit code: 0
    --- stdout
    registry.flyte:5000/base:[TAG]
    --- stderr
    ");
    assert_snapshot!(place.run_with(("IMAGESPEC_REGISTRY", "r.example"), &["tag", "base"]), @r"
    exit code: 0
    --- stdout
    r.example/base:[TAG]
    --- stderr
    ");
}

#[test]
fn the_nearest_project_is_found() {
    let place = Place::new(&[("imagespec.toml", "[images.app]\n"), ("deep/er/file", "")]);
    let here = place.run(&["tag"]);
    assert!(here.starts_with("exit code: 0\n"), "{here}");
    assert_eq!(place.run(&["-C", "deep/er", "tag"]), here);
    assert_eq!(place.run(&["tag", "-C", "deep"]), here);
}

#[test]
fn spec_files_of_all_forms_mean_the_same() {
    let place = Place::new(&[
        (
            "app.toml",
            "packages = [\"requests\"]\npython_version = \"3.11\"\n",
        ),
        (
            "app.yaml",
            "packages: [requests]\npython_version: \"3.11\"\n",
        ),
        (
            "app.json",
            "{\"packages\": [\"requests\"], \"python_version\": \"3.11\"}",
        ),
    ]);
    let tag = |file| {
        place
            .command(&["tag", file])
            .output()
            .expect("the command")
            .stdout
    };
    let toml = tag("app.toml");
    assert!(toml.starts_with(b"flytekit:"), "{toml:?}");
    assert_eq!(tag("app.yaml"), toml);
    assert_eq!(tag("app.json"), toml);
}

#[test]
fn plans_name_every_step() {
    let place = Place::declaring(TWO);
    assert_snapshot!(place.run(&["plan"]), @r#"
    exit code: 0
    --- stdout
    base: base:[TAG] with `default`
      from Debian bookworm for linux/amd64
      apt_packages: git
      python packages: requests>=2
      env: GREETING
    child: child:[TAG] with `default`
      from `base`, base:[TAG] for linux/amd64
      commands: true
      entrypoint: ["python"]
    --- stderr
    "#);
    let output = place
        .command(&["plan", "child", "--format", "json"])
        .output()
        .expect("the command");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let plan = &document["plans"][0];
    assert_eq!(plan["target"], "child");
    assert_eq!(plan["plan"]["entrypoint"][0], "python");
}

#[test]
fn checks_compare_with_the_builder() {
    assert_snapshot!(Place::declaring(TWO).run(&["check"]), @r"
    exit code: 0
    --- stdout
    base: fine
    child: fine
    --- stderr
    ");
    let cuda = Place::declaring("[images.app]\ncuda = \"latest\"\n[images.other]\n");
    assert_snapshot!(cuda.run(&["check"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `cuda` of the image: `app`
      caused by: expected a version, as `12` or `12.4`: `latest`
    ");
    let several = "[images.app]\nplatform = \"linux/amd64,linux/arm64\"\nbuilder = \"kaniko\"\n[images.other]\n";
    let several = Place::declaring(several);
    assert_snapshot!(several.run(&["check"]), @r"
    exit code: 2
    --- stdout
    other: fine
    --- stderr
    error: cannot build `app`
      caused by: builder `kaniko` does not support `platform` (foreign_platform)
    hint: `imagespec builders` lists what each builder can do; choose another with `--builder`, or leave it out
    ");
}

#[test]
fn a_dry_run_builds_nothing() {
    let place = Place::declaring("[images.app]\n[images.other]\nregistry = \"r.invalid/x\"\n");
    assert_snapshot!(place.run(&["build", "app", "--dry-run"]), @r"
    exit code: 0
    --- stdout
    would build app:[TAG] with native
    --- stderr
    app: builder `default`: no container engine answers: `unix:///nowhere/docker.sock`; using `native` instead
    ");
    assert_snapshot!(place.run(&["build", "app", "--dry-run", "--json", "--builder", "native"]), @r#"
    exit code: 0
    --- stdout
    {
      "images": [
        {
          "target": "app",
          "name": "app",
          "reference": "app:[TAG]",
          "builder": "native",
          "built": false,
          "would_build": true
        }
      ]
    }
    --- stderr
    "#);
    let kept = place.run_with(
        ("FLYTE_PUSH_IMAGE_SPEC", "false"),
        &["build", "other", "--dry-run", "--builder", "native"],
    );
    assert_snapshot!(kept, @r"
    exit code: 0
    --- stdout
    would build r.invalid/x/other:[TAG] with native
    --- stderr
    ");
}
