//! Closing a buffer: batches are sorted by partition into extents, and the commit's units are read off them. Pure.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use streamhouse_metadata::{Precondition, Row, RowProducer, Unit};
use streamhouse_storage::object::{HEADER_BYTES, NewExtent};
use streamhouse_types::batch::RecordBatch;
use streamhouse_types::{Offset, PartitionId, Timestamp};

use super::entry::{Entry, Sender, Waiter};

/// Batches below this size are copied side by side: a system call or a reference costs more than the copy, and a
/// small batch must not keep a large receive buffer alive.
const COPY_BELOW: usize = 32 << 10;

/// One batch in its place.
#[derive(Debug, Clone)]
pub(crate) struct PlacedBatch {
    /// Which of its unit's batches it is.
    place: usize,
    partition: PartitionId,
    position: u64,
    length: u32,
    records: u32,
    max_timestamp: Timestamp,
    producer: Option<RowProducer>,
}

impl PlacedBatch {
    pub(crate) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    fn row(&self) -> Row {
        Row {
            partition: self.partition,
            position: self.position,
            length: self.length,
            batches: 1,
            records: self.records,
            max_timestamp: self.max_timestamp,
            producer: self.producer,
        }
    }
}

/// A batch or unit whose bytes are part of an object.
#[derive(Debug)]
pub(crate) struct SealedEntry {
    pub(crate) waiter: Waiter,
    pub(crate) batches: Vec<PlacedBatch>,
    expected: Vec<(PartitionId, Offset)>,
}

impl SealedEntry {
    /// Whose batches it must not overtake, and where.
    pub(crate) fn senders(&self) -> impl Iterator<Item = (Sender, PartitionId)> + '_ {
        let session = self.waiter.session().id();
        self.batches.iter().map(move |batch| {
            let sender =
                batch.producer.map_or(Sender::Session(session), |producer| Sender::Producer(producer.id));
            (sender, batch.partition)
        })
    }

    /// A plain batch without conditions: neighbours of its kind share a row.
    fn is_plain(&self) -> bool {
        self.batches.len() == 1 && self.expected.is_empty() && self.batches[0].producer.is_none()
    }
}

/// A closed buffer.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The body of the object, in the order of the partitions.
    pub(crate) extents: Vec<NewExtent>,
    /// In the order in which they are to be judged, which is that of their bytes within each partition.
    pub(crate) entries: Vec<SealedEntry>,
}

/// Sorts a buffer into extents. Within a partition, units with conditions come first (they were made for the high
/// watermark that their sender saw), then everything else in the order of its coming.
pub(crate) fn seal(buffer: Vec<Entry>) -> Sealed {
    let conditional = |entry: &Entry| entry.load.batches.len() > 1 || !entry.load.expected.is_empty();
    let (units, mut singles): (Vec<Entry>, Vec<Entry>) = buffer.into_iter().partition(conditional);
    singles.sort_by_key(|entry| entry.load.batches.first().map(|(partition, _)| *partition));
    let mut entries = Vec::with_capacity(units.len() + singles.len());
    let mut loads = Vec::new();
    for (index, entry) in units.into_iter().chain(singles).enumerate() {
        for (place, (partition, batch)) in entry.load.batches.into_iter().enumerate() {
            loads.push((partition, index, place, batch));
        }
        entries.push(SealedEntry {
            waiter: entry.waiter,
            batches: Vec::new(),
            expected: entry.load.expected,
        });
    }
    loads.sort_by_key(|(partition, index, place, _)| (*partition, *index, *place));
    let small =
        loads.iter().map(|(.., batch)| batch.bytes().len()).filter(|length| *length < COPY_BELOW).sum();
    let mut body = Body { copies: BytesMut::with_capacity(small), extents: Vec::new(), end: HEADER_BYTES };
    for (partition, index, place, batch) in loads {
        let placed = body.place(partition, batch);
        entries[index].batches.push(PlacedBatch { place, ..placed });
    }
    body.finish_copies();
    for entry in &mut entries {
        entry.batches.sort_by_key(|batch| batch.place);
    }
    Sealed { extents: body.extents, entries }
}

/// The body of an object as it grows.
struct Body {
    copies: BytesMut,
    extents: Vec<NewExtent>,
    end: u64,
}

impl Body {
    fn place(&mut self, partition: PartitionId, batch: RecordBatch) -> PlacedBatch {
        let header = batch.header();
        if self.extents.last().is_none_or(|extent| extent.partition != partition) {
            self.finish_copies();
            let max_timestamp = Timestamp::NONE;
            self.extents.push(NewExtent {
                partition,
                batches: 0,
                records: 0,
                max_timestamp,
                pieces: Vec::new(),
            });
        }
        let position = self.end;
        let length = batch.bytes().len();
        if length < COPY_BELOW {
            self.copies.extend_from_slice(batch.bytes());
        } else {
            self.finish_copies();
        }
        let extent = self.extents.last_mut().expect("an extent was pushed above");
        extent.batches += 1;
        extent.records =
            extent.records.checked_add(header.offset_count()).expect("a flush has fewer than 2³² records");
        extent.max_timestamp = extent.max_timestamp.max(header.max_timestamp);
        if length >= COPY_BELOW {
            extent.pieces.push(batch.into_bytes());
        }
        self.end += length as u64;
        PlacedBatch {
            place: 0,
            partition,
            position,
            length: header.length_bytes,
            records: header.offset_count(),
            max_timestamp: header.max_timestamp,
            producer: header.producer.map(|producer| RowProducer {
                id: producer.id,
                epoch: producer.epoch,
                first_sequence: producer.first_sequence,
            }),
        }
    }

    /// Ends a run of copied batches; it belongs to the extent at hand.
    fn finish_copies(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let run: Bytes = self.copies.split().freeze();
        self.extents.last_mut().expect("copies are of an extent").pieces.push(run);
    }
}

/// The units of a commit, and the entries that each of them answers.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    pub(crate) units: Vec<Unit>,
    /// For each unit the entries, by their index.
    pub(crate) owners: Vec<Range<usize>>,
}

/// Reads the units off what is left of a closed buffer. Runs of plain batches of one partition that lie side by side
/// share a unit of one row.
pub(crate) fn units(entries: &[SealedEntry]) -> Units {
    let mut units = Units { units: Vec::new(), owners: Vec::new() };
    for (index, entry) in entries.iter().enumerate() {
        let neighbour = index.checked_sub(1).filter(|_| entry.is_plain()).map(|before| &entries[before]);
        if neighbour.is_some_and(SealedEntry::is_plain)
            && let (Some(unit), Some(owners)) = (units.units.last_mut(), units.owners.last_mut())
            && let Some(row) = unit.rows.last_mut()
            && extend(row, &entry.batches[0])
        {
            owners.end = index + 1;
            continue;
        }
        let expects = |(partition, offset): &(_, _)| Precondition::NextOffset {
            partition: *partition,
            offset: *offset,
        };
        units.units.push(Unit {
            preconditions: entry.expected.iter().map(expects).collect(),
            rows: entry.batches.iter().map(PlacedBatch::row).collect(),
        });
        units.owners.push(index..index + 1);
    }
    units
}

/// Adds a batch to the row before it, when it lies right behind it.
fn extend(row: &mut Row, batch: &PlacedBatch) -> bool {
    let adjacent = row.partition == batch.partition && row.position + u64::from(row.length) == batch.position;
    let (Some(length), Some(records)) =
        (row.length.checked_add(batch.length), row.records.checked_add(batch.records))
    else {
        return false;
    };
    if adjacent {
        row.length = length;
        row.records = records;
        row.batches += 1;
        row.max_timestamp = row.max_timestamp.max(batch.max_timestamp);
    }
    adjacent
}

#[cfg(test)]
mod tests;
