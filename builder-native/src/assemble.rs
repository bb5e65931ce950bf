//! An image, step by step: the base, what each step adds, and how it is run.

use imagespec_core::builder::BuiltLayer;
use imagespec_core::context::BuildContext;
use imagespec_core::contract::{self, WORKDIR};
use imagespec_core::error::BuildError;
use imagespec_core::plan::{BuildPlan, Step};
use imagespec_core::platform::Platform;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Descriptor, Image, Runtime, write_index};
use indexmap::IndexMap;

use crate::backend::Native;
use crate::layers::{Layers, store_error};
use crate::provenance::Provenance;

/// A build of one plan.
pub(crate) struct Assembly<'a> {
    pub(crate) native: &'a Native,
    pub(crate) plan: &'a BuildPlan,
    pub(crate) cx: &'a BuildContext<'a>,
    pub(crate) layers: Layers,
    pub(crate) http: imagespec_http::Client,
}

/// An image of one platform in the making.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) platform: Platform,
    pub(crate) layers: Vec<Layer>,
    pub(crate) runtime: Runtime,
    pub(crate) provenance: Provenance,
}

/// An image in the store that has no name yet.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    pub(crate) descriptor: Descriptor,
    pub(crate) layers: Vec<BuiltLayer>,
    pub(crate) size: u64,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        native: &'a Native,
        plan: &'a BuildPlan,
        cx: &'a BuildContext<'a>,
    ) -> Result<Self, BuildError> {
        let layers = Layers::new(&native.store, cx.settings.compression);
        let http = imagespec_http::Client::new(&native.host)?;
        Ok(Self {
            native,
            plan,
            cx,
            layers,
            http,
        })
    }

    /// Builds every platform and, where there are several, their index.
    pub(crate) async fn build(&self) -> Result<Assembled, BuildError> {
        let mut manifests = Vec::new();
        let mut first = None;
        for platform in &self.plan.platforms {
            let draft = self.platform(platform).await?;
            let image = Image {
                platform: draft.platform,
                runtime: draft.runtime,
                layers: draft.layers,
            };
            let manifest = image
                .write(self.native.store.blobs())
                .map_err(|error| store_error(&error))?;
            draft
                .provenance
                .write(&self.native.host, &manifest.digest)
                .map_err(|error| store_error(&error))?;
            manifests.push(manifest);
            first.get_or_insert(image.layers);
        }
        let descriptor = match &manifests[..] {
            [one] => one.clone(),
            several => write_index(self.native.store.blobs(), several)
                .map_err(|error| store_error(&error))?,
        };
        let layers: Vec<_> = first
            .unwrap_or_default()
            .into_iter()
            .map(built_layer)
            .collect();
        let size = layers.iter().map(|layer| layer.size).sum();
        Ok(Assembled {
            descriptor,
            layers,
            size,
        })
    }

    async fn platform(&self, platform: &Platform) -> Result<Draft, BuildError> {
        let mut draft = self.base(platform).await?;
        let base_env = environment(&draft.runtime);
        let env = contract::environment(self.plan, &base_env);
        draft.runtime.env = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for step in &self.plan.steps {
            match step {
                Step::AptPackages { packages } => self.apt_packages(&mut draft, packages).await?,
                Step::PythonPackages {
                    requirements,
                    packages,
                    index,
                } => {
                    self.python_packages(&mut draft, requirements.as_ref(), packages, index)
                        .await?;
                }
                Step::Copy { from, to, field } => self.copy(&mut draft, field, from, to)?,
                Step::Run { commands } => self.run(&mut draft, commands, &env).await?,
                other => {
                    let message = format!("builder `native` does not support `{}`", other.field());
                    return Err(BuildError::input(message).field(other.field()));
                }
            }
        }
        contract::USER.clone_into(&mut draft.runtime.user);
        WORKDIR.clone_into(&mut draft.runtime.working_dir);
        if let Some(entrypoint) = &self.plan.entrypoint {
            draft.runtime.entrypoint =
                Some(entrypoint.clone()).filter(|entrypoint| !entrypoint.is_empty());
        }
        draft.runtime.labels.extend(self.cx.settings.labels.clone());
        Ok(draft)
    }
}

/// The environment of an image, by name.
pub(crate) fn environment(runtime: &Runtime) -> IndexMap<String, String> {
    let split = |line: &String| {
        line.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    runtime.env.iter().filter_map(split).collect()
}

/// A layer as results tell of it.
pub(crate) fn built_layer(layer: Layer) -> BuiltLayer {
    BuiltLayer {
        digest: layer.digest,
        diff_id: layer.diff_id,
        size: layer.size,
        created_by: layer.created_by,
    }
}
