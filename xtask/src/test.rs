//! `cargo xtask test`.

use std::env;
use std::ffi::OsString;

use crate::command::Program;
use crate::error::Error;
use crate::workspace::Workspace;
use crate::{machine, report, soak, tools};

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// What is random in the tests follows from it; by default the clock's
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Arguments {
    /// All tests, with what is random following from a seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            filter: None,
            seed: Some(seed),
        }
    }
}

/// Sets up what the tests need, and runs them all. Tests that need an unprivileged user run themselves once
/// more as one, where this is root.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Error> {
    report::heading("what the tests need");
    machine::set_up()?;
    let parts = Parts::find(workspace)?;
    let seed = arguments.seed.unwrap_or_else(soak::seed);
    report::note(&format!("what is random is so again with `--seed {seed}`"));
    let mut failed = Vec::new();
    for (title, kind) in [("tests", "--all-targets"), ("examples in docs", "--doc")] {
        report::heading(title);
        let cargo = workspace
            .cargo("test")
            .args(["--locked", "--workspace", "--no-fail-fast", kind])
            .args(&arguments.filter);
        let cargo = parts
            .lend(cargo)
            .env("IMAGESPEC_TEST_SEED", seed.to_string());
        if cargo.run().is_err() {
            failed.push(title);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Checks(failed))
}

/// Programs that tests are told of by variables.
pub(crate) struct Parts {
    path: OsString,
    programs: Vec<(&'static str, OsString)>,
}

impl Parts {
    /// Finds the programs, or makes them.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self, Error> {
        let uv = tools::uv(workspace)?;
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = uv.parent().map(ToOwned::to_owned).into_iter();
        let path = env::join_paths(folders.chain(env::split_paths(&path)));
        let go = tools::Go::new(workspace);
        let found = |modules: &[tools::Module]| -> OsString {
            let found = modules.iter().map(|module| go.find(*module));
            // The tests that need them say so.
            found
                .collect::<Result<Vec<_>, _>>()
                .inspect_err(|error| report::note(&error.to_string()))
                .ok()
                .and_then(|folders| env::join_paths(folders).ok())
                .unwrap_or_default()
        };
        let programs = [
            ("IMAGESPEC_TEST_ENGINE", &[tools::MOBY, tools::RUNC][..]),
            ("IMAGESPEC_TEST_BUILDKIT", &[tools::BUILDKIT]),
            (
                "IMAGESPEC_TEST_KUBERNETES",
                &[tools::KUBERNETES, tools::KANIKO],
            ),
        ];
        let mut programs = programs
            .map(|(name, modules)| (name, found(modules)))
            .to_vec();
        let musl = tools::musl_python(workspace)
            .inspect_err(|error| report::note(&error.to_string()))
            .unwrap_or_default();
        programs.push(("IMAGESPEC_TEST_MUSL", musl.into()));
        Ok(Self {
            path: path.unwrap_or_default(),
            programs,
        })
    }

    /// Tells a program of them.
    pub(crate) fn lend(&self, program: Program) -> Program {
        let program = program.env("PATH", &self.path);
        let programs = self.programs.iter();
        programs.fold(program, |program, (name, folders)| {
            program.env(name, folders)
        })
    }
}
