//! The life of a Job: made, found, removed.

use std::time::Duration;

use imagespec_core::error::BuildError;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Cluster, is_code};
use crate::job::{self, CLIENT, Way};
use crate::prepare::Prepared;
use crate::state;

/// How long a Job that another client made may be without what belongs to it.
const MAKING: Duration = Duration::from_secs(20);
/// How long a cluster may take to remove a Job.
const REMOVING: Duration = Duration::from_secs(40);
/// The pause between two looks at something that changes by itself.
const LOOK: Duration = Duration::from_millis(200);

impl Cluster {
    /// Makes a Job with all that belongs to it, or finds the one that is there, unless it is to be a fresh one.
    /// Answers whether it was made now.
    pub(crate) async fn begin(
        &self,
        prepared: &Prepared<'_>,
        mut fresh: bool,
    ) -> Result<bool, BuildError> {
        let jobs = self.api::<Job>();
        let mut job = prepared.order.job()?;
        job.annotations_mut()
            .insert(CLIENT.to_owned(), prepared.client.clone());
        let name = prepared.order.name.as_str();
        let mut since = None;
        loop {
            let created = self
                .ask("create Jobs", || async {
                    match jobs.create(&PostParams::default(), &job).await {
                        Ok(created) => Ok(Some(created)),
                        Err(error) if is_code(&error, 409) => Ok(None),
                        Err(error) => Err(error),
                    }
                })
                .await?;
            let found = match created {
                Some(created) => Some(created),
                None => self.ask("read Jobs", || jobs.get_opt(name)).await?,
            };
            let Some(found) = found else {
                continue;
            };
            // It may have been made by an attempt whose answer was lost.
            if prepared.made(&found) {
                let furnished = self.furnish(prepared, &found).await;
                if furnished.is_err() {
                    // What is not whole is not left behind.
                    self.remove_soon(name).await;
                }
                return furnished.map(|()| true);
            }
            let leaving = found.metadata.deletion_timestamp.is_some();
            let over = state::is_complete(&found) || state::of_job(&found).is_some();
            let suspended = found.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
            if leaving {
                self.wait_for_removal(name, found.uid()).await?;
            } else if over || fresh {
                self.remove(name).await?;
            } else if !suspended {
                return Ok(false);
            } else if since.get_or_insert_with(Instant::now).elapsed() > MAKING {
                // Whoever made it has gone.
                self.remove(name).await?;
            } else {
                sleep(LOOK).await;
                continue;
            }
            fresh = false;
        }
    }

    /// Removes the Job that a client made, if it is there. One that does not answer is not waited for for long.
    pub(crate) async fn give_up(&self, prepared: &Prepared<'_>) -> Result<(), BuildError> {
        let name = prepared.order.name.as_str();
        let own = async {
            let jobs = self.api::<Job>();
            let found = self.ask("read Jobs", || jobs.get_opt(name)).await?;
            if found.is_some_and(|job| prepared.made(&job)) {
                self.remove(name).await?;
            }
            Ok(())
        };
        let given_up = timeout(REMOVING, own).await;
        given_up.unwrap_or_else(|_| {
            let message = format!("Job `{name}` may go on in namespace `{}`", self.namespace);
            Err(BuildError::unavailable(message)
                .hint("the cluster does not answer; it removes the Job some time after its end"))
        })
    }

    /// Adds to a Job what belongs to it, and lets it begin.
    async fn furnish(&self, prepared: &Prepared<'_>, job: &Job) -> Result<(), BuildError> {
        let order = &prepared.order;
        let owner = job::owner(job);
        if let Some(secret) = order.secret(Some(&owner)) {
            let secrets = self.api::<Secret>();
            self.ask("create Secrets", || put(&secrets, &secret))
                .await?;
        }
        if order.way == Way::Mounted {
            let map = order.config_map(Some(&owner), prepared.archive.bytes()?);
            let maps = self.api::<ConfigMap>();
            self.ask("create ConfigMaps", || put(&maps, &map)).await?;
        }
        let begin = json!({ "spec": { "suspend": false } });
        let jobs = self.api::<Job>();
        let patched = self.ask("patch Jobs", || async {
            jobs.patch(&order.name, &PatchParams::default(), &Patch::Merge(&begin))
                .await
        });
        patched.await.map(drop)
    }

    /// A Job that failed stays to be read, or goes.
    pub(crate) async fn end_failed(&self, name: &str, keep: bool) {
        if !keep {
            self.remove_soon(name).await;
            return;
        }
        // What is secret does not stay. Whoever made the Job named it.
        let found = self.api::<Job>().get_opt(name).await.ok().flatten();
        let client = found.and_then(|job| job.annotations().get(CLIENT).cloned());
        if let Some(client) = client {
            let secrets = self.api::<Secret>();
            let secret = job::belongings(name, &client);
            let _ = secrets.delete(&secret, &DeleteParams::default()).await;
        }
    }

    /// Asks for a Job to be removed. Where that is not heard, the cluster removes it after a while by itself.
    pub(crate) async fn remove_soon(&self, name: &str) {
        let background = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let _ = self.api::<Job>().delete(name, &background).await;
    }

    /// Removes a Job, and waits until it and its pod are gone.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), BuildError> {
        let jobs = self.api::<Job>();
        let foreground = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        let uid = self
            .ask("delete Jobs", || async {
                match jobs.delete(name, &foreground).await {
                    Ok(either) => Ok(either.left().and_then(|job| job.uid())),
                    Err(error) if is_code(&error, 404) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await?;
        self.wait_for_removal(name, uid).await
    }

    async fn wait_for_removal(&self, name: &str, uid: Option<String>) -> Result<(), BuildError> {
        let jobs = self.api::<Job>();
        let since = Instant::now();
        loop {
            let found = self.ask("read Jobs", || jobs.get_opt(name)).await?;
            if found.is_none_or(|found| uid.is_some() && found.uid() != uid) {
                return Ok(());
            }
            if since.elapsed() > REMOVING {
                let message = format!(
                    "the cluster does not remove Job `{name}` in namespace `{}`",
                    self.namespace
                );
                return Err(BuildError::unavailable(message)
                    .hint("its node may be gone; `kubectl delete --force` removes the pod"));
            }
            sleep(LOOK).await;
        }
    }
}

/// Creates an object. What another attempt has left under the name, unheard of, is the same.
async fn put<K>(api: &kube::Api<K>, object: &K) -> kube::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    match api.create(&PostParams::default(), object).await {
        Err(error) if is_code(&error, 409) => {
            let name = object.meta().name.as_deref().unwrap_or_default();
            match api.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_code(&error, 404) => return Err(error),
                _ => {}
            }
            api.create(&PostParams::default(), object).await.map(drop)
        }
        created => created.map(drop),
    }
}
