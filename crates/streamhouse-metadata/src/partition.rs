//! One partition: its log start, high watermark, extents, epochs and producers.

use serde::{Deserialize, Serialize};
use streamhouse_types::{Epoch, NodeId, ObjectId, Offset, PartitionId, ProducerId, Timestamp};

use crate::extents::{Extent, Extents};
use crate::producers::{ProducerEntry, Producers, Recorded, SentBatch};
use crate::{Row, RowProducer};

/// A row of the leader-epoch table: the first offset that was appended under an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first offset appended under it.
    pub start: Offset,
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    id: PartitionId,
    home: NodeId,
    epoch: Epoch,
    log_start: Offset,
    high_watermark: Offset,
    last_append: Timestamp,
    stored_bytes: u64,
    epochs: Vec<EpochStart>,
    extents: Extents,
    producers: Producers,
}

/// Where an accepted row goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Landing {
    pub(crate) object: ObjectId,
    /// The append time of the object; the partition's may be later.
    pub(crate) append_time: Timestamp,
    /// The place of the append in the order of the whole log.
    pub(crate) stamp: u64,
}

/// What an accepted row became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) base: Offset,
    /// Extents added: 0 when the row lengthened the last one.
    pub(crate) extents: u32,
}

impl Partition {
    pub(crate) fn new(id: PartitionId, home: NodeId) -> Self {
        Self {
            id,
            home,
            epoch: Epoch::default(),
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            last_append: Timestamp::default(),
            stored_bytes: 0,
            epochs: Vec::new(),
            extents: Extents::default(),
            producers: Producers::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The node that placement prefers for it.
    #[must_use]
    pub fn home(&self) -> NodeId {
        self.home
    }

    /// How often the home has changed.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first offset that is still readable; equals the high watermark when nothing is.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The first offset that is not readable yet.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Append time of the newest extent ever appended, in cluster time; 0 before the first.
    #[must_use]
    pub fn last_append(&self) -> Timestamp {
        self.last_append
    }

    /// Bytes of all its extents. An extent counts until no record of it is readable.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The leader-epoch table, in order; rows that only concern trimmed offsets are gone.
    #[must_use]
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The extents from the one that holds `offset` on, in offset order. The first may start before `offset`.
    pub fn extents_from(&self, offset: Offset) -> impl Iterator<Item = Extent> + '_ {
        self.extents.at_or_after(offset)
    }

    /// The extent that holds `offset`; `None` outside `log_start..high_watermark`.
    #[must_use]
    pub fn extent_at(&self, offset: Offset) -> Option<Extent> {
        if offset < self.log_start || offset >= self.high_watermark {
            return None;
        }
        self.extents.at_or_after(offset).next()
    }

    /// How many extents it has.
    #[must_use]
    pub fn extent_count(&self) -> usize {
        self.extents.count()
    }

    /// What is remembered of a producer.
    #[must_use]
    pub fn producer(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(id)
    }

    /// All producers that are remembered, by id.
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter()
    }

    pub(crate) fn producer_table(&self) -> &Producers {
        &self.producers
    }

    pub(crate) fn producer_table_mut(&mut self) -> &mut Producers {
        &mut self.producers
    }

    /// Appends a row that was judged good.
    pub(crate) fn append(&mut self, row: &Row, to: &Landing) -> Placed {
        let base = self.high_watermark;
        let end = base.after(row.records);
        if self.epochs.last().is_none_or(|last| last.epoch < self.epoch) {
            self.epochs.push(EpochStart { epoch: self.epoch, start: base });
        }
        self.last_append = self.last_append.max(to.append_time);
        let extents = self.extents.append(Extent {
            base,
            end,
            object: to.object,
            position: row.position,
            length: row.length,
            batches: row.batches,
            max_timestamp: row.max_timestamp,
            append_time: self.last_append,
            epoch: self.epoch,
        });
        self.high_watermark = end;
        self.stored_bytes += u64::from(row.length);
        if let Some(sent) = row.producer {
            self.remember(sent, row.records, base, to);
        }
        Placed { base, extents }
    }

    fn remember(&mut self, sent: RowProducer, records: u32, base: Offset, to: &Landing) {
        self.producers.record(&Recorded {
            sent,
            batch: SentBatch { first: sent.first_sequence, records, base },
            append_time: self.last_append,
            stamp: to.stamp,
        });
    }

    /// Moves the log start to `before`, at most the high watermark and never back. Hands out the object of each
    /// extent that is gone. Returns the log start.
    pub(crate) fn trim(&mut self, before: Offset, mut released: impl FnMut(ObjectId)) -> Offset {
        let target = before.min(self.high_watermark);
        if target <= self.log_start {
            return self.log_start;
        }
        self.log_start = target;
        let bytes = &mut self.stored_bytes;
        self.extents.drop_before(target, |extent| {
            *bytes -= u64::from(extent.length);
            released(extent.object);
        });
        let obsolete = self.epochs.partition_point(|row| row.start <= target).saturating_sub(1);
        self.epochs.drain(..obsolete);
        self.log_start
    }

    /// Gives the partition a new home; the epoch goes up by one.
    pub(crate) fn move_to(&mut self, home: NodeId) {
        self.home = home;
        self.epoch = self.epoch.next();
    }
}
