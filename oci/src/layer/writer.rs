//! The writer of layers.

use std::io::{self, Read, Write};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use imagespec_core::context::Compression;
use imagespec_core::contract;
use imagespec_core::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::LayerError;
use super::compress::Compressor;
use super::header::{BLOCK, Device, Entry, Metadata, encode};
use super::path::{Kind, Paths, check, shown};

/// From how many deflated bytes on an entry becomes a member of its own. Below, its header and its lost
/// context cost more than compressing it again: from 4 KiB on, a layer of setuptools is 8 % larger than as one
/// member, from 12 KiB on 1.7 %; numpy, scipy and pyarrow take a sixth longer to write with the latter.
const PASS_FROM: u64 = 12 * 1024;
const BUFFER: usize = 64 * 1024;

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
    media_type: &'static str,
    buffer: Vec<u8>,
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
            media_type,
            buffer: vec![0; BUFFER],
        })
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
        let mut buffer = std::mem::take(&mut self.buffer);
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
        self.buffer = buffer;
        self.pad(size)
    }

    /// Adds a regular file that is deflated already. Large ones are passed through untouched; all are inflated
    /// once, and refused unless size, CRC-32 and the stream's end are exactly as declared.
    pub fn deflated(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        mut file: Deflated<'_>,
    ) -> Result<(), LayerError> {
        self.entry(path, Entry::File(file.size), metadata)?;
        let (size, crc32) = (file.size, file.crc32);
        let pass = self.out.passes_deflate() && file.compressed_size >= PASS_FROM;
        if pass {
            self.out.begin_deflated()?;
        }
        self.inflate(path, &mut file, pass)?;
        if pass {
            self.out.end_deflated(crc32, size)?;
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
        let mut inflater = Decompress::new(false);
        let mut crc = Crc::new();
        let mut hash = file.digest.map(|_| Sha256::new());
        let (mut input, mut output) = (vec![0; BUFFER], std::mem::take(&mut self.buffer));
        let mut left = file.compressed_size;
        let mut ended = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = read(file.data, &mut input[..most])?;
            if count == 0 {
                return Err(wrong("is shorter than its archive says"));
            }
            left -= count as u64;
            if pass {
                self.out.deflated_bytes(&input[..count])?;
            }
            let mut rest = &input[..count];
            loop {
                if ended && !rest.is_empty() {
                    return Err(wrong("has bytes after the end of its compressed stream"));
                }
                let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
                let status = inflater.decompress(rest, &mut output, FlushDecompress::None);
                let status = status.map_err(|_| wrong("has a damaged compressed stream"))?;
                let consumed =
                    usize::try_from(inflater.total_in() - before_in).unwrap_or(rest.len());
                let produced =
                    usize::try_from(inflater.total_out() - before_out).unwrap_or(output.len());
                rest = &rest[consumed..];
                ended |= status == Status::StreamEnd;
                if inflater.total_out() > file.size {
                    return Err(wrong("inflates to more than its archive says"));
                }
                crc.update(&output[..produced]);
                if let Some(hash) = &mut hash {
                    hash.update(&output[..produced]);
                }
                if pass {
                    self.hash.update(&output[..produced]);
                    self.written += produced as u64;
                } else {
                    self.write(&output[..produced])?;
                }
                if rest.is_empty() && produced < output.len() {
                    break;
                }
                if consumed == 0 && produced == 0 {
                    return Err(wrong("has a damaged compressed stream"));
                }
            }
        }
        self.buffer = output;
        if !ended || inflater.total_out() != file.size {
            return Err(wrong("inflates to less than its archive says"));
        }
        if crc.sum() != file.crc32 {
            return Err(wrong("does not have the checksum its archive says"));
        }
        if hash.map(|hash| Digest::from_bytes(hash.finalize().into())) != file.digest {
            return Err(wrong("does not have the digest its package says"));
        }
        Ok(())
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
        Ok(self.write(&encode(path, entry, metadata))?)
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

fn read(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
