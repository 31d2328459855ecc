//! Reading numbers from bytes that nobody vouches for.

use super::ObjectError;

/// Reads little-endian numbers from the front of some bytes.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    part: &'static str,
    total: usize,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self) -> Result<$type, ObjectError> {
            Ok(<$type>::from_le_bytes(self.array()?))
        }
    };
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { rest: bytes, part, total: bytes.len() }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ObjectError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            let missing = (N - self.rest.len()) as u64;
            let actual = self.total as u64;
            return Err(ObjectError::Length { part: self.part, expected: actual + missing, actual });
        };
        self.rest = rest;
        Ok(*head)
    }

    number!(u16, u16);
    number!(u32, u32);
    number!(u64, u64);
    number!(i64, i64);

    pub(super) fn u8(&mut self) -> Result<u8, ObjectError> {
        Ok(self.array::<1>()?[0])
    }

    /// How many items of `size` bytes can still follow: a bound for lists whose length was only read.
    pub(super) fn room_for(&self, size: usize) -> usize {
        self.rest.len() / size
    }

    pub(super) fn finish(&self) -> Result<(), ObjectError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let (actual, spare) = (self.total as u64, self.rest.len() as u64);
        Err(ObjectError::Length { part: self.part, expected: actual - spare, actual })
    }
}
