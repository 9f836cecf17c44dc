//! Metered decompression: rejects files whose text is far longer than their packed bytes.

#![deny(clippy::arithmetic_side_effects)]

use std::cell::Cell;
use std::io::{Error, ErrorKind, Read, Result};
use std::rc::Rc;

/// Bytes of text that are always accepted, however small the packed file is.
pub(super) const FREE_BYTES: u64 = 64 << 20;

/// Packed bytes read so far; shared with the meter behind the decompressor.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedBytes(Rc<Cell<u64>>);

impl PackedBytes {
    pub(super) fn of(bytes: u64) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }
}

/// Packed side of a decompressor.
pub(super) struct Counted<R> {
    inner: R,
    packed: PackedBytes,
}

impl<R> Counted<R> {
    pub(super) const fn new(inner: R, packed: PackedBytes) -> Self {
        Self { inner, packed }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        let all = self.packed.0.get().saturating_add(read as u64);
        self.packed.0.set(all);
        Ok(read)
    }
}

/// Plain side of a decompressor.
pub(super) struct Metered<R> {
    inner: R,
    packed: PackedBytes,
    plain: u64,
    /// Bound of plain bytes for each packed byte (`max_expansion`).
    expansion_max: u64,
}

impl<R> Metered<R> {
    pub(super) const fn new(inner: R, packed: PackedBytes, expansion_max: u64) -> Self {
        Self {
            inner,
            packed,
            plain: 0,
            expansion_max,
        }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(buffer)?;
        self.plain = self.plain.saturating_add(read as u64);
        let packed = self.packed.0.get();
        let bound = packed.saturating_mul(self.expansion_max).max(FREE_BYTES);
        if self.plain > bound {
            let message = format!(
                "the file expands to more than {} times its {packed} compressed bytes; for a genuine recording, \
                 raise `max_expansion` of the source",
                self.expansion_max
            );
            return Err(Error::new(ErrorKind::InvalidData, message));
        }
        Ok(read)
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;

    fn plain(packed: u64, expansion_max: u64) -> (u64, Option<ErrorKind>) {
        let packed = PackedBytes::of(packed);
        let mut metered = Metered::new(std::io::repeat(b'\n'), packed, expansion_max);
        let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
        loop {
            match metered.read(&mut buffer) {
                Ok(read) => bytes += read as u64,
                Err(error) => return (bytes, Some(error.kind())),
            }
        }
    }

    #[test]
    fn excessive_expansion_is_an_error() {
        let error = Some(ErrorKind::InvalidData);
        assert_eq!(plain(0, 500), (FREE_BYTES, error));
        assert_eq!(plain(1 << 20, 100), (100 << 20, error));
        assert_eq!(plain(1 << 20, 10), (FREE_BYTES, error));
    }

    #[test]
    fn compressed_bytes_are_counted_while_reading() {
        let packed = PackedBytes::default();
        let mut counted = Counted::new(&b"0123456789"[..], packed.clone());
        let mut buffer = [0; 4];
        assert!(counted.read(&mut buffer).is_ok_and(|read| read == 4));
        assert_eq!(packed.0.get(), 4);
    }
}
