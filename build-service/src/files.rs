//! Files of build contexts, by the digest of their content. Every project has its own: whether another has the same
//! file is nobody's business.
//!
//! They are in a folder. Services that share none have them in an object store, and what they need of it in a folder of
//! their own.

use std::collections::BTreeSet;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fs_err::File;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use imagespec_bucket::Bucket;
use imagespec_build_api::{PACK, PACKED};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::files::ResolvedFiles;
use imagespec_core::host::Host;
use imagespec_core::plan::{BuildPlan, ContextEntry};
use tempfile::{NamedTempFile, TempPath};
use tokio_util::io::{StreamReader, SyncIoBridge};

/// How many files are on their way to or from an object store at once.
const AT_ONCE: usize = 16;
/// The folders of what is whole, and of what was broken off.
const WHOLE: &str = "files";
const PARTIAL: &str = "partial";
/// The folder of what is on its way.
const COMING: &str = "coming";

/// The files of all projects.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
    bucket: Option<Bucket>,
    /// How long a file stays that nobody asks about.
    keep: Duration,
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
    /// The files in a folder, and in the object store of a URL if there is one.
    pub(crate) fn open(
        root: &Path,
        bucket: Option<&str>,
        keep: Duration,
        host: &Host,
    ) -> Result<Self, BuildError> {
        for folder in [WHOLE, PARTIAL, COMING] {
            fs_err::create_dir_all(root.join(folder)).map_err(|error| {
                let message = format!("cannot keep anything in the folder: `{}`", root.display());
                BuildError::unwritten(message, "data", &error)
            })?;
        }
        Ok(Self {
            root: root.to_owned(),
            bucket: bucket
                .map(|url| Bucket::open(url, "files", host))
                .transpose()?,
            keep,
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

    /// Those of some files that are not there. The others stay for some time: whoever asks is about to use them.
    pub(crate) async fn missing(
        &self,
        project: &str,
        files: Vec<Digest>,
    ) -> Result<Vec<Digest>, BuildError> {
        let folder = self.clone();
        let named = project.to_owned();
        let missing = tokio::task::spawn_blocking(move || {
            let mut files = files;
            files.retain(|digest| !folder.has(&named, digest));
            files
        });
        let missing = missing.await.map_err(|error| lost(&error))?;
        let Some(bucket) = &self.bucket else {
            return Ok(missing);
        };
        // What is older could be removed before it is used, and comes again.
        let newer = before(self.keep / 2);
        let asked = stream::iter(missing.into_iter().map(|digest| async move {
            let has = bucket.has(&name(project, &digest), newer).await;
            has.map(|has| (!has).then_some(digest))
        }));
        let found: Vec<_> = asked
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .map_err(|error| lost(&error))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether a file is in the folder.
    fn has(&self, project: &str, digest: &Digest) -> bool {
        let Ok(file) = File::options()
            .append(true)
            .open(self.whole(project, digest))
        else {
            return false;
        };
        if self.bucket.is_some() {
            // It was in the store when it came here, and stays there for as long again.
            let modified = file.metadata().and_then(|metadata| metadata.modified());
            return modified.is_ok_and(|modified| modified > before(self.keep / 2));
        }
        // One that cannot be marked is as old as it was.
        let _ = file.file().set_modified(SystemTime::now());
        true
    }

    /// Keeps files that came whole, first where the other services see them, too.
    async fn settle(&self, project: &str, came: Vec<Came>) -> Result<(), Refused> {
        if let Some(bucket) = &self.bucket {
            let puts = came.iter().map(|(digest, file)| {
                let (name, file) = (name(project, digest), file.to_path_buf());
                async move { bucket.put(&name, &file).await }
            });
            let puts: Vec<_> = puts.collect();
            let puts = stream::iter(puts).buffer_unordered(AT_ONCE);
            puts.try_collect::<()>().await?;
        }
        let files = self.clone();
        let project = project.to_owned();
        blocking(move || {
            for (digest, file) in came {
                files.keep(&project, &digest, file)?;
            }
            Ok(())
        })
        .await
    }

    /// Brings the files of a plan here that are in the object store.
    pub(crate) async fn bring(&self, project: &str, plan: &BuildPlan) -> Result<(), BuildError> {
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        let files = plan.files.values().filter_map(|entry| match entry {
            ContextEntry::File { digest, .. } => Some(*digest),
            _ => None,
        });
        let files: BTreeSet<_> = files
            .filter(|digest| !self.whole(project, digest).is_file())
            .collect();
        let brought = stream::iter(files.into_iter().map(|digest| async move {
            let name = name(project, &digest);
            let content = bucket.get(&name).await.map_err(|error| lost(&error))?;
            let content = content.map_err(io::Error::other);
            match self.receive(project, &digest, content).await {
                Ok(()) => Ok(()),
                Err(Refused::Io(error)) => Err(lost(&error)),
                Err(_) => {
                    let removed = bucket.remove(&name).await;
                    let error = BuildError::failed(format!(
                        "the object store had another content, which is removed: `{name}`"
                    ));
                    Err(match removed {
                        Ok(()) => error.hint(AGAIN),
                        Err(removed) => error.caused_by(&removed),
                    })
                }
            }
        }));
        brought.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Takes a file that the object store has.
    async fn receive<E>(
        &self,
        project: &str,
        digest: &Digest,
        content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), Refused> {
        let mut file = self.coming()?;
        fill(&mut file, content, u64::MAX).await?;
        let (digest, file) = verified(*digest, file).await?;
        Ok(self.keep(project, &digest, file)?)
    }

    /// How much of a file is there that was broken off.
    pub(crate) fn offset(&self, project: &str, digest: &Digest) -> u64 {
        fs_err::metadata(self.partial(project, digest)).map_or(0, |metadata| metadata.len())
    }

    fn coming(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join(COMING))
    }

    /// Keeps a file that came whole, and is on the disk.
    fn keep(&self, project: &str, digest: &Digest, file: TempPath) -> io::Result<()> {
        let to = self.whole(project, digest);
        if let Some(folder) = to.parent() {
            fs_err::create_dir_all(folder)?;
        }
        file.persist(to).map_err(|error| error.error)
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
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
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
        match fill(&mut file, body, limit.saturating_sub(offset)).await {
            Err(Refused::Wrong(message)) => {
                self.keep_part(project, digest, file)?;
                return Err(Refused::Wrong(message));
            }
            Err(Refused::TooLarge(_)) => return Err(Refused::TooLarge(limit)),
            filled => filled?,
        }
        let came = verified(*digest, file).await?;
        self.settle(project, vec![came]).await
    }

    /// Takes many small files: an archive in tar's format, whose entries are named by their digests in hexadecimal.
    pub(crate) async fn take_pack<E: Send + 'static>(
        &self,
        project: &str,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    ) -> Result<(), Refused> {
        let broken = |_| io::Error::other("the upload was broken off");
        let body = body.map(move |bytes| bytes.map_err(broken));
        let reader = SyncIoBridge::new(StreamReader::new(body));
        let files = self.clone();
        let came = blocking(move || files.unpack(reader)).await?;
        self.settle(project, came).await
    }

    fn unpack(&self, reader: impl Read) -> Result<Vec<Came>, Refused> {
        // Names and padding come on top of the files.
        let mut archive = tar::Archive::new(reader.take(2 * PACK));
        let mut came = Vec::new();
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
            if !SYNCS_AT_ONCE {
                file.as_file().sync_all()?;
            }
            // Many files that are open would be too many.
            came.push((digest, file.into_temp_path()));
        }
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unread)?;
        if came.is_empty() {
            return Err(Refused::Wrong("the pack holds no files".to_owned()));
        }
        sync(&self.root)?;
        Ok(came)
    }

    /// The files of a plan, and what all of them have of bytes.
    pub(crate) fn of(plan: &BuildPlan) -> (Vec<Digest>, u64) {
        let mut files = BTreeSet::new();
        let mut bytes = 0_u64;
        for entry in plan.files.values() {
            if let ContextEntry::File { digest, size, .. } = entry {
                bytes = bytes.saturating_add(*size);
                files.insert(*digest);
            }
        }
        (files.into_iter().collect(), bytes)
    }

    /// The files of a plan for whoever builds it, who finds out about one that is damaged.
    pub(crate) fn for_plan(&self, project: &str, plan: &BuildPlan) -> ResolvedFiles {
        let mut files = ResolvedFiles::default();
        for (path, entry) in &plan.files {
            if let ContextEntry::File { digest, .. } = entry {
                files.insert_file(path.clone(), self.whole(project, digest), *digest);
            }
        }
        files
    }

    /// Removes files of a plan that have another content than they are named by, so that they are sent again; says
    /// so of an error that may come of them.
    pub(crate) async fn mended(
        &self,
        project: &str,
        plan: &BuildPlan,
        error: BuildError,
    ) -> BuildError {
        let files: Vec<_> = Self::of(plan).0;
        let (this, project) = (self.clone(), project.to_owned());
        let looked = blocking(move || {
            let mut removed = 0_usize;
            for digest in files {
                let path = this.whole(&project, &digest);
                let Ok(mut file) = File::open(&path) else {
                    continue;
                };
                if Digest::of_reader(&mut file)?.0 != digest {
                    fs_err::remove_file(&path)?;
                    removed += 1;
                }
            }
            Ok(removed)
        });
        match looked.await {
            Ok(0) | Err(_) => error,
            Ok(removed) => error
                .context(format!(
                    "{removed} of the build context's files were damaged at the service, and are removed there"
                ))
                .hint(AGAIN),
        }
    }

    /// Removes what nobody has asked about for some time.
    pub(crate) async fn collect(&self) -> Result<(), BuildError> {
        let limit = before(self.keep);
        let files = self.clone();
        let collected = tokio::task::spawn_blocking(move || files.collect_here(limit)).await;
        collected
            .map_err(io::Error::other)
            .and_then(|collected| collected)
            .map_err(|error| lost(&error))?;
        if let Some(bucket) = &self.bucket {
            let collected = bucket.collect(WHOLE, limit).await;
            collected.map_err(|error| lost(&error))?;
        }
        Ok(())
    }

    fn collect_here(&self, limit: SystemTime) -> io::Result<()> {
        let mut open: Vec<_> = [WHOLE, PARTIAL, COMING]
            .map(|name| self.root.join(name))
            .into();
        while let Some(folder) = open.pop() {
            for entry in fs_err::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    open.push(entry.path());
                } else if metadata.modified()? < limit {
                    fs_err::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// What helps where a file is not what it was when it came.
const AGAIN: &str = "ask for the build once more: what is missing is sent again";

/// Whether all files of a folder can be brought to the disk at once: for thousands of small ones that is what takes long.
const SYNCS_AT_ONCE: bool = cfg!(target_os = "linux");

/// Brings whatever was written below a folder to the disk.
#[cfg(target_os = "linux")]
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Where that cannot be asked for, each file was brought by itself.
#[cfg(not(target_os = "linux"))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A file that has the content of a digest, and is on the disk.
type Came = (Digest, TempPath);

/// A file that came, where it has the content that it should.
async fn verified(digest: Digest, file: NamedTempFile) -> Result<Came, Refused> {
    blocking(move || {
        let (found, _) = Digest::of_reader(&mut File::open(file.path())?)?;
        if found != digest {
            let message = format!("the content is not that of `{digest}` but of `{found}`");
            return Err(Refused::Wrong(message));
        }
        file.as_file().sync_all()?;
        Ok((digest, file.into_temp_path()))
    })
    .await
}

/// Where an object store has a file.
fn name(project: &str, digest: &Digest) -> String {
    format!("{WHOLE}/{project}/{}", digest.hex())
}

/// So long ago.
fn before(time: Duration) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn lost(error: &(dyn std::error::Error + 'static)) -> BuildError {
    BuildError::unavailable("the build service cannot reach files of build contexts")
        .caused_by(error)
}

/// Writes what a stream has to the end of a file: at most so many bytes.
async fn fill<E>(
    file: &mut NamedTempFile,
    mut content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    limit: u64,
) -> Result<(), Refused> {
    let mut length = 0;
    while let Some(bytes) = content.next().await {
        let bytes = bytes.map_err(|_| Refused::Wrong("the upload was broken off".to_owned()))?;
        length += bytes.len() as u64;
        if length > limit {
            return Err(Refused::TooLarge(limit));
        }
        file.as_file_mut().write_all(&bytes)?;
    }
    Ok(())
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
