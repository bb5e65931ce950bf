//! Tokens that end in the middle of a push, in front of a real registry.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_http::Retry;
use imagespec_oci::Registry;
use imagespec_oci::registry::{Mounts, Pull, Tuning};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::images::{Images, push_by};
use crate::proxy::{Stream, read_request};
use crate::server::{AUTH, Server};

/// How many requests a token is good for.
const GOOD_FOR: usize = 3;

#[derive(Debug, Default)]
struct State {
    /// How many tokens were given out; only the last is good.
    given: usize,
    used: usize,
    /// The bodies of requests for tokens, and the queries where there was none.
    asked: Vec<String>,
}

/// A gate before the registry: it lets pass who has a token, and gives tokens to who may have one.
async fn gate(upstream: &str, state: &Arc<Mutex<State>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let name = listener.local_addr().expect("a port").to_string();
    let (own, upstream, state) = (name.clone(), upstream.to_owned(), Arc::clone(state));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (own, upstream, state) = (own.clone(), upstream.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                // Whoever asks may have gone.
                let _ = serve(BufStream::new(stream), &own, &upstream, &state).await;
            });
        }
    });
    name
}

async fn serve(
    mut client: Stream,
    own: &str,
    upstream: &str,
    state: &Mutex<State>,
) -> io::Result<()> {
    let (request, head) = read_request(&mut client).await?;
    let shown = request.header("authorization");
    if request.path.starts_with("/token") {
        let mut body = vec![0; request.length()];
        client.read_exact(&mut body).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let known = shown == Some(&format!("Basic {AUTH}"))
            || body.contains("grant_type=refresh_token") && body.contains("refresh_token=identity");
        let answer = {
            let mut state = state.lock().expect("a state");
            state.asked.push(match body.as_str() {
                "" => request.path.clone(),
                body => body.to_owned(),
            });
            state.given += 1;
            state.used = 0;
            format!(r#"{{"access_token":"token{}"}}"#, state.given)
        };
        let (status, answer) = if known {
            (200, answer.as_str())
        } else {
            (401, "")
        };
        return respond(&mut client, status, "", answer).await;
    }
    let good = {
        let mut state = state.lock().expect("a state");
        let good = state.used < GOOD_FOR && shown == Some(&format!("Bearer token{}", state.given));
        state.used += usize::from(good);
        good
    };
    if !good {
        let challenge =
            format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\n");
        return respond(&mut client, 401, &challenge, "").await;
    }
    let mut registry = BufStream::new(TcpStream::connect(upstream).await?);
    let head = String::from_utf8_lossy(&head).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    registry.write_all(head.as_bytes()).await?;
    let mut body = client.take(request.length() as u64);
    tokio::io::copy(&mut body, &mut registry).await?;
    registry.flush().await?;
    let mut client = body.into_inner();
    tokio::io::copy(&mut registry, &mut client).await?;
    client.flush().await
}

async fn respond(client: &mut Stream, status: u16, more: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.flush().await?;
    client.shutdown().await?;
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await?;
    Ok(())
}

#[tokio::test]
async fn a_token_may_end_at_any_moment_of_a_push_and_a_pull() {
    let Some(server) = Server::start(false) else {
        return;
    };
    for entry in [
        format!(r#"{{"auth":"{AUTH}"}}"#),
        r#"{"identitytoken":"identity"}"#.to_owned(),
    ] {
        let state = Arc::default();
        let name = gate(&server.name(), &state).await;
        let config = format!(r#"{{"auths":{{"{name}/team":{entry}}}}}"#);
        let host = Host {
            variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
            ..Host::default()
        };
        let tuning = Tuning {
            retry: Retry {
                tries: 1,
                ..Retry::default()
            },
            chunk: 256 << 10,
        };
        let registry = Registry::with_tuning(&host, &name, tuning).expect("a registry");
        let images = Images::new();
        let image = images.image(Platform::amd64(), &entry);
        let repository = format!("team/app{}", entry.len());
        let reference = format!("{name}/{repository}:1")
            .parse()
            .expect("a reference");
        // One at a time, so that each request but those refused uses up a token.
        push_by(
            1,
            &registry,
            &images,
            &image,
            &reference,
            &Mounts::default(),
        )
        .await
        .expect("a push");
        let copy = Images::new();
        let platform = Platform::amd64();
        let pull = Pull {
            store: &copy.store,
            reference: &reference,
            platform: &platform,
            layers: true,
            mounts: &Mounts::default(),
            parallelism: 1,
            progress: &|_| (),
            cancel: &CancellationToken::new(),
        };
        let pulled = registry.pull_image(pull).await.expect("a pull");
        assert_eq!(pulled.digest, image.digest);
        let state = state.lock().expect("a state");
        assert!(state.given > 6, "{}", state.given);
        let scope = format!(
            "scope=repository%3A{}%3Apull",
            repository.replace('/', "%2F")
        );
        assert!(
            state.asked.iter().all(|asked| asked.contains(&scope)),
            "{:?}",
            state.asked
        );
    }
}
