//! The interface of a builder, and what it says about itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::{BuildContext, Output};
use crate::digest::Digest;
use crate::error::BuildError;
use crate::host::Host;
use crate::plan::BuildPlan;

/// Turns plans into images.
///
/// Every method may be called from several tasks at once. A future that is dropped leaves nothing
/// half-written behind; [`BuildContext::cancel`] is the polite way to stop a build.
#[async_trait]
pub trait Builder: fmt::Debug + Send + Sync {
    /// What this builder can do. Pure, called before any I/O.
    fn capabilities(&self) -> CapabilitySet;

    /// Whether this builder can work here and now, and if not, why and what to do about it.
    async fn probe(&self) -> Availability;

    /// The finished image of `plan` at the context's destination and output, for all its platforms, as the settings
    /// ask for it: one without a label or with another compression than they name is not the image.
    ///
    /// `Ok(None)` says that it is certainly absent. When that cannot be known, the answer is an error of kind
    /// [`ErrorKind::Unknown`](crate::error::ErrorKind::Unknown), never a guess.
    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError>;

    /// Builds `plan` and delivers the image where the context says.
    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError>;

    /// Gives an image that was found the further tags of the destination, where the output says that it is.
    async fn tag(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        let _ = image;
        let tags = cx.destination.extra_tags.join(", ");
        Err(BuildError::input(format!(
            "the builder does not tag images that exist: `{tags}`"
        ))
        .hint("leave out `--tag`, or build the image again with `--force`"))
    }

    /// Where this builder wants our own base before it builds a plan that starts from it, where it cannot make that
    /// base: another builder makes it, and [`BuildContext::base`] is then what came of it. What this one cannot build
    /// is refused here, before anybody makes anything for it.
    async fn base_output(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<Output>, BuildError> {
        let _ = (plan, cx);
        Ok(None)
    }

    /// Where images go when nobody says: [`Output::Push`] with a registry is
    /// decided before; this is for images without one.
    fn local_output(&self) -> Output {
        Output::Store
    }
}

/// What a builder may be able to do. A plan needs some of these; a builder that lacks one refuses the plan
/// before any work, naming the field that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capability {
    /// Start from our own Debian base.
    BaseDebian,
    /// Start from an image of a registry.
    BaseReference,
    /// Start from another image built before.
    BaseImage,
    /// Use an interpreter that the base image has.
    PythonExec,
    /// Install Debian packages.
    AptPackages,
    /// Install Python packages.
    PythonPackages,
    /// Install Conda packages.
    CondaPackages,
    /// Run shell commands.
    Run,
    /// Mount secrets while packages are installed.
    Secrets,
    /// Install packages when a container starts.
    RuntimePackages,
    /// Read a `registry_config`.
    RegistryConfig,
    /// Use helper images named by `builder_config`.
    HelperImages,
    /// Build for a platform that is not this machine's.
    ForeignPlatform,
    /// Build one image for several platforms.
    MultiPlatform,
    /// Push to a registry.
    OutputPush,
    /// Keep images in the local store.
    OutputStore,
    /// Load images into a Docker engine.
    OutputDocker,
    /// Write an OCI image layout.
    OutputOciDir,
    /// Write an archive.
    OutputTar,
}

impl Capability {
    /// The name it has in JSON.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// A set of capabilities.
pub type CapabilitySet = BTreeSet<Capability>;

/// Whether a builder can work here and now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Availability {
    /// It can.
    Ready {
        /// What was found: `docker 28.2 at /run/docker.sock`.
        detail: String,
    },
    /// It cannot.
    Missing {
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
}

impl Availability {
    /// That of a builder which cannot, because of an error.
    pub fn missing(error: &BuildError) -> Self {
        let first: &(dyn std::error::Error + 'static) = error;
        let chain = std::iter::successors(Some(first), |error| error.source());
        let said: Vec<_> = chain.map(ToString::to_string).collect();
        Self::Missing {
            reason: said.join(": "),
            hint: error.hints.join("; "),
        }
    }
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// `[registry/]name:tag`.
    pub reference: String,
    /// Digest of the manifest, or of the index for several platforms; absent where an engine does not know
    /// one before a push.
    pub digest: Option<Digest>,
    /// Name of the builder that made or found it.
    pub builder: String,
    /// Whether it was built now, rather than found.
    pub built: bool,
    /// Compressed bytes of all layers, once each.
    pub size: u64,
    /// Bytes sent to a registry.
    pub pushed_bytes: u64,
    /// The layers, base first; of the first platform where there are several.
    pub layers: Vec<BuiltLayer>,
    /// What had to be done, where the builder counts it.
    #[serde(default)]
    pub work: Option<Work>,
}

/// What a builder had to do for an image: what it reused does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Wheels that were downloaded.
    pub wheels_fetched: u64,
    /// Debian packages that were downloaded.
    pub packages_fetched: u64,
    /// Layers of a base image that were downloaded.
    pub base_layers_fetched: u64,
    /// Bytes of all these.
    pub bytes_fetched: u64,
    /// Layers that were written: compressed and digested.
    pub layers_written: u64,
    /// Layers that the registry took from another of its repositories.
    #[serde(default)]
    pub layers_mounted: u64,
    /// Requests to the registry.
    #[serde(default)]
    pub requests: u64,
}

/// A layer of a finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltLayer {
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// What it holds: `wheel numpy 2.2.6`.
    pub created_by: String,
}

/// What a factory has to make a builder from.
#[derive(Debug, Clone, Copy)]
pub struct BuilderConfig<'a> {
    /// The name under which it is known.
    pub name: &'static str,
    /// The machine.
    pub host: &'a Host,
    /// Options of this builder: those of the deployment, overlaid with the spec's `builder_options` and the
    /// command line's `--option`. A factory refuses those it does not know.
    pub options: &'a serde_json::Map<String, serde_json::Value>,
}

/// Makes a builder. Pure: whatever has to be contacted is contacted by [`Builder::probe`] or later.
pub type BuilderFactory = fn(BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError>;
