//! Resolution, which is uv's job.

use std::collections::BTreeMap;
use std::path::Path;

use imagespec_core::context::ContextFiles;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::{ContextEntry, PackageIndex, Requirements, RequirementsKind};

use super::hashes::Hashes;
use super::{Lock, Target, cache, poetry, pylock, said};
use crate::index::{arguments, environment, no_index, sources};
use crate::uv::Uv;

/// Version of the way locks are made, part of their cache's key.
const RECIPE: u32 = 2;

/// Files that are written beside the person's own; no name of theirs is like that.
pub(super) const PACKAGES: &str = ".imagespec-packages.txt";
const PINNED: &str = ".imagespec-pinned.txt";

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
    let (index, mut options) = arguments(request.index)?;
    if no_index(host) {
        options.push("--no-index".to_owned());
    }
    let env = environment(host, &index);
    let key = request.key(&env);
    if !request.refresh
        && let Some(lock) = cache::get(host, &key)
    {
        return Ok((lock, true));
    }
    let io = |error: std::io::Error| unreadable(&error);
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
        env,
        options,
        folder: &folder,
        request,
    };
    let lock = resolver.lock().await?;
    cache::put(host, &key, &lock).map_err(io)?;
    Ok((lock, false))
}

impl LockRequest<'_> {
    fn key(&self, env: &BTreeMap<String, String>) -> Digest {
        let mut hash = Framed::new("imagespec lock");
        hash.number(RECIPE.into())
            .number(self.target.python.into())
            .text(&self.target.uv_platform());
        hash.text(&format!("{:?} {:?}", self.requirements, self.index));
        hash.list(sources(env), |hash, (name, value)| {
            hash.text(&name).text(&value);
        });
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
    options: Vec<String>,
    folder: &'a Path,
    request: LockRequest<'a>,
}

impl Resolver<'_> {
    async fn lock(mut self) -> Result<Lock, BuildError> {
        let mut inputs = Vec::new();
        let mut pinned = None;
        if let Some(requirements) = self.request.requirements {
            let name = requirements
                .path
                .strip_prefix("python/")
                .unwrap_or(&requirements.path);
            match requirements.kind {
                RequirementsKind::RequirementsTxt | RequirementsKind::Pyproject => {
                    inputs.push(name.to_owned());
                }
                RequirementsKind::UvLock => pinned = Some(self.export().await?),
                RequirementsKind::PoetryLock => pinned = Some(self.poetry(name)?),
            }
        }
        let target = self.request.target;
        let Some(pinned) = pinned else {
            if !self.request.packages.is_empty() {
                self.write(PACKAGES, &(self.request.packages.join("\n") + "\n"))?;
                inputs.push(PACKAGES.to_owned());
            }
            let text = self.compile(&inputs, false).await?;
            return pylock::choose(&text, target, &self.hashes()?);
        };
        if !self.request.packages.is_empty() {
            let error = BuildError::input("a lock file and further packages exclude each other")
                .field("packages");
            return Err(error.hint("add the packages to the project and lock it again"));
        }
        if !pinned.lines().any(|line| !line.trim().is_empty()) {
            return Ok(Lock { wheels: Vec::new() });
        }
        self.write(PINNED, &pinned)?;
        let text = self.compile(&[PINNED.to_owned()], true).await?;
        pylock::choose(&text, target, &Hashes::of_lock(&pinned))
    }

    /// The hashes that requirements files demand: uv's resolution does not look at them.
    fn hashes(&self) -> Result<Hashes, BuildError> {
        let mut hashes = Hashes::default();
        let kind = self
            .request
            .requirements
            .map(|requirements| requirements.kind);
        if kind == Some(RequirementsKind::RequirementsTxt) {
            for path in self
                .request
                .entries
                .keys()
                .filter(|path| path.starts_with("python/"))
            {
                let name = path.strip_prefix("python/").unwrap_or(path);
                hashes.read(&self.read(name)?);
            }
        }
        Ok(hashes)
    }

    /// The pins of a `poetry.lock`; its own indexes are asked too.
    fn poetry(&mut self, name: &str) -> Result<String, BuildError> {
        let markers = self.request.target.markers();
        let pinned = poetry::pinned(&self.read(name)?, &self.read("pyproject.toml")?, &markers)?;
        let index = self.env.entry("UV_INDEX".to_owned()).or_default();
        for url in &pinned.indexes {
            index.push(' ');
            index.push_str(url);
        }
        if index.trim().is_empty() {
            self.env.remove("UV_INDEX");
        }
        Ok(pinned.requirements)
    }

    /// The pins of a `uv.lock` that matches its project. A lock remembers its index: where the machine has
    /// another, uv takes the lock for stale, so it is asked once more without the machine's.
    async fn export(&self) -> Result<String, BuildError> {
        let export = |how: &str| {
            let arguments = [
                "export",
                how,
                "--no-dev",
                "--no-emit-project",
                "--no-header",
                "--no-annotate",
            ];
            let format = ["--quiet", "--format", "requirements.txt"];
            arguments
                .iter()
                .chain(&format)
                .map(|argument| (*argument).to_owned())
                .collect::<Vec<_>>()
        };
        let mut plain = self.env.clone();
        for (name, _) in sources(&self.env) {
            plain.remove(&name);
        }
        let mut stale = None;
        for env in [&self.env, &plain] {
            match self.run(export("--locked"), env).await? {
                Ok(text) => return Ok(text),
                Err(said) if said.is_stale() => stale = Some(said),
                Err(_) => {}
            }
        }
        if let Some(said) = stale {
            return Err(said.error("requirements", self.folder));
        }
        // Neither could tell, for lack of network, say: what is pinned is pinned.
        let frozen = self.run(export("--frozen"), &plain).await?;
        frozen.map_err(|said| said.error("requirements", self.folder))
    }

    async fn compile(&self, inputs: &[String], pinned: bool) -> Result<String, BuildError> {
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
        arguments.push(format!("--python-version=3.{}", target.python));
        arguments.push(format!("--python-platform={}", target.uv_platform()));
        if pinned {
            // A pin may be of any index that has it: its hash says whether it is the right one.
            arguments
                .extend(["--no-deps", "--index-strategy=unsafe-best-match"].map(str::to_owned));
            let given = |option: &&String| {
                !option.starts_with("--index-strategy") && *option != "--no-deps"
            };
            arguments.extend(self.options.iter().filter(given).cloned());
        } else {
            arguments.extend(self.options.iter().cloned());
        }
        arguments.push("--".to_owned());
        arguments.extend(inputs.iter().cloned());
        let field = match self.request.requirements {
            Some(_) => "requirements",
            None => "packages",
        };
        let answer = self.run(arguments, &self.env).await?;
        answer.map_err(|said| said.error(field, self.folder))
    }

    async fn run(
        &self,
        arguments: Vec<String>,
        env: &BTreeMap<String, String>,
    ) -> Result<Result<String, said::Said>, BuildError> {
        let output = self.uv.run(&arguments, self.folder, env).await?;
        if !output.status.success() {
            return Ok(Err(said::Said::read(&String::from_utf8_lossy(
                &output.stderr,
            ))));
        }
        let text = String::from_utf8(output.stdout);
        text.map(Ok)
            .map_err(|error| BuildError::failed("uv wrote what is not UTF-8").caused_by(&error))
    }

    fn read(&self, name: &str) -> Result<String, BuildError> {
        let bytes = fs_err::read(self.folder.join(name)).map_err(|error| unreadable(&error))?;
        String::from_utf8(bytes)
            .map_err(|_| BuildError::input(format!("not UTF-8: `{name}`")).field("requirements"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), BuildError> {
        fs_err::write(self.folder.join(name), text).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot resolve Python packages").caused_by(error)
}
