//! Where the engine listens: as Docker's own command finds it, and then where Podman and rootless engines do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::login::redacted;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::EngineError;
use super::ssh::Ssh;

/// Where Docker listens when nobody says.
const SOCKET: &str = "/var/run/docker.sock";
/// Where Podman listens for everybody.
const PODMAN: &str = "/run/podman/podman.sock";
/// How long an engine may take to answer anything but a transfer.
const PATIENCE: Duration = Duration::from_hours(24);

/// Bytes to and from an engine.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    kind: Kind,
    /// What named it: `DOCKER_HOST`, say.
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Socket(PathBuf),
    Tcp { authority: String, tls: Option<Tls> },
    Ssh(Ssh),
}

/// Files of a client that the engine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tls {
    authorities: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    fn of(folder: &Path) -> Self {
        Self {
            authorities: folder.join("ca.pem"),
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    current_context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: DockerEndpoint,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEndpoint {
    host: String,
}

impl Endpoint {
    /// The endpoint that `DOCKER_HOST` names, else the context that `DOCKER_CONTEXT` or Docker's configuration
    /// names, else Docker's own socket or that of a rootless Docker or of Podman. Contacts nothing.
    pub fn find(host: &Host) -> Result<Self, EngineError> {
        if let Some(address) = host.variable("DOCKER_HOST") {
            let folder = host
                .variable("DOCKER_CERT_PATH")
                .map(PathBuf::from)
                .or_else(|| docker_folder(host));
            let tls = host.variable("DOCKER_TLS_VERIFY").and(folder);
            return Self::parse(address, tls.as_deref(), "`DOCKER_HOST`");
        }
        if let Some(folder) = docker_folder(host)
            && let Some(name) = context_name(host, &folder)
        {
            return Self::of_context(&folder, &name);
        }
        Ok(Self::usual(host, Path::new(SOCKET)))
    }

    /// Where an engine listens when nobody names one: at `socket`, or where those without root do.
    fn usual(host: &Host, socket: &Path) -> Self {
        let runtime = host.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        let own = |name: &str| Some(runtime.as_ref()?.join(name));
        let sockets = [
            own("docker.sock"),
            own("podman/podman.sock"),
            Some(PODMAN.into()),
        ];
        let mut sockets = [socket.to_owned()]
            .into_iter()
            .chain(sockets.into_iter().flatten());
        let found = sockets.find(|socket| socket.exists());
        Self {
            kind: Kind::Socket(found.unwrap_or_else(|| socket.to_owned())),
            source: "its usual place".to_owned(),
        }
    }

    /// The endpoint of an address, with the files of `tls` for one that wants to know who asks.
    pub fn parse(address: &str, tls: Option<&Path>, source: &str) -> Result<Self, EngineError> {
        let unknown = || EngineError::Address {
            address: redacted(address),
            source_of: source.to_owned(),
        };
        let kind = match address.split_once("://") {
            Some(("unix", path)) if cfg!(unix) && path.starts_with('/') => {
                Kind::Socket(path.into())
            }
            Some(("tcp" | "http" | "https", rest)) => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains('/') {
                    return Err(unknown());
                }
                Kind::Tcp {
                    authority: authority.to_owned(),
                    tls: tls.map(Tls::of),
                }
            }
            Some(("ssh", _)) => Kind::Ssh(Ssh::parse(address).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        };
        Ok(Self {
            kind,
            source: source.to_owned(),
        })
    }

    /// The endpoint of a context of Docker's command.
    fn of_context(folder: &Path, name: &str) -> Result<Self, EngineError> {
        let hash = Digest::of(name.as_bytes()).hex();
        let contexts = folder.join("contexts");
        let file = contexts.join("meta").join(&hash).join("meta.json");
        let context = |error: io::Error| EngineError::Context {
            name: name.to_owned(),
            source: error,
        };
        let text = fs_err::read(&file).map_err(context)?;
        let meta: Meta = serde_json::from_slice(&text)
            .map_err(|error| context(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let tls = contexts.join("tls").join(&hash).join("docker");
        let tls = tls.join("cert.pem").is_file().then_some(tls);
        let source = format!("the context `{name}`");
        Self::parse(&meta.endpoints.docker.host, tls.as_deref(), &source)
    }

    /// Its address.
    pub fn address(&self) -> String {
        match &self.kind {
            Kind::Socket(path) => format!("unix://{}", path.display()),
            Kind::Tcp { authority, .. } => format!("tcp://{authority}"),
            Kind::Ssh(ssh) => ssh.to_string(),
        }
    }

    /// Whether it is Docker's command on another machine that connects to it.
    pub const fn is_over_ssh(&self) -> bool {
        matches!(self.kind, Kind::Ssh(_))
    }

    /// What named it: `DOCKER_HOST`, a context, or nobody.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A client of the engine's API. Contacts nothing.
    pub(super) fn client(&self) -> Result<Docker, bollard::errors::Error> {
        let patience = PATIENCE.as_secs();
        match &self.kind {
            #[cfg(unix)]
            Kind::Socket(path) => {
                Docker::connect_with_unix(&path.to_string_lossy(), patience, API_DEFAULT_VERSION)
            }
            #[cfg(not(unix))]
            Kind::Socket(path) => Err(bollard::errors::Error::SocketNotFoundError(
                path.display().to_string(),
            )),
            Kind::Tcp {
                authority,
                tls: None,
            } => Docker::connect_with_http(authority, patience, API_DEFAULT_VERSION),
            Kind::Tcp {
                authority,
                tls: Some(tls),
            } => Docker::connect_with_ssl(
                authority,
                &tls.key,
                &tls.certificate,
                &tls.authorities,
                patience,
                API_DEFAULT_VERSION,
            ),
            Kind::Ssh(ssh) => ssh.client(patience),
        }
    }

    /// What an HTTP request names as its host.
    pub fn authority(&self) -> &str {
        match &self.kind {
            Kind::Socket(_) | Kind::Ssh(_) => "localhost",
            Kind::Tcp { authority, .. } => authority,
        }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        self.connect_for(&[]).await
    }

    /// As [`Self::connect`]; where there is TLS, it agrees on one of these protocols, the best one first.
    pub async fn connect_for(&self, protocols: &[&str]) -> io::Result<Box<dyn Stream>> {
        match &self.kind {
            #[cfg(unix)]
            Kind::Socket(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Kind::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Kind::Ssh(ssh) => Ok(Box::new(ssh.connect()?)),
            Kind::Tcp { authority, tls } => {
                let stream = TcpStream::connect(authority).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = tls else {
                    return Ok(Box::new(stream));
                };
                let host = authority
                    .rsplit_once(':')
                    .map_or(authority.as_str(), |(host, _)| host);
                let host = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                let mut client = tls.client()?;
                let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
                client.alpn_protocols = protocols.collect();
                let connector = TlsConnector::from(Arc::new(client));
                Ok(Box::new(connector.connect(name, stream).await?))
            }
        }
    }
}

impl Tls {
    fn client(&self) -> io::Result<rustls::ClientConfig> {
        let mut authorities = rustls::RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            authorities.add(certificate).map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(authorities)
            .with_client_auth_cert(
                certificates(&self.certificate)?,
                PrivateKeyDer::from_pem_slice(&fs_err::read(&self.key)?)
                    .map_err(io::Error::other)?,
            )
            .map_err(io::Error::other)
    }
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = fs_err::read(file)?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

fn docker_folder(host: &Host) -> Option<PathBuf> {
    let named = host.variable("DOCKER_CONFIG").map(PathBuf::from);
    named.or_else(|| host.home.as_ref().map(|home| home.join(".docker")))
}

/// The context that is in use, unless that is the usual place.
fn context_name(host: &Host, folder: &Path) -> Option<String> {
    let configured = || {
        let text = fs_err::read(folder.join("config.json")).ok()?;
        serde_json::from_slice::<Configuration>(&text)
            .ok()?
            .current_context
    };
    let named = host.variable("DOCKER_CONTEXT").map(str::to_owned);
    named
        .or_else(configured)
        .filter(|name| !name.is_empty() && name != "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(variables: &[(&str, &str)]) -> Host {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Host {
            variables: variables.iter().map(owned).collect(),
            ..Host::default()
        }
    }

    fn found(variables: &[(&str, &str)]) -> Result<(String, String), EngineError> {
        let endpoint = Endpoint::find(&host(variables))?;
        Ok((endpoint.address(), endpoint.source().to_owned()))
    }

    #[test]
    fn an_engine_is_where_docker_host_says() {
        let tcp = ("DOCKER_HOST", "tcp://127.0.0.1:2375");
        let expected = (
            "tcp://127.0.0.1:2375".to_owned(),
            "`DOCKER_HOST`".to_owned(),
        );
        assert_eq!(found(&[tcp]).expect("an address"), expected);
        let unix = ("DOCKER_HOST", "unix:///run/x.sock");
        assert_eq!(found(&[unix]).expect("an address").0, "unix:///run/x.sock");
        for unknown in [
            "ssh://me:secret@host",
            "host",
            "unix://relative",
            "tcp://",
            "tcp://a/b",
        ] {
            let variables = [("DOCKER_HOST", unknown)];
            assert!(
                matches!(found(&variables), Err(EngineError::Address { .. })),
                "{unknown}"
            );
        }
        let tls = [
            tcp,
            ("DOCKER_TLS_VERIFY", "1"),
            ("DOCKER_CERT_PATH", "/certs"),
        ];
        let endpoint = Endpoint::find(&host(&tls)).expect("an address");
        let expected = Some(Tls::of(Path::new("/certs")));
        assert!(matches!(endpoint.kind, Kind::Tcp { tls, .. } if tls == expected));
    }

    #[test]
    fn an_engine_is_where_the_context_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let docker = folder.path().to_str().expect("a path");
        let meta = folder
            .path()
            .join("contexts/meta")
            .join(Digest::of(b"work").hex());
        fs_err::create_dir_all(&meta).expect("a folder");
        let text =
            r#"{"Name": "work", "Endpoints": {"docker": {"Host": "unix:///run/work.sock"}}}"#;
        fs_err::write(meta.join("meta.json"), text).expect("a file");
        let config = folder.path().join("config.json");
        fs_err::write(&config, r#"{"currentContext": "work"}"#).expect("a file");

        let expected = (
            "unix:///run/work.sock".to_owned(),
            "the context `work`".to_owned(),
        );
        let docker = ("DOCKER_CONFIG", docker);
        assert_eq!(found(&[docker]).expect("an address"), expected);
        let other = found(&[docker, ("DOCKER_CONTEXT", "gone")]);
        assert!(matches!(other, Err(EngineError::Context { name, .. }) if name == "gone"));
        let usual = found(&[docker, ("DOCKER_CONTEXT", "default")]).expect("an address");
        assert_eq!(usual.1, "its usual place");
        let named = found(&[docker, ("DOCKER_HOST", "unix:///run/x.sock")]);
        assert_eq!(named.expect("an address").0, "unix:///run/x.sock");
    }

    #[test]
    fn an_engine_without_root_is_found_where_it_listens() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = ("XDG_RUNTIME_DIR", folder.path().to_str().expect("a path"));
        fs_err::create_dir(folder.path().join("podman")).expect("a folder");
        let podman = folder.path().join("podman/podman.sock");
        fs_err::write(&podman, "").expect("a file");
        let address = |path: &Path| format!("unix://{}", path.display());
        let none = folder.path().join("none.sock");
        let found = || Endpoint::usual(&host(&[runtime]), &none).address();
        assert_eq!(found(), address(&podman));
        let docker = folder.path().join("docker.sock");
        fs_err::write(&docker, "").expect("a file");
        assert_eq!(found(), address(&docker));
    }
}
