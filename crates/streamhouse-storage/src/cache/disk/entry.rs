//! How a block lies in a file of the disk cache: a header that says which block it is, and its bytes. See
//! `docs/formats/cache.md`.
//!
//! ```text
//! 0   magic                 24  incarnation        56  block
//! 8   version               32  sequence           64  length of the bytes
//! 10  lane                  40  attempt            68  CRC-32C of what lies before it and of the bytes
//! 11  zero (5)              44  zero (12)          72  bytes
//! 16  node
//! ```

use bytes::Bytes;
use streamhouse_types::ObjectId;

use super::BlockId;
use crate::object::{Crc32c, ObjectError};

const MAGIC: [u8; 8] = *b"StrmHBlk";
const VERSION: u16 = 1;
/// Length of the header; the bytes of the block follow.
pub(super) const HEADER_BYTES: usize = 72;
const LENGTH_AT: usize = 64;
const CRC_AT: usize = 68;
const PART: &str = "cached block";

/// The header of a block. It is a function of the block's name and bytes, so that reading is comparing.
fn header((object, block): BlockId, bytes: &[u8]) -> [u8; HEADER_BYTES] {
    let ObjectId { slot, attempt } = object;
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = slot.lane.code();
    header[16..24].copy_from_slice(&slot.node.get().to_le_bytes());
    header[24..32].copy_from_slice(&slot.incarnation.get().to_le_bytes());
    header[32..40].copy_from_slice(&slot.sequence.get().to_le_bytes());
    header[40..44].copy_from_slice(&attempt.get().to_le_bytes());
    header[56..64].copy_from_slice(&block.to_le_bytes());
    let length = u32::try_from(bytes.len()).expect("a block is far smaller than 4 GiB");
    header[LENGTH_AT..CRC_AT].copy_from_slice(&length.to_le_bytes());
    let mut crc = Crc32c::new();
    crc.update(&header[..CRC_AT]);
    crc.update(bytes);
    header[CRC_AT..].copy_from_slice(&crc.finish().to_le_bytes());
    header
}

/// Writes a block into `buffer`, whose former content goes.
pub(super) fn encode(id: BlockId, bytes: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&header(id, bytes));
    buffer.extend_from_slice(bytes);
}

/// Reads the block that `entry` should be.
///
/// # Errors
/// When it is not that block, whole and as it was written.
pub(super) fn decode(id: BlockId, entry: Vec<u8>) -> Result<Bytes, ObjectError> {
    let (expected, actual) = (HEADER_BYTES as u64, entry.len() as u64);
    let Some((found, bytes)) = entry.split_first_chunk::<HEADER_BYTES>() else {
        return Err(ObjectError::Length { part: PART, expected, actual });
    };
    if found[..8] != MAGIC {
        return Err(ObjectError::Magic { part: PART });
    }
    let version = u16::from_le_bytes([found[8], found[9]]);
    if version != VERSION {
        return Err(ObjectError::Version { part: PART, version });
    }
    let number = |at: usize| u32::from_le_bytes([found[at], found[at + 1], found[at + 2], found[at + 3]]);
    let length = u64::from(number(LENGTH_AT));
    if length != bytes.len() as u64 {
        return Err(ObjectError::Length { part: PART, expected: expected + length, actual });
    }
    let wanted = header(id, bytes);
    if found[..LENGTH_AT] != wanted[..LENGTH_AT] {
        return Err(ObjectError::Field { part: PART, field: "name" });
    }
    if found != &wanted {
        let stored = number(CRC_AT);
        let actual = u32::from_le_bytes([wanted[68], wanted[69], wanted[70], wanted[71]]);
        return Err(ObjectError::Checksum { part: PART, expected: stored, actual });
    }
    Ok(Bytes::from(entry).slice(HEADER_BYTES..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use streamhouse_types::{Attempt, Incarnation, Lane, NodeId, Slot, SlotSequence};

    use super::*;

    fn id(sequence: u64, block: u64) -> BlockId {
        let slot = Slot {
            node: NodeId::new(3),
            incarnation: Incarnation::new(7),
            lane: Lane::Wal,
            sequence: SlotSequence::new(sequence),
        };
        (ObjectId { slot, attempt: Attempt::new(1) }, block)
    }

    fn encoded(id: BlockId, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = b"what was there before".to_vec();
        encode(id, bytes, &mut buffer);
        buffer
    }

    #[test]
    fn the_bytes_of_a_cached_block_are_those_that_version_1_always_wrote() {
        let entry = encoded(id(42, 5), b"the bytes of a block");
        let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        insta::assert_snapshot!(entry.chunks(16).map(line).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_block_of_another_name_is_refused_as_such() {
        let entry = encoded(id(42, 5), b"bytes");
        for other in [id(43, 5), id(42, 6)] {
            let error = decode(other, entry.clone()).unwrap_err();
            assert_eq!(error, ObjectError::Field { part: PART, field: "name" });
        }
    }

    proptest! {
        #[test]
        fn a_block_comes_back_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(id(42, 5), encoded(id(42, 5), &bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_changed_bit_goes_unseen(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut entry = encoded(id(42, 5), &bytes);
            let place = place.index(entry.len());
            entry[place] ^= 1 << bit;
            prop_assert!(decode(id(42, 5), entry).is_err());
        }

        #[test]
        fn no_shortened_or_lengthened_block_goes_unseen(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            length in 0..300_usize,
        ) {
            let mut entry = encoded(id(42, 5), &bytes);
            prop_assume!(length != entry.len());
            entry.resize(length, 0);
            prop_assert!(decode(id(42, 5), entry).is_err());
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(entry in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(id(42, 5), entry).is_err());
        }
    }
}
