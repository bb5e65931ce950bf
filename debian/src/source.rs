//! One source of packages, and how it is written: sources.list(5), in both formats.

use std::path::PathBuf;

use url::Url;

use crate::deb822;
use crate::error::DebianError;
use crate::keyring::Fingerprint;
use crate::package::Pocket;
use crate::settings::flag;

/// The keys a source names (`Signed-By`). Nothing named means the machine's trusted keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedBy {
    /// Keyring files; without any, and without an armored key, the machine's trusted keys.
    pub files: Vec<PathBuf>,
    /// The only keys of those that count; all, if there is none.
    pub fingerprints: Vec<Fingerprint>,
    /// An armored key in the source itself.
    pub armored: Option<String>,
}

impl SignedBy {
    /// The keyring of a file.
    pub fn file(path: PathBuf) -> Self {
        Self {
            files: vec![path],
            ..Self::default()
        }
    }

    /// Reads the value of the option; the error is the part that is neither a path nor a fingerprint.
    fn parse(value: &str) -> Result<Self, String> {
        let mut read = Self::default();
        if value.contains("-----BEGIN") {
            let line = |line: &str| match line.trim() {
                "." => "\n".to_owned(),
                line => format!("{line}\n"),
            };
            read.armored = Some(value.trim_start().lines().map(line).collect());
            return Ok(read);
        }
        let words = value.split(|c: char| c == ',' || c.is_whitespace());
        for word in words.filter(|word| !word.is_empty()) {
            if word.starts_with('/') {
                read.files.push(PathBuf::from(word));
            } else {
                let fingerprint = word.parse().map_err(|()| word.to_owned())?;
                read.fingerprints.push(fingerprint);
            }
        }
        Ok(read)
    }
}

/// One address that a machine gets packages from, and the suites it names there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Root of the archive.
    pub url: Url,
    /// Suites, as written.
    pub suites: Vec<String>,
    /// Keys.
    pub signed_by: SignedBy,
    /// Where it is written: a file, or the option that stands in for one.
    pub origin: String,
    /// Whether what it names has to be there.
    pub listed: bool,
    /// `Check-Valid-Until`, where the source itself says so.
    pub check_valid_until: Option<bool>,
    /// `Check-Date`, where the source itself says so.
    pub check_date: Option<bool>,
}

impl Source {
    /// A source with nothing but an address and suites.
    pub(crate) fn new(url: Url, suites: Vec<String>, origin: impl Into<String>) -> Self {
        Self {
            url,
            suites,
            signed_by: SignedBy::default(),
            origin: origin.into(),
            listed: true,
            check_valid_until: None,
            check_date: None,
        }
    }

    /// Whether it names a pocket, of whichever suite.
    pub(crate) fn has(&self, pocket: Pocket) -> bool {
        self.suites.iter().any(|suite| pocket_of(suite) == pocket)
    }

    /// Keeps the security updates alone; nothing, if it has none.
    pub(crate) fn security_only(mut self) -> Option<Self> {
        self.suites
            .retain(|suite| pocket_of(suite) == Pocket::Security);
        (!self.suites.is_empty()).then_some(self)
    }
}

fn pocket_of(suite: &str) -> Pocket {
    if suite.ends_with("-security") || suite.ends_with("/updates") {
        Pocket::Security
    } else if suite.ends_with("-updates") {
        Pocket::Updates
    } else {
        Pocket::Release
    }
}

/// The address of an archive on the web, with a slash at its end; nothing for other schemes.
pub(crate) fn web(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

/// The sources of a file in the format of one line each.
pub(crate) fn lines(origin: &str, text: &str) -> Result<Vec<Source>, DebianError> {
    let sources = text.lines().filter_map(|line| one_line(origin, line));
    sources.collect()
}

/// `deb [options] url suite components…`; anything else is no source of packages.
fn one_line(origin: &str, line: &str) -> Option<Result<Source, DebianError>> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?;
    let (options, rest) = match rest.trim_start().strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (url, suite) = (web(words.next()?)?, words.next()?);
    words.find(|component| *component == "main")?;
    let option = |wanted: &str| {
        let options = options.split_whitespace();
        let mut named = options.filter_map(|option| option.split_once('='));
        named
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.to_owned())
    };
    Some(with_options(
        Source::new(url, vec![suite.to_owned()], origin),
        &option,
    ))
}

/// The sources of a file in the format of paragraphs.
pub(crate) fn paragraphs(origin: &str, text: &str) -> Result<Vec<Source>, DebianError> {
    let paragraphs = deb822::parse(text).map_err(|error| DebianError::Sources {
        path: origin.to_owned(),
        problem: error.to_string(),
    })?;
    let mut sources = Vec::new();
    for paragraph in paragraphs {
        let words = |name: &str| -> Vec<String> {
            let value = paragraph.get(name).unwrap_or_default();
            value.split_whitespace().map(ToOwned::to_owned).collect()
        };
        let has = |name: &str, word: &str| words(name).iter().any(|other| other == word);
        let disabled = paragraph.get("Enabled").and_then(flag) == Some(false);
        if disabled || !has("Types", "deb") || !has("Components", "main") {
            continue;
        }
        let option = |name: &str| paragraph.get(name).map(ToOwned::to_owned);
        for url in words("URIs").iter().filter_map(|url| web(url)) {
            let source = Source::new(url, words("Suites"), origin);
            sources.push(with_options(source, &option)?);
        }
    }
    Ok(sources)
}

/// Reads what a source says of its trust.
fn with_options(
    mut source: Source,
    option: &dyn Fn(&str) -> Option<String>,
) -> Result<Source, DebianError> {
    if let Some(value) = option("Signed-By") {
        source.signed_by = SignedBy::parse(&value).map_err(|word| DebianError::Sources {
            path: source.origin.clone(),
            problem: format!("`Signed-By` names neither a file nor a fingerprint: `{word}`"),
        })?;
    }
    source.check_valid_until = option("Check-Valid-Until").as_deref().and_then(flag);
    source.check_date = option("Check-Date").as_deref().and_then(flag);
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_file_by_fingerprint_or_in_place() {
        let fingerprint = "0123456789abcdef0123456789ABCDEF01234567";
        let read = SignedBy::parse(&format!("/a.gpg, /b.asc {fingerprint}!")).expect("keys");
        assert_eq!(read.files, [PathBuf::from("/a.gpg"), "/b.asc".into()]);
        let shown: Vec<_> = read.fingerprints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [format!("{}!", fingerprint.to_uppercase())]);
        let armored =
            SignedBy::parse("\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n.\nabc").expect("key");
        assert_eq!(
            armored.armored.as_deref(),
            Some("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n")
        );
        for wrong in ["89ABCDEF", "keys.gpg", "/a.gpg,0123456789ABCDEF"] {
            let word = wrong.rsplit(',').next().map(ToOwned::to_owned);
            assert_eq!(SignedBy::parse(wrong).err(), word);
        }
    }

    #[test]
    fn a_source_may_say_what_is_checked() {
        let line = "deb [check-valid-until=no signed-by=/k.gpg] http://a.example/x bookworm main";
        let read = lines("f", line).expect("sources");
        assert_eq!(read[0].check_valid_until, Some(false));
        assert_eq!(read[0].check_date, None);
        let text = "Types: deb\nURIs: http://b.example\nSuites: a b-security\nComponents: main\nCheck-Date: no\n";
        let read = paragraphs("f", text).expect("sources");
        assert_eq!(read[0].check_date, Some(false));
        let security = read[0].clone().security_only().expect("one suite");
        assert_eq!(security.suites, ["b-security"]);
        let wrong = "deb [signed-by=x] http://a.example/x bookworm main";
        let error = lines("f", wrong).expect_err("no key").to_string();
        assert!(
            error.ends_with("neither a file nor a fingerprint: `x`"),
            "{error}"
        );
    }
}
