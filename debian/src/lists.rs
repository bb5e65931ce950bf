//! What apt in an image is told of the archive: the machine's sources, translated for the image's suite.

use std::fmt::Write as _;
use std::path::Path;

use url::Url;

use crate::archive::Archive;
use crate::error::DebianError;
use crate::package::Pocket;
use crate::source::Source;

/// Files for apt. They name hosts of this machine: no image may hold them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// A file of sources, in the format of paragraphs.
    pub sources: String,
    /// Keyring files by the names that `sources` has for them.
    pub keyrings: Vec<(String, Vec<u8>)>,
    /// How the archive is reached: lines of settings.
    pub settings: String,
    /// Whether something was left out because it holds a password.
    pub withheld: bool,
}

impl Archive {
    /// The sources of `suite` whose releases were verified here, with the keys that count for each, as files
    /// that are going to be in `folder`. Contacts nothing.
    pub fn lists(&self, suite: &str, folder: &Path) -> Result<Lists, DebianError> {
        let mut lists = Lists::default();
        for pocket in Pocket::ALL {
            let name = pocket.suite(suite);
            let verified = |source: &&Source| self.kept_release(source, &name).is_file();
            let mut sources = self.sources.for_pocket(suite, pocket);
            let Some(source) = sources.find(verified) else {
                continue;
            };
            if has_password(&source.url) {
                lists.withheld = true;
                continue;
            }
            let keyring = self.sources.keyring(&source.signed_by)?;
            let keys = keyring.to_bytes().map_err(|error| DebianError::Keyring {
                path: source.origin.clone(),
                source: error.into(),
            })?;
            let file = format!("{name}.gpg");
            let mut signed_by = folder.join(&file).display().to_string();
            for fingerprint in &source.signed_by.fingerprints {
                let _ = write!(signed_by, " {fingerprint}");
            }
            let _ = write!(
                lists.sources,
                "Types: deb\nURIs: {}\nSuites: {name}\nComponents: main\nSigned-By: {signed_by}\n",
                source.url
            );
            if !self.sources.checks_validity(source) {
                lists.sources.push_str("Check-Valid-Until: no\n");
            }
            if !self.sources.checks_date(source) {
                lists.sources.push_str("Check-Date: no\n");
            }
            lists.sources.push('\n');
            lists.keyrings.push((file, keys));
        }
        for name in ["Acquire::http::Proxy", "Acquire::https::Proxy"] {
            let Some(proxy) = self.sources.settings.get(name) else {
                continue;
            };
            // What is not a URL (`DIRECT`) names no host; what would end the text is no value.
            if Url::parse(proxy).is_ok_and(|url| has_password(&url)) || proxy.contains(['"', '\n'])
            {
                lists.withheld = true;
            } else {
                let _ = writeln!(lists.settings, "{name} \"{proxy}\";");
            }
        }
        Ok(lists)
    }
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
