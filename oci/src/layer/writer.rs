//! The writer of layers.

use std::io::{self, Read, Write};

use crc32fast::Hasher as Crc;
use flate2::{Decompress, FlushDecompress, Status};
use imagespec_core::context::Compression;
use imagespec_core::contract::{self, USER_ID};
use imagespec_core::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::LayerError;
use super::compress::Compressor;
use super::header::{BLOCK, Device, Entry, Metadata, encode};
use super::path::{Kind, Paths, check, shown};

const BUFFER: usize = 64 * 1024;
const SHA256_BLOCK: usize = 64;

/// Writes a layer: a tar stream whose bytes depend on nothing but its entries, compressed and digested on the
/// way. Memory is bounded by buffers and the paths of the entries.
///
/// Paths are relative, without a leading or trailing slash. Folders above an entry are added before it, with
/// the metadata that `parents` gives them. After an error the layer must not be used.
pub struct LayerWriter<W: Write> {
    out: Compressor<W>,
    hash: Sha256,
    written: u64,
    paths: Paths,
    parents: fn(&[u8]) -> Metadata,
    /// Whose is what belongs to the user of images.
    owner: (u32, u32),
    media_type: &'static str,
    /// For what is read, and for what that inflates to.
    buffers: (Vec<u8>, Vec<u8>),
    inflater: Decompress,
}

/// A file whose content is a raw DEFLATE stream (RFC 1951), as zip archives hold it.
pub struct Deflated<'a> {
    /// Bytes it inflates to.
    pub size: u64,
    /// CRC-32 of what it inflates to.
    pub crc32: u32,
    /// Bytes of the stream.
    pub compressed_size: u64,
    /// Digest of what it inflates to, where that is known.
    pub digest: Option<Digest>,
    /// Whether the stream becomes a member of its own, untouched, where the compression is gzip of many. That
    /// costs no time, but some bytes: its header, that of the file, and what it has in common with others.
    pub pass: bool,
    /// The stream.
    pub data: &'a mut dyn Read,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the compressed layer.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// Uncompressed bytes.
    pub uncompressed_size: u64,
    /// OCI media type.
    pub media_type: &'static str,
    /// How many entries it has.
    pub entries: u64,
}

/// Metadata of folders as the contract of every image has it.
pub fn contract_parents(path: &[u8]) -> Metadata {
    let (mode, uid, gid) = contract::directory(path);
    Metadata {
        gid,
        ..Metadata::new(mode, uid)
    }
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer.
    pub fn new(
        out: W,
        compression: Compression,
        parents: fn(&[u8]) -> Metadata,
    ) -> Result<Self, LayerError> {
        let media_type = match compression {
            Compression::Gzip | Compression::GzipSingle => {
                "application/vnd.oci.image.layer.v1.tar+gzip"
            }
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Ok(Self {
            out: Compressor::new(out, compression)?,
            hash: Sha256::new(),
            written: 0,
            paths: Paths::default(),
            parents,
            owner: (USER_ID, USER_ID),
            media_type,
            buffers: (vec![0; BUFFER], vec![0; BUFFER]),
            inflater: Decompress::new(false),
        })
    }

    /// Gives what belongs to the user of images, folders above included, to a user and a group of other ids.
    pub fn belongs_to(&mut self, uid: u32, gid: u32) {
        self.owner = (uid, gid);
    }

    /// Adds a folder. One that the layer has already is left as it is.
    pub fn directory(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), LayerError> {
        check(path)?;
        self.add_parents(path)?;
        if self.paths.take(path, Kind::Directory)? {
            self.header(path, Entry::Directory, metadata)?;
        }
        Ok(())
    }

    /// Adds a regular file of exactly `size` bytes.
    pub fn file(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), LayerError> {
        self.entry(path, Entry::File(size), metadata)?;
        let wrong = |problem| LayerError::Content {
            path: shown(path),
            problem,
        };
        let mut buffer = std::mem::take(&mut self.buffers.0);
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            match read(content, &mut buffer[..most])? {
                0 => return Err(wrong("is shorter than it says")),
                count => {
                    self.write(&buffer[..count])?;
                    left -= count as u64;
                }
            }
        }
        if read(content, &mut buffer[..1])? != 0 {
            return Err(wrong("is longer than it says"));
        }
        self.buffers.0 = buffer;
        self.pad(size)
    }

    /// Adds a regular file that is deflated already. It is inflated once, and refused unless size, CRC-32,
    /// digest and the stream's end are exactly as declared.
    pub fn deflated(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        mut file: Deflated<'_>,
    ) -> Result<(), LayerError> {
        self.entry(path, Entry::File(file.size), metadata)?;
        let (size, crc32) = (file.size, file.crc32);
        let mut pass = file.pass;
        match self.out.members() {
            Some(members) if pass => members.begin_deflated()?,
            _ => pass = false,
        }
        self.inflate(path, &mut file, pass)?;
        if let Some(members) = self.out.members().filter(|_| pass) {
            members.end_deflated(crc32, size)?;
        }
        self.pad(size)
    }

    fn inflate(
        &mut self,
        path: &[u8],
        file: &mut Deflated<'_>,
        pass: bool,
    ) -> Result<(), LayerError> {
        let wrong = |problem| LayerError::Content {
            path: shown(path),
            problem,
        };
        self.inflater.reset(false);
        let (mut input, mut output) = std::mem::take(&mut self.buffers);
        let mut check = Check::new(file);
        let mut left = file.compressed_size;
        let mut ended = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = read(file.data, &mut input[..most])?;
            if count == 0 {
                return Err(wrong("is shorter than its archive says"));
            }
            left -= count as u64;
            if let Some(members) = self.out.members().filter(|_| pass) {
                members.deflated_bytes(&input[..count])?;
            }
            let mut rest = &input[..count];
            loop {
                if ended && !rest.is_empty() {
                    return Err(wrong("has bytes after the end of its compressed stream"));
                }
                let (before_in, before_out) = (self.inflater.total_in(), self.inflater.total_out());
                let status = self
                    .inflater
                    .decompress(rest, &mut output, FlushDecompress::None)
                    .map_err(|_| wrong("has a damaged compressed stream"))?;
                let consumed =
                    usize::try_from(self.inflater.total_in() - before_in).unwrap_or(rest.len());
                let produced =
                    usize::try_from(self.inflater.total_out() - before_out).unwrap_or(output.len());
                rest = &rest[consumed..];
                ended |= status == Status::StreamEnd;
                if self.inflater.total_out() > file.size {
                    return Err(wrong("inflates to more than its archive says"));
                }
                self.written += produced as u64;
                check.update(&output[..produced], &mut self.hash);
                if !pass {
                    self.out.write_all(&output[..produced])?;
                }
                if rest.is_empty() && produced < output.len() {
                    break;
                }
                if consumed == 0 && produced == 0 {
                    return Err(wrong("has a damaged compressed stream"));
                }
            }
        }
        self.buffers = (input, output);
        if !ended || self.inflater.total_out() != file.size {
            return Err(wrong("inflates to less than its archive says"));
        }
        check.finish().map_err(wrong)
    }

    /// Adds a symbolic link.
    pub fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        if target.is_empty() || target.contains(&0) {
            return Err(LayerError::Path(shown(target)));
        }
        self.entry(path, Entry::Symlink(target), metadata)
    }

    /// Adds a further name for a file that the layer has already.
    pub fn hardlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        if !self.paths.has_file(target) {
            return Err(LayerError::Path(shown(target)));
        }
        self.entry(path, Entry::Hardlink(target), metadata)
    }

    /// Adds a device or a named pipe.
    pub fn device(
        &mut self,
        path: &[u8],
        device: Device,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        self.entry(path, Entry::Device(device), metadata)
    }

    /// Says that a path of the layers below is gone (OCI image specification, layer, "Whiteouts").
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        check(path)?;
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&[][..], path),
        };
        let marker = [folder, b".wh.", name].concat();
        self.place(&marker, Entry::File(0), &Metadata::new(0o644, 0))
    }

    /// Says that nothing of a folder of the layers below remains (same, "Opaque Whiteout").
    pub fn opaque(&mut self, folder: &[u8]) -> Result<(), LayerError> {
        check(folder)?;
        let marker = [folder, b"/.wh..wh..opq"].concat();
        self.place(&marker, Entry::File(0), &Metadata::new(0o644, 0))
    }

    /// Ends the layer.
    pub fn finish(mut self) -> Result<(W, LayerInfo), LayerError> {
        self.write(&[0; 2 * BLOCK])?;
        let (out, digest, size) = self.out.finish()?;
        let info = LayerInfo {
            diff_id: Digest::from_bytes(self.hash.finalize().into()),
            digest,
            size,
            uncompressed_size: self.written,
            media_type: self.media_type,
            entries: self.paths.len(),
        };
        Ok((out, info))
    }

    fn entry(
        &mut self,
        path: &[u8],
        entry: Entry<'_>,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        check(path)?;
        self.place(path, entry, metadata)
    }

    fn place(
        &mut self,
        path: &[u8],
        entry: Entry<'_>,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        self.add_parents(path)?;
        self.paths.take(path, Kind::Other)?;
        self.header(path, entry, metadata)
    }

    fn add_parents(&mut self, path: &[u8]) -> Result<(), LayerError> {
        for parent in self.paths.missing_parents(path)? {
            let metadata = (self.parents)(&parent);
            self.header(&parent, Entry::Directory, &metadata)?;
        }
        Ok(())
    }

    fn header(
        &mut self,
        path: &[u8],
        entry: Entry<'_>,
        metadata: &Metadata,
    ) -> Result<(), LayerError> {
        let (uid, gid) = self.owner;
        let theirs = |id: u32, own: u32| if id == USER_ID { own } else { id };
        let (uid, gid) = (theirs(metadata.uid, uid), theirs(metadata.gid, gid));
        if (uid, gid) == (metadata.uid, metadata.gid) {
            return Ok(self.write(&encode(path, entry, metadata))?);
        }
        let owned = Metadata {
            uid,
            gid,
            ..metadata.clone()
        };
        Ok(self.write(&encode(path, entry, &owned))?)
    }

    fn pad(&mut self, size: u64) -> Result<(), LayerError> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        Ok(self.write(&[0; BLOCK][..(BLOCK - over) % BLOCK])?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// What a file has to be, and what it is so far.
struct Check {
    crc: Crc,
    crc32: u32,
    hash: Option<(Sha256, Digest)>,
}

impl Check {
    fn new(file: &Deflated<'_>) -> Self {
        Self {
            crc: Crc::new(),
            crc32: file.crc32,
            hash: file.digest.map(|digest| (Sha256::new(), digest)),
        }
    }

    /// Takes more of the file, for itself and for the layer's hash. A file begins at a block of tar, so both
    /// hashes have the same blocks: taken in turns, a processor works at two at once.
    fn update(&mut self, bytes: &[u8], layer: &mut Sha256) {
        self.crc.update(bytes);
        let Some((hash, _)) = &mut self.hash else {
            return layer.update(bytes);
        };
        for block in bytes.chunks(SHA256_BLOCK) {
            layer.update(block);
            hash.update(block);
        }
    }

    fn finish(self) -> Result<(), &'static str> {
        if self.crc.finalize() != self.crc32 {
            return Err("does not have the checksum its archive says");
        }
        let found = self
            .hash
            .map(|(hash, digest)| (Digest::from_bytes(hash.finalize().into()), digest));
        if found.is_some_and(|(found, digest)| found != digest) {
            return Err("does not have the digest its package says");
        }
        Ok(())
    }
}

/// Fills the buffer as far as the content goes, however little a pipe gives at a time: what compression makes of
/// bytes depends on the pieces it gets them in.
fn read(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
