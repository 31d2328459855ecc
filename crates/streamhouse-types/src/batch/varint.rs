//! Kafka's variable-length numbers: zigzag, seven bits a byte, lowest first.

use super::RecordFault;

/// Longest encoding of a 32-bit number in bytes.
const VARINT_BYTES_MAX: usize = 5;

/// Longest encoding of a 64-bit number in bytes.
const VARLONG_BYTES_MAX: usize = 10;

/// Reads a 32-bit number at `*position` and moves past it.
#[inline]
pub(super) fn read_i32(bytes: &[u8], position: &mut usize) -> Result<i32, RecordFault> {
    let raw = match bytes.get(*position) {
        Some(&byte) if byte < 0x80 => {
            *position += 1;
            u64::from(byte)
        }
        _ => read_long(bytes, position, VARINT_BYTES_MAX)?,
    };
    let raw = u32::try_from(raw).map_err(|_| RecordFault::Number)?;
    Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

/// Reads a 64-bit number at `*position` and moves past it.
#[inline]
pub(super) fn read_i64(bytes: &[u8], position: &mut usize) -> Result<i64, RecordFault> {
    let raw = match bytes.get(*position) {
        Some(&byte) if byte < 0x80 => {
            *position += 1;
            u64::from(byte)
        }
        _ => read_long(bytes, position, VARLONG_BYTES_MAX)?,
    };
    Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

fn read_long(bytes: &[u8], position: &mut usize, bytes_max: usize) -> Result<u64, RecordFault> {
    let mut value = 0_u64;
    for index in 0..bytes_max {
        let byte = *bytes.get(*position + index).ok_or(RecordFault::CutShort)?;
        // The tenth byte has room for one bit only.
        if index == VARLONG_BYTES_MAX - 1 && byte > 1 {
            return Err(RecordFault::Number);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *position += index + 1;
            return Ok(value);
        }
    }
    Err(RecordFault::Number)
}

/// Appends a number.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    if raw < 0x80 {
        out.push(low_byte(raw));
        return;
    }
    let mut encoded = [0_u8; VARLONG_BYTES_MAX];
    let mut length = 0;
    while raw >= 0x80 {
        encoded[length] = low_byte(raw) | 0x80;
        raw >>= 7;
        length += 1;
    }
    encoded[length] = low_byte(raw);
    out.extend_from_slice(&encoded[..=length]);
}

/// How many bytes [`write`] takes for a number.
#[inline]
pub(super) const fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lowest byte is meant")]
const fn low_byte(raw: u64) -> u8 {
    raw as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: i64, expected: &[u8]) {
        let mut out = Vec::new();
        write(&mut out, value);
        assert_eq!(out, expected);
        assert_eq!(size(value), expected.len());
        let mut position = 0;
        assert_eq!(read_i64(expected, &mut position), Ok(value));
        assert_eq!(position, expected.len());
    }

    #[test]
    fn numbers_are_encoded_as_kafka_does() {
        check(0, &[0]);
        check(-1, &[1]);
        check(1, &[2]);
        check(63, &[0x7e]);
        check(-64, &[0x7f]);
        check(64, &[0x80, 0x01]);
        check(-65, &[0x81, 0x01]);
        check(i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        check(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn malformed_numbers_are_refused() {
        assert_eq!(read_i32(&[], &mut 0), Err(RecordFault::CutShort));
        assert_eq!(read_i32(&[0x80], &mut 0), Err(RecordFault::CutShort));
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f], &mut 0), Err(RecordFault::Number));
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &mut 0), Err(RecordFault::Number));
        assert_eq!(read_i64(&[0xff; 11], &mut 0), Err(RecordFault::Number));
        let mut too_great = [0xff; 10];
        too_great[9] = 2;
        assert_eq!(read_i64(&too_great, &mut 0), Err(RecordFault::Number));
    }
}
