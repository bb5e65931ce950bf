//! Code as the source: what is read, what is refused and where, and what is handed to the platform.

use insta::assert_snapshot;

use crate::place::Place;

const APP: &str = r#"
import os

from flytekit import ImageSpec, task, workflow

from parts.base import BASE

hello = ImageSpec(builder="union", name="say-hello-image", requirements="uv.lock")
child = ImageSpec(name="child", base_image=BASE, packages=["six"])


@task(container_image=hello)
def say_hello(name: str) -> str:
    return f"Hello {name}"


@task(container_image=child)
def other() -> int:
    return 1


@task(container_image=BASE)
def base() -> int:
    return 1


@workflow
def flow() -> str:
    return say_hello(name="x")
"#;

/// Prints what it is given.
const PYFLYTE: &str = "#!/bin/sh\nprintf '%s\\n' \"pyflyte\" \"$@\"\nexit 7\n";
/// A Python without flytekit.
const PYTHON: &str = r#"#!/bin/sh
echo '{"error": {"type": "ModuleNotFoundError", "message": "No module named '"'flytekit'"'", "traceback": ""}}'
"#;

/// A project of the code above.
fn place() -> Place {
    let place = Place::new(&[
        ("app.py", APP),
        ("parts/__init__.py", ""),
        (
            "parts/base.py",
            "from flytekit import ImageSpec\nBASE = ImageSpec(name=\"base\", registry=\"r.example\")\n",
        ),
        ("uv.lock", "version = 1\n"),
        (
            "pyproject.toml",
            "[project]\nname = \"hello\"\nversion = \"1\"\n",
        ),
    ]);
    place.program("pyflyte", PYFLYTE);
    place.program("python", PYTHON);
    place
}

/// What a command would do.
fn dry(place: &Place, command: &str, more: &[&str]) -> String {
    let flags = [
        command,
        "--dry-run",
        "--builder",
        "native",
        "--on-unknown",
        "build",
        "--progress",
        "quiet",
    ];
    place.run(&[&flags[..], more].concat())
}

/// What is said of a file of this content.
fn refused(text: &str) -> String {
    let head = "from flytekit import ImageSpec, task\n";
    let task = "@task(container_image=image)\ndef train() -> int:\n    return 1\n";
    Place::new(&[("app.py", &format!("{head}{text}\n{task}"))]).run(&["tag", "app.py"])
}

#[test]
fn the_images_of_tasks_are_targets() {
    let place = place();
    assert_snapshot!(place.run(&["tag", "app.py"]), @"
    exit code: 0
    --- stdout
    say-hello-image:Vy8axFmXciWqWuyEMAqYqA
    r.example/base:2jU2vOTEgTXDTKIc5K0PMw
    child:UPGZsGLXV0nCQFf1knetSg
    --- stderr
    ");
    assert_snapshot!(place.run(&["tag", "app.py:other"]), @"
    exit code: 0
    --- stdout
    child:UPGZsGLXV0nCQFf1knetSg
    --- stderr
    ");
    assert_snapshot!(place.run(&["tag", "app.py:flow"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: the task names no image: `app.py:flow`
    hint: `@task(container_image=ImageSpec(…))` names one
    ");
    assert_snapshot!(place.run(&["tag", "app.py:nobody"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: `app.py` declares no task of this name: `nobody`
    hint: it declares say_hello, other, base, flow
    ");
    assert_snapshot!(place.run(&["check", "app.py", "--builder", "native"]), @"
    exit code: 0
    --- stdout
    app.py:say_hello: fine
    app.py:base: fine
    app.py:other: fine
    --- stderr
    ");
    assert_snapshot!(place.run(&["exec", "app.py"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: a command runs in one image, and these are 3
    hint: name one: app.py:say_hello, app.py:base, app.py:other
    ");
    assert_snapshot!(place.run(&["tag", "parts"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: no task of the code names an image: `parts`
    hint: `@task(container_image=ImageSpec(…))` names one
    ");
    assert_snapshot!(place.run(&["tag", "gone.py"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: cannot read the code: `gone.py`
      caused by: No such file or directory (os error 2)
    ");
    assert_snapshot!(place.run(&["tag", "app.py", "--via", "python"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: this Python has no flytekit: `[PLACE]/bin/python`
    hint: install it there, or activate the environment that has it; `pyflyte` on PATH says which
    ");
}

#[test]
fn what_is_not_known_is_shown_at_its_place() {
    assert_snapshot!(refused("import yaml\nconfig = yaml.safe_load(\"a: b\")\nimage = ImageSpec(packages=[\"a\", config[\"b\"]])"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: not known without running the code: `app.py:3:10`
      caused by: what `yaml.safe_load` returns
          |
        3 | config = yaml.safe_load("a: b")
          |          ^^^^^^^^^^^^^^^^^^^^^^
    hint: `--via python` runs the code and asks flytekit
    "#);
    assert_snapshot!(refused("import acme\nimage = ImageSpec(name=acme.NAME)"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: not known without running the code: `app.py:3:24`
      caused by: what `acme.NAME` is
          |
        3 | image = ImageSpec(name=acme.NAME)
          |                        ^^^^^^^^^
    hint: `--via python` runs the code and asks flytekit
    ");
    assert_snapshot!(refused("import time\nimage = ImageSpec(name=\"a\" if time.time() > 1 else \"b\")"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: not known without running the code: `app.py:3:31`
      caused by: what `time.time` returns
          |
        3 | image = ImageSpec(name="a" if time.time() > 1 else "b")
          |                               ^^^^^^^^^^^
    hint: `--via python` runs the code and asks flytekit
    "#);
    assert_snapshot!(refused("import acme\nimage = ImageSpec(name=\"a\")\nacme.task(image)"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: not known without running the code: `app.py:4:1`
      caused by: what `acme.task` returns
          |
        4 | acme.task(image)
          | ^^^^^^^^^^^^^^^^
    hint: `--via python` runs the code and asks flytekit
    ");
    assert_snapshot!(refused("import os\nimage = ImageSpec(name=\"a\", env={\"A\": os.environ[\"NOT_SET\"]})"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: not known without running the code: `app.py:3:39`
      caused by: the variable is not set
          |
        3 | image = ImageSpec(name="a", env={"A": os.environ["NOT_SET"]})
          |                                       ^^^^^^^^^^^^^^^^^^^^^
    hint: `--via python` runs the code and asks flytekit
    "#);
    assert_snapshot!(refused("image = ImageSpec(name=\"a\", source_root=\".\")"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `source_copy_mode` of the image: `app.py:train`
      caused by: flytekit's tag depends on the modules that its process has loaded
    hint: `source_copy_mode = "all"`, here and in the code, depends on the files alone
    hint: `--via python` runs the code and asks flytekit
    "#);
}

#[test]
fn what_is_wrong_is_shown_at_its_place() {
    assert_snapshot!(refused("image = ImageSpec(packages=\"requirements.txt\")"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `app.py:2:9`
      caused by: `packages` must be a list of strings or None
          |
        2 | image = ImageSpec(packages="requirements.txt")
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
    assert_snapshot!(refused("image = ImageSpec(python_version=3.10)"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `app.py:2:9`
      caused by: `python_version` must be a string
          |
        2 | image = ImageSpec(python_version=3.10)
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: put the version in quotes: as a number, `3.10` would be `3.1`
    ");
    assert_snapshot!(refused("from pathlib import Path\nimage = ImageSpec(requirements=Path(\"r.txt\"))"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `app.py:3:9`
      caused by: `requirements` must be a string, not a `Path`: flytekit's names depend on it
          |
        3 | image = ImageSpec(requirements=Path("r.txt"))
          |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    hint: `str(…)` around it, or `--via python`
    "#);
    assert_snapshot!(refused("image = ImageSpec(pakages=[])"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed declaration: `app.py:2:9`
      caused by: `ImageSpec` has no field `pakages`
          |
        2 | image = ImageSpec(pakages=[])
          |         ^^^^^^^^^^^^^^^^^^^^^
    hint: known fields: name, python_version, builder, source_root, env, registry, packages, conda_packages, conda_channels, requirements, apt_packages, cuda, cudnn, base_image, platform, pip_index, pip_extra_index_url, pip_secret_mounts, pip_extra_args, registry_config, entrypoint, commands, tag_format, source_copy_mode, copy, python_exec, runtime_packages, builder_options, builder_config
    ");
    assert_snapshot!(refused("image = ImageSpec(name=\"a\""), @"
    exit code: 2
    --- stdout
    --- stderr
    error: malformed Python: `app.py:3:29`
      caused by: expected `)`, found newline
          |
        3 | @task(container_image=image)
          |                             ^
    ");
    assert_snapshot!(refused("raise ValueError(\"no\")\nimage = ImageSpec()"), @r#"
    exit code: 2
    --- stdout
    --- stderr
    error: the module ends with an exception: `app.py:2:1`
      caused by: raised here
          |
        2 | raise ValueError("no")
          | ^^^^^^^^^^^^^^^^^^^^^^
    hint: `--via python` shows what Python says
    "#);
    assert_snapshot!(refused("image = ImageSpec(registry=\"https://r.example\")"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `registry` of the image: `app.py:train`
      caused by: invalid container registry name: `https://r.example`
    hint: leave out the scheme: `r.example`
    ");
}

#[test]
fn images_that_nobody_builds_are_told_of() {
    let noop = "image = ImageSpec(builder=\"noop\", base_image=\"registry.example/made:1\")";
    assert_snapshot!(refused(noop), @"
    exit code: 0
    --- stdout
    --- stderr
    app.py:train: builder `noop`: the image is registry.example/made:1
    ");
    assert_snapshot!(refused("image = ImageSpec(builder=\"noop\")"), @"
    exit code: 2
    --- stdout
    --- stderr
    error: invalid `base_image` of the image: `app.py:train`
      caused by: builder `noop` needs the reference of an image
    ");
}

#[test]
fn code_is_handed_to_the_platform_with_its_images() {
    let place = place();
    let with = |more: &[&str]| dry(&place, "register", more);
    assert_snapshot!(with(&["app.py", "--", "-p", "my project"]), @"
    exit code: 0
    --- stdout
    pyflyte register --image O4Tbm8uWQpsFtm_-UoL6SA=say-hello-image:Vy8axFmXciWqWuyEMAqYqA --image 2jU2vOTEgTXDTKIc5K0PMw=r.example/base:2jU2vOTEgTXDTKIc5K0PMw --image sgQlJJQZe5vEPpIraDyi6A=child:UPGZsGLXV0nCQFf1knetSg -p 'my project' app.py
    --- stderr
    would build say-hello-image:Vy8axFmXciWqWuyEMAqYqA with native
    no registry is set: say-hello-image:Vy8axFmXciWqWuyEMAqYqA stays on this machine
    would build r.example/base:2jU2vOTEgTXDTKIc5K0PMw with native
    would build child:UPGZsGLXV0nCQFf1knetSg with native
    no registry is set: child:UPGZsGLXV0nCQFf1knetSg stays on this machine
    ");
    assert_snapshot!(with(&["--platform-command", "union --config c.yaml", "app.py"]), @"
    exit code: 0
    --- stdout
    union --config c.yaml register --image O4Tbm8uWQpsFtm_-UoL6SA=say-hello-image:Vy8axFmXciWqWuyEMAqYqA --image 2jU2vOTEgTXDTKIc5K0PMw=r.example/base:2jU2vOTEgTXDTKIc5K0PMw --image sgQlJJQZe5vEPpIraDyi6A=child:UPGZsGLXV0nCQFf1knetSg app.py
    --- stderr
    would build say-hello-image:Vy8axFmXciWqWuyEMAqYqA with native
    no registry is set: say-hello-image:Vy8axFmXciWqWuyEMAqYqA stays on this machine
    would build r.example/base:2jU2vOTEgTXDTKIc5K0PMw with native
    would build child:UPGZsGLXV0nCQFf1knetSg with native
    no registry is set: child:UPGZsGLXV0nCQFf1knetSg stays on this machine
    ");
    assert_snapshot!(with(&["--deployment", "byoc", "app.py"]), @"
    exit code: 0
    --- stdout
    union register --image O4Tbm8uWQpsFtm_-UoL6SA=say-hello-image:Vy8axFmXciWqWuyEMAqYqA --image 2jU2vOTEgTXDTKIc5K0PMw=r.example/base:2jU2vOTEgTXDTKIc5K0PMw --image sgQlJJQZe5vEPpIraDyi6A=child:UPGZsGLXV0nCQFf1knetSg app.py
    --- stderr
    would build say-hello-image:Vy8axFmXciWqWuyEMAqYqA with native
    no registry is set: say-hello-image:Vy8axFmXciWqWuyEMAqYqA stays on this machine
    would build r.example/base:2jU2vOTEgTXDTKIc5K0PMw with native
    would build child:UPGZsGLXV0nCQFf1knetSg with native
    no registry is set: child:UPGZsGLXV0nCQFf1knetSg stays on this machine
    ");
    assert_snapshot!(with(&["app.py", "--", "--copy", "none"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: images that hold the code depend on the modules that Python loads
    hint: `--via python` runs the code and asks flytekit
    ");
    assert_snapshot!(with(&["app.py", "parts/base.py"]), @"
    exit code: 0
    --- stdout
    pyflyte register --image O4Tbm8uWQpsFtm_-UoL6SA=say-hello-image:Vy8axFmXciWqWuyEMAqYqA --image 2jU2vOTEgTXDTKIc5K0PMw=r.example/base:2jU2vOTEgTXDTKIc5K0PMw --image sgQlJJQZe5vEPpIraDyi6A=child:UPGZsGLXV0nCQFf1knetSg app.py parts/base.py
    --- stderr
    would build say-hello-image:Vy8axFmXciWqWuyEMAqYqA with native
    no registry is set: say-hello-image:Vy8axFmXciWqWuyEMAqYqA stays on this machine
    would build r.example/base:2jU2vOTEgTXDTKIc5K0PMw with native
    would build child:UPGZsGLXV0nCQFf1knetSg with native
    no registry is set: child:UPGZsGLXV0nCQFf1knetSg stays on this machine
    ");
    assert_snapshot!(with(&["--tag-scheme", "imagespec", "app.py"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: the platform knows images by flytekit's names: `--tag-scheme imagespec`
    hint: leave it out
    ");
}

#[test]
fn a_task_runs_in_its_image() {
    let place = place();
    let with = |more: &[&str]| dry(&place, "run", more);
    assert_snapshot!(with(&["app.py", "say_hello", "--name", "you and me"]), @"
    exit code: 0
    --- stdout
    in say-hello-image:Vy8axFmXciWqWuyEMAqYqA: pyflyte run app.py say_hello --name 'you and me'
    --- stderr
    ");
    assert_snapshot!(with(&["app.py", "flow"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: this needs 3 images, and here everything runs in one: `flow`
    hint: run one of its tasks, or all of it on the platform: `--remote`
    ");
    assert_snapshot!(with(&["app.py", "nobody"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: `app.py` declares no task or workflow of this name: `nobody`
    hint: it declares say_hello, other, base, flow
    ");
    assert_snapshot!(with(&["--platform-arg=-p", "app.py", "other"]), @"
    exit code: 2
    --- stdout
    --- stderr
    error: `--platform-arg` is for the platform, and this runs here: `-p`
    hint: `--remote` runs it on the platform
    ");
    assert_snapshot!(with(&["--remote", "--platform-arg=-p", "--platform-arg=x", "app.py", "flow", "--n", "1"]), @"
    exit code: 0
    --- stdout
    pyflyte run --remote --image O4Tbm8uWQpsFtm_-UoL6SA=say-hello-image:Vy8axFmXciWqWuyEMAqYqA --image 2jU2vOTEgTXDTKIc5K0PMw=r.example/base:2jU2vOTEgTXDTKIc5K0PMw --image sgQlJJQZe5vEPpIraDyi6A=child:UPGZsGLXV0nCQFf1knetSg -p x app.py flow --n 1
    --- stderr
    would build say-hello-image:Vy8axFmXciWqWuyEMAqYqA with native
    no registry is set: say-hello-image:Vy8axFmXciWqWuyEMAqYqA stays on this machine
    would build r.example/base:2jU2vOTEgTXDTKIc5K0PMw with native
    would build child:UPGZsGLXV0nCQFf1knetSg with native
    no registry is set: child:UPGZsGLXV0nCQFf1knetSg stays on this machine
    ");
}

#[test]
fn the_platform_takes_over() {
    let place = Place::new(&[(
        "none.py",
        "from flytekit import task\n@task\ndef train() -> int:\n    return 1\n",
    )]);
    assert_snapshot!(place.run(&["register", "none.py"]), @"
    exit code: 3
    --- stdout
    --- stderr
    error: the platform's command is not there: `pyflyte`
    hint: activate the environment that has it, or install it: `pip install flytekit` brings `pyflyte`
    hint: `--platform-command`, or `platform_command` of a deployment, names another one
    ");
    place.program("pyflyte", PYFLYTE);
    assert_snapshot!(place.run(&["register", "none.py", "--", "-p", "x"]), @"
    exit code: 7
    --- stdout
    pyflyte
    register
    -p
    x
    none.py
    --- stderr
    ");
}
