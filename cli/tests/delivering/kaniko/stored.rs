//! Contexts that wait for their pod in an object store.

use super::{after, begun, ended, namespace, random, until_it_says, with};
use crate::cluster::Cluster;
use crate::docker::until;
use crate::store::{BUCKET, Store};

/// The names of what a store has.
fn keys(store: &Store) -> Vec<String> {
    let (_, listed) = store.ask(&[], &format!("{BUCKET}?list-type=2"));
    let keys = listed.split("<Key>").skip(1);
    keys.filter_map(|key| Some(key.split_once("</Key>")?.0.to_owned()))
        .collect()
}

#[test]
fn a_large_context_waits_in_an_object_store() {
    let Some(cluster) = namespace("stored") else {
        return;
    };
    let store = Store::start();
    let images = "[images.large]\ncopy = [\"large\"]\n[images.small]\nenv = { A = \"b\" }\n";
    let options = format!("executor = \"kaniko\"\ncontext_store = \"s3://{BUCKET}/contexts\"");
    let mut place = cluster.place(images, "stored", &options);
    for (name, value) in store.variables() {
        place.set(name, &value);
    }
    let rootless = cluster.rootless_options().map(Vec::from);
    let executors = [
        Some(Vec::from(cluster.options())),
        Some(Vec::from(Cluster::own_options())),
        rootless,
    ];
    let mut count = 0;
    for options in executors.iter().flatten() {
        // What fits into a ConfigMap goes there.
        let (code, _, said) = ended(begun(&place, &with(&["small"], options)));
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("bring the context"), "{said}");
        random(&place, 2 << 20);
        // The second time, the store has it.
        for ending in ["MB (0.", "MB (cached)"] {
            let (code, name, said) = ended(begun(&place, &with(&["large", "--force"], options)));
            assert_eq!(code, Some(0), "{said}");
            assert!(name.contains("@sha256:"), "{name}");
            let step = "bring the context to the object store: 2.";
            let step = said.lines().find(|line| line.contains(step));
            assert!(step.is_some_and(|step| step.contains(ending)), "{said}");
            assert!(!said.contains("send the context"), "{said}");
        }
        count += 1;
    }
    let kept = keys(&store);
    assert_eq!(kept.len(), count, "{kept:?}");

    // What is lost on its way is told of by the pod; where there is no store, by the client.
    let options = executors[0].as_ref().expect("options");
    random(&place, 2 << 20);
    let waiting = "node_selector={\"context\":\"lost\"}";
    let child = begun(&place, &with(&["large", "--option", waiting], options));
    let (child, rest) = until_it_says(child, "waits for a node");
    for key in keys(&store) {
        let object = format!("{BUCKET}/{key}");
        assert!(store.ask(&["--request", "DELETE"], &object).0);
    }
    cluster.says(&["label", "node", "node", "context=lost"]);
    let (code, said) = after(child, rest);
    assert_eq!(code, Some(3), "{said}");
    let lost = "the build context cannot be fetched from the object store";
    assert!(said.contains(lost) && said.contains("404"), "{said}");
    assert!(!said.contains("Signature"), "{said}");
    place.set("AWS_ENDPOINT", "http://127.0.0.1:9");
    place.set("AWS_MAX_RETRIES", "0");
    let (code, said) = place.fails(&with(&["build", "large", "--force"], options));
    assert_eq!(code, Some(3), "{said}");
    let unusable = "the object store of build contexts cannot be used";
    assert!(said.contains(unusable), "{said}");
    let wrong = ["build", "large", "--option", "context_store=ftp://builds"];
    let (code, said) = place.fails(&with(&wrong, options));
    assert_eq!(code, Some(2), "{said}");
    for expected in ["option `context_store`", "expected a URL such as `s3://"] {
        assert!(said.contains(expected), "{said}");
    }
    until("nothing is left", || cluster.left("stored").is_empty());
}
