//! Compression of a layer's stream: gzip of many members, in which bytes that are deflated already stand
//! untouched; gzip of one member; zstd.

use std::io::{self, Write};

use crc32fast::Hasher as Crc;
use flate2::write::GzEncoder;
use flate2::{Compress, FlushCompress, GzBuilder, Status};
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

/// Level of deflate where bytes are compressed anew: a third faster than 6, and less than 1 % larger.
const LEVEL: u32 = 5;
/// Level of zstd.
const ZSTD_LEVEL: i32 = 3;
/// RFC 1952, 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const BUFFER: usize = 32 * 1024;

/// The compressed side of a layer.
pub(super) enum Compressor<W: Write> {
    /// gzip of many members.
    Members(Members<W>),
    /// gzip of one.
    Single(GzEncoder<Digesting<W>>),
    /// zstd.
    Zstd(zstd::Encoder<'static, Digesting<W>>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(out: W, compression: Compression) -> io::Result<Self> {
        let out = Digesting::new(out);
        let level = flate2::Compression::new(LEVEL);
        Ok(match compression {
            Compression::Gzip => Self::Members(Members::new(out)),
            Compression::GzipSingle => Self::Single(
                GzBuilder::new()
                    .mtime(0)
                    .operating_system(255)
                    .write(out, level),
            ),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
        })
    }

    /// The members, where bytes that are deflated already can pass.
    pub(super) fn members(&mut self) -> Option<&mut Members<W>> {
        match self {
            Self::Members(members) => Some(members),
            Self::Single(_) | Self::Zstd(_) => None,
        }
    }

    pub(super) fn finish(self) -> io::Result<(W, Digest, u64)> {
        let out = match self {
            Self::Members(mut members) => {
                members.end()?;
                members.out
            }
            Self::Single(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(out.finish())
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Members(members) => members.compress(bytes).map(|()| bytes.len()),
            Self::Single(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Members of gzip, one after the other: of bytes that are compressed here, with one encoder for all, and of
/// bytes that were before.
pub(super) struct Members<W: Write> {
    out: Digesting<W>,
    encoder: Compress,
    buffer: Vec<u8>,
    /// Checksum and length of what the member holds that is being compressed, if one is.
    open: Option<(Crc, u64)>,
}

impl<W: Write> Members<W> {
    fn new(out: Digesting<W>) -> Self {
        Self {
            out,
            encoder: Compress::new(flate2::Compression::new(LEVEL), false),
            buffer: vec![0; BUFFER],
            open: None,
        }
    }

    fn compress(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.out.write_all(&HEADER)?;
        }
        let (crc, size) = self.open.get_or_insert_default();
        crc.update(bytes);
        *size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (taken, _) = self.step(bytes, FlushCompress::None)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// One call of the encoder: how many bytes it took, and whether its stream has ended.
    fn step(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<(usize, bool)> {
        let (before_in, before_out) = (self.encoder.total_in(), self.encoder.total_out());
        let status = self
            .encoder
            .compress(bytes, &mut self.buffer, flush)
            .map_err(io::Error::other)?;
        let difference = |now: u64, before: u64| usize::try_from(now - before);
        let made = difference(self.encoder.total_out(), before_out).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer[..made])?;
        let taken = difference(self.encoder.total_in(), before_in).map_err(io::Error::other)?;
        Ok((taken, status == Status::StreamEnd))
    }

    /// Ends the member that is being compressed, if one is.
    fn end(&mut self) -> io::Result<()> {
        let Some((crc, size)) = self.open.take() else {
            return Ok(());
        };
        while !self.step(&[], FlushCompress::Finish)?.1 {}
        self.encoder.reset();
        self.trailer(crc.finalize(), size)
    }

    /// Begins a member of bytes that are deflated already.
    pub(super) fn begin_deflated(&mut self) -> io::Result<()> {
        self.end()?;
        self.out.write_all(&HEADER)
    }

    /// Adds to such a member.
    pub(super) fn deflated_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Ends such a member with the checksum and size of what it inflates to.
    pub(super) fn end_deflated(&mut self, crc32: u32, size: u64) -> io::Result<()> {
        self.trailer(crc32, size)
    }

    fn trailer(&mut self, crc32: u32, size: u64) -> io::Result<()> {
        self.out.write_all(&crc32.to_le_bytes())?;
        // RFC 1952, 2.3.1: the size modulo 2^32.
        self.out
            .write_all(&((size & 0xffff_ffff) as u32).to_le_bytes())
    }
}
