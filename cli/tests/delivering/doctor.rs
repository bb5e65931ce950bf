//! What `doctor` finds, on this machine and on one where things do not work.

use serde_json::Value;

use crate::place::{Place, has};
use crate::registry::Served;

/// The exit code, and what was found by name.
fn examined(place: &Place) -> (Option<i32>, Vec<Value>) {
    let output = place.run(&["doctor", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = told["findings"].as_array().expect("a list").clone();
    assert_eq!(told["works"], output.status.success());
    (output.status.code(), findings)
}

fn state<'a>(findings: &'a [Value], name: &str) -> (&'a str, &'a Value) {
    let mut named = findings.iter().filter(|finding| finding["name"] == name);
    let found = named
        .next()
        .unwrap_or_else(|| panic!("{name}: {findings:?}"));
    (found["state"].as_str().expect("a state"), found)
}

#[test]
fn a_machine_that_builds_is_fine() {
    if !has("docker-registry") {
        return;
    }
    let served = Served::new(&[]);
    let mut place = Place::new(&format!(
        "[deployments.here]\nregistry = \"{0}/acme\"\n[registries.\"{0}\"]\ninsecure = true\n",
        served.address
    ));
    let socket = format!("unix://{}", place.path("none.sock").display());
    place.set("DOCKER_HOST", &socket);
    let login = format!(
        "{{\"auths\": {{\"{}/acme\": {{\"auth\": \"bWU6cGE1NQ==\"}}}}}}",
        served.address
    );
    place.write("docker/config.json", &login);
    let docker = place.path("project/docker").display().to_string();
    place.set("DOCKER_CONFIG", &docker);
    let (code, findings) = examined(&place);
    assert_eq!(code, Some(0), "{findings:?}");
    for name in ["cache", "sandbox", "index", "debian"] {
        assert_eq!(state(&findings, name).0, "fine", "{findings:?}");
    }
    let (found, registry) = state(&findings, &format!("registry {}/acme", served.address));
    assert_eq!(found, "fine");
    let detail = registry["detail"].as_str().expect("a text");
    assert!(
        detail.contains("docker/config.json") && !detail.contains("pa55"),
        "{detail}"
    );
    assert_eq!(state(&findings, "engine").0, "absent");
    assert_eq!(findings.len(), 6, "a registry is looked at once");
    let lines = place.says(&["doctor"]);
    assert!(lines.starts_with("ok      cache: "), "{lines}");
}

#[test]
fn what_does_not_work_is_told_with_a_fix() {
    let mut place = Place::new("[images.app]\nregistry = \"127.0.0.1:1/acme\"\n");
    place.write("file", "");
    let file = place.path("project/file").display().to_string();
    place.set("IMAGESPEC_CACHE_DIR", &file);
    let (code, findings) = examined(&place);
    assert_eq!(code, Some(3));
    for name in ["cache", "registry 127.0.0.1:1/acme"] {
        let (found, finding) = state(&findings, name);
        assert_eq!(found, "broken");
        assert!(
            !finding["fixes"].as_array().expect("a list").is_empty(),
            "{finding}"
        );
    }
    let output = place.run(&["doctor"]);
    let lines = String::from_utf8(output.stdout).expect("a text");
    assert!(
        lines.contains("broken  cache: cannot write into the cache"),
        "{lines}"
    );
    assert!(
        lines.contains("        fix: make the folder writable"),
        "{lines}"
    );
}
