//! What takes long.

use serde_json::json;

use super::{after, begun, disturbed, ended, namespace, random, until_it_says, with};
use crate::cluster::Cluster;
use crate::contract::differing_in_cluster;
use crate::docker::{sleeping, until};
use crate::engine::{Engine, Release};
use crate::registry::Served;

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn a_node_that_goes_is_told_of() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.namespace("lost", &json!({}));
    let images = "[images.app]\ncommands = [\"sleep 9.75\"]\n[images.cordoned]\nenv = { A = \"b\" }\n\
                  [images.removed]\ncommands = [\"sleep 9.125\"]\n";
    let place = cluster.place(images, "lost", "");

    // A pod that somebody removes is begun again.
    let (code, said) = disturbed(&place, "removed", "9.125", || {
        cluster.says(&[
            "delete",
            "pods",
            "--all",
            "--namespace",
            "lost",
            "--grace-period=1",
        ]);
    });
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it is begun again"), "{said}");

    // While nobody looks after the node, the build goes on, and is heard of afterwards.
    let (code, said) = disturbed(&place, "app", "9.75", || {
        cluster.kill("kubelet");
        std::thread::sleep(std::time::Duration::from_secs(20));
        cluster.begin("kubelet");
    });
    assert_eq!(code, Some(0), "{said}");

    // A node that takes no pods is waited for.
    cluster.says(&["cordon", "node"]);
    let (child, rest) = until_it_says(begun(&place, &["cordoned"]), "unschedulable");
    cluster.says(&["uncordon", "node"]);
    let (code, said) = after(child, rest);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn a_registry_that_goes_is_told_of() {
    let Some(cluster) = namespace("unpushed") else {
        return;
    };
    let images = "[images.app]\ncommands = [\"sleep 9.625\"]\n";
    let place = cluster.place(images, "unpushed", "");
    let rootless = cluster.rootless_options();
    let executors = [Some(Vec::new()), rootless.map(Vec::from)];
    for options in executors.iter().flatten() {
        let registry = Served::new(&[]);
        let to = format!("{}/team", registry.address);
        let child = begun(&place, &with(&["app", "--registry", &to], options));
        until("the command runs", || sleeping("sleep 9.625") == 1);
        drop(registry);
        let (code, _, said) = ended(child);
        assert!(matches!(code, Some(1 | 3)), "{said}");
        for expected in ["connection refused", "because of `registry`"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        until("nothing is left", || cluster.left("unpushed").is_empty());
    }
}

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn many_builds_and_large_contexts_go_through() {
    let Some(cluster) = namespace("many") else {
        return;
    };
    let image = |at: u8| format!("[images.app{at}]\ncommands = [\"echo {at}\"]\n");
    let many = (0..8).map(image).collect::<Vec<_>>().concat();
    let place = cluster.place(
        &format!("{many}[images.large]\ncopy = [\"large\"]\n"),
        "many",
        "",
    );
    random(&place, 200 << 20);
    let built = place.builds(&["large"]);
    assert_eq!(built["built"], true);

    let names: Vec<_> = (0..8).map(|at| format!("app{at}")).collect();
    let mut arguments = vec!["build", "--progress", "plain"];
    arguments.extend(names.iter().map(String::as_str));
    let (code, said) = place.fails(&arguments);
    assert_eq!(code, Some(0), "{said}");
    for at in 0..8 {
        assert!(said.contains(&format!("app{at}: push the image")), "{said}");
    }
    until("nothing is left", || cluster.left("many").is_empty());
}

#[test]
#[ignore = "long: `cargo xtask soak`"]
fn the_other_executors_make_what_native_makes() {
    let Some(cluster) = namespace("contract") else {
        return;
    };
    let Some(engine) = Engine::start(Release::Oldest) else {
        return;
    };
    let wrong = differing_in_cluster(&engine, &cluster);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
