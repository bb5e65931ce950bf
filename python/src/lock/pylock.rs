//! `pylock.toml` (PEP 751), as uv writes it.

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use serde::Deserialize;

use super::hashes::Hashes;
use super::{Lock, LockedWheel, Target};
use crate::index::percent_decoded;

#[derive(Deserialize)]
struct Pylock {
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    #[serde(default)]
    wheels: Vec<Wheel>,
}

#[derive(Deserialize)]
struct Wheel {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    hashes: Known,
}

#[derive(Deserialize)]
struct Known {
    sha256: Option<String>,
}

/// The best wheel of every package, among those that the person's own hashes allow.
pub(super) fn choose(text: &str, target: &Target, hashes: &Hashes) -> Result<Lock, BuildError> {
    let pylock: Pylock = toml::from_str(text).map_err(|error| {
        BuildError::failed("uv wrote a lock that cannot be read").caused_by(&error)
    })?;
    let mut wheels = pylock
        .packages
        .into_iter()
        .map(|package| wheel(package, target, hashes))
        .collect::<Result<Vec<_>, _>>()?;
    wheels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Lock { wheels })
}

fn wheel(package: Package, target: &Target, hashes: &Hashes) -> Result<LockedWheel, BuildError> {
    let Package {
        name,
        version,
        wheels,
    } = package;
    let version = version.unwrap_or_default();
    let mut fitting: Vec<_> = wheels
        .into_iter()
        .filter_map(|wheel| {
            let location = wheel.url.or(wheel.path)?;
            let filename = wheel.name.unwrap_or_else(|| last_component(&location));
            Some((
                target.rank(&filename)?,
                filename,
                location,
                wheel.hashes.sha256,
                wheel.size,
            ))
        })
        .collect();
    let title = format!("{name}=={version}");
    if fitting.is_empty() {
        let message = format!(
            "no wheel fits Python 3.{} on {}: `{title}`",
            target.python,
            target.uv_platform()
        );
        return Err(BuildError::input(message).field("requirements").hint(
            "source distributions are not built in this version: choose a version of the package that has a wheel",
        ));
    }
    fitting.sort_by_key(|(rank, ..)| *rank);
    let digest = |hex: &Option<String>| format!("sha256:{}", hex.as_ref()?).parse::<Digest>().ok();
    let mut known: Vec<_> = fitting
        .into_iter()
        .filter_map(|(_, filename, location, hex, size)| {
            Some((filename, location, digest(&hex)?, size))
        })
        .collect();
    if known.is_empty() {
        let message = format!("the package index gives no SHA-256 of `{title}`");
        return Err(BuildError::failed(message).field("requirements"));
    }
    known.retain(|(_, _, digest, _)| hashes.allow(&name, digest));
    let Some((filename, location, digest, size)) = known.pop() else {
        let message = format!("no wheel has a hash that the requirements allow: `{title}`");
        return Err(BuildError::input(message).field("requirements").hint(
            "if its files were published anew on purpose, write the new hashes or lock again",
        ));
    };
    Ok(LockedWheel {
        name,
        version,
        filename,
        location,
        digest,
        size,
    })
}

/// The name of the file that a URL or a path leads to.
fn last_component(location: &str) -> String {
    let plain = location.split(['?', '#']).next().unwrap_or(location);
    percent_decoded(plain.rsplit('/').next().unwrap_or(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagespec_core::platform::Platform;

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
            glibc: (2, 36),
        };
        let best = choose(&text, &target, &Hashes::default()).expect("a lock");
        assert_eq!(best.wheels[0].digest.hex(), hash('b'));
        let pinned = |c| Hashes::of_lock(&format!("b==1 --hash=sha256:{}", hash(c)));
        let only = choose(&text, &target, &pinned('a')).expect("a lock");
        assert_eq!(
            (only.wheels[0].filename.as_str(), only.wheels[0].size),
            ("b-1-py3-none-any.whl", Some(3))
        );
        let error = choose(&text, &target, &pinned('c')).expect_err("nothing");
        assert_eq!(
            error.message,
            "no wheel has a hash that the requirements allow: `b==1`"
        );
        let old = Target {
            python: 2,
            platform: "linux/s390x".parse().expect("a platform"),
            glibc: (2, 36),
        };
        let none = text.replace("none-any", "none-win32");
        let error = choose(&none, &old, &Hashes::default()).expect_err("nothing");
        assert!(
            error.message.starts_with("no wheel fits Python 3.2"),
            "{}",
            error.message
        );
        let hostile = text
            .replace("b-1-py3", "..%2Fb-1-py3")
            .replace("b-1-cp311", "..%2Fb-1-cp311");
        assert!(choose(&hostile, &target, &Hashes::default()).is_err());
    }
}
