//! The last bytes of an object: where its index lies, and the checksums.

use std::ops::Range;

use super::cursor::Cursor;
use super::header::HEADER_BYTES;
use super::{Crc32c, END_MAGIC, ObjectError, VERSION};

/// Length of the trailer.
pub const TRAILER_BYTES: u64 = LENGTH as u64;
const LENGTH: usize = 32;
/// The part of the trailer that the checksum of the index covers as well.
const COVERED: usize = 16;
const PART: &str = "object trailer";

/// Where the index of an object lies, and the checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectTrailer {
    /// Where the body ends and the index starts.
    pub index_position: u64,
    /// Length of the index in bytes.
    pub index_length: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// CRC-32C of the index and of the fields above.
    index_crc: u32,
}

impl ObjectTrailer {
    /// The trailer of an object whose index these bytes are.
    pub(super) fn of(index_position: u64, body_crc: u32, index: &[u8]) -> Self {
        let index_length = u32::try_from(index.len()).expect("an index is smaller than 4 GiB");
        let mut trailer = Self { index_position, index_length, body_crc, index_crc: 0 };
        trailer.index_crc = trailer.checksum(index);
        trailer
    }

    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..COVERED].copy_from_slice(&self.covered());
        bytes[16..20].copy_from_slice(&self.index_crc.to_le_bytes());
        bytes[20..22].copy_from_slice(&VERSION.to_le_bytes());
        // 22..24: zero
        bytes[24..].copy_from_slice(&END_MAGIC);
        bytes
    }

    /// Reads the last [`TRAILER_BYTES`] of an object of `object_length` bytes; more bytes may stand before them.
    ///
    /// # Errors
    /// When these are not the last bytes of an object of this length. The checksum is checked with the index.
    pub fn decode(tail: &[u8], object_length: u64) -> Result<Self, ObjectError> {
        let Some(bytes) = tail.last_chunk::<LENGTH>() else {
            return Err(ObjectError::Length {
                part: PART,
                expected: TRAILER_BYTES,
                actual: tail.len() as u64,
            });
        };
        if bytes[24..] != END_MAGIC {
            return Err(ObjectError::Magic { part: PART });
        }
        let version = Cursor::new(&bytes[20..22], PART).u16()?;
        if version != VERSION {
            return Err(ObjectError::Version { part: PART, version });
        }
        let mut cursor = Cursor::new(bytes, PART);
        let index_position = cursor.u64()?;
        let index_length = cursor.u32()?;
        let body_crc = cursor.u32()?;
        let index_crc = cursor.u32()?;
        if bytes[22..24] != [0; 2] {
            return Err(ObjectError::Field { part: PART, field: "reserved byte" });
        }
        let expected = index_position
            .checked_add(u64::from(index_length))
            .and_then(|end| end.checked_add(TRAILER_BYTES))
            .filter(|_| index_position >= HEADER_BYTES)
            .ok_or(ObjectError::Field { part: PART, field: "index position" })?;
        if expected != object_length {
            return Err(ObjectError::Length { part: "object", expected, actual: object_length });
        }
        Ok(Self { index_position, index_length, body_crc, index_crc })
    }

    /// Where the index lies in the object.
    #[must_use]
    pub fn index_range(&self) -> Range<u64> {
        self.index_position..self.index_position + u64::from(self.index_length)
    }

    /// Checks the index, and with it the fields of this trailer.
    pub(super) fn verify(&self, index: &[u8]) -> Result<(), ObjectError> {
        const PART: &str = "object index";
        let (expected, actual) = (u64::from(self.index_length), index.len() as u64);
        if expected != actual {
            return Err(ObjectError::Length { part: PART, expected, actual });
        }
        let actual = self.checksum(index);
        if actual != self.index_crc {
            return Err(ObjectError::Checksum { part: PART, expected: self.index_crc, actual });
        }
        Ok(())
    }

    fn covered(&self) -> [u8; COVERED] {
        let mut bytes = [0; COVERED];
        bytes[0..8].copy_from_slice(&self.index_position.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.index_length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes
    }

    fn checksum(&self, index: &[u8]) -> u32 {
        let mut crc = Crc32c::new();
        crc.update(index);
        crc.update(&self.covered());
        crc.finish()
    }
}
