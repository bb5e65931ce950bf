//! Resolution, which is uv's job.

use std::collections::BTreeMap;
use std::path::Path;

use imagespec_core::context::ContextFiles;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::{ContextEntry, PackageIndex, Requirements, RequirementsKind};

use super::{Lock, Target, cache, poetry, pylock};
use crate::index::{environment, redacted};
use crate::uv::Uv;

/// Version of the way locks are made, part of their cache's key.
const RECIPE: u32 = 1;

/// What an environment is to hold.
#[derive(Debug, Clone, Copy)]
pub struct LockRequest<'a> {
    /// The file that says so.
    pub requirements: Option<&'a Requirements>,
    /// Further requirements.
    pub packages: &'a [String],
    /// Where packages come from.
    pub index: &'a PackageIndex,
    /// All files of the build context, of which those below `python/` matter.
    pub entries: &'a BTreeMap<String, ContextEntry>,
    /// Their contents.
    pub files: &'a dyn ContextFiles,
    /// What the wheels must fit.
    pub target: &'a Target,
    /// Resolve again even what was resolved before.
    pub refresh: bool,
}

/// Locks an environment. What was asked for before is answered from the cache, without uv and without network;
/// the flag in the answer says so.
pub async fn lock(host: &Host, request: LockRequest<'_>) -> Result<(Lock, bool), BuildError> {
    if request.requirements.is_none() && request.packages.is_empty() {
        return Ok((Lock { wheels: Vec::new() }, true));
    }
    let key = request.key();
    if !request.refresh
        && let Some(lock) = cache::get(host, &key)
    {
        return Ok((lock, true));
    }
    let io = |error: std::io::Error| {
        BuildError::failed("cannot resolve Python packages").caused_by(&error)
    };
    fs_err::create_dir_all(&host.cache_dir).map_err(io)?;
    let work = tempfile::Builder::new()
        .prefix(".resolve-")
        .tempdir_in(&host.cache_dir)
        .map_err(io)?;
    for (path, entry) in request
        .entries
        .range("python/".to_owned()..)
        .take_while(|(path, _)| path.starts_with("python/"))
    {
        if let ContextEntry::File { .. } = entry {
            let target = work.path().join(path);
            fs_err::create_dir_all(target.parent().unwrap_or(work.path())).map_err(io)?;
            fs_err::write(target, request.files.read(path).map_err(io)?).map_err(io)?;
        }
    }
    let folder = work.path().join("python");
    fs_err::create_dir_all(&folder).map_err(io)?;
    let resolver = Resolver {
        uv: Uv::find(host).await?,
        env: environment(host, request.index),
        folder: &folder,
        request,
    };
    let lock = resolver.lock().await?;
    cache::put(host, &key, &lock).map_err(io)?;
    Ok((lock, false))
}

impl LockRequest<'_> {
    fn key(&self) -> Digest {
        let mut hash = Framed::new("imagespec lock");
        hash.number(RECIPE.into())
            .number(self.target.python.into())
            .text(&self.target.uv_platform());
        hash.text(&format!("{:?} {:?}", self.requirements, self.index));
        hash.list(self.packages, |hash, package| {
            hash.text(package);
        });
        let files: Vec<_> = self
            .entries
            .iter()
            .filter(|(path, _)| path.starts_with("python/"))
            .collect();
        hash.list(files, |hash, (path, entry)| {
            hash.text(path);
            if let ContextEntry::File { digest, .. } = entry {
                hash.digest(digest);
            }
        });
        hash.finish()
    }
}

struct Resolver<'a> {
    uv: Uv,
    env: BTreeMap<String, String>,
    folder: &'a Path,
    request: LockRequest<'a>,
}

impl Resolver<'_> {
    async fn lock(&self) -> Result<Lock, BuildError> {
        let io = |error: std::io::Error| {
            BuildError::failed("cannot resolve Python packages").caused_by(&error)
        };
        let mut inputs = Vec::new();
        let mut pinned = None;
        if let Some(requirements) = self.request.requirements {
            let name = requirements
                .path
                .strip_prefix("python/")
                .unwrap_or(&requirements.path);
            match requirements.kind {
                RequirementsKind::RequirementsTxt | RequirementsKind::Pyproject => {
                    inputs.push(name.to_owned())
                }
                RequirementsKind::UvLock => pinned = Some(self.export().await?),
                RequirementsKind::PoetryLock => {
                    let lock = fs_err::read_to_string(self.folder.join(name)).map_err(io)?;
                    let pyproject =
                        fs_err::read_to_string(self.folder.join("pyproject.toml")).map_err(io)?;
                    pinned = Some(poetry::requirements(&lock, &pyproject)?);
                }
            }
        }
        if !self.request.packages.is_empty() {
            fs_err::write(
                self.folder.join("packages.txt"),
                self.request.packages.join("\n"),
            )
            .map_err(io)?;
            inputs.push("packages.txt".to_owned());
        }
        let Some(pinned) = pinned else {
            return pylock::choose(
                &self.compile(&inputs, &[]).await?,
                self.request.target,
                &|_, _| true,
            );
        };
        fs_err::write(self.folder.join("pinned.txt"), &pinned).map_err(io)?;
        let hashes = hashes(&pinned);
        let allowed = |name: &str, digest: &Digest| {
            hashes
                .get(name)
                .is_none_or(|known| known.is_empty() || known.contains(digest))
        };
        let text = self
            .compile(&["pinned.txt".to_owned()], &["--no-deps"])
            .await?;
        pylock::choose(&text, self.request.target, &allowed)
    }

    /// The pins of a `uv.lock` that matches its project.
    async fn export(&self) -> Result<String, BuildError> {
        let arguments = [
            "export",
            "--locked",
            "--no-dev",
            "--no-emit-project",
            "--no-header",
            "--no-annotate",
            "--quiet",
            "--format",
            "requirements.txt",
        ];
        self.run(
            arguments.map(str::to_owned).to_vec(),
            "uv.lock does not suit its project",
        )
        .await
    }

    async fn compile(&self, inputs: &[String], more: &[&str]) -> Result<String, BuildError> {
        let target = self.request.target;
        let mut arguments: Vec<String> = [
            "pip",
            "compile",
            "--format",
            "pylock.toml",
            "--no-build",
            "--no-header",
            "--quiet",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend([
            "--python-version".to_owned(),
            format!("3.{}", target.python),
            "--python-platform".to_owned(),
            target.uv_platform(),
        ]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments.extend(self.request.index.extra_args.iter().cloned());
        arguments.extend(inputs.iter().cloned());
        self.run(arguments, "cannot resolve the Python packages")
            .await
    }

    async fn run(&self, arguments: Vec<String>, failed: &str) -> Result<String, BuildError> {
        let output = self.uv.run(&arguments, self.folder, &self.env).await?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(|error| {
                BuildError::failed("uv wrote what is not UTF-8").caused_by(&error)
            });
        }
        let said = redacted(&String::from_utf8_lossy(&output.stderr));
        let said = said
            .trim()
            .strip_prefix("error: ")
            .unwrap_or(said.trim())
            .to_owned();
        let field = if self.request.requirements.is_some() {
            "requirements"
        } else {
            "packages"
        };
        // What cannot be reached is no fault of the spec.
        let unreachable = [
            "Failed to fetch",
            "error sending request",
            "dns error",
            "Could not connect",
        ];
        let error = if unreachable.iter().any(|text| said.contains(text)) {
            BuildError::unavailable("the package index cannot be reached")
                .hint("check the network and pip's configuration: `pip config list`")
        } else {
            BuildError::input(failed).field(field)
        };
        Err(error.caused_by(&std::io::Error::other(said)))
    }
}

/// The digests that pinned requirements allow, by normalised name.
fn hashes(pinned: &str) -> BTreeMap<String, Vec<Digest>> {
    let mut hashes: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
    for line in pinned.replace("\\\n", " ").lines() {
        let Some((name, _)) = line.split_once("==") else {
            continue;
        };
        let known = hashes
            .entry(poetry::normalised(
                name.split('[').next().unwrap_or(name).trim(),
            ))
            .or_default();
        known.extend(
            line.split_whitespace()
                .filter_map(|word| word.strip_prefix("--hash=")?.parse::<Digest>().ok()),
        );
    }
    hashes
}
