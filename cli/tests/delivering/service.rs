//! Builder `union`: the real service, asked by the real command.

mod access;
mod browser;
mod bucket;
mod deployed;
pub(crate) mod fixture;
mod fuzz;
mod kills;
mod load;
mod page;
mod postgres;
mod uploads;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use imagespec_testkit::contract::CORPUS;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::contract::fill;
use crate::place::{Place, has};
use fixture::{Cut, Service, Trust, lines};

/// What is random in a test follows from it.
pub(crate) fn seed() -> u64 {
    let named = std::env::var("IMAGESPEC_TEST_SEED").ok();
    let seed = named.and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(rand::random)
}

/// A declaration whose build takes some seconds and says so.
fn slow(seconds: u32) -> String {
    format!(
        "[images.app]\ncommands = [\"for i in $(seq 1 {}); do echo line $i; sleep 0.1; done\"]\n",
        seconds * 10
    )
}

#[test]
fn a_service_builds_what_native_builds_and_is_sent_what_it_lacks() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let mut place = service.place(
        "[images.app]\npackages = [\"six==1.16.0\"]\nsource_root = \"src\"\nsource_copy_mode = \"all\"\n",
    );
    for at in 0..20 {
        place.write(&format!("src/{at}.txt"), &format!("{at}\n"));
    }
    place.write("src/large.bin", &"0123456789abcdef".repeat(1 << 16));
    let sent = |place: &Place| {
        let output = place.run(&[
            "build",
            "--builder",
            "union",
            "--registry",
            &service.registry(),
        ]);
        let said = String::from_utf8(output.stderr).expect("a text");
        assert!(output.status.success(), "{said}");
        let step = said
            .lines()
            .find(|line| line.contains("send the build context"));
        let step = step.unwrap_or_default().to_owned();
        (String::from_utf8(output.stdout).expect("a text"), step)
    };
    let (first, step) = sent(&place);
    assert!(step.contains("21 of 21 files"), "{step}");
    place.write("src/3.txt", "other\n");
    let (second, step) = sent(&place);
    assert_ne!(first, second);
    assert!(step.contains("1 of 21 files, 6 bytes"), "{step}");
    // An image that is there is asked for and not built.
    let (third, step) = sent(&place);
    assert_eq!((third.as_str(), step.as_str()), (second.as_str(), ""));

    place.set("IMAGESPEC_TOKEN", "");
    let other = format!("{}/other", service.registry());
    let native = place.builds(&["--builder", "native", "--registry", &other]);
    let digest = native["digest"].as_str().expect("a digest");
    assert!(second.trim().ends_with(digest), "{second} {digest}");
}

#[test]
fn a_locked_project_is_built_for_people_who_are_not_trusted() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let place = service
        .place("[images.say-hello-image]\nbuilder = \"union\"\nrequirements = \"uv.lock\"\n");
    place.write(
        "pyproject.toml",
        "[project]\nname = \"hello\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six==1.16.0\", \"idna==3.10\"]\n",
    );
    let locked = Command::new("uv")
        .args(["lock", "--quiet", "--directory"])
        .arg(place.path("project"))
        .status();
    assert!(locked.expect("uv").success());
    let built = place.builds(&["--registry", &service.registry()]);
    assert_eq!(
        (&built["builder"], &built["built"]),
        (&"union".into(), &true.into())
    );
    let made = built["layers"].to_string();
    assert!(
        made.contains("six 1.16.0") && made.contains("idna 3.10"),
        "{made}"
    );
}

#[test]
fn every_declaration_of_the_corpus_is_the_same_image_through_the_service() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let mut wrong = Vec::new();
    for (number, case) in CORPUS.iter().enumerate() {
        let place = service.place(&format!("[images.app]\n{}\n", case.fields));
        fill(&place, case);
        let digest = |builder, name, force: &[&str]| {
            // Some fields are not in the tag, so each has repositories of its own.
            let registry = format!("{}/{name}-{number}", service.registry());
            let arguments = ["--builder", builder, "--registry", &registry];
            let built = place.builds(&[&arguments[..], force].concat());
            assert_eq!(built["builder"], *builder, "{}", case.name);
            built["digest"].clone()
        };
        // A secret of this machine stays on it.
        if case.fields.contains("pip_secret_mounts") {
            let registry = service.registry();
            let ask = ["build", "--builder", "union", "--registry", &registry];
            for more in [&[][..], &["--detach"]] {
                let (code, said) = place.fails(&[&ask[..], more].concat());
                assert_eq!(code, Some(2), "{}: {said}", case.name);
                assert!(said.contains("pip_secret_mounts"), "{said}");
            }
            continue;
        }
        // What commands write need not be the same twice: `native` takes it from the cache that both have here, where
        // the plan says the same.
        if digest("union", "there", &["--force"]) != digest("native", "here", &[]) {
            wrong.push(case.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn equal_requests_are_one_build_and_everyone_hears_of_it() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let place = service.place(&slow(3));
    let registry = service.registry();
    let arguments = ["build", "--builder", "union", "--registry", &registry];
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let mut command = place.command(&[&arguments[..], &["--progress", "plain"]].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the command")
        })
        .collect();
    let mut names = BTreeSet::new();
    for child in asking {
        let output = child.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        for at in 1..=30 {
            let line = format!("line {at}");
            assert_eq!(lines(&said, &line), 1, "{line}: {said}");
        }
        names.insert(String::from_utf8(output.stdout).expect("a name"));
    }
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(service.builds().len(), 1);
}

#[test]
fn a_build_goes_on_without_its_command_and_is_followed_over_broken_connections() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let place = service.place(&slow(4));
    let id = service.detached(&place, &[]);
    assert!(!id.contains('\n'), "{id}");
    // Every connection breaks after some bytes, in the middle of whatever it says.
    let cut = Cut::before(&service.address, 500);
    let endpoint = format!("endpoint=http://{}", cut.address);
    let output = place.run(&[
        "build",
        "--attach",
        &id,
        "--option",
        &endpoint,
        "--progress",
        "plain",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for at in 1..=40 {
        assert_eq!(lines(&said, &format!("line {at}")), 1, "{at}: {said}");
    }
    assert!(cut.connections() > 3, "{}", cut.connections());
    let name = String::from_utf8(output.stdout).expect("a name");
    assert!(name.contains("@sha256:"), "{name}");
    // Whoever comes later hears the same.
    assert_eq!(place.says(&["build", "--attach", &id]), name.trim());
    let (code, said) = place.fails(&["build", "--attach", "nothing"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_service_that_refuses_is_not_waited_for() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let mut place = service.place(&slow(20));
    let id = service.detached(&place, &[]);
    let token = place.says(&["token", "add", "reader", "--scope", "read"]);
    let listed = place.says(&["token", "list"]);
    let line = listed.lines().find(|line| line.contains("reader"));
    let revoked = line.and_then(|line| line.split_whitespace().next());
    place.set("IMAGESPEC_TOKEN", &token);
    let cut = Cut::before(&service.address, 500);
    let endpoint = format!("endpoint=http://{}", cut.address);
    let mut command = place.command(&["build", "--attach", &id, "--option", &endpoint]);
    let child = command.stderr(Stdio::piped()).spawn().expect("the command");
    service.until("running");
    let path = format!("/v1/tokens/{}", revoked.expect("the token"));
    let gone = service.ask(Some(&service.token), &["--request", "DELETE"], &path);
    assert_eq!(gone.0, 204);
    let output = child.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("does not know the token"), "{said}");
    assert_eq!(service.builds()[0]["state"], "running", "it was waited for");
}

#[test]
fn an_interrupted_command_stops_its_build() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let place = service.place(&slow(60));
    let registry = service.registry();
    let interrupted = |arguments: &[&str]| {
        let all = ["build", "--builder", "union", "--registry", &registry];
        let mut command = place.command(&[&all[..], arguments].concat());
        let child = command.stderr(Stdio::piped()).spawn().expect("the command");
        service.until("running");
        // Its events are on their way, then.
        std::thread::sleep(Duration::from_millis(500));
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.expect("kill").success());
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = interrupted(&["--option", "on_interrupt=detach"]);
    let hint = said
        .lines()
        .find(|line| line.contains("--attach"))
        .expect("a hint");
    let id = service.builds()[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(hint.contains(&id), "{hint}");
    assert_eq!(service.builds()[0]["state"], "running");
    // Whoever joined a build of others leaves it alone.
    interrupted(&[]);
    assert_eq!(service.builds()[0]["state"], "running");
    let stopped = service.post(&format!("/v1/builds/{id}/cancel"), &Value::Null);
    assert_eq!(stopped.0, 202);
    service.until("cancelled");
    interrupted(&["--force"]);
    service.until("cancelled");
    assert_eq!(service.builds().len(), 2);
    assert!(
        service
            .builds()
            .iter()
            .all(|build| build["state"] == "cancelled")
    );
}

#[test]
fn only_so_many_builds_wait() {
    let settings = "[defaults]\nbuilds = 1\nqueued = 2\n";
    let Some(service) = Service::configured(Trust::Trusted, settings) else {
        return;
    };
    let numbered =
        |number: u32| service.place(&format!("{}env = {{ N = \"{number}\" }}\n", slow(60)));
    service.detached(&numbered(0), &[]);
    service.until("running");
    let waiting = service.detached(&numbered(1), &[]);
    service.detached(&numbered(2), &[]);
    let registry = service.registry();
    let ask = [
        "build",
        "--builder",
        "union",
        "--detach",
        "--registry",
        &registry,
    ];
    let (code, told) = numbered(3).fails(&ask);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("2 builds of the project wait"), "{told}");
    // Who asks for what waits already asks for nothing more.
    assert_eq!(service.detached(&numbered(1), &[]), waiting);
    assert_eq!(service.builds().len(), 3);
}

#[test]
fn an_interrupt_at_a_terminal_asks_what_becomes_of_the_build() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let place = service.place(&slow(60));
    let registry = service.registry();
    let script = format!(
        "{}/tests/delivering/service/terminal.py",
        env!("CARGO_MANIFEST_DIR")
    );
    let answered = |answer: &str| {
        let all = ["build", "--force", "--builder", "union"];
        let mut terminal = place.through(
            &["python3", &script, "line 5", answer],
            &[&all[..], &["--registry", &registry]].concat(),
        );
        terminal.env("TERM", "xterm");
        let output = terminal.output().expect("python3");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("d  detach, and leave it running"), "{said}");
        said
    };
    let said = answered("d");
    let id = service.builds()[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert!(said.contains(&format!("--attach {id}")), "{said}");
    assert_eq!(service.builds()[0]["state"], "running");
    let stopped = service.post(&format!("/v1/builds/{id}/cancel"), &Value::Null);
    assert_eq!(stopped.0, 202);
    service.until("cancelled");
    // No word is the first way.
    answered("");
    service.until("cancelled");
    assert_eq!(service.builds().len(), 2);
}

#[test]
fn a_cluster_takes_the_manifests() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    // A dry run makes no namespace that what is in it could be looked at in.
    let made = cluster.kubectl(&["create", "namespace", "imagespec"]);
    assert!(made.status.success(), "{made:?}");
    for name in ["kubernetes", "kubernetes-kaniko"] {
        let folder = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        let taken = cluster.kubectl(&["apply", "--dry-run=server", "--kustomize", &folder]);
        let said = String::from_utf8_lossy(&taken.stdout).into_owned();
        let warnings = String::from_utf8_lossy(&taken.stderr).into_owned();
        assert!(taken.status.success(), "{said}{warnings}");
        assert!(!warnings.contains("would violate"), "{warnings}");
        for kind in [
            "statefulset.apps/database",
            "deployment.apps/imagespec",
            "configmap/imagespec-",
        ] {
            assert!(said.contains(kind), "{said}");
        }
        let settings = fs_err::read_to_string(format!("{folder}/serve.toml")).expect("settings");
        imagespec_build_service::Settings::read(&settings).expect("settings of a service");
    }
}

#[test]
fn a_service_that_is_not_there_or_not_one_is_told_of() {
    if !has("docker-registry") {
        return;
    }
    let mut place = Place::new("[images.app]\n");
    place.set("IMAGESPEC_TOKEN", "x");
    let build = ["build", "--builder", "union", "--registry", "localhost:1/a"];
    let (code, said) = place.fails(&build);
    assert_eq!(code, Some(3));
    assert!(
        said.contains("no build service is named") && said.contains("builders.union"),
        "{said}"
    );
    let (code, said) = place.fails(&[
        "build",
        "--deployment",
        "serverless",
        "--registry",
        "localhost:1/a",
    ]);
    assert_eq!(code, Some(3));
    assert!(said.contains("no build service is named"), "{said}");
    place.set("IMAGESPEC_ENDPOINT", "http://127.0.0.1:1");
    let (code, said) = place.fails(&build);
    assert_eq!(code, Some(3));
    assert!(
        said.contains("http://127.0.0.1:1/") && said.contains("check that it runs"),
        "{said}"
    );
    place.set("IMAGESPEC_ENDPOINT", "http://builds.example");
    let (code, said) = place.fails(&build);
    assert_eq!(code, Some(2));
    assert!(said.contains("plain HTTP"), "{said}");
    let registry = crate::registry::Served::new(&[]);
    place.set(
        "IMAGESPEC_ENDPOINT",
        &format!("http://{}", registry.address),
    );
    let (code, said) = place.fails(&build);
    assert_eq!(code, Some(3));
    assert!(said.contains("no build service answers"), "{said}");
}
