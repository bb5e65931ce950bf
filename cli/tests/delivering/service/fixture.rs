//! A service with a registry, and connections to it that break.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::place::{Place, Running, has};
use crate::registry::Served;

/// What runs a program as an ordinary user.
const NOBODY: [&str; 5] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--",
];

/// Whether the service trusts whoever asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Strangers,
    Trusted,
}

/// A service, its registry, and its first token.
pub(crate) struct Service {
    process: Option<Running>,
    place: Place,
    pub(super) data: Arc<TempDir>,
    pub(super) served: Arc<Served>,
    trust: Trust,
    database: Option<String>,
    files: Option<String>,
    builder: &'static [&'static str],
    /// Whether it runs as an ordinary user where the test is root.
    demoted: bool,
    pub(crate) address: String,
    pub(crate) token: String,
}

impl Service {
    pub(super) fn start(trust: Trust) -> Option<Self> {
        Self::with_database(trust, None)
    }

    pub(super) fn with_database(trust: Trust, database: Option<String>) -> Option<Self> {
        if !has("docker-registry") || !has("curl") {
            return None;
        }
        let mut service = Self {
            process: None,
            place: Place::new(""),
            data: Arc::new(tempfile::tempdir().expect("a folder")),
            served: Arc::new(Served::new(&[])),
            trust,
            database,
            files: None,
            builder: &[],
            demoted: false,
            address: free(),
            token: String::new(),
        };
        service.token = service.run().expect("a first token");
        Some(service)
    }

    /// One whose files are in an object store, which variables say how to ask.
    pub(super) fn with_files(
        trust: Trust,
        database: String,
        files: &str,
        variables: &[(&str, String)],
    ) -> Option<Self> {
        let mut service = Self::with_database(trust, Some(database))?;
        service.files = Some(files.to_owned());
        for (name, value) in variables {
            service.place.set(name, value);
        }
        service.run();
        Some(service)
    }

    /// One whose workers are another builder, which flags and variables tell of.
    pub(crate) fn with_builder(
        builder: &'static [&'static str],
        variables: &[(&str, &str)],
    ) -> Option<Self> {
        let mut service = Self::start(Trust::Trusted)?;
        service.builder = builder;
        for (name, value) in variables {
            service.place.set(name, value);
        }
        service.run();
        Some(service)
    }

    /// One with settings of its own.
    pub(super) fn configured(trust: Trust, settings: &str) -> Option<Self> {
        let mut service = Self::start(trust)?;
        service.place.write("service.toml", settings);
        service.builder = &["--config", "service.toml"];
        service.run();
        Some(service)
    }

    /// The same as an ordinary user, with a cache of its own.
    pub(super) fn demote(&mut self) {
        self.process = None;
        let settings = fs_err::read_to_string(self.place.path("project/service.toml"));
        self.place = Place::with_own_cache("");
        self.place
            .write("service.toml", &settings.expect("settings"));
        let home = self.place.path("");
        self.place.set("HOME", home.to_str().expect("a path"));
        let chown = Command::new("chown")
            .args(["--recursive", "65534:65534"])
            .args([&home, self.data.path()])
            .status();
        assert!(chown.expect("chown").success());
        self.demoted = true;
        self.run();
    }

    /// Another one that shares database and object store with this one, and has a folder of its own.
    pub(super) fn elsewhere(&self) -> Self {
        let mut other = self.sibling(Arc::new(tempfile::tempdir().expect("a folder")));
        other.run();
        other
    }

    /// Another one that shares database and folder with this one.
    pub(super) fn beside(&self) -> Self {
        let mut other = self.sibling(Arc::clone(&self.data));
        other.run();
        other
    }

    fn sibling(&self, data: Arc<TempDir>) -> Self {
        Self {
            process: None,
            place: self.place.again(),
            data,
            served: Arc::clone(&self.served),
            trust: self.trust,
            database: self.database.clone(),
            files: self.files.clone(),
            builder: self.builder,
            demoted: self.demoted,
            address: free(),
            token: self.token.clone(),
        }
    }

    /// Starts it, and returns the token that it tells of the first time.
    pub(super) fn run(&mut self) -> Option<String> {
        self.process = None;
        let data = self.data.path().to_str().expect("a path").to_owned();
        let registry = self.registry();
        let mut arguments = vec!["serve", "--data", &data, "--listen", &self.address];
        arguments.extend(self.builder);
        match self.trust {
            Trust::Trusted => arguments.push("--trusted"),
            Trust::Strangers => arguments.extend(["--registry", &registry]),
        }
        if let Some(database) = &self.database {
            arguments.extend(["--database", database]);
        }
        if let Some(files) = &self.files {
            arguments.extend(["--files", files]);
        }
        let mut command = if self.demoted {
            self.place.through(&NOBODY, &arguments)
        } else {
            self.place.command(&arguments)
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the service");
        let stdout = child.stdout.take().expect("its output");
        self.process = Some(Running(child));
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next().expect("a line").expect("a text");
        assert!(first.starts_with("listening at http://"), "{first}");
        // The address is told before the token, and is answered from after both.
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.get("/healthz").0 != 200 {
            assert!(Instant::now() < deadline, "the service does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        if !self.token.is_empty() {
            return None;
        }
        lines.nth(1).map(|line| line.expect("a token"))
    }

    /// Ends it as a loss of power does.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Where images go.
    pub(crate) fn registry(&self) -> String {
        format!("{}/team", self.served.address)
    }

    /// A project whose commands ask this service.
    pub(crate) fn place(&self, declaration: &str) -> Place {
        let mut place = Place::new(declaration);
        place.set("IMAGESPEC_ENDPOINT", &format!("http://{}", self.address));
        place.set("IMAGESPEC_TOKEN", &self.token);
        place
    }

    /// Asks for the build of a project and does not wait; returns its id.
    pub(super) fn detached(&self, place: &Place, more: &[&str]) -> String {
        let registry = self.registry();
        let arguments = ["build", "--builder", "union", "--registry", &registry];
        place.says(&[&arguments[..], &["--detach"], more].concat())
    }

    /// Asks with a token, or without, and returns the status and the answer.
    pub(super) fn ask(&self, token: Option<&str>, arguments: &[&str], path: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ]);
        if let Some(token) = token {
            command.args(["--header", &format!("authorization: Bearer {token}")]);
        }
        let url = format!("http://{}{path}", self.address);
        let output = command.args(arguments).arg(url).output().expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or((&text, "0"));
        (code.parse().unwrap_or(0), body.to_owned())
    }

    pub(super) fn get(&self, path: &str) -> (u16, String) {
        self.ask(Some(&self.token), &[], path)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_as(&self.token, path, body)
    }

    pub(super) fn post_as(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let json = ["--json", &body];
        let (code, answer) = self.ask(Some(token), &json, path);
        (code, serde_json::from_str(&answer).unwrap_or(Value::Null))
    }

    /// All builds, newest first.
    pub(super) fn builds(&self) -> Vec<Value> {
        let (code, answer) = self.get("/v1/builds?limit=200");
        assert_eq!(code, 200, "{answer}");
        let mut all: Value = serde_json::from_str(&answer).expect("JSON");
        all["builds"]
            .as_array_mut()
            .map(std::mem::take)
            .expect("builds")
    }

    /// Waits until the newest build is in a state.
    pub(super) fn until(&self, state: &str) {
        let deadline = Instant::now() + Duration::from_mins(3);
        while self
            .builds()
            .first()
            .is_none_or(|build| build["state"] != *state)
        {
            assert!(Instant::now() < deadline, "{:?}", self.builds());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The numbers of a build's events, as they are told.
    pub(super) fn numbers(&self, id: &str) -> Vec<i64> {
        let (code, events) = self.get(&format!("/v1/builds/{id}/events"));
        assert_eq!(code, 200, "{events}");
        let numbers = events.lines().filter_map(|line| line.strip_prefix("id: "));
        numbers
            .map(|number| number.parse().expect("a number"))
            .collect()
    }
}

/// An address that nobody has.
pub(crate) fn free() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("an address").to_string()
}

/// How many lines of a log end with a text.
pub(super) fn lines(log: &str, text: &str) -> usize {
    let text = format!(" {text}");
    log.lines().filter(|line| line.ends_with(&text)).count()
}

/// Stands before a service, and breaks every connection after some bytes of answers: each after so many more than the
/// one before, so that the longest answer comes through at last.
pub(super) struct Cut {
    pub(super) address: String,
    connections: Arc<AtomicUsize>,
}

impl Cut {
    pub(super) fn before(service: &str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let service = service.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let before = counted.fetch_add(1, Ordering::Relaxed);
                let bytes = bytes * (before as u64 + 1);
                let service = service.clone();
                std::thread::spawn(move || pass(client, &service, bytes));
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn pass(mut client: TcpStream, service: &str, bytes: u64) {
    let Ok(mut server) = TcpStream::connect(service) else {
        return;
    };
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::spawn(move || {
        // It ends with either side.
        let _ = std::io::copy(&mut from, &mut to);
    });
    let mut left = bytes;
    let mut buffer = [0; 512];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        let read = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
        left -= read as u64;
        if left == 0 {
            break;
        }
    }
    // Whoever is gone already is gone.
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Both);
}
