//! Where a machine's apt gets its packages, and the keys it trusts for each.

use std::path::{Path, PathBuf};

use url::Url;

use crate::archive::UBUNTU;
use crate::error::DebianError;
use crate::keyring::Keyring;
use crate::package::Pocket;
use crate::settings::Settings;
use crate::source::{self, SignedBy, Source, web};

/// Keys that are trusted for sources that name none.
const DEFAULT_KEYS: &str = "etc/apt/trusted.gpg.d";
/// Keys of the Debian archive itself.
const DEBIAN_KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// What a machine's apt is configured to do.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Its sources, in the order apt reads them.
    pub sources: Vec<Source>,
    /// Its settings.
    pub settings: Settings,
    /// `ID` of the machine's os-release(5).
    distribution: Option<String>,
    root: PathBuf,
}

impl Sources {
    /// Reads the configuration below `root`, normally `/`. What is not there counts as empty; a source that
    /// cannot be understood is left out, as apt would have complained of it long ago. Keys that cannot be
    /// understood are an error: leaving them out would trust others.
    pub fn read(root: &Path) -> Result<Self, DebianError> {
        let apt = root.join("etc/apt");
        let mut sources = Vec::new();
        let mut files = vec![apt.join("sources.list")];
        files.extend(sorted(&apt.join("sources.list.d"))?);
        for path in files.iter().filter(|path| path.is_file()) {
            let text = fs_err::read_to_string(path)?;
            let origin = path.display().to_string();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(source::lines(&origin, &text)?),
                Some("sources") => sources.extend(source::paragraphs(&origin, &text)?),
                _ => {}
            }
        }
        Ok(Self {
            sources,
            settings: Settings::read(&apt)?,
            distribution: distribution(root),
            root: root.to_owned(),
        })
    }

    /// Demands nothing of sources of another distribution: a machine of Debian does not know where Ubuntu's security
    /// updates are.
    pub(crate) fn serve(&mut self, origin: &str) {
        let distributions = ["debian", "ubuntu"];
        let other = |id: &str| distributions.contains(&id) && !id.eq_ignore_ascii_case(origin);
        if self.distribution.as_deref().is_some_and(other) {
            for source in &mut self.sources {
                source.listed = false;
            }
        }
    }

    /// Uses `mirror` for everything but security updates, which stay where the machine gets them, and are
    /// also looked for where mirrors of the distribution keep them: Debian's beside the rest, Ubuntu's among it.
    /// Nothing but the release itself has to be there.
    pub(crate) fn replace_mirror(&mut self, mirror: &Url, origin: &str) {
        let trimmed = mirror.as_str().trim_end_matches('/');
        let source = |url: String, suite: &str| {
            Some(Source {
                listed: false,
                ..Source::new(
                    web(&url)?,
                    vec![suite.to_owned()],
                    "the option `debian_mirror`",
                )
            })
        };
        let machine = self.sources.drain(..);
        let machine: Vec<_> = machine.filter_map(Source::security_only).collect();
        let security = if origin == UBUNTU { "" } else { "-security" };
        self.sources = [
            source(trimmed.to_owned(), "stable"),
            source(trimmed.to_owned(), "stable-updates"),
            source(format!("{trimmed}{security}"), "stable-security"),
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

    /// Whether a release of `source` that is no longer valid is refused.
    pub(crate) fn checks_validity(&self, source: &Source) -> bool {
        let machine = || self.settings.flag("Acquire::Check-Valid-Until");
        self.checks_date(source) && source.check_valid_until.or_else(machine) != Some(false)
    }

    /// Whether a release of `source` that is dated in the future is refused.
    pub(crate) fn checks_date(&self, source: &Source) -> bool {
        let machine = || self.settings.flag("Acquire::Check-Date");
        source.check_date.or_else(machine) != Some(false)
    }

    /// The keys that may sign what comes from a source that names `signed_by`.
    pub fn keyring(&self, signed_by: &SignedBy) -> Result<Keyring, DebianError> {
        let mut keyring = Keyring::default();
        if let Some(armored) = &signed_by.armored {
            let keys = Keyring::parse(armored.as_bytes());
            keyring.extend(keys.map_err(|source| DebianError::Keyring {
                path: "Signed-By".into(),
                source: source.into(),
            })?);
        } else if signed_by.files.is_empty() {
            for path in sorted(&self.root.join(DEFAULT_KEYS))? {
                keyring.extend(Keyring::open(&path)?);
            }
            let debian = self.root.join(DEBIAN_KEYRING);
            if debian.is_file() {
                keyring.extend(Keyring::open(&debian)?);
            }
        }
        for file in &signed_by.files {
            let path = file
                .strip_prefix("/")
                .map_or_else(|_| file.clone(), |below| self.root.join(below));
            keyring.extend(Keyring::open(&path)?);
        }
        keyring.restrict(signed_by.fingerprints.clone());
        Ok(keyring)
    }
}

fn distribution(root: &Path) -> Option<String> {
    let files = ["etc/os-release", "usr/lib/os-release"];
    let text = files
        .iter()
        .find_map(|file| fs_err::read_to_string(root.join(file)).ok())?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(id.trim_matches(['"', '\'', ' ']).to_owned())
}

/// The files of a folder in order; none where it does not exist.
pub(crate) fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DebianError> {
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
        assert_eq!(read.sources[0].signed_by, SignedBy::file("/k.gpg".into()));
        assert!(read.sources[1].signed_by.armored.is_some());
        assert_eq!(read.sources[1].suites, ["trixie", "trixie-updates"]);
        assert!(read.checks_validity(&read.sources[0]));
    }

    #[test]
    fn a_source_is_asked_before_the_machine_what_is_checked() {
        let mut sources = Sources::default();
        let url = web("http://a.example").expect("a URL");
        let mut source = Source::new(url, vec!["trixie".into()], "f");
        source.check_valid_until = Some(false);
        assert!(!sources.checks_validity(&source) && sources.checks_date(&source));
        source.check_date = Some(false);
        source.check_valid_until = Some(true);
        assert!(!sources.checks_validity(&source) && !sources.checks_date(&source));
        // With a mirror of one's own nothing but security updates remains of the machine's.
        source.suites.push("trixie-security".into());
        sources.sources.push(source);
        sources.replace_mirror(&web("http://m.example/debian").expect("a URL"), "Debian");
        let listed: Vec<_> = sources
            .sources
            .iter()
            .filter(|source| source.listed)
            .collect();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].suites, ["trixie-security"]);
    }
}
