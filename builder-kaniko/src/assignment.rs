//! What executor `native` is told to do: the plan with its files, and beside them what it is lent of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::context::{BuildContext, Output, SecretMount};
use imagespec_core::contract::CA_BUNDLE;
use imagespec_core::dockerfile::secret;
use imagespec_core::error::BuildError;
use imagespec_core::host::{Host, RegistrySettings};
use imagespec_core::login::redacted;
use imagespec_core::plan::{BuildPlan, PackageIndex, Step};
use imagespec_core::platform::Platform;
use imagespec_core::protocol::{Task, TaskContext, TaskLogin, TaskSecret};
use imagespec_dockerfile::{Tree, read_lent};
use imagespec_python::index::{Settings, environment, is_about_packages, logins_with, proxies};
use serde::{Deserialize, Serialize};

use crate::backend::Kaniko;
use crate::job::{ARCHIVE, Brought, WORK};
use crate::memory;
use crate::options::Executor;
use crate::prepare::Load;

/// The version of an assignment. It grows when an older program would misunderstand one.
pub(crate) const VERSION: u32 = 1;
/// The builder that does it.
pub(crate) const BUILDER: &str = "native";
/// The assignment among the files of the plan. No file of a plan has the name: they are all in folders.
pub(crate) const ASSIGNMENT: &str = "assignment.json";
/// The error of a context that broke off on its way.
pub(crate) const CUT_SHORT: &str = "the build context did not come whole";

/// Names of what is lent.
pub(crate) mod lent {
    /// Variables of the environment, logins included.
    pub(crate) const VARIABLES: &str = "variables.json";
    /// The declaration's logins at package indexes.
    pub(crate) const LOGINS: &str = "logins.json";
    /// Settings of registries.
    pub(crate) const REGISTRIES: &str = "registries.json";
    /// Logins in netrc's format.
    pub(crate) const NETRC: &str = "netrc";
    /// A configuration of uv.
    pub(crate) const CONFIGURATION: &str = "uv.toml";
    /// Authorities for TLS.
    pub(crate) const AUTHORITIES: &str = "ca.pem";
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) version: u32,
    /// The repository in which is remembered what other builds found out.
    pub(crate) memory: Option<String>,
    pub(crate) task: Task,
}

impl Kaniko {
    /// What executor `native` is given for a plan over a base. What is for others has nothing with a login.
    pub(crate) async fn assigned(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        base: &str,
        for_others: bool,
    ) -> Result<Load, BuildError> {
        let (image, command) = self.program(cx, !for_others).await?;
        let mut proxies = proxies(&self.host);
        proxies.retain(|(_, value)| !(for_others && value.contains('@')));
        let (mut tree, doorman) = Tree::of(&plan.files);
        let context = TaskContext {
            output: Output::Push,
            secrets: secrets(cx),
            logins: Vec::new(),
            ..TaskContext::of(cx, None)
        };
        let assignment = Assignment {
            version: VERSION,
            memory: self.memory(cx),
            task: Task::of(plan, context),
        };
        let written = serde_json::to_vec(&assignment);
        let written = written.map_err(|error| {
            BuildError::failed("cannot write what the executor is to do").caused_by(&error)
        })?;
        tree.add(ASSIGNMENT, &written, false);
        Ok(Load {
            platform: Platform::host(),
            // Its interpreter is at hand in a container of what the image starts from.
            image: base.to_owned(),
            program: Some(Brought { image, command }),
            tree,
            doorman,
            lent: lent_to(&self.host, plan, cx, for_others)?,
            proxies,
            instructions: Vec::new(),
        })
    }

    /// The repository of what is remembered.
    fn memory(&self, cx: &BuildContext<'_>) -> Option<String> {
        let registry = cx.destination.registry.as_ref()?;
        let own = || format!("{registry}/{}", memory::REPOSITORY);
        let named = self.options.cache_repo.clone();
        self.options.cache.then(|| named.unwrap_or_else(own))
    }
}

/// The declaration's secrets, which are in the pod where they should be.
fn secrets(cx: &BuildContext<'_>) -> Vec<TaskSecret> {
    let secret = |declared: &SecretMount| TaskSecret {
        source: declared.target.clone(),
        target: declared.target.clone(),
    };
    cx.secrets.iter().map(secret).collect()
}

/// The authorities that a machine with these settings trusts, for containers that have none.
pub(crate) fn authorities(
    machine: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, BuildError> {
    let file = machine.get("SSL_CERT_FILE").map(PathBuf::from);
    let file = file.unwrap_or_else(|| PathBuf::from(CA_BUNDLE));
    file.is_file().then(|| read_lent(&file)).transpose()
}

/// What the executor is lent, by name.
fn lent_to(
    host: &Host,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    for_others: bool,
) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let mut given = BTreeMap::new();
    let machine = environment(host, &PackageIndex::default());
    if let Some(content) = authorities(&machine)? {
        given.insert(lent::AUTHORITIES.to_owned(), content);
    }
    // The pod has them even where nothing is installed. They are never printed.
    for (at, declared) in cx.secrets.iter().enumerate() {
        let content =
            read_lent(&declared.source).map_err(|error| error.field("pip_secret_mounts"))?;
        given.insert(secret::declared(at), content);
    }
    let index = plan.steps.iter().find_map(|step| match step {
        Step::PythonPackages { index, .. } => Some(index),
        _ => None,
    });
    let Some(index) = index else {
        return Ok(given);
    };
    let logins = logins_with(cx.logins, cx.secrets);
    let settings = Settings::of(host, index, &logins)?;
    let mut variables: BTreeMap<_, _> = machine
        .into_iter()
        .filter(|(name, _)| is_about_packages(name))
        .collect();
    if settings.options.iter().any(|option| option == "--no-index") {
        variables.insert("PIP_NO_INDEX".to_owned(), "1".to_owned());
    }
    variables.retain(|name, value| {
        let names_file = value
            .split([' ', ','])
            .any(|word| Path::new(word).is_absolute() && Path::new(word).exists());
        if names_file {
            cx.progress.notice(format!(
                "the executor does not see what `{name}` names: `{}`",
                redacted(value)
            ));
        }
        !names_file && (!for_others || redacted(value) == *value)
    });
    given.insert(lent::VARIABLES.to_owned(), json(&variables)?);
    if for_others {
        return Ok(given);
    }
    let logins: Vec<_> = cx
        .logins
        .iter()
        .map(|login| TaskLogin {
            url: login.url.clone(),
            user: host.expanded(&login.user),
            password: login.password.as_deref().map(|text| host.expanded(text)),
        })
        .collect();
    given.insert(lent::LOGINS.to_owned(), json(&logins)?);
    if let Some(netrc) = settings.lent_netrc() {
        given.insert(lent::NETRC.to_owned(), netrc.as_bytes().to_vec());
    }
    if let Some((configuration, _)) = settings.configuration.first() {
        given.insert(lent::CONFIGURATION.to_owned(), read_lent(configuration)?);
    }
    Ok(given)
}

/// What the executor is told of registries: which speak plain HTTP, and which have an authority of their own, each with
/// the name of what is lent of it.
pub(crate) fn registries(
    insecure: &[String],
    trusted: &[(String, String)],
) -> Result<Vec<u8>, BuildError> {
    let mut all: BTreeMap<&str, RegistrySettings> = BTreeMap::new();
    for registry in insecure {
        all.entry(registry).or_default().insecure = true;
    }
    for (registry, name) in trusted {
        let file = Path::new(Executor::Native.places().lent).join(name);
        all.entry(registry).or_default().ca = Some(file);
    }
    json(&all)
}

/// What the executor is started with.
pub(crate) fn arguments(is_mounted: bool) -> Vec<String> {
    let places = Executor::Native.places();
    let context = if is_mounted {
        format!("{}/{ARCHIVE}", places.context)
    } else {
        "-".to_owned()
    };
    [
        "kaniko",
        "execute",
        "--context",
        &context,
        "--lent",
        places.lent,
        "--work",
        WORK,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, BuildError> {
    let written = serde_json::to_vec(value);
    written.map_err(|error| {
        BuildError::failed("cannot write what the executor is lent").caused_by(&error)
    })
}
