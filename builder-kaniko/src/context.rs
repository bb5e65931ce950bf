//! The build context as one compressed archive.

use std::io::{self, Seek as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_dockerfile::Tree;
use tokio::runtime::Handle;

use crate::job::Way;

/// What fits into a `ConfigMap` in base64 beside its name: 1 MiB is for the whole object.
const LARGEST: u64 = 700 << 10;

/// A context, ready to be sent.
#[derive(Debug)]
pub(crate) struct Archive {
    file: tempfile::NamedTempFile,
    pub(crate) size: u64,
}

impl Archive {
    /// Packs a context into a file of the cache. Blocks, and needs somebody at the door of the tree.
    pub(crate) fn pack(tree: &Tree, handle: &Handle, cache: &Path) -> io::Result<Self> {
        fs_err::create_dir_all(cache)?;
        let file = tempfile::Builder::new()
            .prefix(".context-")
            .tempfile_in(cache)?;
        // Most of it is one program; a network is seldom faster than this.
        let out = io::BufWriter::new(file.as_file());
        let mut gzip = GzEncoder::new(out, Compression::fast());
        tree.write(handle, &mut gzip)?;
        gzip.finish()?.flush()?;
        let size = file.as_file().metadata()?.len();
        Ok(Self { file, size })
    }

    /// How it gets into a pod, where it may wait for that in an object store or not.
    pub(crate) fn way(&self, has_store: bool) -> Way {
        if self.size <= LARGEST {
            Way::Mounted
        } else if has_store {
            Way::Stored
        } else {
            Way::Streamed
        }
    }

    /// Its size, for people.
    pub(crate) fn megabytes(&self) -> String {
        let tenths = self.size / 100_000;
        format!("{}.{} MB", tenths / 10, tenths % 10)
    }

    /// Where it is on this machine.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The digest of all of it. Blocks.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        let mut file = fs_err::File::open(self.path())?;
        Digest::of_reader(&mut file).map(|(digest, _)| digest)
    }

    /// All of it, where it is small.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, BuildError> {
        fs_err::read(self.path()).map_err(|error| unread(&error))
    }

    /// The file from its beginning.
    pub(crate) fn open(&self) -> Result<tokio::fs::File, BuildError> {
        let file = self.file.reopen().and_then(|mut file| {
            file.rewind()?;
            Ok(file)
        });
        file.map(tokio::fs::File::from_std)
            .map_err(|error| unread(&error))
    }
}

/// The error of a context that cannot be packed or read again.
pub(crate) fn unread(error: &io::Error) -> BuildError {
    BuildError::failed("cannot pack the build context").caused_by(error)
}
