//! The one object format: header, body, index, trailer. See `docs/formats/object.md`.
//!
//! All numbers are little-endian. The header has a fixed length, so the places of the extents in the object are known
//! before its name is. Decoding checks length, magic, version and checksum, in that order; it never panics and never
//! allocates by a length that it only read.

mod build;
mod cursor;
mod header;
mod index;
mod read;
mod trailer;

pub use build::{BuiltObject, NewExtent, ObjectBuilder};
pub use header::{HEADER_BYTES, ObjectHeader};
pub use index::{CommitResult, ExtentEntry, ObjectIndex, PlacedRun};
pub use read::{ObjectFooter, ReadObjectError, decode_object, read_footer, read_header};
pub use trailer::{ObjectTrailer, TRAILER_BYTES};

/// First bytes of every object.
const MAGIC: [u8; 8] = *b"StrmHObj";
/// Last bytes of every object.
const END_MAGIC: [u8; 8] = *b"StrmHEnd";
/// The version that is written, and the only one so far.
const VERSION: u16 = 1;
/// The level of a WAL object.
const LEVEL_WAL: u8 = 0;

/// Why bytes are not the part of an object that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not enough bytes, or too many.
    #[error("{part} of {actual} bytes instead of {expected}")]
    Length {
        /// Which part of the object.
        part: &'static str,
        /// How many bytes there should be.
        expected: u64,
        /// How many there are.
        actual: u64,
    },
    /// These bytes are something else.
    #[error("{part} does not start as one")]
    Magic {
        /// Which part of the object.
        part: &'static str,
    },
    /// Written by a later version.
    #[error("{part} has version {version}, which this build does not read")]
    Version {
        /// Which part of the object.
        part: &'static str,
        /// The version.
        version: u16,
    },
    /// The bytes changed since they were written.
    #[error("{part} has checksum {actual:08x} instead of {expected:08x}")]
    Checksum {
        /// Which part of the object.
        part: &'static str,
        /// The checksum that was stored.
        expected: u32,
        /// The checksum of the bytes.
        actual: u32,
    },
    /// The checksum holds, but a field has a value that no version writes.
    #[error("{part} has an impossible {field}")]
    Field {
        /// Which part of the object.
        part: &'static str,
        /// Which field.
        field: &'static str,
    },
}

/// CRC-32C of some bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Crc32c(crc_fast::Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Goes on as if `update` had been told what `other` was told. Costs as much for a byte as for many.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.combine(&other.0);
    }

    pub(crate) fn finish(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("a 32-bit checksum")
    }
}

#[cfg(test)]
mod tests;
