//! Locks made before, by what was asked for.

use std::path::PathBuf;

use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_oci::store::write_atomically;

use super::Lock;

fn path(host: &Host, key: &Digest, extension: &str) -> PathBuf {
    host.cache_dir
        .join("locks")
        .join(format!("{}.{extension}", key.hex()))
}

pub(super) fn get(host: &Host, key: &Digest) -> Option<Lock> {
    serde_json::from_slice(&fs_err::read(path(host, key, "json")).ok()?).ok()
}

pub(super) fn put(host: &Host, key: &Digest, lock: &Lock) -> std::io::Result<()> {
    write_atomically(&path(host, key, "json"), &serde_json::to_vec(lock)?)
}

/// What the lock file of a request pins.
pub(super) fn pins(host: &Host, key: &Digest) -> Option<String> {
    fs_err::read_to_string(path(host, key, "txt")).ok()
}

pub(super) fn put_pins(host: &Host, key: &Digest, pins: &str) -> std::io::Result<()> {
    write_atomically(&path(host, key, "txt"), pins.as_bytes())
}
