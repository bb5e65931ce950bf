//! Reading code that is hard to read: hostile, endless, deep, or in circles.

use std::collections::BTreeMap;
use std::path::Path;

use imagespec_core::error::BuildError;
use imagespec_flyte::{Around, Code, Project, read};
use tempfile::TempDir;

const HEAD: &str = "from flytekit import ImageSpec, task\n";
const TASK: &str = "\n@task(container_image=image)\ndef train() -> int:\n    return 1\n";

fn files(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs_err::write(path, text).expect("a file");
    }
    folder
}

fn reads(folder: &Path, written: &str) -> Result<Code, BuildError> {
    let around = Around {
        folder,
        variables: &BTreeMap::new(),
        interpreter: None,
    };
    read(&[Project::of(folder, written)?], around)
}

fn one(text: &str) -> Result<Code, BuildError> {
    let folder = files(&[("app.py", &format!("{HEAD}{text}{TASK}"))]);
    reads(folder.path(), "app.py")
}

/// The packages of the only image.
fn packages(text: &str) -> Vec<String> {
    let code = one(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    code.images[0].spec.packages.clone().unwrap_or_default()
}

#[test]
fn endless_and_huge_programs_end() {
    for text in [
        "def f(n):\n    return f(n + 1)\nimage = ImageSpec(name=f(1))",
        "while True:\n    pass\nimage = ImageSpec(name=\"a\" * 100000000)",
        "l = [\"a\"]\nfor i in range(10000):\n    l += l\nimage = ImageSpec(packages=l)",
        "s = \"a\"\nfor i in range(10000):\n    s = s + s\nimage = ImageSpec(name=s)",
        "l = []\nfor i in range(10000):\n    for j in range(1000):\n        l = [l]\nimage = ImageSpec(packages=l)",
        "l = []\nl.append(l)\nimage = ImageSpec(packages=l)",
        "d = {}\nd[\"a\"] = [d]\nimage = ImageSpec(builder_options=d)",
        "image = ImageSpec(name=str(9999999999 ** 9999999999))",
        "image = ImageSpec(packages=[x for a in range(10000) for b in range(10000) for x in \"ab\"])",
    ] {
        let error = one(text).expect_err(text);
        assert_ne!(error.message, "the reader of Python code broke", "{text}");
    }
}

#[test]
fn deep_programs_are_read_or_refused() {
    for depth in [100, 5_000, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let sum = vec!["\"a\""; depth].join(" + ");
        for text in [
            format!("deep = {open}{close}\nimage = ImageSpec(name=\"a\")"),
            format!("image = ImageSpec(packages=[{sum}])"),
            format!(
                "image = ImageSpec(name={}\"a\"{})",
                "(".repeat(depth),
                ")".repeat(depth)
            ),
            format!(
                "{}\nimage = ImageSpec(name=\"a\")",
                "if 1 > 2: pass\nelse: pass\n".repeat(depth.min(2000))
            ),
        ] {
            if let Err(error) = one(&text) {
                assert_ne!(error.message, "the reader of Python code broke");
            }
        }
    }
}

#[test]
fn modules_may_import_each_other() {
    let folder = files(&[
        (
            "app.py",
            &format!(
                "{HEAD}import other\nNAMES = [\"a\"]\nfrom other import more\nimage = ImageSpec(packages=more())\n{TASK}"
            ),
        ),
        (
            "other.py",
            "import app\ndef more():\n    return [*app.NAMES, \"b\"]\n",
        ),
    ]);
    // `app` in `other` is the module that is being imported.
    let code = reads(folder.path(), "app.py").expect("code");
    assert_eq!(
        code.images[0].spec.packages.as_deref(),
        Some(&["a".to_owned(), "b".to_owned()][..])
    );
}

#[test]
fn packages_are_read_as_they_are_imported() {
    let task = format!("from ..images import image\nfrom flytekit import task\n{TASK}");
    let folder = files(&[
        ("flows/__init__.py", ""),
        (
            "flows/images.py",
            "from flytekit import ImageSpec\nimage = ImageSpec(name=\"one\")\n",
        ),
        ("flows/inner/__init__.py", ""),
        ("flows/inner/b.py", &task),
        ("flows/inner/a.py", &task),
        ("flows/no_package/c.py", "raise ValueError\n"),
        ("flows/data.txt", "no code"),
    ]);
    let code = reads(folder.path(), "flows").expect("code");
    let modules: Vec<_> = code
        .entities
        .iter()
        .map(|entity| entity.module.as_str())
        .collect();
    assert_eq!(modules, ["flows.inner.a", "flows.inner.b"]);
    assert_eq!(code.images.len(), 1);
    // A file of it is imported by its whole name.
    let code = reads(folder.path(), "flows/inner/b.py").expect("code");
    assert_eq!(code.entities[0].module, "flows.inner.b");
}

#[test]
fn what_may_have_changed_is_not_known() {
    for text in [
        "import acme\nl = [\"a\"]\nacme.change(l)\nimage = ImageSpec(packages=l)",
        "import acme\nl = [\"a\"]\nif acme.FLAG:\n    l.append(\"b\")\nimage = ImageSpec(packages=l)",
        "import acme\nl = [\"a\"]\nacme.FLAG and l.append(\"b\")\nimage = ImageSpec(packages=l)",
        "import acme\nl = [\"a\"]\nfor x in acme.LIST:\n    l.append(x)\nimage = ImageSpec(packages=l)",
        "l = [\"a\", \"b\"]\nfor x in l:\n    l.remove(x)\nimage = ImageSpec(packages=l)",
        "from acme import *\nimage = ImageSpec(name=\"a\")\nfrom acme import *",
        "import dotenv, os\ndotenv.load_dotenv()\nimage = ImageSpec(registry=os.environ.get(\"REGISTRY\", \"none\"))",
        "import acme\nimage = ImageSpec(name=\"a\")\nacme.register(image)",
        "import acme\nimage = ImageSpec(name=\"a\")\nif acme.FLAG:\n    @task(container_image=image)\n    def maybe() -> int:\n        return 1",
    ] {
        let error = one(text).expect_err(text);
        assert_eq!(
            error.message.split(':').next(),
            Some("not known without running the code"),
            "{text}"
        );
        assert!(error.hints[0].contains("--via python"), "{text}");
    }
}

#[test]
fn what_did_not_change_is_known() {
    for (text, known) in [
        (
            "import acme\nl = [\"a\"]\nif acme.FLAG:\n    m = []\nimage = ImageSpec(packages=l)",
            &["a"][..],
        ),
        (
            "import logging\nlogger = logging.getLogger(__name__)\nl = [\"a\"]\nlogger.info(\"%s\", l)\nprint(l)\nimage = ImageSpec(packages=l)",
            &["a"],
        ),
        (
            "try:\n    import acme\nexcept ImportError:\n    acme = None\nimage = ImageSpec(packages=[\"a\"])",
            &["a"],
        ),
        (
            "import acme\nclient = acme.Client()\nclient.login(\"x\")\nimage = ImageSpec(packages=[\"a\"])",
            &["a"],
        ),
        (
            "import acme\ndef later():\n    image.packages.append(\"b\")\nimage = ImageSpec(packages=[\"a\"])",
            &["a"],
        ),
    ] {
        assert_eq!(packages(text), known, "{text}");
    }
}

#[test]
fn what_flytekit_refuses_is_refused() {
    let lists = [
        "packages",
        "conda_channels",
        "conda_packages",
        "apt_packages",
        "pip_extra_index_url",
        "entrypoint",
        "commands",
        "runtime_packages",
    ];
    for field in lists {
        for value in ["\"text\"", "[1, 2]", "(\"tuple\",)", "{\"a\": \"b\"}"] {
            let error = one(&format!("image = ImageSpec({field}={value})")).expect_err(field);
            let cause = error.source.as_ref().expect("a cause");
            assert!(
                cause.message.contains("must be a list of strings or None"),
                "{field} {value}: {}",
                cause.message
            );
            assert_eq!(error.field.as_deref(), Some(field), "{value}");
        }
    }
    for (text, said) in [
        (
            "ImageSpec(pip_secret_mounts=\"a\")",
            "a list of tuples of two strings or None",
        ),
        (
            "ImageSpec(pip_secret_mounts=[\"a\"])",
            "a list of tuples of two strings or None",
        ),
        (
            "ImageSpec(pip_secret_mounts=[(\"a\", 1)])",
            "a list of tuples of two strings or None",
        ),
        ("ImageSpec(builder_options=[\"a\"])", "a dictionary or None"),
        (
            "ImageSpec(source_copy_mode=\"all\")",
            "a `CopyFileDetection`",
        ),
        (
            "ImageSpec(base_image=[\"a\"])",
            "the reference of an image or an `ImageSpec`",
        ),
        ("ImageSpec(env=[\"a\"])", "a dictionary of strings or None"),
        (
            "ImageSpec.from_env(python_version=\"3.11\")",
            "`python_version` can not be used with `from_env`",
        ),
    ] {
        let error = one(&format!("image = {text}")).expect_err(text);
        let cause = error.source.as_ref().expect("a cause");
        assert!(cause.message.contains(said), "{text}: {}", cause.message);
    }
}

#[test]
fn tasks_are_known_by_whatever_declares_them() {
    let text = r#"
import union
import flytekit as fl
from flytekit.image_spec.image_spec import ImageSpec as Spec
from kubernetes.client import V1Container, V1PodSpec

one = union.ImageSpec(name="one", builder="union")
two = fl.ImageSpec(name="two", base_image=Spec(name="below"))
actor = union.ActorEnvironment(name="a", container_image=one)
template = fl.PodTemplate(pod_spec=V1PodSpec(containers=[V1Container(name="primary", image=two), V1Container(image=one)]))


@actor.task
def acting() -> int:
    return 1


@union.task(container_image=two, requests=union.Resources(cpu="1"))
def of_union() -> int:
    return 1


@fl.task(pod_template=template)
def in_pod() -> int:
    return 1


@fl.eager(container_image=one)
async def eager() -> int:
    return 1


shell = fl.extras.tasks.shell.ShellTask(name="shell", container_image=one, script="true")


@union.workflow
def flow() -> int:
    return of_union()
"#;
    let folder = files(&[("app.py", text)]);
    let code = reads(folder.path(), "app.py").expect("code");
    let names: Vec<_> = code
        .images
        .iter()
        .map(|image| image.spec.name.as_deref())
        .collect();
    assert_eq!(names, [Some("one"), Some("two")]);
    let needs: Vec<_> = code
        .entities
        .iter()
        .map(|entity| (entity.name.as_str(), entity.images.clone()))
        .collect();
    let expected = [
        ("acting", vec![0]),
        ("of_union", vec![1]),
        ("in_pod", vec![1, 0]),
        ("eager", vec![0]),
        ("shell", vec![0]),
        ("flow", vec![]),
    ];
    assert_eq!(needs, expected);
}
