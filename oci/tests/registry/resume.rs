//! Uploads that go on where they broke off, against a registry of a few lines that keeps what it has got; and
//! uploads that a registry sends elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_http::Retry;
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::{BlobPush, Mounts, Stored, Tuning};
use imagespec_oci::{Registry, RegistryError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpListener;

use crate::images::Images;
use crate::proxy::{Request, Stream, read_request};
use crate::server::AUTH;

const CHUNK: u64 = 256 << 10;

/// How the registry behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// As it should.
    Good,
    /// Takes no chunks.
    Monolithic,
    /// Forgets sessions whose connection breaks.
    Forgetful,
    /// Sends uploads to another origin, which wants to know nobody.
    Elsewhere,
    /// Takes uploads, and sends each request to another origin.
    Redirecting,
    /// Says that it has more than it has.
    Boasting,
    /// Says that it has more than there is.
    Lying,
}

#[derive(Debug, Default)]
struct State {
    /// What there is of the blob.
    content: Vec<u8>,
    complete: bool,
    /// How many bytes came, in all.
    received: u64,
    /// After how many bytes of a body the connection breaks, for as often as there are any.
    breaks: Vec<usize>,
    seen: Vec<Request>,
}

type Shared = Arc<Mutex<State>>;

/// Serves one blob on a port of its own; `own` is where it says that it is.
async fn start(habit: Habit, breaks: &[usize]) -> (String, Shared) {
    let state = Shared::default();
    state.lock().expect("a state").breaks = breaks.to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let name = listener.local_addr().expect("a port").to_string();
    let second = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let elsewhere = second.local_addr().expect("a port").to_string();
    for listener in [listener, second] {
        let (state, elsewhere) = (Arc::clone(&state), elsewhere.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (state, elsewhere) = (Arc::clone(&state), elsewhere.clone());
                tokio::spawn(async move {
                    // A broken connection is what this is about.
                    let _ = serve(BufStream::new(stream), habit, &state, &elsewhere).await;
                });
            }
        });
    }
    (name, state)
}

async fn serve(
    mut stream: Stream,
    habit: Habit,
    state: &Mutex<State>,
    elsewhere: &str,
) -> io::Result<()> {
    let (request, _) = read_request(&mut stream).await?;
    state.lock().expect("a state").seen.push(request.clone());
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let there = request.header("host") == Some(elsewhere);
    let away = format!("http://{elsewhere}/v2/app/blobs/uploads/1");
    let place = match habit {
        Habit::Elsewhere => away.as_str(),
        _ => "/v2/app/blobs/uploads/1?state=x",
    };
    let location = format!("location: {place}\r\n");
    let (status, more) = match request.method.as_str() {
        "HEAD" if state.lock().expect("a state").complete => (200, String::new()),
        "HEAD" => (404, String::new()),
        "POST" if request.header("authorization").is_none() => {
            (401, "www-authenticate: Basic realm=\"test\"\r\n".to_owned())
        }
        "POST" => {
            state.lock().expect("a state").content.clear();
            (202, location)
        }
        "PATCH" | "PUT" if habit == Habit::Redirecting && !there => {
            let away = format!("location: {away}?{query}\r\n");
            return respond(&mut stream, 307, &away).await;
        }
        "PATCH" if habit == Habit::Monolithic => (405, String::new()),
        "PATCH" => {
            if !take(&mut stream, &request, habit, state).await? {
                return Ok(());
            }
            let length = state.lock().expect("a state").content.len();
            (202, format!("{location}range: 0-{}\r\n", length - 1))
        }
        "PUT" => {
            if !take(&mut stream, &request, habit, state).await? {
                return Ok(());
            }
            finish(query, state)
        }
        "GET" if path.ends_with("/uploads/1") => {
            let length = state.lock().expect("a state").content.len();
            match length {
                0 => (404, String::new()),
                length if habit == Habit::Boasting => {
                    (204, format!("{location}range: 0-{}\r\n", length + 999))
                }
                _ if habit == Habit::Lying => {
                    (204, format!("{location}range: 0-{}\r\n", u64::MAX / 2))
                }
                length => (204, format!("{location}range: 0-{}\r\n", length - 1)),
            }
        }
        _ => (400, String::new()),
    };
    respond(&mut stream, status, &more).await
}

/// Takes the body of a request; `false` says that the connection breaks.
async fn take(
    stream: &mut Stream,
    request: &Request,
    habit: Habit,
    state: &Mutex<State>,
) -> io::Result<bool> {
    let length = request.length();
    let at = {
        let mut state = state.lock().expect("a state");
        (length > 0).then(|| state.breaks.pop()).flatten()
    };
    let mut bytes = vec![0; at.unwrap_or(length).min(length)];
    stream.read_exact(&mut bytes).await?;
    let mut state = state.lock().expect("a state");
    state.received += bytes.len() as u64;
    state.content.extend(bytes);
    if at.is_some() && habit == Habit::Forgetful {
        state.content.clear();
    }
    Ok(at.is_none())
}

fn finish(query: &str, state: &Mutex<State>) -> (u16, String) {
    let mut state = state.lock().expect("a state");
    let wanted = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("digest="));
    let digest = Digest::of(&state.content).to_string();
    state.complete = wanted == Some(digest.replace(':', "%3A").as_str());
    (if state.complete { 201 } else { 400 }, String::new())
}

async fn respond(stream: &mut Stream, status: u16, more: &str) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} X\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

/// Pushes a blob of `size` bytes, none like its neighbour.
async fn push(name: &str, size: u64) -> Result<u64, RegistryError> {
    let config = format!(r#"{{"auths":{{"{name}":{{"auth":"{AUTH}"}}}}}}"#);
    let host = Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        ..Host::default()
    };
    let tuning = Tuning {
        retry: Retry {
            tries: 4,
            first_wait: Duration::from_millis(5),
            ..Retry::default()
        },
        chunk: CHUNK,
    };
    let registry = Registry::with_tuning(&host, name, tuning).expect("a registry");
    let images = Images::new();
    let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let digest = images.store.put(&content).expect("a blob");
    let told = Mutex::new(0);
    let progress = |bytes| *told.lock().expect("a sum") += bytes;
    let push = BlobPush {
        store: &images.store,
        source: &Stored,
        repository: "app",
        absent: false,
        mounts: &Mounts::default(),
        progress: &progress,
    };
    let blob = Descriptor::new("application/vnd.oci.image.layer.v1.tar", digest, size);
    let sent = registry.push_blob(&blob, push).await?;
    assert_eq!(*told.lock().expect("a sum"), size);
    Ok(sent)
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off() {
    let size = 4 * CHUNK + 1000;
    // Popped from the end: in the second chunk as in the first, and again.
    let (name, state) = start(Habit::Good, &[7, 100_000, 200_000]).await;
    assert_eq!(push(&name, size).await.expect("a push"), size);
    let state = state.lock().expect("a state");
    assert!(state.complete);
    assert_eq!(state.received, size, "nothing is sent twice");
    let chunks = state
        .seen
        .iter()
        .filter(|request| request.method == "PATCH");
    let ranges: Vec<_> = chunks
        .filter_map(|chunk| chunk.header("content-range"))
        .collect();
    assert_eq!(ranges[..2], ["0-262143", "200000-462143"]);
}

#[tokio::test]
async fn a_small_blob_goes_at_once_and_on_by_chunks() {
    let size = CHUNK;
    let (name, state) = start(Habit::Good, &[1000]).await;
    push(&name, size).await.expect("a push");
    let state = state.lock().expect("a state");
    assert_eq!(state.received, size);
    let methods: Vec<_> = state
        .seen
        .iter()
        .map(|request| request.method.as_str())
        .collect();
    assert_eq!(
        methods,
        ["HEAD", "POST", "POST", "PUT", "GET", "PATCH", "PUT"]
    );
}

#[tokio::test]
async fn what_a_registry_cannot_do_is_done_otherwise() {
    let size = 4 * CHUNK;
    for (habit, breaks, again) in [
        // The first chunk was not taken.
        (Habit::Monolithic, &[][..], 0),
        (Habit::Forgetful, &[1000][..], 1000),
        (Habit::Boasting, &[1000][..], 1000 + CHUNK),
        (Habit::Lying, &[1000][..], 1000),
    ] {
        let (name, state) = start(habit, breaks).await;
        push(&name, size).await.expect("a push");
        let state = state.lock().expect("a state");
        assert!(state.complete, "{habit:?}");
        assert_eq!(state.received, size + again, "{habit:?}");
    }
}

#[tokio::test]
async fn no_other_host_sees_who_we_are() {
    for habit in [Habit::Elsewhere, Habit::Redirecting] {
        let (name, state) = start(habit, &[]).await;
        push(&name, 4 * CHUNK).await.expect("a push");
        let state = state.lock().expect("a state");
        assert!(state.complete, "{habit:?}");
        let mut away = 0;
        for request in &state.seen {
            let own = request.header("host") == Some(name.as_str());
            away += usize::from(!own);
            let known = request.header("authorization").is_some();
            assert!(own || !known, "{habit:?}: {request:?}");
        }
        assert!(away >= 5, "{habit:?}: {away}");
    }
}

#[tokio::test]
async fn a_registry_that_never_gets_further_is_given_up() {
    let (name, state) = start(Habit::Good, &[0; 100]).await;
    let error = push(&name, 4 * CHUNK).await.expect_err("no push");
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    let state = state.lock().expect("a state");
    let chunks = state
        .seen
        .iter()
        .filter(|request| request.method == "PATCH");
    assert_eq!(chunks.count(), 4);
}
