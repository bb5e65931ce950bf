//! Commands in the sandbox, and what they changed as layers.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::contract::{PIP, VENV, WORKDIR};
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::plan::{BuildPlan, Step};
use imagespec_core::platform::Platform;
use imagespec_core::shell::word;
use imagespec_debian::Lists;
use imagespec_oci::cache::Layer;
use imagespec_oci::images::ImageStore;
use imagespec_oci::layer::LayerWriter;
use imagespec_oci::store::BlobWriter;
use imagespec_python::index::{Loan, network};
use imagespec_python::lock::Libc;
use imagespec_python::uv::Uv;
use imagespec_sandbox::{Job, Mount, Network, Snapshots, Tier, Workspace, changes, run};
use indexmap::IndexMap;

use crate::assemble::{Assembly, Draft};
use crate::limits::exceeded;
use crate::lists::{KEYS, Lent};
use crate::machine::{AUTHORITIES, program};
use crate::recipe::{Commands, LazyLayer, Recipe};

/// Where `uv` and `pip` are while commands run.
pub(crate) const TOOLS: &str = "/run/imagespec/bin";
/// What tools leave behind that is no content of an image and differs every time: inodes of libraries, the
/// account files as they were, and apt's lists, caches and logs.
const LEFTOVERS: [&str; 16] = [
    "/opt/venv/.lock",
    "/var/cache/ldconfig",
    "/var/cache/apt",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/apt/lists",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/status-old",
    "/var/log/alternatives.log",
    "/var/log/apt",
    "/var/log/dpkg.log",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
];
/// How many of a failed command's last lines are repeated.
const LINES: usize = 40;

/// Version of how scripts are run and their changes become a layer: part of the layer's key.
pub(crate) const RECIPE: u64 = 3;

/// A command that makes a layer.
pub(crate) struct Script<'a> {
    pub(crate) title: String,
    /// The field of the spec that asks for it.
    pub(crate) field: &'static str,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: PathBuf,
    /// Ids of the user and the group that it runs as.
    pub(crate) ids: (u32, u32),
    pub(crate) network: Network,
    pub(crate) env: &'a IndexMap<String, String>,
    /// Variables of this machine, on which the layer does not depend.
    pub(crate) lent: Vec<(String, String)>,
    /// Files of this machine and where they appear, read-only.
    pub(crate) mounts: Vec<(PathBuf, PathBuf)>,
    /// A folder that is a layer below all others.
    pub(crate) below: Option<PathBuf>,
    /// What does not become part of the layer.
    pub(crate) exclude: Vec<PathBuf>,
}

impl Assembly<'_> {
    /// Runs the commands of a spec as root, in the working directory, with `pip` and `uv` at hand.
    pub(crate) async fn run(
        &self,
        draft: &mut Draft,
        commands: &[String],
        env: &IndexMap<String, String>,
    ) -> Result<(), BuildError> {
        let mut env = env.clone();
        let path = env
            .get("PATH")
            .map_or_else(|| TOOLS.to_owned(), |path| format!("{path}:{TOOLS}"));
        for (name, value) in [
            ("PATH", path.as_str()),
            ("HOME", "/root"),
            ("UV_PYTHON", &format!("{VENV}/bin/python")),
            ("UV_SYSTEM_CERTS", "1"),
            ("UV_NO_CACHE", "1"),
            ("UV_LINK_MODE", "copy"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        let recipe = Recipe::Commands(Commands {
            suite: draft.foundation.system.debian().map(str::to_owned),
            shell: can_run(draft, "commands")?.to_owned(),
            libc: draft.foundation.libc,
            lines: commands.to_vec(),
            env,
            strange: self.native.host.strangers,
        });
        // Its lines are told under the same name.
        let step = self.cx.progress.step("commands", recipe.title());
        let cached = self.add(draft, recipe).await?;
        step.finish(cached, "done");
        Ok(())
    }

    /// Runs commands over layers and writes what they changed.
    pub(crate) async fn run_commands(
        &self,
        below: &[LazyLayer],
        title: String,
        Commands {
            suite,
            shell,
            libc,
            lines,
            env,
            strange,
        }: &Commands,
    ) -> Result<Layer, BuildError> {
        let host = &self.native.host;
        // Theirs run walled off, and nobody else's with what they may not have.
        if host.strangers != *strange {
            let message =
                "commands of an image that this one starts from have to run again, and not here";
            return Err(BuildError::failed(message)
                .field("base_image")
                .hint("have that image built again by its own project"));
        }
        let uv = lent_uv(host, *libc, &Platform::host()).await?;
        let (tools, pip) = program(host, "pip", PIP)?;
        let Loan {
            env: lent,
            mut mounts,
            mut withheld,
        } = if *strange {
            Loan::default()
        } else {
            network(host, Path::new(AUTHORITIES))
        };
        let lists = match suite.as_deref().filter(|_| !strange) {
            Some(suite) => self.archive()?.lists(suite, Path::new(KEYS))?,
            None => Lists::default(),
        };
        let authorities = mounts
            .iter()
            .any(|(_, target)| target == Path::new(AUTHORITIES));
        let lists_layer = Lent::new(host, &lists, authorities.then_some(AUTHORITIES))?;
        withheld.extend(lists.withheld.then(|| "apt's sources".to_owned()));
        mounts.push((uv.path().to_path_buf(), Path::new(TOOLS).join("uv")));
        mounts.push((pip, Path::new(TOOLS).join("pip")));
        let script = Script {
            title,
            field: "commands",
            argv: vec![shell.clone(), "-c".to_owned(), line(shell, lines)],
            cwd: PathBuf::from(WORKDIR),
            ids: (0, 0),
            network: if *strange {
                Network::Isolated
            } else {
                Network::Host
            },
            env,
            lent,
            mounts,
            below: Some(lists_layer.path()),
            exclude: [PathBuf::from("/run"), PathBuf::from("/root/.cache")]
                .into_iter()
                .chain(Lent::excluded())
                .collect(),
        };
        let layer = self.script(below, script).await.map_err(|error| {
            if *strange && error.kind == ErrorKind::Failed {
                return error.hint("commands run without a network here");
            }
            if withheld.is_empty() || error.kind != ErrorKind::Failed {
                return error;
            }
            error.hint(format!(
                "commands are not given what holds a password, as they could write it into the image: {}",
                withheld.join(", ")
            ))
        });
        drop((tools, lists_layer));
        layer
    }

    /// Runs a script over layers and writes what it changed.
    pub(crate) async fn script(
        &self,
        below: &[LazyLayer],
        script: Script<'_>,
    ) -> Result<Layer, BuildError> {
        let host = &self.native.host;
        let tier = imagespec_sandbox::tier(host).await.map_err(|error| {
            BuildError::from(imagespec_sandbox::Error::from(error)).field(script.field)
        })?;
        let work = Workspace::new_in(&host.cache_dir, ".run-").map_err(|error| {
            BuildError::failed("cannot make a folder for the sandbox").caused_by(&error)
        })?;
        let mount = |(source, target): (PathBuf, PathBuf)| Mount {
            source,
            target,
            writable: false,
        };
        let job = Job {
            workspace: Some(work.clone()),
            env: script
                .env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .chain(script.lent)
                .collect(),
            cwd: script.cwd,
            uid: script.ids.0,
            gid: script.ids.1,
            network: script.network,
            mounts: script.mounts.into_iter().map(mount).collect(),
            limits: self.native.limits,
            ..Job::new(
                script
                    .below
                    .into_iter()
                    .chain(self.snapshots(below, &|_| true, tier).await?)
                    .collect(),
                script.argv,
            )
        };
        let mut last = std::collections::VecDeque::new();
        let progress = self.cx.progress;
        let mut on_line = |line: &str| {
            if last.len() == LINES {
                last.pop_front();
            }
            last.push_back(line.to_owned());
            progress.emit(imagespec_core::event::BuildEvent::Log {
                step: script.field.to_owned(),
                line: line.to_owned(),
            });
        };
        let exit = run(host, &job, tier, &mut on_line, &self.cx.cancel).await;
        let exit = exit.map_err(|error| match error {
            imagespec_sandbox::Error::Limit { limit } => {
                exceeded(limit, &self.native.limits, script.field)
            }
            error => error.into(),
        })?;
        if !exit.success() {
            let said = std::io::Error::other(Vec::from(last).join("\n"));
            return Err(BuildError::failed(format!(
                "a command of `{}` ended with code {}",
                script.field,
                exit.code()
            ))
            .field(script.field)
            .caused_by(&said));
        }
        let leftovers = LEFTOVERS.iter().map(PathBuf::from);
        let exclude: Vec<_> = script.exclude.into_iter().chain(leftovers).collect();
        // Whoever writes may go on for a moment after this was dropped, and is not to keep the folder for it.
        let upper = work.upper();
        let fill = move |layer: &mut LayerWriter<BlobWriter>| {
            changes::write(&upper, tier, script.ids, layer, &exclude)?;
            Ok(())
        };
        let layer = self.layers.write(script.title, Box::new(fill)).await?;
        drop(work);
        Ok(layer)
    }

    /// The folders of the unpacked layers that `wanted` picks, base first.
    pub(crate) async fn snapshots(
        &self,
        image: &[LazyLayer],
        wanted: &(dyn Fn(&LazyLayer) -> bool + Sync),
        tier: Tier,
    ) -> Result<Vec<PathBuf>, BuildError> {
        let cache_dir = &self.native.host.cache_dir;
        let unpacked = Snapshots::open(&cache_dir.join("snapshots"), tier)?;
        let packed = |lazy: &LazyLayer| wanted(lazy) && !unpacked.has(&lazy.layer.diff_id);
        self.ensure(image, &packed).await?;
        let layers: Vec<_> = image.iter().filter(|lazy| wanted(lazy)).collect();
        let layers: Vec<_> = layers.into_iter().map(|lazy| lazy.layer.clone()).collect();
        snapshots(&self.native.store, cache_dir, &layers, tier).await
    }
}

/// Refuses commands of people who are not trusted where a sandbox is no wall: what leaves it must meet this machine as
/// an ordinary user.
pub(crate) fn check_commands(host: &Host, plan: &BuildPlan) -> Result<(), BuildError> {
    let runs = |step: &Step| matches!(step, Step::Run { .. });
    if !host.strangers || !plan.steps.iter().any(runs) || imagespec_sandbox::is_ordinary_user() {
        return Ok(());
    }
    let message = "commands of people who are not trusted do not run as root of this machine";
    Err(BuildError::input(message)
        .field("commands")
        .hint("whoever runs the service can start it as a user of its own"))
}

/// Refuses what has to run programs of a platform that this machine is not, or without the shell for it.
/// Says which shell runs them.
pub(crate) fn can_run<'d>(draft: &'d Draft, field: &'static str) -> Result<&'d str, BuildError> {
    let shell = shell(draft, field)?;
    if draft.platform.is_host() {
        return Ok(shell);
    }
    let message = format!(
        "programs of `{}` do not run on this machine, and `{field}` needs some",
        draft.platform
    );
    Err(BuildError::input(message)
        .field(field)
        .hint("build that platform on a machine of its own"))
}

/// A line that runs commands one after another, each in a shell of its own as in a `RUN` of its own, up to the first
/// that fails.
fn line(shell: &str, commands: &[String]) -> String {
    let each = |command: &String| format!("{shell} -c {}", word(command));
    let each: Vec<_> = commands.iter().map(each).collect();
    each.join(" && ")
}

/// The shell of an image. Refuses what needs one where there is none.
pub(crate) fn shell<'d>(draft: &'d Draft, field: &'static str) -> Result<&'d str, BuildError> {
    draft.foundation.system.shell.as_deref().ok_or_else(|| {
        let message =
            format!("the base image has neither `/bin/bash` nor `/bin/sh`, which `{field}` needs");
        BuildError::input(message)
            .field(field)
            .hint("name a `base_image` that has one")
    })
}

/// A uv that runs in an image with a C library.
pub(crate) async fn lent_uv(
    host: &Host,
    libc: Option<Libc>,
    platform: &Platform,
) -> Result<Uv, BuildError> {
    match libc {
        Some(Libc::Musl(..)) => Uv::portable(host, platform).await,
        Some(Libc::Glibc(..)) | None => Uv::find(host).await,
    }
}

/// Unpacks layers that are not unpacked yet, and says where they all are.
pub(crate) async fn snapshots(
    store: &ImageStore,
    cache_dir: &Path,
    layers: &[Layer],
    tier: Tier,
) -> Result<Vec<PathBuf>, BuildError> {
    let snapshots = Snapshots::open(&cache_dir.join("snapshots"), tier)?;
    let one = |layer: &Layer| {
        let (layer, store, snapshots) = (layer.clone(), store.clone(), snapshots.clone());
        async move {
            let unpacked = tokio::task::spawn_blocking(move || {
                snapshots.ensure(&layer.diff_id, || open(&store, &layer))
            });
            let unpacked = unpacked.await.map_err(|error| {
                BuildError::failed("unpacking a layer panicked").caused_by(&error)
            })?;
            unpacked.map_err(BuildError::from)
        }
    };
    // An overlay holds a folder once. What a layer has and hides, its last occurrence has and hides too.
    let mut lowers: Vec<Layer> = Vec::new();
    for layer in layers {
        lowers.retain(|before| before.diff_id != layer.diff_id);
        lowers.push(layer.clone());
    }
    stream::iter(lowers.iter().map(one))
        .buffered(2)
        .try_collect()
        .await
}

/// A layer's uncompressed tar.
pub(crate) fn open(store: &ImageStore, layer: &Layer) -> std::io::Result<Box<dyn Read>> {
    let blob = store.blobs().open_blob(&layer.digest)?;
    Ok(match layer.media_type.rsplit(['+', '.']).next() {
        Some("gzip") => Box::new(MultiGzDecoder::new(std::io::BufReader::new(blob))),
        Some("zstd") => Box::new(zstd::Decoder::new(blob)?),
        _ => Box::new(blob),
    })
}
