//! Files for an engine that asks for them, by the protocol of `BuildKit`'s `fsutil`: it is told of every path, and
//! asks for the content of those that it does not have from the build before.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use imagespec_core::contract::MTIME;
use imagespec_core::digest::Digest;
use imagespec_dockerfile::{DOCKERFILE, File, Node, Tree};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of one packet of content.
const CHUNK: usize = 256 << 10;
/// Packets that wait to be sent.
const QUEUE: usize = 16;
/// Go's bits of a file's mode.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
/// How an engine calls the folder with the Dockerfile.
const DOCKERFILE_FOLDER: &str = "dockerfile";

/// Serves a build context.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) tree: Arc<Tree>,
}

type Packets = Pin<Box<dyn tokio_stream::Stream<Item = Result<Packet, Status>> + Send>>;

#[async_trait::async_trait]
impl FileSync for Files {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let values = |name: &'static str| {
            let values = request.metadata().get_all(name).into_iter();
            values.filter_map(|value| value.to_str().ok().map(str::to_owned))
        };
        let mut wanted: Vec<_> = values("include-patterns")
            .chain(values("followpaths"))
            .collect();
        if wanted.is_empty() && values("dir-name").any(|name| name == DOCKERFILE_FOLDER) {
            wanted.push(DOCKERFILE.to_owned());
        }
        let nodes = self.tree.select(&wanted);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let tree = Arc::clone(&self.tree);
        tokio::spawn(serve(tree, nodes, request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("files are sent one by one"))
    }
}

type Sender = mpsc::Sender<Result<Packet, Status>>;

async fn serve(
    tree: Arc<Tree>,
    nodes: Vec<(String, Node)>,
    mut requests: Streaming<Packet>,
    sender: Sender,
) {
    let stats: Vec<_> = nodes.iter().map(|(path, node)| stat(path, node)).collect();
    let telling = {
        let sender = sender.clone();
        tokio::spawn(async move {
            let end = Packet {
                r#type: PacketType::PacketStat.into(),
                ..Packet::default()
            };
            let packets = stats.into_iter().map(|stat| Packet {
                stat: Some(stat),
                ..end.clone()
            });
            let packets: Vec<_> = packets.collect();
            for packet in packets.into_iter().chain([end]) {
                if sender.send(Ok(packet)).await.is_err() {
                    break;
                }
            }
        })
    };
    while let Ok(Some(packet)) = requests.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                let at = usize::try_from(packet.id).ok().and_then(|at| nodes.get(at));
                let sent = match at {
                    Some((path, Node::File(file))) => {
                        send(&tree, path, file, packet.id, &sender).await
                    }
                    _ => Err(Status::invalid_argument("no file has that number")),
                };
                if let Err(status) = sent {
                    let _ = sender.send(Err(status)).await;
                    break;
                }
            }
            PacketType::PacketFin => {
                let fin = Packet {
                    r#type: PacketType::PacketFin.into(),
                    ..Packet::default()
                };
                let _ = sender.send(Ok(fin)).await;
                break;
            }
            _ => {}
        }
    }
    telling.abort();
}

fn stat(path: &str, node: &Node) -> Stat {
    let (mode, size, linkname, mark) = match node {
        Node::Directory => (DIRECTORY | 0o755, 0, String::new(), 0),
        Node::Symlink(target) => (SYMLINK | 0o777, 0, target.clone(), 0),
        Node::File(file) => {
            let mode = if file.executable { 0o755 } else { 0o644 };
            (mode, file.size, String::new(), nanoseconds(&file.mark))
        }
    };
    Stat {
        path: path.to_owned(),
        mode,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        mod_time: MTIME * 1_000_000_000 + mark,
        linkname,
        ..Stat::default()
    }
}

/// What a file's time has beyond its second. An engine takes a file for the one that it has from the build before if size
/// and time are the same, so that another content needs another time. Layers have whole seconds.
fn nanoseconds(mark: &Digest) -> i64 {
    let [a, b, c, d, ..] = *mark.as_bytes();
    i64::from(u32::from_le_bytes([a, b, c, d]) % 1_000_000_000)
}

/// Sends the content of a file, and an empty packet for its end.
async fn send(
    tree: &Tree,
    path: &str,
    file: &File,
    id: u32,
    sender: &Sender,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::aborted(format!("cannot read `{path}`: {error}"));
    let mut content = tree.open(file).await.map_err(failed)?;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK];
            let length = read_full(&mut *content, &mut chunk);
            length.map(|length| {
                chunk.truncate(length);
                (content, chunk)
            })
        });
        let read = read.await.map_err(std::io::Error::other);
        let (rest, data) = read.and_then(|read| read).map_err(failed)?;
        content = rest;
        let is_last = data.is_empty();
        let packet = Packet {
            r#type: PacketType::PacketData.into(),
            id,
            data,
            stat: None,
        };
        let sent = sender.send(Ok(packet)).await;
        if is_last || sent.is_err() {
            return Ok(());
        }
    }
}

fn read_full(content: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match content.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
