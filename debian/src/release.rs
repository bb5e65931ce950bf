//! Release files: what a pocket of a suite is, and which indexes it has.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imagespec_core::digest::Digest;

use crate::deb822;

/// The largest release file that is read, in bytes.
pub(crate) const LIMIT: u64 = 16 << 20;

/// How far the clocks of this machine and the archive may differ.
const CLOCK: Duration = Duration::from_secs(10);

/// Why a release file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no signature.
    #[error("it is not signed")]
    Unsigned,
    /// There are signatures, but none whose hash says anything.
    #[error("it has no usable signature")]
    Weak,
    /// Keys signed it that are not trusted for its source.
    #[error("no trusted key signed it; it names the keys {issuers}")]
    Untrusted {
        /// Their ids.
        issuers: String,
    },
    /// It is of another distribution.
    #[error("its origin is not `{expected}`: `{found}`")]
    Origin {
        /// The origin it should have.
        expected: String,
        /// The origin it has.
        found: String,
    },
    /// It is of another suite.
    #[error("it is of another suite: `{0}`")]
    Suite(String),
    /// Its time is over.
    #[error("it was valid until {0}")]
    Expired(String),
    /// Its time has not come.
    #[error("it is dated in the future: {0}")]
    Future(String),
    /// It is older than what the same source had before.
    #[error("it is older than what this source had before: {0}")]
    Older(String),
    /// It cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl Problem {
    /// Damage of some sort.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

/// What is asked of a release beside its signature.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The `Origin`.
    pub origin: &'a str,
    /// The suite or code name.
    pub suite: &'a str,
    /// The time that it must not be past (`None`: the machine's apt does not ask).
    pub valid_at: Option<SystemTime>,
    /// The time that it must not be of the future of (`None`: the machine's apt does not ask).
    pub dated_before: Option<SystemTime>,
}

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
    date: Option<String>,
    valid_until: Option<String>,
    files: BTreeMap<String, (Digest, u64)>,
}

impl Release {
    /// Reads the text of a release file. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let paragraphs =
            deb822::parse(text).map_err(|error| Problem::damaged(error.to_string()))?;
        let [paragraph] = paragraphs.as_slice() else {
            return Err(Problem::damaged("it is not one paragraph"));
        };
        let damaged = || Problem::damaged("its list of files is damaged");
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let mut files = BTreeMap::new();
        for line in field("SHA256")
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            let mut words = line.split_whitespace();
            let (Some(digest), Some(size), Some(name)) = (words.next(), words.next(), words.next())
            else {
                return Err(damaged());
            };
            let digest = format!("sha256:{digest}").parse();
            let (Ok(digest), Ok(size)) = (digest, size.parse()) else {
                return Err(damaged());
            };
            files.insert(name.to_owned(), (digest, size));
        }
        Ok(Self {
            origin: field("Origin"),
            suite: field("Suite"),
            codename: field("Codename"),
            digest: Digest::of(text),
            date: paragraph.get("Date").map(ToOwned::to_owned),
            valid_until: paragraph.get("Valid-Until").map(ToOwned::to_owned),
            files,
        })
    }

    /// Checks that this is the wanted suite of the wanted origin, and of its time.
    pub fn check(&self, wanted: Wanted<'_>) -> Result<(), Problem> {
        if self.origin != wanted.origin {
            return Err(Problem::Origin {
                expected: wanted.origin.to_owned(),
                found: self.origin.clone(),
            });
        }
        if self.codename != wanted.suite && self.suite != wanted.suite {
            return Err(Problem::Suite(self.codename.clone()));
        }
        if let (Some(now), Some(made)) = (wanted.dated_before, &self.date)
            && read_date(made)? > now + CLOCK
        {
            return Err(Problem::Future(made.clone()));
        }
        if let (Some(now), Some(until)) = (wanted.valid_at, &self.valid_until)
            && read_date(until)? < now
        {
            return Err(Problem::Expired(until.clone()));
        }
        Ok(())
    }

    /// Whether it was made before `other`. One without a date is older than any that has one.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let made = |release: &Self| release.date.as_deref().and_then(date);
        made(self) < made(other)
    }

    /// When it was made, as written.
    pub fn date(&self) -> Option<&str> {
        self.date.as_deref()
    }

    /// The `Packages` index of a component for an architecture, in the best compression there is: name below the
    /// suite, digest, bytes.
    pub fn packages(&self, component: &str, architecture: &str) -> Option<(String, Digest, u64)> {
        ["xz", "gz"].iter().find_map(|compression| {
            let name = format!("{component}/binary-{architecture}/Packages.{compression}");
            self.files
                .get(&name)
                .map(|(digest, size)| (name.clone(), *digest, *size))
        })
    }
}

fn read_date(text: &str) -> Result<SystemTime, Problem> {
    date(text).ok_or_else(|| Problem::damaged(format!("its date is damaged: `{text}`")))
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

    fn wanted<'a>(origin: &'a str, suite: &'a str, now: SystemTime) -> Wanted<'a> {
        Wanted {
            origin,
            suite,
            valid_at: Some(now),
            dated_before: Some(now),
        }
    }

    #[test]
    fn a_release_of_another_origin_or_suite_or_time_is_refused() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let trixie = wanted("Debian", "trixie", now);
        let until = "Sun, 09 Sep 2001 01:46:39 UTC";
        let fresh = release("Valid-Until: Sun, 09 Sep 2001 01:46:41 UTC\n");
        let stale = release(&format!("Valid-Until: {until}\n"));
        assert_eq!(fresh.check(trixie), Ok(()));
        assert_eq!(fresh.check(wanted("Debian", "stable", now)), Ok(()));
        assert_eq!(stale.check(trixie), Err(Problem::Expired(until.into())));
        let unasked = Wanted {
            valid_at: None,
            ..trixie
        };
        assert_eq!(stale.check(unasked), Ok(()));
        assert_eq!(
            fresh.check(wanted("Debian", "bookworm", now)),
            Err(Problem::Suite("trixie".into()))
        );
        assert!(fresh.check(wanted("Ubuntu", "trixie", now)).is_err());
        let damaged = release("Valid-Until: tomorrow\n");
        assert!(damaged.check(trixie).is_err());
    }

    #[test]
    fn a_release_of_the_future_is_refused_and_ages_compare() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let soon = release("Date: Sun, 09 Sep 2001 01:46:50 UTC\n");
        let later = release("Date: Sun, 09 Sep 2001 01:46:51 UTC\n");
        let trixie = wanted("Debian", "trixie", now);
        assert_eq!(soon.check(trixie), Ok(()));
        assert!(matches!(later.check(trixie), Err(Problem::Future(_))));
        assert!(soon.is_older_than(&later) && !later.is_older_than(&soon));
        assert!(release("").is_older_than(&soon) && !soon.is_older_than(&soon));
    }

    #[test]
    fn indexes_are_found_by_architecture() {
        let release = release("");
        assert_eq!(
            release.packages("main", "amd64").map(|(_, _, size)| size),
            Some(12)
        );
        assert_eq!(release.packages("main", "arm64"), None);
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
