//! How much the processes of a sandbox use, looked at while they run.
//!
//! Control groups would count exactly, but are rarely delegated to who has no root, and resource limits count a
//! user's processes everywhere, or root's not at all. The first process sees all others and can end them at
//! once, on every tier.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatvfs, openat, statat, statvfs};

use crate::job::{Limit, Limits};

/// How often it is looked.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long the changes are not walked at most, if that is quick.
const WALK: Duration = Duration::from_secs(5);
/// Bytes of the disk that are never used, or a hundredth of a small one.
const RESERVE: u64 = 128 << 20;
/// Bytes of the blocks in which `st_blocks` counts.
const BLOCK: u64 = 512;

/// The watch over one sandbox.
pub(super) struct Watch {
    limits: Limits,
    started: Instant,
    /// The changes.
    upper: File,
    /// Bytes of the changes when they were walked last, and those used of the disk then.
    walked: (u64, u64),
    next_walk: Instant,
}

impl Watch {
    /// A watch that starts now, over the changes in the folder `upper`.
    pub(super) fn new(limits: Limits, upper: &Path) -> io::Result<Self> {
        let upper = File::from(rustix::fs::open(upper, FOLDER, Mode::empty())?);
        let mut watch = Self {
            limits,
            started: Instant::now(),
            upper,
            walked: (0, 0),
            next_walk: Instant::now(),
        };
        if limits.disk.is_some() {
            watch.walk();
        }
        Ok(watch)
    }

    /// How long to wait before looking again; forever where there is nothing to look at.
    pub(super) fn interval(&self) -> Option<&'static Timespec> {
        let Limits {
            memory,
            processes,
            seconds,
            disk,
            ..
        } = self.limits;
        let any = [memory, processes, seconds, disk];
        any.iter().any(Option::is_some).then_some(&INTERVAL)
    }

    /// What is used more of than may be.
    pub(super) fn exceeded(&mut self) -> Option<Limit> {
        let over = |used: u64, bound: Option<u64>| bound.is_some_and(|bound| used > bound);
        if over(self.started.elapsed().as_secs(), self.limits.seconds) {
            return Some(Limit::Seconds);
        }
        if self.limits.processes.is_some() || self.limits.memory.is_some() {
            // Counted first: to read of each takes long where there are many.
            if over(processes().count() as u64, self.limits.processes) {
                return Some(Limit::Processes);
            }
            let (threads, resident) = usage();
            if over(threads, self.limits.processes) {
                return Some(Limit::Processes);
            }
            let shared = shared_memory();
            // Pages that several have count once; to find that takes longer.
            if over(resident + shared, self.limits.memory)
                && over(proportional() + shared, self.limits.memory)
            {
                return Some(Limit::Memory);
            }
        }
        self.limits.disk.and_then(|bound| self.disk(bound))
    }

    fn disk(&mut self, bound: u64) -> Option<Limit> {
        let disk = fstatvfs(&self.upper).ok()?;
        let (left, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let used = size.saturating_sub(disk.f_bfree * disk.f_frsize);
        let (walked, before) = self.walked;
        if walked + used.saturating_sub(before) > bound || Instant::now() > self.next_walk {
            self.walk();
        }
        if self.walked.0 > bound {
            return Some(Limit::Disk);
        }
        // What was full before the command started is not its fault, and it will notice by itself.
        (left < RESERVE.min(size / 100) && used > before).then_some(Limit::Full)
    }

    fn walk(&mut self) {
        let start = Instant::now();
        let disk = fstatvfs(&self.upper);
        let used = disk.map_or(0, |disk| (disk.f_blocks - disk.f_bfree) * disk.f_frsize);
        self.walked = (bytes_below(&self.upper), used);
        self.next_walk = Instant::now() + WALK.max(start.elapsed() * 20);
    }
}

/// Bounds the process ids of this process's namespace, so that a fork bomb ends nobody else's forks before it is
/// noticed. Only since Linux 6.14 is that bound the namespace's own; before, it is the whole machine's.
pub(super) fn bound_processes(limits: &Limits) -> io::Result<()> {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    let Some(processes) = limits.processes.filter(|_| (major, minor) >= (6, 14)) else {
        return Ok(());
    };
    // Those below 300 are not given again once they were used.
    let bound = processes.saturating_mul(2).saturating_add(301).min(1 << 22);
    fs_err::write("/proc/sys/kernel/pid_max", bound.to_string())
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Bytes on the disk of what is below a folder. What cannot be read at the moment is not counted.
fn bytes_below(folder: &File) -> u64 {
    let Ok(mut pending) = folder.try_clone().map(|folder| vec![folder]) else {
        return 0;
    };
    let mut bytes = 0;
    while let Some(folder) = pending.pop() {
        for entry in Dir::read_from(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(status) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let links = u64::from(u32::try_from(status.st_nlink).unwrap_or(1).max(1));
            let size = u64::try_from(status.st_blocks).unwrap_or(0) * BLOCK;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                bytes += size;
                let opened = openat(&folder, name, FOLDER, Mode::empty());
                pending.extend(opened.map(File::from));
            } else {
                bytes += size / links;
            }
        }
    }
    bytes
}

/// The processes of this process namespace; none where `/proc` shows those of another.
fn processes() -> impl Iterator<Item = String> {
    let own = fs_err::read_link("/proc/self").is_ok_and(|own| own == Path::new("1"));
    let entries = own.then(|| fs_err::read_dir("/proc").into_iter().flatten().flatten());
    let names = entries.into_iter().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "1" && name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// How many processes and threads there are, and the bytes they hold in memory, shared ones as often as they
/// are held.
fn usage() -> (u64, u64) {
    let page = rustix::param::page_size() as u64;
    let (mut count, mut resident) = (0, 0);
    for process in processes() {
        let Some(status) = read(&format!("/proc/{process}/stat")) else {
            continue;
        };
        // The name in it may hold anything but ends at the last bracket; then come fields 3 and on.
        let fields = status.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |number: usize| {
            let mut fields = fields.split_ascii_whitespace();
            fields.nth(number - 3).and_then(|field| field.parse().ok())
        };
        count += field(20).unwrap_or(1_u64).max(1);
        resident += field(24).unwrap_or(0_u64) * page;
    }
    (count, resident)
}

/// The bytes that processes hold in memory, shared ones once.
fn proportional() -> u64 {
    let of = |process: String| {
        let text = read(&format!("/proc/{process}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kilobytes << 10)
    };
    processes().filter_map(of).sum()
}

/// Bytes in `/dev/shm`.
fn shared_memory() -> u64 {
    statvfs("/dev/shm").map_or(0, |shared| {
        (shared.f_blocks - shared.f_bfree) * shared.f_frsize
    })
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    let mut file = File::open(path).ok()?.take(64 << 10);
    file.read_to_string(&mut text).ok()?;
    Some(text)
}
