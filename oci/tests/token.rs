//! Bearer tokens, against a registry and a token server of a few lines: the real one would need certificates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_oci::{Reference, Registry, RegistryError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// The first line and the authorisation of each request, in order.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A registry that takes the token `N` until another was given out, and gives tokens to `user:secret`.
async fn serve(listener: TcpListener, seen: Seen, realm: String) {
    let mut valid = 0;
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                break;
            }
            request.extend(byte);
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let first = request.lines().next().unwrap_or_default().to_owned();
        let authorization = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization")
                .then(|| value.to_owned())
        });
        seen.lock()
            .expect("a list")
            .push((first.clone(), authorization.clone()));
        let token = format!("Bearer token{valid}");
        let (status, headers, body) = if first.contains("/token?") {
            if authorization.as_deref() == Some("Basic dXNlcjpzZWNyZXQ=") {
                valid += 1;
                let body = format!(r#"{{"token":"token{valid}","expires_in":300}}"#);
                ("200 OK", String::new(), body)
            } else {
                ("401 Unauthorized", String::new(), String::new())
            }
        } else if authorization == Some(token) {
            let headers = format!("docker-content-digest: {DIGEST}\r\n");
            // Each token is good for one request.
            valid += 100;
            ("200 OK", headers, String::new())
        } else {
            let headers =
                format!("www-authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n");
            ("401 Unauthorized", headers, String::new())
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

async fn registry(auth: &str, realm: Option<&str>) -> (Registry, Reference, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let name = listener.local_addr().expect("a port").to_string();
    let seen = Seen::default();
    let realm = realm.map_or(format!("http://{name}/token"), str::to_owned);
    tokio::spawn(serve(listener, seen.clone(), realm));
    let config = format!(r#"{{"auths":{{"{name}":{{"auth":"{auth}"}}}}}}"#);
    let host = Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        ..Host::default()
    };
    let registry = Registry::new(&host, &name).expect("a registry");
    let reference = format!("{name}/team/app:1").parse().expect("a reference");
    (registry, reference, seen)
}

#[tokio::test]
async fn a_token_is_fetched_when_asked_for_and_again_when_refused() {
    let (registry, reference, seen) = registry("dXNlcjpzZWNyZXQ=", None).await;
    let digest: Digest = DIGEST.parse().expect("a digest");
    for _ in 0..2 {
        assert_eq!(registry.exists(&reference).await, Ok(Some(digest)));
    }
    let seen = seen.lock().expect("a list");
    let head = "HEAD /v2/team/app/manifests/1 HTTP/1.1";
    let token = "GET /token?service=test&scope=repository%3Ateam%2Fapp%3Apull HTTP/1.1";
    let asked: Vec<_> = seen.iter().map(|(first, _)| first.as_str()).collect();
    assert_eq!(asked, [head, token, head, head, token, head]);
    let shown = seen
        .iter()
        .map(|(_, authorization)| authorization.as_deref());
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            None,
            Some("Basic dXNlcjpzZWNyZXQ="),
            Some("Bearer token1"),
            Some("Bearer token1"),
            Some("Basic dXNlcjpzZWNyZXQ="),
            Some("Bearer token102"),
        ]
    );
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_named_nowhere() {
    let (registry, _, _) = registry("dXNlcjpodW50ZXIy", None).await;
    let error = registry
        .head_manifest("team/app", "1")
        .await
        .expect_err("denied");
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    assert!(!format!("{error:?} {registry:?}").contains("hunter2"));
    assert!(!format!("{registry:?}").contains("dXNlcjpodW50ZXIy"));
}

#[tokio::test]
async fn a_password_is_not_sent_to_just_any_scheme() {
    let (registry, _, seen) = registry("dXNlcjpzZWNyZXQ=", Some("ftp://elsewhere.invalid/t")).await;
    let error = registry
        .head_manifest("team/app", "1")
        .await
        .expect_err("no token server");
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert_eq!(seen.lock().expect("a list").len(), 1);
}
