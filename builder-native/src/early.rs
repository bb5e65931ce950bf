//! Layers of the image in the registry, while others are still being made: asked for, and sent.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use imagespec_core::context::Output;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_oci::Registry;
use imagespec_oci::cache::Layer;
use imagespec_oci::delivery::parse;
use imagespec_oci::image::{CONFIG, Descriptor, reachable};
use imagespec_oci::registry::{BlobPush, Mounts, Stored};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::assemble::{Assembled, Assembly};
use crate::deliver::mounts;
use crate::layers::store_error;

/// How many layers are sent at once while others are made.
const UPLOADS: usize = 2;
/// How many layers the registry is asked for at once meanwhile.
const QUESTIONS: usize = 8;

/// A layer of the image, or its configuration.
#[derive(Debug)]
pub(crate) struct Chosen {
    blob: Descriptor,
    /// Whether it was made just now, so that the registry hardly has it.
    made: bool,
}

/// What is in the registry before the image is complete.
pub(crate) struct Early {
    pub(crate) registry: Registry,
    pub(crate) mounts: Mounts,
    /// Whether its repository has a layer, as far as it was asked or sent it.
    pub(crate) asked: BTreeMap<Digest, bool>,
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
        *self.chosen_layers() = Some(sender);
        let build = async {
            let built = Box::pin(self.build()).await;
            // Nothing more comes but what describes the layers.
            let sender = self.chosen_layers().take();
            let built = built?;
            let store = self.native.store.blobs();
            let blobs = reachable(store, &built.descriptor).map_err(|error| store_error(&error))?;
            for blob in blobs.into_iter().filter(|blob| blob.media_type == CONFIG) {
                if let Some(sender) = &sender {
                    let _ = sender.send(Chosen { blob, made: true });
                }
            }
            Ok(built)
        };
        let (image, early) = futures::try_join!(build, Box::pin(self.upload(receiver)))?;
        Ok((image, Some(early)))
    }

    /// Tells that a layer will be in the image, and whether it was made just now.
    pub(crate) fn chosen(&self, layer: &Layer, made: bool) {
        if let Some(sender) = &*self.chosen_layers() {
            let blob = layer.descriptor();
            // Nobody listens any more where the registry did not take the last one.
            let _ = sender.send(Chosen { blob, made });
        }
    }

    /// Sends what is made as it comes, and asks for the layers that are known, unless the last image that was pushed to
    /// the repository is still there and has them. A registry that does not take one,
    /// or does not answer, ends it: the push, which tries again, says why.
    async fn upload(&self, mut chosen: UnboundedReceiver<Chosen>) -> Result<Early, BuildError> {
        let reference = parse(&self.cx.destination.reference())?;
        let registry = Registry::new(&self.native.host, &reference.registry)?;
        let mounts = mounts(self.native);
        let upload = |blob: Descriptor| {
            let push = BlobPush {
                store: self.native.store.blobs(),
                source: &Stored,
                repository: &reference.repository,
                absent: false,
                mounts: &mounts,
                progress: &|_| (),
            };
            let registry = &registry;
            async move {
                let bytes = registry.push_blob(&blob, push).await.ok()?;
                Some((blob.digest, Some(bytes)))
            }
            .boxed()
        };
        let ask = |blob: Descriptor| {
            let (registry, mounts, reference) = (&registry, &mounts, &reference);
            async move {
                let repository = &reference.repository;
                let found = registry.head_blob(repository, &blob.digest).await.ok()?;
                if found.is_some() {
                    mounts.holds(&reference.registry, repository, &blob.digest);
                }
                Some((blob.digest, found.map(|_| 0)))
            }
            .boxed()
        };
        let (mut asked, mut bytes) = (BTreeMap::new(), 0);
        let held = if self.cx.settings.force {
            // Whoever doubts the image doubts what the registry says of it.
            BTreeSet::new()
        } else {
            let (repository, store) = (&reference.repository, self.native.store.blobs());
            // A note of its own: a note is read once, and the base's layers are not in it yet.
            let noted = crate::deliver::mounts(self.native);
            registry.held(repository, &noted, store).await
        };
        let mut sending = FuturesUnordered::new();
        let mut asking = FuturesUnordered::new();
        loop {
            let done = tokio::select! {
                Some(Chosen { blob, made }) = chosen.recv(),
                    if sending.len() < UPLOADS && asking.len() < QUESTIONS =>
                {
                    if held.contains(&blob.digest) {
                        asked.insert(blob.digest, true);
                    } else if made {
                        sending.push(upload(blob));
                    } else {
                        asking.push(ask(blob));
                    }
                    continue;
                }
                Some(done) = sending.next() => done,
                Some(done) = asking.next() => done,
                else => break,
            };
            let Some((digest, sent)) = done else { break };
            asked.insert(digest, sent.is_some());
            bytes += sent.unwrap_or(0);
        }
        drop((sending, asking));
        Ok(Early {
            registry,
            mounts,
            asked,
            bytes,
        })
    }
}
