//! The cases, in their order.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::drawing;
use super::facts;
use super::load;
use super::peers::{self, Builder, Buildkit, Context, Docker, Kaniko, Peer};
use super::place::Place;
use super::results::Results;
use super::spec::{Declared, SCI, SMOKE, Spec};
use crate::error::Error;
use crate::tools;
use crate::workspace::Workspace;

const US: &str = "imagespec";
const FLYTEKIT: &str = "flytekit";
const COLD: &str = "cold caches, with downloads";
const NOTHING: &str = "nothing changed";
const EDITED: &str = "one source file edited";
const LOCKED: &str = "one requirement added, from uv.lock";
const RESOLVED: &str = "one requirement added, resolving";
const CACHED_IN: &str = "default, the same Dockerfile, all steps cached";
const EDITED_IN: &str = "default, the same Dockerfile, one source file edited";
const TAG_COLD: &str = "tag of many files, cold";
const TAG_WARM: &str = "tag of many files, warm";

/// What to measure, and how often.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Arguments {
    /// How often each cold build is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cold: u32,
    /// How often each build of what exists almost or altogether is measured
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    warm: u32,
    /// Compile bytecode, on all sides
    #[arg(long)]
    bytecode: bool,
    /// With whom to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["uv", "flytekit", "docker", "buildkit", "kaniko"])]
    peers: Vec<Peer>,
    /// How much a build service bears, and what it adds to a build, instead
    #[arg(long)]
    service: bool,
    /// A tiny image, measured once with nobody to compare: whether the bench works
    #[arg(long)]
    smoke: bool,
    /// Draw the figures of the last run into `docs/img/performance.svg`, and measure nothing
    #[arg(long)]
    svg: bool,
}

struct Bench<'a> {
    workspace: &'a Workspace,
    arguments: &'a Arguments,
    spec: Spec,
    uv: PathBuf,
    program: PathBuf,
    results: Results,
}

/// Measures, in one run, so that all share the machine's mood: cold builds in turns with `uv pip install`,
/// then builds after small changes, then what a tag costs. Medians go to the terminal, all samples to
/// `target/bench`.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Error> {
    let folder = workspace.target.join("bench");
    let drawn = workspace.root.join("docs/img/performance.svg");
    if arguments.svg {
        return drawing::draw(&folder.join("sci.json"), &drawn);
    }
    let (spec, profile) = if arguments.smoke {
        (SMOKE, &["--profile", "dev"])
    } else {
        (SCI, &["--profile", "release"])
    };
    if arguments.service {
        return load::run(workspace, profile);
    }
    workspace
        .cargo("build")
        .args(["--locked", "--quiet", "--package", "imagespec-cli"])
        .args(profile)
        .run()?;
    let built = if arguments.smoke { "debug" } else { "release" };
    fs_err::create_dir_all(&folder)?;
    let suffix = if arguments.bytecode { "-bytecode" } else { "" };
    let path = folder.join(format!("{}{suffix}.json", spec.name));
    let uv = tools::uv(workspace)?;
    let program = workspace.target.join(built).join("imagespec");
    let facts = facts::gather(workspace, &[&program, &uv])?;
    let mut bench = Bench {
        workspace,
        arguments,
        spec,
        uv,
        program,
        results: Results::new(facts, path),
    };
    let (_kept, place) = bench.cold()?;
    bench.changes(&place)?;
    bench.builders(&place)?;
    bench.overhead(&place)?;
    bench.sharing()?;
    bench.tags()?;
    bench.results.show();
    Ok(())
}

impl Bench<'_> {
    fn compares(&self, peer: Peer) -> bool {
        !self.arguments.smoke && self.arguments.peers.contains(&peer)
    }

    const fn rounds(&self, wanted: u32) -> u32 {
        if self.arguments.smoke { 1 } else { wanted }
    }

    fn place(&self, folder: &Path) -> Result<Place, Error> {
        let place = Place::new(&self.program, &self.uv, folder, self.arguments.bytecode)?;
        self.write(&place, Declared::Requirements, 0)?;
        Ok(place)
    }

    fn write(&self, place: &Place, declared: Declared, added: usize) -> Result<(), Error> {
        self.spec.write(&self.uv, &place.project, declared, added)
    }

    /// Cold builds; the last one's place is left for what follows. Places are outside the workspace, whose
    /// ignore rules would hide their sources.
    fn cold(&mut self) -> Result<(TempDir, Place), Error> {
        let mut left = None;
        for _ in 0..self.rounds(self.arguments.cold) {
            drop(left.take());
            let folder = tempfile::tempdir()?;
            if self.compares(Peer::Uv) {
                let (uv, spec) = (self.uv.clone(), self.spec);
                let bytecode = self.arguments.bytecode;
                self.results.time(COLD, "uv pip install", || {
                    peers::pip_install(&uv, folder.path(), spec.packages(0), bytecode)
                })?;
            }
            let place = self.place(folder.path())?;
            place.base()?;
            self.results.time(COLD, US, || place.build())?;
            left = Some((place, folder));
        }
        let (place, folder) = left.ok_or(Error::Missing { program: US })?;
        #[expect(clippy::cast_precision_loss, reason = "memory is below 2^52 bytes")]
        let peak = self.peak()? as f64;
        self.results
            .add("peak memory of a cold build", US, "bytes", peak)?;
        Ok((folder, place))
    }

    fn peak(&self) -> Result<u64, Error> {
        let folder = tempfile::tempdir()?;
        let place = self.place(folder.path())?;
        place.base()?;
        place.peak()
    }

    fn changes(&mut self, place: &Place) -> Result<(), Error> {
        let warm = self.rounds(self.arguments.warm);
        for _ in 0..warm {
            self.results.time(NOTHING, US, || place.build())?;
        }
        for round in 0..warm {
            fs_err::write(
                place.project.join("src/app.py"),
                format!("print({round})\n"),
            )?;
            self.results.time(EDITED, US, || place.build())?;
        }
        let half = self.spec.most_added().div_ceil(2);
        for added in 1..=half {
            self.write(place, Declared::Requirements, added)?;
            self.results.time(RESOLVED, US, || place.build())?;
        }
        self.write(place, Declared::Lock, half)?;
        place.build()?;
        for added in half + 1..=self.spec.most_added() {
            self.write(place, Declared::Lock, added)?;
            self.results.time(LOCKED, US, || place.build())?;
        }
        Ok(())
    }

    /// The same with those who build from a Dockerfile. One that cannot be had is left out, and the results say so.
    fn builders(&mut self, place: &Place) -> Result<(), Error> {
        let folder = tempfile::tempdir()?;
        let (workspace, at) = (self.workspace, |name: &str| folder.path().join(name));
        if self.compares(Peer::Flytekit) && !self.compares(Peer::Docker) {
            let why = "it asks an engine, which `--peers docker` starts";
            self.results.not_measured(FLYTEKIT, why.to_owned())?;
        }
        for peer in [Peer::Docker, Peer::Buildkit, Peer::Kaniko] {
            if !self.compares(peer) {
                continue;
            }
            let (name, started): (_, Result<Box<dyn Builder>, Error>) = match peer {
                Peer::Docker => {
                    let started = Docker::start(&at("docker"));
                    if self.compares(Peer::Flytekit) {
                        let checked = match &started {
                            Ok(engine) => self.check(engine, place).map_err(|it| it.to_string()),
                            Err(error) => Err(error.to_string()),
                        };
                        if let Err(why) = checked {
                            self.results.not_measured(FLYTEKIT, why)?;
                        }
                    }
                    ("docker", started.map(boxed))
                }
                Peer::Buildkit => {
                    let started = Buildkit::start(workspace, &at("buildkit"));
                    ("buildkitd", started.map(boxed))
                }
                _ => ("kaniko", Kaniko::start(workspace, &at("kaniko")).map(boxed)),
            };
            let measured = started.and_then(|builder| self.builder(&*builder, place, &at(name)));
            if let Err(error) = measured {
                self.results.not_measured(name, error.to_string())?;
            }
        }
        Ok(())
    }

    fn builder(
        &mut self,
        builder: &dyn Builder,
        place: &Place,
        folder: &Path,
    ) -> Result<(), Error> {
        let who = builder.name();
        let base = place.base()?;
        let base = base.split('@').next().unwrap_or(&base);
        let reference = format!("{}/bench/{}:1", place.registry.name(), self.spec.name);
        let bytecode = self.arguments.bytecode;
        let context = folder.with_extension("context");
        let context = Context::new(&context, &self.uv, base, &reference, bytecode)?;
        let write = |added: usize, builder: &dyn Builder| {
            context.write(&peers::declared(&self.spec, added), builder.remembers())
        };
        write(0, builder)?;
        for _ in 0..self.arguments.cold.min(2) {
            builder.forget(&context)?;
            self.results.time(COLD, who, || builder.build(&context))?;
        }
        if builder.remembers() {
            for _ in 0..self.arguments.warm {
                self.results
                    .time(NOTHING, who, || builder.build(&context))?;
            }
            for round in 0..self.arguments.warm {
                context.edit(round)?;
                self.results.time(EDITED, who, || builder.build(&context))?;
            }
        }
        for added in 1..=2 {
            write(added, builder)?;
            self.results
                .time(RESOLVED, who, || builder.build(&context))?;
        }
        let locked = |added: usize| self.spec.locked(&self.uv, folder, added);
        context.write(&locked(2)?, builder.remembers())?;
        builder.build(&context)?;
        for added in 3..=4 {
            context.write(&locked(added)?, builder.remembers())?;
            self.results.time(LOCKED, who, || builder.build(&context))?;
        }
        Ok(())
    }

    /// The builder `default` beside Docker's own command, which gets the same Dockerfile.
    fn overhead(&mut self, place: &Place) -> Result<(), Error> {
        if !self.compares(Peer::Docker) {
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        let measured = Docker::start(&folder.path().join("docker"))
            .and_then(|engine| self.overhead_in(&engine, place, &folder.path().join("context")));
        if let Err(error) = measured {
            self.results
                .not_measured("docker build", error.to_string())?;
        }
        Ok(())
    }

    fn overhead_in(&mut self, engine: &Docker, place: &Place, context: &Path) -> Result<(), Error> {
        const COMMAND: &str = "docker build";
        place.build_in(engine.host(), "round=first")?;
        place.write_dockerfile(context, &engine.image("imagespec-base")?)?;
        engine.build_labelled(context, "round=first")?;
        for round in 0..self.rounds(self.arguments.warm) {
            let label = format!("round={round}");
            let ours = || place.build_in(engine.host(), &label);
            self.results.time(CACHED_IN, US, ours)?;
            let theirs = || engine.build_labelled(context, &label);
            self.results.time(CACHED_IN, COMMAND, theirs)?;
        }
        for round in 0..self.rounds(self.arguments.warm) {
            let text = format!("print('overhead {round}')\n");
            let label = format!("edit={round}");
            fs_err::write(place.project.join("src/app.py"), &text)?;
            let ours = || place.build_in(engine.host(), &label);
            self.results.time(EDITED_IN, US, ours)?;
            // Of another content, so that the engine does not have its layer either.
            fs_err::write(context.join("src/app.py"), text + "# again\n")?;
            let theirs = || engine.build_labelled(context, &label);
            self.results.time(EDITED_IN, COMMAND, theirs)?;
        }
        Ok(())
    }

    /// What is sent of a second image that has the packages of the first and some more.
    fn sharing(&mut self) -> Result<(), Error> {
        let folder = tempfile::tempdir()?;
        let fresh = self.place(folder.path())?;
        fresh.build()?;
        self.write(&fresh, Declared::Requirements, self.spec.most_added())?;
        let told = fresh.build_told()?;
        #[expect(clippy::cast_precision_loss, reason = "sizes are below 2^52 bytes")]
        let share = 100.0 * told.pushed as f64 / told.size.max(1) as f64;
        self.results
            .add("sent of a second image", US, "% of its bytes", share)
    }

    fn tags(&mut self) -> Result<(), Error> {
        let folder = tempfile::tempdir()?;
        let tree = Place::new(&self.program, &self.uv, folder.path(), false)?;
        self.spec.write_tree(&self.uv, &tree.project)?;
        let tag = || tree.imagespec("tag").silent().run();
        self.results.time(TAG_COLD, US, tag)?;
        for _ in 0..self.rounds(self.arguments.warm) {
            self.results.time(TAG_WARM, US, tag)?;
        }
        if self.compares(Peer::Flytekit) {
            let source = tree.project.join("src");
            let python = peers::flytekit(self.workspace, &self.uv)?;
            for case in [TAG_COLD, TAG_WARM] {
                self.results
                    .time(case, FLYTEKIT, || peers::flytekit_tag(&python, &source))?;
            }
        }
        Ok(())
    }

    /// What flytekit does before it builds.
    fn check(&mut self, engine: &Docker, place: &Place) -> Result<(), Error> {
        let python = peers::flytekit(self.workspace, &self.uv)?;
        let registry = place.registry.name();
        for _ in 0..self.arguments.warm {
            self.results.time(NOTHING, FLYTEKIT, || {
                peers::flytekit_check(&python, engine.host(), &registry)
            })?;
        }
        Ok(())
    }
}

fn boxed<'a>(builder: impl Builder + 'a) -> Box<dyn Builder + 'a> {
    Box::new(builder)
}
