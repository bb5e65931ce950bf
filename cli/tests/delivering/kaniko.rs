//! The builder `kaniko` with a real cluster.

mod long;
mod measured;
mod registries;
mod stored;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::docker::{PASSWORD, WHOLE, interrupt, sleeping, until, write_sources};
use crate::place::{Place, has};

/// A namespace of the shared cluster, if this machine has what that takes.
fn namespace(name: &str) -> Option<Arc<Cluster>> {
    if !has("uv") || !has("curl") {
        return None;
    }
    let cluster = Cluster::shared()?;
    cluster.namespace(name, &json!({}));
    Some(cluster)
}

/// Arguments, and options of the builder after them.
fn with<'a>(arguments: &[&'a str], options: &'a [String]) -> Vec<&'a str> {
    let options = options.iter().flat_map(|option| ["--option", option]);
    arguments.iter().copied().chain(options).collect()
}

/// A build that runs, and what it says.
fn begun(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(&[&["build", "--progress", "plain"], arguments].concat());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the command")
}

/// The exit code of a build that ran, and all that it said.
fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What a build goes on to say.
type Rest = std::thread::JoinHandle<Vec<String>>;

/// A build once it says something.
fn until_it_says(mut child: Child, expected: &str) -> (Child, Rest) {
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let told = lines.find(|line| line.as_ref().expect("a line").contains(expected));
    assert!(told.is_some(), "{expected}");
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect());
    (child, rest)
}

/// The exit code of such a build, and what it said since.
fn after(mut child: Child, rest: Rest) -> (Option<i32>, String) {
    let code = child.wait().expect("an end").code();
    (code, rest.join().expect("lines").join("\n"))
}

/// Writes a file that does not become smaller.
fn random(place: &Place, size: u64) {
    let random = fs_err::File::open("/dev/urandom").expect("random bytes");
    fs_err::create_dir_all(place.path("project/large")).expect("a folder");
    let mut large = fs_err::File::create(place.path("project/large/file")).expect("a file");
    let copied = std::io::copy(&mut std::io::Read::take(random, size), &mut large);
    assert_eq!(copied.expect("written"), size);
}

#[test]
fn a_build_leaves_an_image_and_nothing_else() {
    let Some(cluster) = namespace("whole") else {
        return;
    };
    let images = format!("{WHOLE}\n[images.large]\ncopy = [\"large\"]\n");
    let place = cluster.place(&images, "whole", "");
    write_sources(&place);

    let built = place.builds(&["app", "--tag", "v1", "--label", "team=ml"]);
    assert_eq!(
        (&built["builder"], &built["built"]),
        (&"kaniko".into(), &true.into())
    );
    let digest = built["digest"].as_str().expect("a digest");
    assert_eq!(cluster.registry.digest("whole/app", "v1"), digest);
    until("nothing is left", || cluster.left("whole").is_empty());
    let found = place.builds(&["app", "--tag", "v2"]);
    assert_eq!(
        (&found["built"], &found["digest"]),
        (&false.into(), &built["digest"])
    );
    assert_eq!(cluster.registry.digest("whole/app", "v2"), digest);

    // What is large is streamed; an output elsewhere is pulled back.
    random(&place, 2 << 20);
    let (code, _, said) = ended(begun(&place, &["large", "--output", "oci:layout"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("send the context: 2.") && said.contains("pull from"),
        "{said}"
    );

    // What is secret is in no layer.
    let tar = ["app", "--output", "tar:image.tar", "--force"];
    assert_eq!(place.builds(&tar)["builder"], "kaniko");
    let tar = fs_err::read(place.path("project/image.tar")).expect("an archive");
    assert_eq!(memchr::memmem::find(&tar, PASSWORD.as_bytes()), None);
    until("nothing is left", || cluster.left("whole").is_empty());

    let (code, said) = place.fails(&["build", "app", "--output", "docker"]);
    assert_eq!(code, Some(2), "{said}");
    let refused = "builder `kaniko` does not support `output`";
    assert!(said.contains(refused), "{said}");
}

#[test]
fn an_executor_of_ours_needs_no_rights() {
    let Some(cluster) = namespace("native") else {
        return;
    };
    let images = format!(
        "[images.app]\npackages = [\"six>=1.16\"]\nsource_root = \"src\"\ncopy = [\"data\"]\n\
         env = {{ A = \"b\" }}\npip_secret_mounts = [[\"netrc\", \"/run/secrets/netrc\"]]\n\
         [images.child]\nbase_image = {{ image = \"app\" }}\npackages = [\"tabulate\"]\n\
         [images.large]\ncopy = [\"large\"]\n\
         [images.wrong]\npackages = [\"no-such-package-at-all-here\"]\n\
         [images.commands]\ncommands = [\"true\"]\n\
         [images.others]\nbase_image = \"{}/native/app@DIGEST\"\nenv = {{ A = \"b\" }}\n",
        cluster.registry.address
    );
    let place = cluster.place(&images, "native", "executor = \"native\"");
    write_sources(&place);

    let built = place.builds(&["app", "--tag", "v1"]);
    assert_eq!(
        (&built["builder"], &built["built"]),
        (&"kaniko".into(), &true.into())
    );
    let digest = built["digest"].as_str().expect("a digest");
    assert_eq!(cluster.registry.digest("native/app", "v1"), digest);
    // Sources, a virtual environment's packages and their bytecode, which its own interpreter made.
    let titles = built["layers"].as_array().expect("layers").iter();
    let titles: Vec<_> = titles
        .filter_map(|layer| layer["created_by"].as_str())
        .collect();
    let compiled = titles
        .iter()
        .any(|title| title.contains("bytecode") && title.contains("six"));
    assert!(compiled, "{titles:?}");
    assert_eq!(built["work"]["wheels_fetched"], 1, "{built}");
    until("nothing is left", || cluster.left("native").is_empty());
    assert_eq!(place.builds(&["app"])["built"], false);
    assert_eq!(place.builds(&["child"])["builder"], "kaniko");
    random(&place, 2 << 20);
    let (code, _, said) = ended(begun(&place, &["large", "--output", "oci:layout"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("send the context: 2."), "{said}");
    let tar = ["app", "--output", "tar:image.tar", "--force"];
    assert_eq!(place.builds(&tar)["builder"], "kaniko");
    let tar = fs_err::read(place.path("project/image.tar")).expect("an archive");
    assert_eq!(memchr::memmem::find(&tar, PASSWORD.as_bytes()), None);

    let (code, said) = place.fails(&["build", "wrong"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("because of `packages`") && said.contains("no-such-package-at-all-here"),
        "{said}"
    );
    let (code, said) = place.fails(&["build", "commands"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not support `commands`"), "{said}");
    until("nothing is left", || cluster.left("native").is_empty());

    // Its pod is one that a restricted namespace takes; Kaniko's is none.
    cluster.namespace(
        "strict",
        &json!({ "pod-security.kubernetes.io/enforce": "restricted" }),
    );
    let file = fs_err::read_to_string(place.path("project/imagespec.toml")).expect("a file");
    let file = file.replace("DIGEST", digest);
    let network = "pod_template.spec.hostNetwork = true\n";
    place.write("imagespec.toml", &file.replace(network, ""));
    let admitted = |options: &[&str]| {
        let plan = ["plan", "others", "--format", "job"];
        let output = place.run(&[&plan[..], options].concat());
        assert!(output.status.success(), "{output:?}");
        let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let job = list["items"]
            .as_array()
            .expect("items")
            .last()
            .expect("a Job");
        let mut pod = job["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "executor".into();
        let file = place.path("pod.json");
        fs_err::write(&file, pod.to_string()).expect("a file");
        let file = file.display().to_string();
        let applied = cluster.kubectl(&[
            "apply",
            "--dry-run=server",
            "--namespace",
            "strict",
            "--filename",
            &file,
        ]);
        applied.status.success()
    };
    assert!(admitted(&[]));
    assert!(!admitted(&["--option", "executor=kaniko"]));
}

#[test]
fn an_executor_without_root_mounts_what_each_step_needs() {
    let Some(cluster) = namespace("rootless") else {
        return;
    };
    let Some([_, image, _]) = cluster.rootless_options() else {
        return;
    };
    let (_, image) = image.split_once('=').expect("an option");
    let images = format!(
        "{WHOLE}\n[images.large]\ncopy = [\"large\"]\n\
         [images.broken]\ncommands = [\"true\", \"echo so it is >&2; exit 3\"]\n"
    );
    let options = format!("executor = \"buildkit\"\nimage = \"{image}\"\ncache = true");
    let place = cluster.place(&images, "rootless", &options);
    write_sources(&place);

    let built = place.builds(&["app", "--tag", "v1", "--label", "team=ml"]);
    assert_eq!(built["builder"], "kaniko");
    let digest = built["digest"].as_str().expect("a digest");
    assert_eq!(cluster.registry.digest("rootless/app", "v1"), digest);
    until("nothing is left", || cluster.left("rootless").is_empty());
    assert_eq!(place.builds(&["app"])["built"], false);
    // What another pod has built is in the registry, with what it was built from.
    place.write("src/main.py", "print('edited')\n");
    let (code, _, said) = ended(begun(&place, &["app"]));
    assert_eq!(code, Some(0), "{said}");
    let cached = said.lines().filter(|line| line.contains("cached"));
    assert!(cached.count() > 3, "{said}");

    random(&place, 2 << 20);
    let (code, _, said) = ended(begun(&place, &["large", "--output", "oci:layout"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("send the context: 2."), "{said}");
    let tar = ["app", "--output", "tar:image.tar", "--force"];
    assert_eq!(place.builds(&tar)["builder"], "kaniko");
    let tar = fs_err::read(place.path("project/image.tar")).expect("an archive");
    assert_eq!(memchr::memmem::find(&tar, PASSWORD.as_bytes()), None);

    let (code, said) = place.fails(&["build", "broken"]);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "because of `commands`",
        "cannot run `echo so it is >&2; exit 3`: it ended with code 3",
        "caused by: so it is",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    until("nothing is left", || cluster.left("rootless").is_empty());
}

#[test]
fn an_executor_of_ours_remembers_and_stops() {
    let Some(cluster) = namespace("memory") else {
        return;
    };
    let images = "[images.app]\npackages = [\"six>=1.16\"]\n\
                  [images.more]\npackages = [\"six>=1.16\", \"tabulate\"]\n\
                  [images.idle]\nenv = { A = \"b\" }\npip_secret_mounts = [[\"netrc\", \"/run/secrets/netrc\"]]\n";
    let place = cluster.place(images, "memory", "executor = \"native\"");
    place.write("netrc", "");
    let first = place.builds(&["app"]);

    // The same program in the same place makes the same image, and what is remembered need not be made again.
    let remembers = ["app", "--force", "--option", "cache=true"];
    for wheels in [1, 0] {
        let again = place.builds(&remembers);
        assert_eq!(again["digest"], first["digest"]);
        assert_eq!(again["work"]["wheels_fetched"], wheels, "{again}");
    }
    // A pod is not given what belonged to an earlier one of the same name.
    let more = place.builds(&["more", "--force"]);
    assert_eq!(more["work"]["wheels_fetched"], 2, "{more}");
    let more = place.builds(&["more", "--force", "--option", "cache=true"]);
    assert_eq!(more["work"]["wheels_fetched"], 1, "{more}");
    assert_eq!(more["work"]["base_layers_fetched"], 0, "{more}");

    // Who interrupts stops the pod, and cleans up.
    let mut child = begun(&place, &["app", "--force"]);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let waits = |line: Result<String, _>| line.is_ok_and(|line| line.contains("waits for its pod"));
    assert!(lines.any(waits));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let code = child.wait().expect("an end").code();
    assert_eq!(code, Some(130), "{:?}", rest.join());
    until("nothing is left", || cluster.left("memory").is_empty());
    // A secret that nothing is installed with hinders nobody.
    assert_eq!(place.builds(&["idle"])["builder"], "kaniko");
}

#[test]
fn what_fails_is_told_by_its_field() {
    let Some(cluster) = namespace("failing") else {
        return;
    };
    let images = "[images.broken]\ncommands = [\"true\", \"echo so it is >&2; exit 3\"]\n\
                  [images.wrong]\npackages = [\"no-such-package-at-all-here\"]\n\
                  [images.fat]\ncommands = [\"python3 -c 'x = bytearray(900 << 20)'\"]\n\
                  [images.slow]\ncommands = [\"sleep 293\"]\n";
    let place = cluster.place(images, "failing", "");
    let fails = |image: &str, options: &[&str], code: i32, expected: &[&str]| {
        let options = options.iter().flat_map(|option| ["--option", option]);
        let arguments: Vec<_> = ["build", image].into_iter().chain(options).collect();
        let (found, said) = place.fails(&arguments);
        assert_eq!(found, Some(code), "{said}");
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    };
    fails(
        "broken",
        &[],
        1,
        &[
            "because of `commands`",
            "cannot run `echo so it is >&2; exit 3`: it ended with code 3",
            "caused by: so it is",
        ],
    );
    fails(
        "wrong",
        &[],
        1,
        &["because of `packages`", "no-such-package-at-all-here"],
    );
    let limit = r#"resources={"limits":{"memory":"300Mi"}}"#;
    fails(
        "fat",
        &[limit],
        1,
        &[
            "more memory than it may: 300Mi",
            "raise `memory` under `limits`",
        ],
    );
    fails(
        "slow",
        &["deadline=12s"],
        1,
        &["took longer than it may", "raise option `deadline`"],
    );
    let none = format!("image={}/none:1", cluster.registry.address);
    fails(
        "broken",
        &[&none],
        3,
        &["cannot pull the executor's image", "not found"],
    );
    fails(
        "broken",
        &["registry_secret=nowhere"],
        3,
        &["does not have what the executor mounts", "nowhere"],
    );
    fails(
        "broken",
        &["namespace=nowhere"],
        3,
        &["not there", "option `namespace`"],
    );
    fails(
        "broken",
        &["context=other"],
        3,
        &["other", "option `context`"],
    );
    until("nothing is left", || cluster.left("failing").is_empty());

    // A failed Job stays where somebody wants to read it, without its secrets.
    fails(
        "broken",
        &["keep_failed=true"],
        1,
        &["it ended with code 3"],
    );
    let left = cluster.left("failing");
    assert_eq!(left.len(), 3, "{left:?}");
    let secret = left.iter().find(|name| name.starts_with("secret/"));
    assert_eq!(secret, None);
    cluster.says(&["delete", "jobs", "--all", "--namespace", "failing"]);
}

#[test]
fn a_cluster_that_does_not_want_says_why() {
    let Some(cluster) = namespace("refusing") else {
        return;
    };
    let images = "[images.app]\nenv = { A = \"b\" }\n";
    let place = cluster.place(images, "refusing", "");

    // Who may do too little is told what is missing.
    let rules =
        json!([{ "apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"] }]);
    let mut poor = cluster.place(images, "refusing", "");
    poor.set(
        "KUBECONFIG",
        &cluster.account("refusing", &rules).display().to_string(),
    );
    let (code, said) = poor.fails(&["build", "app"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("not allowed in namespace `refusing`") && said.contains("kind: Role"),
        "{said}"
    );
    let doctor = poor.run(&["doctor", "--builder", "kaniko"]);
    assert_eq!(doctor.status.code(), Some(3));
    let told = String::from_utf8(doctor.stdout).expect("a text");
    assert!(
        told.contains("verbs: [create, watch, patch, delete]"),
        "{told}"
    );
    // With the Role that it prints it is enough.
    let lines = told
        .lines()
        .map(|line| line.strip_prefix("        ").unwrap_or(line));
    let role: Vec<_> = lines
        .skip_while(|line| !line.starts_with("apiVersion"))
        .take_while(|line| !line.starts_with("ok ") && !line.starts_with("absent "))
        .collect();
    let file = poor.path("role.yaml");
    fs_err::write(&file, role.join("\n")).expect("a file");
    let file = file.display().to_string();
    cluster.says(&["apply", "--filename", &file]);
    let account = "--serviceaccount=refusing:builder";
    cluster.says(&[
        "create",
        "rolebinding",
        "more",
        "--role=imagespec",
        account,
        "--namespace",
        "refusing",
    ]);
    until("the rights are there", || {
        poor.run(&["doctor", "--builder", "kaniko"])
            .status
            .success()
    });
    assert_eq!(poor.builds(&["app"])["builder"], "kaniko");

    // A quota is waited for, and told of.
    let quota = |pods: &str| {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": { "name": "few", "namespace": "refusing" },
            "spec": { "hard": { "pods": pods } },
        }));
    };
    quota("0");
    let mut child = begun(&place, &["app", "--force"]);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let told = lines.find(|line| line.as_ref().expect("a line").contains("quota"));
    assert!(told.is_some());
    quota("5");
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let code = child.wait().expect("an end").code();
    assert_eq!(code, Some(0), "{:?}", rest.join());

    // An executor that runs commands as root is not for a restricted namespace.
    cluster.namespace(
        "restricted",
        &json!({ "pod-security.kubernetes.io/enforce": "restricted" }),
    );
    let place = cluster.place(images, "restricted", "");
    let (code, said) = place.fails(&["build", "app"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("Pod Security does not let the executor run"),
        "{said}"
    );
    until("nothing is left", || cluster.left("restricted").is_empty());
}

#[test]
fn clients_share_one_build_and_outlive_each_other() {
    let Some(cluster) = namespace("shared") else {
        return;
    };
    let images = "[images.two]\ncommands = [\"echo begun; sleep 4.25\"]\n\
                  [images.left]\ncommands = [\"echo begun; sleep 6.25\"]\n\
                  [images.stopped]\ncommands = [\"echo begun; sleep 292\"]\n\
                  [images.sent]\ncopy = [\"large\"]\n";
    let place = cluster.place(images, "shared", "");
    let both = [begun(&place, &["two"]), begun(&place, &["two"])].map(ended);
    let names: Vec<_> = both.iter().map(|(_, name, _)| name.clone()).collect();
    assert!(both.iter().all(|(code, ..)| *code == Some(0)), "{both:?}");
    assert_eq!(names[0], names[1]);
    let joined = both
        .iter()
        .filter(|(.., said)| said.contains("joins the build"));
    assert_eq!(joined.count(), 1, "{both:?}");

    // A client that is killed leaves its build to the next.
    let mut first = begun(&place, &["left"]);
    until("the command runs", || sleeping("sleep 6.25") == 1);
    first.kill().expect("killed");
    first.wait().expect("an end");
    let (code, name, said) = ended(begun(&place, &["left"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("joins the build") && name.contains("shared/left"),
        "{said}"
    );

    // One that is killed before it has sent the context has it sent by the next.
    random(&place, 2 << 20);
    let (mut first, _) = until_it_says(begun(&place, &["sent"]), "waits for its pod");
    first.kill().expect("killed");
    first.wait().expect("an end");
    let (code, _, said) = ended(begun(&place, &["sent"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("joins the build") && said.contains("send the context"),
        "{said}"
    );

    // Who interrupts stops what runs in the cluster, and cleans up.
    interrupt(&place, &["stopped"], "sleep 292");
    assert_eq!(sleeping("sleep 292"), 0);
    until("nothing is left", || cluster.left("shared").is_empty());
}

#[test]
fn a_job_for_others_is_printed() {
    let Some(cluster) = namespace("printed") else {
        return;
    };
    let base = cluster
        .place("[images.base]\npackages = [\"six\"]\n", "printed", "")
        .says(&["build", "base"]);
    let images = format!("[images.app]\nbase_image = \"{base}\"\npackages = [\"idna\"]\n");
    let place = cluster.place(&images, "printed", "");
    let text = place.says(&["plan", "app", "--format", "job"]);
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    let items = list["items"].as_array_mut().expect("items");
    let kinds: Vec<_> = items.iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["Secret", "ConfigMap", "Job"]);
    cluster.apply(&list);
    let name = place.says(&["tag", "app"]);
    let (repository, tag) = name.rsplit_once(':').expect("a tag");
    let repository = repository.split_once('/').expect("a registry").1;
    let pruned = || place.says(&["kaniko", "prune"]);
    assert_eq!(pruned(), "", "what is under way stays");
    let registry = &cluster.registry;
    until("the image is there", || registry.has(repository, tag));
    until("it is over", || pruned().contains("printed/app"));
}

/// A build during which something happens to the cluster once its command runs; answers its exit code and what it
/// said.
fn disturbed(
    place: &Place,
    image: &str,
    seconds: &str,
    disturb: impl FnOnce(),
) -> (Option<i32>, String) {
    let child = begun(place, &[image]);
    until("the command runs", || {
        sleeping(&format!("sleep {seconds}")) == 1
    });
    disturb();
    let (code, _, said) = ended(child);
    (code, said)
}

#[test]
fn a_cluster_whose_control_restarts_goes_on() {
    if !has("uv") {
        return;
    }
    let Some(cluster) = Cluster::start() else {
        return;
    };
    cluster.namespace("restarted", &json!({}));
    let images = "[images.api]\ncommands = [\"sleep 9.5\", \"echo after\"]\n\
                  [images.etcd]\ncommands = [\"sleep 9.25\", \"echo after\"]\n";
    let place = cluster.place(images, "restarted", "");
    for (image, seconds, part) in [("api", "9.5", "kube-apiserver"), ("etcd", "9.25", "etcd")] {
        let (code, said) = disturbed(&place, image, seconds, || {
            cluster.kill(part);
            std::thread::sleep(std::time::Duration::from_secs(2));
            cluster.begin(part);
        });
        assert_eq!(code, Some(0), "{part}: {said}");
        // What was printed before is not printed again.
        assert_eq!(said.matches("| after").count(), 1, "{part}: {said}");
        cluster.until_it_answers();
    }
    until("nothing is left", || cluster.left("restarted").is_empty());
}
