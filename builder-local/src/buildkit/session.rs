//! The session of a build: what an engine may ask this machine for while it builds, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{
    Secrets as SecretsService, SecretsServer,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use hyper_util::rt::TokioIo;
use imagespec_dockerfile::Tree;
use imagespec_oci::credentials::{Credential, Credentials};
use imagespec_oci::engine::Endpoint;
use imagespec_oci::store::BlobStore;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_util::io::ReaderStream;
use tonic::metadata::MetadataKey;
use tonic::transport::Channel;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::connection::{Incoming, upgraded};
use super::content::{ContentServer, Lent};
use super::files::Files;
use super::sent::{Sent, Sink};

/// What a session offers, by the names that an engine is told.
const METHODS: [&str; 8] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Write",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.filesync.v1.Auth/Credentials",
    "/grpc.health.v1.Health/Check",
];
/// Bytes on their way between a session and the call that carries them.
const PIPE: usize = 256 << 10;
/// Docker Hub, as an engine asks for its credentials.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What a session lends.
pub(crate) struct Offer {
    /// The build context.
    pub(crate) tree: Arc<Tree>,
    /// Secrets by name.
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    /// Logins of registries.
    pub(crate) credentials: Credentials,
    /// The same for builds that are likely to have the same files.
    pub(crate) shared: String,
    /// The image to start from, where it is lent.
    pub(crate) base: Option<Lent>,
    /// Caches in folders of this machine, by their names.
    pub(crate) caches: BTreeMap<String, BlobStore>,
    /// Whoever takes an archive of the result.
    pub(crate) sink: Option<Sink>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

/// A session that is open as long as this is.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Session {
    /// A session over a connection that an engine gives up for it.
    pub(super) async fn in_engine(
        endpoint: &Endpoint,
        id: String,
        offer: Offer,
    ) -> std::io::Result<Self> {
        let connection = upgraded(endpoint, "/session", &headers(&id, &offer)).await?;
        let server = tokio::spawn(serve(offer, Incoming(TokioIo::new(connection))));
        let tasks = vec![server];
        Ok(Self { id, tasks })
    }

    /// A session over a call of a daemon, whose messages are the bytes of a connection.
    pub(super) fn in_daemon(mut control: ControlClient<Channel>, id: String, offer: Offer) -> Self {
        let (here, there) = tokio::io::duplex(PIPE);
        let (from_here, mut to_here) = tokio::io::split(there);
        let bytes = ReaderStream::with_capacity(from_here, PIPE);
        let messages = bytes.map_while(|bytes| {
            let data = bytes.ok()?.into();
            Some(BytesMessage { data })
        });
        let mut request = Request::new(messages);
        for (name, value) in headers(&id, &offer) {
            let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            if let (Ok(name), Ok(value)) = (name, value.parse()) {
                request.metadata_mut().append(name, value);
            }
        }
        let carrier = tokio::spawn(async move {
            let Ok(answer) = control.session(request).await else {
                return;
            };
            let mut answer = answer.into_inner();
            while let Ok(Some(message)) = answer.message().await {
                if to_here.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let tasks = vec![tokio::spawn(serve(offer, here)), carrier];
        Self { id, tasks }
    }
}

/// What is said of a session when it is opened.
fn headers(id: &str, offer: &Offer) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-Docker-Expose-Session-Uuid", id.to_owned()),
        ("X-Docker-Expose-Session-Name", "imagespec".to_owned()),
        ("X-Docker-Expose-Session-Sharedkey", offer.shared.clone()),
    ];
    let methods = METHODS.map(|name| ("X-Docker-Expose-Session-Grpc-Method", name.to_owned()));
    headers.extend(methods);
    headers
}

/// Serves what is offered over one connection, until it ends.
async fn serve<C>(offer: Offer, connection: C)
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
    C::ConnectInfo: Clone + Send + Sync + 'static,
{
    let files = Files { tree: offer.tree };
    let router = tonic::transport::Server::builder()
        .add_service(HealthServer::new(Alive))
        .add_service(FileSyncServer::new(files))
        .add_service(FileSendServer::new(Sent(Mutex::new(offer.sink))))
        .add_service(ContentServer {
            base: offer.base,
            caches: offer.caches,
        })
        .add_service(SecretsServer::new(Secrets(offer.secrets)))
        .add_service(AuthServer::new(Logins(offer.credentials)));
    // After the last connection a server asks those that it has to end, and an aborted one does where it could be asked.
    let connections = tokio_stream::once(Ok::<_, std::io::Error>(connection));
    let connections = connections.chain(tokio_stream::pending());
    let never = std::future::pending();
    // What goes wrong with it fails the build, which knows more.
    let _ = router
        .serve_with_incoming_shutdown(connections, never)
        .await;
}

struct Secrets(BTreeMap<String, Vec<u8>>);

#[async_trait::async_trait]
impl SecretsService for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        match self.0.get(&request.into_inner().id) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.clone() })),
            None => Err(Status::not_found("no secret of that name")),
        }
    }
}

struct Logins(Credentials);

#[async_trait::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let registry = match host.as_str() {
            DOCKER_HUB => "docker.io",
            host => host,
        };
        let found = self.0.find(registry, "").await;
        let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
        let (username, secret) = match found {
            Some(Credential::Basic { username, password }) => (username, password),
            // Without a user, a secret is a refresh token.
            Some(Credential::IdentityToken(token)) => (String::new(), token),
            Some(Credential::RegistryToken(_)) | None => {
                return Ok(Response::new(CredentialsResponse::default()));
            }
        };
        let secret = secret.expose().to_owned();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("ask for credentials"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("ask for credentials"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("ask for credentials"))
    }
}

/// Tells an engine that the session is there.
struct Alive;

type Watched =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[async_trait::async_trait]
impl Health for Alive {
    type WatchStream = Watched;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("check it"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Watched>, Status> {
        Err(Status::unimplemented("check it"))
    }
}
