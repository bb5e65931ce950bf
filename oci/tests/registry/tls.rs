//! A registry behind TLS whose certificate an authority of ours has signed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::{Host, RegistrySettings};
use imagespec_core::platform::Platform;
use imagespec_oci::registry::Mounts;
use imagespec_oci::{Registry, RegistryError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::images::{Images, push};
use crate::server::{AUTH, Server};

/// The certificate of an authority, and a certificate and a key for `127.0.0.1` that it signed.
fn certificates() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .and_then(|parameters| parameters.signed_by(&key, &authority))
        .expect("a certificate");
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

fn host(registry: &str, settings: RegistrySettings) -> Host {
    let config = format!(r#"{{"auths":{{"{registry}":{{"auth":"{AUTH}"}}}}}}"#);
    Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        registries: BTreeMap::from([(registry.to_owned(), settings)]),
        ..Host::default()
    }
}

fn signed_by(ca: PathBuf) -> RegistrySettings {
    RegistrySettings {
        ca: Some(ca),
        ..RegistrySettings::default()
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_by_the_authority_that_signed_it() {
    let (authority, certificate, key) = certificates();
    let Some(server) = Server::start_with(true, Some((&certificate, &key))) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    fs_err::write(&ca, authority).expect("a file");
    let images = Images::new();
    let image = images.image(Platform::amd64(), "one");
    let reference = server.reference("app:1");
    let none = Mounts::default();

    let trusting = host(&server.name(), signed_by(ca.clone()));
    let registry = Registry::new(&trusting, &server.name()).expect("a registry");
    push(&registry, &images, &image, &reference, &none)
        .await
        .expect("a push");
    assert_eq!(registry.exists(&reference).await, Ok(Some(image.digest)));

    // Another authority, as good as none.
    fs_err::write(&ca, certificates().0).expect("a file");
    let other = Registry::new(&trusting, &server.name()).expect("a registry");
    let started = std::time::Instant::now();
    let refused = push(&other, &images, &image, &reference, &none).await;
    assert!(started.elapsed().as_millis() < 1000, "it was tried again");
    let error = BuildError::from(refused.expect_err("no trust"));
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.hints[0].contains("`ca = "), "{error:?}");
    assert!(error.hints[0].contains(&server.name()), "{error:?}");
    let unknown = other.exists(&reference).await.expect_err("no trust");
    assert_eq!(unknown.kind, ErrorKind::Unknown);
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_named() {
    for content in [None, Some("-----BEGIN CERTIFICATE-----\nno\n")] {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        if let Some(content) = content {
            fs_err::write(&ca, content).expect("a file");
        }
        let host = host("r.example", signed_by(ca));
        let error = Registry::new(&host, "r.example").expect_err("no authority");
        assert!(matches!(error, RegistryError::Setup { .. }), "{error:?}");
        let error = BuildError::from(error);
        assert_eq!(error.kind, ErrorKind::Input);
        assert!(error.hints[0].contains("`ca`"), "{error:?}");
    }
    let halved = RegistrySettings {
        cert: Some("me.pem".into()),
        ..RegistrySettings::default()
    };
    let error = Registry::new(&host("r.example", halved), "r.example").expect_err("no key");
    let error = BuildError::from(error);
    assert_eq!(error.kind, ErrorKind::Input);
    let causes = format!("{error:?}");
    assert!(
        causes.contains("`cert` and `key` belong together"),
        "{causes}"
    );
}

#[tokio::test]
async fn a_registry_without_tls_is_said_to_be_one() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    fs_err::write(&ca, certificates().0).expect("a file");
    // With an authority of its own, a registry of this machine is spoken to by TLS.
    let host = host(&server.name(), signed_by(ca));
    let registry = Registry::new(&host, &server.name()).expect("a registry");
    let error = registry.head_manifest("app", "1").await;
    let error = BuildError::from(error.expect_err("no TLS"));
    assert!(error.hints[0].contains("`insecure = true`"), "{error:?}");
    assert!(error.hints[0].contains("does not speak TLS"), "{error:?}");
}
