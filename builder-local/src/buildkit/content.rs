//! Blobs of this machine, for a daemon: those of a base that only this machine has, which it reads as those of an OCI
//! layout, and those of caches in folders, which it writes, too. Of containerd's content service it has the methods that
//! this takes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use imagespec_core::digest::Digest;
use imagespec_oci::image::{Descriptor, reachable};
use imagespec_oci::store::BlobStore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::MESSAGE;
use super::written::WriteOf;

/// Bytes of one message.
const CHUNK: usize = 1 << 20;
/// Messages that wait to be sent.
const QUEUE: usize = 4;

/// Blobs that a daemon may read: those of one image, and no others.
#[derive(Debug, Clone)]
pub(crate) struct Lent {
    store: BlobStore,
    sizes: Arc<BTreeMap<Digest, u64>>,
}

impl Lent {
    /// Everything that an image of the store consists of.
    pub(crate) fn of(store: &BlobStore, image: &Descriptor) -> std::io::Result<Self> {
        let blobs = reachable(store, image)?.into_iter();
        Ok(Self {
            store: store.clone(),
            sizes: Arc::new(blobs.map(|blob| (blob.digest, blob.size)).collect()),
        })
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        self.sizes.get(digest).copied()
    }
}

/// Blobs that may be read.
#[derive(Debug, Clone)]
enum Readable {
    Base(Lent),
    Cache(BlobStore),
}

impl Readable {
    fn known(&self, digest: &str) -> Result<(Digest, u64), Status> {
        let size = |digest: &Digest| match self {
            Self::Base(lent) => lent.size(digest),
            Self::Cache(store) => store.contains(digest).ok().flatten(),
        };
        let digest = digest.parse().ok();
        let known = digest.and_then(|digest| Some((digest, size(&digest)?)));
        known.ok_or_else(|| Status::not_found("no blob of that digest"))
    }

    fn info(&self, request: &InfoRequest) -> Result<InfoResponse, Status> {
        let (digest, size) = self.known(&request.digest)?;
        let info = Info {
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        };
        Ok(InfoResponse { info: Some(info) })
    }

    fn read(&self, request: &ReadContentRequest) -> Result<Chunks, Status> {
        let (digest, size) = self.known(&request.digest)?;
        let from = u64::try_from(request.offset).unwrap_or(u64::MAX);
        let left = size.checked_sub(from);
        let left = left.ok_or_else(|| Status::out_of_range("behind the end of the blob"))?;
        // Nothing asked for is all of it.
        let wanted = u64::try_from(request.size).ok().filter(|size| *size > 0);
        let length = wanted.unwrap_or(left).min(left);
        let store = match self {
            Self::Base(image) => image.store.clone(),
            Self::Cache(store) => store.clone(),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::task::spawn_blocking(move || {
            let sent = (|| {
                let mut blob = store.open_blob(&digest)?;
                blob.seek(SeekFrom::Start(from))?;
                let mut blob = blob.take(length);
                let mut offset = signed(from);
                loop {
                    let mut data = Vec::with_capacity(CHUNK);
                    blob.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
                    let read = data.len();
                    let chunk = ReadContentResponse { offset, data };
                    // A daemon that has enough hangs up.
                    if read == 0 || sender.blocking_send(Ok(chunk)).is_err() {
                        return Ok(());
                    }
                    offset += signed(read as u64);
                }
            })();
            if let Err(error) = sent {
                let error: std::io::Error = error;
                let _ = sender.blocking_send(Err(Status::aborted(error.to_string())));
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

type Chunks = ReceiverStream<Result<ReadContentResponse, Status>>;

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Info {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    size: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ReadContentRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ReadContentResponse {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// How a request says which of the stores of a session it is about.
const STORE: &str = "buildkit-attachable-store-id";

/// The service, over what is lent, if anything is.
#[derive(Debug, Clone)]
pub(super) struct ContentServer {
    pub(super) base: Option<Lent>,
    /// Caches in folders, by their names.
    pub(super) caches: BTreeMap<String, BlobStore>,
}

impl ContentServer {
    fn cache(&self, metadata: &MetadataMap) -> Option<&BlobStore> {
        let name = metadata.get(STORE)?.to_str().ok()?;
        self.caches.get(name)
    }

    fn readable(&self, metadata: &MetadataMap) -> Result<Readable, Status> {
        let cache = self.cache(metadata).cloned().map(Readable::Cache);
        let base = || self.base.clone().map(Readable::Base);
        let nothing = || Status::not_found("nothing is lent");
        cache.or_else(base).ok_or_else(nothing)
    }

    fn writable(&self, metadata: &MetadataMap) -> Result<BlobStore, Status> {
        let nothing = || Status::permission_denied("nothing is to be written there");
        self.cache(metadata).cloned().ok_or_else(nothing)
    }
}

impl NamedService for ContentServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

struct InfoOf(ContentServer);

impl UnaryService<InfoRequest> for InfoOf {
    type Response = InfoResponse;
    type Future = std::future::Ready<Result<Response<InfoResponse>, Status>>;

    fn call(&mut self, request: Request<InfoRequest>) -> Self::Future {
        let info = self.0.readable(request.metadata());
        let info = info.and_then(|blobs| blobs.info(request.get_ref()));
        ready(info.map(Response::new))
    }
}

struct ReadOf(ContentServer);

impl ServerStreamingService<ReadContentRequest> for ReadOf {
    type Response = ReadContentResponse;
    type ResponseStream = Chunks;
    type Future = std::future::Ready<Result<Response<Chunks>, Status>>;

    fn call(&mut self, request: Request<ReadContentRequest>) -> Self::Future {
        let chunks = self.0.readable(request.metadata());
        let chunks = chunks.and_then(|blobs| blobs.read(request.get_ref()));
        ready(chunks.map(Response::new))
    }
}

impl tower::Service<http::Request<Body>> for ContentServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "Info" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.unary(InfoOf(this), request).await
                }
                "Read" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.server_streaming(ReadOf(this), request).await
                }
                "Write" => {
                    let metadata = MetadataMap::from_headers(request.headers().clone());
                    let write = WriteOf(this.writable(&metadata));
                    let mut grpc = Grpc::new(ProstCodec::default())
                        .apply_max_message_size_config(Some(MESSAGE), None);
                    grpc.streaming(write, request).await
                }
                _ => Status::unimplemented("blobs are read and written, and nothing else")
                    .into_http(),
            })
        })
    }
}
