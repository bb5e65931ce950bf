//! Locks from the machine's own package index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::files::ResolvedFiles;
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::{ContextEntry, PackageIndex, Requirements, RequirementsKind};
use imagespec_core::platform::Platform;
use imagespec_http::Client;
use imagespec_python::fetch::{cached, fetch};
use imagespec_python::index::environment;
use imagespec_python::lock::{Libc, Lock, LockRequest, LockedWheel, Target, lock};
use imagespec_python::uv::Uv;
use imagespec_python::wheel::Wheel;
use tempfile::TempDir;
use tokio::sync::OnceCell;

static UV: OnceCell<Uv> = OnceCell::const_new();

/// This machine, with a cache of its own that shares only uv, and what uv knows of the index.
struct Machine {
    host: Host,
    _cache: TempDir,
}

impl Machine {
    async fn new() -> Self {
        let variables: BTreeMap<_, _> = std::env::vars().collect();
        let home = variables.get("HOME").map(PathBuf::from);
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lock");
        let host = Host {
            variables,
            home,
            cache_dir: shared.clone(),
            ..Host::default()
        };
        UV.get_or_try_init(|| Uv::find(&host)).await.expect("uv");
        let cache = tempfile::tempdir().expect("a folder");
        for part in ["tools", "uv"] {
            fs_err::create_dir_all(shared.join(part)).expect("a folder");
            fs_err::os::unix::fs::symlink(shared.join(part), cache.path().join(part))
                .expect("a link");
        }
        Self {
            host: Host {
                cache_dir: cache.path().to_owned(),
                ..host
            },
            _cache: cache,
        }
    }

    /// The same machine, on which nothing can be resolved any more.
    fn without_uv(mut self) -> Self {
        self.host
            .variables
            .insert("PATH".to_owned(), "/nowhere".to_owned());
        fs_err::remove_file(self.host.cache_dir.join("tools")).expect("a link");
        self
    }

    async fn uv(&self, folder: &Path, arguments: &[&str]) {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let env = environment(&self.host, &PackageIndex::default());
        let output = UV
            .get()
            .expect("uv")
            .run(&arguments, folder, &env, None)
            .await
            .expect("uv runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A declaration.
struct Declared {
    requirements: Option<Requirements>,
    packages: Vec<String>,
    entries: BTreeMap<String, ContextEntry>,
    files: ResolvedFiles,
    index: PackageIndex,
    target: Target,
}

impl Declared {
    /// Files by their name, the first of which names the packages.
    fn files(kind: RequirementsKind, files: &[(&str, &str)]) -> Self {
        let mut declared = Self::packages(&[]);
        let path = format!("python/{}", files[0].0);
        declared.requirements = Some(Requirements {
            kind,
            path,
            pyproject: None,
        });
        for (name, text) in files {
            let path = format!("python/{name}");
            let (digest, size) = (Digest::of(text), text.len() as u64);
            declared.entries.insert(
                path.clone(),
                ContextEntry::File {
                    digest,
                    size,
                    executable: false,
                },
            );
            declared.files.insert_bytes(path, text.as_bytes().to_vec());
        }
        declared
    }

    fn packages(packages: &[&str]) -> Self {
        Self {
            requirements: None,
            packages: packages.iter().map(ToString::to_string).collect(),
            entries: BTreeMap::new(),
            files: ResolvedFiles::default(),
            index: PackageIndex::default(),
            target: Target {
                python: 11,
                platform: Platform::amd64(),
                libc: Libc::Glibc(2, 36),
            },
        }
    }

    async fn lock_or_cached(&self, machine: &Machine) -> Result<(Lock, bool), BuildError> {
        let request = LockRequest {
            requirements: self.requirements.as_ref(),
            packages: &self.packages,
            index: &self.index,
            logins: &IndexLogins::default(),
            entries: &self.entries,
            files: &self.files,
            target: &self.target,
            refresh: false,
            interpreter: None,
            workshop: None,
            provided: &[],
            secrets: &[],
        };
        lock(&machine.host, request).await
    }

    async fn lock(&self, machine: &Machine) -> Result<Lock, BuildError> {
        self.lock_or_cached(machine).await.map(|(lock, _)| lock)
    }

    async fn refused(&self, machine: &Machine) -> BuildError {
        let error = self.lock(machine).await.expect_err("no lock");
        assert_eq!(error.kind, ErrorKind::Input, "{error:?}");
        error
    }
}

fn names(lock: &Lock) -> Vec<&str> {
    lock.wheels
        .iter()
        .map(|wheel| wheel.name.as_str())
        .collect()
}

const PYPROJECT: &str = r#"
[project]
name = "hello"
version = "0.1"
requires-python = ">=3.10"
dependencies = ["six==1.17.0", "tomli==2.2.1 ; python_version < '3.11'", "markupsafe==3.0.2"]
[dependency-groups]
dev = ["iniconfig"]
"#;

#[tokio::test]
async fn requirements_with_extras_markers_and_includes_become_wheels() {
    let machine = Machine::new().await;
    let main = "requests[socks]==2.32.3  # a comment\ncolorama; sys_platform == 'win32'\n-r more/inner.txt\n";
    let files = [
        ("requirements.txt", main),
        ("more/inner.txt", "MarkupSafe>=3,<3.0.3\n"),
    ];
    let mut declared = Declared::files(RequirementsKind::RequirementsTxt, &files);
    declared.packages.push("six==1.17.0".to_owned());
    let (first, from_cache) = declared.lock_or_cached(&machine).await.expect("a lock");
    let expected = [
        "certifi",
        "charset-normalizer",
        "idna",
        "markupsafe",
        "pysocks",
        "requests",
        "six",
        "urllib3",
    ];
    assert_eq!(names(&first), expected);
    assert!(!from_cache);
    let markupsafe = &first.wheels[3];
    assert_eq!(markupsafe.version, "3.0.2");
    assert!(
        markupsafe.filename.contains("cp311-cp311-manylinux"),
        "{}",
        markupsafe.filename
    );

    let client = Client::new(&machine.host).expect("a client");
    let logins = IndexLogins::default();
    let bytes = fetch(&machine.host, &client, &first.wheels, &logins, 4, &|_| ())
        .await
        .expect("wheels");
    assert!(bytes > 100_000);
    for wheel in &first.wheels {
        let path = cached(&machine.host, wheel);
        let content = fs_err::read(&path).expect("a wheel");
        assert_eq!(Digest::of(&content), wheel.digest);
        assert_eq!(wheel.size, Some(content.len() as u64));
        assert_eq!(
            Wheel::open(&path).expect("a sound wheel").version(),
            wheel.version
        );
    }
    assert_eq!(
        fetch(&machine.host, &client, &first.wheels, &logins, 4, &|_| ()).await,
        Ok(0)
    );

    let machine = machine.without_uv();
    assert_eq!(declared.lock_or_cached(&machine).await, Ok((first, true)));
    declared.packages.push("idna".to_owned());
    assert!(
        declared.lock(&machine).await.is_err(),
        "another declaration is another lock"
    );
}

#[tokio::test]
async fn a_project_is_locked_alone_and_through_its_own_locks() {
    let machine = Machine::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    fs_err::write(folder.path().join("pyproject.toml"), PYPROJECT).expect("a file");
    machine.uv(folder.path(), &["lock"]).await;
    let uv_lock = fs_err::read_to_string(folder.path().join("uv.lock")).expect("a lock");

    let alone = Declared::files(
        RequirementsKind::Pyproject,
        &[("pyproject.toml", PYPROJECT)],
    );
    let alone = alone.lock(&machine).await.expect("a lock");
    assert_eq!(names(&alone), ["markupsafe", "six"]);
    let files = [("uv.lock", uv_lock.as_str()), ("pyproject.toml", PYPROJECT)];
    let locked = Declared::files(RequirementsKind::UvLock, &files);
    assert_eq!(locked.lock(&machine).await, Ok(alone.clone()));
    let poetry_lock = poetry_lock(&alone);
    let files = [
        ("poetry.lock", poetry_lock.as_str()),
        ("pyproject.toml", PYPROJECT),
    ];
    let poetry = Declared::files(RequirementsKind::PoetryLock, &files);
    assert_eq!(poetry.lock(&machine).await, Ok(alone));

    let changed = PYPROJECT.replace("six==1.17.0", "six==1.16.0");
    let files = [("uv.lock", uv_lock.as_str()), ("pyproject.toml", &changed)];
    let error = Declared::files(RequirementsKind::UvLock, &files)
        .refused(&machine)
        .await;
    assert_eq!(error.message, "`uv.lock` does not match `pyproject.toml`");
    let forged: String = poetry_lock.lines().map(|line| forge(line) + "\n").collect();
    let files = [
        ("poetry.lock", forged.as_str()),
        ("pyproject.toml", PYPROJECT),
    ];
    let error = Declared::files(RequirementsKind::PoetryLock, &files)
        .refused(&machine)
        .await;
    assert!(
        error
            .message
            .contains("has a hash that the requirements allow"),
        "{error:?}"
    );
}

/// What Poetry would write for the wheels of a lock, and for a group that is not wanted.
fn poetry_lock(lock: &Lock) -> String {
    let package = |wheel: &LockedWheel| {
        format!(
            "[[package]]\nname = \"{}\"\nversion = \"{}\"\noptional = false\npython-versions = \">=3.8\"\ngroups = [\"main\"]\nfiles = [\n{{file = \"{}\", hash = \"{}\"}},\n]\n\n",
            wheel.name, wheel.version, wheel.filename, wheel.digest
        )
    };
    let dev = "[[package]]\nname = \"iniconfig\"\nversion = \"2.0.0\"\noptional = false\ngroups = [\"dev\"]\nfiles = []\n\n";
    let packages: String = lock.wheels.iter().map(package).collect();
    format!(
        "{packages}{dev}[metadata]\nlock-version = \"2.1\"\npython-versions = \">=3.10\"\ncontent-hash = \"x\"\n"
    )
}

/// The line with another hash, if it has one.
fn forge(line: &str) -> String {
    match line.split_once("sha256:") {
        Some((before, _)) => format!("{before}{}\"}},", Digest::of("another")),
        None => line.to_owned(),
    }
}

#[tokio::test]
async fn what_cannot_be_locked_is_refused_by_name_and_line() {
    let machine = Machine::new().await;
    let error = Declared::packages(&["six==99"]).refused(&machine).await;
    assert_eq!(error.message, "cannot resolve the Python packages");
    assert!(format!("{error:?}").contains("six==99"), "{error:?}");
    assert_eq!(error.field.as_deref(), Some("packages"));

    let error = Declared::packages(&["pyspark==3.5.1"])
        .refused(&machine)
        .await;
    assert_eq!(error.message, "only a source distribution suits: `pyspark`");

    let text = |text: &str| {
        Declared::files(
            RequirementsKind::RequirementsTxt,
            &[("requirements.txt", text)],
        )
    };
    let error = text("six\n\n# a comment\nsix===bad bad\n")
        .refused(&machine)
        .await;
    assert_eq!(error.message, "cannot read line 4 of `requirements.txt`");

    let wrong = format!("six==1.17.0 \\\n    --hash={}\n", Digest::of("another"));
    let error = text(&wrong).refused(&machine).await;
    assert_eq!(
        error.message,
        "no wheel has a hash that the requirements allow: `six==1.17.0`"
    );

    let mut foreign = Declared::packages(&["six"]);
    foreign.index.extra_args = vec!["--user".to_owned()];
    assert_eq!(
        foreign.refused(&machine).await.field.as_deref(),
        Some("pip_extra_args")
    );
}

#[tokio::test]
async fn other_platforms_have_other_wheels_and_newer_bases_no_fewer() {
    let machine = Machine::new().await;
    let mut declared = Declared::packages(&["markupsafe==3.0.2"]);
    for (platform, libc, tags) in [
        ("linux/arm64", Libc::Glibc(2, 36), ["manylinux", "aarch64"]),
        ("linux/amd64", Libc::Glibc(2, 41), ["manylinux", "x86_64"]),
        ("linux/amd64", Libc::Musl(1, 2), ["musllinux", "x86_64"]),
    ] {
        declared.target = Target {
            python: 13,
            platform: platform.parse().expect("a platform"),
            libc,
        };
        let lock = declared.lock(&machine).await.expect("a lock");
        let filename = &lock.wheels[0].filename;
        assert!(
            filename.contains("cp313-cp313-") && tags.iter().all(|tag| filename.contains(tag)),
            "{filename}"
        );
    }
}

#[tokio::test]
async fn an_index_that_is_not_there_is_not_the_persons_fault() {
    let mut machine = Machine::new().await;
    machine
        .host
        .variables
        .insert("UV_HTTP_RETRIES".to_owned(), "0".to_owned());
    machine.host.variables.insert(
        "PIP_INDEX_URL".to_owned(),
        "http://me:secret@127.0.0.1:1/simple".to_owned(),
    );
    let error = Declared::packages(&["six"])
        .lock(&machine)
        .await
        .expect_err("no index");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(
        Declared::packages(&[])
            .lock(&machine)
            .await
            .expect("nothing")
            .wheels,
        []
    );
}
