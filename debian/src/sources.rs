//! Where a machine's apt gets its packages: sources.list(5), in both formats, and the keys trusted for each.

use std::path::{Path, PathBuf};

use url::Url;

use crate::deb822;
use crate::error::DebianError;
use crate::keyring::Keyring;
use crate::package::Pocket;

/// Keys that are trusted for sources that name none.
const DEFAULT_KEYS: &str = "etc/apt/trusted.gpg.d";
/// Keys of the Debian archive itself.
const DEBIAN_KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// The keys a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// None: the machine's trusted keys.
    Default,
    /// Keyring files.
    Files(Vec<PathBuf>),
    /// An armored key in the source itself.
    Inline(String),
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
}

/// What a machine's apt is configured to do.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Its sources, in the order apt reads them.
    pub sources: Vec<Source>,
    /// Whether a release that is no longer valid is refused (`Acquire::Check-Valid-Until`).
    pub check_valid_until: bool,
    root: PathBuf,
}

impl Source {
    /// Whether it is where security updates come from: an archive of its own.
    pub(crate) fn is_security(&self) -> bool {
        self.has(Pocket::Security)
    }

    fn has(&self, pocket: Pocket) -> bool {
        let is = |suite: &str| {
            if suite.ends_with("-security") || suite.ends_with("/updates") {
                Pocket::Security
            } else if suite.ends_with("-updates") {
                Pocket::Updates
            } else {
                Pocket::Release
            }
        };
        self.suites.iter().any(|suite| is(suite) == pocket)
    }
}

impl Sources {
    /// Reads the configuration below `root`, normally `/`. What is not there counts as empty; a source that
    /// cannot be understood is left out, as apt would have complained of it long ago.
    pub fn read(root: &Path) -> Result<Self, DebianError> {
        let apt = root.join("etc/apt");
        let mut sources = Vec::new();
        let mut files = vec![apt.join("sources.list")];
        files.extend(sorted(&apt.join("sources.list.d"))?);
        for path in files.iter().filter(|path| path.is_file()) {
            let text = fs_err::read_to_string(path)?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(text.lines().filter_map(one_line).flatten()),
                Some("sources") => sources.extend(paragraphs(path, &text)?),
                _ => {}
            }
        }
        let mut check_valid_until = true;
        let mut settings = vec![apt.join("apt.conf")];
        settings.extend(sorted(&apt.join("apt.conf.d"))?);
        for path in settings.iter().filter(|path| path.is_file()) {
            for line in fs_err::read_to_string(path)?.lines() {
                if let Some(setting) = valid_until_setting(line) {
                    check_valid_until = setting;
                }
            }
        }
        Ok(Self {
            sources,
            check_valid_until,
            root: root.to_owned(),
        })
    }

    /// Uses `mirror` for everything but security updates, which stay where the machine gets them, and are
    /// also looked for beside the mirror, where mirrors keep them.
    pub(crate) fn replace_mirror(&mut self, mirror: &Url) {
        let trimmed = mirror.as_str().trim_end_matches('/');
        let source = |url: String, suite: &str| {
            Some(Source {
                url: web(&url)?,
                suites: vec![suite.to_owned()],
                signed_by: SignedBy::Default,
            })
        };
        let machine = self.sources.drain(..).filter(Source::is_security);
        self.sources = [
            source(trimmed.to_owned(), "stable"),
            source(trimmed.to_owned(), "stable-updates"),
            source(format!("{trimmed}-security"), "stable-security"),
        ]
        .into_iter()
        .flatten()
        .chain(machine)
        .collect();
    }

    /// The sources where a pocket of a suite may be: those that name it, then those that have the same
    /// pocket of another suite.
    pub(crate) fn for_pocket(&self, suite: &str, pocket: Pocket) -> impl Iterator<Item = &Source> {
        let wanted = pocket.suite(suite);
        let like = self.sources.iter().filter(move |source| source.has(pocket));
        let (mut named, others): (Vec<_>, Vec<_>) =
            like.partition(|source| source.suites.contains(&wanted));
        named.extend(others);
        named.into_iter()
    }

    /// The keys that may sign what comes from `source`.
    pub fn keyring(&self, signed_by: &SignedBy) -> Result<Keyring, DebianError> {
        let mut keyring = Keyring::default();
        match signed_by {
            SignedBy::Inline(armored) => {
                keyring.extend(Keyring::parse(armored.as_bytes()).map_err(|source| {
                    DebianError::Keyring {
                        path: "Signed-By".into(),
                        source: source.into(),
                    }
                })?);
            }
            SignedBy::Files(files) => {
                for file in files {
                    let below = file.strip_prefix("/").unwrap_or(file);
                    keyring.extend(Keyring::open(&self.root.join(below))?);
                }
            }
            SignedBy::Default => {
                for path in sorted(&self.root.join(DEFAULT_KEYS))? {
                    keyring.extend(Keyring::open(&path)?);
                }
                let debian = self.root.join(DEBIAN_KEYRING);
                if debian.is_file() {
                    keyring.extend(Keyring::open(&debian)?);
                }
            }
        }
        Ok(keyring)
    }
}

/// The files of a folder in order; none where it does not exist.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DebianError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn valid_until_setting(line: &str) -> Option<bool> {
    let (name, value) = line.trim().split_once(char::is_whitespace)?;
    if !name.eq_ignore_ascii_case("Acquire::Check-Valid-Until") {
        return None;
    }
    let value = value.trim().trim_end_matches(';').trim_matches('"');
    Some(!["false", "no", "0", "off", "without", "disable"].contains(&value))
}

fn web(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

/// `deb [options] url suite components…`; anything else is no source of packages.
fn one_line(line: &str) -> Option<Vec<Source>> {
    let line = line.split('#').next()?.trim();
    let rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (url, suite) = (web(words.next()?)?, words.next()?);
    let signed_by = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("signed-by"))
        .map_or(SignedBy::Default, |(_, files)| signed_by(files));
    words.any(|component| component == "main").then(|| {
        vec![Source {
            url,
            suites: vec![suite.to_owned()],
            signed_by,
        }]
    })
}

fn signed_by(value: &str) -> SignedBy {
    if value.contains("-----BEGIN") {
        let lines: Vec<&str> = value
            .trim_start()
            .lines()
            .map(|line| {
                if line.trim() == "." {
                    ""
                } else {
                    line.trim_end()
                }
            })
            .collect();
        return SignedBy::Inline(lines.join("\n") + "\n");
    }
    let files = value
        .split([',', ' ', '\n'])
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from);
    // A fingerprint instead of a file restricts the machine's trusted keys; they remain the bound.
    match files.collect::<Vec<_>>() {
        files if files.is_empty() => SignedBy::Default,
        files => SignedBy::Files(files),
    }
}

fn paragraphs(path: &Path, text: &str) -> Result<Vec<Source>, DebianError> {
    let paragraphs = deb822::parse(text).map_err(|error| DebianError::Sources {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    let mut sources = Vec::new();
    for paragraph in paragraphs {
        let words = |name: &str| -> Vec<String> {
            let value = paragraph.get(name).unwrap_or_default();
            value.split_whitespace().map(ToOwned::to_owned).collect()
        };
        let has = |name: &str, word: &str| words(name).iter().any(|other| other == word);
        let disabled = ["no", "false", "0"].iter().any(|no| has("Enabled", no));
        if disabled || !has("Types", "deb") || !has("Components", "main") {
            continue;
        }
        let keys = paragraph
            .get("Signed-By")
            .map_or(SignedBy::Default, signed_by);
        for url in words("URIs").iter().filter_map(|url| web(url)) {
            sources.push(Source {
                url,
                suites: words("Suites"),
                signed_by: keys.clone(),
            });
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let root = tempfile::tempdir().expect("a folder");
        let list = root.path().join("etc/apt/sources.list.d");
        fs_err::create_dir_all(&list).expect("a folder");
        fs_err::write(
            root.path().join("etc/apt/sources.list"),
            "# c\ndeb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main\ndeb-src http://a.example/debian bookworm main\ndeb cdrom:x bookworm main\n",
        )
        .expect("a file");
        fs_err::write(
            list.join("b.sources"),
            "Types: deb deb-src\nURIs: http://b.example/debian/ http://c.example/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\nTypes: deb\nEnabled: no\nURIs: http://d.example\nSuites: x\nComponents: main\n",
        )
        .expect("a file");
        let read = Sources::read(root.path()).expect("sources");
        let urls: Vec<&str> = read
            .sources
            .iter()
            .map(|source| source.url.as_str())
            .collect();
        assert_eq!(
            urls,
            [
                "http://a.example/debian/",
                "http://b.example/debian/",
                "http://c.example/debian/"
            ]
        );
        assert_eq!(
            read.sources[0].signed_by,
            SignedBy::Files(vec!["/k.gpg".into()])
        );
        assert_eq!(
            read.sources[1].signed_by,
            SignedBy::Inline("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n".into())
        );
        assert_eq!(read.sources[1].suites, ["trixie", "trixie-updates"]);
        assert!(read.check_valid_until);
    }

    #[test]
    fn the_machine_may_accept_old_releases() {
        assert_eq!(
            valid_until_setting(r#"Acquire::Check-Valid-Until "false";"#),
            Some(false)
        );
        assert_eq!(
            valid_until_setting(r#"Acquire::Check-Valid-Until "true";"#),
            Some(true)
        );
        assert_eq!(valid_until_setting("# Acquire::Check-Valid-Until"), None);
    }
}
