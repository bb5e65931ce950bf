//! Layers of bytecode, compiled by the image's own interpreter in the sandbox.

use std::collections::HashMap;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use imagespec_core::contract::USER_ID;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_oci::cache::Layer;
use imagespec_oci::layer::LayerWriter;
use imagespec_oci::store::BlobWriter;
use imagespec_python::bytecode as driver;
use imagespec_python::wheel::{Layout, Wheel};
use imagespec_sandbox::{Job, Network, Tier, spawn};

use crate::assemble::{Assembly, Draft};
use crate::layers::Layers;

/// An interpreter of an image, ready to compile.
#[derive(Debug, Clone)]
struct Interpreter {
    host: Host,
    tier: Tier,
    rootfs: Vec<PathBuf>,
    program: String,
    tag: String,
}

/// The bytecode of the wheels of an environment.
pub(crate) struct Bytecode {
    interpreter: Interpreter,
    layout: Layout,
    layers: Layers,
    keys: Vec<Digest>,
}

/// Modules of one distribution: path relative to the root of the image, and source.
type Modules = Vec<(String, Vec<u8>)>;

impl Assembly<'_> {
    /// Prepares to compile wheels whose layers have the given keys; `None` where bytecode is not wanted or the
    /// platform's programs do not run here.
    pub(crate) async fn bytecode(
        &self,
        draft: &Draft,
        layout: &Layout,
        wheels: &[Digest],
    ) -> Result<Option<Bytecode>, BuildError> {
        let Some(interpreter) = self.interpreter(draft).await? else {
            return Ok(None);
        };
        let keys = wheels
            .iter()
            .map(|wheel| self.layers.key(&key(draft, wheel)))
            .collect();
        Ok(Some(Bytecode {
            interpreter,
            layout: layout.clone(),
            layers: self.layers.clone(),
            keys,
        }))
    }

    /// Adds the bytecode of the standard library, which Debian's maintainer scripts would have made.
    pub(crate) async fn standard_library(&self, draft: &mut Draft) -> Result<(), BuildError> {
        let Some(interpreter) = self.interpreter(draft).await? else {
            return Ok(());
        };
        let key = self
            .layers
            .key(&key(draft, &Digest::of("standard library")));
        let layer = if let Some(layer) = self.layers.get(&key) {
            layer
        } else {
            let step = self.cx.progress.step(
                format!("stdlib {}", draft.platform),
                "compile the standard library",
            );
            let folder = format!("usr/lib/python3.{}", draft.provenance.python);
            let fill = move |layer: &mut LayerWriter<BlobWriter>| {
                let mut modules = Vec::new();
                for snapshot in &interpreter.rootfs {
                    for root in [folder.as_str(), "usr/lib/python3/dist-packages"] {
                        collect(snapshot, root, &mut modules)?;
                    }
                }
                modules.sort();
                modules.dedup_by(|a, b| a.0 == b.0);
                interpreter.compile(vec![modules], 0, layer)
            };
            let layer = self
                .layers
                .write(
                    Some(key),
                    "bytecode of the standard library".to_owned(),
                    fill,
                )
                .await?;
            step.finish(false, format!("{} MB", layer.size / 1_000_000));
            layer
        };
        draft.layers.push(layer);
        Ok(())
    }

    async fn interpreter(&self, draft: &Draft) -> Result<Option<Interpreter>, BuildError> {
        if !self.cx.settings.bytecode || !draft.platform.is_host() {
            return Ok(None);
        }
        let tier = match imagespec_sandbox::tier(&self.native.host).await {
            Ok(tier) => tier,
            Err(unsupported) => {
                self.cx
                    .progress
                    .notice(format!("no bytecode is compiled: {unsupported}"));
                return Ok(None);
            }
        };
        let wanted: Vec<_> = draft
            .layers
            .iter()
            .filter(|layer| draft.provenance.interpreter.contains(&layer.diff_id))
            .cloned()
            .collect();
        let python = draft.provenance.python;
        Ok(Some(Interpreter {
            host: self.native.host.clone(),
            tier,
            rootfs: self.snapshots(&wanted, tier).await?,
            program: format!("/usr/bin/python3.{python}"),
            tag: format!("cpython-3{python}"),
        }))
    }
}

/// What bytecode depends on: what is compiled, and the interpreter with all it stands on.
fn key(draft: &Draft, content: &Digest) -> Digest {
    let mut key = Framed::new("imagespec bytecode");
    key.number(driver::RECIPE.into()).digest(content);
    key.list(&draft.provenance.interpreter, |key, layer| {
        key.digest(layer);
    });
    key.finish()
}

impl Bytecode {
    /// Whether the bytecode of a group of wheels was made before.
    pub(crate) fn has(&self, group: usize) -> bool {
        self.layers.get(&self.keys[group]).is_some()
    }

    /// The layers of bytecode of groups of wheels, each with its title and files.
    pub(crate) async fn layers(
        &self,
        groups: Vec<(String, Vec<PathBuf>)>,
    ) -> Result<Vec<Layer>, BuildError> {
        let one = |((title, files), key): ((String, Vec<PathBuf>), &Digest)| {
            let (key, interpreter, layout) = (*key, self.interpreter.clone(), self.layout.clone());
            async move {
                if let Some(layer) = self.layers.get(&key) {
                    return Ok(layer);
                }
                let fill = move |layer: &mut LayerWriter<BlobWriter>| {
                    interpreter.compile(modules(&files, &layout)?, USER_ID, layer)
                };
                self.layers
                    .write(Some(key), format!("bytecode of {title}"), fill)
                    .await
            }
        };
        let all = groups.into_iter().zip(&self.keys).map(one);
        futures::TryStreamExt::try_collect(futures::StreamExt::buffered(
            futures::stream::iter(all),
            2,
        ))
        .await
    }
}

/// The modules of wheels that share a layer. Of a module that several have, the last one's counts.
fn modules(files: &[PathBuf], layout: &Layout) -> Result<Vec<Modules>, BuildError> {
    let mut all = Vec::new();
    let mut last = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        let modules = Wheel::open(file)?.modules(layout)?;
        last.extend(modules.iter().map(|(path, _)| (path.clone(), index)));
        all.push(modules);
    }
    for (index, modules) in all.iter_mut().enumerate() {
        modules.retain(|(path, _)| last.get(path) == Some(&index));
    }
    Ok(all)
}

impl Interpreter {
    /// Compiles the modules of several distributions, each as if there were no other.
    fn compile(
        &self,
        distributions: Vec<Modules>,
        owner: u32,
        layer: &mut LayerWriter<BlobWriter>,
    ) -> Result<(), BuildError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            BuildError::failed("cannot compile to bytecode")
                .caused_by(error)
                .hint("`--no-bytecode` goes without")
        };
        let job = Job {
            env: driver::environment(),
            network: Network::Isolated,
            ..Job::new(self.rootfs.clone(), driver::command(&self.program))
        };
        let mut worker = spawn(&self.host, &job, self.tier, Stdio::null())?;
        let (Some(mut stdin), Some(stdout)) = (worker.stdin.take(), worker.stdout.take()) else {
            return Err(BuildError::failed("the compiler has no pipes"));
        };
        let mut stdout = BufReader::new(stdout);
        for modules in distributions {
            driver::request(&modules, &mut stdin).map_err(|error| failed(&error))?;
            driver::answer(&modules, &self.tag, owner, &mut stdout, layer)
                .map_err(|error| failed(&error))?;
        }
        stdin.flush().map_err(|error| failed(&error))?;
        drop(stdin);
        let exit = worker.wait()?;
        if exit.success() {
            Ok(())
        } else {
            Err(BuildError::failed(format!(
                "the compiler ended with code {}",
                exit.code()
            )))
        }
    }
}

/// Reads the modules below a folder of an unpacked layer.
fn collect(root: &Path, folder: &str, modules: &mut Modules) -> Result<(), BuildError> {
    let failed = |error: std::io::Error| {
        BuildError::failed("cannot read the standard library").caused_by(&error)
    };
    let Ok(entries) = fs_err::read_dir(root.join(folder)) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (kind, name) = (entry.file_type().map_err(failed)?, entry.file_name());
        let Some(name) = name.to_str() else { continue };
        let path = format!("{folder}/{name}");
        if kind.is_dir() {
            collect(root, &path, modules)?;
        } else if kind.is_file()
            && entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "py")
        {
            modules.push((path, fs_err::read(entry.path()).map_err(failed)?));
        }
    }
    Ok(())
}
