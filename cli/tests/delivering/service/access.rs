//! Who may do what, and what nobody may.

use serde_json::{Value, json};

use super::fixture::{Service, Trust};
use crate::logins::{holding, serve};
use crate::place::{has, told};
use crate::registry::{AUTH, PASSWORD, Served};

/// A token of a project, made by the command.
fn token(service: &Service, scope: &str, project: &str) -> String {
    let place = service.place("");
    let name = format!("{scope}-{project}");
    place.says(&[
        "token",
        "add",
        &name,
        "--scope",
        scope,
        "--project",
        project,
    ])
}

fn any_build(service: &Service) -> String {
    let place = service.place("[images.app]\n");
    service.detached(&place, &[])
}

#[test]
fn tokens_allow_what_their_scope_says_in_their_project() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let id = any_build(&service);
    let (read, build) = (
        token(&service, "read", "default"),
        token(&service, "build", "default"),
    );
    let (admin, other) = (
        token(&service, "admin", "default"),
        token(&service, "admin", "other"),
    );
    let none = json!({"files": []});
    let new = json!({"name": "x", "scope": "read"});
    let show = format!("/v1/builds/{id}");
    let paths = [
        show.clone(),
        format!("{show}/log"),
        format!("{show}/events"),
    ];
    for path in ["/v1/builds", "/v1/version", "/v1/tokens", "/v1/nothing"]
        .map(str::to_owned)
        .iter()
        .chain(&paths)
    {
        for wrong in [None, Some("nonsense"), Some("")] {
            let code = service.ask(wrong, &[], path).0;
            assert_eq!(
                code,
                if path == "/v1/nothing" { 404 } else { 401 },
                "{path} {wrong:?}"
            );
        }
    }
    for path in &paths {
        assert_eq!(service.ask(Some(&read), &[], path).0, 200, "{path}");
        // What is another's is not there.
        assert_eq!(service.ask(Some(&other), &[], path).0, 404, "{path}");
    }
    let absent = service.ask(Some(&other), &[], "/v1/builds/0000");
    assert_eq!(absent, service.ask(Some(&other), &[], &show));
    for (path, body, allowed) in [
        ("/v1/files/missing", &none, [false, true, true]),
        (
            &*format!("{show}/cancel"),
            &Value::Null,
            [false, true, true],
        ),
        (&*format!("{show}/retry"), &Value::Null, [false, true, true]),
        ("/v1/tokens", &new, [false, false, true]),
    ] {
        for (secret, allowed) in [&read, &build, &admin].into_iter().zip(allowed) {
            let (code, answer) = service.post_as(secret, path, body);
            assert_eq!(code != 403, allowed, "{path}: {code} {answer}");
            assert!(
                code != 403 || answer["error"]["message"].is_string(),
                "{answer}"
            );
        }
    }
    for path in ["cancel", "retry"] {
        let path = format!("{show}/{path}");
        assert_eq!(
            service.post_as(&other, &path, &Value::Null).0,
            404,
            "{path}"
        );
    }
    let beyond = json!({"name": "x", "scope": "read", "project": "default"});
    assert_eq!(service.post_as(&other, "/v1/tokens", &beyond).0, 403);
    let listed = service.ask(Some(&other), &[], "/v1/tokens").1;
    assert!(
        listed.contains("admin-other") && !listed.contains("default"),
        "{listed}"
    );
    // Another project than the token's is named in vain.
    let header = ["--header", "imagespec-project: default"];
    assert_eq!(service.ask(Some(&other), &header, &show).0, 404);
    assert_eq!(service.ask(Some(&service.token), &header, &show).0, 200);
    let traversing = ["--header", "imagespec-project: ../default"];
    assert_eq!(
        service
            .ask(Some(&service.token), &traversing, "/v1/builds")
            .0,
        404
    );
}

#[test]
fn a_token_that_is_revoked_is_known_no_more_and_none_is_kept_as_it_is() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let (read, admin) = (
        token(&service, "read", "default"),
        token(&service, "admin", "default"),
    );
    let place = service.place("");
    let listed = place.says(&["token", "list"]);
    let line = listed
        .lines()
        .find(|line| line.contains("read-default"))
        .expect("the token");
    let revoked = line.split_whitespace().next().expect("an id");
    place.says(&["token", "remove", revoked]);
    assert_eq!(service.ask(Some(&read), &[], "/v1/builds").0, 401);
    let database = fs_err::read(service.data.path().join("builds.db")).expect("the database");
    let log = fs_err::read(service.data.path().join("builds.db-wal")).unwrap_or_default();
    for secret in [&read, &admin, &service.token] {
        for kept in [&database, &log] {
            let found = kept
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is kept");
        }
    }
}

#[test]
fn versions_that_are_not_spoken_are_told_of() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    for (version, hint) in [("2", "update the service"), ("0", "update the client")] {
        let header = format!("imagespec-api: {version}");
        let (code, answer) =
            service.ask(Some(&service.token), &["--header", &header], "/v1/version");
        assert_eq!(code, 400);
        assert!(answer.contains(hint), "{answer}");
    }
}

#[test]
fn strangers_run_nothing_and_reach_nothing_of_the_service() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let registry = service.registry();
    let fetched = "requirements = \"r.txt\"\n";
    for (fields, files, field) in [
        ("commands = [\"id\"]", "", "commands"),
        ("packages = [\"a @ file:///etc/passwd\"]", "", "packages"),
        ("packages = [\"git+https://localhost/a\"]", "", "packages"),
        ("pip_index = \"http://169.254.169.254/\"", "", "pip_index"),
        (
            "pip_extra_index_url = [\"http://localhost/\"]",
            "",
            "pip_extra_index_url",
        ),
        ("pip_extra_args = \"--find-links /\"", "", "pip_extra_args"),
        (
            "conda_channels = [\"http://169.254.169.254/\"]",
            "",
            "conda_channels",
        ),
        ("conda_channels = [\"/srv\"]", "", "conda_channels"),
        (
            "conda_packages = [\"http://localhost/a::b\"]",
            "",
            "conda_packages",
        ),
        ("base_image = \"localhost:1/secret:1\"", "", "base_image"),
        (fetched, "-r /etc/passwd\n", "requirements"),
        (
            fetched,
            "--index-url http://localhost/\nsix\n",
            "requirements",
        ),
        (fetched, "six @ file:///srv/six.whl\n", "requirements"),
        (fetched, "-e .\n", "requirements"),
    ] {
        let place = service.place(&format!("[images.app]\n{fields}\n"));
        place.write("r.txt", files);
        let build = ["build", "--builder", "union", "--registry", &registry];
        let (code, said) = place.fails(&build);
        assert_eq!(code, Some(2), "{fields} {files}: {said}");
        assert!(said.contains(field), "{fields} {files}: {said}");
    }
    for (name, files) in [
        (
            "uv.lock",
            "version = 1\n[[package]]\nname = \"a\"\nversion = \"1\"\nsource = { registry = \"http://localhost/simple\" }\n",
        ),
        (
            "pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\ndependencies = [\"a @ file:///srv/a\"]\n",
        ),
    ] {
        let place = service.place(&format!("[images.app]\nrequirements = \"p/{name}\"\n"));
        place.write(
            "p/pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\n",
        );
        place.write(&format!("p/{name}"), files);
        let (code, said) = place.fails(&["build", "--builder", "union", "--registry", &registry]);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains("does not trust"), "{name}: {said}");
    }
    // What has no wheel would be built, and run what it likes.
    let place = service.place("[images.app]\npackages = [\"docopt==0.6.2\"]\n");
    let (code, said) = place.fails(&["build", "--builder", "union", "--registry", &registry]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("docopt"), "{said}");
    for elsewhere in [
        "localhost:1/a",
        &format!("{registry}-other"),
        "docker.io/library",
    ] {
        let place = service.place("[images.app]\n");
        let (code, said) = place.fails(&["build", "--builder", "union", "--registry", elsewhere]);
        assert_eq!(code, Some(2), "{elsewhere}: {said}");
        assert!(said.contains("may not push"), "{said}");
    }
}

#[test]
fn strangers_run_commands_without_a_network_where_they_may() {
    let settings = "[defaults]\ncommands = true\n";
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !has("setpriv") {
        return;
    }
    let Some(mut service) = Service::configured(Trust::Strangers, settings) else {
        return;
    };
    let registry = service.registry();
    let (_, port) = service.served.address.rsplit_once(':').expect("a port");
    let asks = format!(
        "python3 -c \\\"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\\\""
    );
    let data = service.data.path().display();
    let declaration = format!(
        "[images.app]\ncommands = [\"! {asks}\", \"test $(grep -c : /proc/net/dev) = 1\", \"test ! -e {data}\", \
         \"! env | grep -i -e index -e proxy -e token\", \"echo made > /root/made\"]\n\
         [images.lost]\ncommands = [\"{asks}\"]\n"
    );
    let union = ["--builder", "union", "--registry", &registry];
    let place = service.place(&declaration);
    let (code, said) = place.fails(&[&["build", "app"], &union[..]].concat());
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("do not run as root"), "{said}");

    service.demote();
    let place = service.place(&declaration);
    let built = place.builds(&[&["app"], &union[..]].concat());
    assert_eq!(built["built"], true);
    let (code, said) = place.fails(&[&["build", "lost"], &union[..]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("commands run without a network"), "{said}");
}

#[test]
fn secrets_and_logins_of_a_project_are_the_service_s_and_named() {
    if !has("python3") || !has("docker-registry") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| fs_err::write(path(name), text).expect("a file");
    let guarded = Served::guarded(folder.path());
    fs_err::create_dir(path("index")).expect("a folder");
    let (_index, port) = serve(
        "server.py",
        &path("index"),
        "reader:planted-index-password",
        &[],
    );
    write(
        "netrc",
        "machine 127.0.0.1 login reader password planted-index-password\n",
    );
    fs_err::create_dir(path("docker")).expect("a folder");
    let logins = json!({"auths": {&guarded.address: {"auth": AUTH}}});
    write("docker/config.json", &logins.to_string());
    let at = folder.path().display();
    let settings = format!(
        "[projects.acme]\ntrusted = true\ndocker_config = \"{at}/docker\"\n\
         [projects.acme.secrets]\nindex = \"{at}/netrc\"\n[projects.other]\ntrusted = true\n"
    );
    let Some(service) = Service::configured(Trust::Trusted, &settings) else {
        return;
    };
    let place = service.place(&format!(
        "[images.app]\npackages = [\"guarded-one\"]\npip_index = \"http://127.0.0.1:{port}/simple\"\n[images.plain]\n"
    ));
    let registry = format!("{}/team", guarded.address);
    let build = |image: &str, project: &str, secrets: &str| {
        let project = format!("project={project}");
        let secrets = format!("secrets={secrets}");
        let arguments = [
            "build",
            image,
            "--builder",
            "union",
            "--registry",
            &registry,
        ];
        let options = ["--option", &project, "--option", &secrets];
        let output = place.run(&[&arguments[..], &options].concat());
        let said = format!(
            "{}{}",
            told(&output),
            String::from_utf8_lossy(&output.stdout)
        );
        for secret in [PASSWORD, AUTH, "planted-index-password"] {
            assert!(!said.contains(secret), "{said}");
        }
        (output.status.code(), said)
    };
    let index = r#"{"index": "/root/.netrc"}"#;
    for (project, secrets, expected, parts) in [
        (
            "acme",
            r#"{"idx": "/root/.netrc"}"#,
            2,
            &["`idx`", "it has index"][..],
        ),
        (
            "acme",
            r#"{"index": "/root/../x"}"#,
            2,
            &["an absolute path"],
        ),
        ("acme", r#"["index"]"#, 2, &["a table of names"]),
        ("other", index, 2, &["`index`", "it has none"]),
        ("acme", "{}", 2, &["guarded-one"]),
        ("acme", index, 0, &["/team/app:"]),
    ] {
        let (code, said) = build("app", project, secrets);
        assert_eq!(code, Some(expected), "{project} {secrets}: {said}");
        for part in parts {
            assert!(said.contains(part), "{project} {secrets}: {said}");
        }
    }
    let (code, said) = build("plain", "other", "{}");
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("log in"), "{said}");
    // What was asked for and built is kept, and what it was built with is not.
    let words = [PASSWORD, AUTH, "planted-index-password"];
    assert_eq!(holding(&[service.data.path()], &words), "");
}

#[test]
fn a_token_is_taken_from_the_keyring() {
    let tools = ["dbus-run-session", "gnome-keyring-daemon", "secret-tool"];
    if !tools.into_iter().all(has) {
        return;
    }
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let place = service.place("[images.app]\n");
    let folder = tempfile::tempdir().expect("a folder");
    let listed = |user: &str| {
        let option = format!("token_keyring={user}");
        let script = "printf 'unlocked\\n' | gnome-keyring-daemon --unlock --components=secrets > /dev/null 2>&1; \
             printf %s \"$IMAGESPEC_TOKEN\" | secret-tool store --label imagespec service \"$IMAGESPEC_ENDPOINT\" username me; \
             unset IMAGESPEC_TOKEN; exec \"$@\"";
        let mut session = place.through(
            &["dbus-run-session", "--", "sh", "-c", script, "sh"],
            &["token", "list", "--option", &option],
        );
        session
            .env("HOME", folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .expect("a session")
    };
    let output = listed("me");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("admin"),
        "{output:?}"
    );
    let output = listed("somebody");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        said.contains("user `somebody`") && said.contains("secret-tool"),
        "{said}"
    );
    let secret = &service.token;
    assert!(!said.contains(secret.as_str()), "{said}");

    let mut alone = place.command(&["token", "list", "--option", "token_keyring=me"]);
    alone.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nothing/there");
    let output = alone.output().expect("the command");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("no keyring answers here"), "{said}");
}
