//! Layers that are made, or fetched, when somebody needs their bytes.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::builder::Work;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_oci::Registry;
use imagespec_oci::cache::Layer;
use imagespec_python::fetch;
use imagespec_python::lock::LockedWheel;
use tokio::sync::Semaphore;

use crate::assemble::Assembly;
use crate::recipe::{LazyLayer, Origin, Recipe};

/// For how many layers wheels are fetched at once, eight for each.
const FETCHES: usize = 3;

/// What a build had to do so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) wheels: AtomicU64,
    pub(crate) packages: AtomicU64,
    pub(crate) base_layers: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) mounted: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Whether a layer came out as other bytes than those it is known by.
    outdated: AtomicBool,
}

impl Tally {
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    pub(crate) fn work(&self) -> Work {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            wheels_fetched: of(&self.wheels),
            packages_fetched: of(&self.packages),
            base_layers_fetched: of(&self.base_layers),
            bytes_fetched: of(&self.bytes),
            layers_written: of(&self.written),
            layers_mounted: of(&self.mounted),
            requests: of(&self.requests),
        }
    }
}

/// Adds to a counter of a [`Tally`].
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Assembly<'_> {
    /// The layer of a recipe over `below`: as it is known, or made now. Says whether it was known.
    pub(crate) async fn layer(
        &self,
        below: &[LazyLayer],
        key: Digest,
        recipe: Recipe,
    ) -> Result<(LazyLayer, bool), BuildError> {
        let again = recipe.runs() && self.cx.settings.force;
        let (layer, known) = match self.layers.known(&key) {
            Some(layer) if !again => {
                self.chosen(&layer, false);
                (layer, true)
            }
            _ => {
                let made = self.make(below, &key, &recipe, again).await?;
                self.chosen(&made, true);
                (made, false)
            }
        };
        let recipe = Box::new(recipe);
        let origin = Origin::Recipe { key, recipe };
        Ok((LazyLayer { layer, origin }, known))
    }

    /// The layers of independent recipes over `below`, in their order, and whether all were known. What the
    /// largest ones are made of is fetched first, and each is made as soon as that is here.
    pub(crate) async fn layers(
        &self,
        below: &[LazyLayer],
        recipes: Vec<(Digest, Recipe)>,
    ) -> Result<(Vec<LazyLayer>, bool), BuildError> {
        let (fetching, making) = (
            &Semaphore::new(FETCHES),
            &Semaphore::new(self.cx.settings.jobs.max(1)),
        );
        let mut recipes: Vec<_> = recipes.into_iter().enumerate().collect();
        let size = |recipe: &Recipe| -> u64 {
            let wheels = recipe.wheels().iter().filter_map(|wheel| wheel.size);
            let conda = recipe
                .conda()
                .iter()
                .filter_map(imagespec_conda::Package::size);
            wheels.chain(conda).sum()
        };
        recipes.sort_by_key(|(_, (_, recipe))| Reverse(size(recipe)));
        let each: FuturesUnordered<_> = recipes
            .into_iter()
            .map(|(at, (key, recipe))| {
                async move {
                    if self.layers.known(&key).is_none() {
                        let _turn = fetching.acquire().await;
                        let title = format!("fetch {}", recipe.title());
                        self.fetch_wheels(title, recipe.wheels().iter()).await?;
                        self.fetch_conda(recipe.conda()).await?;
                    }
                    let _turn = making.acquire().await;
                    Ok::<_, BuildError>((at, self.layer(below, key, recipe).await?))
                }
                .boxed()
            })
            .collect();
        let mut made: Vec<_> = each.try_collect().await?;
        made.sort_by_key(|(at, _)| *at);
        let known = made.iter().all(|(_, (_, known))| *known);
        let layers = made.into_iter().map(|(_, (layer, _))| layer).collect();
        Ok((layers, known))
    }

    /// Sees to it that the blobs of the layers of `image` which `wanted` picks are in the store.
    pub(crate) fn ensure<'s>(
        &'s self,
        image: &'s [LazyLayer],
        wanted: &'s (dyn Fn(&LazyLayer) -> bool + Sync),
    ) -> BoxFuture<'s, Result<(), BuildError>> {
        async move {
            let mut missing = Vec::new();
            for (at, lazy) in image.iter().enumerate() {
                if wanted(lazy) && !self.layers.has(&lazy.layer)? {
                    missing.push(at);
                }
            }
            let wheels = missing.iter().flat_map(|at| match &image[*at].origin {
                Origin::Recipe { recipe, .. } => recipe.wheels(),
                Origin::Registry { .. } | Origin::Store => &[],
            });
            self.fetch_wheels("fetch wheels".to_owned(), wheels).await?;
            let each: Vec<_> = missing
                .into_iter()
                .map(|at| self.bring(image, at).boxed())
                .collect();
            stream::iter(each)
                .buffer_unordered(self.cx.settings.jobs.max(1))
                .try_collect()
                .await
        }
        .boxed()
    }

    /// Sees to it that the blob of one layer of `image` is in the store.
    pub(crate) async fn bring(&self, image: &[LazyLayer], at: usize) -> Result<(), BuildError> {
        let LazyLayer { layer, origin } = &image[at];
        match origin {
            Origin::Store => {
                let message =
                    "a layer of the image that this one starts from is not in the local store";
                Err(BuildError::failed(message)
                    .field("base_image")
                    .hint("build that image again with `--force`"))
            }
            Origin::Recipe { key, recipe } => {
                let made = self.make(&image[..at], key, recipe, false).await?;
                if made.digest == layer.digest {
                    return Ok(());
                }
                // Somebody else found the record outdated first, and made it anew.
                Err(self.outdated(layer))
            }
            Origin::Registry {
                registry,
                repository,
            } => {
                let descriptor = layer.descriptor();
                let title = format!("base layer {}", &layer.digest.hex()[..12]);
                let step = self.cx.progress.step(title.clone(), title);
                let done = AtomicU64::new(0);
                let advance = |bytes: u64| {
                    let before = done.fetch_add(bytes, Ordering::Relaxed);
                    step.advance(before + bytes, Some(layer.size));
                };
                let store = self.native.store.blobs();
                Registry::new(&self.native.host, registry)?
                    .get_blob(repository, &descriptor, store, &advance)
                    .await
                    .map_err(|error| BuildError::from(error).field("base_image"))?;
                count(&self.tally.base_layers, 1);
                count(&self.tally.bytes, layer.size);
                step.finish(false, "fetched");
                Ok(())
            }
        }
    }

    /// Makes the layer of a recipe, unless somebody else does at the same time: then theirs counts. `again`
    /// makes it whatever is known.
    async fn make(
        &self,
        below: &[LazyLayer],
        key: &Digest,
        recipe: &Recipe,
        again: bool,
    ) -> Result<Layer, BuildError> {
        let _lock = self.layers.lock(key).await?;
        let known = self.layers.known(key).filter(|_| !again);
        if let Some(known) = &known
            && self.layers.has(known)?
        {
            return Ok(known.clone());
        }
        let made = self.write(below, recipe).await?;
        count(&self.tally.written, 1);
        match known {
            Some(known) if known.digest != made.digest => {
                self.layers.forget(key)?;
                Err(self.outdated(&known))
            }
            Some(_) => Ok(made),
            None => {
                self.layers.keep(key, &made)?;
                Ok(made)
            }
        }
    }

    fn outdated(&self, layer: &Layer) -> BuildError {
        self.tally.outdated.store(true, Ordering::Relaxed);
        let message = format!(
            "a layer that was made again has other bytes than before: {}",
            layer.created_by
        );
        BuildError::failed(message).hint("what was known of it is forgotten; build again")
    }

    /// Fetches the wheels, or archives of packages, that are not here.
    pub(crate) async fn fetch_wheels<'w>(
        &self,
        title: String,
        wheels: impl Iterator<Item = &'w LockedWheel>,
    ) -> Result<(), BuildError> {
        let mut missing: Vec<_> = wheels
            .filter(|wheel| !fetch::cached(&self.native.host, wheel).is_file())
            .cloned()
            .collect();
        missing.sort_by_key(|wheel| wheel.digest);
        missing.dedup_by(|a, b| a.digest == b.digest);
        if missing.is_empty() {
            return Ok(());
        }
        let step = self.cx.progress.step(title.clone(), title);
        let total = missing.iter().map(|wheel| wheel.size).sum();
        let advance = |done: u64| step.advance(done, total);
        let (host, logins) = (&self.native.host, &self.logins);
        let bytes = fetch::fetch(host, &self.http, &missing, logins, 8, &advance).await?;
        count(&self.tally.wheels, missing.len() as u64);
        count(&self.tally.bytes, bytes);
        step.finish(false, format!("{:.1} MB", crate::deliver::megabytes(bytes)));
        Ok(())
    }
}
