//! `CommitObject`: the one command that appends. Here offsets are given, and nowhere else.

use std::collections::BTreeMap;

use streamhouse_types::{LogIndex, ObjectId, Offset, PartitionId, ProducerId, Timestamp};

use crate::lanes::Decision;
use crate::objects::{Moment, ObjectEntry};
use crate::partition::Landing;
use crate::producers::{self, BATCH_RECORDS_MAX, CLUSTER_BYTES_MAX, PARTITION_BYTES_MAX, Sent, Standing};
use crate::state::{Applied, Changes, State};
use crate::{CommitObject, Outcome, Precondition, Row, RowProducer, SlotRefusal, Unit, UnitRefusal, Verdict};

/// How far an append time may lie ahead of cluster time, in milliseconds.
pub(crate) const APPEND_AHEAD_MS: i64 = 5_000;

/// The judgement on a proposal of a slot, before any of its units is looked at.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotJudgement {
    /// It can never be committed under this name.
    Refused(SlotRefusal),
    /// The slot was decided before: this is the answer.
    Decided(Decision),
    /// The slot proposed before it is undecided.
    NotYet,
    /// Its units are to be judged.
    Open,
}

/// The judgement on a unit.
enum UnitJudgement {
    Append,
    Duplicate(Vec<Offset>),
    Refused(UnitRefusal),
}

/// Where producers stand after the rows of a unit judged so far, which are not in the log yet.
type Pending = BTreeMap<(PartitionId, ProducerId), Standing>;

impl State {
    pub(crate) fn commit_object(
        &mut self,
        commit: &CommitObject,
        at: Moment,
        changes: &mut Changes,
    ) -> Outcome {
        match self.judge_slot(commit) {
            SlotJudgement::Refused(refusal) => Outcome::SlotRefused(refusal),
            SlotJudgement::Decided(decision) => {
                self.lane_mut(&commit.slot).expect("a decided slot has a lane").advance(commit.lo);
                decision.outcome()
            }
            SlotJudgement::NotYet => Outcome::NotYet,
            SlotJudgement::Open => self.append_object(commit, at, changes),
        }
    }

    /// Judges a proposal of a slot. Public for the protocol model alone.
    #[doc(hidden)]
    #[must_use]
    pub fn judge_slot(&self, commit: &CommitObject) -> SlotJudgement {
        let slot = commit.slot;
        let Some(lane) = self.lane(slot.node, slot.incarnation, slot.lane) else {
            let current = self.open_incarnation(slot.node);
            return SlotJudgement::Refused(SlotRefusal::IncarnationClosed { current });
        };
        // The proposal's own `lo` counts for all three: what its node has given up can never commit.
        let lo = lane.lo().max(commit.lo);
        if slot.sequence < lo {
            return SlotJudgement::Refused(SlotRefusal::BelowLo { lo });
        }
        if let Some(decision) = lane.decision(slot.sequence) {
            return SlotJudgement::Decided(decision.clone());
        }
        if commit.prev < lo || lane.is_decided(commit.prev) {
            SlotJudgement::Open
        } else {
            SlotJudgement::NotYet
        }
    }

    /// Appends an object whose slot nobody judged. Public for the protocol model alone, which takes the guards of
    /// [`State::apply`] away one by one to see what each is for.
    #[doc(hidden)]
    pub fn apply_unjudged(&mut self, index: LogIndex, commit: &CommitObject) -> Applied {
        self.skip_to(index);
        let mut changes = Changes::default();
        let at = Moment { index, time: self.cluster_time() };
        let outcome = self.append_object(commit, at, &mut changes);
        Applied { outcome, changes }
    }

    fn append_object(&mut self, commit: &CommitObject, at: Moment, changes: &mut Changes) -> Outcome {
        let latest = at.time.plus_millis(APPEND_AHEAD_MS);
        let append_time = commit.append_time.min(latest).max(Timestamp::default());
        let mut extents: u32 = 0;
        let mut verdicts = Vec::with_capacity(commit.units.len());
        for unit in &commit.units {
            verdicts.push(match self.judge_unit(commit, unit) {
                UnitJudgement::Refused(refusal) => Verdict::Refused(refusal),
                UnitJudgement::Duplicate(bases) => Verdict::Duplicate { bases },
                UnitJudgement::Append => {
                    let mut bases = Vec::with_capacity(unit.rows.len());
                    for row in &unit.rows {
                        let placed = self.append_row(row, commit.object(), append_time, changes);
                        bases.push(placed.base);
                        extents += placed.extents;
                    }
                    Verdict::Appended { bases }
                }
            });
        }
        let entry = ObjectEntry { length: commit.length, crc: commit.crc, extents, committed: at.index };
        changes.garbage_added |= self.objects.commit(commit.object(), entry, at);
        changes.settle_appended();
        self.evict_producers(changes);
        let decision = Decision { attempt: commit.attempt, verdicts: verdicts.into(), append_time };
        let outcome = decision.outcome();
        if let Some(lane) = self.lane_mut(&commit.slot) {
            lane.decide(commit.slot.sequence, decision);
            lane.advance(commit.lo);
        }
        outcome
    }

    fn append_row(
        &mut self,
        row: &Row,
        object: ObjectId,
        append_time: Timestamp,
        changes: &mut Changes,
    ) -> crate::partition::Placed {
        let landing = Landing { object, append_time, stamp: self.append_next };
        self.append_next += 1;
        let partition = self.partition_mut(row.partition).expect("the unit was judged");
        let remembered = partition.producer_table().bytes();
        let placed = partition.append(row, &landing);
        changes.appended.push((row.partition, partition.high_watermark()));
        let remembers = partition.producer_table().bytes();
        self.producer_bytes = self.producer_bytes - remembered + remembers;
        placed
    }

    /// Judges a unit: whether it can be appended wholly.
    fn judge_unit(&self, commit: &CommitObject, unit: &Unit) -> UnitJudgement {
        let mut pending = Pending::new();
        let mut duplicates = Vec::new();
        let mut records: u64 = 0;
        for row in &unit.rows {
            records += u64::from(row.records);
            match self.judge_row(commit, row, &mut pending) {
                Ok(None) => {}
                Ok(Some(base)) => duplicates.push(base),
                Err(refusal) => return UnitJudgement::Refused(refusal),
            }
        }
        // Before the preconditions: a retried conditional append finds its own first try behind its offset.
        if !duplicates.is_empty() {
            let all = duplicates.len() == unit.rows.len();
            let partly = UnitJudgement::Refused(UnitRefusal::PartlyDuplicate);
            return if all { UnitJudgement::Duplicate(duplicates) } else { partly };
        }
        if let Some(refusal) = unit.preconditions.iter().find_map(|condition| self.unmet(condition)) {
            return UnitJudgement::Refused(refusal);
        }
        let fits = |row: &Row| {
            let end =
                self.partition(row.partition).map(|found| found.high_watermark().get().checked_add(records));
            end.flatten().is_some_and(|end| end <= Offset::MAX.get())
        };
        if unit.rows.iter().all(fits) {
            UnitJudgement::Append
        } else {
            UnitJudgement::Refused(UnitRefusal::Malformed)
        }
    }

    /// The offset of the row when it is in the log already; `None` when it is new.
    fn judge_row(
        &self,
        commit: &CommitObject,
        row: &Row,
        pending: &mut Pending,
    ) -> Result<Option<Offset>, UnitRefusal> {
        let partition = self.partition(row.partition).ok_or(UnitRefusal::UnknownPartition)?;
        if !is_well_formed(row, commit.length) {
            return Err(UnitRefusal::Malformed);
        }
        let Some(sent) = &row.producer else {
            return Ok(None);
        };
        if !self.grants.contain(sent.id) {
            return Err(UnitRefusal::ProducerIdNotGranted);
        }
        let key = (row.partition, sent.id);
        match producers::judge(partition.producer(sent.id), pending.get(&key).copied(), sent, row.records) {
            Sent::Duplicate(base) => Ok(Some(base)),
            Sent::Refused(refusal) => Err(refusal),
            Sent::New => {
                pending.insert(key, Standing::after(sent, row.records));
                Ok(None)
            }
        }
    }

    fn unmet(&self, condition: &Precondition) -> Option<UnitRefusal> {
        match condition {
            Precondition::NextOffset { partition, offset } => {
                let Some(found) = self.partition(*partition) else {
                    return Some(UnitRefusal::UnknownPartition);
                };
                let actual = found.high_watermark();
                (actual != *offset).then_some(UnitRefusal::PreconditionFailed { actual })
            }
        }
    }

    /// Keeps the memory of producers under its limits by forgetting those whose last append is oldest.
    fn evict_producers(&mut self, changes: &Changes) {
        for (id, _) in &changes.appended {
            let partition = self.partition(*id).expect("it was appended to just now");
            if partition.producer_table().bytes() > PARTITION_BYTES_MAX {
                self.evict_in_partition(*id, PARTITION_BYTES_MAX);
            }
        }
        if self.producer_bytes > CLUSTER_BYTES_MAX {
            self.evict_in_cluster(CLUSTER_BYTES_MAX);
        }
    }

    pub(crate) fn evict_in_partition(&mut self, id: PartitionId, cap: u64) {
        let table = self.partition_mut(id).expect("the partition was found").producer_table_mut();
        let before = table.bytes();
        let mut ages = Vec::new();
        table.list_ages(&mut ages);
        let stamp = producers::eviction_stamp(ages, cap);
        table.forget(|entry| entry.stamp() < stamp);
        let after = table.bytes();
        self.producer_bytes -= before - after;
    }

    pub(crate) fn evict_in_cluster(&mut self, cap: u64) {
        let mut ages = Vec::new();
        for partition in self.partitions() {
            partition.producer_table().list_ages(&mut ages);
        }
        let stamp = producers::eviction_stamp(ages, cap);
        self.forget_producers(|entry| entry.stamp() < stamp);
    }

    /// Forgets producers whose last append, in cluster time, is older than `cutoff`.
    pub(crate) fn expire_producers(&mut self, cutoff: Timestamp) -> Outcome {
        self.forget_producers(|entry| entry.last_append() < cutoff);
        Outcome::Done
    }
}

/// Whether the row describes batches that can lie in the object.
fn is_well_formed(row: &Row, object_length: u64) -> bool {
    let fits = row.position.checked_add(u64::from(row.length)).is_some_and(|end| end <= object_length);
    let counts = row.length > 0 && row.batches > 0 && row.batches <= row.records;
    let one_batch = |_: &RowProducer| row.batches == 1 && row.records <= BATCH_RECORDS_MAX;
    fits && counts && row.producer.as_ref().is_none_or(one_batch)
}
