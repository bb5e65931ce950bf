//! `pylock.toml` (PEP 751), as uv writes it.

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use serde::Deserialize;

use super::hashes::Hashes;
use super::links::Checkouts;
use super::provided::{Provided, is_provided};
use super::{Lock, LockedSource, LockedWheel, Origin, Target, specifier};
use crate::git::inside;
use crate::index::{percent_decoded, redacted};

/// How archives of source distributions end.
const ARCHIVES: [&str; 8] = [
    ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar",
];

#[derive(Deserialize)]
struct Pylock {
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    /// Where the package belongs to the environment: a lock for several says so.
    marker: Option<String>,
    #[serde(default)]
    wheels: Vec<File>,
    sdist: Option<File>,
    /// The file that a requirement names by its URL: `name @ https://…`.
    archive: Option<File>,
    vcs: Option<Vcs>,
    directory: Option<Directory>,
}

#[derive(Deserialize, Clone)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    subdirectory: Option<String>,
    hashes: Known,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Vcs {
    r#type: String,
    url: Option<String>,
    commit_id: String,
    subdirectory: Option<String>,
}

#[derive(Deserialize)]
struct Directory {
    path: String,
    subdirectory: Option<String>,
}

#[derive(Deserialize, Clone)]
struct Known {
    sha256: Option<String>,
}

impl File {
    /// Its name, as the index has it where the location ends with it: uv may write another spelling.
    fn filename(&self) -> Option<String> {
        let location = self.url.as_ref().or(self.path.as_ref())?;
        let last = last_component(location);
        let mut endings = ARCHIVES.iter().chain(&[".whl"]);
        let is_file = endings.any(|ending| last.ends_with(ending));
        let named = self.name.clone().filter(|_| !is_file);
        Some(named.unwrap_or(last))
    }

    fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.hashes.sha256.as_ref()?)
            .parse()
            .ok()
    }

    /// It, pinned, as a file of a package.
    fn pinned(self, name: &str, version: &str) -> Option<LockedWheel> {
        Some(LockedWheel {
            name: name.to_owned(),
            version: version.to_owned(),
            filename: self.filename()?,
            digest: self.digest()?,
            size: self.size,
            location: redacted(&self.url.or(self.path)?),
        })
    }
}

/// What a `pylock.toml` pins for a target, as it is: without hashes of the person's own and without checkouts.
pub fn read(text: &str, target: &Target) -> Result<Lock, BuildError> {
    choose(text, target, &Hashes::default(), &Checkouts::default(), &[])
}

/// The best wheel of every package, among those that the person's own hashes allow; its source where it has none.
pub(super) fn choose(
    text: &str,
    target: &Target,
    hashes: &Hashes,
    checkouts: &Checkouts,
    provided: &[Provided],
) -> Result<Lock, BuildError> {
    let pylock: Pylock = toml::from_str(text).map_err(|error| {
        BuildError::failed("uv wrote a lock that cannot be read").caused_by(&error)
    })?;
    let mut lock = Lock::default();
    let environment = target.markers();
    for package in pylock.packages {
        let marker = package.marker.as_deref().map(specifier::marker);
        let marker = marker.transpose().map_err(|problem| {
            let message = format!("the marker of `{}` cannot be read", package.name);
            BuildError::failed(message).caused_by(&std::io::Error::other(problem))
        })?;
        if marker.is_some_and(|marker| !marker.evaluate(&environment, &[])) {
            continue;
        }
        if is_provided(provided, &package.name, package.version.as_deref()) {
            continue;
        }
        match wheel(&package, target, hashes) {
            Ok(wheel) => lock.wheels.push(wheel),
            Err(error) => {
                let source = source(package, hashes, checkouts)?;
                lock.sources.push(source.ok_or(error)?);
            }
        }
    }
    lock.wheels.sort_by(|a, b| a.name.cmp(&b.name));
    lock.sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(lock)
}

fn wheel(package: &Package, target: &Target, hashes: &Hashes) -> Result<LockedWheel, BuildError> {
    let name = &package.name;
    let named = package.archive.as_ref().and_then(File::filename);
    let version = package
        .version
        .clone()
        .or_else(|| Some(named?.split('-').nth(1)?.to_owned()));
    let version = version.unwrap_or_default();
    let mut fitting: Vec<_> = package
        .wheels
        .iter()
        .chain(&package.archive)
        .filter_map(|file| Some((target.rank(&file.filename()?)?, file.clone())))
        .collect();
    let title = format!("{name}=={version}");
    if fitting.is_empty() {
        let message = format!(
            "no wheel fits Python 3.{} on {}: `{title}`",
            target.python,
            target.uv_platform()
        );
        return Err(BuildError::input(message).field("requirements").hint(
            "it has no source distribution either: choose a version of the package that has a wheel",
        ));
    }
    fitting.sort_by_key(|(rank, ..)| *rank);
    let mut known: Vec<_> = fitting
        .into_iter()
        .filter_map(|(_, file)| file.pinned(name, &version))
        .collect();
    if known.is_empty() {
        let message = format!("the package index gives no SHA-256 of `{title}`");
        return Err(BuildError::failed(message).field("requirements"));
    }
    known.retain(|file| hashes.allow(name, &file.digest));
    known.pop().ok_or_else(|| {
        let message = format!("no wheel has a hash that the requirements allow: `{title}`");
        BuildError::input(message)
            .field("requirements")
            .hint("if its files were published anew on purpose, write the new hashes or lock again")
    })
}

/// What a package is built from, if it can be.
fn source(
    package: Package,
    hashes: &Hashes,
    checkouts: &Checkouts,
) -> Result<Option<LockedSource>, BuildError> {
    let Package {
        name,
        version,
        sdist,
        archive,
        vcs,
        directory,
        ..
    } = package;
    let is_archive = |file: &File| {
        let name = file.filename().unwrap_or_default();
        inside(&name)
            && !name.contains('/')
            && ARCHIVES
                .iter()
                .any(|ending| name.to_lowercase().ends_with(ending))
    };
    let mut subdirectory = None;
    let origin = if let Some(file) = sdist.or(archive).filter(is_archive) {
        subdirectory.clone_from(&file.subdirectory);
        let file = file.pinned(&name, version.as_deref().unwrap_or_default());
        let allowed = file.filter(|file| hashes.allow(&name, &file.digest));
        allowed.map(Origin::Archive)
    } else if let Some((made, inner)) = directory
        .as_ref()
        .and_then(|directory| checkouts.find(&directory.path))
    {
        subdirectory = inner.or_else(|| directory.as_ref()?.subdirectory.clone());
        if !checkouts.is_pinned(made) && !hashes.allow_any(&name) {
            let message = format!("hashes are demanded, and a branch has none: `{name}`");
            let error = BuildError::input(message).field("requirements");
            return Err(error.hint("name the commit by its whole id"));
        }
        Some(Origin::Git {
            url: made.url.clone(),
            commit: made.commit.clone(),
            declared: true,
        })
    } else if let Some(Vcs {
        url: Some(url),
        commit_id: commit,
        subdirectory: inner,
        ..
    }) = vcs.filter(|vcs| vcs.r#type == "git")
    {
        subdirectory = inner;
        Some(Origin::Git {
            url: redacted(&url),
            commit,
            declared: false,
        })
    } else {
        None
    };
    if subdirectory
        .as_deref()
        .is_some_and(|folder| !inside(folder))
    {
        let message = format!("the folder of a project is outside its archive: `{name}`");
        return Err(BuildError::input(message).field("requirements"));
    }
    Ok(origin.map(|origin| LockedSource {
        name,
        version,
        origin,
        subdirectory,
    }))
}

/// The name of the file that a URL or a path leads to.
fn last_component(location: &str) -> String {
    let plain = location.split(['?', '#']).next().unwrap_or(location);
    percent_decoded(plain.rsplit('/').next().unwrap_or(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Libc;
    use imagespec_core::platform::Platform;

    #[test]
    fn what_is_nested_without_end_is_refused() {
        for opens in ["{", "[", "[{", "{a=", "{a=[", "{[", "{{a=", "\n{"] {
            let text = format!("a={}", opens.repeat(20_000));
            let lock: Result<Pylock, _> = toml::from_str(&text);
            assert!(lock.is_err(), "{opens}");
        }
    }

    #[test]
    fn the_best_allowed_wheel_is_chosen_or_the_package_named() {
        let hash = |c: char| c.to_string().repeat(64);
        let text = format!(
            "lock-version = \"1.0\"\n[[packages]]\nname = \"b\"\nversion = \"1\"\nwheels = [{{ url = \"https://x.example/b-1-py3-none-any.whl#frag\", upload-time = 2026-01-01T00:00:00Z, size = 3, hashes = {{ sha256 = \"{}\" }} }}, {{ path = \"b-1-cp311-cp311-manylinux2014_x86_64.whl\", hashes = {{ sha256 = \"{}\" }} }}]\n",
            hash('a'),
            hash('b')
        );
        let target = Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Glibc(2, 36),
        };
        let none = Checkouts::default();
        let best = choose(&text, &target, &Hashes::default(), &none, &[]).expect("a lock");
        assert_eq!(best.wheels[0].digest.hex(), hash('b'));
        let pinned = |c| Hashes::of_lock(&format!("b==1 --hash=sha256:{}", hash(c)));
        let only = choose(&text, &target, &pinned('a'), &none, &[]).expect("a lock");
        assert_eq!(
            (only.wheels[0].filename.as_str(), only.wheels[0].size),
            ("b-1-py3-none-any.whl", Some(3))
        );
        let error = choose(&text, &target, &pinned('c'), &none, &[]).expect_err("nothing");
        assert_eq!(
            error.message,
            "no wheel has a hash that the requirements allow: `b==1`"
        );
        let old = Target {
            python: 2,
            platform: "linux/s390x".parse().expect("a platform"),
            libc: Libc::Glibc(2, 36),
        };
        let unfit = text.replace("none-any", "none-win32");
        let error = choose(&unfit, &old, &Hashes::default(), &none, &[]).expect_err("nothing");
        assert!(
            error.message.starts_with("no wheel fits Python 3.2"),
            "{}",
            error.message
        );
        let hostile = text
            .replace("b-1-py3", "..%2Fb-1-py3")
            .replace("b-1-cp311", "..%2Fb-1-cp311");
        assert!(choose(&hostile, &target, &Hashes::default(), &none, &[]).is_err());
    }

    #[test]
    fn what_has_no_wheel_is_built_from_an_archive_that_the_hashes_allow() {
        let hash = |c: char| c.to_string().repeat(64);
        let text = format!(
            "[[packages]]\nname = \"b\"\nversion = \"1\"\nsdist = {{ url = \"https://x.example/b-1.tar.gz\", hashes = {{ sha256 = \"{}\" }} }}\n\
             [[packages]]\nname = \"a\"\nvcs = {{ type = \"git\", url = \"https://x.example/a\", commit-id = \"{}\", subdirectory = \"s\" }}\n",
            hash('a'),
            hash('b')
        );
        let target = Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Glibc(2, 36),
        };
        let none = Checkouts::default();
        let lock = choose(&text, &target, &Hashes::default(), &none, &[]).expect("a lock");
        let titles: Vec<_> = lock.sources.iter().map(LockedSource::title).collect();
        assert_eq!(titles, ["a", "b==1"]);
        assert_eq!(lock.sources[0].subdirectory.as_deref(), Some("s"));
        let pinned = Hashes::of_lock(&format!("b==1 --hash=sha256:{}", hash('c')));
        assert!(choose(&text, &target, &pinned, &none, &[]).is_err());
        for (from, to) in [
            ("\"s\"", "\"../s\""),
            ("b-1.tar.gz", "..%2Fb-1.tar.gz"),
            ("b-1.tar.gz", "b-1%00.tar.gz"),
            ("b-1.tar.gz", "b-1.rpm"),
        ] {
            let hostile = text.replace(from, to);
            choose(&hostile, &target, &Hashes::default(), &none, &[]).expect_err(to);
        }
    }
}
