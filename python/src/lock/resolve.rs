//! Resolution, which is uv's job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::context::{ContextFiles, SecretMount};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::{ContextEntry, PackageIndex, Requirements, RequirementsKind};

use super::hashes::Hashes;
use super::links::Checkouts;
use super::provided::{self, Provided};
use super::{Lock, Order, Target, Workshop, cache, confine, poetry, pylock, said};
use crate::index::{Settings, redacted, sources};
use crate::uv::Uv;

/// Version of the way locks are made, part of their cache's key.
const RECIPE: u32 = 4;

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
    /// Logins for the URLs of `index`, of `packages` and of the files.
    pub logins: &'a IndexLogins,
    /// All files of the build context, of which those below `python/` matter.
    pub entries: &'a BTreeMap<String, ContextEntry>,
    /// Their contents.
    pub files: &'a dyn ContextFiles,
    /// What the wheels must fit.
    pub target: &'a Target,
    /// Resolve again even what was resolved before.
    pub refresh: bool,
    /// Path of an interpreter of this machine that says what packages depend on; by default whichever uv finds.
    pub interpreter: Option<&'a str>,
    /// Where what has no wheel may be built; nothing of it runs on this machine otherwise.
    pub workshop: Option<&'a dyn Workshop>,
    /// Distributions that are there already and stay, where they fit. A lock file is installed as it is all the same.
    pub provided: &'a [Provided],
    /// Where secrets appear in the workshop. Where there are some, everything is resolved there: they may say which
    /// index counts.
    pub secrets: &'a [SecretMount],
}

/// Locks an environment. What was asked for before is answered from the cache, without uv and without network;
/// the flag in the answer says so.
pub async fn lock(host: &Host, request: LockRequest<'_>) -> Result<(Lock, bool), BuildError> {
    if request.requirements.is_none() && request.packages.is_empty() {
        return Ok((Lock::default(), true));
    }
    let settings = Settings::of(host, request.index, request.logins)?;
    let key = request.key(&settings.env);
    if !request.refresh
        && let Some(lock) = cache::get(host, &key)
    {
        return Ok((lock, true));
    }
    let work = Work::new(host, &request)?;
    let lock = work.resolver(host, request, settings).await?.lock().await?;
    cache::put(host, &key, &lock).map_err(|error| unreadable(&error))?;
    Ok((lock, false))
}

/// The pins of a lock file, as a requirements file for an installer that is not here: with hashes, and with markers
/// where the lock has them. Asks no index. The settings are those of the machine and the declaration, with the indexes
/// that the lock itself names.
pub async fn pins(host: &Host, request: LockRequest<'_>) -> Result<(String, Settings), BuildError> {
    let settings = Settings::of(host, request.index, request.logins)?;
    // What poetry's files pin is read here, which costs nothing, and adds to the settings.
    let kind = request.requirements.map(|file| file.kind);
    let key = (kind == Some(RequirementsKind::UvLock)).then(|| request.key(&settings.env));
    if let Some(pinned) = key.and_then(|key| cache::pins(host, &key)) {
        return Ok((pinned, settings));
    }
    let work = Work::new(host, &request)?;
    let mut resolver = work.resolver(host, request, settings).await?;
    let pinned = match request.requirements {
        Some(file) => resolver.pinned(file).await?,
        None => None,
    };
    let pinned = pinned.unwrap_or_default();
    if let Some(key) = key {
        cache::put_pins(host, &key, &pinned).map_err(|error| unreadable(&error))?;
    }
    Ok((pinned, resolver.settings))
}

/// A folder with the files of a request.
struct Work {
    _folder: tempfile::TempDir,
    python: PathBuf,
}

impl Work {
    fn new(host: &Host, request: &LockRequest<'_>) -> Result<Self, BuildError> {
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
        let python = work.path().join("python");
        fs_err::create_dir_all(&python).map_err(io)?;
        provided::write(request.provided, &python).map_err(io)?;
        Ok(Self {
            _folder: work,
            python,
        })
    }

    async fn resolver<'a>(
        &'a self,
        host: &'a Host,
        request: LockRequest<'a>,
        settings: Settings,
    ) -> Result<Resolver<'a>, BuildError> {
        Ok(Resolver {
            host,
            uv: Uv::find(host).await?,
            settings,
            checkouts: Checkouts::default(),
            folder: &self.python,
            request,
        })
    }
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
        hash.list(self.secrets, |hash, secret| {
            hash.text(&secret.target.to_string_lossy());
        });
        hash.list(self.packages, |hash, package| {
            hash.text(package);
        });
        if !self.provided.is_empty() {
            hash.list(self.provided, |hash, provided| {
                hash.text(&provided.identity());
            });
        }
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
    host: &'a Host,
    uv: Uv,
    settings: Settings,
    /// The repositories that requirements name.
    checkouts: Checkouts,
    folder: &'a Path,
    request: LockRequest<'a>,
}

impl Resolver<'_> {
    async fn lock(mut self) -> Result<Lock, BuildError> {
        let mut inputs = Vec::new();
        let mut pinned = None;
        if let Some(requirements) = self.request.requirements {
            let is_uv = requirements.kind == RequirementsKind::UvLock;
            if is_uv && let Some(lock) = self.as_locked().await? {
                return Ok(lock);
            }
            pinned = self.pinned(requirements).await?;
            if pinned.is_none() {
                inputs.push(name(requirements).to_owned());
            }
        }
        let Some(pinned) = pinned else {
            if !self.request.packages.is_empty() {
                self.write(PACKAGES, &(self.request.packages.join("\n") + "\n"))?;
                inputs.push(PACKAGES.to_owned());
            }
            let hashes = self.hashes()?;
            self.link(&inputs).await?;
            return self.choose(&inputs, false, &hashes).await;
        };
        if !self.request.packages.is_empty() {
            let error = BuildError::input("a lock file and further packages exclude each other")
                .field("packages");
            return Err(error.hint("add the packages to the project and lock it again"));
        }
        if !pinned.lines().any(|line| !line.trim().is_empty()) {
            return Ok(Lock::default());
        }
        self.write(PINNED, &pinned)?;
        let inputs = [PINNED.to_owned()];
        self.link(&inputs).await?;
        self.choose(&inputs, true, &Hashes::of_lock(&pinned)).await
    }

    /// The pins of a lock file; `None` for files that pin nothing.
    async fn pinned(&mut self, requirements: &Requirements) -> Result<Option<String>, BuildError> {
        match requirements.kind {
            RequirementsKind::RequirementsTxt | RequirementsKind::Pyproject => Ok(None),
            RequirementsKind::UvLock => self.export().await.map(Some),
            RequirementsKind::PoetryLock => self.poetry(name(requirements)).map(Some),
        }
    }

    /// The lock of what `inputs` ask for.
    async fn choose(
        &self,
        inputs: &[String],
        pinned: bool,
        hashes: &Hashes,
    ) -> Result<Lock, BuildError> {
        let provided = if pinned { &[] } else { self.request.provided };
        let mut answer = None;
        if !provided.is_empty() {
            // What is there may not fit: then others take its place, and why is of no interest.
            answer = self
                .compile(inputs, pinned, &provided::arguments(provided, true))
                .await
                .ok();
        }
        let (text, in_workshop) = if let Some(answer) = answer {
            answer
        } else {
            let further = provided::arguments(provided, false);
            self.compile(inputs, pinned, &further).await?
        };
        let lock = pylock::choose(
            &text,
            self.request.target,
            hashes,
            &self.checkouts,
            provided,
        )?;
        if in_workshop {
            confine::confine(&lock, &self.settings, &self.checkouts.files)?;
        }
        Ok(lock)
    }

    /// The hashes that requirements files demand: uv's resolution does not look at them.
    fn hashes(&self) -> Result<Hashes, BuildError> {
        let mut hashes = Hashes::default();
        let kind = self
            .request
            .requirements
            .map(|requirements| requirements.kind);
        if kind == Some(RequirementsKind::RequirementsTxt) {
            for name in self.files() {
                hashes.read(&self.read(name)?);
            }
        }
        Ok(hashes)
    }

    /// The person's own files.
    fn files(&self) -> impl Iterator<Item = &'_ str> {
        let paths = self.request.entries.keys();
        paths.filter_map(|path| path.strip_prefix("python/"))
    }

    /// Fetches the repositories that requirements name, and has the requirements name their files.
    async fn link(&mut self, inputs: &[String]) -> Result<(), BuildError> {
        let of_lock = inputs.iter().any(|name| name == PINNED);
        let mut names: Vec<_> = inputs.to_vec();
        names.extend(self.files().filter(|_| !of_lock).map(str::to_owned));
        for name in names {
            let text = self.read(&name)?;
            let logins = self.request.logins;
            let checkouts = &mut self.checkouts;
            let mut replaced = checkouts.replace(self.host, logins, &text).await;
            if let Ok(text) = &replaced
                && name == "pyproject.toml"
            {
                replaced = checkouts.replace_sources(self.host, logins, text).await;
            }
            let replaced = replaced.map_err(|error| error.field(self.field()))?;
            if replaced != text {
                self.write(&name, &replaced)?;
            }
        }
        Ok(())
    }

    fn field(&self) -> &'static str {
        match self.request.requirements {
            Some(_) => "requirements",
            None => "packages",
        }
    }

    /// The pins of a `poetry.lock`; its own indexes are asked too.
    fn poetry(&mut self, name: &str) -> Result<String, BuildError> {
        let markers = self.request.target.markers();
        let pinned = poetry::pinned(&self.read(name)?, &self.read("pyproject.toml")?, &markers)?;
        let index = self.settings.env.entry("UV_INDEX".to_owned()).or_default();
        for url in &pinned.indexes {
            index.push(' ');
            index.push_str(url);
        }
        if index.trim().is_empty() {
            self.settings.env.remove("UV_INDEX");
        }
        Ok(pinned.requirements)
    }

    /// What a `uv.lock` says, word for word, where all of it is wheels of the index that counts here: then nobody
    /// has to be asked where they are. `None` where more has to be known.
    async fn as_locked(&self) -> Result<Option<Lock>, BuildError> {
        let target = self.request.target;
        if !self.request.secrets.is_empty() && self.request.workshop.is_some() {
            return Ok(None);
        }
        let export = export("--locked", "pylock.toml");
        let Ok(text) = self.run(export, &self.settings.env).await? else {
            return Ok(None);
        };
        let lock = pylock::choose(&text, target, &Hashes::default(), &self.checkouts, &[]);
        Ok(lock.ok().filter(|lock| lock.sources.is_empty()))
    }

    /// The pins of a `uv.lock` that matches its project. A lock remembers its index: where the machine has
    /// another, uv takes the lock for stale, so it is asked once more without the machine's.
    async fn export(&self) -> Result<String, BuildError> {
        let export = |how| export(how, "requirements.txt");
        let own = &self.settings.env;
        let mut plain = own.clone();
        for (name, _) in sources(own) {
            plain.remove(&name);
        }
        let mut stale = None;
        for env in [own, &plain] {
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

    /// uv's answer, and whether code of packages ran where it came from.
    async fn compile(
        &self,
        inputs: &[String],
        pinned: bool,
        further: &[String],
    ) -> Result<(String, bool), BuildError> {
        let arguments = self.arguments(inputs, pinned, further);
        let field = self.field();
        let mut reason = self.checkouts.all.first().map(|made| made.url.clone());
        if reason.is_none() && (self.request.secrets.is_empty() || self.request.workshop.is_none())
        {
            let mut careful = arguments.clone();
            careful.insert(2, "--no-build".to_owned());
            match self.run(careful, &self.settings.env).await? {
                Ok(text) => return Ok((text, false)),
                // The image has an interpreter where the machine has none.
                Err(said) if said.lacks_python() && self.request.workshop.is_some() => {}
                Err(said) => match said.unbuilt().filter(|_| self.request.workshop.is_some()) {
                    Some(package) => reason = Some(package.to_owned()),
                    None => return Err(said.error(field, self.folder)),
                },
            }
        }
        let Some(workshop) = self.request.workshop else {
            let package = redacted(reason.as_deref().unwrap_or_default());
            return Err(said::source_only(&package).field(field));
        };
        let order = Order {
            arguments,
            settings: &self.settings,
            folder: self.folder,
            files: &self.checkouts.files,
            checkouts: &self.checkouts.all,
            requirement: reason,
            field,
        };
        let answer = workshop.compile(order).await?;
        let answer = answer.map(|text| (text, true));
        answer.map_err(|said| {
            let said = self.checkouts.as_written(&said);
            said::Said::read(&said).error(field, self.folder)
        })
    }

    /// The arguments of a resolution that may build.
    fn arguments(&self, inputs: &[String], pinned: bool, further: &[String]) -> Vec<String> {
        let target = self.request.target;
        let mut arguments: Vec<String> = [
            "pip",
            "compile",
            "--format",
            "pylock.toml",
            "--no-header",
            "--quiet",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--python-version=3.{}", target.python));
        arguments.push(format!("--python-platform={}", target.uv_platform()));
        if let Some(interpreter) = self.request.interpreter {
            arguments.push(format!("--python={interpreter}"));
        }
        let options = &self.settings.options;
        if pinned {
            // A pin may be of any index that has it: its hash says whether it is the right one.
            arguments
                .extend(["--no-deps", "--index-strategy=unsafe-best-match"].map(str::to_owned));
            let given = |option: &&String| {
                !option.starts_with("--index-strategy") && *option != "--no-deps"
            };
            arguments.extend(options.iter().filter(given).cloned());
        } else {
            arguments.extend(options.iter().cloned());
        }
        arguments.extend(further.iter().cloned());
        arguments.push("--".to_owned());
        arguments.extend(inputs.iter().cloned());
        arguments
    }

    async fn run(
        &self,
        arguments: Vec<String>,
        env: &BTreeMap<String, String>,
    ) -> Result<Result<String, said::Said>, BuildError> {
        let output = self
            .uv
            .run(&arguments, self.folder, env, self.settings.netrc.as_deref())
            .await?;
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

/// The file's path below the folder of the files.
fn name(requirements: &Requirements) -> &str {
    let path = &requirements.path;
    path.strip_prefix("python/").unwrap_or(path)
}

/// The arguments that have uv write the pins of a project's lock.
fn export(how: &str, format: &str) -> Vec<String> {
    let options = ["--no-build", "--no-dev", "--no-emit-project"];
    let form = [
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--format",
        format,
    ];
    ["export", how]
        .iter()
        .chain(&options)
        .chain(&form)
        .map(|argument| (*argument).to_owned())
        .collect()
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot resolve Python packages").caused_by(error)
}
