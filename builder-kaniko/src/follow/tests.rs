//! A Job followed through what a real cluster does when nobody can ask it to: a script answers in its place.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use imagespec_core::event::Silent;
use imagespec_core::mask::Mask;
use imagespec_dockerfile::Tree;
use kube::{Client, Config as Configuration};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::answers::Answers;
use crate::job::EXECUTOR;

/// The protocol of streams that cannot be closed one by one.
const V4: &str = "v4.channel.k8s.io";

#[test]
fn only_errors_one_after_another_are_a_silence() {
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    let mut silence = Silence::default();
    let too_many = |silence: &mut Silence, times: &[u64]| {
        times.iter().any(|seconds| silence.error(at(*seconds)))
    };
    assert!(!too_many(&mut silence, &[0, 30, 60, 90, 120, 150, 180]));
    // A watch that goes on quietly says nothing.
    assert!(!too_many(&mut silence, &[400, 700, 1000]));
    silence.answer();
    assert!(!too_many(&mut silence, &[1010, 1040, 1080, 1120, 1160]));
    assert!(too_many(&mut silence, &[1195]));
}

/// What a script is asked.
struct Asked {
    /// `jobs` or `pods` or another kind.
    kind: String,
    /// What of one object is meant, where it is one: itself, or its `log`.
    part: Option<String>,
    watches: bool,
}

/// What came over the standard input of a pod.
type Received = Arc<Mutex<Vec<u8>>>;

type Script = dyn FnMut(&Asked) -> Vec<Value> + Send;

/// What a cluster is made of that only says what it is told to.
#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    stdin: Received,
}

impl Scripted {
    /// A cluster whose answers are documents of JSON, a line each.
    async fn cluster(
        stdin: &Received,
        script: impl FnMut(&Asked) -> Vec<Value> + Send + 'static,
    ) -> Cluster {
        let server = Self {
            script: Arc::new(Mutex::new(script)),
            stdin: Arc::clone(stdin),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let answer = service_fn(move |request| {
                    let answer = server.clone().answer(request);
                    ready(Ok::<_, Infallible>(answer))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .with_upgrades();
                tokio::spawn(connection);
            }
        });
        let url = format!("http://{address}").parse().expect("a URL");
        let client = Client::try_from(Configuration::new(url)).expect("a client");
        Cluster {
            client,
            namespace: "builds".to_owned(),
            place: "a script".to_owned(),
        }
    }

    fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if path.ends_with("/attach") {
            return self.attach(request);
        }
        let parts: Vec<_> = path.split('/').collect();
        let after = parts.iter().position(|part| *part == "builds");
        let after = after.map_or(&[][..], |at| &parts[at + 1..]);
        let asked = Asked {
            kind: after.first().copied().unwrap_or_default().to_owned(),
            part: after[1.min(after.len())..]
                .last()
                .map(|part| (*part).to_owned()),
            watches: request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch=true")),
        };
        let said = (self.script.lock().expect("a script"))(&asked);
        let lines: Vec<_> = said.iter().map(|line| format!("{line}\n")).collect();
        Response::new(lines.concat().into())
    }

    /// Takes what is sent to a pod, by the old protocol.
    fn attach(self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let offered = header(request.headers(), SEC_WEBSOCKET_PROTOCOL.as_str());
        assert!(offered.split(", ").any(|name| name == V4), "{offered}");
        let key = header(request.headers(), SEC_WEBSOCKET_KEY.as_str());
        let accept = derive_accept_key(key.as_bytes());
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request)
                .await
                .expect("a connection");
            let io = TokioIo::new(upgraded);
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                // The first byte is the stream: 0 is standard input.
                if let Some((0, bytes)) = message.into_data().split_first() {
                    self.stdin.lock().expect("stdin").extend_from_slice(bytes);
                }
            }
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, accept)
            .header(SEC_WEBSOCKET_PROTOCOL, V4)
            .body(Full::default())
            .expect("an answer")
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn object(kind: &str, version: u32, status: &Value) -> Value {
    let (group, status) = match kind {
        "Job" => ("batch/v1", status),
        _ => ("v1", status),
    };
    json!({
        "apiVersion": group, "kind": kind,
        "metadata": { "name": "app", "namespace": "builds", "resourceVersion": version.to_string() },
        "status": status,
    })
}

fn list(kind: &str, version: u32, items: &[Value]) -> Value {
    json!({
        "apiVersion": if kind == "Job" { "batch/v1" } else { "v1" }, "kind": format!("{kind}List"),
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    })
}

fn complete() -> Value {
    json!({ "conditions": [{ "type": "Complete", "status": "True" }] })
}

async fn end(cluster: &Cluster, archive: Option<&Archive>) -> End {
    let progress = Progress::new("app", &Silent);
    let mut said = Output::Native(Answers::new(progress, Mask::default()));
    let following = Following::new(cluster, "app", progress, archive);
    let end = timeout(Duration::from_mins(1), following.end(&mut said)).await;
    end.expect("an end in time").expect("an end")
}

#[tokio::test]
async fn a_watch_that_is_dropped_or_too_old_is_begun_again() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let cluster = Scripted::cluster(&Received::default(), move |asked| {
        if asked.kind != "jobs" {
            return vec![list("Pod", 1, &[])];
        }
        let mut heard = heard.lock().expect("what was heard");
        heard.push(if asked.watches { "watch" } else { "list" });
        let watches = heard.iter().filter(|what| **what == "watch").count();
        let running = json!({ "active": 1 });
        match (asked.watches, watches) {
            (false, _) => vec![list("Job", 10, &[object("Job", 10, &running)])],
            // It breaks off after a word that says nothing but how far it is.
            (true, 1) => vec![json!({ "type": "BOOKMARK", "object": object("Job", 20, &json!({})) })],
            // What came since then is not known any more.
            (true, 2) => vec![json!({ "type": "ERROR", "object": {
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
                "message": "too old resource version",
            } })],
            _ => vec![json!({ "type": "MODIFIED", "object": object("Job", 30, &complete()) })],
        }
    })
    .await;
    let end = end(&cluster, None).await;
    assert!(
        matches!(&end, End::Done(digest) if digest.is_empty()),
        "{end:?}"
    );
    let asked = asked.lock().expect("what was asked");
    assert_eq!(*asked, ["list", "watch", "watch", "list", "watch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_goes_by_the_old_protocol_of_streams_too() {
    let cache = tempfile::tempdir().expect("a folder");
    let (mut tree, doorman) = Tree::of(&std::collections::BTreeMap::new());
    // It does not become smaller, and is more than one message.
    let mut seed = 1_u32;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    })
    .take(200 << 10)
    .collect();
    tree.add("large", &content, false);
    drop(doorman);
    let (handle, folder) = (Handle::current(), cache.path().to_owned());
    let packed = tokio::task::spawn_blocking(move || Archive::pack(&tree, &handle, &folder)).await;
    let archive = packed.expect("a thread").expect("an archive");
    let whole = archive.bytes().expect("its bytes");

    let stdin = Received::default();
    let (received, size) = (Arc::clone(&stdin), whole.len());
    let cluster = Scripted::cluster(&stdin, move |asked| {
        let terminated = json!({ "exitCode": 0, "message": "sha256:aa" });
        let pod = |version, state: Value| {
            let container = json!({ "name": EXECUTOR, "state": state });
            let status = json!({ "phase": "Running", "containerStatuses": [container] });
            object("Pod", version, &status)
        };
        let running = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
        let is_whole = received.lock().expect("stdin").len() == size;
        let ended = || pod(3, json!({ "terminated": terminated }));
        match (&*asked.kind, asked.part.as_deref(), asked.watches) {
            ("jobs", Some(_), _) => vec![object("Job", 2, &json!({}))],
            ("jobs", None, false) => vec![list("Job", 1, &[])],
            ("pods", None, true) if is_whole => {
                vec![json!({ "type": "MODIFIED", "object": ended() })]
            }
            ("jobs" | "pods", None, true) | ("pods", Some("log"), _) => Vec::new(),
            ("pods", Some(_), _) => vec![ended()],
            ("pods", None, false) => vec![list("Pod", 1, &[pod(1, running)])],
            _ => vec![list("Event", 1, &[])],
        }
    })
    .await;
    let end = end(&cluster, Some(&archive)).await;
    assert!(
        matches!(&end, End::Done(digest) if digest == "sha256:aa"),
        "{end:?}"
    );
    assert_eq!(*stdin.lock().expect("stdin"), whole);
}
