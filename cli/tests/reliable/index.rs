//! A package index on this machine, which can be told to lie.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::wheels::sha256;

/// What the index does wrong when it is asked for a wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It sends half and hangs up, the first time.
    HalfOnce,
    /// It sends half and hangs up.
    Half,
    /// It says that half is all.
    Short,
    /// It sends something else.
    Other,
    /// It hangs up on every request, also for pages.
    Closed,
    /// It sends no wheel before it is set to something else.
    Held,
}

struct State {
    /// Wheel by path of the request.
    wheels: HashMap<String, PathBuf>,
    /// Page by path of the request.
    pages: HashMap<String, String>,
    fault: Mutex<Fault>,
    /// The value of `Authorization` that is asked for.
    login: Option<String>,
    /// Names of wheels that were asked for.
    asked: Mutex<Vec<String>>,
    /// Whether somebody waits for a wheel that is held.
    holds: AtomicBool,
}

/// The index. It serves until the tests end.
pub(crate) struct Index {
    port: u16,
    state: Arc<State>,
}

impl Index {
    /// Serves wheels, for those only who send `login`, if there is one.
    pub(crate) fn serve(wheels: &[PathBuf], login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let mut state = State {
            wheels: HashMap::new(),
            pages: HashMap::new(),
            fault: Mutex::new(Fault::None),
            login: login.map(str::to_owned),
            asked: Mutex::new(Vec::new()),
            holds: AtomicBool::new(false),
        };
        for wheel in wheels {
            let file = wheel.file_name().expect("a name").display().to_string();
            let name = file.split('-').next().expect("a name").to_owned();
            // With the metadata beside it, the resolver needs nothing of the wheel itself.
            let page = format!(
                "<html><body><a href=\"/files/{file}#sha256={}\" data-core-metadata=\"true\">{file}</a></body></html>",
                sha256(wheel)
            );
            let metadata = crate::wheels::metadata(&name);
            let beside = format!("/files/{file}.metadata");
            state.pages.insert(format!("/simple/{name}/"), page);
            state.pages.insert(beside, metadata);
            state.wheels.insert(format!("/files/{file}"), wheel.clone());
        }
        let state = Arc::new(state);
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                // Whoever asks may hang up at any moment.
                std::thread::spawn(move || answer(&state, &stream).unwrap_or_default());
            }
        });
        Self { port, state }
    }

    /// Its URL, with credentials if they are given.
    pub(crate) fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}/simple", self.port)
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("a lock") = fault;
    }

    /// Waits until somebody waits for a wheel that is held.
    pub(crate) fn until_held(&self) {
        let until = Instant::now() + Duration::from_mins(2);
        while !self.state.holds.load(Ordering::Relaxed) {
            assert!(Instant::now() < until, "nobody asks for a wheel");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The wheels that were asked for, each as often as it was.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().expect("a lock").clone()
    }
}

fn answer(state: &State, stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next());
    let path = path.unwrap_or_default().to_owned();
    let (mut from, mut login) = (0, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let start = value
                    .strip_prefix("bytes=")
                    .and_then(|v| v.split('-').next());
                from = start.and_then(|start| start.parse().ok()).unwrap_or(0);
            }
            "authorization" => login = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut fault = *state.fault.lock().expect("a lock");
    if fault == Fault::Closed {
        return Ok(());
    }
    while fault == Fault::Held && state.wheels.contains_key(&path) {
        state.holds.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
        fault = *state.fault.lock().expect("a lock");
    }
    let mut out = stream;
    if state.login.is_some() && state.login != login {
        let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\n";
        return write!(out, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if let Some(page) = state.pages.get(&path) {
        let (head, length) = ("HTTP/1.1 200 OK\r\nContent-Type: text/html", page.len());
        return write!(
            out,
            "{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        );
    }
    match state.wheels.get(&path) {
        Some(wheel) => send(state, out, wheel, method, from, fault),
        None => write!(
            out,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    }
}

fn send(
    state: &State,
    mut out: &TcpStream,
    wheel: &Path,
    method: &str,
    from: u64,
    fault: Fault,
) -> std::io::Result<()> {
    let mut file = fs_err::File::open(wheel)?;
    let length = file.metadata()?.len();
    let left = length.saturating_sub(from);
    let (status, announced) = match fault {
        Fault::Short => ("200 OK", length / 2),
        _ if from > 0 => ("206 Partial Content", left),
        _ => ("200 OK", length),
    };
    write!(out, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
    if from > 0 {
        write!(
            out,
            "Content-Range: bytes {from}-{}/{length}\r\n",
            length - 1
        )?;
    }
    write!(out, "Content-Length: {announced}\r\n\r\n")?;
    if method == "HEAD" {
        return Ok(());
    }
    let name = wheel.file_name().unwrap_or_default();
    state
        .asked
        .lock()
        .expect("a lock")
        .push(name.display().to_string());
    let half = left / 2;
    file.seek(SeekFrom::Start(from))?;
    if fault == Fault::HalfOnce {
        *state.fault.lock().expect("a lock") = Fault::None;
    }
    match fault {
        Fault::Half | Fault::HalfOnce => std::io::copy(&mut file.take(half), &mut out)?,
        Fault::Short => std::io::copy(&mut file.take(announced), &mut out)?,
        Fault::Other => std::io::copy(&mut std::io::repeat(7).take(left), &mut out)?,
        Fault::None | Fault::Closed | Fault::Held => std::io::copy(&mut file, &mut out)?,
    };
    out.flush()
}
