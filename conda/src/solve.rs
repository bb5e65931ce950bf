//! From what is asked for to the packages of an environment.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_http::Expected;
use rattler_conda_types::package::BuildString;
use rattler_conda_types::{
    ChannelConfig, GenericVirtualPackage, MatchSpec, PackageName, PackageRecord,
    ParseMatchSpecOptions, ParseStrictness, RepoDataRecord, Version,
};
use rattler_solve::{CancellationToken, ChannelPriority, SolveError, SolverImpl as _, SolverTask};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken as Cancel;
use url::Url;

use crate::channel::{CONDA_FORGE, Channel, Channels, Priority};
use crate::error::CondaError;
use crate::index::Index;
use crate::wire::Session;

/// Lists of packages asked for at a time.
const PARALLEL: usize = 32;
/// Packages fetched at a time.
const FETCHES: usize = 8;
/// Packages that are not made for a platform.
const NOARCH: &str = "noarch";
/// The kernel that packages may count on where `CONDA_OVERRIDE_LINUX` names none.
const KERNEL: &str = "5.10";

/// A package of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// What its channel says of it. The URL has no secrets.
    pub record: RepoDataRecord,
    /// Digest of its file.
    pub digest: Digest,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Match specifications.
    pub specs: &'a [String],
    /// A version of Python, as `3.12`, which counts unless the specifications name one.
    pub python: Option<&'a str>,
    /// Channels after `conda-forge`.
    pub channels: &'a [String],
    /// What the packages are for.
    pub platform: &'a Platform,
    /// The C library of the system, as `2.36`.
    pub glibc: &'a str,
    /// The version of CUDA that the driver of a GPU has, if there is one.
    pub cuda: Option<&'a str>,
    /// What is there already and has to stay.
    pub installed: &'a [Package],
}

impl Package {
    fn new(record: RepoDataRecord) -> Result<Self, CondaError> {
        let sha256 = record.package_record.sha256.ok_or_else(|| {
            let file = record.identifier.to_file_name();
            CondaError::package(&file, "its channel gives no SHA-256 of it")
        })?;
        let digest = Digest::from_bytes(sha256.into());
        Ok(Self { record, digest })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.record.package_record.name.as_normalized()
    }

    /// Its version.
    pub fn version(&self) -> String {
        self.record.package_record.version.to_string()
    }

    /// Its file.
    pub fn file(&self) -> String {
        self.record.identifier.to_file_name()
    }

    /// Length of its file in bytes, where its channel says so.
    pub fn size(&self) -> Option<u64> {
        self.record.package_record.size
    }

    /// `channel/subdir::name-version-build`.
    pub fn title(&self) -> String {
        let name = self.file();
        let name = name.trim_end_matches(".conda").trim_end_matches(".tar.bz2");
        let channel = self.record.channel.as_deref().unwrap_or_default();
        let record = &self.record.package_record;
        format!("{channel}{}::{name}", record.subdir)
    }
}

impl Request<'_> {
    /// What depends on the machine and not on the declaration: part of the key of an answer.
    pub fn overrides(host: &Host) -> Vec<(String, String)> {
        let is = |name: &str| name.starts_with("CONDA_OVERRIDE_");
        let variables = host.variables.iter().filter(|(name, _)| is(name));
        variables
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// What packages may count on without being able to bring it.
    fn virtuals(&self, host: &Host) -> Result<Vec<GenericVirtualPackage>, CondaError> {
        let overridden = |name: &str, usual: Option<&str>| {
            let value = host.variables.get(&format!("CONDA_OVERRIDE_{name}"));
            // An empty one says that there is none.
            let value = value.map_or(usual, |value| Some(value.as_str()));
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let processor = self.platform.architecture.as_str();
        let processor = match processor {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let all = [
            ("__unix", Some("0".to_owned()), "0"),
            ("__linux", overridden("LINUX", Some(KERNEL)), "0"),
            ("__glibc", overridden("GLIBC", Some(self.glibc)), "0"),
            ("__cuda", overridden("CUDA", self.cuda), "0"),
            ("__archspec", Some("1".to_owned()), processor),
        ];
        let mut packages = Vec::new();
        for (name, version, build) in all {
            let Some(version) = version else { continue };
            packages.push(GenericVirtualPackage {
                name: PackageName::new_unchecked(name),
                version: version.parse::<Version>().map_err(|_| CondaError::Config {
                    file: format!(
                        "CONDA_OVERRIDE_{}",
                        name.trim_start_matches('_').to_uppercase()
                    ),
                    problem: format!("expected a version: `{version}`"),
                })?,
                build_string: BuildString::new_unchecked(build),
            });
        }
        Ok(packages)
    }
}

/// The folder of a channel that has the packages of a platform.
pub fn subdir(platform: &Platform) -> Result<&'static str, CondaError> {
    match (&*platform.os, &*platform.architecture) {
        ("linux", "amd64") => Ok("linux-64"),
        ("linux", "arm64") => Ok("linux-aarch64"),
        ("linux", "ppc64le") => Ok("linux-ppc64le"),
        ("linux", "s390x") => Ok("linux-s390x"),
        _ => Err(CondaError::Platform(platform.to_string())),
    }
}

/// The packages of an environment of what is asked for, dependencies first. The same request has the same answer as
/// long as its channels have the same packages.
pub async fn solve(
    session: &Session<'_>,
    request: &Request<'_>,
    cancel: &Cancel,
) -> Result<Vec<Package>, CondaError> {
    let (mut specs, mut channels) = understood(session.channels, request.specs, request.channels)?;
    let names_python = |spec: &MatchSpec| {
        let name = spec.name.as_exact();
        name.is_some_and(|name| name.as_normalized() == "python")
    };
    if !specs.iter().any(names_python) {
        let text = match request.python {
            Some(version) => format!("python {version}.*"),
            None => "python".to_owned(),
        };
        specs.push(parsed(session.channels, &text, &mut channels)?);
    }
    let mut wanted = names(&specs);
    wanted.extend(
        request
            .installed
            .iter()
            .map(|package| package.name().to_owned()),
    );
    let indexes = indexes(session, &channels, subdir(request.platform)?).await?;
    let available = tokio::select! {
        () = cancel.cancelled() => return Err(CondaError::Interrupted),
        available = gather(session, &indexes, wanted) => available?,
    };
    missing(&specs, &indexes)?;
    let token = CancellationToken::new();
    let stop = token.clone();
    let virtual_packages = request.virtuals(session.host)?;
    let installed: Vec<_> = request.installed.to_vec();
    let priority = match session.channels.priority {
        Priority::Strict => ChannelPriority::Strict,
        Priority::Flexible => ChannelPriority::Flexible,
        Priority::Disabled => ChannelPriority::Disabled,
    };
    let solving = tokio::task::spawn_blocking(move || {
        let task = SolverTask {
            locked_packages: installed.iter().map(|package| &package.record).collect(),
            virtual_packages,
            specs,
            channel_priority: priority,
            cancellation_token: Some(token),
            ..SolverTask::from_iter(&available)
        };
        rattler_solve::resolvo::Solver.solve(task)
    });
    let solved = tokio::select! {
        () = cancel.cancelled() => {
            stop.cancel();
            return Err(CondaError::Interrupted);
        }
        solved = solving => solved.map_err(std::io::Error::from)?,
    };
    let solved = solved.map_err(|error| match error {
        SolveError::Unsolvable(problems) => {
            CondaError::Unsolvable(std::io::Error::other(problems.join("\n")))
        }
        SolveError::Cancelled => CondaError::Interrupted,
        error => CondaError::Unsolvable(std::io::Error::other(error)),
    })?;
    let records = PackageRecord::sort_topologically(solved.records);
    let packages = records.into_iter().map(Package::new);
    let packages = packages.collect::<Result<Vec<_>, _>>()?;
    unchanged(request.installed, &packages)?;
    Ok(packages)
}

/// Refuses specifications and channels that nobody understands. Contacts nothing.
pub fn check(known: &Channels, specs: &[String], channels: &[String]) -> Result<(), CondaError> {
    understood(known, specs, channels).map(|_| ())
}

/// What is asked for, and of whom, `conda-forge` first.
fn understood(
    known: &Channels,
    specs: &[String],
    channels: &[String],
) -> Result<(Vec<MatchSpec>, Vec<Channel>), CondaError> {
    let mut asked = known.find(CONDA_FORGE)?;
    for name in channels {
        for channel in known.find(name)? {
            if !asked.iter().any(|known| known.url == channel.url) {
                asked.push(channel);
            }
        }
    }
    let specs = specs.iter().map(|text| parsed(known, text, &mut asked));
    let specs = specs.collect::<Result<_, _>>()?;
    Ok((specs, asked))
}

/// What is in an image below cannot be changed by one on top of it.
fn unchanged(installed: &[Package], packages: &[Package]) -> Result<(), CondaError> {
    let mut changes = Vec::new();
    for before in installed {
        let now = packages.iter().find(|now| now.name() == before.name());
        let same = now.is_some_and(|now| now.record.identifier == before.record.identifier);
        if !same {
            let now = now.map_or_else(|| "none".to_owned(), Package::version);
            changes.push(format!(
                "`{}` {} instead of {now}",
                before.name(),
                before.version()
            ));
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    Err(CondaError::Changes(changes.join(", ")))
}

/// Understands a specification; a channel that it names is asked, too.
fn parsed(
    known: &Channels,
    text: &str,
    channels: &mut Vec<Channel>,
) -> Result<MatchSpec, CondaError> {
    let options = ParseMatchSpecOptions::new(ParseStrictness::Lenient);
    let mut spec = MatchSpec::from_str(text, options).map_err(|source| CondaError::Spec {
        spec: imagespec_core::login::redacted(text),
        source: Box::new(source),
    })?;
    let unsupported = |problem| CondaError::Unsupported {
        spec: imagespec_core::login::redacted(text),
        problem,
    };
    if spec.url.is_some() {
        return Err(unsupported(
            "is named by its URL, and not by a name in a channel",
        ));
    }
    if spec.name.as_exact().is_none() {
        return Err(unsupported("has to have a name of its own"));
    }
    if let Some(named) = &mut spec.channel {
        let named = std::sync::Arc::make_mut(named);
        let found = known.find(&as_written(named))?;
        for channel in found {
            named.base_url = channel.url.clone().into();
            if !channels.iter().any(|known| known.url == channel.url) {
                channels.push(channel);
            }
        }
    }
    Ok(spec)
}

/// The channel of a specification as it was written: its name leads elsewhere on this machine than by default.
fn as_written(channel: &rattler_conda_types::Channel) -> String {
    let default = ChannelConfig::default_with_root_dir(PathBuf::new()).channel_alias;
    let url = channel.base_url.as_str();
    match &channel.name {
        Some(name) if url.starts_with(default.as_str()) => name.clone(),
        _ => url.to_owned(),
    }
}

/// The packages that specifications name.
fn names(specs: &[MatchSpec]) -> BTreeSet<String> {
    let exact = specs.iter().filter_map(|spec| spec.name.as_exact());
    exact.map(|name| name.as_normalized().to_owned()).collect()
}

/// Of every channel what it has for the platform and for any, in the order of the channels.
async fn indexes(
    session: &Session<'_>,
    channels: &[Channel],
    subdir: &str,
) -> Result<Vec<Index>, CondaError> {
    let mut open = Vec::new();
    for channel in channels {
        for subdir in [subdir, NOARCH] {
            open.push(async move {
                let index = Index::open(session, channel, subdir).await?;
                Ok::<_, CondaError>((channel, index))
            });
        }
    }
    let found: Vec<_> = futures::future::try_join_all(open).await?;
    for channel in channels {
        let of = |(known, index): &(&Channel, Option<Index>)| {
            known.url == channel.url && index.is_some()
        };
        if !found.iter().any(of) {
            return Err(CondaError::Channel {
                channel: channel.name.clone(),
                problem: format!(
                    "has no packages for `{subdir}`, nor any for all platforms: `{}`",
                    channel.url
                ),
            });
        }
    }
    Ok(found.into_iter().filter_map(|(_, index)| index).collect())
}

/// What there is of packages and of everything they may need, index by index.
async fn gather(
    session: &Session<'_>,
    indexes: &[Index],
    mut wanted: BTreeSet<String>,
) -> Result<Vec<Vec<RepoDataRecord>>, CondaError> {
    let mut seen: HashSet<String> = wanted.iter().cloned().collect();
    let mut all: Vec<Vec<RepoDataRecord>> = indexes.iter().map(|_| Vec::new()).collect();
    while !wanted.is_empty() {
        let mut asked = Vec::new();
        for name in std::mem::take(&mut wanted) {
            for (at, index) in indexes.iter().enumerate() {
                if index.has(&name) {
                    let name = name.clone();
                    asked.push(async move {
                        Ok::<_, CondaError>((at, index.records(session, &name).await?))
                    });
                }
            }
        }
        let found: Vec<_> = stream::iter(asked)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        for (at, records) in found {
            for record in &records {
                for needed in &record.package_record.depends {
                    let name = dependency(needed);
                    if !name.starts_with("__") && !seen.contains(&name) {
                        seen.insert(name.clone());
                        wanted.insert(name);
                    }
                }
            }
            all[at].extend(records);
        }
    }
    for records in &mut all {
        // The order in which answers came must not matter.
        records.sort_by(|a, b| a.url.cmp(&b.url));
    }
    Ok(all)
}

/// The name that a dependency begins with.
fn dependency(text: &str) -> String {
    let text = text.rsplit("::").next().unwrap_or(text).trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    text[..end].to_ascii_lowercase()
}

/// Packages that no channel has are named, with their like, before a solver says it in more words.
fn missing(specs: &[MatchSpec], indexes: &[Index]) -> Result<(), CondaError> {
    for name in names(specs) {
        if name.starts_with("__") || indexes.iter().any(|index| index.has(&name)) {
            continue;
        }
        let mut similar: HashMap<&str, f64> = HashMap::new();
        for known in indexes.iter().flat_map(Index::names) {
            let alike = strsim::jaro_winkler(&name, known);
            if alike > 0.88 {
                similar.insert(known, alike);
            }
        }
        let best = similar
            .into_iter()
            .max_by(|(a, x), (b, y)| x.total_cmp(y).then(b.cmp(a)));
        return Err(CondaError::Unknown {
            name,
            similar: best.map(|(name, _)| name.to_owned()),
        });
    }
    Ok(())
}

/// Where the file of a package is on this machine, or will be.
pub fn file(host: &Host, package: &Package) -> PathBuf {
    let folder = crate::wire::cache(host).join("packages");
    folder.join(package.digest.hex()).join(package.file())
}

/// Fetches the packages that are not here and says how many bytes that took. `progress` is told of bytes as they come.
pub async fn fetch(
    session: &Session<'_>,
    packages: &[Package],
    progress: &(dyn Fn(u64) + Sync),
    cancel: &Cancel,
) -> Result<u64, CondaError> {
    let all = std::sync::atomic::AtomicU64::new(0);
    let mut each = Vec::new();
    for package in packages {
        let to = file(session.host, package);
        if to.is_file() {
            continue;
        }
        let expected = Expected {
            digest: Some(package.digest),
            size: package.size(),
            ..Expected::default()
        };
        let (url, all): (Url, _) = (package.record.url.clone(), &all);
        each.push(async move {
            let seen = std::sync::atomic::AtomicU64::new(0);
            let report = |done: u64| {
                use std::sync::atomic::Ordering::Relaxed;
                let more = done.saturating_sub(seen.swap(done, Relaxed));
                progress(all.fetch_add(more, Relaxed) + more);
            };
            session.known(&url, &to, expected, &report).await
        });
    }
    let fetching = stream::iter(each).buffer_unordered(FETCHES);
    tokio::select! {
        () = cancel.cancelled() => return Err(CondaError::Interrupted),
        done = fetching.try_collect::<Vec<()>>() => done?,
    };
    Ok(all.into_inner())
}
