//! Recording the owners that commands give to files.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps,
    XattrFlags, openat, openat2, setxattr, statx, utimensat,
};
use rustix::io::Errno;

use super::syscall;
use crate::owner::{self, Owner};

/// The longest path, in bytes, with its end.
const PATH: usize = 4096;
/// The id that means "leave it".
const UNCHANGED: u32 = u32::MAX;

/// Serves the notifications of one sandbox.
pub(super) struct Supervisor {
    listener: OwnedFd,
    table: File,
    /// What the table says of inodes, as far as this job wrote it.
    recorded: HashMap<u64, Owner>,
    /// The overlay's mount: what is mounted over it belongs to the host, and stays as it is.
    mount: u64,
}

/// A change of owners that a process asks for.
struct Change {
    process: u32,
    /// The folder that `path` is relative to, or the file itself.
    folder: i32,
    path: Option<PathBuf>,
    follow: bool,
    uid: u32,
    gid: u32,
}

impl Supervisor {
    /// Of a filter's listener; records go to `table`. The process is in the sandbox's root file system.
    pub(super) fn new(listener: OwnedFd, table: File) -> io::Result<Self> {
        let root = statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID)?;
        Ok(Self {
            listener,
            table,
            recorded: HashMap::new(),
            mount: root.stx_mnt_id,
        })
    }

    /// Where notifications arrive.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Serves one notification, which is there.
    pub(super) fn serve(&mut self) {
        let Ok(notification) = syscall::receive_notification(&self.listener) else {
            // Its process was killed meanwhile.
            return;
        };
        let answer = self.answer(&notification);
        let errno = answer.err().map_or(0, Errno::raw_os_error);
        syscall::answer_notification(&self.listener, notification.id, errno);
    }

    fn answer(&mut self, notification: &libc::seccomp_notif) -> rustix::io::Result<()> {
        let change = read_change(notification)?;
        let file = open(&change)?;
        // Only now is it certain that what was read and opened was that process's.
        if !syscall::is_waiting(&self.listener, notification.id) {
            return Err(Errno::SRCH);
        }
        self.record(&file, &change)
    }

    /// Records the owner of an open file.
    fn record(&mut self, file: &OwnedFd, change: &Change) -> rustix::io::Result<()> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let status = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
        if status.stx_mnt_id != self.mount {
            return Ok(());
        }
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let before = self.owner_of(&link, status.stx_ino);
        let pick = |wanted: u32, before: u32| if wanted == UNCHANGED { before } else { wanted };
        let after = Owner {
            uid: pick(change.uid, before.unwrap_or_default().uid),
            gid: pick(change.gid, before.unwrap_or_default().gid),
        };
        let mode = u32::from(status.stx_mode);
        let is_file = FileType::from_raw_mode(mode) == FileType::RegularFile;
        if is_file {
            clear_set_id(&link, mode)?;
        }
        let value = match before {
            None if after == Owner::default() && is_file => owner::SEEMING.to_owned(),
            // What nobody recorded belongs to root already.
            None if after == Owner::default() => return Ok(()),
            _ => after.encode(),
        };
        if setxattr(
            &link,
            owner::ATTRIBUTE,
            value.as_bytes(),
            XattrFlags::empty(),
        )
        .is_ok()
        {
            return Ok(());
        }
        copy_up(file, &status);
        let path = fs_err::read_link(&link).map_err(|error| errno(&error))?;
        owner::append(&mut self.table, status.stx_ino, after, &path)
            .map_err(|error| errno(&error))?;
        self.recorded.insert(status.stx_ino, after);
        Ok(())
    }

    /// The owner that is recorded for a file.
    fn owner_of(&self, link: &Path, inode: u64) -> Option<Owner> {
        let mut value = [0_u8; 32];
        match rustix::fs::getxattr(link, owner::ATTRIBUTE, &mut value[..]) {
            Ok(length) => Owner::decode(&value[..length]),
            Err(_) => self.recorded.get(&inode).copied(),
        }
    }
}

/// Makes the overlay copy a link or special file of a lower layer, so that it is among the changes: sets the
/// time it has already. One that cannot be copied keeps its owner.
fn copy_up(file: &OwnedFd, status: &rustix::fs::Statx) {
    let time = |time: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    };
    let times = Timestamps {
        last_access: time(status.stx_atime),
        last_modification: time(status.stx_mtime),
    };
    let _ = utimensat(file, "", &times, AtFlags::EMPTY_PATH);
}

/// Takes set-user-id and set-group-id away, as the kernel does when a program changes hands.
fn clear_set_id(file: &Path, mode: u32) -> rustix::io::Result<()> {
    let mut cleared = mode & !0o4000;
    if mode & 0o010 != 0 {
        cleared &= !0o2000;
    }
    if cleared == mode {
        return Ok(());
    }
    rustix::fs::chmod(file, Mode::from_raw_mode(cleared & 0o7777))
}

/// What the call of a notification asks for.
#[expect(
    clippy::cast_possible_truncation,
    reason = "ids, descriptors and flags are the low halves of their registers"
)]
fn read_change(notification: &libc::seccomp_notif) -> rustix::io::Result<Change> {
    let process = notification.pid;
    let number = libc::c_long::from(notification.data.nr);
    let [first, second, third, fourth, fifth, _] = notification.data.args;
    let change = |folder: i32, path, follow, uid: u64, gid: u64| Change {
        process,
        folder,
        path,
        follow,
        uid: uid as u32,
        gid: gid as u32,
    };
    if number == libc::SYS_fchown {
        return Ok(change(first as i32, None, true, second, third));
    }
    if number == libc::SYS_fchownat {
        let flags = AtFlags::from_bits_retain(fifth as u32);
        let path = read_path(process, second)?;
        if path.as_os_str().is_empty() && !flags.contains(AtFlags::EMPTY_PATH) {
            return Err(Errno::NOENT);
        }
        let follow = !flags.contains(AtFlags::SYMLINK_NOFOLLOW);
        let path = Some(path).filter(|path| !path.as_os_str().is_empty());
        return Ok(change(first as i32, path, follow, third, fourth));
    }
    let path = read_path(process, first)?;
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT);
    }
    Ok(change(
        libc::AT_FDCWD,
        Some(path),
        follows(number),
        second,
        third,
    ))
}

/// Whether a call that names only a path follows a link at its end.
fn follows(number: libc::c_long) -> bool {
    #[cfg(target_arch = "x86_64")]
    return number != libc::SYS_lchown;
    #[cfg(not(target_arch = "x86_64"))]
    return number != libc::c_long::MAX;
}

/// Reads a path from the memory of a process.
fn read_path(process: u32, address: u64) -> rustix::io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let memory = File::open(format!("/proc/{process}/mem")).map_err(|_| Errno::PERM)?;
    let mut path = vec![0; PATH];
    // Reads stop where the next page is not there, which is past the end of a path.
    let length = memory
        .read_at(&mut path, address)
        .map_err(|_| Errno::FAULT)?;
    path.truncate(length);
    let end = path.iter().position(|byte| *byte == 0);
    path.truncate(end.ok_or(Errno::NAMETOOLONG)?);
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// Opens, as a place, the file that a change means, as its process would find it.
fn open(change: &Change) -> rustix::io::Result<OwnedFd> {
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let base = |name: &str| {
        let link = format!("/proc/{}/{name}", change.process);
        openat(CWD, link, place, Mode::empty())
    };
    let mut flags = place;
    if !change.follow {
        flags |= OFlags::NOFOLLOW;
    }
    match &change.path {
        Some(path) if path.is_absolute() => openat2(
            base("root").map_err(|_| Errno::PERM)?,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        ),
        path => {
            let folder = if change.folder == libc::AT_FDCWD {
                base("cwd").map_err(|_| Errno::PERM)?
            } else {
                base(&format!("fd/{}", change.folder)).map_err(|_| Errno::BADF)?
            };
            match path {
                None => Ok(folder),
                Some(path) => openat(folder, path, flags, Mode::empty()),
            }
        }
    }
}

/// The system's number of an error.
fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
