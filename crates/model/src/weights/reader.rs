//! Reading little-endian values from bytes that may end too early.

use std::ops::Range;
use std::path::Path;

use crate::load_error::{LoadError, LoadResult};

/// A position in a file's bytes. Every read is checked; a failed one names the field.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, position: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// An error about the current field.
    pub(crate) fn error(&self, field: &str, problem: impl Into<String>) -> LoadError {
        LoadError::malformed(self.path, field, problem)
    }

    /// Skips `length` bytes and returns where they lie.
    pub(crate) fn take(&mut self, length: u64, field: &str) -> LoadResult<Range<usize>> {
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => {
                let start = self.position;
                self.position += length;
                Ok(start..self.position)
            }
            _ => Err(self.error(
                field,
                format!(
                    "needs {length} bytes at offset {}, the file has {} left",
                    self.position,
                    self.remaining()
                ),
            )),
        }
    }

    /// The next `length` bytes.
    pub(crate) fn slice(&mut self, length: usize, field: &str) -> LoadResult<&'a [u8]> {
        let range = self.take(length as u64, field)?;
        Ok(&self.bytes[range])
    }

    fn array<const N: usize>(&mut self, field: &str) -> LoadResult<[u8; N]> {
        let mut value = [0; N];
        value.copy_from_slice(self.slice(N, field)?);
        Ok(value)
    }

    pub(crate) fn u32(&mut self, field: &str) -> LoadResult<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &str) -> LoadResult<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A length of 64 bits and as many bytes, which must be UTF-8.
    pub(crate) fn string(&mut self, field: &str) -> LoadResult<&'a str> {
        let length = self.u64(field)?;
        let range = self.take(length, field)?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| self.error(field, "is not valid UTF-8"))
    }

    /// A count of things of at least `least` bytes each; refused when they cannot fit into the rest of the file.
    pub(crate) fn count(&mut self, least: usize, field: &str) -> LoadResult<usize> {
        let count = self.u64(field)?;
        let most = self.remaining() / least.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.error(field, format!("is {count}, but the rest of the file holds {most} at most"))),
        }
    }
}
