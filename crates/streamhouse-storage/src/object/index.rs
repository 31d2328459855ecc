//! What lies where in the body, and what became of the node's previous objects.

use streamhouse_types::{Attempt, Offset, PartitionId, PartitionIndex, SlotSequence, Timestamp, TopicId};

use super::cursor::Cursor;
use super::header::HEADER_BYTES;
use super::trailer::ObjectTrailer;
use super::{ObjectError, crc32c};

const PART: &str = "object index";
const EXTENT_BYTES: usize = 44;
const RESULT_BYTES: usize = 16;
const RUN_BYTES: usize = 24;

/// A run of batches of one partition in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentEntry {
    /// The partition.
    pub partition: PartitionId,
    /// Where it starts in the object.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
    /// How many batches it holds.
    pub batches: u32,
    /// How many records it holds.
    pub records: u32,
    /// Greatest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// CRC-32C of its bytes as they lie in the object, before any offset is patched in.
    pub crc: u32,
}

impl ExtentEntry {
    /// Just past its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }

    /// Checks the bytes of the extent, as they lie in the object.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn check(&self, bytes: &[u8]) -> Result<(), ObjectError> {
        const PART: &str = "extent";
        let (expected, actual) = (u64::from(self.length), bytes.len() as u64);
        if expected != actual {
            return Err(ObjectError::Length { part: PART, expected, actual });
        }
        let actual = crc32c(bytes);
        if actual != self.crc {
            return Err(ObjectError::Checksum { part: PART, expected: self.crc, actual });
        }
        Ok(())
    }
}

/// What became of one of the node's previous objects, as its commit was answered. A cross-check for restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitResult {
    /// Its slot in the same lane of the same incarnation.
    pub sequence: SlotSequence,
    /// The attempt that was committed.
    pub attempt: Attempt,
    /// The runs that were accepted, by position; refused bytes are in none.
    pub runs: Vec<PlacedRun>,
}

/// A run of bytes of a previous object and the offsets it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedRun {
    /// Where it starts in that object.
    pub position: u64,
    /// Its length in bytes.
    pub length: u32,
    /// How many records it holds.
    pub records: u32,
    /// Offset of its first record.
    pub base: Offset,
}

/// The index of a level-0 object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectIndex {
    /// The extents, in the order in which they lie in the body, without gaps.
    pub extents: Vec<ExtentEntry>,
    /// What became of the node's previous objects.
    pub results: Vec<CommitResult>,
}

impl ObjectIndex {
    pub(super) fn encode(&self) -> Vec<u8> {
        let runs: usize = self.results.iter().map(|result| result.runs.len()).sum();
        let length =
            8 + self.extents.len() * EXTENT_BYTES + self.results.len() * RESULT_BYTES + runs * RUN_BYTES;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&count(self.extents.len()));
        out.extend_from_slice(&count(self.results.len()));
        for extent in &self.extents {
            out.extend_from_slice(&extent.partition.topic.get().to_le_bytes());
            out.extend_from_slice(&extent.partition.index.get().to_le_bytes());
            out.extend_from_slice(&extent.batches.to_le_bytes());
            out.extend_from_slice(&extent.position.to_le_bytes());
            out.extend_from_slice(&extent.length.to_le_bytes());
            out.extend_from_slice(&extent.records.to_le_bytes());
            out.extend_from_slice(&extent.max_timestamp.as_millis().to_le_bytes());
            out.extend_from_slice(&extent.crc.to_le_bytes());
        }
        for result in &self.results {
            out.extend_from_slice(&result.sequence.get().to_le_bytes());
            out.extend_from_slice(&result.attempt.get().to_le_bytes());
            out.extend_from_slice(&count(result.runs.len()));
            for run in &result.runs {
                out.extend_from_slice(&run.position.to_le_bytes());
                out.extend_from_slice(&run.length.to_le_bytes());
                out.extend_from_slice(&run.records.to_le_bytes());
                out.extend_from_slice(&run.base.get().to_le_bytes());
            }
        }
        out
    }

    /// Reads the bytes at [`ObjectTrailer::index_range`].
    ///
    /// # Errors
    /// When they are not what was written, or its extents do not fill the body.
    pub fn decode(trailer: &ObjectTrailer, bytes: &[u8]) -> Result<Self, ObjectError> {
        trailer.verify(bytes)?;
        let mut cursor = Cursor::new(bytes, PART);
        let (extent_count, result_count) = (cursor.u32()?, cursor.u32()?);
        let extents = list(&mut cursor, extent_count, EXTENT_BYTES, decode_extent)?;
        let results = list(&mut cursor, result_count, RESULT_BYTES, decode_result)?;
        cursor.finish()?;
        let index = Self { extents, results };
        index.check_extents(trailer.index_position)?;
        Ok(index)
    }

    /// The extents fill the body: each starts where the one before it ends.
    fn check_extents(&self, body_end: u64) -> Result<(), ObjectError> {
        let mut position = HEADER_BYTES;
        for extent in &self.extents {
            if extent.position != position || extent.length == 0 {
                return Err(ObjectError::Field { part: PART, field: "extent position" });
            }
            position = position
                .checked_add(u64::from(extent.length))
                .ok_or(ObjectError::Field { part: PART, field: "extent length" })?;
        }
        if position == body_end {
            Ok(())
        } else {
            Err(ObjectError::Length { part: "object body", expected: position, actual: body_end })
        }
    }
}

fn count(items: usize) -> [u8; 4] {
    u32::try_from(items).expect("an object has fewer than 2³² extents").to_le_bytes()
}

/// Reads `announced` items of at least `size` bytes; allocates for no more than the bytes can hold.
fn list<T>(
    cursor: &mut Cursor<'_>,
    announced: u32,
    size: usize,
    item: impl Fn(&mut Cursor<'_>) -> Result<T, ObjectError>,
) -> Result<Vec<T>, ObjectError> {
    let announced = announced as usize;
    let mut items = Vec::with_capacity(announced.min(cursor.room_for(size)));
    for _ in 0..announced {
        items.push(item(cursor)?);
    }
    Ok(items)
}

fn decode_extent(cursor: &mut Cursor<'_>) -> Result<ExtentEntry, ObjectError> {
    let topic = TopicId::new(cursor.u64()?);
    let partition = PartitionId::new(topic, PartitionIndex::new(cursor.u32()?));
    Ok(ExtentEntry {
        partition,
        batches: cursor.u32()?,
        position: cursor.u64()?,
        length: cursor.u32()?,
        records: cursor.u32()?,
        max_timestamp: Timestamp::from_millis(cursor.i64()?),
        crc: cursor.u32()?,
    })
}

fn decode_result(cursor: &mut Cursor<'_>) -> Result<CommitResult, ObjectError> {
    let sequence = SlotSequence::new(cursor.u64()?);
    let attempt = Attempt::new(cursor.u32()?);
    let runs = cursor.u32()?;
    Ok(CommitResult { sequence, attempt, runs: list(cursor, runs, RUN_BYTES, decode_run)? })
}

fn decode_run(cursor: &mut Cursor<'_>) -> Result<PlacedRun, ObjectError> {
    let (position, length, records) = (cursor.u64()?, cursor.u32()?, cursor.u32()?);
    let base = Offset::new(cursor.u64()?);
    if base > Offset::MAX {
        return Err(ObjectError::Field { part: PART, field: "base offset" });
    }
    Ok(PlacedRun { position, length, records, base })
}
