//! The slots of this incarnation's WAL lane: which are uploading, which are to be proposed, which are undecided. Pure.
//!
//! Slots are proposed in their order, each naming the one before it. A slot that failed before it was proposed is
//! skipped, and takes along what its senders put behind it. A slot whose answer was lost is proposed again, the same,
//! until it is decided, as later slots stand on it; those who wait for it are told *unknown* at their deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use streamhouse_metadata::{Command, CommitObject, Outcome, SlotRefusal, Verdict};
use streamhouse_types::{
    Attempt, Incarnation, Lane as LaneName, NodeId, PartitionId, Slot, SlotSequence, Timestamp,
};

use super::entry::{Sender, Waiter};
use super::seal::{SealedEntry, Units, units};
use crate::error::Obstacle;
use crate::log::ProposeError;

/// The object that fills a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(crate) attempt: Attempt,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Uploading,
    /// Uploaded, never proposed.
    Ready,
    Proposing,
    /// Was answered *not yet*: propose again together with or behind what it stands on.
    Again,
    /// Got no answer: propose again from this time on.
    Resting {
        until: Duration,
    },
}

#[derive(Debug)]
struct SlotState {
    phase: Phase,
    object: Option<Uploaded>,
    append_time: Timestamp,
    /// When the oldest of its waiters gives up.
    deadline: Duration,
    /// When it was proposed first.
    proposed: Option<Duration>,
    /// A proposal of it went unanswered, and may still be applied.
    lost: bool,
    /// How often it has rested.
    rests: u32,
    entries: Vec<SealedEntry>,
    /// Fixed at the first proposal.
    units: Option<Units>,
}

impl SlotState {
    /// Whether a copy of its commit may be on its way or applied.
    fn is_afloat(&self) -> bool {
        self.lost || self.phase == Phase::Proposing
    }

    /// Rows that a proposal of it carries, or at most so many. Those whose senders wait no longer are among them.
    fn rows(&self) -> usize {
        match &self.units {
            Some(units) => units.units.iter().map(|unit| unit.rows.len()).sum(),
            None => self.entries.iter().map(|entry| entry.batches.len()).sum(),
        }
    }

    /// Proposals that overtake each other are put right at once; anything else must not turn into a storm.
    fn not_yet(&mut self, now: Duration) {
        const AT_ONCE_MAX: u32 = 3;
        if self.rests >= AT_ONCE_MAX {
            return self.rest(now);
        }
        self.rests += 1;
        self.phase = Phase::Again;
    }

    fn rest(&mut self, now: Duration) {
        let pause = Lane::PAUSE_FIRST.saturating_mul(1 << self.rests.min(8)).min(Lane::PAUSE_MAX);
        self.rests += 1;
        self.phase = Phase::Resting { until: now + pause };
    }
}

/// A slot that was judged: who is to be told what.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) sequence: SlotSequence,
    pub(crate) attempt: Attempt,
    pub(crate) append_time: Timestamp,
    pub(crate) verdicts: std::sync::Arc<[Verdict]>,
    pub(crate) entries: Vec<SealedEntry>,
    pub(crate) units: Units,
    /// When the slot was proposed first.
    pub(crate) proposed: Duration,
}

/// What an answer to a proposal means.
#[derive(Debug)]
pub(crate) enum Decided {
    /// The slot was judged.
    Settled(Box<Settled>),
    /// Nothing is decided yet: it will be proposed again.
    Open,
    /// The slot is lost; those who waited for it are told *unknown*.
    Lost(Vec<Waiter>),
    /// The incarnation is closed.
    Closed,
}

/// The slots of one incarnation's WAL lane.
#[derive(Debug)]
pub(crate) struct Lane {
    node: NodeId,
    incarnation: Incarnation,
    next: SlotSequence,
    /// The newest slot that was decided; 0 when none was.
    decided: SlotSequence,
    /// Whether slots failed since the last commit, so that their objects are orphans only once `lo` has moved.
    failed: bool,
    lo_rests_until: Duration,
    slots: BTreeMap<SlotSequence, SlotState>,
    rows_at_once: usize,
}

impl Lane {
    /// Most rows that are proposed together, but for a slot that has more by itself. A row is a good twenty bytes, and
    /// eighty at most, so this many fit well into one proposal (16 MiB). Slots that rest because a leader went come back
    /// together, however many there are.
    pub(crate) const ROWS_AT_ONCE: usize = 100_000;
    const PAUSE_FIRST: Duration = Duration::from_millis(20);
    const PAUSE_MAX: Duration = Duration::from_secs(1);

    /// The lane of a fresh incarnation.
    pub(crate) fn new(node: NodeId, incarnation: Incarnation) -> Self {
        let none = SlotSequence::new(0);
        Self {
            node,
            incarnation,
            next: none.next(),
            decided: none,
            failed: false,
            lo_rests_until: Duration::ZERO,
            slots: BTreeMap::new(),
            rows_at_once: Self::ROWS_AT_ONCE,
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn slot(&self, sequence: SlotSequence) -> Slot {
        Slot { node: self.node, incarnation: self.incarnation, lane: LaneName::Wal, sequence }
    }

    /// How many slots are not decided.
    pub(crate) fn undecided(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody waits for a slot, and none is uploading.
    pub(crate) fn is_settled(&self) -> bool {
        self.slots.values().all(|slot| slot.entries.is_empty() && slot.phase != Phase::Uploading)
    }

    /// How many slots are uploading.
    pub(crate) fn uploading(&self) -> usize {
        self.slots.values().filter(|slot| slot.phase == Phase::Uploading).count()
    }

    /// Takes the next slot for a closed buffer.
    pub(crate) fn open(
        &mut self,
        entries: Vec<SealedEntry>,
        append_time: Timestamp,
        deadline: Duration,
    ) -> SlotSequence {
        let sequence = self.next;
        self.next = sequence.next();
        let state = SlotState {
            phase: Phase::Uploading,
            object: None,
            append_time,
            deadline,
            proposed: None,
            lost: false,
            rests: 0,
            entries,
            units: None,
        };
        self.slots.insert(sequence, state);
        sequence
    }

    /// The slot's object is durable. Those of its entries that failed meanwhile stay bytes without a row.
    pub(crate) fn uploaded(&mut self, sequence: SlotSequence, object: Uploaded) {
        let Some(slot) = self.slots.get_mut(&sequence) else { return };
        slot.phase = Phase::Ready;
        slot.object = Some(object);
        if slot.entries.is_empty() {
            self.slots.remove(&sequence);
            self.failed = true;
        }
    }

    /// The slot's upload failed: what it carried did not happen, nor does what its senders put behind it.
    pub(crate) fn upload_failed(&mut self, sequence: SlotSequence) -> Vec<Waiter> {
        self.fail(sequence)
    }

    /// What is to be proposed now, in order. What is too much for one proposal stays as it is until this is answered.
    pub(crate) fn propose(&mut self, now: Duration) -> Vec<(SlotSequence, Command)> {
        let mut proposals = Vec::new();
        let Some((&lo, _)) = self.slots.first_key_value() else { return proposals };
        let mut prev = self.decided;
        let (mut others_afloat, mut rows) = (false, 0);
        for (&sequence, slot) in &mut self.slots {
            match slot.phase {
                Phase::Uploading => break,
                Phase::Proposing => {
                    others_afloat = true;
                    prev = sequence;
                    continue;
                }
                // Pipelined behind what is on its way already.
                Phase::Ready => {}
                // Not behind what another call carries: it would be answered the same, again and again.
                Phase::Again if others_afloat => break,
                Phase::Again => {}
                Phase::Resting { until } if others_afloat || now < until => break,
                Phase::Resting { .. } => {}
            }
            rows += slot.rows();
            if rows > self.rows_at_once && !proposals.is_empty() {
                break;
            }
            let command = Self::commit(self.node, self.incarnation, sequence, slot, (prev, lo));
            proposals.push((sequence, command));
            slot.phase = Phase::Proposing;
            slot.proposed.get_or_insert(now);
            prev = sequence;
        }
        proposals
    }

    fn commit(
        node: NodeId,
        incarnation: Incarnation,
        sequence: SlotSequence,
        slot: &mut SlotState,
        (prev, lo): (SlotSequence, SlotSequence),
    ) -> Command {
        let object = slot.object.expect("only uploaded slots are proposed");
        for entry in &mut slot.entries {
            entry.waiter.mark_proposed();
        }
        let units = slot.units.get_or_insert_with(|| units(&slot.entries));
        Command::CommitObject(CommitObject {
            slot: Slot { node, incarnation, lane: LaneName::Wal, sequence },
            attempt: object.attempt,
            prev,
            lo,
            length: object.length,
            crc: object.crc,
            append_time: slot.append_time,
            units: units.units.clone(),
        })
    }

    /// Takes the answer to a proposal in.
    pub(crate) fn answered(
        &mut self,
        sequence: SlotSequence,
        answer: Result<Outcome, ProposeError>,
        now: Duration,
    ) -> Decided {
        let Some(slot) = self.slots.get_mut(&sequence) else { return Decided::Open };
        match answer {
            Ok(Outcome::Committed { attempt, verdicts, append_time }) => {
                let slot = self.slots.remove(&sequence).expect("looked up above");
                self.decided = self.decided.max(sequence);
                // The next commit moves `lo` past it; failed slots below it are below that `lo` too.
                Decided::Settled(Box::new(Settled {
                    sequence,
                    attempt,
                    append_time,
                    verdicts,
                    entries: slot.entries,
                    units: slot.units.expect("a judged slot was proposed"),
                    proposed: slot.proposed.unwrap_or(now),
                }))
            }
            Ok(Outcome::NotYet) => {
                slot.not_yet(now);
                Decided::Open
            }
            Ok(Outcome::SlotRefused(SlotRefusal::BelowLo { .. })) => {
                let slot = self.slots.remove(&sequence).expect("looked up above");
                self.decided = self.decided.max(sequence);
                Decided::Lost(slot.entries.into_iter().map(|entry| entry.waiter).collect())
            }
            Ok(Outcome::SlotRefused(SlotRefusal::IncarnationClosed { .. })) => Decided::Closed,
            Ok(_) | Err(ProposeError::Unknown { .. }) => {
                slot.lost = true;
                slot.rest(now);
                Decided::Open
            }
            Err(ProposeError::NotHappened { .. }) => {
                slot.rest(now);
                Decided::Open
            }
        }
    }

    /// Those who have waited too long: they did not happen, or may have.
    pub(crate) fn expire(&mut self, now: Duration) -> Expired {
        let mut expired = Expired::default();
        let due: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.phase != Phase::Uploading && slot.deadline <= now && !slot.entries.is_empty()
            })
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in due {
            let afloat = self.slots.range(sequence..).any(|(_, slot)| slot.is_afloat());
            let Some(slot) = self.slots.get_mut(&sequence) else { continue };
            let proposed = slot.proposed.is_some();
            if proposed && afloat {
                // It stays, and is proposed until it is decided: what comes behind stands on it.
                expired.unknown.extend(slot.entries.drain(..).map(|entry| entry.waiter));
            } else {
                let obstacle = if proposed { Obstacle::Metadata } else { Obstacle::Deadline };
                expired.not_stored.extend(self.fail(sequence).into_iter().map(|waiter| (waiter, obstacle)));
            }
        }
        expired
    }

    /// Takes a slot away of which no copy is afloat, and what its senders put behind it in slots that no commit was
    /// proposed for.
    fn fail(&mut self, sequence: SlotSequence) -> Vec<Waiter> {
        let Some(failed) = self.slots.remove(&sequence) else { return Vec::new() };
        self.failed = true;
        let mut senders: BTreeSet<(Sender, PartitionId)> = BTreeSet::new();
        let mut waiters = Vec::new();
        for entry in failed.entries {
            senders.extend(entry.senders());
            waiters.push(entry.waiter);
        }
        for slot in self.slots.range_mut(sequence..).map(|(_, slot)| slot) {
            if slot.is_afloat() {
                continue;
            }
            // No copy of it is anywhere, so its units may be read anew from what is left.
            slot.units = None;
            let entries = std::mem::take(&mut slot.entries);
            for entry in entries {
                if entry.senders().any(|sender| senders.contains(&sender)) {
                    senders.extend(entry.senders());
                    waiters.push(entry.waiter);
                } else {
                    slot.entries.push(entry);
                }
            }
        }
        // What is still uploading goes when its upload ends.
        self.slots
            .retain(|_, slot| slot.phase == Phase::Uploading || slot.is_afloat() || !slot.entries.is_empty());
        waiters
    }

    /// Everything that is undecided goes: first those who may have happened, then those who did not.
    pub(crate) fn abandon(&mut self) -> Expired {
        let mut expired = Expired::default();
        for slot in std::mem::take(&mut self.slots).into_values() {
            let waiters = slot.entries.into_iter().map(|entry| entry.waiter);
            if slot.proposed.is_some() {
                expired.unknown.extend(waiters);
            } else {
                expired.not_stored.extend(waiters.map(|waiter| (waiter, Obstacle::Registration)));
            }
        }
        expired
    }

    /// When something is due by itself: a deadline, or a proposal after a rest. A slot that rests behind one whose answer is
    /// still to come waits for that answer, however long: a time that has passed would be waited for again and again.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let mut movable = self.slots.values().take_while(|slot| slot.phase != Phase::Proposing);
        let rests = movable.find_map(|slot| match slot.phase {
            Phase::Resting { until } => Some(until),
            _ => None,
        });
        let waiting = |slot: &&SlotState| slot.phase != Phase::Uploading && !slot.entries.is_empty();
        let deadlines = self.slots.values().filter(waiting).map(|slot| slot.deadline).min();
        rests.into_iter().chain(deadlines).min()
    }

    /// When `AdvanceLo` is due, as long as nothing is undecided and nothing is about to be.
    pub(crate) fn lo_due(&self) -> Option<Duration> {
        (self.failed && self.slots.is_empty()).then_some(self.lo_rests_until)
    }

    /// The slot to name in `AdvanceLo`, when nothing is undecided and slots have failed since it was last told.
    pub(crate) fn idle_lo(&self, now: Duration) -> Option<Slot> {
        self.lo_due().filter(|due| now >= *due).map(|_| self.slot(self.next))
    }

    /// `AdvanceLo` is on its way.
    pub(crate) fn lo_proposed(&mut self) {
        self.failed = false;
    }

    /// `AdvanceLo` went unanswered: it is due again after a rest.
    pub(crate) fn lo_not_advanced(&mut self, now: Duration) {
        self.failed = true;
        self.lo_rests_until = now + Self::PAUSE_MAX;
    }
}

/// Those who waited for slots that will not be answered.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    pub(crate) unknown: Vec<Waiter>,
    pub(crate) not_stored: Vec<(Waiter, Obstacle)>,
}

#[cfg(test)]
mod tests;
