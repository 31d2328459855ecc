//! `CommitObject`: about ten bytes a row. Rows that follow each other mostly concern neighbouring partitions of a
//! topic and neighbouring bytes, so each is told as what differs from the row before.

use streamhouse_types::{
    Attempt, Incarnation, Lane, NodeId, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

use super::CodecError;
use super::varint::{Reader, put_delta, put_i64, put_u32, put_u64};
use crate::{CommitObject, Precondition, Row, RowProducer, Unit};

/// The unit has preconditions; the rest of its head is the number of rows.
const UNIT_CONDITIONED: u64 = 1;

/// The row's topic differs from the row before.
const ROW_TOPIC: u8 = 1;
/// The row does not start where the row before ends.
const ROW_POSITION: u8 = 1 << 1;
/// The row has other than one batch.
const ROW_BATCHES: u8 = 1 << 2;
/// The row is of an idempotent producer.
const ROW_PRODUCER: u8 = 1 << 3;
const ROW_ALL: u8 = ROW_TOPIC | ROW_POSITION | ROW_BATCHES | ROW_PRODUCER;

const CONDITION_NEXT_OFFSET: u8 = 0;

/// Fewest bytes of a unit, and of a row or precondition.
const UNIT_BYTES_MIN: usize = 1;
const ROW_BYTES_MIN: usize = 5;
const CONDITION_BYTES_MIN: usize = 4;

/// What the next row is told against.
struct Previous {
    partition: PartitionId,
    end: u64,
    timestamp: u64,
    producer: u64,
}

impl Previous {
    fn new(append_time: Timestamp) -> Self {
        let partition = PartitionId::new(TopicId::new(0), PartitionIndex::new(0));
        Self { partition, end: 0, timestamp: append_time.as_millis().cast_unsigned(), producer: 0 }
    }

    fn note(&mut self, row: &Row) {
        self.partition = row.partition;
        self.end = row.position.wrapping_add(u64::from(row.length));
        self.timestamp = row.max_timestamp.as_millis().cast_unsigned();
        if let Some(sent) = row.producer {
            self.producer = sent.id.get();
        }
    }
}

pub(super) fn encode(commit: &CommitObject, to: &mut Vec<u8>) {
    let slot = commit.slot;
    put_u64(to, slot.node.get());
    put_u64(to, slot.incarnation.get());
    to.push(slot.lane.code());
    put_u64(to, slot.sequence.get());
    put_u32(to, commit.attempt.get());
    put_delta(to, slot.sequence.get(), commit.prev.get());
    put_delta(to, slot.sequence.get(), commit.lo.get());
    put_u64(to, commit.length);
    to.extend_from_slice(&commit.crc.to_le_bytes());
    put_i64(to, commit.append_time.as_millis());
    put_u64(to, commit.units.len() as u64);
    let mut previous = Previous::new(commit.append_time);
    for unit in &commit.units {
        let conditioned = if unit.preconditions.is_empty() { 0 } else { UNIT_CONDITIONED };
        put_u64(to, (unit.rows.len() as u64) << 1 | conditioned);
        if conditioned != 0 {
            put_u64(to, unit.preconditions.len() as u64);
            unit.preconditions.iter().for_each(|condition| encode_condition(condition, to));
        }
        for row in &unit.rows {
            encode_row(row, &previous, to);
            previous.note(row);
        }
    }
}

fn encode_condition(condition: &Precondition, to: &mut Vec<u8>) {
    match condition {
        Precondition::NextOffset { partition, offset } => {
            to.push(CONDITION_NEXT_OFFSET);
            put_u64(to, partition.topic.get());
            put_u32(to, partition.index.get());
            put_u64(to, offset.get());
        }
    }
}

fn encode_row(row: &Row, previous: &Previous, to: &mut Vec<u8>) {
    let mut flags = 0;
    let mut set = |flag: u8, when: bool| flags |= if when { flag } else { 0 };
    set(ROW_TOPIC, row.partition.topic != previous.partition.topic);
    set(ROW_POSITION, row.position != previous.end);
    set(ROW_BATCHES, row.batches != 1);
    set(ROW_PRODUCER, row.producer.is_some());
    to.push(flags);
    if flags & ROW_TOPIC != 0 {
        put_delta(to, previous.partition.topic.get(), row.partition.topic.get());
    }
    put_delta(to, u64::from(previous.partition.index.get()), u64::from(row.partition.index.get()));
    if flags & ROW_POSITION != 0 {
        put_delta(to, previous.end, row.position);
    }
    put_u32(to, row.length);
    if flags & ROW_BATCHES != 0 {
        put_u32(to, row.batches);
    }
    put_u32(to, row.records);
    put_delta(to, previous.timestamp, row.max_timestamp.as_millis().cast_unsigned());
    if let Some(sent) = row.producer {
        put_delta(to, previous.producer, sent.id.get());
        put_u64(to, u64::from(sent.epoch.get()));
        put_u32(to, sent.first_sequence.get());
    }
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<CommitObject, CodecError> {
    let slot = Slot {
        node: NodeId::new(reader.u64()?),
        incarnation: Incarnation::new(reader.u64()?),
        lane: Lane::from_code(reader.u8()?).ok_or(CodecError::Malformed { expected: "lane" })?,
        sequence: SlotSequence::new(reader.u64()?),
    };
    let attempt = Attempt::new(reader.u32()?);
    let prev = SlotSequence::new(reader.delta(slot.sequence.get())?);
    let lo = SlotSequence::new(reader.delta(slot.sequence.get())?);
    let length = reader.u64()?;
    let crc = u32::from_le_bytes(reader.array()?);
    let append_time = Timestamp::from_millis(reader.i64()?);
    let units = reader.count(UNIT_BYTES_MIN)?;
    let mut commit = CommitObject { slot, attempt, prev, lo, length, crc, append_time, units: Vec::new() };
    let mut previous = Previous::new(append_time);
    for _ in 0..units {
        commit.units.push(decode_unit(reader, &mut previous)?);
    }
    Ok(commit)
}

fn decode_unit(reader: &mut Reader<'_>, previous: &mut Previous) -> Result<Unit, CodecError> {
    let head = reader.u64()?;
    let mut preconditions = Vec::new();
    if head & UNIT_CONDITIONED != 0 {
        for _ in 0..reader.count(CONDITION_BYTES_MIN)? {
            preconditions.push(decode_condition(reader)?);
        }
        if preconditions.is_empty() {
            return Err(CodecError::Malformed { expected: "unit" });
        }
    }
    let count = head >> 1;
    if count > (reader.remaining() / ROW_BYTES_MIN) as u64 {
        return Err(CodecError::Truncated);
    }
    // Most units have one row; more are grown into, not reserved.
    let mut rows = Vec::with_capacity(usize::from(count == 1));
    for _ in 0..count {
        let row = decode_row(reader, previous)?;
        previous.note(&row);
        rows.push(row);
    }
    Ok(Unit { preconditions, rows })
}

fn decode_condition(reader: &mut Reader<'_>) -> Result<Precondition, CodecError> {
    if reader.u8()? != CONDITION_NEXT_OFFSET {
        return Err(CodecError::Malformed { expected: "precondition" });
    }
    let topic = TopicId::new(reader.u64()?);
    let index = PartitionIndex::new(reader.u32()?);
    Ok(Precondition::NextOffset {
        partition: PartitionId::new(topic, index),
        offset: Offset::new(reader.u64()?),
    })
}

fn decode_row(reader: &mut Reader<'_>, previous: &Previous) -> Result<Row, CodecError> {
    let malformed = || CodecError::Malformed { expected: "row" };
    let flags = reader.u8()?;
    if flags & !ROW_ALL != 0 {
        return Err(malformed());
    }
    let has = |flag: u8| flags & flag != 0;
    let topic = previous.partition.topic.get();
    let topic = if has(ROW_TOPIC) { reader.delta(topic)? } else { topic };
    let index = reader.delta(u64::from(previous.partition.index.get()))?;
    let index = PartitionIndex::new(u32::try_from(index).map_err(|_| malformed())?);
    let position = if has(ROW_POSITION) { reader.delta(previous.end)? } else { previous.end };
    let length = reader.u32()?;
    let batches = if has(ROW_BATCHES) { reader.u32()? } else { 1 };
    let records = reader.u32()?;
    let max_timestamp = Timestamp::from_millis(reader.delta(previous.timestamp)?.cast_signed());
    let producer = if has(ROW_PRODUCER) { Some(decode_producer(reader, previous)?) } else { None };
    let partition = PartitionId::new(TopicId::new(topic), index);
    Ok(Row { partition, position, length, batches, records, max_timestamp, producer })
}

fn decode_producer(reader: &mut Reader<'_>, previous: &Previous) -> Result<RowProducer, CodecError> {
    let id = ProducerId::new(reader.delta(previous.producer)?);
    let epoch = ProducerEpoch::new(reader.u16()?);
    let sequence = reader.u32()?;
    let first_sequence = Sequence::new(sequence);
    if first_sequence.get() != sequence {
        return Err(CodecError::Malformed { expected: "sequence" });
    }
    Ok(RowProducer { id, epoch, first_sequence })
}
