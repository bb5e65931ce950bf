//! A proxy in front of a registry that goes wrong in the way, and as often, as it is told.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imagespec_core::digest::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// What can go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An answer of the proxy's own, as soon as it has seen the head of the request.
    Status(u16),
    /// As [`Fault::Status`], with this body.
    Says(u16, &'static str),
    /// The same path at another port of this machine.
    Elsewhere(u16),
    /// The connection is closed without an answer; the registry sees nothing.
    CloseAtOnce,
    /// The connection is closed in the middle of the request's body, on both sides.
    CloseMidRequest,
    /// The registry answers, and nobody hears of it.
    LoseAnswer,
    /// The connection is closed in the middle of the answer's head.
    CloseMidHead,
    /// The connection is closed in the middle of the answer's body.
    Truncate,
    /// Half of the answer's body, said to be all.
    Shorten,
    /// A byte at a time.
    Drip,
    /// No answer, on an open connection.
    Silence,
    /// Another digest in the answer's head.
    WrongDigest,
    /// Other content in the answer's body.
    WrongContent,
    /// A mount that the registry would rather have uploaded.
    NoMount,
}

/// Which requests go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    /// A part of the path.
    pub(crate) path: &'static str,
    pub(crate) fault: Fault,
    /// How many of them.
    pub(crate) times: usize,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0)
    }
}

pub(crate) struct Proxy {
    pub(crate) name: String,
    rules: Arc<Mutex<Vec<Rule>>>,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// In front of the registry on a port of this machine.
    pub(crate) async fn start(upstream: &str, rules: Vec<Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let name = listener.local_addr().expect("a port").to_string();
        let rules = Arc::new(Mutex::new(rules));
        let seen = Arc::new(Mutex::default());
        let (upstream, mine, log) = (upstream.to_owned(), rules.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let (upstream, rules, seen) = (upstream.clone(), mine.clone(), log.clone());
                tokio::spawn(async move {
                    // A broken connection is what this is about.
                    let _ = serve(BufStream::new(client), &upstream, &rules, &seen).await;
                });
            }
        });
        Self {
            name,
            rules,
            seen,
            task,
        }
    }

    /// From now on, this too.
    pub(crate) fn add(&self, rule: Rule) {
        self.rules.lock().expect("a list").push(rule);
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("a list").clone()
    }

    /// How many faults did not happen.
    pub(crate) fn left(&self) -> usize {
        self.rules
            .lock()
            .expect("a list")
            .iter()
            .map(|rule| rule.times)
            .sum()
    }
}

/// A connection.
pub(crate) type Stream = BufStream<TcpStream>;

/// The head of a request.
pub(crate) async fn read_request(stream: &mut Stream) -> io::Result<(Request, Vec<u8>)> {
    let head = read_head(stream).await?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let request = Request {
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        headers: headers.collect(),
    };
    Ok((request, head))
}

async fn read_head(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

async fn serve(
    mut client: Stream,
    upstream: &str,
    rules: &Mutex<Vec<Rule>>,
    seen: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let (request, head) = read_request(&mut client).await?;
    seen.lock().expect("a list").push(request.clone());
    let fault = {
        let mut rules = rules.lock().expect("a list");
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0 && rule.method == request.method && request.path.contains(rule.path)
        });
        rule.map(|rule| {
            rule.times -= 1;
            rule.fault
        })
    };
    match fault {
        Some(Fault::Status(status)) => return refuse(&mut client, status).await,
        Some(Fault::Says(status, body)) => return say(&mut client, status, "", body).await,
        Some(Fault::Elsewhere(port)) => {
            let place = format!("location: http://127.0.0.1:{port}{}\r\n", request.path);
            return say(&mut client, 307, &place, "").await;
        }
        Some(Fault::CloseAtOnce) => return Ok(()),
        Some(Fault::Silence) => return wait(&mut client).await,
        _ => {}
    }
    let mut registry = BufStream::new(TcpStream::connect(upstream).await?);
    let mut head = String::from_utf8_lossy(&head).into_owned();
    if fault == Some(Fault::NoMount) {
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        head = head.replace(&request.path, path);
    }
    let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    registry.write_all(head.as_bytes()).await?;
    let length = match fault {
        Some(Fault::CloseMidRequest) => request.length() / 2,
        _ => request.length(),
    };
    let mut body = client.take(length as u64);
    tokio::io::copy(&mut body, &mut registry).await?;
    registry.flush().await?;
    if fault == Some(Fault::CloseMidRequest) {
        return Ok(());
    }
    let mut client = body.into_inner();
    let head = read_head(&mut registry).await?;
    let mut body = Vec::new();
    registry.read_to_end(&mut body).await?;
    answer(&mut client, fault, head, body).await
}

async fn answer(
    client: &mut Stream,
    fault: Option<Fault>,
    head: Vec<u8>,
    mut body: Vec<u8>,
) -> io::Result<()> {
    let mut text = String::from_utf8_lossy(&head).into_owned();
    match fault {
        Some(Fault::LoseAnswer) => return Ok(()),
        Some(Fault::CloseMidHead) => {
            client.write_all(&head[..head.len() / 2]).await?;
            return client.flush().await;
        }
        Some(Fault::Truncate) => body.truncate(body.len() / 2),
        Some(Fault::Shorten) => {
            let whole = format!("Content-Length: {}", body.len());
            body.truncate(body.len() / 2);
            text = text.replace(&whole, &format!("Content-Length: {}", body.len()));
        }
        Some(Fault::WrongDigest) => {
            if let Some(at) = text.find("Docker-Content-Digest: ") {
                let start = at + "Docker-Content-Digest: ".len();
                let end = start + Digest::of("").to_string().len();
                text.replace_range(start..end, &Digest::of("another").to_string());
            }
        }
        Some(Fault::WrongContent) => {
            if let Some(byte) = body.last_mut() {
                *byte ^= 1;
            }
        }
        Some(Fault::Drip) => {
            for byte in head.iter().chain(&body) {
                client.write_u8(*byte).await?;
                client.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return Ok(());
        }
        _ => {}
    }
    client.write_all(text.as_bytes()).await?;
    client.write_all(&body).await?;
    client.flush().await
}

/// An answer as registries refuse, with the challenge and the patience that go with it.
async fn refuse(client: &mut Stream, status: u16) -> io::Result<()> {
    let (code, more) = match status {
        401 => ("UNAUTHORIZED", "www-authenticate: Basic realm=\"test\"\r\n"),
        403 => ("DENIED", ""),
        429 => ("TOOMANYREQUESTS", "retry-after: 0\r\n"),
        _ => ("UNKNOWN", ""),
    };
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"injected"}}]}}"#);
    say(client, status, more, &body).await
}

async fn say(client: &mut Stream, status: u16, more: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Fault\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await?;
    // The rest of the request: closing before it is read would lose the answer on its way.
    wait(client).await
}

/// Reads until the other side has had enough.
async fn wait(client: &mut Stream) -> io::Result<()> {
    let mut rest = vec![0; 65536];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}
