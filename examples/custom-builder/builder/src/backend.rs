//! The builder and the entry under which it is known.

use std::sync::Arc;

use async_trait::async_trait;
use imagespec_core::builder::{
    Availability, Builder, BuilderConfig, BuiltImage, Capability, CapabilitySet,
};
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan};
use imagespec_core::registry::BuilderEntry;

/// How the builder presents itself.
pub const ENTRY: BuilderEntry = BuilderEntry {
    name: "noop",
    aliases: &[],
    summary: "builds nothing: the image is the base image",
    fallback: None,
    base_maker: None,
    options: &[(
        "pinned",
        "refuse a base image without a digest: true or false",
    )],
    create,
};

imagespec_core::register_builder!(ENTRY);

/// The builder.
#[derive(Debug)]
pub struct Noop {
    pinned: bool,
}

fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    let mut builder = Noop { pinned: false };
    for (option, value) in config.options {
        match (option.as_str(), value.as_bool()) {
            ("pinned", Some(pinned)) => builder.pinned = pinned,
            ("pinned", None) => return Err(invalid(format!("expected true or false: `{value}`"))),
            _ => {
                return Err(invalid(format!("builder `noop` has no option: `{option}`"))
                    .hint("known options: pinned"));
            }
        }
    }
    Ok(Arc::new(builder))
}

fn invalid(message: String) -> BuildError {
    BuildError::input(message).field("builder_options")
}

impl Noop {
    /// The image that `plan` already is. Capabilities have kept out every step that has one; what has none,
    /// since every other builder can do it, is refused here.
    fn image(&self, plan: &BuildPlan) -> Result<BuiltImage, BuildError> {
        let Base::Reference { reference } = &plan.base else {
            return Err(
                BuildError::input("builder `noop` needs the reference of an image")
                    .field("base_image"),
            );
        };
        let change = match plan.steps.first() {
            Some(step) => Some(step.field()),
            None if !plan.env.is_empty() => Some("env"),
            None => plan.entrypoint.as_ref().map(|_| "entrypoint"),
        };
        if let Some(field) = change {
            return Err(BuildError::input(format!(
                "builder `noop` changes nothing, so it cannot honour `{field}`"
            ))
            .field(field)
            .hint(format!("remove `{field}`, or choose another builder")));
        }
        let digest = match reference.split_once('@') {
            Some((_, digest)) => Some(digest.parse::<Digest>().map_err(|error| {
                BuildError::input(format!("invalid digest of the base image: `{digest}`"))
                    .field("base_image")
                    .caused_by(&error)
            })?),
            None if self.pinned => {
                return Err(BuildError::input(format!(
                    "the base image has no digest: `{reference}`"
                ))
                .field("base_image")
                .hint("write it as `name@sha256:…`, or leave out the option `pinned`"));
            }
            None => None,
        };
        Ok(BuiltImage {
            reference: reference.clone(),
            digest,
            builder: ENTRY.name.to_owned(),
            built: false,
            size: 0,
            pushed_bytes: 0,
            layers: Vec::new(),
            work: None,
        })
    }
}

#[async_trait]
impl Builder for Noop {
    fn capabilities(&self) -> CapabilitySet {
        // The image is in its registry already, for whatever platforms it has.
        CapabilitySet::from([
            Capability::BaseReference,
            Capability::ForeignPlatform,
            Capability::MultiPlatform,
            Capability::OutputPush,
        ])
    }

    async fn probe(&self) -> Availability {
        Availability::Ready {
            detail: "nothing is needed".to_owned(),
        }
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        _: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        self.image(plan).map(Some)
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        _: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        self.image(plan)
    }

    fn local_output(&self) -> Output {
        Output::Push
    }
}
