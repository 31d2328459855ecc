//! Building an object out of batches that stay where they are.

use bytes::Bytes;
use streamhouse_types::{PartitionId, Timestamp};

use super::Crc32c;
use super::header::{HEADER_BYTES, ObjectHeader};
use super::index::{CommitResult, ExtentEntry, ObjectIndex};
use super::trailer::ObjectTrailer;
use crate::payload::Payload;

/// From so many bytes on, the checksum of an extent is put behind that of the body, instead of reading the bytes twice.
const APPENDED_CRC_BYTES: u64 = 512 << 10;

/// Batches of one partition that will lie side by side.
#[derive(Debug, Clone)]
pub struct NewExtent {
    /// The partition.
    pub partition: PartitionId,
    /// How many batches `pieces` hold.
    pub batches: u32,
    /// How many records they hold.
    pub records: u32,
    /// Greatest timestamp of a record.
    pub max_timestamp: Timestamp,
    /// The bytes of the batches, one after the other; at least one byte and less than 4 GiB in all.
    pub pieces: Vec<Bytes>,
}

/// Puts a level-0 object together. Extents are pushed in the order of their partitions; nothing is copied.
#[derive(Debug)]
pub struct ObjectBuilder {
    index: ObjectIndex,
    body: Vec<Bytes>,
    end: u64,
    crc: Crc32c,
}

impl ObjectBuilder {
    /// An object without extents.
    #[must_use]
    pub fn new() -> Self {
        Self { index: ObjectIndex::default(), body: Vec::new(), end: HEADER_BYTES, crc: Crc32c::new() }
    }

    /// Adds an extent and answers where it starts in the object.
    ///
    /// # Panics
    /// When the extent is empty, has 4 GiB or more, or its partition comes before that of the extent before.
    pub fn push(&mut self, extent: NewExtent) -> u64 {
        let last = self.index.extents.last().map(|last| last.partition);
        assert!(last <= Some(extent.partition), "extents come in the order of their partitions");
        let position = self.end;
        let mut crc = Crc32c::new();
        for piece in &extent.pieces {
            crc.update(piece);
            self.end += piece.len() as u64;
        }
        if self.end - position >= APPENDED_CRC_BYTES {
            self.crc.append(&crc);
        } else {
            extent.pieces.iter().for_each(|piece| self.crc.update(piece));
        }
        let length = u32::try_from(self.end - position).expect("an extent is smaller than 4 GiB");
        assert!(length > 0, "an extent holds bytes");
        self.body.extend(extent.pieces);
        self.index.extents.push(ExtentEntry {
            partition: extent.partition,
            position,
            length,
            batches: extent.batches,
            records: extent.records,
            max_timestamp: extent.max_timestamp,
            crc: crc.finish(),
        });
        position
    }

    /// Notes what became of one of the node's previous objects.
    pub fn push_result(&mut self, result: CommitResult) {
        self.index.results.push(result);
    }

    /// Where the next extent would start: the length of the object so far, without index and trailer.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Ends the object. Only its name is open.
    #[must_use]
    pub fn finish(self) -> BuiltObject {
        let body_crc = self.crc.finish();
        let mut tail = self.index.encode();
        let trailer = ObjectTrailer::of(self.end, body_crc, &tail);
        tail.extend_from_slice(&trailer.encode());
        let length = self.end + tail.len() as u64;
        BuiltObject {
            body: self.body,
            extents: self.index.extents,
            tail: Bytes::from(tail),
            body_crc,
            length,
        }
    }
}

impl Default for ObjectBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// An object that lacks only its name, so that each attempt at its slot can carry a name of its own.
#[derive(Debug, Clone)]
pub struct BuiltObject {
    body: Vec<Bytes>,
    extents: Vec<ExtentEntry>,
    tail: Bytes,
    body_crc: u32,
    length: u64,
}

impl BuiltObject {
    /// Length of the whole object in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// CRC-32C of the body, the same for every attempt.
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// The extents, as the index has them.
    #[must_use]
    pub fn extents(&self) -> &[ExtentEntry] {
        &self.extents
    }

    /// The bytes of the object under this name. Copies nothing but the header.
    #[must_use]
    pub fn payload(&self, header: &ObjectHeader) -> Payload {
        let mut pieces = Vec::with_capacity(self.body.len() + 2);
        pieces.push(Bytes::copy_from_slice(&header.encode()));
        pieces.extend_from_slice(&self.body);
        pieces.push(self.tail.clone());
        Payload::new(pieces)
    }
}
