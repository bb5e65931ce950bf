//! A project and a cache of its own, with the real command to build it.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::index::Index;
use crate::wheels::{noise, sha256, wheel};

/// How much of what builds need is in the cache of a place before it builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The Debian base, as layers and unpacked.
    Base,
    /// The files that the Debian base is made of.
    Downloads,
}

/// A project and a cache.
pub(crate) struct Place {
    folder: TempDir,
    /// Variables of the command.
    env: Vec<(String, String)>,
}

/// How a run of the command ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// The image `app`, of three packages of an index and a command that a search for [`marker`] finds.
    pub(crate) fn new(cache: Cache, index: &Index) -> Self {
        let spec = format!(
            "[images.app]\npackages = [\"alpha\", \"beta\", \"gamma\"]\n\
             commands = [\"echo {} >> /root/made; sleep 0.4\"]\n",
            marker()
        );
        let place = Self::empty(&spec, &index.url(""));
        let names: &[&str] = match cache {
            Cache::Base => &["tools", "debian", "blobs", "layers", "snapshots"],
            Cache::Downloads => &["tools", "debian"],
        };
        for name in names {
            let from = downloads().join(name);
            // Tools are fetched only where the machine has none.
            if !from.exists() {
                continue;
            }
            // Links: nothing in a cache is changed, only replaced.
            let mut copy = Command::new("cp");
            copy.arg("-al").arg(from).arg(place.cache());
            assert!(copy.status().expect("cp").success());
        }
        for lock in place.files().iter().filter(|path| ends(path, ".lock")) {
            fs_err::remove_file(lock).expect("a lock less");
        }
        place
    }

    /// A project of one file and an empty cache.
    pub(crate) fn empty(spec: &str, index: &str) -> Self {
        // On the file system of the cache that is linked to.
        let folder = tempfile::Builder::new()
            .prefix("place-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("a folder");
        for name in ["project", "home", "cache"] {
            fs_err::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs_err::write(folder.path().join("project/imagespec.toml"), spec).expect("a file");
        let env = [
            ("PIP_INDEX_URL", index.to_owned()),
            ("UV_HTTP_RETRIES", "0".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { folder, env }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    /// Sets a variable of the command.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagespec"));
        command
            .args(arguments)
            .current_dir(self.path("project"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("IMAGESPEC_CACHE_DIR", self.cache())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output();
        Ran::of(&output.expect("the command"))
    }

    /// What the command prints, which must succeed.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout.trim().to_owned()
    }

    /// The digest of the image that a build answers, which must succeed.
    #[track_caller]
    pub(crate) fn build(&self, arguments: &[&str]) -> String {
        let said = self.says(&[&["build", "--progress", "plain"], arguments].concat());
        let (_, digest) = said.split_once('@').expect("a digest");
        digest.to_owned()
    }

    /// Starts the command, and does not wait for it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("the command")
    }

    /// Everything in the cache that is no folder.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.cache(), &mut found);
        found
    }

    /// Everything in the cache that this place wrote: files of the common cache are linked.
    pub(crate) fn written(&self) -> Vec<PathBuf> {
        let is_own =
            |path: &PathBuf| fs_err::symlink_metadata(path).is_ok_and(|found| found.nlink() == 1);
        self.files().into_iter().filter(is_own).collect()
    }

    /// What processes that ended in the middle left in the cache.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let cache = self.cache();
        let mut found = Vec::new();
        let mut pending = vec![cache.clone()];
        while let Some(folder) = pending.pop() {
            for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                // As all files and folders of a cache are called before they have their name.
                let temporary =
                    name.starts_with('.') && name.contains('-') || ends(&path, ".partial");
                if temporary {
                    found.push(path);
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    // uv's own, and other people's file systems.
                    && path != cache.join("uv")
                    && path.parent() != Some(&cache.join("snapshots"))
                {
                    pending.push(path);
                }
            }
        }
        let partial = |folder: &str| {
            let entries = fs_err::read_dir(cache.join("snapshots").join(folder));
            let paths = entries.into_iter().flatten().flatten();
            paths
                .map(|entry| entry.path())
                .filter(|path| ends(path, ".partial"))
        };
        found.extend(partial("root").chain(partial("single-id")));
        found
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    /// Every blob of the store that this place wrote has the digest it is kept under.
    #[track_caller]
    pub(crate) fn verify(&self) {
        for entry in fs_err::read_dir(self.cache().join("blobs/sha256"))
            .into_iter()
            .flatten()
        {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").display().to_string();
            let shared = fs_err::metadata(&path).expect("a file").nlink() > 1;
            if !name.starts_with('.') && !shared {
                assert_eq!(sha256(&path), name, "in the store");
            }
        }
    }
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Waits for a command that was started.
    pub(crate) fn wait(mut child: Child) -> Self {
        let mut stdout = Vec::new();
        // Both are small; a pipe holds them.
        let _ = child
            .stdout
            .take()
            .map(|mut out| out.read_to_end(&mut stdout));
        let mut stderr = Vec::new();
        let _ = child
            .stderr
            .take()
            .map(|mut out| out.read_to_end(&mut stderr));
        let status = child.wait().expect("the command");
        Self::of(&Output {
            status,
            stdout,
            stderr,
        })
    }
}

/// The wheels that the image of [`Place::new`] is made of, in a folder.
pub(crate) fn wheels(folder: &Path) -> Vec<PathBuf> {
    let large = noise(6 << 20);
    let source = "def answer():\n    return 42\n".repeat(200);
    vec![
        wheel(folder, "alpha", &[("alpha/data.bin", &large)]),
        wheel(folder, "beta", &[("beta/__init__.py", source.as_bytes())]),
        wheel(folder, "gamma", &[("gamma/data.bin", &large[..3 << 20])]),
    ]
}

/// What stands in the command lines of processes in the sandbox, and nowhere else on this machine.
pub(crate) fn marker() -> &'static str {
    static MARKER: OnceLock<String> = OnceLock::new();
    MARKER.get_or_init(|| format!("reliable-marker-{}", std::process::id()))
}

/// Processes whose command line has a text, this one aside.
pub(crate) fn processes(text: &str) -> Vec<String> {
    let entries = fs_err::read_dir("/proc").expect("processes").flatten();
    let command = |path: PathBuf| {
        let own = path.ends_with(std::process::id().to_string());
        let bytes = std::fs::read(path.join("cmdline")).ok().filter(|_| !own)?;
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        command.contains(text).then_some(command)
    };
    entries.filter_map(|entry| command(entry.path())).collect()
}

/// Nothing that a place started is alive, after a moment.
#[track_caller]
pub(crate) fn all_ended(place: &Place) {
    let folder = place.path("").display().to_string();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let alive = [processes(marker()), processes(&folder)].concat();
        if alive.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "still alive: {alive:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn ends(path: &Path, suffix: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with(suffix))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// A cache with all that comes from elsewhere, kept from one run of the tests to the next.
fn downloads() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reliable-cache");
        let place = Place::empty("[images.base]\ncommands = [\"true\"]\n", "");
        // As the machine has it: this is what comes from its index and its mirror.
        let mut build = Command::new(env!("CARGO_BIN_EXE_imagespec"));
        let output = build
            .args(["build", "--output", "store", "--force"])
            .current_dir(place.path("project"))
            .env("IMAGESPEC_CACHE_DIR", &cache)
            .output()
            .expect("the command");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        cache
    })
}
