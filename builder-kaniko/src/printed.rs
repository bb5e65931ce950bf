//! A build as manifests, for whoever has them applied by others.

use imagespec_core::builder::BuilderConfig;
use imagespec_core::context::BuildContext;
use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan};
use serde_json::{Value, json};

use crate::backend::Kaniko;
use crate::job::Way;
use crate::prepare::Prepared;

/// What a build is lent, its context and its Job, in the order in which they are applied. No login is in it, and no
/// secret of the declaration.
pub async fn manifests(
    config: BuilderConfig<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Vec<Value>, BuildError> {
    let kaniko = Kaniko::new(config)?;
    if plan.has_made_base() || !matches!(plan.base, Base::Reference { .. }) {
        let message = "a Job that others apply starts from an image of a registry";
        return Err(BuildError::input(message)
            .field("base_image")
            .hint("name one with `base_image`; `imagespec build` brings our own base along"));
    }
    if !cx.secrets.is_empty() {
        let message = "a secret is not printed";
        return Err(BuildError::input(message)
            .field("pip_secret_mounts")
            .hint("`imagespec build` gives it to the cluster as a Secret"));
    }
    let namespace = kaniko.options.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let Prepared { order, archive, .. } = kaniko.prepare(plan, cx, &namespace, true).await?;
    if order.way == Way::Streamed {
        let size = archive.size >> 10;
        let message = format!("the build context does not fit into a ConfigMap: {size} KiB");
        return Err(BuildError::input(message)
            .field("format")
            .hint("`--write DIR --dialect kaniko` writes it to a folder, for another way into the cluster")
            .hint("`imagespec build` streams it to the executor; once it has brought uv to the registry, contexts are without it"));
    }
    let mut job = json!(order.job()?);
    if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("suspend");
    }
    let context = json!(order.config_map(None, archive.bytes()?));
    let secret = order.secret(None).map(|secret| json!(secret));
    Ok(secret.into_iter().chain([context, job]).collect())
}
