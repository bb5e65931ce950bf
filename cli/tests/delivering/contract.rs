//! The corpus of the contract, built by every builder that this machine has.

use std::collections::BTreeSet;

use imagespec_testkit::contract::{CORPUS, Case, QUESTIONS};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::docker::HOST;
use crate::engine::{Engine, Release, with_every_engine};
use crate::place::Place;
use crate::service::fixture::Service;

/// Writes the files of a case.
pub(crate) fn fill(place: &Place, case: &Case) {
    for (path, content) in case.files {
        let name = path.trim_end_matches('*');
        match content.strip_prefix("-> ") {
            Some(target) => {
                let link = place.path("project").join(name);
                std::os::unix::fs::symlink(target, link).expect("a link");
            }
            None => place.write(name, content),
        }
        if path.ends_with('*') {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(place.path("project").join(name), mode).expect("a mode");
        }
    }
}

fn place(engine: &Engine, case: &Case) -> Place {
    let mut place = Place::new(&format!("[images.app]\n{}\n", case.fields));
    place.set("DOCKER_HOST", &engine.address());
    fill(&place, case);
    place
}

/// What an image answers, and how the engine runs it.
pub(crate) fn answers(engine: &Engine, reference: &str) -> Value {
    let mut answers: Value =
        serde_json::from_str(&engine.python(reference, QUESTIONS)).expect("JSON");
    for part in ["User", "WorkingDir", "Entrypoint", "Cmd"] {
        let said = engine.inspect(reference, &format!("{{{{json .Config.{part}}}}}"));
        answers[part] = serde_json::from_str(&said).expect("JSON");
    }
    answers
}

/// What two answers do not agree on.
pub(crate) fn differences(one: &Value, other: &Value, path: &str) -> Vec<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            let none = Value::Null;
            let part = |name: &&String| {
                let of = |all: &'_ serde_json::Map<String, Value>| {
                    all.get(*name).cloned().unwrap_or(none.clone())
                };
                differences(&of(one), &of(other), &format!("{path}/{name}"))
            };
            names.iter().flat_map(part).collect()
        }
        (one, other) if one == other => Vec::new(),
        (one, other) => vec![format!("{path}: {one} != {other}")],
    }
}

/// Cases that are built by the other executors every time; the others take longer than that is worth.
const OFTEN: [&str; 3] = [
    "packages with native code",
    "sources with rules",
    "an interpreter of the base",
];

/// Whether our own executor, which runs nothing, can build a case.
fn runs_nothing(case: &Case) -> bool {
    !["commands", "apt_packages"]
        .iter()
        .any(|field| case.fields.contains(field))
}

/// What an image answers that was built in a cluster and taken from its registry into the engine.
pub(crate) fn in_cluster(
    place: &mut Place,
    engine: &Engine,
    cluster: &Cluster,
    options: &[String],
) -> Value {
    place.set("KUBECONFIG", &cluster.kubeconfig());
    let registry = format!("{}/contract", cluster.registry.address);
    let mut arguments = vec!["--force", "--builder", "kaniko", "--registry", &registry];
    for option in options {
        arguments.extend(["--option", option]);
    }
    pulled(place, engine, &arguments)
}

/// Builds and pushes an image, and asks it in an engine that pulls it.
pub(crate) fn pulled(place: &Place, engine: &Engine, arguments: &[&str]) -> Value {
    let built = place.builds(arguments);
    assert!(
        arguments
            .iter()
            .any(|argument| built["builder"] == *argument)
    );
    let name = built["reference"].as_str().expect("a name");
    let pulled = engine.client().args(["pull", "--quiet", name]).output();
    let pulled = pulled.expect("docker");
    assert!(pulled.status.success(), "{pulled:?}");
    answers(engine, name)
}

/// Cases that `native` here and the executors in a cluster that are not Kaniko make different images of, and how they
/// differ.
pub(crate) fn differing_in_cluster(engine: &Engine, cluster: &Cluster) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in CORPUS {
        let mut place = place(engine, case);
        let arguments = ["--force", "--builder", "native", "--output", "docker"];
        let built = place.builds(&arguments);
        let here = answers(engine, built["reference"].as_str().expect("a name"));
        if runs_nothing(case) {
            let there = in_cluster(&mut place, engine, cluster, &Cluster::own_options());
            wrong.extend(differences(&here, &there, case.name));
        }
        if let Some(options) = cluster.rootless_options() {
            let there = in_cluster(&mut place, engine, cluster, &options);
            wrong.extend(differences(&here, &there, case.name));
        }
    }
    wrong
}

with_every_engine!(every_declaration_of_the_corpus_is_the_same_image_whoever_builds_it);

fn every_declaration_of_the_corpus_is_the_same_image_whoever_builds_it(engine: &Engine) {
    // A daemon of its own need not be seen with more than one engine.
    let is_oldest = engine.release == Release::Oldest;
    let daemon = is_oldest.then(|| Daemon::start(None)).flatten();
    let at = daemon.as_ref().map(Daemon::option);
    let network = &HOST[..];
    let mut builders = vec![("native", Vec::new()), ("default", network.to_vec())];
    if let Some(at) = &at {
        builders.push(("default", [network, &["--option", at]].concat()));
    }
    if is_oldest {
        builders.push(("acme", Vec::new()));
    }
    let cluster = is_oldest.then(Cluster::shared).flatten();
    let address = engine.address();
    let variables = [("DOCKER_HOST", &*address)];
    let service = is_oldest.then(|| {
        Service::with_builder(
            &["--builder", "default", "--option", "network=host"],
            &variables,
        )
    });
    let service = service.flatten();
    let mut wrong = Vec::new();
    // One engine sees all of it every time, the others a third that another seed makes another one.
    let seed = crate::service::seed();
    let cases = (seed % 3..).zip(CORPUS);
    let cases = cases.filter(|(number, _)| is_oldest || number % 3 == 0);
    for (_, case) in cases {
        let mut place = place(engine, case);
        place.with_external_builders();
        let mut all = Vec::new();
        for (builder, options) in &builders {
            let arguments = ["--force", "--builder", builder, "--output", "docker"];
            let built = place.builds(&[&arguments[..], options].concat());
            assert_eq!(built["builder"], *builder, "{}", case.name);
            let image = answers(engine, built["reference"].as_str().expect("a name"));
            all.push(image);
        }
        let mut names = builders.clone();
        if let Some(cluster) = &cluster {
            all.push(in_cluster(&mut place, engine, cluster, &cluster.options()));
            names.push(("kaniko", Vec::new()));
            if OFTEN.contains(&case.name) {
                let options = Cluster::own_options();
                all.push(in_cluster(&mut place, engine, cluster, &options));
                names.push(("kaniko", vec!["executor=native"]));
                if let Some(options) = cluster.rootless_options() {
                    all.push(in_cluster(&mut place, engine, cluster, &options));
                    names.push(("kaniko", vec!["executor=buildkit"]));
                }
            }
        }
        if let Some(service) = service.as_ref().filter(|_| OFTEN.contains(&case.name)) {
            place.set("IMAGESPEC_ENDPOINT", &format!("http://{}", service.address));
            place.set("IMAGESPEC_TOKEN", &service.token);
            let registry = service.registry();
            let arguments = ["--force", "--builder", "union", "--registry", &registry];
            all.push(pulled(&place, engine, &arguments));
            names.push(("union", vec!["default"]));
        }
        for (image, (builder, options)) in all.iter().zip(&names) {
            for nothing in ["lent", "tools", "audit"] {
                let none = image[nothing].as_array().is_some_and(Vec::is_empty);
                let said = &image[nothing];
                assert!(
                    none,
                    "{} by {builder} {options:?}: {nothing}: {said}",
                    case.name
                );
            }
            assert_eq!(image["user"][0], 1000, "{} by {builder}", case.name);
            assert_eq!(image["authorities"], true, "{} by {builder}", case.name);
        }
        for (other, (builder, options)) in all[1..].iter().zip(&names[1..]) {
            for difference in differences(&all[0], other, "") {
                wrong.push(format!(
                    "{} by {builder} {options:?}: {difference}",
                    case.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
