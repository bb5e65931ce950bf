//! What others left in a cluster.

use imagespec_core::builder::BuilderConfig;
use imagespec_core::error::BuildError;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;

use crate::backend::Kaniko;
use crate::job::{MANAGED_BY, REFERENCE};
use crate::state;

/// After how many seconds a Job that was not let begin is nobody's.
const MAKING: i64 = 60;

/// Removes the Jobs of ours in the namespace that have ended or that nobody let begin, all of them where `all` says
/// so, and with each what belongs to it. Answers their names, each with its image.
pub async fn prune(
    config: BuilderConfig<'_>,
    all: bool,
) -> Result<Vec<(String, String)>, BuildError> {
    let kaniko = Kaniko::new(config)?;
    let cluster = kaniko.cluster().await?;
    let jobs = cluster.api::<Job>();
    let ours = ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let found = cluster.ask("list Jobs", || jobs.list(&ours)).await?;
    let mut removed = Vec::new();
    for job in found {
        let is_over = state::is_complete(&job) || state::of_job(&job).is_some();
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        let age = job.creation_timestamp().map_or(0, |created| {
            Timestamp::now().as_second() - created.0.as_second()
        });
        if all || is_over || (suspended && age > MAKING) {
            let name = job.name_any();
            cluster.remove(&name).await?;
            let image = job.annotations().get(REFERENCE).cloned();
            removed.push((name, image.unwrap_or_default()));
        }
    }
    Ok(removed)
}
