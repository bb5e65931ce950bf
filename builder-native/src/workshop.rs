//! uv in the sandbox, over an image in the making: where the code of source distributions runs. What it changes is
//! thrown away, but for the one folder that holds results.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use futures::future::{BoxFuture, FutureExt as _};
use imagespec_core::contract::{DEFAULT_PATH, MTIME};
use imagespec_core::error::BuildError;
use imagespec_core::event::BuildEvent;
use imagespec_core::mask::Mask;
use imagespec_core::platform::Platform;
use imagespec_python::index::{Settings, indexes, redacted};
use imagespec_python::lock::{CHECKOUTS, Order, Workshop};
use imagespec_sandbox::{Job, Mount, Workspace, run};

use crate::assemble::{Assembly, Draft, environment};
use crate::limits::exceeded;
use crate::machine::AUTHORITIES;
use crate::python::resolving;
use crate::run::{TOOLS, lent_uv, shell};

/// Where results are left.
pub(crate) const RESULTS: &str = "/tmp/imagespec/out";
/// Where what is lent appears, read-only.
const LENT: &str = "/run/imagespec";
/// How many of the last lines are kept.
const LINES: usize = 200;
/// The largest lock, in bytes.
const LOCK: u64 = 64 << 20;
/// Where one file holds the logins for uv, in memory.
const PREPARE: &str = r#"set -e
umask 022
mkdir -p /tmp/imagespec/out
if [ -n "$IMAGESPEC_NETRC" ]; then
  (umask 077; printf '%s' "$IMAGESPEC_NETRC" > /dev/shm/imagespec-netrc
   if [ -f /root/.netrc ]; then cat /root/.netrc >> /dev/shm/imagespec-netrc; fi)
  export NETRC=/dev/shm/imagespec-netrc
fi
unset IMAGESPEC_NETRC
"#;

/// What is run in a workshop.
pub(crate) struct Task<'a> {
    /// The field of the spec that asks for it.
    pub(crate) field: &'static str,
    /// The step that its lines belong to.
    pub(crate) step: &'a str,
    /// What the shell does once everything is prepared.
    pub(crate) script: &'a str,
    pub(crate) settings: &'a Settings,
    /// Further variables.
    pub(crate) env: Vec<(String, String)>,
    /// Further files and folders, read-only.
    pub(crate) mounts: Vec<(PathBuf, PathBuf)>,
}

/// What came of a task.
pub(crate) struct Done {
    work: Workspace,
    /// Whether it succeeded.
    pub(crate) success: bool,
    /// Its last lines.
    pub(crate) said: String,
}

impl Assembly<'_> {
    /// Runs a task over the layers of a draft, with its secrets.
    pub(crate) async fn task(&self, draft: &Draft, task: Task<'_>) -> Result<Done, BuildError> {
        let shell = shell(draft, task.field)?;
        let host = &self.native.host;
        let tier = imagespec_sandbox::tier(host).await;
        let tier = tier.map_err(|error| {
            BuildError::from(imagespec_sandbox::Error::from(error)).field(task.field)
        })?;
        let work =
            Workspace::new_in(&host.cache_dir, ".build-").map_err(|error| unusable(&error))?;
        let uv = lent_uv(host, draft.foundation.libc, &draft.platform).await?;
        let loan = indexes(task.settings, Path::new(AUTHORITIES));
        let mut mounts = loan.mounts;
        mounts.push((uv.path().to_owned(), Path::new(TOOLS).join("uv")));
        mounts.extend(task.mounts);
        let secrets = self.cx.secrets.iter();
        mounts.extend(secrets.map(|secret| (secret.source.clone(), secret.target.clone())));
        let mount = |(source, target)| Mount {
            source,
            target,
            writable: false,
        };
        let mut env = variables(draft, task.settings)?;
        env.extend(loan.env);
        env.extend(task.env);
        let line = format!("{PREPARE}{}", task.script);
        let job = Job {
            workspace: Some(work.clone()),
            env,
            mounts: mounts.into_iter().map(mount).collect(),
            limits: self.native.limits,
            ..Job::new(
                self.snapshots(&draft.layers, &|_| true, tier).await?,
                [shell, "-c", &line],
            )
        };
        let mask = Mask::of(self.cx.secrets);
        let mut last = VecDeque::new();
        let progress = self.cx.progress;
        let mut on_line = |line: &str| {
            let line = mask.apply(&redacted(line));
            if last.len() == LINES {
                last.pop_front();
            }
            last.push_back(line.clone());
            progress.emit(BuildEvent::Log {
                step: task.step.to_owned(),
                line,
            });
        };
        let exit = run(host, &job, tier, &mut on_line, &self.cx.cancel).await;
        let exit = exit.map_err(|error| match error {
            imagespec_sandbox::Error::Limit { limit } => {
                exceeded(limit, &self.native.limits, task.field)
            }
            error => error.into(),
        })?;
        Ok(Done {
            work,
            success: exit.success(),
            said: Vec::from(last).join("\n"),
        })
    }
}

impl Done {
    /// The folder of results on this machine, in which nothing is to be believed. Nothing of the task runs any more.
    pub(crate) fn results(&self) -> Result<PathBuf, BuildError> {
        let mut folder = self.work.upper();
        for part in RESULTS.trim_start_matches('/').split('/') {
            folder.push(part);
            let kind = fs_err::symlink_metadata(&folder).map_err(|error| unusable(&error))?;
            if !kind.is_dir() {
                return Err(BuildError::failed(
                    "a build replaced the folder of its results",
                ));
            }
        }
        Ok(folder)
    }
}

/// What cannot be prepared or read.
pub(crate) fn unusable(error: &std::io::Error) -> BuildError {
    BuildError::failed("cannot use a folder for building from source").caused_by(error)
}

/// The variables of every task: those of the interpreter's image that builds depend on, and fixed ones.
fn variables(draft: &Draft, settings: &Settings) -> Result<Vec<(String, String)>, BuildError> {
    let image = environment(&draft.runtime);
    let path = image.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let mut env: Vec<(String, String)> = [
        ("PATH", format!("{path}:{TOOLS}").as_str()),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("PYTHONHASHSEED", "0"),
        ("SOURCE_DATE_EPOCH", &MTIME.to_string()),
        ("UV_CACHE_DIR", "/tmp/imagespec/cache"),
        ("IMAGESPEC_PYTHON", &draft.foundation.interpreter()?.program),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let netrc = settings.lent_netrc();
    env.extend(netrc.map(|netrc| ("IMAGESPEC_NETRC".to_owned(), netrc.to_owned())));
    Ok(env)
}

/// Refuses what has to be built for a platform whose programs do not run here.
pub(crate) fn can_build(
    platform: &Platform,
    title: &str,
    field: &'static str,
) -> Result<(), BuildError> {
    if platform.is_host() {
        return Ok(());
    }
    let message = format!(
        "`{title}` has to be built from source, and programs of `{platform}` do not run on this machine"
    );
    Err(BuildError::input(message)
        .field(field)
        .hint("choose a version that has a wheel, or build that platform on a machine of its own"))
}

/// The workshop of an image: its root file system so far.
pub(crate) struct SandboxWorkshop<'a, 'b> {
    pub(crate) assembly: &'b Assembly<'a>,
    pub(crate) draft: &'b Draft,
}

impl fmt::Debug for SandboxWorkshop<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxWorkshop")
            .field("platform", &self.draft.platform)
            .finish_non_exhaustive()
    }
}

impl Workshop for SandboxWorkshop<'_, '_> {
    fn compile<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Result<Result<String, String>, BuildError>> {
        self.resolve(order).boxed()
    }
}

impl SandboxWorkshop<'_, '_> {
    async fn resolve(&self, order: Order<'_>) -> Result<Result<String, String>, BuildError> {
        if let Some(requirement) = &order.requirement {
            can_build(&self.draft.platform, requirement, order.field)?;
        }
        let files = PathBuf::from(LENT).join("python");
        let mut mounts = vec![(order.folder.to_owned(), files)];
        mounts.extend(order.files.iter().map(|file| (file.clone(), file.clone())));
        let lent = format!("{LENT}/git");
        for made in order.checkouts {
            let target = PathBuf::from(format!("{lent}/{}", made.id()));
            mounts.push((made.folder.clone(), target));
        }
        let script = resolution(&order, &lent);
        let step = resolving(&self.draft.platform);
        let task = Task {
            field: order.field,
            step: &step,
            script: &script,
            settings: order.settings,
            env: Vec::new(),
            mounts,
        };
        let done = self.assembly.task(self.draft, task).await?;
        if !done.success {
            return Ok(Err(done.said.clone()));
        }
        let lock = done.results()?.join("pylock.toml");
        let kind = fs_err::symlink_metadata(&lock).map_err(|error| unusable(&error))?;
        if !kind.is_file() || kind.len() > LOCK {
            return Err(BuildError::failed(
                "a build replaced the lock of its requirements",
            ));
        }
        let text = fs_err::read_to_string(&lock).map_err(|error| unusable(&error))?;
        Ok(Ok(text))
    }
}

/// What the shell does for an order, whose checkouts are in `lent`.
fn resolution(order: &Order<'_>, lent: &str) -> String {
    let copies = if order.checkouts.is_empty() {
        String::new()
    } else {
        format!("mkdir -p {CHECKOUTS}\ncp -RP {lent}/. {CHECKOUTS}/\n")
    };
    let words: Vec<_> = order.arguments.iter().map(|word| quoted(word)).collect();
    let (subcommand, rest) = words.split_at(2.min(words.len()));
    format!(
        "{copies}cp -RP {LENT}/python /tmp/imagespec/python\n\
         cd /tmp/imagespec/python\n\
         exec uv {} --python \"$IMAGESPEC_PYTHON\" --output-file {RESULTS}/pylock.toml {}\n",
        subcommand.join(" "),
        rest.join(" ")
    )
}

/// A word as the shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_results_is_no_way_out() {
        let place = tempfile::tempdir().expect("a folder");
        let done = || Done {
            work: Workspace::new_in(place.path(), ".build-").expect("a folder"),
            success: true,
            said: String::new(),
        };
        let sound = done();
        let upper = sound.work.upper();
        fs_err::create_dir_all(upper.join("tmp/imagespec/out")).expect("a folder");
        let results = sound.results().expect("results");
        assert_eq!(results, upper.join("tmp/imagespec/out"));
        let outside = tempfile::tempdir().expect("a folder");
        fs_err::create_dir_all(outside.path().join("imagespec/out")).expect("a folder");
        let hostile = done();
        let upper = hostile.work.upper();
        fs_err::create_dir_all(&upper).expect("a folder");
        fs_err::os::unix::fs::symlink(outside.path(), upper.join("tmp")).expect("a link");
        hostile.results().expect_err("a link to another folder");
    }

    #[test]
    fn what_cannot_be_built_here_is_named() {
        let foreign: Platform = "linux/s390x".parse().expect("a platform");
        let error = can_build(&foreign, "docopt==0.6.2", "packages").expect_err("refused");
        assert_eq!(
            error.message,
            "`docopt==0.6.2` has to be built from source, and programs of `linux/s390x` do not run on this machine"
        );
        assert_eq!(error.field.as_deref(), Some("packages"));
        can_build(&Platform::host(), "docopt", "packages").expect("built here");
    }

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(quoted("a'b $(c)"), r"'a'\''b $(c)'");
    }
}
