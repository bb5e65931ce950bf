//! Release files: what a pocket of a suite is, and which indexes it has.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imagespec_core::digest::Digest;

use crate::deb822;

/// The largest release file that is read, in bytes.
pub(crate) const LIMIT: u64 = 16 << 20;

/// A release file whose signature was checked.
#[derive(Debug, Clone)]
pub struct Release {
    /// `Origin`.
    pub origin: String,
    /// `Suite`: `stable`.
    pub suite: String,
    /// `Codename`: `bookworm`.
    pub codename: String,
    /// Digest of the signed text.
    pub digest: Digest,
    valid_until: Option<String>,
    files: BTreeMap<String, (Digest, u64)>,
}

impl Release {
    /// Reads the text of a release file. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let paragraphs = deb822::parse(text).map_err(|error| error.to_string())?;
        let [paragraph] = paragraphs.as_slice() else {
            return Err("it is not one paragraph".to_owned());
        };
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let mut files = BTreeMap::new();
        for line in field("SHA256")
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let mut words = line.split_whitespace();
            let (Some(digest), Some(size), Some(name)) = (words.next(), words.next(), words.next())
            else {
                return Err("its list of files is damaged".to_owned());
            };
            let digest = format!("sha256:{digest}").parse();
            let (Ok(digest), Ok(size)) = (digest, size.parse()) else {
                return Err("its list of files is damaged".to_owned());
            };
            files.insert(name.to_owned(), (digest, size));
        }
        Ok(Self {
            origin: field("Origin"),
            suite: field("Suite"),
            codename: field("Codename"),
            digest: Digest::of(text),
            valid_until: paragraph.get("Valid-Until").map(ToOwned::to_owned),
            files,
        })
    }

    /// Checks that this is the wanted suite of the wanted origin, and still valid at `now` (`None`: the
    /// machine's apt does not ask).
    pub fn check(&self, origin: &str, suite: &str, now: Option<SystemTime>) -> Result<(), String> {
        if self.origin != origin {
            return Err(format!("its origin is not `{origin}`: `{}`", self.origin));
        }
        if self.codename != suite && self.suite != suite {
            return Err(format!("it is of another suite: `{}`", self.codename));
        }
        let (Some(now), Some(valid_until)) = (now, &self.valid_until) else {
            return Ok(());
        };
        let until =
            date(valid_until).ok_or_else(|| format!("its date is damaged: `{valid_until}`"))?;
        if until < now {
            return Err(format!("it was valid until {valid_until}"));
        }
        Ok(())
    }

    /// The `Packages` index of `main` for an architecture, in the best compression there is: name below the
    /// suite, digest, bytes.
    pub fn packages(&self, architecture: &str) -> Option<(String, Digest, u64)> {
        ["xz", "gz"].iter().find_map(|compression| {
            let name = format!("main/binary-{architecture}/Packages.{compression}");
            self.files
                .get(&name)
                .map(|(digest, size)| (name.clone(), *digest, *size))
        })
    }
}

/// A date as release files have it: `Sat, 28 Nov 2026 00:53:02 UTC`.
fn date(text: &str) -> Option<SystemTime> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words.as_slice() else {
        return None;
    };
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = (months.find(month).filter(|_| month.len() == 3)? / 3 + 1) as u64;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let mut clock = time
        .split(':')
        .map(|part| part.parse::<u64>().ok().filter(|part| *part < 61));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Howard Hinnant's days_from_civil, for dates after 1970.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    UNIX_EPOCH.checked_add(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(extra: &str) -> Release {
        let zeros = "0".repeat(64);
        let text = format!(
            "Origin: Debian\nSuite: stable\nCodename: trixie\n{extra}SHA256:\n {zeros} 12 main/binary-amd64/Packages.xz\n"
        );
        Release::parse(&text).expect("a release")
    }

    #[test]
    fn a_release_of_another_origin_or_suite_or_time_is_refused() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let fresh = release("Valid-Until: Sun, 09 Sep 2001 01:46:41 UTC\n");
        let stale = release("Valid-Until: Sun, 09 Sep 2001 01:46:39 UTC\n");
        assert_eq!(fresh.check("Debian", "trixie", Some(now)), Ok(()));
        assert_eq!(fresh.check("Debian", "stable", Some(now)), Ok(()));
        assert!(stale.check("Debian", "trixie", Some(now)).is_err());
        assert_eq!(stale.check("Debian", "trixie", None), Ok(()));
        assert!(fresh.check("Debian", "bookworm", Some(now)).is_err());
        assert!(fresh.check("Ubuntu", "trixie", Some(now)).is_err());
        let damaged = release("Valid-Until: tomorrow\n");
        assert!(damaged.check("Debian", "trixie", Some(now)).is_err());
    }

    #[test]
    fn indexes_are_found_by_architecture() {
        let release = release("");
        assert_eq!(release.packages("amd64").map(|(_, _, size)| size), Some(12));
        assert_eq!(release.packages("arm64"), None);
        assert!(Release::parse("SHA256:\n 00 1 x\n").is_err());
    }

    #[test]
    fn leap_days_count() {
        let seconds = |text| {
            date(text)
                .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
                .map(|d| d.as_secs())
        };
        assert_eq!(
            seconds("Thu, 29 Feb 2024 00:00:00 UTC"),
            Some(1_709_164_800)
        );
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:01 UTC"), Some(1));
        assert_eq!(seconds("Thu, 01 Foo 1970 00:00:01 UTC"), None);
    }
}
