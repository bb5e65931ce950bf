//! `OpenPGP` keyrings, and what one must say of a signed file.

use std::fmt;
use std::io::Cursor;
use std::path::Path;
use std::str::FromStr;

use pgp::composed::{
    CleartextSignedMessage, Deserializable, DetachedSignature, PublicOrSecret, SignedPublicKey,
    SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Timestamp, VerifyingKey};

use crate::error::DebianError;
use crate::release::Problem;

/// The fingerprint of a key: 40 hexadecimal digits, or 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    bytes: Vec<u8>,
    /// Whether a subkey of the key does not count (a `!` at the end).
    exact: bool,
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, exact) = match text.strip_suffix('!') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let bytes = hex::decode(digits).map_err(|_| ())?;
        // Shorter key ids can be forged.
        let whole = matches!(bytes.len(), 20 | 32);
        whole.then_some(Self { bytes, exact }).ok_or(())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.exact { "!" } else { "" };
        write!(f, "{}{mark}", hex::encode_upper(&self.bytes))
    }
}

/// Public keys that are trusted to sign an archive.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
    /// The only keys that count; all, if there is none.
    only: Vec<Fingerprint>,
}

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
        Ok(Self {
            keys: found,
            only: Vec::new(),
        })
    }

    /// Adds the keys of another keyring.
    pub fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// Lets nothing count but the keys with these fingerprints, primary keys or subkeys; no fingerprint
    /// restricts nothing. A primary key stands for its subkeys, unless its fingerprint is exact.
    pub fn restrict(&mut self, only: Vec<Fingerprint>) {
        self.only = only;
    }

    /// The keys as a keyring file, without those that are not among the fingerprints.
    pub fn to_bytes(&self) -> Result<Vec<u8>, pgp::errors::Error> {
        let mut bytes = Vec::new();
        for key in &self.keys {
            let subkeys = key.public_subkeys.iter().map(|subkey| &subkey.key);
            let mut signers = subkeys.map(KeyDetails::fingerprint);
            let primary = key.primary_key.fingerprint();
            if self.counts(&primary, &primary)
                || signers.any(|signer| self.counts(&signer, &primary))
            {
                key.to_writer(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Whether a signature counts that was made by `signer`, the primary key `primary` or a subkey of it.
    fn counts(&self, signer: &pgp::types::Fingerprint, primary: &pgp::types::Fingerprint) -> bool {
        let named = |only: &Fingerprint| {
            only.bytes == signer.as_bytes() || (!only.exact && only.bytes == primary.as_bytes())
        };
        self.only.is_empty() || self.only.iter().any(named)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The text of a clear-signed file (`InRelease`) if one of the keys signed it, else why not. Only what
    /// the signature covers is returned.
    pub fn open_clear_signed(&self, bytes: &[u8]) -> Result<String, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::damaged("it is not text"))?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|_| Problem::Unsigned)?;
        let signed = message.signed_text();
        self.check(message.signatures().iter(), signed.as_bytes())?;
        Ok(signed.replace("\r\n", "\n"))
    }

    /// Checks a detached signature (`Release.gpg`, armored) of `content`.
    pub fn check_detached(&self, content: &[u8], signature: &[u8]) -> Result<(), Problem> {
        let (signatures, _) = DetachedSignature::from_armor_many(Cursor::new(signature))
            .map_err(|_| Problem::damaged("its signature cannot be read"))?;
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
    ) -> Result<(), Problem> {
        let now = u64::from(Timestamp::now().as_secs());
        let mut issuers = Vec::new();
        for signature in signatures.filter(|signature| is_strong(signature)) {
            let mut keys = self.keys.iter();
            if keys.any(|key| self.verifies(key, signature, content, now)) {
                return Ok(());
            }
            issuers.extend(signature.issuer_key_id().iter().map(ToString::to_string));
        }
        if issuers.is_empty() {
            return Err(Problem::Weak);
        }
        issuers.dedup();
        Err(Problem::Untrusted {
            issuers: issuers.join(", "),
        })
    }

    fn verifies(
        &self,
        key: &SignedPublicKey,
        signature: &Signature,
        content: &[u8],
        now: u64,
    ) -> bool {
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
        let primary = key.primary_key.fingerprint();
        if signature.verify(&key.primary_key, content).is_ok() {
            return self.counts(&primary, &primary)
                && key.details.verify_bindings(&key.primary_key).is_ok();
        }
        key.public_subkeys.iter().any(|subkey| {
            self.counts(&subkey.key.fingerprint(), &primary)
                && may_sign(subkey)
                && is_alive(&subkey.key, subkey.signatures.iter(), now)
                && signature.verify(&subkey.key, content).is_ok()
                && subkey.verify_bindings(&key.primary_key).is_ok()
        })
    }
}

/// Whether a subkey was made to sign, and not revoked since.
fn may_sign(subkey: &SignedPublicSubKey) -> bool {
    let mut bindings = subkey.signatures.iter();
    let revoked = |signature: &Signature| signature.typ() == Some(SignatureType::SubkeyRevocation);
    bindings.clone().any(|binding| binding.key_flags().sign()) && !bindings.any(revoked)
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
            keyring(KEY).open_clear_signed(SIGNED.as_bytes()),
            Ok(RELEASE.trim_end().to_owned())
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
                .to_string()
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
        assert_eq!(keyring(KEY).open_clear_signed(weak), Err(Problem::Weak));
    }

    #[test]
    fn what_stands_around_a_signed_text_is_not_read() {
        let around = format!("Origin: Evil\n{SIGNED}\nOrigin: Evil\n");
        if let Ok(text) = keyring(KEY).open_clear_signed(around.as_bytes()) {
            assert_eq!(text, RELEASE.trim_end());
        }
    }
}
