//! Compression of a layer's stream: gzip of many members, in which bytes that are deflated already stand
//! untouched; gzip of one member; zstd.

use std::io::{self, Write};

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use imagespec_core::context::Compression;
use imagespec_core::digest::Digest;
use sha2::{Digest as _, Sha256};

/// A writer that digests and counts what passes through it.
#[derive(Debug)]
pub(super) struct Digesting<W> {
    inner: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Digesting<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            written: 0,
        }
    }

    fn finish(self) -> (W, Digest, u64) {
        (
            self.inner,
            Digest::from_bytes(self.hash.finalize().into()),
            self.written,
        )
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Level of deflate where bytes are compressed anew.
const LEVEL: u32 = 6;
/// Level of zstd.
const ZSTD_LEVEL: i32 = 3;

/// The compressed side of a layer.
pub(super) enum Compressor<W: Write> {
    /// Between two members.
    Between(Option<Digesting<W>>),
    /// In a member that is being compressed.
    Member(Option<GzEncoder<Digesting<W>>>),
    /// The one member there is.
    Single(GzEncoder<Digesting<W>>),
    /// zstd.
    Zstd(zstd::Encoder<'static, Digesting<W>>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(out: W, compression: Compression) -> io::Result<Self> {
        let out = Digesting::new(out);
        Ok(match compression {
            Compression::Gzip => Self::Between(Some(out)),
            Compression::GzipSingle => Self::Single(encoder(out)),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }

    /// Whether bytes that are deflated already can pass.
    pub(super) const fn passes_deflate(&self) -> bool {
        matches!(self, Self::Between(_) | Self::Member(_))
    }

    /// Begins a member of bytes that are deflated already.
    pub(super) fn begin_deflated(&mut self) -> io::Result<()> {
        let mut out = self.between()?;
        // RFC 1952, 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
        out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        *self = Self::Between(Some(out));
        Ok(())
    }

    /// Adds to such a member.
    pub(super) fn deflated_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Between(Some(out)) => out.write_all(bytes),
            _ => Err(io::Error::other("no member of deflated bytes has begun")),
        }
    }

    /// Ends such a member with the checksum and size of what it inflates to.
    pub(super) fn end_deflated(&mut self, crc32: u32, size: u64) -> io::Result<()> {
        let mut out = self.between()?;
        out.write_all(&crc32.to_le_bytes())?;
        // RFC 1952, 2.3.1: the size modulo 2^32.
        out.write_all(&((size & 0xffff_ffff) as u32).to_le_bytes())?;
        *self = Self::Between(Some(out));
        Ok(())
    }

    fn between(&mut self) -> io::Result<Digesting<W>> {
        match self {
            Self::Between(out) => out.take(),
            Self::Member(encoder) => encoder.take().map(GzEncoder::finish).transpose()?,
            Self::Single(_) | Self::Zstd(_) => None,
        }
        .ok_or_else(|| io::Error::other("the layer is damaged by an earlier error"))
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        let out = match self {
            Self::Between(_) | Self::Member(_) => self.between()?,
            Self::Single(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(out.finish())
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Between(_) => *self = Self::Member(Some(encoder(self.between()?))),
                Self::Member(Some(encoder)) | Self::Single(encoder) => return encoder.write(bytes),
                Self::Member(None) => {
                    return Err(io::Error::other("the layer is damaged by an earlier error"));
                }
                Self::Zstd(encoder) => return encoder.write(bytes),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encoder<W: Write>(out: W) -> GzEncoder<W> {
    GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(out, flate2::Compression::new(LEVEL))
}
