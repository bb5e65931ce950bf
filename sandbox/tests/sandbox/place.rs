//! A folder with a small root file system, for one test and one tier.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::host::Host;
use imagespec_oci::layer::{LayerWriter, Metadata};
use imagespec_sandbox::{Error, Exit, Job, Mount, Tier, Workspace, changes, run, unpack};
use tokio_util::sync::CancellationToken;

/// An entry of the layer of changes.
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mode: u32,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

pub(crate) struct Place {
    pub(crate) host: Host,
    pub(crate) tier: Tier,
    /// Whom the jobs run as.
    pub(crate) ids: (u32, u32),
    pub(crate) workspace: Workspace,
    folder: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        imagespec_sandbox::remove_tree(self.folder.path()).unwrap();
    }
}

impl Place {
    pub(crate) fn new(tier: Tier) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let init = std::env::var_os(super::UNPRIVILEGED)
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_imagespec-sandbox-init").into());
        let host = Host {
            cache_dir: folder.path().join("cache"),
            sandbox_init: vec![PathBuf::from(init)],
            ..Host::default()
        };
        let workspace = Workspace::new_in(folder.path(), "workspace-").unwrap();
        let place = Self {
            host,
            tier,
            ids: (0, 0),
            workspace,
            folder,
        };
        unpack(&root_file_system()[..], &place.folder("base"), tier).unwrap();
        place
    }

    /// An empty folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The folders that jobs need while they run.
    pub(crate) fn scratch(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.workspace.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".sandbox-")).collect()
    }

    /// A job over the root file system that keeps its changes.
    pub(crate) fn job(&self, argv: &[&str]) -> Job {
        let mut job = Job::new(vec![self.folder("base")], argv.iter().copied());
        job.workspace = Some(self.workspace.clone());
        (job.uid, job.gid) = self.ids;
        job.env = vec![("PATH".into(), "/bin".into())];
        job
    }

    pub(crate) async fn run(&self, job: &Job) -> Result<(Exit, Vec<String>), Error> {
        let mut lines = Vec::new();
        let cancel = CancellationToken::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let exit = run(&self.host, job, self.tier, &mut keep, &cancel).await?;
        Ok((exit, lines))
    }

    /// A job that runs a Python program with the host's interpreter.
    pub(crate) fn python(&self, program: &str) -> Job {
        let mut job = self.job(&["/usr/bin/python3", "-I", "-S", "-c", program]);
        let folders = ["/usr", "/lib", "/lib64"].into_iter();
        let folders = folders.filter(|folder| Path::new(folder).is_dir());
        job.mounts = folders
            .map(|folder| Mount {
                source: folder.into(),
                target: folder.into(),
                writable: false,
            })
            .collect();
        job
    }

    /// The changes as an uncompressed layer.
    pub(crate) fn layer(&self, exclude: &[PathBuf]) -> Vec<u8> {
        let parents = |_: &[u8]| Metadata::new(0o755, 0);
        let mut writer = LayerWriter::new(
            Vec::new(),
            imagespec_core::context::Compression::Gzip,
            parents,
        )
        .unwrap();
        changes::write(
            &self.workspace.upper(),
            self.tier,
            self.ids,
            &mut writer,
            exclude,
        )
        .unwrap();
        let (bytes, _) = writer.finish().unwrap();
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut tar)
            .unwrap();
        tar
    }

    /// The entries of the layer of changes, in order.
    pub(crate) fn changes(&self, exclude: &[PathBuf]) -> Vec<Entry> {
        let layer = self.layer(exclude);
        let mut archive = tar::Archive::new(&layer[..]);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut xattrs = BTreeMap::new();
                if let Some(extensions) = entry.pax_extensions().unwrap() {
                    for extension in extensions.map(Result::unwrap) {
                        let key = extension.key().unwrap();
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                            xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                        }
                    }
                }
                let path = entry
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .trim_end_matches('/')
                    .to_owned();
                let header = entry.header();
                let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
                Entry {
                    path,
                    uid,
                    gid,
                    mode: header.mode().unwrap(),
                    xattrs,
                }
            })
            .collect()
    }

    /// The changes, unpacked into a folder of their own.
    pub(crate) fn unpack_changes(&self) -> PathBuf {
        let folder = self.folder("unpacked");
        unpack(&self.layer(&[])[..], &folder, self.tier).unwrap();
        folder
    }
}

/// A tar of a root file system with busybox, a user, a link to a folder, and a program with a capability.
fn root_file_system() -> Vec<u8> {
    use tar::EntryType::{Directory, Regular, Symlink};
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("busybox-static is installed");
    let busybox = std::fs::read(busybox).unwrap();
    let passwd = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
    let group = b"root:x:0:\nuser:x:1000:\n";
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, mode, owner, content) in [
        ("bin", Directory, 0o755, 0, &b""[..]),
        ("etc", Directory, 0o755, 0, b""),
        ("home", Directory, 0o755, 0, b""),
        ("srv", Directory, 0o755, 0, b""),
        ("mnt", Directory, 0o755, 0, b""),
        ("bin/busybox", Regular, 0o755, 0, &busybox),
        ("etc/passwd", Regular, 0o644, 0, passwd),
        ("etc/group", Regular, 0o644, 0, group),
        ("etc/motd", Regular, 0o644, 0, b"hello\n"),
        ("home/user", Directory, 0o755, 1000, b""),
        ("home/user/file", Regular, 0o444, 1000, b"old\n"),
        ("home/user/other", Regular, 0o644, 1000, b""),
        ("linked", Symlink, 0o777, 0, b"/srv"),
    ] {
        add(&mut tar, path, kind, (mode, owner), content);
    }
    for name in PROGRAMS.split_whitespace() {
        let path = format!("bin/{name}");
        add(&mut tar, &path, Symlink, (0o777, 0), b"busybox");
    }
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", super::CAPABILITY)])
        .unwrap();
    add(&mut tar, "bin/capable", Regular, (0o755, 0), b"");
    tar.into_inner().unwrap()
}

const PROGRAMS: &str = "sh echo id mkdir ln mkfifo chown mv cp su true cat rm ls test wc sleep setsid hostname \
                        pwd mount grep chmod dd yes mknod";

/// Adds an entry of a mode and an owner; the content of a link is where it leads.
fn add(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    (mode, owner): (u32, u64),
    content: &[u8],
) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_000_000_000);
    if kind.is_symlink() {
        header.set_size(0);
        let target = std::str::from_utf8(content).unwrap();
        tar.append_link(&mut header, path, target).unwrap();
    } else {
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
}
