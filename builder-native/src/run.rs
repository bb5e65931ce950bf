//! Commands in the sandbox, and what they changed as layers.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use imagespec_core::contract::{VENV, WORKDIR};
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_oci::cache::Layer;
use imagespec_oci::images::ImageStore;
use imagespec_python::uv::Uv;
use imagespec_sandbox::{Job, Mount, Snapshots, Tier, changes, run};
use indexmap::IndexMap;

use crate::assemble::{Assembly, Draft};
use crate::machine::{Loan, network, program};

/// Where `uv` and `pip` are while commands run.
const TOOLS: &str = "/run/imagespec/bin";
/// What tools leave behind that is no content of an image and differs every time: inodes of libraries, and
/// the account files as they were.
const LEFTOVERS: [&str; 5] = [
    "/var/cache/ldconfig",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
];
/// How many of a failed command's last lines are repeated.
const LINES: usize = 40;

/// A shell command that makes a layer.
pub(crate) struct Script<'a> {
    /// What the layer depends on.
    pub(crate) key: Digest,
    pub(crate) title: String,
    /// The field of the spec that asks for it.
    pub(crate) field: &'static str,
    pub(crate) line: String,
    pub(crate) env: &'a IndexMap<String, String>,
    /// Variables of this machine, on which the layer does not depend.
    pub(crate) lent: Vec<(String, String)>,
    /// Files of this machine and where they appear, read-only.
    pub(crate) mounts: Vec<(PathBuf, PathBuf)>,
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
        let uv = Uv::find(&self.native.host).await?;
        let (tools, pip) = program(&self.native.host, "pip", "#!/bin/sh\nexec uv pip \"$@\"\n")?;
        let Loan {
            env: lent,
            mut mounts,
        } = network(&self.native.host);
        mounts.push((uv.path().to_path_buf(), Path::new(TOOLS).join("uv")));
        mounts.push((pip, Path::new(TOOLS).join("pip")));
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
        let mut key = Framed::new("imagespec run");
        key.list(&draft.layers, |key, layer| {
            key.digest(&layer.diff_id);
        });
        key.list(commands, |key, command| {
            key.text(command);
        });
        key.list(&env, |key, (name, value)| {
            key.text(name).text(value);
        });
        let step = self.cx.progress.step(
            format!("run {}", draft.platform),
            format!("commands: {}", commands.join(" && ")),
        );
        let script = Script {
            key: key.finish(),
            title: format!("commands: {}", commands.join(" && ")),
            field: "commands",
            line: commands.join(" && "),
            env: &env,
            lent,
            mounts,
            exclude: vec![PathBuf::from("/run"), PathBuf::from("/root/.cache")],
        };
        let cached = self.script(draft, script).await?;
        drop(tools);
        step.finish(cached, "done");
        Ok(())
    }

    /// Runs a script over the draft and adds its layer. Says whether it was there before.
    pub(crate) async fn script(
        &self,
        draft: &mut Draft,
        script: Script<'_>,
    ) -> Result<bool, BuildError> {
        let key = self.layers.key(&script.key);
        if let (Some(layer), false) = (self.layers.get(&key), self.cx.settings.force) {
            draft.layers.push(layer);
            return Ok(true);
        }
        if !draft.platform.is_host() {
            let message = format!(
                "programs of `{}` do not run on this machine, and `{}` needs some",
                draft.platform, script.field
            );
            return Err(BuildError::input(message)
                .field(script.field)
                .hint("build that platform on a machine of its own"));
        }
        let host = &self.native.host;
        let tier = imagespec_sandbox::tier(host).await.map_err(|error| {
            BuildError::from(imagespec_sandbox::Error::from(error)).field(script.field)
        })?;
        let work = tempfile::Builder::new()
            .prefix(".run-")
            .tempdir_in(&host.cache_dir);
        let work = work.map_err(|error| {
            BuildError::failed("cannot make a folder for the sandbox").caused_by(&error)
        })?;
        let upper = work.path().join("upper");
        let mount = |(source, target): (PathBuf, PathBuf)| Mount {
            source,
            target,
            writable: false,
        };
        let job = Job {
            upper: Some(upper.clone()),
            env: script
                .env
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .chain(script.lent)
                .collect(),
            cwd: PathBuf::from(WORKDIR),
            mounts: script.mounts.into_iter().map(mount).collect(),
            ..Job::new(
                self.snapshots(&draft.layers, tier).await?,
                ["/bin/bash", "-c", &script.line],
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
        let exit = run(host, &job, tier, &mut on_line, &self.cx.cancel).await?;
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
        let fill = move |layer: &mut _| {
            changes::write(&upper, tier, layer, &exclude)?;
            Ok(())
        };
        let layer = self.layers.write(Some(key), script.title, fill).await?;
        draft.layers.push(layer);
        let removed = imagespec_sandbox::remove_tree(&work.path().join("upper"));
        removed.map_err(|error| {
            BuildError::failed("cannot clean up after the sandbox").caused_by(&error)
        })?;
        Ok(false)
    }

    /// The folders of unpacked layers, base first.
    pub(crate) async fn snapshots(
        &self,
        layers: &[Layer],
        tier: Tier,
    ) -> Result<Vec<PathBuf>, BuildError> {
        snapshots(
            &self.native.store,
            &self.native.host.cache_dir,
            layers,
            tier,
        )
        .await
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
    stream::iter(layers.iter().map(one))
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
