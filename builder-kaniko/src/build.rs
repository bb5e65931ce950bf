//! A build, from the plan to where the image should be.

use imagespec_core::builder::BuiltImage;
use imagespec_core::context::{BuildContext, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::mask::Mask;
use imagespec_core::plan::BuildPlan;
use imagespec_oci::delivery::{is_untold, references};

use crate::answers::Answers;
use crate::backend::Kaniko;
use crate::cluster::Cluster;
use crate::follow::{End, Following};
use crate::job::Way;
use crate::options::Executor;
use crate::output::Output as Printed;
use crate::prepare::Prepared;
use crate::said::Said;
use crate::solved::Solved;
use crate::state;

/// How often a Job may be taken away before its end.
const TAKEN: u32 = 5;

/// What came of one Job.
enum Outcome {
    /// An image, of this digest where the executor said it, and as it told of it.
    Image(Option<Digest>, Option<BuiltImage>),
    /// The cluster lost the build.
    Lost(BuildError),
    /// Somebody removed the Job.
    Taken,
}

/// The error of an image that goes nowhere.
pub fn no_registry() -> BuildError {
    BuildError::input("a build in a cluster needs a registry to push to")
        .field("registry")
        .hint("say one with `--registry`, or in the deployment")
}

impl Kaniko {
    /// Builds, and brings the image where it should go.
    pub(crate) async fn make(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        if cx.destination.registry.is_none() {
            return Err(no_registry());
        }
        let cluster = self.cluster().await?;
        let _lock = self.delivery().lock().await?;
        let prepared = self.prepare(plan, cx, &cluster.namespace, false).await?;
        let (mut lost, mut taken) = (0, 0);
        let mut fresh = cx.settings.force;
        loop {
            match self.once(cluster, &prepared, cx, fresh).await? {
                Outcome::Image(digest, told) => {
                    let is_ours = |found: &Digest| digest.is_none_or(|digest| digest == *found);
                    let mut built = self.delivery().confirm(plan, cx, is_ours).await?;
                    if let Some(told) = told {
                        built.pushed_bytes = told.pushed_bytes;
                        built.work = told.work;
                    }
                    return self.bring(plan, cx, built).await;
                }
                Outcome::Taken => {
                    // Another client that followed it may have removed it after its good end. An image that was there
                    // before is not what was asked for by force.
                    if !cx.settings.force
                        && !is_untold(cx)
                        && let Some(found) = self.delivery().find_pushed(plan, cx).await?
                    {
                        return self.bring(plan, cx, found).await;
                    }
                    taken += 1;
                    if taken > TAKEN {
                        return Err(state::lost("its Job was removed again and again"));
                    }
                }
                Outcome::Lost(error) if lost == self.options.retries => return Err(error),
                Outcome::Lost(error) => {
                    lost += 1;
                    let why = error.source.map(|cause| format!(": {cause}"));
                    let why = why.unwrap_or_default();
                    cx.progress
                        .notice(format!("{}{why}; it is begun again", error.message));
                }
            }
            fresh = false;
        }
    }

    /// Makes a Job or joins one, and follows it to its end.
    async fn once(
        &self,
        cluster: &Cluster,
        prepared: &Prepared<'_>,
        cx: &BuildContext<'_>,
        fresh: bool,
    ) -> Result<Outcome, BuildError> {
        let begun = Box::pin(cluster.begin(prepared, fresh));
        let own = cx.cancel.run_until_cancelled(begun).await;
        let name = &prepared.order.name;
        let Some(own) = own else {
            cluster.give_up(prepared).await?;
            return Err(BuildError::interrupted());
        };
        let own = own?;
        if !own {
            let namespace = &cluster.namespace;
            cx.progress.notice(format!(
                "joins the build that is under way as Job `{name}` in namespace `{namespace}`"
            ));
        }
        let mask = Mask::of(cx.secrets);
        let mut said = match self.options.executor {
            Executor::Kaniko => Printed::Kaniko(Said::new(
                cx.progress,
                &prepared.instructions,
                references(cx),
                mask,
            )),
            Executor::Buildkit => {
                Printed::Buildkit(Solved::new(cx.progress, &prepared.instructions, mask))
            }
            Executor::Native => Printed::Native(Answers::new(cx.progress, mask)),
        };
        let streamed = prepared.order.way == Way::Streamed;
        let archive = streamed.then_some(&prepared.archive);
        let followed = Following::new(cluster, name, cx.progress, archive).end(&mut said);
        let followed = cx.cancel.run_until_cancelled(Box::pin(followed)).await;
        let Some(end) = followed else {
            // Whoever only joined does not take it from the others.
            cluster.give_up(prepared).await?;
            return Err(BuildError::interrupted());
        };
        let keep = self.options.keep_failed;
        match end {
            Ok(End::Done(message)) => {
                let told = said.done();
                cluster.remove_soon(name).await;
                Ok(Outcome::Image(message.trim().parse().ok(), told))
            }
            Ok(End::Gone) => Ok(Outcome::Taken),
            Ok(End::Failed(_)) if streamed && said.is_cut_short() => {
                cluster.remove(name).await?;
                let lost = state::lost("the context did not come whole");
                Ok(Outcome::Lost(lost))
            }
            Ok(End::Lost(error)) => {
                cluster.remove(name).await?;
                Ok(Outcome::Lost(error))
            }
            Ok(End::Failed(code)) => {
                cluster.end_failed(name, keep).await;
                Err(said.failure(code))
            }
            Ok(End::Refused(error)) => {
                cluster.end_failed(name, keep).await;
                Err(error)
            }
            Err(error) => {
                if own {
                    cluster.remove_soon(name).await;
                }
                Err(error)
            }
        }
    }

    /// Brings what is in its registry where else it should go.
    async fn bring(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        pushed: BuiltImage,
    ) -> Result<BuiltImage, BuildError> {
        match cx.output {
            Output::OciDir(_) | Output::Tar(_) => {
                let pulled = self.delivery().pull(plan, cx).await?;
                self.delivery().keep(plan, cx, &pulled)
            }
            _ => Ok(pushed),
        }
    }
}
