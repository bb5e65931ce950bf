//! The builder `default` where something is in its way.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::docker::HOST;
use crate::engine::{Engine, Release};
use crate::place::Place;

/// A disk of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(mounted.expect("mount").success());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
    }
}

/// A registry that lets nobody push, with the status that it answers and what it says.
fn refusing(refusal: &'static str, said: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut request = String::new();
                reader.read_line(&mut request)?;
                let mut line = String::new();
                while reader.read_line(&mut line)? > 2 {
                    line.clear();
                }
                let (status, body) = match request.split(' ').next() {
                    Some("GET") if request.starts_with("GET /v2/ ") => ("200 OK", ""),
                    Some("HEAD") => ("404 Not Found", ""),
                    Some("GET") => (
                        "404 Not Found",
                        r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#,
                    ),
                    _ => (refusal, said),
                };
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                )
            });
        }
    });
    address
}

/// How an engine's containers stand: none is left behind.
fn containers(engine: &Engine) -> String {
    let output = engine.client().args(["ps", "--all", "--quiet"]).output();
    String::from_utf8(output.expect("docker").stdout).expect("a text")
}

#[test]
fn a_registry_that_refuses_a_loud_command_and_many_at_once() {
    let Some(engine) = Engine::start(Release::Oldest) else {
        return;
    };
    let said = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied: the quota of acme"}]}"#;
    let expired =
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"the token expired a while ago"}]}"#;
    let mut declaration = format!(
        "[images.pushed]\nregistry = \"{}/acme\"\n[images.expired]\nregistry = \"{}/acme\"\n\
         [images.loud]\ncommands = [\"head -c 100000000 /dev/zero | tr '\\\\0' x | fold -w 100; exit 7\"]\n",
        refusing("403 Forbidden", said),
        refusing("401 Unauthorized", expired)
    );
    for number in 0..10 {
        let command = format!("commands = [\"echo {number}; sleep 1\"]");
        declaration = format!("{declaration}[images.many{number}]\n{command}\n");
    }
    let mut place = Place::new(&declaration);
    place.set("DOCKER_HOST", &engine.address());
    let builds =
        |target: &'static str| [&["build", target, "--builder", "default"], &HOST[..]].concat();

    let (code, said) = place.fails(&builds("pushed"));
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("denied: the quota of acme") && said.contains("`docker login 127.0.0.1:"),
        "{said}"
    );

    let (code, said) = place.fails(&builds("expired"));
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("the token expired a while ago") && said.contains("`docker login 127.0.0.1:"),
        "{said}"
    );

    let (code, said) = place.fails(&builds("loud"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it ended with code 7"), "{said}");
    // The engine tells of some of it, and we repeat the end.
    assert!(said.len() < 8 << 20, "{}", said.len());

    let started = (0..10).map(|number| {
        let target = format!("many{number}");
        let mut command =
            place.command(&[&["build", &target, "--builder", "default"], &HOST[..]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the command")
    });
    let started: Vec<_> = started.collect();
    for child in started {
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(containers(&engine), "");
}

#[test]
fn a_full_disk_of_the_engine_is_said_to_be_full() {
    let mounts = Command::new("id").arg("-u").output().expect("id").stdout == b"0\n";
    if !mounts {
        return;
    }
    let disk = Disk::mount(600);
    let Some(engine) = Engine::start_on(Release::Oldest, Some(disk.path())) else {
        return;
    };
    let mut place =
        Place::new("[images.app]\ncommands = [\"head -c 900000000 /dev/urandom > /root/big\"]\n");
    place.set("DOCKER_HOST", &engine.address());
    let build = [&["build", "--builder", "default"], &HOST[..]].concat();
    let (code, said) = place.fails(&build);
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "cannot run `head -c 900000000",
        "No space left on device",
        "`docker system prune`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(containers(&engine), "");
    drop(engine);
}
