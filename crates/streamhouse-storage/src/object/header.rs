//! The first bytes of an object: who wrote it, as what, when.

use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, NodeId, ObjectId, Slot, SlotSequence, Timestamp,
};

use super::cursor::Cursor;
use super::{LEVEL_WAL, MAGIC, ObjectError, VERSION, crc32c};

/// Length of the header. The first extent starts here.
pub const HEADER_BYTES: u64 = LENGTH as u64;
const LENGTH: usize = 80;
const CRC_AT: usize = 76;
const PART: &str = "object header";

/// Who wrote an object, as what, when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHeader {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its name, whose lane, slot and attempt also make two tries at one slot differ.
    pub object: ObjectId,
    /// When it was made, by the clock of its node; for people only.
    pub created: Timestamp,
}

impl ObjectHeader {
    /// The bytes of the header of a level-0 object.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let slot = self.object.slot;
        let mut bytes = [0; LENGTH];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = LEVEL_WAL;
        bytes[11] = slot.lane.code();
        // 12..16: flags, none so far
        bytes[16..32].copy_from_slice(self.cluster.as_bytes());
        bytes[32..40].copy_from_slice(&slot.node.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&slot.incarnation.get().to_le_bytes());
        bytes[48..56].copy_from_slice(&slot.sequence.get().to_le_bytes());
        bytes[56..64].copy_from_slice(&self.created.as_millis().to_le_bytes());
        bytes[64..68].copy_from_slice(&self.object.attempt.get().to_le_bytes());
        // 68..76: kept free
        let crc = crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the first [`HEADER_BYTES`] of an object; more bytes may follow.
    ///
    /// # Errors
    /// When these are not the first bytes of a level-0 object, or no longer what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let expected = HEADER_BYTES;
        let Some(bytes) = bytes.first_chunk::<LENGTH>() else {
            return Err(ObjectError::Length { part: PART, expected, actual: bytes.len() as u64 });
        };
        let mut cursor = Cursor::new(bytes, PART);
        if cursor.array()? != MAGIC {
            return Err(ObjectError::Magic { part: PART });
        }
        let version = cursor.u16()?;
        if version != VERSION {
            return Err(ObjectError::Version { part: PART, version });
        }
        let (actual, stored) = (crc32c(&bytes[..CRC_AT]), Cursor::new(&bytes[CRC_AT..], PART).u32()?);
        if actual != stored {
            return Err(ObjectError::Checksum { part: PART, expected: stored, actual });
        }
        let impossible = |field| ObjectError::Field { part: PART, field };
        if cursor.u8()? != LEVEL_WAL {
            return Err(impossible("level"));
        }
        let lane = Lane::from_code(cursor.u8()?).ok_or(impossible("lane"))?;
        if cursor.u32()? != 0 {
            return Err(impossible("flag"));
        }
        let cluster = ClusterId::from_bytes(cursor.array()?);
        let node = NodeId::new(cursor.u64()?);
        let incarnation = Incarnation::new(cursor.u64()?);
        let sequence = SlotSequence::new(cursor.u64()?);
        let created = Timestamp::from_millis(cursor.i64()?);
        let attempt = Attempt::new(cursor.u32()?);
        let slot = Slot { node, incarnation, lane, sequence };
        Ok(Self { cluster, object: ObjectId { slot, attempt }, created })
    }
}
