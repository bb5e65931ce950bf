//! Every kind of wrong input: the exit code, the place, and what to do next.

use insta::assert_snapshot;

use crate::place::Place;

fn toml(text: &str) -> String {
    Place::declaring(text).run(&["plan"])
}

#[test]
fn files_that_are_wrong() {
    assert_snapshot!(toml("[images.app\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/imagespec.toml:1:12`
      caused by: unclosed table, expected `]`
          |
        1 | [images.app
          |            ^
    ");
    assert_snapshot!(toml("[images.app]\npackages = [\"requests\"]\npakages = []\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/imagespec.toml:3:1`
      caused by: unknown field `pakages`
          |
        3 | pakages = []
          | ^
    hint: did you mean `packages`?
    hint: known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    ");
    assert_snapshot!(toml("packages = []\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/imagespec.toml:1:1`
      caused by: unknown field `packages`
          |
        1 | packages = []
          | ^
    hint: `packages` belongs into a table `[images.NAME]`
    hint: known fields: deployment, deployments, images, registries
    ");
    assert_snapshot!(toml("[images.app]\npython_version = 3.10\n"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/imagespec.toml:2:18`
      caused by: invalid type: floating point `3.1`, expected a version in quotes, such as "3.11"
          |
        2 | python_version = 3.10
          |                  ^
    hint: put the version in quotes: as a number, `3.10` would be `3.1`
    "#);
    assert_snapshot!(toml("[images.app]\nregistry = \"https://registry.example\"\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `registry` of the image: `app`
      caused by: invalid container registry name: `https://registry.example`
    hint: leave out the scheme: `registry.example`
    ");
    assert_snapshot!(toml("[images.app]\nrequirements = \"none.txt\"\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid image: `app`
      caused by: `requirements` names a path that does not exist: `none.txt`
    hint: paths start at `[PLACE]/project`
    ");
    assert_snapshot!(toml("deployment = \"prod\"\n[images.app]\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: unknown deployment: `prod`
    hint: known deployments: byoc, flyte, selfmanaged, serverless
    ");
    assert_snapshot!(toml(""), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: imagespec.toml declares no images
    hint: add a table `[images.NAME]`
    ");
}

#[test]
fn spec_files_that_are_wrong() {
    let yaml = [("app.yaml", "name: app\npython_version: 3.9\n")];
    assert_snapshot!(Place::new(&yaml).run(&["tag", "app.yaml"]), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/app.yaml:2:1`
      caused by: invalid type: floating point `3.9`, expected a version in quotes, such as "3.11"
          |
        2 | python_version: 3.9
          | ^
    hint: put the version in quotes: as a number, `3.10` would be `3.1`
    "#);
    let json = [("app.json", "{\n  \"pakages\": []\n}")];
    assert_snapshot!(Place::new(&json).run(&["tag", "app.json"]), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `[PLACE]/project/app.json:2:11`
      caused by: unknown field `pakages`
          |
        2 |   "pakages": []
          |           ^
    hint: did you mean `packages`?
    hint: known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    "#);
    assert_snapshot!(Place::new(&[]).run(&["tag", "missing.yaml"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: cannot read the file: `[PLACE]/project/missing.yaml`
      caused by: No such file or directory (os error 2)
    ");
    assert_snapshot!(Place::new(&[("app.py", "")]).run(&["tag", "app.py"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: no task of the code names an image: `app.py`
    hint: `@task(container_image=ImageSpec(…))` names one
    ");
}

#[test]
fn images_that_start_from_each_other() {
    let text =
        "[images.a]\nbase_image = { image = \"b\" }\n[images.b]\nbase_image = { image = \"a\" }\n";
    assert_snapshot!(toml(text), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: images start from each other: a → b → a
    hint: break the circle: one of them has to start from something else
    ");
    assert_snapshot!(toml("[images.a]\nbase_image = { image = \"b\" }\n"), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `base_image` of the image: `a`
      caused by: unknown image: `b`
    hint: known images: a
    ");
}

#[test]
fn names_nobody_knows() {
    let place = Place::declaring("[images.say-hello]\n[images.other]\n");
    assert_snapshot!(place.run(&["tag", "sayhello"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: unknown image: `sayhello`
    hint: did you mean `say-hello`?
    hint: known images: say-hello, other
    ");
    assert_snapshot!(place.run(&["plan", "--builder", "kanko"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: unknown builder: `kanko`
    hint: known builders: default, kaniko, native, union
    hint: a program `imagespec-builder-kanko` on PATH would be one, too
    ");
    assert_snapshot!(place.run(&["tag", "--deployment", "flite"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: unknown deployment: `flite`
    hint: did you mean `flyte`?
    hint: known deployments: byoc, flyte, selfmanaged, serverless
    ");
    assert_snapshot!(place.run_with(("IMAGESPEC_CONFIG", "none.toml"), &["tag"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: cannot read the file: `[PLACE]/project/none.toml`
      caused by: No such file or directory (os error 2)
    hint: the variable `IMAGESPEC_CONFIG` names it
    ");
    assert_snapshot!(Place::new(&[]).run(&["tag"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: there is no imagespec.toml in `[PLACE]/project` or above it
    hint: `imagespec init` writes one; or name a spec file or a Python file
    ");
    assert_snapshot!(Place::new(&[]).run(&["tag", "-C", "none"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: cannot work in the folder: `none`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn flags_that_are_wrong() {
    let place = Place::declaring("[images.app]\n");
    for arguments in [
        &["build", "--pussh"][..],
        &["build", "--output", "oci:"],
        &["build", "--label", "x"],
        &["build", "--platform", "amd64"],
        &["build", "--jobs", "0"],
        &["build", "--compression", "lz4"],
        &["build", "--on-unknown", "maybe"],
        &["build", "--option", "no_such=1", "--builder", "native"],
        &["nothing"],
    ] {
        let told = place.run(arguments);
        assert!(
            told.starts_with("exit code: 2\n--- stdout\n--- stderr\nerror:"),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    let place = Place::declaring("[images.app]\n");
    assert_snapshot!(place.run(&["build", "--locked"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: `--locked` asks for what imagespec.lock pins, and this version reads no lock
    hint: pin versions in the spec's `requirements`, for instance with a `uv.lock`, and leave it out
    ");
    assert_snapshot!(place.run(&["tag", "--via", "python"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: `--via` says how Python files are read, and none is named
    hint: leave it out, or name a `.py` file
    ");
    assert_snapshot!(place.run(&["plan", "--dialect", "buildkit"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: `--dialect` says whom a Dockerfile is for
    hint: add `--format dockerfile`
    ");
    assert_snapshot!(place.run(&["plan", "--format", "job"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: a build in a cluster needs a registry to push to
    hint: say one with `--registry`, or in the deployment
    ");
    assert_snapshot!(place.run(&["build", "--builder", "docker"]), @r"
    exit code: 3
    --- stdout
    --- stderr
    error: cannot build `app`
      caused by: builder `default` cannot work here: no container engine answers: `unix:///nowhere/docker.sock`
    hint: start the engine, or name its address in `DOCKER_HOST`; `--builder native --output store` needs none
    ");
}

#[test]
fn one_place_for_several_images() {
    let place = Place::declaring("[images.a]\n[images.b]\n");
    assert_snapshot!(place.run(&["build", "--output", "tar:x.tar"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: `--output` names one place for 2 images
    hint: name one target: a, b
    ");
}
