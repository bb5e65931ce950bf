//! Images of ours that a build in a cluster needs: with uv, so that it does not go with every context; with this very
//! program, where that is the executor. Each is brought once to the registry that the build pushes to.

use std::collections::BTreeMap;
use std::path::Path;

use imagespec_core::context::{BuildContext, Compression};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{BuildPlan, Step};
use imagespec_core::platform::Platform;
use imagespec_oci::Registry;
use imagespec_oci::cache::{Layer, LayerCache};
use imagespec_oci::delivery::{parse, unwritten};
use imagespec_oci::image::{Descriptor, Image, Runtime};
use imagespec_oci::layer::{LayerError, LayerWriter, Metadata, contract_parents};
use imagespec_oci::registry::{Mounts, Push, Stored};
use imagespec_oci::store::BlobWriter;
use imagespec_python::uv::Uv;

use crate::backend::Kaniko;
use crate::options::Executor;
use crate::program::{self, Program};

/// The repository of the image with uv, beside that of the image which is built.
const TOOLS: &str = "imagespec-tools";
/// The repository of the image with this program.
const EXECUTOR: &str = "imagespec-executor";
/// How many characters of its digest the tag of such an image has.
const TAG: usize = 32;

/// Whether the build of a plan runs uv.
pub(crate) fn are_wanted(plan: &BuildPlan) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Run { .. } => true,
        Step::PythonPackages {
            requirements,
            packages,
            ..
        } => requirements.is_some() || !packages.is_empty(),
        _ => false,
    })
}

impl Kaniko {
    /// The image with uv in the registry that the build pushes to, where it is brought if it is not there and may be.
    pub(crate) async fn tools(
        &self,
        platform: &Platform,
        cx: &BuildContext<'_>,
        may_push: bool,
    ) -> Result<String, BuildError> {
        let uv = Uv::portable(&self.host, platform).await?;
        let layers = vec![self.uv(&uv, "uv")?];
        let image = self.image(platform, Runtime::default(), layers)?;
        self.offer(TOOLS, &image, cx, may_push).await
    }

    /// The image with this program, as [`tools`](Self::tools), and how the program is started.
    pub(crate) async fn program(
        &self,
        cx: &BuildContext<'_>,
        may_push: bool,
    ) -> Result<(String, Vec<String>), BuildError> {
        let platform = Platform::host();
        let own = self.host.sandbox_init.first();
        let own = own.ok_or_else(|| BuildError::failed("this program does not know its file"))?;
        let program = Program::find(own).map_err(|error| {
            BuildError::unavailable("this program cannot be an executor in a cluster")
                .caused_by(&error)
                .hint("build on a machine with Linux, or with option `executor=kaniko`")
        })?;
        // With other executors, the option names theirs.
        if let (Executor::Native, Some(named)) = (self.options.executor, &self.options.image) {
            return Ok((named.clone(), program.command()));
        }
        let uv = Uv::portable(&self.host, &platform).await?;
        let path = format!("{}/bin/uv", program::HOME.trim_start_matches('/'));
        let layers = vec![
            self.layer(&program.key(), "imagespec", |layer| program.write(layer))?,
            self.uv(&uv, &path)?,
        ];
        let image = self.image(&platform, Runtime::default(), layers)?;
        let name = self.offer(EXECUTOR, &image, cx, may_push).await?;
        Ok((name, program.command()))
    }

    async fn offer(
        &self,
        name: &str,
        image: &Descriptor,
        cx: &BuildContext<'_>,
        may_push: bool,
    ) -> Result<String, BuildError> {
        let registry = cx.destination.registry.clone().unwrap_or_default();
        let tag: String = image.digest.hex().chars().take(TAG).collect();
        let name = format!("{registry}/{name}:{tag}");
        let reference = parse(&name)?;
        let registry = Registry::new(&self.host, &reference.registry)?;
        if registry.exists(&reference).await?.is_none() {
            if !may_push {
                let message = format!("the registry does not have it: `{name}`");
                return Err(BuildError::failed(message));
            }
            let push = Push {
                store: self.store.blobs(),
                source: &Stored,
                image,
                reference: &reference,
                extra_tags: &[],
                mounts: &Mounts::open(self.host.cache_dir.join("registries")),
                asked: &BTreeMap::new(),
                parallelism: 2,
                progress: &|_| (),
                cancel: &cx.cancel,
            };
            registry.push_image(push).await?;
        }
        Ok(format!("{name}@{}", image.digest))
    }

    fn image(
        &self,
        platform: &Platform,
        runtime: Runtime,
        layers: Vec<Layer>,
    ) -> Result<Descriptor, BuildError> {
        let image = Image {
            platform: platform.clone(),
            runtime,
            layers,
            annotations: std::collections::BTreeMap::new(),
        };
        let written = image.write(self.store.blobs());
        written.map_err(|error| unwritten(&error))
    }

    /// The layer with uv at a path.
    fn uv(&self, uv: &Uv, path: &str) -> Result<Layer, BuildError> {
        let key = program::key(&format!("imagespec-tools {path}"), &[uv.path()]);
        let key = key.map_err(|error| BuildError::failed("cannot read uv").caused_by(&error))?;
        self.layer(&key, "uv", |layer| file(layer, path, uv.path(), true))
    }

    /// A layer of a key, which is written if it is not here.
    fn layer(
        &self,
        key: &Digest,
        title: &str,
        write: impl FnOnce(&mut LayerWriter<BlobWriter>) -> Result<(), LayerError>,
    ) -> Result<Layer, BuildError> {
        let cache = LayerCache::open(self.host.cache_dir.join("layers"));
        let blobs = self.store.blobs();
        let there = |layer: &Layer| matches!(blobs.contains(&layer.digest), Ok(Some(_)));
        if let Some(layer) = cache.get(key).filter(there) {
            return Ok(layer);
        }
        let write = || -> Result<Layer, LayerError> {
            let out = blobs.writer()?;
            let mut writer = LayerWriter::new(out, Compression::GzipSingle, contract_parents)?;
            write(&mut writer)?;
            let (out, info) = writer.finish()?;
            out.commit(&info.digest)?;
            Ok(Layer::new(&info, title))
        };
        let layer = tokio::task::block_in_place(write)?;
        cache.put(key, &layer).map_err(|error| unwritten(&error))?;
        Ok(layer)
    }
}

/// Adds a file of this machine to a layer.
pub(crate) fn file(
    layer: &mut LayerWriter<BlobWriter>,
    path: &str,
    from: &Path,
    executable: bool,
) -> Result<(), LayerError> {
    let mut file = std::fs::File::open(from)?;
    let size = file.metadata()?.len();
    let mode = if executable { 0o755 } else { 0o644 };
    layer.file(path.as_bytes(), &Metadata::new(mode, 0), size, &mut file)
}
