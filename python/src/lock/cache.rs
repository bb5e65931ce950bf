//! Locks made before, by what was asked for.

use std::path::PathBuf;

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_oci::store::write_atomically;

use super::Lock;

fn path(host: &Host, key: &Digest) -> PathBuf {
    host.cache_dir
        .join("locks")
        .join(format!("{}.json", key.hex()))
}

pub(super) fn get(host: &Host, key: &Digest) -> Option<Lock> {
    serde_json::from_slice(&fs_err::read(path(host, key)).ok()?).ok()
}

pub(super) fn put(host: &Host, key: &Digest, lock: &Lock) -> std::io::Result<()> {
    write_atomically(&path(host, key), &serde_json::to_vec(lock)?)
}
