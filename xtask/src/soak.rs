//! `cargo xtask soak`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::workspace::Workspace;
use crate::{machine, report, test, tools};

/// How long, and from which seed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often a build is killed at a random moment
    #[arg(long, default_value_t = 100, value_name = "N")]
    kills: u64,
    /// How long each parser is given damaged input, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    fuzz: u64,
    /// How large the largest wheel is, in GiB
    #[arg(long, default_value_t = 8, value_name = "GIB")]
    wheel: u64,
    /// What is random follows from it; by default the clock's
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// Some of the tests, for long.
struct Part {
    title: &'static str,
    test: &'static str,
    /// What the test's program is told to run.
    which: &'static [&'static str],
    /// Whether it prints figures, which are those of the released program. Everything else runs as it is tested, with
    /// what a released program does not check.
    is_measured: bool,
}

const PARTS: [Part; 6] = [
    Part {
        title: "damaged input",
        test: "damage",
        which: &[],
        is_measured: false,
    },
    Part {
        title: "kills, full disks, large images",
        test: "reliable",
        which: &[],
        is_measured: false,
    },
    Part {
        title: "a cluster in trouble",
        test: "delivering",
        which: &["--ignored", "kaniko::long"],
        is_measured: false,
    },
    Part {
        title: "files of many gigabytes, as others read them",
        test: "delivering",
        which: &["--ignored", "consumers::"],
        is_measured: false,
    },
    Part {
        title: "a build service that is killed, and one in a cluster",
        test: "delivering",
        which: &["--ignored", "service::kills", "service::deployed"],
        is_measured: false,
    },
    Part {
        title: "how long executors in a cluster take",
        test: "delivering",
        which: &["--ignored", "--nocapture", "kaniko::measured"],
        is_measured: true,
    },
];

/// Does for long what the tests do for seconds: kills, damaged input, large images. The seed is said first; the
/// same seed makes the same choices again.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<(), Error> {
    let seed = arguments.seed.unwrap_or_else(seed);
    report::heading(&format!("soak, again with `--seed {seed}`"));
    machine::set_up()?;
    let mut failed = Vec::new();
    let set_up = test::Parts::find(workspace)?;
    for part in PARTS {
        report::heading(part.title);
        let mut cargo = workspace.cargo("test").args(["--locked", "--workspace"]);
        if part.is_measured {
            cargo = cargo.args(["--release"]);
        }
        let cargo = cargo
            .args(["--test", part.test])
            .args(["--", "--test-threads", "1"])
            .args(part.which);
        let cargo = set_up
            .lend(cargo)
            .env("IMAGESPEC_TEST_SEED", seed.to_string())
            .env("IMAGESPEC_TEST_KILLS", arguments.kills.to_string())
            .env("IMAGESPEC_TEST_SECONDS", arguments.fuzz.to_string())
            .env("IMAGESPEC_TEST_GIB", arguments.wheel.to_string());
        if cargo.run().is_err() {
            failed.push(part.title);
        }
    }
    report::heading(INVENTED);
    if invented(workspace, arguments.fuzz, seed).is_err() {
        failed.push(INVENTED);
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Checks(failed))
}

const INVENTED: &str = "invented input";

/// Gives every parser what `cargo fuzz` comes upon, from its corpus on. What it learns is kept below the target folder,
/// and so is an input that a parser fails on, which it names.
fn invented(workspace: &Workspace, seconds: u64, seed: u64) -> Result<(), Error> {
    let (target, room) = (workspace.target.join("fuzz"), workspace.root.join("fuzz"));
    let mut programs: Vec<_> = fs_err::read_dir(room.join("fuzz_targets"))?
        .flatten()
        .filter_map(|file| Some(file.path().file_stem()?.to_owned()))
        .collect();
    programs.sort();
    let mut found = Ok(());
    for name in programs {
        let learnt = target.join("corpus").join(&name);
        fs_err::create_dir_all(&learnt)?;
        let run = tools::CARGO_FUZZ
            .find(workspace)?
            .folder(&workspace.root)
            // Counting what is reached is for nightly compilers alone, as they see it.
            .env("RUSTC_BOOTSTRAP", "1")
            // Sixteen programs of the same libraries: to be optimised as a whole takes each of them minutes.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_TARGET_DIR", &target)
            .args(["run", "--fuzz-dir", "fuzz", "--features", "programs"])
            .args(["--sanitizer", "none", "--codegen-units", "16"])
            .arg(&name)
            .arg(learnt)
            .arg(room.join("corpus").join(&name))
            .args(["--", "-timeout=10", "-rss_limit_mb=1024", "-max_len=262144"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-seed={}", seed % u64::from(u32::MAX)))
            .run();
        found = found.and(run);
    }
    found
}

/// A seed from the clock.
pub(crate) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_micros()))
}
