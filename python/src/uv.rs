//! uv, which resolves: the machine's, or a pinned one that is fetched by name through the machine's own pip.

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use tokio::process::Command;

use crate::index::redacted;
use crate::wheel::extract;

/// The version that is fetched, and the oldest that is used.
pub const VERSION: &str = "0.13.9";
/// Digests of the wheels of that version: glibc and musl on x86-64, both and newer glibc on ARM, macOS on each.
const WHEELS: [&str; 6] = [
    "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
];

/// A uv that works.
#[derive(Debug, Clone)]
pub struct Uv {
    path: PathBuf,
}

impl Uv {
    /// The machine's uv if it is new enough, else the pinned one, fetched now if it is not cached.
    pub async fn find(host: &Host) -> Result<Self, BuildError> {
        for path in on_path(host) {
            if new_enough(&path).await {
                return Ok(Self { path });
            }
        }
        let path = cached(host);
        if !path.is_file() {
            fetch(host, &path, None).await?;
        }
        Ok(Self { path })
    }

    /// The pinned uv that runs on any Linux of a platform, whatever its C library: for containers. Fetched now if it
    /// is not cached.
    pub async fn portable(host: &Host, platform: &Platform) -> Result<Self, BuildError> {
        let architecture = match platform.architecture.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => {
                let message = format!("there is no uv for the architecture `{other}`");
                return Err(BuildError::input(message).field("platform"));
            }
        };
        let path = cached(host).with_file_name(format!("uv-{VERSION}-musl-{architecture}"));
        if !path.is_file() {
            let tag = format!("musllinux_1_1_{architecture}");
            fetch(host, &path, Some(&tag)).await?;
        }
        Ok(Self { path })
    }

    /// Whether [`Uv::find`] would have to fetch one, as far as can be told without running anything.
    pub fn is_far(host: &Host) -> bool {
        on_path(host).next().is_none() && !cached(host).is_file()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it in a folder with an environment and nothing else. It takes `netrc` for the person's netrc file, which
    /// no other process sees and no disk keeps. Dropping the future kills it.
    pub async fn run(
        &self,
        arguments: &[String],
        folder: &Path,
        env: &BTreeMap<String, String>,
        netrc: Option<&str>,
    ) -> Result<Output, BuildError> {
        let failed =
            |error: std::io::Error| BuildError::unavailable("cannot run uv").caused_by(&error);
        let input = netrc.map(unnamed).transpose().map_err(failed)?;
        let mut command = Command::new(&self.path);
        command
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(input) = input {
            command.env("NETRC", "/dev/stdin").stdin(input);
        }
        command.output().await.map_err(failed)
    }
}

fn on_path(host: &Host) -> impl Iterator<Item = PathBuf> {
    let folders = std::env::split_paths(host.variable("PATH").unwrap_or_default());
    let programs = folders.map(|folder| folder.join("uv"));
    let programs: Vec<_> = programs.filter(|path| path.is_file()).collect();
    programs.into_iter()
}

fn cached(host: &Host) -> PathBuf {
    host.cache_dir.join("tools").join(format!("uv-{VERSION}"))
}

/// A file that has a content and no name.
fn unnamed(content: &str) -> std::io::Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

async fn new_enough(path: &Path) -> bool {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let numbers = |text: &str| {
        text.split('.')
            .map(|part| part.parse::<u32>().ok())
            .collect::<Option<Vec<_>>>()
    };
    let found = text.split_whitespace().nth(1).and_then(numbers);
    found.is_some_and(|found| Some(found) >= numbers(VERSION))
}

/// Downloads the pinned wheel with pip, which checks its digest, and takes the program out of it. The wheel is for
/// this machine, or for a platform as wheels name it.
async fn fetch(host: &Host, to: &Path, platform: Option<&str>) -> Result<(), BuildError> {
    let failed = |error: &std::io::Error| {
        BuildError::failed("cannot install uv into the cache").caused_by(error)
    };
    let tools = to.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(tools).map_err(|error| failed(&error))?;
    let work = tempfile::Builder::new()
        .prefix(".uv-")
        .tempdir_in(tools)
        .map_err(|error| failed(&error))?;
    let hashes: Vec<_> = WHEELS
        .iter()
        .map(|digest| format!(" --hash=sha256:{digest}"))
        .collect();
    fs_err::write(
        work.path().join("uv.txt"),
        format!("uv=={VERSION}{}\n", hashes.concat()),
    )
    .map_err(|error| failed(&error))?;
    let hint = format!("install uv {VERSION} or newer, or Python 3 with pip, which fetches it");
    let output = download(host, work.path(), platform).await;
    let output = output.map_err(|error| {
        BuildError::unavailable("there is no uv, and no Python to fetch it with")
            .hint(&hint)
            .caused_by(&error)
    })?;
    if !output.status.success() {
        let said = redacted(&String::from_utf8_lossy(&output.stderr));
        let said = std::io::Error::other(said.trim().to_owned());
        return Err(BuildError::unavailable("pip cannot fetch uv")
            .hint(&hint)
            .caused_by(&said));
    }
    let wheels = fs_err::read_dir(work.path().join("wheels")).map_err(|error| failed(&error))?;
    let wheel = wheels
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .next();
    let wheel = wheel.ok_or_else(|| BuildError::unavailable("pip fetched no uv").hint(&hint))?;
    let digest = fs_err::File::open(&wheel)
        .and_then(|mut file| Digest::of_reader(&mut file))
        .map_err(|error| failed(&error))?
        .0;
    if !WHEELS.contains(&digest.hex().as_str()) {
        return Err(BuildError::failed(format!(
            "pip fetched another uv than the pinned one: {digest}"
        )));
    }
    let program = extract(&wheel, &format!("uv-{VERSION}.data/scripts/uv"), 256 << 20)?;
    install(tools, to, &program).map_err(|error| failed(&error))
}

/// Has the wheel of `uv.txt` brought to `wheels` by the machine's pip, or by one that its uv runs.
async fn download(
    host: &Host,
    folder: &Path,
    platform: Option<&str>,
) -> std::io::Result<std::process::Output> {
    let run = |program: &Path, pip: &[&str], variables: BTreeMap<String, String>| {
        let mut command = Command::new(program);
        command
            .args(pip)
            .args(["download", "--quiet", "--no-deps", "--only-binary", ":all:"])
            .args(["--require-hashes", "--disable-pip-version-check"])
            .args(["--requirement", "uv.txt", "--dest", "wheels"])
            .args(platform.map(|platform| format!("--platform={platform}")))
            .current_dir(folder)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output()
    };
    let own = run(Path::new("python3"), &["-m", "pip"], host.variables.clone()).await;
    let is_missing = own.as_ref().map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |output| String::from_utf8_lossy(&output.stderr).contains("No module named pip"),
    );
    let Some(uv) = on_path(host).next().filter(|_| is_missing) else {
        return own;
    };
    let mut variables = host.variables.clone();
    // A machine without pip has no settings of pip's either, but may have uv's.
    for (theirs, pips) in [
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
        ("UV_INDEX_URL", "PIP_INDEX_URL"),
    ] {
        if let Some(value) = host.variable(theirs) {
            variables
                .entry(pips.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    run(&uv, &["tool", "run", "pip"], variables).await
}

fn install(tools: &Path, to: &Path, program: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".uv-").tempfile_in(tools)?;
    file.write_all(program)?;
    #[cfg(unix)]
    file.as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    file.as_file().sync_all()?;
    // Closed before it is named: a program that is open for writing cannot be run.
    file.into_temp_path()
        .persist(to)
        .map_err(|error| error.error)
}
