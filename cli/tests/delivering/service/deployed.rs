//! The service as `deploy/` has it, in a cluster: its image, `PostgreSQL`, its Role, and builds in Jobs.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::fixture::free;
use super::slow;
use crate::cluster::Cluster;
use crate::docker::until;
use crate::place::{Place, exec};

/// The namespace that the manifests name.
const NAMESPACE: &str = "imagespec";
/// How a pod of the node's own network, which is the only one here, starts a database of Debian's.
const DATABASE: &str = r#"set -eu
programs=$(echo /usr/lib/postgresql/*/bin)
if ! [ -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    "$programs/initdb" -D "$PGDATA" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile /tmp/password
    echo "CREATE DATABASE $POSTGRES_DB" | "$programs/postgres" --single -D "$PGDATA" postgres
fi
exec "$programs/postgres" -D "$PGDATA" -p "$PGPORT" -k /tmp -c listen_addresses=127.0.0.1"#;

/// Where the parts listen.
struct Ports {
    service: u16,
    database: u16,
}

impl Ports {
    fn free() -> Self {
        let port = || {
            let address = free();
            let (_, port) = address.rsplit_once(':').expect("a port");
            port.parse().expect("a number")
        };
        Self {
            service: port(),
            database: port(),
        }
    }
}

/// Builds an image into the cluster's registry, and returns its name.
fn pushed(place: &Place, cluster: &Cluster) -> String {
    let registry = format!("{}/parts", cluster.registry.address);
    let arguments = ["--builder", "native", "--no-bytecode", "--tag", "1"];
    place.builds(&[&arguments[..], &["--registry", &registry]].concat());
    registry
}

/// The images of the service, as its own declaration says, and of a database.
fn push_images(cluster: &Cluster) {
    let declaration = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/image/imagespec.toml"
    );
    let place = Place::new(&fs_err::read_to_string(declaration).expect("a declaration"));
    place.write("bin/imagespec", "");
    let program = place.path("project/bin/imagespec");
    // What a debugger would want is most of it.
    let stripped = Command::new("strip")
        .arg("-o")
        .args([&program, Path::new(env!("CARGO_BIN_EXE_imagespec"))])
        .status();
    assert!(stripped.expect("strip").success());
    pushed(&place, cluster);
    let place = Place::new("[images.postgres]\napt_packages = [\"postgresql\"]\n");
    pushed(&place, cluster);
}

/// What is other here than where the manifests are for: the network, the disks, the images.
fn overlay(cluster: &Cluster, folder: &Path, ports: &Ports) -> Value {
    let registry = &cluster.registry.address;
    let add = |path: &str, value: Value| json!({ "op": "add", "path": path, "value": value });
    let pod = "/spec/template/spec";
    let container = format!("{pod}/containers/0");
    let variable = |name: &str, value: &str| {
        add(
            &format!("{container}/env/-"),
            json!({ "name": name, "value": value }),
        )
    };
    let network = add(&format!("{pod}/hostNetwork"), true.into());
    let port = |port: u16| add(&format!("{container}/ports/0/containerPort"), port.into());
    let (host, api) = cluster.endpoint();
    // Whom this machine trusts, and where it has Debian's archive from.
    let lent = |(name, path): (&str, &str)| {
        let volume = json!({ "name": name, "hostPath": { "path": path } });
        let mount = json!({ "name": name, "mountPath": path, "readOnly": true });
        [
            add(&format!("{pod}/volumes/-"), volume),
            add(&format!("{container}/volumeMounts/-"), mount),
        ]
    };
    let lent = [("trust", "/etc/ssl/certs"), ("archive", "/etc/apt")].map(lent);
    let service = [
        network.clone(),
        port(ports.service),
        add("/spec/replicas", 1.into()),
        variable("KUBERNETES_SERVICE_HOST", &host),
        variable("KUBERNETES_SERVICE_PORT", &api),
    ];
    let service = [&service[..], &lent.concat()].concat();
    let database = [
        network,
        port(ports.database),
        variable("PGPORT", &ports.database.to_string()),
        variable("PGHOST", "127.0.0.1"),
        add(
            &format!("{container}/command"),
            json!(["bash", "-c", DATABASE]),
        ),
    ];
    let allowed = [add(
        "/metadata/labels/pod-security.kubernetes.io~1enforce",
        "privileged".into(),
    )];
    let patch = |kind: &str, name: &str, operations: &[Value]| {
        let target = json!({ "kind": kind, "name": name });
        json!({ "target": target, "patch": json!(operations).to_string() })
    };
    let volume = |name: &str, mode: &str| {
        let place = folder.join(name);
        fs_err::create_dir(&place).expect("a folder");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs_err::set_permissions(&place, everybody).expect("a mode");
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "capacity": { "storage": "50Gi" }, "accessModes": [mode], "hostPath": { "path": place } },
        })
    };
    let volumes = json!({
        "apiVersion": "v1", "kind": "List",
        "items": [volume("shared", "ReadWriteMany"), volume("own", "ReadWriteOnce")],
    });
    let settings = format!(
        "listen = \"0.0.0.0:{}\"\ndata = \"/var/lib/imagespec\"\nworkers = 4\nbuilder = \"kaniko\"\n\
         [options]\nnamespace = \"{NAMESPACE}\"\nimage = \"{registry}/kaniko:1\"\npod_template.spec.hostNetwork = true\n\
         [defaults]\nregistries = [\"{registry}/team\"]\ncommands = true\n",
        ports.service
    );
    let url = format!(
        "postgres://imagespec:secret@127.0.0.1:{}/imagespec",
        ports.database
    );
    fs_err::write(folder.join("volumes.yaml"), volumes.to_string()).expect("a file");
    fs_err::write(folder.join("serve.toml"), settings).expect("a file");
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": ["../kubernetes-kaniko", "volumes.yaml"],
        "configMapGenerator": [{ "name": "imagespec", "behavior": "replace", "files": ["serve.toml"] }],
        "secretGenerator": [
            { "name": "imagespec-database", "literals": ["password=secret", format!("url={url}")] },
            { "name": "imagespec-registry", "literals": [".dockerconfigjson={}"] },
        ],
        "images": [
            { "name": "registry.example/imagespec-service", "newName": format!("{registry}/parts/imagespec-service"), "newTag": "1" },
            { "name": "postgres", "newName": format!("{registry}/parts/postgres"), "newTag": "1" },
        ],
        "patches": [
            patch("Deployment", "imagespec", &service),
            patch("StatefulSet", "database", &database),
            patch("Namespace", NAMESPACE, &allowed),
        ],
    })
}

/// Waits for the service, or tells what it waits for itself.
fn until_it_runs(cluster: &Cluster) {
    let status = ["rollout", "status", "deployment/imagespec", "--timeout=60s"];
    let rolled = cluster.kubectl(&[&status[..], &["--namespace", NAMESPACE]].concat());
    let asked = || {
        let told = cluster.says(&["describe", "pods,pvc", "--namespace", NAMESPACE]);
        format!("{told}\n{}", log(cluster))
    };
    assert!(rolled.status.success(), "{}", asked());
}

/// What the service says, as far as it has said anything.
fn log(cluster: &Cluster) -> String {
    let asked = cluster.kubectl(&["logs", "deployment/imagespec", "--namespace", NAMESPACE]);
    String::from_utf8_lossy(&asked.stdout).into_owned()
}

#[test]
#[ignore = "two minutes: `cargo xtask soak`"]
fn the_manifests_make_a_service_that_builds_in_jobs() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    push_images(&cluster);
    let folder = tempfile::tempdir().expect("a folder");
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let copied = Command::new("cp")
        .args(["--recursive", deploy])
        .arg(folder.path())
        .status();
    assert!(copied.expect("cp").success());
    let here = folder.path().join("deploy/here");
    fs_err::create_dir(&here).expect("a folder");
    let ports = Ports::free();
    let overlay = overlay(&cluster, &here, &ports);
    fs_err::write(here.join("kustomization.yaml"), overlay.to_string()).expect("a file");
    cluster.says(&["apply", "--kustomize", &here.display().to_string()]);
    until_it_runs(&cluster);
    let said = log(&cluster);
    let token = said.lines().find(|line| line.starts_with("imagespec_"));
    let token = token.unwrap_or_else(|| panic!("no token: {said}"));

    let declaration = format!(
        "[images.app]\npackages = [\"six==1.16.0\"]\nsource_root = \"src\"\ncommands = [\"id -u > /root/who\"]\n{}",
        slow(20).replace("images.app", "images.slow")
    );
    let mut place = Place::new(&declaration);
    place.write(
        "src/main.py",
        "import six; print(open('/root/who').read().strip(), six.__version__)\n",
    );
    place.set(
        "IMAGESPEC_ENDPOINT",
        &format!("http://127.0.0.1:{}", ports.service),
    );
    place.set("IMAGESPEC_TOKEN", token);
    let registry = format!("{}/team", cluster.registry.address);
    let union = ["--builder", "union", "--registry", &registry];
    let built = place.builds(&[&["app"], &union[..]].concat());
    assert_eq!(built["builder"], "union");
    let name = built["reference"].as_str().expect("a name");
    let child = Place::new(&format!(
        "[images.run]\nbase_image = \"{name}\"\nentrypoint = []\n"
    ));
    let ran = child.says(&exec("run", &["python", "main.py"]));
    assert_eq!(ran, "0 1.16.0");

    // A service that is lost in mid-build is made again, and finds its build.
    let id = place.says(&[&["build", "slow", "--detach"], &union[..]].concat());
    let job = || {
        let jobs = cluster.says(&["get", "jobs", "--output", "name", "--namespace", NAMESPACE]);
        jobs.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    until("a job builds", || job().len() == 1);
    let lost = [
        "delete",
        "pod",
        "--selector",
        "app=imagespec",
        "--grace-period=0",
        "--force",
    ];
    cluster.says(&[&lost[..], &["--namespace", NAMESPACE]].concat());
    until_it_runs(&cluster);
    let name = place.says(&["build", "--attach", &id]);
    assert!(name.contains("@sha256:"), "{name}");
    until("nothing is left", || job().is_empty());
}
