//! Version constraints as Poetry writes them: `^1.2`, `~1.2`, `1.*`, `>=1,<2 || >=3`, `*`.

use std::str::FromStr as _;

use pep440_rs::{Version, VersionSpecifier, VersionSpecifiers};

/// Whether `version` satisfies `constraint`. A constraint that cannot be read excludes nothing: the lock was
/// made by Poetry, and here it only chooses among the versions that it pins.
pub(super) fn satisfies(version: &str, constraint: &str) -> bool {
    let Ok(version) = Version::from_str(version) else {
        return true;
    };
    constraint.split("||").any(|all| {
        all.split(',').map(str::trim).all(|one| {
            let specifiers = if one.is_empty() || one == "*" {
                Some(VersionSpecifiers::empty())
            } else {
                specifiers(one)
            };
            specifiers.is_none_or(|specifiers| specifiers.contains(&version))
        })
    })
}

fn specifiers(text: &str) -> Option<VersionSpecifiers> {
    if let Some(base) = text.strip_prefix('^') {
        let release = release(base)?;
        let at = release
            .iter()
            .position(|part| *part != 0)
            .unwrap_or(release.len() - 1);
        return range(base, &release, at);
    }
    if let Some(base) = text.strip_prefix('~').filter(|rest| !rest.starts_with('=')) {
        let release = release(base)?;
        return range(base, &release, 1.min(release.len() - 1));
    }
    let exact = text.starts_with(|c: char| c.is_ascii_digit());
    let text = if exact {
        format!("=={text}")
    } else {
        text.to_owned()
    };
    VersionSpecifier::from_str(&text)
        .ok()
        .map(VersionSpecifiers::from)
}

fn release(base: &str) -> Option<Vec<u64>> {
    let version = Version::from_str(base.trim()).ok()?;
    Some(version.release().to_vec())
}

/// From `base` to the release in which the part at `at` is one higher.
fn range(base: &str, release: &[u64], at: usize) -> Option<VersionSpecifiers> {
    let mut end = release[..=at].to_vec();
    end[at] += 1;
    let end: Vec<_> = end.iter().map(u64::to_string).collect();
    VersionSpecifiers::from_str(&format!(">={},<{}", base.trim(), end.join("."))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_mean_what_poetry_means() {
        for (constraint, fits, unfit) in [
            ("^1.2", "1.9", "2.0"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("^0", "0.9", "1.0"),
            ("~1.2", "1.2.9", "1.3"),
            ("~1", "1.9", "2.0"),
            ("~=1.2", "1.9", "2.0"),
            ("1.*", "1.9", "2.0"),
            ("1.2", "1.2.0", "1.3"),
            (">=1,<2 || >=3", "3.1", "2.5"),
            (">=1, <2", "1.1", "2"),
        ] {
            assert!(satisfies(fits, constraint), "{constraint} {fits}");
            assert!(!satisfies(unfit, constraint), "{constraint} {unfit}");
        }
        assert!(satisfies("1", "*") && satisfies("1", "") && satisfies("1", "???"));
    }
}
