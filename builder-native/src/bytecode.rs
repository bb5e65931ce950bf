//! Layers of bytecode, compiled by the image's own interpreter in the sandbox.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use imagespec_core::contract::USER_ID;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_oci::layer::LayerWriter;
use imagespec_oci::store::BlobWriter;
use imagespec_python::bytecode as driver;
use imagespec_python::wheel::{Layout, Wheel};

use crate::assemble::{Assembly, Draft};
use crate::layers::Fill;
use crate::process::Place;
use crate::recipe::{Interpreter, LazyLayer, Recipe};

/// An interpreter of an image, ready to compile.
#[derive(Debug, Clone)]
struct Compiler {
    host: Host,
    place: Place,
    program: String,
    tag: String,
}

/// Modules of one distribution: their paths, relative to the root of the image, and how to read each.
struct Modules<'a> {
    paths: Vec<String>,
    source: Box<dyn FnMut(usize) -> io::Result<Vec<u8>> + Send + 'a>,
}

impl Assembly<'_> {
    /// Adds layers of bytecode; none where bytecode is not wanted or the platform's programs do not run here.
    pub(crate) async fn bytecode(
        &self,
        draft: &mut Draft,
        recipes: Vec<Recipe>,
    ) -> Result<(), BuildError> {
        if !self.cx.settings.bytecode() || !draft.platform.is_host() || recipes.is_empty() {
            return Ok(());
        }
        let keyed: Vec<_> = recipes
            .into_iter()
            .map(|recipe| (self.key(&draft.layers, &recipe), recipe))
            .collect();
        if keyed
            .iter()
            .any(|(key, _)| self.layers.known(key).is_none())
            && !self.native.host.contained
            && let Err(unsupported) = imagespec_sandbox::tier(&self.native.host).await
        {
            let progress = self.cx.progress;
            progress.notice(format!("no bytecode is compiled: {unsupported}"));
            return Ok(());
        }
        let step = self.cx.progress.step(
            format!("bytecode {} {}", draft.platform, keyed.len()),
            "layers of bytecode",
        );
        let (made, known) = self.layers(&draft.layers, keyed).await?;
        step.finish(known, format!("{} compiled", made.len()));
        draft.layers.extend(made);
        Ok(())
    }

    /// Adds the bytecode of what is installed with the interpreter, which Debian's maintainer scripts, uv or Conda
    /// would have made.
    pub(crate) async fn standard_library(&self, draft: &mut Draft) -> Result<(), BuildError> {
        let recipe = Recipe::StandardLibrary(draft.foundation.interpreter()?.clone());
        let recipe = draft.owned(recipe);
        self.bytecode(draft, vec![recipe]).await
    }

    /// What fills a layer with the bytecode of wheels.
    pub(crate) async fn compiled(
        &self,
        below: &[LazyLayer],
        interpreter: &Interpreter,
        files: Vec<PathBuf>,
        layout: &Layout,
    ) -> Result<Fill, BuildError> {
        let compiler = self.compiler(below, interpreter).await?;
        let layout = layout.clone();
        Ok(Box::new(move |layer| {
            let wheels = files.iter().map(|file| Wheel::open(file));
            let wheels = wheels.collect::<Result<Vec<_>, _>>()?;
            compiler.compile(modules(&wheels, &layout)?, USER_ID, layer)
        }))
    }

    /// What fills a layer with the bytecode of the standard library.
    pub(crate) async fn compiled_standard_library(
        &self,
        below: &[LazyLayer],
        interpreter: &Interpreter,
    ) -> Result<Fill, BuildError> {
        let compiler = self.compiler(below, interpreter).await?;
        let lib = format!("{}/lib", interpreter.prefix().trim_start_matches('/'));
        let folders = [
            format!("{lib}/python{}", interpreter.version()),
            // Debian's place for packages.
            format!("{lib}/python3/dist-packages"),
        ];
        let owner = if interpreter.is_conda() { USER_ID } else { 0 };
        Ok(Box::new(move |layer| {
            let mut modules = Vec::new();
            for snapshot in compiler.place.rootfs() {
                for root in &folders {
                    collect(snapshot, root, &compiler.tag, &mut modules)?;
                }
            }
            modules.sort();
            modules.dedup_by(|a, b| a.0 == b.0);
            let (paths, files): (_, Vec<_>) = modules.into_iter().unzip();
            let source = Box::new(|index: usize| fs_err::read(&files[index]));
            compiler.compile(vec![Modules { paths, source }], owner, layer)
        }))
    }

    async fn compiler(
        &self,
        below: &[LazyLayer],
        interpreter: &Interpreter,
    ) -> Result<Compiler, BuildError> {
        let host = &self.native.host;
        let place = if host.contained {
            Place::Here
        } else {
            let tier = imagespec_sandbox::tier(host).await.map_err(|unsupported| {
                BuildError::from(imagespec_sandbox::Error::from(unsupported))
                    .context("cannot compile to bytecode")
                    .hint("`--no-bytecode` goes without")
            })?;
            let wanted = |lazy: &LazyLayer| interpreter.layers.contains(&lazy.layer.diff_id);
            let rootfs = self.snapshots(below, &wanted, tier).await?;
            Place::Sandbox { tier, rootfs }
        };
        Ok(Compiler {
            host: host.clone(),
            place,
            program: interpreter.program.clone(),
            tag: interpreter.tag(),
        })
    }
}

/// The modules of wheels that share a layer. Of a module that several have, the last one's counts.
fn modules<'a>(wheels: &'a [Wheel], layout: &Layout) -> Result<Vec<Modules<'a>>, BuildError> {
    let mut all = Vec::new();
    let mut last = HashMap::new();
    for (index, wheel) in wheels.iter().enumerate() {
        let modules = wheel.modules(layout)?;
        last.extend(modules.iter().map(|module| (module.path.clone(), index)));
        all.push(modules);
    }
    let distributions = wheels.iter().zip(all).enumerate();
    let distributions = distributions.map(|(index, (wheel, mut modules))| {
        modules.retain(|module| last.get(&module.path) == Some(&index));
        let paths = modules.iter().map(|module| module.path.clone()).collect();
        let source = move |index: usize| {
            let source = wheel.source(&modules[index]);
            source.map_err(io::Error::other)
        };
        Modules {
            paths,
            source: Box::new(source),
        }
    });
    Ok(distributions.collect())
}

impl Compiler {
    /// Compiles the modules of several distributions, each as if there were no other. One thread sends sources and
    /// another takes what is compiled, so that only a module or two are in memory.
    fn compile(
        &self,
        mut distributions: Vec<Modules<'_>>,
        owner: u32,
        layer: &mut LayerWriter<BlobWriter>,
    ) -> Result<(), BuildError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            BuildError::failed("cannot compile to bytecode")
                .caused_by(error)
                .hint("`--no-bytecode` goes without")
        };
        let command = driver::command(&self.program);
        let mut worker = self
            .place
            .start(&self.host, driver::environment(), &command)?;
        let (mut stdin, stdout) = worker
            .pipes()
            .ok_or_else(|| BuildError::failed("the compiler has no pipes"))?;
        let mut stdout = BufReader::new(stdout);
        let paths: Vec<_> = distributions
            .iter_mut()
            .map(|modules| std::mem::take(&mut modules.paths))
            .collect();
        let (sent, received) = std::thread::scope(|scope| {
            let paths = &paths;
            let sender = scope.spawn(move || -> io::Result<()> {
                for (paths, mut modules) in paths.iter().zip(distributions) {
                    driver::request(paths, &mut modules.source, &mut stdin)?;
                }
                Ok(())
            });
            let received = paths
                .iter()
                .try_for_each(|paths| driver::answer(paths, &self.tag, owner, &mut stdout, layer));
            // A sender that waits for someone to read what it sends is told that nobody does.
            if received.is_err() {
                worker.stop();
            }
            (sender.join(), received)
        });
        let sent = sent.unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
        // What stopped the sender explains why the answer broke off, unless that is the compiler's end.
        match (sent, received) {
            (Ok(()), Ok(())) => {}
            (Err(error), _) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(failed(&error));
            }
            (_, Err(error)) => return Err(failed(&error)),
            (Err(error), Ok(())) => return Err(failed(&error)),
        }
        match worker.wait()? {
            None => Ok(()),
            Some(code) => Err(BuildError::failed(format!(
                "the compiler ended with code {code}"
            ))),
        }
    }
}

/// Finds the modules below a folder of an unpacked layer that have no bytecode there: where they go, and where they
/// are.
fn collect(
    root: &Path,
    folder: &str,
    tag: &str,
    modules: &mut Vec<(String, PathBuf)>,
) -> Result<(), BuildError> {
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
            collect(root, &path, tag, modules)?;
        } else if kind.is_file()
            && entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "py")
            && !is_compiled(&entry.path(), tag)
        {
            modules.push((path, entry.path()));
        }
    }
    Ok(())
}

/// Whether a module of an unpacked layer has its bytecode beside it.
fn is_compiled(module: &Path, tag: &str) -> bool {
    let stem = module.file_stem().unwrap_or_default().to_string_lossy();
    let compiled = format!("__pycache__/{stem}.{tag}.pyc");
    module.with_file_name(compiled).is_file()
}
