//! Registries that want a login, and layers that are kept in one.

use std::path::Path;

use serde_json::json;

use super::{begun, ended, namespace, with};
use crate::cluster::Cluster;
use crate::docker::{WHOLE, until, write_sources};
use crate::registry::{AUTH, PASSWORD, Served};

/// A folder with a configuration of Docker's that has a login.
fn configured(folder: &Path, registry: &str, auth: &str) -> String {
    fs_err::create_dir_all(folder).expect("a folder");
    let logins = json!({ "auths": { registry: { "auth": auth } } });
    fs_err::write(folder.join("config.json"), logins.to_string()).expect("a file");
    folder.display().to_string()
}

#[test]
fn a_login_of_this_machine_or_of_the_cluster_is_the_executors() {
    let Some(cluster) = namespace("private") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Served::guarded(folder.path());
    let to = format!("{}/team", registry.address);
    let mut place = cluster.place(
        "[images.app]\npackages = [\"six\"]\n",
        "private",
        "executor = \"kaniko\"",
    );
    let own = configured(&folder.path().join("own"), &registry.address, AUTH);
    place.set("DOCKER_CONFIG", &own);
    let kaniko = Vec::from(cluster.options());
    let rootless = cluster.rootless_options().map(Vec::from);
    let executors = [
        Some(kaniko.clone()),
        Some(Vec::from(Cluster::own_options())),
        rootless,
    ];
    let fixed = ["app", "--force", "--registry", &to];
    for options in executors.iter().flatten() {
        let built = place.builds(&with(&fixed, options));
        assert_eq!(built["builder"], "kaniko");
    }

    // A Secret of the cluster stands for it, and is the one that counts.
    for (name, auth, code) in [("good", AUTH, 0), ("bad", "dXNlcjpub3RoaW5n", 3)] {
        let configuration = configured(&folder.path().join(name), &registry.address, auth);
        let file = format!("--from-file=.dockerconfigjson={configuration}/config.json");
        cluster.says(&[
            "create",
            "secret",
            "generic",
            name,
            "--namespace",
            "private",
            "--type=kubernetes.io/dockerconfigjson",
            &file,
        ]);
        let mut options = kaniko.clone();
        options.push(format!("registry_secret={name}"));
        let (found, _, said) = ended(begun(&place, &with(&fixed, &options)));
        assert_eq!(found, Some(code), "{said}");
        assert!(
            code == 0 || said.contains("because of `registry`"),
            "{said}"
        );
        assert!(!said.contains(PASSWORD) && !said.contains(AUTH), "{said}");
        cluster.says(&["delete", "secret", name, "--namespace", "private"]);
    }
    until("nothing is left", || cluster.left("private").is_empty());
}

#[test]
fn layers_of_another_build_come_from_the_registry() {
    let Some(cluster) = namespace("layers") else {
        return;
    };
    let place = cluster.place(WHOLE, "layers", "cache = true");
    write_sources(&place);
    place.builds(&["app"]);
    place.write("src/main.py", "print('edited')\n");
    let (code, _, said) = ended(begun(&place, &["app"]));
    assert_eq!(code, Some(0), "{said}");
    let cached = said.lines().filter(|line| line.contains("cached"));
    assert!(cached.count() > 2, "{said}");
    until("nothing is left", || cluster.left("layers").is_empty());
}
