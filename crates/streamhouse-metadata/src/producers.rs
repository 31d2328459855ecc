//! Idempotent producers: what each sent last to a partition, so that a retry is recognised for ever and anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use streamhouse_types::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use crate::{ProducerWindow, RowProducer, UnitRefusal};

/// The first id of native sessions; Kafka's start at 1. So an id tells its window, and the granted blocks need no
/// table.
const NATIVE_FIRST: u64 = 1 << 40;

/// Most records in one idempotent batch: 64 remembered batches then span less than half the ring of sequences.
pub(crate) const BATCH_RECORDS_MAX: u32 = 1 << 24;

/// Largest block of producer ids.
pub(crate) const BLOCK_IDS_MAX: u32 = 10_000;

/// What a producer takes in the memory of a partition, apart from its batches, and what each batch takes: the tables
/// with their slack, rounded up.
pub(crate) const PRODUCER_BYTES: u64 = 160;
pub(crate) const BATCH_BYTES: u64 = 16;

/// Memory for the producers of one partition: 20,000 of them or more, by how many batches each has.
pub(crate) const PARTITION_BYTES_MAX: u64 = 4 << 20;

/// Memory for the producers of all partitions together.
pub(crate) const CLUSTER_BYTES_MAX: u64 = 512 << 20;

impl ProducerWindow {
    /// How many batches are remembered for a producer and partition.
    #[must_use]
    pub const fn batches(self) -> usize {
        match self {
            Self::Kafka => 5,
            Self::Native => 64,
        }
    }

    /// The window that came with an id. Says nothing about whether the id was granted.
    #[must_use]
    pub const fn of(id: ProducerId) -> Self {
        if id.get() < NATIVE_FIRST { Self::Kafka } else { Self::Native }
    }
}

/// Which producer ids were given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grants {
    /// The next id of each kind.
    kafka_next: u64,
    native_next: u64,
}

impl Default for Grants {
    fn default() -> Self {
        Self { kafka_next: 1, native_next: NATIVE_FIRST }
    }
}

impl Grants {
    /// Gives out the next `count` ids; `None` when they are exhausted.
    pub(crate) fn take(&mut self, count: u32, window: ProducerWindow) -> Option<ProducerId> {
        let (next, end) = match window {
            ProducerWindow::Kafka => (&mut self.kafka_next, NATIVE_FIRST),
            ProducerWindow::Native => (&mut self.native_next, i64::MAX as u64),
        };
        let first = *next;
        *next = first.checked_add(u64::from(count)).filter(|next| *next <= end)?;
        Some(ProducerId::new(first))
    }

    /// Whether the id lies in a block that was given out.
    pub(crate) fn contain(&self, id: ProducerId) -> bool {
        let id = id.get();
        (1..self.kafka_next).contains(&id) || (NATIVE_FIRST..self.native_next).contains(&id)
    }
}

/// A batch that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBatch {
    /// Sequence of its first record.
    pub first: Sequence,
    /// How many records it has.
    pub records: u32,
    /// The offset it got.
    pub base: Offset,
}

/// What is remembered of one producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerEntry {
    epoch: ProducerEpoch,
    /// Oldest first, all of the current epoch, side by side in sequence; at least one.
    batches: Vec<SentBatch>,
    last_append: Timestamp,
    /// The place of its last append in the order of the whole log.
    stamp: u64,
}

/// What continues a producer's batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) next: Sequence,
}

impl Standing {
    /// Where a producer stands once the batch is in the log.
    pub(crate) fn after(sent: &RowProducer, records: u32) -> Self {
        Self { epoch: sent.epoch, next: sent.first_sequence.after(records) }
    }
}

impl ProducerEntry {
    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// The batches remembered, oldest first; at least one.
    #[must_use]
    pub fn batches(&self) -> &[SentBatch] {
        &self.batches
    }

    /// The append time of its newest batch.
    #[must_use]
    pub fn last_append(&self) -> Timestamp {
        self.last_append
    }

    /// The place of its newest batch in the order of all appends to all partitions.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The sequence that continues what it sent.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        let last = self.batches.last().expect("a producer is known by a batch it sent");
        last.first.after(last.records)
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        PRODUCER_BYTES + BATCH_BYTES * self.batches.len() as u64
    }

    fn standing(&self) -> Standing {
        Standing { epoch: self.epoch, next: self.next_sequence() }
    }

    fn find(&self, sent: &RowProducer, records: u32) -> Option<Offset> {
        let same = |batch: &&SentBatch| batch.first == sent.first_sequence && batch.records == records;
        self.batches.iter().find(same).filter(|_| self.epoch == sent.epoch).map(|batch| batch.base)
    }
}

/// The judgement on one idempotent batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It continues what the producer sent.
    New,
    /// It is in the log, at this offset.
    Duplicate(Offset),
    /// It is neither.
    Refused(UnitRefusal),
}

/// Judges a batch. `known` is what the partition remembers; `pending` is where the producer stands after earlier
/// rows of the same unit, which are not in the log yet.
pub(crate) fn judge(
    known: Option<&ProducerEntry>,
    pending: Option<Standing>,
    sent: &RowProducer,
    records: u32,
) -> Sent {
    let Some(now) = pending.or_else(|| known.map(ProducerEntry::standing)) else {
        // A retry of a batch that is in the log must not get in again after its state has gone; only a first batch
        // is surely new.
        let first = sent.first_sequence == Sequence::ZERO;
        return if first { Sent::New } else { Sent::Refused(UnitRefusal::UnknownProducer) };
    };
    if sent.epoch < now.epoch {
        return Sent::Refused(UnitRefusal::ProducerFenced { current: now.epoch });
    }
    let expected = if sent.epoch > now.epoch { Sequence::ZERO } else { now.next };
    if let Some(base) = known.and_then(|known| known.find(sent, records)) {
        return Sent::Duplicate(base);
    }
    if sent.first_sequence == expected {
        Sent::New
    } else {
        Sent::Refused(UnitRefusal::OutOfOrderSequence { expected })
    }
}

/// The producers of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Producers {
    by_id: BTreeMap<ProducerId, Arc<ProducerEntry>>,
    /// What all of them take in memory. Counted, not stored.
    bytes: u64,
}

impl Serialize for Producers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Producers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = BTreeMap::<ProducerId, Arc<ProducerEntry>>::deserialize(deserializer)?;
        let bytes = by_id.values().map(|entry| entry.bytes()).sum();
        Ok(Self { by_id, bytes })
    }
}

/// A batch just appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) sent: RowProducer,
    pub(crate) batch: SentBatch,
    pub(crate) append_time: Timestamp,
    pub(crate) stamp: u64,
}

impl Producers {
    pub(crate) fn get(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.by_id.get(&id).map(|entry| &**entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.by_id.iter().map(|(id, entry)| (*id, &**entry))
    }

    /// What all of them take in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Remembers a batch and forgets what falls out of the producer's window.
    pub(crate) fn record(&mut self, recorded: &Recorded) {
        let Recorded { sent, batch, append_time, stamp } = *recorded;
        let known = self.by_id.get(&sent.id).map_or(0, |entry| entry.bytes());
        let fresh = || {
            Arc::new(ProducerEntry {
                epoch: sent.epoch,
                batches: Vec::new(),
                last_append: append_time,
                stamp,
            })
        };
        let entry = Arc::make_mut(self.by_id.entry(sent.id).or_insert_with(fresh));
        if entry.epoch != sent.epoch {
            entry.epoch = sent.epoch;
            entry.batches.clear();
        }
        let window = ProducerWindow::of(sent.id).batches();
        if entry.batches.len() >= window {
            entry.batches.drain(..=entry.batches.len() - window);
        }
        entry.batches.push(batch);
        entry.last_append = append_time;
        entry.stamp = stamp;
        self.bytes = self.bytes - known + entry.bytes();
    }

    /// Whether `forget` holds for any producer.
    pub(crate) fn any(&self, forget: impl Fn(&ProducerEntry) -> bool) -> bool {
        self.by_id.values().any(|entry| forget(entry))
    }

    /// Forgets the producers for which `forget` holds.
    pub(crate) fn forget(&mut self, forget: impl Fn(&ProducerEntry) -> bool) {
        self.by_id.retain(|_, entry| !forget(entry));
        self.bytes = self.by_id.values().map(|entry| entry.bytes()).sum();
    }

    /// Adds one pair per producer: the stamp of its last append, and what it takes in memory.
    pub(crate) fn list_ages(&self, ages: &mut Vec<(u64, u64)>) {
        ages.extend(self.by_id.values().map(|entry| (entry.stamp, entry.bytes())));
    }
}

/// Given the ages of producers, the stamp before which they are to be forgotten so that at most 15/16 of `cap`
/// bytes stay. That much room makes the cost of an eviction vanish in the appends between two of them.
pub(crate) fn eviction_stamp(mut ages: Vec<(u64, u64)>, cap: u64) -> u64 {
    ages.sort_unstable();
    let mut left: u64 = ages.iter().map(|(_, bytes)| bytes).sum();
    let keep = cap - cap / 16;
    for (stamp, bytes) in ages {
        if left <= keep {
            return stamp;
        }
        left -= bytes;
    }
    u64::MAX
}

#[cfg(test)]
mod tests;
