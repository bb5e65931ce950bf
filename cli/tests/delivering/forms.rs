//! What flags ask for and the tag does not tell.

use serde_json::Value;

use crate::place::Place;

const PLAIN: [&str; 1] = ["--no-bytecode"];

/// Whether a build of the image would make it again.
fn would_build(place: &Place, arguments: &[&str]) -> bool {
    let told = place.builds(&[arguments, &["--dry-run"]].concat());
    told["would_build"] == true
}

#[test]
fn an_image_that_lacks_what_is_asked_for_is_built_again() {
    let place = Place::new("[images.app]\nenv = { A = \"forms\" }\n");
    let first = place.builds(&PLAIN);
    assert_eq!(first["built"], true);
    assert!(!would_build(&place, &[]));
    assert!(!would_build(&place, &PLAIN));
    for asked in [
        &["--label", "team=ml"][..],
        &["--compression", "zstd"],
        &["--compression", "gzip-single"],
        &["--bytecode"],
        &["--no-bytecode", "--bytecode"],
    ] {
        assert!(would_build(&place, asked), "{asked:?}");
    }

    let asked = [
        "--no-bytecode",
        "--label",
        "team=ml",
        "--compression",
        "zstd",
    ];
    let built = place.builds(&asked);
    assert_eq!(
        (&built["built"], &built["reference"]),
        (&true.into(), &first["reference"])
    );
    for fine in [
        &asked[..],
        &["--label", "team=ml"],
        &["--compression", "zstd"],
        &[],
    ] {
        assert!(!would_build(&place, fine), "{fine:?}");
    }
    assert!(would_build(&place, &["--compression", "gzip"]));
}

#[test]
fn an_image_that_exists_gets_further_tags() {
    let place = Place::new("[images.app]\nenv = { A = \"tags\" }\n");
    let built = place.builds(&["--no-bytecode", "--tag", "at-once"]);
    let found = place.builds(&["--tag", "later"]);
    assert_eq!(
        (&found["built"], &found["digest"]),
        (&false.into(), &built["digest"])
    );
    // Nothing is tagged by who only looks.
    assert!(!would_build(&place, &["--tag", "never"]));
    let images: Value = serde_json::from_str(&place.says(&["images", "--json"])).expect("JSON");
    let digest = |name: &str| {
        let all = images["images"].as_array().expect("a list").iter();
        let mut named = all.filter(|image| image["reference"] == name);
        named
            .next()
            .map(|image| image["descriptor"]["digest"].clone())
    };
    assert_eq!(digest("app:at-once"), Some(built["digest"].clone()));
    assert_eq!(digest("app:later"), Some(built["digest"].clone()));
    assert_eq!(digest("app:never"), None);
}
