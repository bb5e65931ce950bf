//! What a build needs before a cluster is asked for anything.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imagespec_core::context::BuildContext;
use imagespec_core::dockerfile::{Dialect, Instruction};
use imagespec_core::error::BuildError;
use imagespec_core::plan::{Base, BuildPlan};
use imagespec_core::platform::Platform;
use imagespec_dockerfile::{Doorman, Tree};
use imagespec_oci::credentials::{Credential, Credentials};
use imagespec_oci::delivery::{self, parse};
use imagespec_oci::{Reference, Registry};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::assignment;
use crate::backend::Kaniko;
use crate::buildkit;
use crate::command::Command;
use crate::context::{Archive, unread};
use crate::job::{self, Brought, Order, Way};
use crate::options::{Executor, Logins};

/// Where Docker Hub's logins are in Docker's configuration.
const HUB: &str = "https://index.docker.io/v1/";

/// What an executor is given, as far as it depends on who that is.
pub(crate) struct Load {
    /// The image of the executor's container.
    pub(crate) image: String,
    /// The program that is brought into it, where it is not in it.
    pub(crate) program: Option<Brought>,
    /// What it runs on.
    pub(crate) platform: Platform,
    /// The context.
    pub(crate) tree: Tree,
    pub(crate) doorman: Doorman,
    /// What the build is lent, by name.
    pub(crate) lent: BTreeMap<String, Vec<u8>>,
    pub(crate) proxies: Vec<(String, String)>,
    /// The Dockerfile's, where there is one.
    pub(crate) instructions: Vec<Instruction>,
}

/// What is ready.
pub(crate) struct Prepared<'a> {
    pub(crate) order: Order<'a>,
    pub(crate) archive: Archive,
    /// The Dockerfile's, for people.
    pub(crate) instructions: Vec<Instruction>,
    /// Who prepared it: no two are alike.
    pub(crate) client: String,
}

impl Prepared<'_> {
    /// Whether a Job is the one that was made from this, by this client.
    pub(crate) fn made(&self, job: &Job) -> bool {
        let leaving = job.metadata.deletion_timestamp.is_some();
        !leaving && job.annotations().get(job::CLIENT) == Some(&self.client)
    }
}

/// A name that nobody else has.
fn client() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos());
    format!("{}-{now}", std::process::id())
}

impl Kaniko {
    /// Says what the Job in a namespace is to be, and packs its context. Where that is for others to read, it has
    /// nothing with a login, and nothing is brought to the registry for it.
    pub(crate) async fn prepare<'a>(
        &'a self,
        plan: &BuildPlan,
        cx: &'a BuildContext<'_>,
        namespace: &'a str,
        for_others: bool,
    ) -> Result<Prepared<'a>, BuildError> {
        let base = base(plan, cx)?;
        let executor = self.options.executor;
        let Load {
            image,
            program,
            platform,
            tree,
            doorman,
            mut lent,
            proxies,
            instructions,
        } = match executor {
            Executor::Kaniko => {
                let dialect = Dialect::Kaniko;
                self.lowered(plan, cx, &base, for_others, dialect).await?
            }
            Executor::Buildkit => {
                let dialect = Dialect::Buildkit;
                self.lowered(plan, cx, &base, for_others, dialect).await?
            }
            Executor::Native => self.assigned(plan, cx, &base, for_others).await?,
        };
        let (handle, cache) = (Handle::current(), self.host.cache_dir.clone());
        let packed = tokio::task::spawn_blocking(move || Archive::pack(&tree, &handle, &cache));
        let packed = with_door(packed, doorman.serve(cx.files)).await;
        let packed = packed.map_err(std::io::Error::other);
        let archive = packed
            .and_then(|packed| packed)
            .map_err(|error| unread(&error))?;
        let registries = self.registries(plan, cx, &base)?;
        let logins = if for_others {
            None
        } else {
            self.logins(&registries).await?
        };
        let secrets: Vec<_> = lent.keys().cloned().collect();
        let trusted = self.trusted(&registries, &mut lent)?;
        let insecure = self.insecure(&registries)?;
        let bucket = self.contexts.as_ref().filter(|_| !for_others);
        let way = archive.way(bucket.is_some());
        let platform_of_image = delivery::platform(plan);
        let command = Command {
            cx,
            options: &self.options,
            platform: &platform_of_image,
            way,
            insecure: &insecure,
            trusted: &trusted,
        };
        let arguments = told(&command, &secrets, &mut lent)?;
        let fetcher = match bucket.filter(|_| way == Way::Stored) {
            Some(bucket) => {
                let stored = self.store_context(bucket, &archive, &platform, cx, &mut lent);
                Some(stored.await?)
            }
            None => None,
        };
        let executors = program.as_ref().map_or(&image, |program| &program.image);
        let name = job::name(plan, cx, executors);
        let client = client();
        let order = Order {
            belongings: if for_others {
                name.clone()
            } else {
                job::belongings(&name, &client)
            },
            name,
            namespace,
            reference: cx.destination.reference(),
            options: &self.options,
            image,
            program,
            arguments,
            platform,
            way,
            fetcher,
            lent,
            declared: cx.secrets,
            logins,
            proxies: proxies.into_iter().collect(),
        };
        Ok(Prepared {
            order,
            archive,
            instructions,
            client,
        })
    }

    /// The registries that the executor talks to: of the image, of its base, of its layers.
    fn registries(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        base: &str,
    ) -> Result<Vec<Reference>, BuildError> {
        let mut registries = vec![parse(&cx.destination.reference())?];
        let base: Result<Reference, _> = base.parse();
        registries.extend(base);
        registries.extend(
            plan.helper_images
                .values()
                .filter_map(|image| image.parse().ok()),
        );
        let cache = self.options.cache_repo.as_ref();
        registries.extend(cache.and_then(|cache| cache.parse().ok()));
        let mut known = BTreeSet::new();
        registries.retain(|reference: &Reference| known.insert(reference.registry.clone()));
        Ok(registries)
    }

    /// This machine's logins at the registries, as Docker's configuration has them.
    async fn logins(&self, registries: &[Reference]) -> Result<Option<Value>, BuildError> {
        if self.options.logins != Logins::Made {
            return Ok(None);
        }
        let credentials = Credentials::new(&self.host);
        let mut found = BTreeMap::new();
        for Reference {
            registry,
            repository,
            ..
        } in registries
        {
            let credential = credentials
                .find(registry, repository)
                .await
                .map_err(|error| {
                    BuildError::unavailable(format!(
                        "the credentials of the registry cannot be had: `{registry}`"
                    ))
                    .caused_by(&error)
                    .hint(format!("log in again: `docker login {registry}`"))
                })?;
            let login = match credential {
                Some(Credential::Basic { username, password }) => {
                    json!({ "auth": STANDARD.encode(format!("{username}:{}", password.expose())) })
                }
                Some(Credential::IdentityToken(token)) => {
                    json!({ "identitytoken": token.expose() })
                }
                Some(Credential::RegistryToken(token)) => {
                    json!({ "registrytoken": token.expose() })
                }
                None => continue,
            };
            let name = if registry == "docker.io" {
                HUB
            } else {
                registry.as_str()
            };
            found.insert(name.to_owned(), login);
        }
        Ok(job::logins(&found))
    }

    /// The registries that speak plain HTTP.
    fn insecure(&self, registries: &[Reference]) -> Result<Vec<String>, BuildError> {
        let mut insecure = Vec::new();
        for Reference { registry, .. } in registries {
            if Registry::new(&self.host, registry)?.is_plain() {
                insecure.push(registry.clone());
            }
        }
        Ok(insecure)
    }

    /// The registries that this machine trusts by an authority of their own, which is lent.
    fn trusted(
        &self,
        registries: &[Reference],
        secrets: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<(String, String)>, BuildError> {
        let mut trusted = Vec::new();
        for (at, Reference { registry, .. }) in registries.iter().enumerate() {
            let settings = self.host.registries.get(registry);
            let Some(file) = settings.and_then(|settings| settings.ca.as_ref()) else {
                continue;
            };
            let content = fs_err::read(file).map_err(|error| {
                BuildError::input(format!("cannot read the authority of `{registry}`"))
                    .field("registries")
                    .caused_by(&error)
            })?;
            let name = format!("{}{at}.pem", job::AUTHORITY);
            secrets.insert(name.clone(), content);
            trusted.push((registry.clone(), name));
        }
        Ok(trusted)
    }
}

/// The arguments of an executor. What is no argument of it is lent; of that, `secrets` are for the build itself.
fn told(
    command: &Command<'_>,
    secrets: &[String],
    lent: &mut BTreeMap<String, Vec<u8>>,
) -> Result<Vec<String>, BuildError> {
    Ok(match command.options.executor {
        Executor::Kaniko => command.arguments(),
        Executor::Buildkit => {
            let settings = command.daemon().into_bytes();
            lent.insert(buildkit::CONFIGURATION.to_owned(), settings);
            command.client(secrets)
        }
        Executor::Native => {
            let registries = assignment::registries(command.insecure, command.trusted)?;
            lent.insert(assignment::lent::REGISTRIES.to_owned(), registries);
            assignment::arguments(command.way != Way::Streamed)
        }
    })
}

/// What the image starts from.
fn base(plan: &BuildPlan, cx: &BuildContext<'_>) -> Result<String, BuildError> {
    if let Base::Reference { reference } = &plan.base
        && !plan.has_made_base()
    {
        return Ok(reference.clone());
    }
    let base = cx.base.ok_or_else(|| {
        BuildError::failed("the image starts from nothing that is there").field("base_image")
    })?;
    // A tag may come to mean another image; what was pushed just now does not change.
    let digest = base.digest.map(|digest| format!("@{digest}"));
    Ok(format!("{}{}", base.reference, digest.unwrap_or_default()))
}

/// The result of something that asks at a door, which is served meanwhile.
async fn with_door<T>(asks: impl Future<Output = T>, serves: impl Future<Output = ()>) -> T {
    tokio::pin!(asks, serves);
    tokio::select! {
        asked = &mut asks => asked,
        () = &mut serves => asks.await,
    }
}
