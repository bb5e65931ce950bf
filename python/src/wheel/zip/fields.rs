//! Little-endian fields, and where in a file they are read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::wheel::WheelError;

/// The fields of a header that have not been read yet.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WheelError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), WheelError> {
        self.take(count).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WheelError> {
        self.take(N)?.try_into().map_err(|_| cut_off())
    }

    pub(super) fn u16(&mut self) -> Result<u16, WheelError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WheelError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WheelError> {
        self.array().map(u64::from_le_bytes)
    }
}

fn cut_off() -> WheelError {
    WheelError::zip("a header is cut off")
}

/// Fills `buffer` with what stands at an offset.
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), WheelError> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            _ => error.into(),
        })
}
