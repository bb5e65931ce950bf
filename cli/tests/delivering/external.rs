//! The builder in Python that is an example.

use crate::bases::Ground;
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
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/external-builder");
    let path = std::env::var("PATH").expect("a path");
    place.set("PATH", &format!("{programs}:{path}"));

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
