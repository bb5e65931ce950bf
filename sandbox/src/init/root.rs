//! The root file system: the overlay, what is mounted over it, and the step into it.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, open_tree, unmount,
};

use super::resolve::{self, Kind};
use super::{Failure, Step, device, syscall};
use crate::control::Order;
use crate::job::{Mount, Network, Tier};

/// What apt is told where only one id exists: it would otherwise fail to become its own user.
const APT_CONFIGURATION: (&str, &str) = (
    "etc/apt/apt.conf.d/00imagespec-sandbox",
    "APT::Sandbox::User \"root\";\n",
);
/// Parts of /proc through which real root would reach the host's kernel.
const KERNEL: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Parts of /proc that tell of the host, shown empty.
const TELLING: [&str; 5] = [
    "kcore",
    "keys",
    "timer_list",
    "sched_debug",
    "latency_stats",
];

/// What the root file system got that its layers do not have.
#[derive(Debug, Default)]
pub(super) struct Root {
    /// Mount points that had to be made in the upper directory, outermost first.
    made: Vec<PathBuf>,
    /// Mounts, in order.
    mounts: Vec<PathBuf>,
}

/// Makes the root file system of `order` and steps into it. The process is in mount, process and user
/// namespaces of its own.
pub(super) fn enter(order: &Order) -> Result<Root, Failure> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make mounts private")?;
    let mounts = host_mounts(order);
    make_mount_points(order, &mounts)?;
    mount_overlay(order)?;
    let folder = rustix::fs::open(
        order.scratch.join("root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open the root file system")?;
    let mut root = Root::default();
    mount_proc(order.tier, &folder, &mut root)?;
    let dev = root.place(&folder, Path::new("/dev"), Kind::Directory)?;
    device::mount(&folder, &dev)?;
    mount_sys(&folder, &mut root);
    for wanted in &mounts {
        bind(&folder, wanted, &mut root)?;
    }
    // A working directory that a build names is part of its image.
    resolve::open_or_make(&folder, &order.job.cwd, Kind::Directory, &mut Vec::new())
        .step(format!("make `{}`", order.job.cwd.display()))?;
    step_into(&folder, &order.job.cwd)?;
    Ok(root)
}

impl Root {
    /// Opens a mount point.
    fn place(&mut self, root: &OwnedFd, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        let place = resolve::open_or_make(root, path, kind, &mut self.made)
            .step(format!("make the mount point `{}`", path.display()))?;
        self.mounts.push(path.to_owned());
        Ok(place)
    }

    /// Removes the mount points that were made, unless something is in them by now. The command has ended.
    pub(super) fn leave(&self) {
        if self.made.is_empty() {
            return;
        }
        for mounted in self.mounts.iter().rev() {
            let _ = unmount(mounted, UnmountFlags::DETACH);
        }
        for path in self.made.iter().rev() {
            let path = Path::new("/").join(path);
            let _ = fs_err::remove_dir(&path);
            if fs_err::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0) {
                let _ = fs_err::remove_file(&path);
            }
        }
    }
}

/// The mounts of the job, and before them those that every job with a network has.
fn host_mounts(order: &Order) -> Vec<Mount> {
    let network = ["/etc/resolv.conf", "/etc/hosts"]
        .into_iter()
        .filter(|_| order.job.network == Network::Host)
        .filter(|file| Path::new(file).is_file())
        .map(|file| Mount {
            source: PathBuf::from(file),
            target: PathBuf::from(file),
            writable: false,
        });
    network.chain(order.job.mounts.iter().cloned()).collect()
}

/// Makes mount points in a layer below all others: there they leave no trace, and change nothing that a layer
/// of the image has.
fn make_mount_points(order: &Order, mounts: &[Mount]) -> Result<(), Failure> {
    let bottom = order.scratch.join("mounts");
    for name in ["proc", "dev", "sys", "tmp"] {
        fs_err::create_dir_all(bottom.join(name)).step("make mount points")?;
    }
    let sticky = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs_err::set_permissions(bottom.join("tmp"), sticky).step("make mount points")?;
    for mount in mounts {
        let step = || format!("make a mount point of `{}`", mount.target.display());
        let mut path = bottom.clone();
        for component in mount.target.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::RootDir => {}
                _ => return Err(std::io::Error::from(Errno::INVAL)).step(step()),
            }
        }
        let kind = Kind::of(&mount.source)
            .step(format!("find what to mount: `{}`", mount.source.display()))?;
        let made = match kind {
            Kind::Directory => fs_err::create_dir_all(&path),
            Kind::File => fs_err::create_dir_all(path.parent().unwrap_or(&bottom))
                .and_then(|()| fs_err::write(&path, "")),
        };
        match made {
            // The overlay will say what is wrong, if anything is.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.step(step())?,
        }
    }
    if order.tier == Tier::SingleId {
        let (path, content) = APT_CONFIGURATION;
        let path = bottom.join(path);
        fs_err::create_dir_all(path.parent().unwrap_or(&bottom))
            .and_then(|()| fs_err::write(&path, content))
            .step("configure apt")?;
    }
    Ok(())
}

/// Mounts the overlay. Layers are given as short links, because all options together may have 4096 bytes.
fn mount_overlay(order: &Order) -> Result<(), Failure> {
    let links = order.scratch.join("links");
    let link =
        |name: &str, target: &Path| symlink(target, links.join(name)).step("name the layers");
    let mut lower = Vec::new();
    for (index, layer) in order.job.layers.iter().enumerate() {
        let name = index.to_string();
        link(&name, layer)?;
        lower.push(name);
    }
    lower.reverse();
    link("m", &order.scratch.join("mounts"))?;
    lower.push("m".to_owned());
    link("u", &order.upper)?;
    link("w", &order.scratch.join("work"))?;
    rustix::process::chdir(&links).step("name the layers")?;
    // Volatile: a build that did not end is not used, so its writes need not reach the disk in order.
    let mut options = format!(
        "lowerdir={},upperdir=u,workdir=w,index=off,volatile",
        lower.join(":")
    );
    // Nothing may be in the upper directory that a layer cannot say, and user attributes imply just that.
    options.push_str(match order.tier {
        Tier::Root => ",redirect_dir=off,metacopy=off",
        Tier::SingleId => ",userxattr",
    });
    let options = std::ffi::CString::new(options)
        .map_err(std::io::Error::from)
        .step("name the layers")?;
    mount(
        "overlay",
        order.scratch.join("root"),
        "overlay",
        MountFlags::NODEV,
        options.as_c_str(),
    )
    .step("mount an overlay")
}

/// Mounts the process namespace's own /proc or, in a container that hides parts of its own, the host's.
fn mount_proc(tier: Tier, root: &OwnedFd, made: &mut Root) -> Result<(), Failure> {
    let place = made.place(root, Path::new("/proc"), Kind::Directory)?;
    let proc = match file_system("proc", &[]) {
        Err(_) if tier == Tier::SingleId => clone_tree("/proc"),
        mounted => mounted,
    };
    attach(&proc.step("mount `/proc`")?, &place).step("mount `/proc`")?;
    for name in KERNEL {
        let path = Path::new("/proc").join(name);
        let protected = resolve::open(root, &path).and_then(|place| {
            let tree = clone_tree_at(&place)?;
            syscall::make_read_only(&tree)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
            attach(&tree, &place)
        });
        match protected {
            Err(Errno::NOENT) => {}
            // There the kernel protects it by itself: nobody is root.
            Err(_) if tier == Tier::SingleId => {}
            protected => protected.step(format!("protect `{}`", path.display()))?,
        }
    }
    for name in TELLING {
        let path = Path::new("/proc").join(name);
        let hidden = resolve::open(root, &path).and_then(|place| {
            let tree = clone_tree("/dev/null")?;
            attach(&tree, &place)
        });
        match hidden {
            Err(Errno::NOENT) => {}
            Err(_) if tier == Tier::SingleId => {}
            hidden => hidden.step(format!("hide `{}`", path.display()))?,
        }
    }
    Ok(())
}

/// Mounts the host's /sys for reading, where that is possible; few programs miss it.
fn mount_sys(root: &OwnedFd, made: &mut Root) {
    let Ok(place) = made.place(root, Path::new("/sys"), Kind::Directory) else {
        return;
    };
    let _ = clone_tree("/sys").and_then(|tree| {
        syscall::make_read_only(&tree)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
        attach(&tree, &place)
    });
}

/// Mounts a file or folder of the host.
fn bind(root: &OwnedFd, wanted: &Mount, made: &mut Root) -> Result<(), Failure> {
    let step = || format!("mount `{}`", wanted.source.display());
    let kind = Kind::of(&wanted.source).step(step())?;
    let place = made.place(root, &wanted.target, kind)?;
    let tree = clone_tree(&wanted.source).step(step())?;
    if !wanted.writable {
        syscall::make_read_only(&tree).step(step())?;
    }
    attach(&tree, &place).step(step())
}

/// Makes `folder` the root of this process and its descendants, and forgets the host's.
fn step_into(folder: &OwnedFd, cwd: &Path) -> Result<(), Failure> {
    let step = "enter the root file system";
    rustix::process::fchdir(folder).step(step)?;
    // The old root then lies over the new one, and is taken away from there: pivot_root(2), "pivot_root(\".\",
    // \".\")".
    rustix::process::pivot_root(".", ".").step(step)?;
    unmount(".", UnmountFlags::DETACH).step(step)?;
    rustix::process::chdir("/").step(step)?;
    rustix::process::chdir(cwd).step(format!("enter `{}`", cwd.display()))
}

/// A new file system with options, mounted nowhere yet.
pub(super) fn file_system(kind: &str, options: &[(&str, &str)]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// A copy of the mounts at a path of the host, mounted nowhere yet.
pub(super) fn clone_tree(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, path.as_ref(), clone_flags())
}

/// A copy of the mounts at an open place.
fn clone_tree_at(place: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    open_tree(place, "", clone_flags() | OpenTreeFlags::AT_EMPTY_PATH)
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE
}

/// Mounts a tree at an open place.
pub(super) fn attach(tree: &OwnedFd, place: impl AsFd) -> rustix::io::Result<()> {
    move_mount(
        tree,
        "",
        place,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}
