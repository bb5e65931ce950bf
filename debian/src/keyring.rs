//! `OpenPGP` keyrings, and what one must say of a signed file.

use std::io::Cursor;
use std::path::Path;

use pgp::composed::{
    CleartextSignedMessage, Deserializable, DetachedSignature, PublicOrSecret, SignedPublicKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::Signature;
use pgp::types::{KeyDetails, Timestamp, VerifyingKey};

use crate::error::DebianError;

/// Public keys that are trusted to sign an archive.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// The keys of a file, binary or armored.
    pub fn open(path: &Path) -> Result<Self, DebianError> {
        let error = |source| DebianError::Keyring {
            path: path.display().to_string(),
            source,
        };
        let bytes = fs_err::read(path).map_err(|source| error(source.into()))?;
        Self::parse(&bytes).map_err(|source| error(source.into()))
    }

    /// The keys of a keyring's bytes, binary or armored.
    pub fn parse(bytes: &[u8]) -> Result<Self, pgp::errors::Error> {
        let (keys, _) = PublicOrSecret::from_reader_many(Cursor::new(bytes))?;
        let mut found = Vec::new();
        for key in keys {
            if let PublicOrSecret::Public(key) = key? {
                found.push(key);
            }
        }
        Ok(Self(found))
    }

    /// Adds the keys of another keyring.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of a clear-signed file (`InRelease`) if one of the keys signed it, else why not. Only what
    /// the signature covers is returned.
    pub fn open_clear_signed(&self, bytes: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|_| "it is not signed".to_owned())?;
        let signed = message.signed_text();
        self.check(message.signatures().iter(), signed.as_bytes())?;
        Ok(signed.replace("\r\n", "\n"))
    }

    /// Checks a detached signature (`Release.gpg`, armored) of `content`.
    pub fn check_detached(&self, content: &[u8], signature: &[u8]) -> Result<(), String> {
        let (signatures, _) = DetachedSignature::from_armor_many(Cursor::new(signature))
            .map_err(|_| "its signature cannot be read".to_owned())?;
        let signatures: Vec<Signature> = signatures
            .filter_map(Result::ok)
            .map(|detached| detached.signature)
            .collect();
        self.check(signatures.iter(), content)
    }

    fn check<'a>(
        &self,
        signatures: impl Iterator<Item = &'a Signature>,
        content: &[u8],
    ) -> Result<(), String> {
        let now = u64::from(Timestamp::now().as_secs());
        let mut issuers = Vec::new();
        for signature in signatures.filter(|signature| is_strong(signature)) {
            if self
                .0
                .iter()
                .any(|key| verifies(key, signature, content, now))
            {
                return Ok(());
            }
            issuers.extend(signature.issuer_key_id().iter().map(ToString::to_string));
        }
        if issuers.is_empty() {
            return Err("it has no usable signature".to_owned());
        }
        issuers.dedup();
        Err(format!(
            "no trusted key signed it; it names the keys {}",
            issuers.join(", ")
        ))
    }
}

/// SHA-1 and older can be made to collide, so that a signature over them says nothing.
fn is_strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}

fn verifies(key: &SignedPublicKey, signature: &Signature, content: &[u8], now: u64) -> bool {
    if !key.details.revocation_signatures.is_empty() || has_expired(signature, now) {
        return false;
    }
    let own = key.details.users.iter().flat_map(|user| &user.signatures);
    let own = own.chain(&key.details.direct_signatures).filter(|own| {
        own.issuer_fingerprint().is_empty()
            || own.issuer_fingerprint().contains(&&key.fingerprint())
    });
    if !is_alive(&key.primary_key, own, now) {
        return false;
    }
    if signature.verify(&key.primary_key, content).is_ok() {
        return key.details.verify_bindings(&key.primary_key).is_ok();
    }
    key.public_subkeys.iter().any(|subkey| {
        subkey
            .signatures
            .iter()
            .any(|binding| binding.key_flags().sign())
            && is_alive(&subkey.key, subkey.signatures.iter(), now)
            && signature.verify(&subkey.key, content).is_ok()
            && subkey.verify_bindings(&key.primary_key).is_ok()
    })
}

fn has_expired(signature: &Signature, now: u64) -> bool {
    let created = signature.created().map_or(0, Timestamp::as_secs);
    signature.signature_expiration_time().is_some_and(|after| {
        after.as_secs() != 0 && u64::from(created) + u64::from(after.as_secs()) < now
    })
}

/// Whether the latest of a key's own signatures lets it live until now.
fn is_alive<'a>(
    key: &impl VerifyingKey,
    own: impl Iterator<Item = &'a Signature>,
    now: u64,
) -> bool {
    let latest = own.max_by_key(|signature| signature.created().map(Timestamp::as_secs));
    let lifetime = latest
        .and_then(Signature::key_expiration_time)
        .map_or(0, |after| u64::from(after.as_secs()));
    lifetime == 0 || u64::from(key.created_at().as_secs()) + lifetime > now
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = include_str!("testdata/Release");
    const SIGNED: &str = include_str!("testdata/InRelease");
    const KEY: &[u8] = include_bytes!("testdata/archive.asc");

    fn keyring(bytes: &[u8]) -> Keyring {
        Keyring::parse(bytes).expect("a keyring")
    }

    #[test]
    fn what_a_trusted_key_signed_is_read() {
        assert_eq!(
            keyring(KEY).open_clear_signed(SIGNED.as_bytes()).as_deref(),
            Ok(RELEASE.trim_end())
        );
        let detached = include_bytes!("testdata/Release.gpg");
        assert_eq!(
            keyring(KEY).check_detached(RELEASE.as_bytes(), detached),
            Ok(())
        );
        let changed = RELEASE.replace("trixie", "sid");
        assert!(
            keyring(KEY)
                .check_detached(changed.as_bytes(), detached)
                .is_err()
        );
    }

    #[test]
    fn what_is_not_signed_by_a_trusted_key_is_refused() {
        let refused = |keyring: &Keyring, text: &str| {
            keyring
                .open_clear_signed(text.as_bytes())
                .expect_err("refused")
        };
        let trusted = keyring(KEY);
        assert_eq!(refused(&trusted, RELEASE), "it is not signed");
        let changed = SIGNED.replace("trixie", "sid");
        assert!(refused(&trusted, &changed).starts_with("no trusted key"));
        let other = keyring(include_bytes!("testdata/other.asc"));
        assert!(refused(&other, SIGNED).starts_with("no trusted key"));
        assert!(refused(&Keyring::default(), SIGNED).starts_with("no trusted key"));
    }

    #[test]
    fn a_key_that_expired_and_a_weak_hash_are_refused() {
        let old = keyring(include_bytes!("testdata/old.asc"));
        let signed = include_bytes!("testdata/InRelease.old");
        assert!(old.open_clear_signed(signed).is_err());
        let weak = include_bytes!("testdata/InRelease.sha1");
        assert_eq!(
            keyring(KEY).open_clear_signed(weak),
            Err("it has no usable signature".into())
        );
    }

    #[test]
    fn what_stands_around_a_signed_text_is_not_read() {
        let around = format!("Origin: Evil\n{SIGNED}\nOrigin: Evil\n");
        if let Ok(text) = keyring(KEY).open_clear_signed(around.as_bytes()) {
            assert_eq!(text, RELEASE.trim_end());
        }
    }
}
