//! Uploading layers while others are still being made.

use std::collections::BTreeSet;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use imagespec_core::context::Output;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_oci::Registry;
use imagespec_oci::cache::Layer;
use imagespec_oci::delivery::parse;
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::{BlobPush, Mounts, Stored};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::assemble::{Assembled, Assembly};
use crate::deliver::mounts;

/// How many layers are sent at once while others are made.
const UPLOADS: usize = 2;

/// What is in the registry before the image is complete.
pub(crate) struct Early {
    pub(crate) registry: Registry,
    pub(crate) mounts: Mounts,
    /// The layers that its repository has for certain.
    pub(crate) there: BTreeSet<Digest>,
    /// Bytes that were sent.
    pub(crate) bytes: u64,
}

impl Assembly<'_> {
    /// Builds the image. What is made for it goes to the registry at once, where that is the output.
    pub(crate) async fn build_early(&self) -> Result<(Assembled, Option<Early>), BuildError> {
        if !matches!(self.cx.output, Output::Push) {
            return Ok((Box::pin(self.build()).await?, None));
        }
        let (sender, receiver) = unbounded_channel();
        *self.fresh_layers() = Some(sender);
        let build = async {
            let built = Box::pin(self.build()).await;
            // Nothing more comes.
            self.fresh_layers().take();
            built
        };
        let (image, early) = futures::try_join!(build, Box::pin(self.upload(receiver)))?;
        Ok((image, Some(early)))
    }

    /// Tells that a layer was made.
    pub(crate) fn made(&self, layer: &Layer) {
        if let Some(sender) = &*self.fresh_layers() {
            // Nobody listens any more where the registry did not take the last one.
            let _ = sender.send(layer.clone());
        }
    }

    /// Sends layers as they come. One that the registry does not take ends it: the push, which tries again, says why.
    async fn upload(&self, mut layers: UnboundedReceiver<Layer>) -> Result<Early, BuildError> {
        let reference = parse(&self.cx.destination.reference())?;
        let registry = Registry::new(&self.native.host, &reference.registry)?;
        let mounts = mounts(self.native);
        let upload = |layer: Layer| {
            let blob = Descriptor::new(&layer.media_type, layer.digest, layer.size);
            let push = BlobPush {
                store: self.native.store.blobs(),
                source: &Stored,
                repository: &reference.repository,
                mounts: &mounts,
                progress: &|_| (),
            };
            let registry = &registry;
            async move {
                let bytes = registry.push_blob(&blob, push).await.ok()?;
                Some((layer.digest, bytes))
            }
            .boxed()
        };
        let (mut there, mut bytes) = (BTreeSet::new(), 0);
        let mut sending = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(layer) = layers.recv(), if sending.len() < UPLOADS => sending.push(upload(layer)),
                Some(done) = sending.next() => {
                    let Some((digest, more)) = done else { break };
                    there.insert(digest);
                    bytes += more;
                }
                else => break,
            }
        }
        drop(sending);
        Ok(Early {
            registry,
            mounts,
            there,
            bytes,
        })
    }
}
