//! Which release of a suite counts: found at a source, verified, and never older than the one before.

use std::path::PathBuf;
use std::time::SystemTime;

use imagespec_core::digest::Framed;
use imagespec_oci::store::write_atomically;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::archive::{Archive, is_absent, join};
use crate::error::DebianError;
use crate::keyring::Keyring;
use crate::package::Pocket;
use crate::release::{self, Problem, Release, Wanted};
use crate::source::Source;

/// The largest detached signature, in bytes.
const SIGNATURE: u64 = 1 << 20;

/// A release as it came: what is verified, and again whenever it is read from the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signed {
    /// `InRelease`, or `Release` if there is a detached signature.
    text: String,
    /// `Release.gpg`.
    signature: Option<String>,
}

impl Archive {
    /// The first source that has a pocket, signed. The release itself must be there, and so must every pocket
    /// that the machine's sources name; security updates also where they name those of another suite.
    pub(crate) async fn release(
        &self,
        suite: &str,
        pocket: Pocket,
    ) -> Result<Option<(&Source, Release)>, DebianError> {
        let wanted = pocket.suite(suite);
        let (mut absent, mut failed) = (false, None);
        let mut demanded = None;
        for source in self.sources.for_pocket(suite, pocket) {
            let named = source.suites.contains(&wanted);
            if source.listed && (named || pocket == Pocket::Security) {
                demanded.get_or_insert(source);
            }
            match self.fetch_release(source, &wanted).await {
                Ok(release) => return Ok(Some((source, release))),
                Err(DebianError::Http(error)) if is_absent(&error) => absent = true,
                // What the machine's own source of this suite says is the reason.
                Err(error) if named => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (pocket, demanded, failed) {
            // Nobody says that it is not there.
            (_, _, Some(error)) if !absent => Err(error),
            (Pocket::Release, _, source) => Err(DebianError::NoSource {
                suite: suite.to_owned(),
                source: source.map(Box::new),
            }),
            // Without the security updates that the machine itself uses, the image would be silently worse.
            (_, Some(source), _) => Err(DebianError::NoPocket {
                suite: wanted,
                origin: source.origin.clone(),
            }),
            (_, None, Some(error)) => Err(error),
            (_, None, None) => Ok(None),
        }
    }

    async fn fetch_release(&self, source: &Source, suite: &str) -> Result<Release, DebianError> {
        let keyring = self.sources.keyring(&source.signed_by)?;
        let url = join(&source.url, &format!("dists/{suite}/InRelease"))?;
        let refused = |problem| DebianError::Release {
            url: imagespec_http::redacted(&url),
            origin: source.origin.clone(),
            problem,
        };
        let came = self.fetch_signed(source, suite, &url).await?;
        let came = came.ok_or_else(|| refused(Problem::Unsigned))?;
        let release = came.open(&keyring).map_err(refused)?;
        let now = SystemTime::now();
        let wanted = Wanted {
            origin: &self.origin,
            suite,
            valid_at: self.sources.checks_validity(source).then_some(now),
            dated_before: self.sources.checks_date(source).then_some(now),
        };
        release.check(wanted).map_err(refused)?;
        let kept = self.kept_release(source, suite);
        let before = fs_err::read(&kept)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Signed>(&bytes).ok())
            .and_then(|signed| signed.open(&keyring).ok());
        if let Some(before) = before {
            // As apt has it: whoever answers with what was, be it a mirror that lags or one that lies, is not
            // believed; what came before still counts as long as it is valid.
            if release.is_older_than(&before) {
                let older = || Problem::Older(before.date().unwrap_or_default().to_owned());
                before.check(wanted).map_err(|_| refused(older()))?;
                return Ok(before);
            }
            if release.digest == before.digest {
                return Ok(release);
            }
        }
        write_atomically(&kept, &serde_json::to_vec(&came).unwrap_or_default())?;
        Ok(release)
    }

    /// `InRelease`, or `Release` and its signature; nothing where there is no signature.
    async fn fetch_signed(
        &self,
        source: &Source,
        suite: &str,
        url: &Url,
    ) -> Result<Option<Signed>, DebianError> {
        match self.client.fetch(url, release::LIMIT).await {
            Ok(bytes) => Ok(Some(Signed {
                text: text(&bytes),
                signature: None,
            })),
            Err(error) if is_absent(&error) => {
                let plain = join(&source.url, &format!("dists/{suite}/Release"))?;
                let detached = join(&source.url, &format!("dists/{suite}/Release.gpg"))?;
                let bytes = self.client.fetch(&plain, release::LIMIT).await?;
                match self.client.fetch(&detached, SIGNATURE).await {
                    Ok(signature) => Ok(Some(Signed {
                        text: text(&bytes),
                        signature: Some(text(&signature)),
                    })),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the last release that counted is kept.
    pub(crate) fn kept_release(&self, source: &Source, suite: &str) -> PathBuf {
        let mut key = Framed::new("debian release");
        key.text(source.url.as_str()).text(suite);
        let name = format!("{}.json", key.finish().hex());
        self.cache.join("releases").join(name)
    }
}

impl Signed {
    /// The release, if the keyring says that it is one.
    fn open(&self, keyring: &Keyring) -> Result<Release, Problem> {
        match &self.signature {
            None => Release::parse(&keyring.open_clear_signed(self.text.as_bytes())?),
            Some(signature) => {
                keyring.check_detached(self.text.as_bytes(), signature.as_bytes())?;
                Release::parse(&self.text)
            }
        }
    }
}

/// What is not text is not what was signed, and its signature does not hold.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
