//! The entry under which the builder is known, and what it says of itself.

use std::sync::Arc;

use async_trait::async_trait;
use imagespec_bucket::Bucket;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::registry::BuilderEntry;
use imagespec_oci::Delivery;
use imagespec_oci::delivery::is_untold;
use imagespec_oci::images::ImageStore;

use tokio::sync::OnceCell;

use crate::cluster::Cluster;
use crate::options::{Executor, OPTIONS, Options};
use crate::rights;

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "kaniko",
    aliases: &["kubernetes"],
    summary: "a Job in a Kubernetes cluster",
    fallback: None,
    base_maker: Some("native"),
    options: OPTIONS,
    create,
};

imagespec_core::register_builder!(ENTRY);

/// The builder.
#[derive(Debug)]
pub struct Kaniko {
    pub(crate) host: Host,
    pub(crate) options: Options,
    pub(crate) store: ImageStore,
    /// Where contexts wait that no `ConfigMap` holds.
    pub(crate) contexts: Option<Bucket>,
    /// The cluster, once it was looked for: whoever asks for credentials need not be asked twice.
    cluster: OnceCell<Cluster>,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    Ok(Arc::new(Kaniko::new(config)?))
}

impl Kaniko {
    pub(crate) fn new(config: BuilderConfig<'_>) -> Result<Self, BuildError> {
        let options = Options::read(config.options)?;
        let contexts = options.context_store.as_deref();
        let open = |url| {
            let opened = Bucket::open(url, "builder_options", config.host);
            opened.map_err(|error| error.context("cannot use option `context_store`"))
        };
        Ok(Self {
            host: config.host.clone(),
            contexts: contexts.map(open).transpose()?,
            options,
            store: ImageStore::open(&config.host.cache_dir),
            cluster: OnceCell::new(),
        })
    }

    /// The cluster that builds.
    pub(crate) async fn cluster(&self) -> Result<&Cluster, BuildError> {
        let find = || Cluster::find(&self.host, &self.options);
        self.cluster.get_or_try_init(find).await
    }

    /// Where its images are looked for and brought to.
    pub(crate) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            host: &self.host,
            store: &self.store,
            builder: ENTRY.name,
        }
    }
}

#[async_trait]
impl Builder for Kaniko {
    fn capabilities(&self) -> CapabilitySet {
        let mut able = CapabilitySet::from([
            Capability::BaseDebian,
            Capability::BaseImage,
            Capability::BaseReference,
            Capability::PythonExec,
            Capability::CondaPackages,
            Capability::PythonPackages,
            Capability::RuntimePackages,
            Capability::Secrets,
            Capability::HelperImages,
            Capability::OutputPush,
            Capability::OutputOciDir,
            Capability::OutputTar,
        ]);
        if self.options.executor != Executor::Native {
            able.insert(Capability::AptPackages);
            able.insert(Capability::Run);
        }
        able
    }

    async fn probe(&self) -> Availability {
        let cluster = match self.cluster().await {
            Ok(cluster) => cluster,
            Err(error) => return Availability::missing(&error),
        };
        match rights::missing(cluster).await {
            Ok(lacks) if lacks.is_empty() => Availability::Ready {
                detail: format!(
                    "namespace `{}` of the cluster at {}",
                    cluster.namespace, cluster.place
                ),
            },
            Ok(lacks) => Availability::Missing {
                reason: format!(
                    "not allowed in namespace `{}` of the cluster at {}: {}",
                    cluster.namespace,
                    cluster.place,
                    rights::listed(&lacks)
                ),
                hint: format!(
                    "somebody who may has to apply:\n{}",
                    rights::role(&cluster.namespace, &lacks)
                ),
            },
            Err(error) => Availability::missing(&error),
        }
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        if is_untold(cx) || *cx.output != Output::Push {
            return Ok(None);
        }
        self.delivery().find_pushed(plan, cx).await
    }

    async fn tag(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        self.delivery().tag_pushed(image, cx).await
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        Box::pin(self.make(plan, cx)).await
    }

    async fn base_output(
        &self,
        _: &BuildPlan,
        _: &BuildContext<'_>,
    ) -> Result<Option<Output>, BuildError> {
        Ok(Some(Output::Push))
    }

    fn local_output(&self) -> Output {
        Output::Push
    }
}
