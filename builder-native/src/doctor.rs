//! Whether what the builder needs is there and works, and how to mend what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use futures::future::join_all;
use imagespec_core::error::BuildError;
use imagespec_core::files::ResolvedFiles;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::PackageIndex;
use imagespec_core::platform::Platform;
use imagespec_core::resolve::DEFAULT_SUITE;
use imagespec_debian::{Archive, ArchiveOptions, base};
use imagespec_oci::credentials::Credentials;
use imagespec_oci::{Engine, Reference, Registry};
use imagespec_python::lock::{Libc, LockRequest, Target, lock};
use serde::Serialize;

/// Bytes that an image with a few packages takes, caches included.
const ROOM: u64 = 2 << 30;
/// A package that every index of Python packages can be asked for.
const ASKED: &str = "pip";

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Fine,
    /// It is not there, and only something that is optional needs it.
    Absent,
    /// It does not work, and is needed.
    Broken,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `cache`, `sandbox`, `index`, `debian`, `registry HOST`, `engine`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was found, or what is wrong with its causes: a lower-case fragment.
    pub detail: String,
    /// What to do about it.
    pub fixes: Vec<String>,
}

impl Finding {
    fn of(name: impl Into<String>, result: Result<String, BuildError>) -> Self {
        let name = name.into();
        match result {
            Ok(detail) => Self {
                name,
                state: State::Fine,
                detail,
                fixes: Vec::new(),
            },
            Err(error) => Self {
                name,
                state: State::Broken,
                detail: with_causes(&error),
                fixes: error.hints,
            },
        }
    }
}

/// An error and its causes on one line.
fn with_causes(error: &BuildError) -> String {
    let mut detail = error.message.clone();
    let mut cause = error.source.as_deref();
    while let Some(next) = cause {
        detail = format!("{detail}: {}", next.message);
        cause = next.source.as_deref();
    }
    detail.lines().collect::<Vec<_>>().join(" ")
}

/// Looks at everything the builder needs. `registries` are those that images go to: hosts, perhaps with paths.
pub async fn examine(host: &Host, registries: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = vec![Finding::of("cache", cache(&host.cache_dir))];
    // Without a cache nothing else can be tried.
    if findings[0].state == State::Fine {
        findings.push(Finding::of("sandbox", sandbox(host).await));
        let (index, debian) = futures::join!(index(host), debian(host));
        findings.push(Finding::of("index", index));
        findings.push(Finding::of("debian", debian));
    }
    let registries = registries.iter().map(|name| registry(host, name));
    findings.extend(join_all(registries).await);
    findings.push(engine(host).await);
    findings
}

/// Writes a file, and looks at what else the folder's file system has to offer.
fn cache(folder: &Path) -> Result<String, BuildError> {
    let shown = folder.display();
    let write = || {
        fs_err::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".doctor-")
            .tempfile_in(folder)?;
        file.write_all(b"x")?;
        fs4::available_space(folder)
    };
    let space = write().map_err(|error| {
        BuildError::unavailable(format!("cannot write into the cache: `{shown}`"))
            .caused_by(&error)
            .hint("make the folder writable, or name another in `IMAGESPEC_CACHE_DIR`")
    })?;
    let gigabytes = crate::deliver::megabytes(space) / 1000.0;
    let system = file_system(folder).unwrap_or_else(|| "unknown".to_owned());
    if space < ROOM {
        let message = format!("{gigabytes:.1} GB are free in `{shown}`, which is soon full");
        return Err(BuildError::unavailable(message).hint(
            "`imagespec cache prune` makes room; `IMAGESPEC_CACHE_DIR` names another folder",
        ));
    }
    Ok(format!(
        "`{shown}`, {gigabytes:.1} GB free, file system {system}"
    ))
}

/// The type of the file system of a folder, where the system lists its mounts: `proc_pid_mountinfo(5)`.
fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = Path::new(before.split(' ').nth(4)?).to_owned();
        let kind = after.split(' ').next()?.to_owned();
        folder
            .starts_with(&point)
            .then(|| (point.components().count(), kind))
    };
    // Of several mounts on one point the last hides the others.
    let found = mounts
        .lines()
        .filter_map(mount)
        .max_by_key(|(depth, _)| *depth);
    found.map(|(_, kind)| kind)
}

async fn sandbox(host: &Host) -> Result<String, BuildError> {
    let tier = imagespec_sandbox::tier(host).await;
    let tier = tier.map_err(imagespec_sandbox::Error::from)?;
    Ok(format!("commands run in the tier `{}`", tier.name()))
}

/// Has the resolver ask for a package. An index that has none of that name has answered too.
async fn index(host: &Host) -> Result<String, BuildError> {
    let request = LockRequest {
        requirements: None,
        packages: &[ASKED.to_owned()],
        index: &PackageIndex::default(),
        logins: &IndexLogins::default(),
        entries: &BTreeMap::new(),
        files: &ResolvedFiles::default(),
        target: &Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Glibc(2, 36),
        },
        refresh: true,
        interpreter: None,
        workshop: None,
        provided: &[],
        secrets: &[],
    };
    match lock(host, request).await {
        Ok(_) => Ok(format!("answers, and has `{ASKED}`")),
        Err(error) if error.kind == imagespec_core::error::ErrorKind::Input => {
            Ok(format!("answers, but has no `{ASKED}`"))
        }
        Err(error) => Err(error),
    }
}

/// Fetches the signed release that the default base is made from.
async fn debian(host: &Host) -> Result<String, BuildError> {
    let client = imagespec_http::Client::new(host)?;
    let archive = Archive::open(client, host, &ArchiveOptions::default())?;
    let name = base::architecture(&Platform::host()).unwrap_or("amd64");
    let suite = archive.suite(DEFAULT_SUITE, name).await?;
    Ok(format!(
        "has `{}` for {}, signed by a key that apt trusts",
        suite.name, suite.architecture
    ))
}

async fn registry(host: &Host, name: &str) -> Finding {
    let look = async {
        // Credentials may be for a path, so they are asked for a repository in it.
        let reference: Reference = format!("{name}/doctor").parse().map_err(BuildError::from)?;
        let credentials = Credentials::new(host)
            .find_with_origin(&reference.registry, &reference.repository)
            .await
            .map_err(|error| {
                BuildError::unavailable("its credentials cannot be had")
                    .caused_by(&error)
                    .hint(format!(
                        "log in again: `docker login {}`",
                        reference.registry
                    ))
            })?;
        Registry::new(host, &reference.registry)?
            .ping(&reference.repository)
            .await?;
        Ok(match credentials {
            Some((_, origin)) => format!("answers; credentials of {origin}"),
            None => "answers; there are no credentials for it".to_owned(),
        })
    };
    Finding::of(format!("registry {name}"), look.await)
}

async fn engine(host: &Host) -> Finding {
    let found = async {
        let engine = Engine::new(host)?;
        let version = engine.version().await?;
        let place = engine.endpoint();
        Ok(format!("{version} at `{place}`, {}", place.source()))
    };
    let finding = Finding::of(
        "engine",
        found
            .await
            .map_err(|error: imagespec_oci::engine::EngineError| error.into()),
    );
    // Only `default` and `--output docker` need one.
    match finding.state {
        State::Broken => Finding {
            state: State::Absent,
            ..finding
        },
        _ => finding,
    }
}
