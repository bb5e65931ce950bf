//! `/dev`: the few devices that programs expect, and nothing of the host's hardware.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, mkdirat, mknodat, symlinkat};

use super::root::{attach, clone_tree, file_system};
use super::{Failure, Step, resolve};

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts devices at `place`, which is `/dev` below `root`.
pub(super) fn mount(root: &OwnedFd, place: &OwnedFd) -> Result<(), Failure> {
    let memory = file_system("tmpfs", &[("mode", "755"), ("size", "64k")]);
    attach(&memory.step("mount `/dev`")?, place).step("mount `/dev`")?;
    let dev = resolve::open(root, Path::new("/dev")).step("mount `/dev`")?;
    for name in DEVICES {
        let step = || format!("mount `/dev/{name}`");
        mknodat(
            &dev,
            name,
            FileType::RegularFile,
            Mode::from_raw_mode(0o666),
            0,
        )
        .step(step())?;
        let node = resolve::open(&dev, Path::new(name)).step(step())?;
        clone_tree(Path::new("/dev").join(name))
            .and_then(|device| attach(&device, &node))
            .step(step())?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).step(format!("make `/dev/{name}`"))?;
    }
    let terminals = file_system("devpts", &[("ptmxmode", "0666"), ("mode", "0620")]);
    let shared = file_system("tmpfs", &[("mode", "1777")]);
    for (name, mounted) in [("pts", terminals), ("shm", shared)] {
        let step = || format!("mount `/dev/{name}`");
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).step(step())?;
        let place = resolve::open(&dev, Path::new(name)).step(step())?;
        attach(&mounted.step(step())?, &place).step(step())?;
    }
    Ok(())
}
