//! The builders that are examples of programs: `append` in Python, and `acme` in Rust, which is `native` with a label.

use imagespec_testkit::contract::CORPUS;

use crate::bases::Ground;
use crate::contract::{differences, fill, pulled};
use crate::engine::{Engine, Release};
use crate::place::Place;

#[test]
fn a_builder_in_python_appends_the_sources_to_a_base() {
    let Some(ground) = Ground::new() else {
        return;
    };
    let declaration = format!(
        "[images.app]\nbuilder = \"append\"\nregistry = \"{0}/acme\"\nbase_image = \"{0}/ground:1\"\n\
         source_root = \"src\"\nenv = {{ A = \"a b\" }}\nentrypoint = [\"python\"]\n\
         [images.more]\nbuilder = \"append\"\nregistry = \"{0}/acme\"\nbase_image = \"{0}/ground:1\"\npackages = [\"six\"]\n",
        ground.served.address
    );
    let mut place = Place::new(&declaration);
    place.write("src/main.py", "print('appended')\n");
    place.write("src/pkg/__init__.py", "");
    place.with_external_builders();

    let built = place.builds(&["app", "--label", "team=ml", "--tag", "v1"]);
    assert_eq!(
        (&built["builder"], &built["built"]),
        (&"append".into(), &true.into())
    );
    let digest = built["digest"].as_str().expect("a digest");
    assert_eq!(ground.served.digest("acme/app", "v1"), digest);
    let runtime = ground.runtime("acme/app", "v1");
    assert_eq!(runtime["User"], "flytekit");
    assert_eq!(runtime["Labels"]["team"], "ml");
    assert_eq!(runtime["Entrypoint"], serde_json::json!(["python"]));
    let env = runtime["Env"].as_array().expect("an environment");
    assert!(env.contains(&"A=a b".into()), "{env:?}");
    let layers = ground.layers("acme/app", "v1").len();
    assert_eq!(layers, ground.layers("ground", "1").len() + 1);
    let again = place.builds(&["app"]);
    assert_eq!(
        (&again["built"], &again["digest"]),
        (&false.into(), &built["digest"])
    );

    let (code, said) = place.fails(&["build", "more"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("builder `append` does not support `packages`"),
        "{said}"
    );
    let (code, said) = place.fails(&["build", "app", "--option", "x=1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("builder `append` has no option: `x`"),
        "{said}"
    );
    let builders = place.says(&["builders"]);
    let line = builders.lines().find(|line| line.starts_with("append "));
    assert!(line.is_some_and(|line| line.contains("yes")), "{builders}");

    // What it has made is an image that runs.
    let base = format!("{}/acme/app:v1", ground.served.address);
    let place = Place::new(&format!(
        "[images.run]\nbuilder = \"native\"\nbase_image = \"{base}\"\nentrypoint = []\n"
    ));
    let said = place.says(&[
        "exec",
        "run",
        "--progress",
        "quiet",
        "--",
        "python",
        "main.py",
    ]);
    assert_eq!(said, "appended");
}

/// Cases of the corpus that ask for nothing but what `append` can do.
const APPENDED: usize = 7;

#[test]
fn a_builder_in_python_keeps_the_contract_where_it_builds() {
    let (Some(engine), Some(ground)) = (Engine::start(Release::Oldest), Ground::new()) else {
        return;
    };
    let registry = ground.name("contract");
    let mut wrong = Vec::new();
    let mut built = 0;
    for case in CORPUS {
        let declaration = format!(
            "[images.app]\nbase_image = \"{}\"\n{}\n",
            ground.name("ground:1"),
            case.fields
        );
        let mut place = Place::new(&declaration);
        place.set("DOCKER_HOST", &engine.address());
        place.with_external_builders();
        fill(&place, case);
        let by = |builder| ["--force", "--builder", builder, "--registry", &registry];
        let tried = place.run(&[&["build", "--progress", "quiet"][..], &by("append")].concat());
        if tried.status.success() {
            let appended = pulled(&place, &engine, &by("append"));
            let native = pulled(&place, &engine, &by("native"));
            let differing = differences(&native, &appended, case.name);
            wrong.extend(differing);
            built += 1;
        } else {
            // It refuses by name what it cannot do.
            let told = String::from_utf8_lossy(&tried.stderr);
            assert_eq!(tried.status.code(), Some(2), "{}: {told}", case.name);
            assert!(told.contains("`append` does not support"), "{told}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(built, APPENDED);
}

#[test]
fn a_builder_in_rust_adds_its_label_to_what_native_makes() {
    let Some(ground) = Ground::new() else {
        return;
    };
    let mut place = Place::new("[images.labelled]\ncommands = [\"echo run > /root/ran\"]\n");
    place.with_external_builders();
    let builds = |registry: &str, more: &[&str]| {
        let registry = ground.name(registry);
        place.builds(&[&["--tag", "1", "--registry", &registry, "--builder"], more].concat())
    };
    let acme = ["acme", "--option", "cost_center=ml"];
    assert_eq!(builds("acme", &["acme"])["built"], true);
    // An image without the label is not the one that is asked for, and one with it is.
    let made = builds("acme", &acme);
    assert_eq!(made["built"], true);
    assert_eq!(builds("acme", &acme)["built"], false);
    let native = builds("native", &["native", "--label", "com.acme.cost-center=ml"]);
    assert_eq!(made["digest"], native["digest"]);
}
