//! What to run, in which root file system, and how it ended.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;

/// How much the machine lets a sandbox do. Snapshots and upper directories belong to the tier they were
/// made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Real root: files have their real owners.
    Root,
    /// A user namespace in which one id exists, the caller's under another name. Every file belongs to it;
    /// other owners are recorded beside the files.
    SingleId,
}

impl Tier {
    /// The tier's name, which is also the folder of its snapshots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::SingleId => "single-id",
        }
    }

    /// The prefix of the extended attributes by which the overlay marks its own facts.
    pub(crate) const fn overlay_prefix(self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.",
            Self::SingleId => "user.overlay.",
        }
    }
}

/// The network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The host's, with the host's `/etc/resolv.conf` and `/etc/hosts`.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    Isolated,
}

/// A file or folder of the host inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The host's file or folder, an absolute path.
    pub source: PathBuf,
    /// Where it appears, an absolute path in the sandbox. Missing parents are created, and leave no trace
    /// among the changes.
    pub target: PathBuf,
    /// Whether the command may write to it.
    pub writable: bool,
}

/// A command and the root file system it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Folders of unpacked layers, the lowest first; at least one, at most 480.
    pub layers: Vec<PathBuf>,
    /// Where changes are kept, which may hold those of earlier jobs. `None` discards them.
    #[serde(skip)]
    pub workspace: Option<Workspace>,
    /// The program and its arguments; the program is looked up in `PATH` of `env` if it has no slash.
    pub argv: Vec<String>,
    /// The whole environment, in order; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working directory, made if missing.
    pub cwd: PathBuf,
    /// The user the command runs as: 0 for builds.
    pub uid: u32,
    /// The group the command runs as.
    pub gid: u32,
    /// Files and folders of the host to see inside, mounted in order.
    pub mounts: Vec<Mount>,
    /// The network the command sees.
    pub network: Network,
    /// The host name the command sees.
    pub hostname: String,
    /// What the command, with everything it starts, may use.
    pub limits: Limits,
}

/// What a command may use, with everything it starts; `None`: as much as there is. Memory, processes and disk
/// are looked at ten times a second, so that more may be used for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, those of `/dev/shm` included.
    pub memory: Option<u64>,
    /// Processes and threads at a time.
    pub processes: Option<u64>,
    /// Seconds from start to end.
    pub seconds: Option<u64>,
    /// Bytes of output. It is counted where lines are read: by [`run`](fn@crate::run) alone.
    pub output: Option<u64>,
    /// Bytes of changes on the disk. With any bound, the command also ends before it fills the disk.
    pub disk: Option<u64>,
}

/// What a command used more of than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Bytes of memory.
    Memory,
    /// Processes and threads.
    Processes,
    /// Seconds.
    Seconds,
    /// Bytes of output.
    Output,
    /// Bytes of changes.
    Disk,
    /// All that the disk has.
    Full,
}

impl Limits {
    /// The bound of one kind.
    pub const fn of(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::Memory => self.memory,
            Limit::Processes => self.processes,
            Limit::Seconds => self.seconds,
            Limit::Output => self.output,
            Limit::Disk | Limit::Full => self.disk,
        }
    }
}

impl Job {
    /// A job that runs `argv` as root over `layers`, in `/`, with an empty environment, the host's network,
    /// and changes discarded.
    pub fn new(layers: Vec<PathBuf>, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            layers,
            workspace: None,
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: 0,
            gid: 0,
            mounts: Vec::new(),
            network: Network::default(),
            hostname: "imagespec".to_owned(),
            limits: Limits::default(),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It exited with a code.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
}

impl Exit {
    /// Whether the command succeeded.
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The exit code a shell would report: 128 and the signal's number where a signal ended the command.
    pub const fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }
}
