//! Blobs that a daemon writes into a folder of this machine, for a cache: the method `Write` of containerd's content
//! service.

use std::io::Write as _;

use futures::StreamExt as _;
use imagespec_core::digest::Digest;
use imagespec_oci::store::{BlobStore, BlobWriter};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

/// What is to be done: `STAT` asks how far it is, and is what any other number counts as.
const WRITE: i32 = 1;
const COMMIT: i32 = 2;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WriteContentRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    reference: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WriteContentResponse {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
    #[prost(string, tag = "6")]
    digest: String,
}

type Answers = ReceiverStream<Result<WriteContentResponse, Status>>;

/// The method, over the folder of a cache.
pub(super) struct WriteOf(pub(super) Result<BlobStore, Status>);

impl StreamingService<WriteContentRequest> for WriteOf {
    type Response = WriteContentResponse;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<WriteContentRequest>>) -> Self::Future {
        let store = self.0.clone();
        std::future::ready(store.map(|store| {
            let (sender, receiver) = mpsc::channel(1);
            let mut requests = request.into_inner();
            let handle = Handle::current();
            tokio::task::spawn_blocking(move || {
                let mut blob = None;
                while let Some(request) = handle.block_on(requests.next()) {
                    let answer = request.and_then(|request| answer(&store, &mut blob, &request));
                    let is_last = answer.is_err();
                    if sender.blocking_send(answer).is_err() || is_last {
                        return;
                    }
                }
            });
            Response::new(ReceiverStream::new(receiver))
        }))
    }
}

/// A blob of which some is there. It is forgotten with the call: a daemon that comes again begins again.
struct Begun {
    writer: BlobWriter,
    hasher: Sha256,
    offset: i64,
}

/// Does what one message asks for.
fn answer(
    store: &BlobStore,
    blob: &mut Option<Begun>,
    request: &WriteContentRequest,
) -> Result<WriteContentResponse, Status> {
    let failed = |error: std::io::Error| Status::internal(error.to_string());
    let expected = Some(request.expected.as_str()).filter(|text| !text.is_empty());
    let expected = expected
        .map(str::parse::<Digest>)
        .transpose()
        .map_err(|_| Status::invalid_argument("not a digest of SHA-256"))?;
    if let Some(expected) = &expected
        && store.contains(expected).map_err(failed)?.is_some()
    {
        return Err(Status::already_exists("the blob is there"));
    }
    if blob.is_none() {
        *blob = Some(Begun {
            writer: store.writer().map_err(failed)?,
            hasher: Sha256::new(),
            offset: 0,
        });
    }
    let Some(begun) = blob else {
        return Err(Status::internal("nothing is begun"));
    };
    if matches!(request.action, WRITE | COMMIT) && !request.data.is_empty() {
        if request.offset != begun.offset {
            return Err(Status::out_of_range("not where the last bytes ended"));
        }
        begun.writer.write_all(&request.data).map_err(failed)?;
        begun.hasher.update(&request.data);
        begun.offset += super::content::signed(request.data.len() as u64);
    }
    let mut response = WriteContentResponse {
        action: request.action,
        offset: begun.offset,
        total: request.total,
        digest: String::new(),
    };
    if request.action == COMMIT {
        let Some(Begun {
            writer,
            hasher,
            offset,
        }) = blob.take()
        else {
            return Ok(response);
        };
        let digest = Digest::from_bytes(hasher.finalize().into());
        if expected.is_some_and(|expected| expected != digest)
            || request.total > 0 && request.total != offset
        {
            return Err(Status::failed_precondition(
                "not the blob that was announced",
            ));
        }
        writer.commit(&digest).map_err(failed)?;
        response.digest = digest.to_string();
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(action: i32, offset: i64, data: &[u8], expected: &Digest) -> WriteContentRequest {
        WriteContentRequest {
            action,
            offset,
            data: data.to_vec(),
            expected: expected.to_string(),
            ..WriteContentRequest::default()
        }
    }

    #[test]
    fn a_blob_is_kept_when_all_of_it_is_there_and_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = BlobStore::open(folder.path());
        let digest = Digest::of(b"one two");
        let mut blob = None;
        let mut say = |request| answer(&store, &mut blob, &request);
        assert_eq!(say(says(0, 0, b"", &digest)).expect("nothing").offset, 0);
        assert_eq!(
            say(says(WRITE, 0, b"one", &digest)).expect("some").offset,
            3
        );
        let gap = say(says(WRITE, 4, b"o", &digest)).expect_err("a gap");
        assert_eq!(gap.code(), tonic::Code::OutOfRange);
        say(says(WRITE, 3, b" two", &digest)).expect("the rest");
        let mut end = says(COMMIT, 7, b"", &digest);
        end.total = 7;
        assert_eq!(say(end).expect("a blob").digest, digest.to_string());
        assert_eq!(store.read(&digest, 10).expect("a blob"), b"one two");
        let again = say(says(0, 0, b"", &digest)).expect_err("it is there");
        assert_eq!(again.code(), tonic::Code::AlreadyExists);

        let other = Digest::of(b"other");
        say(says(WRITE, 0, b"wrong", &other)).expect("some");
        let wrong = say(says(COMMIT, 5, b"", &other)).expect_err("another blob");
        assert_eq!(wrong.code(), tonic::Code::FailedPrecondition);
        assert_eq!(store.list().expect("a list").len(), 1);
    }
}
