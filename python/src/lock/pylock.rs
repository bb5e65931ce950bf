//! `pylock.toml` (PEP 751), as uv writes it.

use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use serde::Deserialize;

use super::{Lock, LockedWheel, Target};

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
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// The best wheel of every package. `allowed` says whether a lock of the person's own has the wheel's digest.
pub(super) fn choose(
    text: &str,
    target: &Target,
    allowed: &dyn Fn(&str, &Digest) -> bool,
) -> Result<Lock, BuildError> {
    let pylock: Pylock = toml::from_str(text).map_err(|error| {
        BuildError::failed("uv wrote a lock that cannot be read").caused_by(&error)
    })?;
    let mut wheels = pylock
        .packages
        .into_iter()
        .map(|package| wheel(package, target, allowed))
        .collect::<Result<Vec<_>, _>>()?;
    wheels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Lock { wheels })
}

fn wheel(
    package: Package,
    target: &Target,
    allowed: &dyn Fn(&str, &Digest) -> bool,
) -> Result<LockedWheel, BuildError> {
    let Package {
        name,
        version,
        wheels,
    } = package;
    let version = version.unwrap_or_default();
    let candidates = wheels.into_iter().filter_map(|wheel| {
        let location = wheel.url.or(wheel.path)?;
        let filename = wheel.name.unwrap_or_else(|| {
            let plain = location.split(['?', '#']).next().unwrap_or(&location);
            plain
                .rsplit('/')
                .next()
                .unwrap_or(plain)
                .replace("%2B", "+")
        });
        let digest: Digest = format!("sha256:{}", wheel.hashes.sha256?).parse().ok()?;
        Some((
            target.rank(&filename)?,
            filename,
            location,
            digest,
            wheel.size,
        ))
    });
    let best = candidates
        .filter(|(_, _, _, digest, _)| allowed(&name, digest))
        .max();
    let Some((_, filename, location, digest, size)) = best else {
        let message = format!(
            "no wheel fits Python 3.{} on {}: `{name}=={version}`",
            target.python,
            target.uv_platform()
        );
        return Err(BuildError::input(message)
            .field("requirements")
            .hint("source distributions are not built in this version: choose a version of the package that has a wheel"));
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
        let best = choose(&text, &target, &|_, _| true).expect("a lock");
        assert_eq!(best.wheels[0].digest.hex(), hash('b'));
        let only = choose(&text, &target, &|_, digest| digest.hex() == hash('a')).expect("a lock");
        assert_eq!(
            (only.wheels[0].filename.as_str(), only.wheels[0].size),
            ("b-1-py3-none-any.whl", Some(3))
        );
        let error = choose(&text, &target, &|_, _| false).expect_err("nothing");
        assert!(error.message.contains("b==1"));
    }
}
