//! The image with what executors are lent of ours: uv, so that it does not go with every context.

use std::collections::{BTreeMap, BTreeSet};

use imagespec_core::context::{BuildContext, Compression};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{BuildPlan, Step};
use imagespec_core::platform::Platform;
use imagespec_oci::Registry;
use imagespec_oci::cache::{Layer, LayerCache};
use imagespec_oci::delivery::{parse, unwritten};
use imagespec_oci::image::{Descriptor, Image, Runtime};
use imagespec_oci::layer::{LayerError, LayerWriter, Metadata, contract_parents};
use imagespec_oci::registry::{Mounts, Push, Stored};
use imagespec_python::uv::Uv;

use crate::backend::Kaniko;

/// The name of its repository, beside that of the image which is built.
const NAME: &str = "imagespec-tools";
/// How many characters of its digest its tag has.
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
    /// The image in the registry that the build pushes to, where it is brought if it is not there and may be.
    pub(crate) async fn tools(
        &self,
        platform: &Platform,
        cx: &BuildContext<'_>,
        may_push: bool,
    ) -> Result<String, BuildError> {
        let image = self.tools_image(platform).await?;
        let registry = cx.destination.registry.clone().unwrap_or_default();
        let tag: String = image.digest.hex().chars().take(TAG).collect();
        let name = format!("{registry}/{NAME}:{tag}");
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
                image: &image,
                reference: &reference,
                extra_tags: &[],
                mounts: &Mounts::open(self.host.cache_dir.join("registries")),
                there: &BTreeSet::new(),
                parallelism: 1,
                progress: &|_| (),
                cancel: &cx.cancel,
            };
            registry.push_image(push).await?;
        }
        Ok(format!("{name}@{}", image.digest))
    }

    async fn tools_image(&self, platform: &Platform) -> Result<Descriptor, BuildError> {
        let uv = Uv::portable(&self.host, platform).await?;
        let unread = |error: &std::io::Error| BuildError::failed("cannot read uv").caused_by(error);
        let mut file = fs_err::File::open(uv.path()).map_err(|error| unread(&error))?;
        let size = file.metadata().map_err(|error| unread(&error))?.len();
        let mut key = Framed::new("imagespec-tools");
        key.text(&uv.path().to_string_lossy()).number(size);
        let key = key.finish();
        let cache = LayerCache::open(self.host.cache_dir.join("layers"));
        let blobs = self.store.blobs();
        let there = |layer: &Layer| matches!(blobs.contains(&layer.digest), Ok(Some(_)));
        let layer = if let Some(layer) = cache.get(&key).filter(there) {
            layer
        } else {
            let write = || -> Result<Layer, LayerError> {
                let out = blobs.writer()?;
                let mut writer = LayerWriter::new(out, Compression::GzipSingle, contract_parents)?;
                writer.file(b"uv", &Metadata::new(0o755, 0), size, &mut file)?;
                let (out, info) = writer.finish()?;
                out.commit(&info.digest)?;
                Ok(Layer::new(&info, "uv"))
            };
            let layer = tokio::task::block_in_place(write)?;
            cache.put(&key, &layer).map_err(|error| unwritten(&error))?;
            layer
        };
        let image = Image {
            platform: platform.clone(),
            runtime: Runtime::default(),
            layers: vec![layer],
            annotations: BTreeMap::new(),
        };
        image.write(blobs).map_err(|error| unwritten(&error))
    }
}
