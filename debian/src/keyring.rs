//! OpenPGP keyrings, and what one must say of a signed file.

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
    key: &(impl VerifyingKey + KeyDetails),
    own: impl Iterator<Item = &'a Signature>,
    now: u64,
) -> bool {
    let latest = own.max_by_key(|signature| signature.created().map(Timestamp::as_secs));
    let lifetime = latest
        .and_then(Signature::key_expiration_time)
        .map_or(0, |after| u64::from(after.as_secs()));
    lifetime == 0 || u64::from(key.created_at().as_secs()) + lifetime > now
}
