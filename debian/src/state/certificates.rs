//! What `update-ca-certificates` makes: one bundle, and links by name and by OpenSSL's hash of the subject.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::subject_hash::subject_hash;
use super::tree::Tree;
use crate::error::DebianError;

const FOLDER: &str = "usr/share/ca-certificates/";
const CONFIGURATION: &str = "\
# This file lists certificates that you wish to use or to ignore to be
# installed in /etc/ssl/certs.
# update-ca-certificates(8) will update /etc/ssl/certs by reading this file.
#
# Lines begin with # are comments. Lines begin with ! are certificates that
# are not to be used.
";

/// The trusted authorities, from the files of the package `ca-certificates` by path.
pub(super) fn write(tree: &mut Tree, kept: &BTreeMap<&str, &[u8]>) -> Result<(), DebianError> {
    let mut configuration = CONFIGURATION.to_owned();
    let mut bundle = Vec::new();
    let mut hashes: BTreeMap<u32, u32> = BTreeMap::new();
    let certificates = kept
        .iter()
        .filter_map(|(path, pem)| Some((path.strip_prefix(FOLDER)?.strip_suffix(".crt")?, *pem)));
    for (stem, pem) in certificates {
        let name = format!("{stem}.crt");
        configuration.push_str(&name);
        configuration.push('\n');
        bundle.extend_from_slice(pem);
        if !pem.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        let file = stem.rsplit('/').next().unwrap_or(stem);
        let file = file.replace([' ', ','], "_").replace(['(', ')'], "=");
        let link = format!("{file}.pem");
        tree.symlink(format!("etc/ssl/certs/{link}"), format!("/{FOLDER}{name}"));
        let hash = der(pem)
            .and_then(|der| subject_hash(&der))
            .ok_or_else(|| DebianError::Base(format!("the certificate `{name}` cannot be read")))?;
        let same = hashes.entry(hash).or_default();
        tree.symlink(format!("etc/ssl/certs/{hash:08x}.{same}"), link);
        *same += 1;
    }
    if bundle.is_empty() {
        return Err(DebianError::Base(
            "ca-certificates has no certificates".into(),
        ));
    }
    tree.file("etc/ssl/certs/ca-certificates.crt", bundle);
    tree.file("etc/ca-certificates.conf", configuration);
    tree.directory("usr/local/share/ca-certificates", 0o755, 0);
    Ok(())
}

/// The first certificate of a PEM file (RFC 7468).
fn der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}
