//! Files of build contexts, by the digest of their content. Every project has its own: whether another has the same
//! file is nobody's business.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fs_err::File;
use futures::{Stream, StreamExt as _};
use imagespec_build_api::{PACK, PACKED};
use imagespec_core::context::ContextFiles;
use imagespec_core::digest::Digest;
use imagespec_core::plan::{BuildPlan, ContextEntry};
use tempfile::NamedTempFile;
use tokio_util::io::{StreamReader, SyncIoBridge};

/// The folders of what is whole, and of what was broken off.
const WHOLE: &str = "files";
const PARTIAL: &str = "partial";
/// The folder of what is on its way.
const COMING: &str = "coming";

/// The files of all projects.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// What came is something else than was said.
    Wrong(String),
    /// It does not go on where the last part ended, which is here.
    Elsewhere(u64),
    /// It is too large.
    TooLarge(u64),
    /// It cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Files {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for folder in [WHOLE, PARTIAL, COMING] {
            fs_err::create_dir_all(root.join(folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    fn whole(&self, project: &str, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let folder = self.root.join(WHOLE).join(project).join(&hex[..2]);
        folder.join(hex)
    }

    fn partial(&self, project: &str, digest: &Digest) -> PathBuf {
        self.root.join(PARTIAL).join(project).join(digest.hex())
    }

    /// Whether a file is there. It stays for some time, then: whoever asks is about to use it.
    pub(crate) fn has(&self, project: &str, digest: &Digest) -> bool {
        let Ok(file) = File::options()
            .append(true)
            .open(self.whole(project, digest))
        else {
            return false;
        };
        // One that cannot be marked is as old as it was.
        let _ = file.file().set_modified(SystemTime::now());
        true
    }

    /// How much of a file is there that was broken off.
    pub(crate) fn offset(&self, project: &str, digest: &Digest) -> u64 {
        fs_err::metadata(self.partial(project, digest)).map_or(0, |metadata| metadata.len())
    }

    fn coming(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join(COMING))
    }

    /// Keeps a file that came whole.
    fn keep(&self, project: &str, digest: &Digest, file: NamedTempFile) -> io::Result<()> {
        let to = self.whole(project, digest);
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        file.as_file().sync_all()?;
        file.persist(to).map_err(|error| error.error).map(drop)
    }

    /// Keeps what came of a file that was broken off, where it is more than there was.
    fn keep_part(&self, project: &str, digest: &Digest, file: NamedTempFile) -> io::Result<()> {
        let to = self.partial(project, digest);
        let length = file.as_file().metadata()?.len();
        if length == 0 || length <= self.offset(project, digest) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        file.persist(to).map_err(|error| error.error).map(drop)
    }

    /// Takes a file, or the rest of one from `offset` on.
    pub(crate) async fn take<E>(
        &self,
        project: &str,
        digest: &Digest,
        offset: u64,
        limit: u64,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), Refused> {
        let mut file = self.coming()?;
        if offset > 0 {
            let partial = self.partial(project, digest);
            // Whoever moves it goes on with it: nobody else does.
            let moved = fs_err::rename(&partial, file.path());
            let there = match moved {
                Ok(()) => {
                    file = reopened(file)?;
                    file.as_file().metadata()?.len()
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error.into()),
            };
            if there != offset {
                self.keep_part(project, digest, file)?;
                return Err(Refused::Elsewhere(there));
            }
        }
        let mut length = offset;
        while let Some(bytes) = body.next().await {
            let Ok(bytes) = bytes else {
                self.keep_part(project, digest, file)?;
                return Err(Refused::Wrong("the upload was broken off".to_owned()));
            };
            length += bytes.len() as u64;
            if length > limit {
                return Err(Refused::TooLarge(limit));
            }
            let written = file.as_file_mut().write_all(&bytes);
            written?;
        }
        let files = self.clone();
        let (project, digest) = (project.to_owned(), *digest);
        blocking(move || {
            let (found, _) = Digest::of_reader(&mut File::open(file.path())?)?;
            if found != digest {
                let message = format!("the content is not that of `{digest}` but of `{found}`");
                return Err(Refused::Wrong(message));
            }
            Ok(files.keep(&project, &digest, file)?)
        })
        .await
    }

    /// Takes many small files: an archive in tar's format, whose entries are named by their digests in hexadecimal.
    pub(crate) async fn take_pack<E: Send + 'static>(
        &self,
        project: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    ) -> Result<usize, Refused> {
        let broken = |_| io::Error::other("the upload was broken off");
        let body = body.map(move |bytes| bytes.map_err(broken));
        let reader = SyncIoBridge::new(StreamReader::new(body));
        let files = self.clone();
        let project = project.to_owned();
        blocking(move || files.unpack(&project, reader)).await
    }

    fn unpack(&self, project: &str, reader: impl Read) -> Result<usize, Refused> {
        // Names and padding come on top of the files.
        let mut archive = tar::Archive::new(reader.take(2 * PACK));
        let mut count = 0;
        let unread = |error: io::Error| Refused::Wrong(format!("the pack cannot be read: {error}"));
        for entry in archive.entries().map_err(unread)? {
            let mut entry = entry.map_err(unread)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let digest: Digest = format!("sha256:{name}").parse().map_err(|_| {
                Refused::Wrong(format!("an entry of the pack has no digest: `{name}`"))
            })?;
            if entry.size() > PACKED {
                return Err(Refused::TooLarge(PACKED));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(unread)?;
            if Digest::of(&content) != digest {
                let message = format!("the content is not that of `{digest}`");
                return Err(Refused::Wrong(message));
            }
            let mut file = self.coming()?;
            file.write_all(&content)?;
            self.keep(project, &digest, file)?;
            count += 1;
        }
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unread)?;
        if count == 0 {
            return Err(Refused::Wrong("the pack holds no files".to_owned()));
        }
        Ok(count)
    }

    /// The files of a plan that are not there, and what all of them have of bytes.
    pub(crate) fn lacking(&self, project: &str, plan: &BuildPlan) -> (Vec<Digest>, u64) {
        let mut lacking = Vec::new();
        let mut bytes = 0;
        for entry in plan.files.values() {
            if let ContextEntry::File { digest, size, .. } = entry {
                bytes += size;
                if !self.has(project, digest) {
                    lacking.push(*digest);
                }
            }
        }
        (lacking, bytes)
    }

    /// Removes what nobody has asked about for some time.
    pub(crate) fn collect(&self, unused: Duration) -> io::Result<u64> {
        let Some(limit) = SystemTime::now().checked_sub(unused) else {
            return Ok(0);
        };
        let mut open: Vec<_> = [WHOLE, PARTIAL, COMING]
            .map(|name| self.root.join(name))
            .into();
        let mut count = 0;
        while let Some(folder) = open.pop() {
            for entry in fs_err::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    open.push(entry.path());
                } else if metadata.modified()? < limit {
                    fs_err::remove_file(entry.path())?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}

/// The same temporary file, where another took its place.
fn reopened(file: NamedTempFile) -> io::Result<NamedTempFile> {
    let path = file.into_temp_path();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)?;
    Ok(NamedTempFile::from_parts(file, path))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Refused::Io(io::Error::other(error))),
    }
}

/// The files of a plan, for whoever builds it.
#[derive(Debug)]
pub(crate) struct OfPlan {
    pub(crate) files: Files,
    pub(crate) project: String,
    pub(crate) plan: BuildPlan,
}

impl ContextFiles for OfPlan {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        let Some(ContextEntry::File { digest, .. }) = self.plan.files.get(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let file = self.files.whole(&self.project, digest);
        Ok(Box::new(File::open(file)?))
    }
}
