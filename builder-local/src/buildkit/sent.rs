//! An archive of the finished image, as a daemon sends it.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages that wait to be read.
const QUEUE: usize = 16;

/// Whoever takes the archive.
pub(crate) type Sink = mpsc::Sender<io::Result<Bytes>>;
/// The archive, as it comes.
pub(crate) type Archive = ReceiverStream<io::Result<Bytes>>;

/// Both ends of an archive's way.
pub(crate) fn way() -> (Sink, Archive) {
    let (sink, archive) = mpsc::channel(QUEUE);
    (sink, ReceiverStream::new(archive))
}

/// Takes one archive, if one is expected.
#[derive(Debug)]
pub(super) struct Sent(pub(super) Mutex<Option<Sink>>);

type Nothing = Pin<Box<dyn tokio_stream::Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[async_trait::async_trait]
impl FileSend for Sent {
    type DiffCopyStream = Nothing;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Nothing>, Status> {
        let sink = self.0.lock().ok().and_then(|mut sink| sink.take());
        let sink = sink.ok_or_else(|| Status::failed_precondition("no archive is expected"))?;
        let mut messages = request.into_inner();
        // It ends when everything has been taken: the daemon waits for that.
        let (open, nothing) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let bytes = match messages.message().await {
                    Ok(None) => break,
                    Ok(Some(message)) => Ok(message.data.into()),
                    Err(status) => Err(io::Error::other(status)),
                };
                if sink.send(bytes).await.is_err() {
                    let _ = open.send(Err(Status::aborted("nobody reads it"))).await;
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(nothing))))
    }
}
