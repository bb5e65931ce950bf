//! Images that are larger than the memory a build may have.

use std::time::Duration;

use crate::index::Index;
use crate::place::{Cache, Place, Ran};
use crate::scale;
use crate::wheels::{large, wheel};

/// The most memory that the command may have, in KiB.
const MOST: u64 = 256 << 10;

#[test]
fn a_large_wheel_is_built_in_little_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let size = scale::gib() << 30;
    let wheels = [
        large(folder.path(), "alpha", size),
        wheel(folder.path(), "beta", &[("beta.py", b"")]),
        wheel(folder.path(), "gamma", &[("gamma.py", b"")]),
    ];
    let index = Index::serve(&wheels, None);
    let place = Place::new(Cache::Base, &index);
    let mut build = place.start(&[
        "build",
        "--output",
        "store",
        "--json",
        "--progress",
        "quiet",
    ]);
    let status = format!("/proc/{}/status", build.id());
    let mut peak = 0;
    while build.try_wait().expect("the command").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        peak = peak.max(number.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    let ran = Ran::wait(build);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(peak > 0 && peak <= MOST, "{peak} KiB");
    let look =
        format!("test $(stat -c %s /opt/venv/lib/python*/site-packages/alpha/large.bin) = {size}");
    place.says(&[
        "exec",
        "app",
        "--progress",
        "quiet",
        "--",
        "sh",
        "-c",
        &look,
    ]);
}
