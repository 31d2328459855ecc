//! Numbers of variable length: seven bits a byte, the lowest first; signed ones in zigzag.

use super::CodecError;

const EXPECTED: &str = "number";

pub(super) fn put_u64(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

pub(super) fn put_u32(to: &mut Vec<u8>, value: u32) {
    put_u64(to, u64::from(value));
}

pub(super) fn put_i64(to: &mut Vec<u8>, value: i64) {
    put_u64(to, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// The difference `value - from` on the ring of 2⁶⁴ numbers, so that every pair has one.
pub(super) fn put_delta(to: &mut Vec<u8>, from: u64, value: u64) {
    put_i64(to, value.wrapping_sub(from).cast_signed());
}

/// Bytes that are read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        let (first, rest) = self.rest.split_first().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u64(&mut self) -> Result<u64, CodecError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                break;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Malformed { expected: EXPECTED })
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.u64()?).map_err(|_| CodecError::Malformed { expected: EXPECTED })
    }

    pub(super) fn u16(&mut self) -> Result<u16, CodecError> {
        u16::try_from(self.u64()?).map_err(|_| CodecError::Malformed { expected: EXPECTED })
    }

    pub(super) fn i64(&mut self) -> Result<i64, CodecError> {
        let raw = self.u64()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    pub(super) fn delta(&mut self, from: u64) -> Result<u64, CodecError> {
        Ok(from.wrapping_add(self.i64()?.cast_unsigned()))
    }

    /// A number of things that take at least `each` bytes: no more than the bytes that are left can hold.
    pub(super) fn count(&mut self, each: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u64()?).map_err(|_| CodecError::Truncated)?;
        if count > self.remaining() / each { Err(CodecError::Truncated) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: u64, bytes: usize) {
        let mut to = Vec::new();
        put_u64(&mut to, value);
        assert_eq!(to.len(), bytes);
        assert_eq!(Reader::new(&to).u64(), Ok(value));
        put_i64(&mut to, value.cast_signed());
        put_delta(&mut to, 77, value);
        let mut reader = Reader::new(&to);
        assert_eq!(reader.u64(), Ok(value));
        assert_eq!(reader.i64(), Ok(value.cast_signed()));
        assert_eq!(reader.delta(77), Ok(value));
        assert_eq!(reader.u8(), Err(CodecError::Truncated));
    }

    #[test]
    fn numbers_read_back_in_as_few_bytes_as_they_need() {
        check(0, 1);
        check(127, 1);
        check(128, 2);
        check(1 << 63, 10);
        check(u64::MAX, 10);
    }

    #[test]
    fn a_number_over_64_bits_is_refused() {
        let malformed = Err(CodecError::Malformed { expected: "number" });
        assert_eq!(Reader::new(&[0xff; 10]).u64(), malformed);
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert_eq!(Reader::new(&bytes).u64(), malformed);
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).u32(),
            Err(CodecError::Malformed { expected: "number" })
        );
    }

    #[test]
    fn a_count_is_held_against_the_bytes_that_are_left() {
        assert_eq!(Reader::new(&[3, 0, 0, 0]).count(1), Ok(3));
        assert_eq!(Reader::new(&[4, 0, 0, 0]).count(1), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[2, 0, 0, 0]).count(2), Err(CodecError::Truncated));
    }
}
