//! The lanes of an open incarnation: which slots are decided, and what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{Attempt, SlotSequence, Timestamp};

use crate::{Outcome, Verdict};

/// How many answers a lane remembers. A node has far fewer slots in flight; one that does not move its `lo` has it
/// moved here, which is always safe: a slot below `lo` can only be refused.
pub(crate) const DECISIONS_MAX: usize = 256;

/// What a slot was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The attempt that decided the slot.
    pub attempt: Attempt,
    /// One per unit.
    pub verdicts: Arc<[Verdict]>,
    /// The clamped append time of the object.
    pub append_time: Timestamp,
}

impl Decision {
    /// The answer to every proposal of the slot.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::Committed {
            attempt: self.attempt,
            verdicts: Arc::clone(&self.verdicts),
            append_time: self.append_time,
        }
    }
}

/// One lane of an open incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneEntry {
    lo: SlotSequence,
    newest: SlotSequence,
    /// All lie in `lo..=newest`.
    decisions: BTreeMap<SlotSequence, Decision>,
}

impl Default for LaneEntry {
    fn default() -> Self {
        Self { lo: SlotSequence::new(1), newest: SlotSequence::new(0), decisions: BTreeMap::new() }
    }
}

impl LaneEntry {
    /// The lowest slot that may still commit. Never goes back.
    #[must_use]
    pub fn lo(&self) -> SlotSequence {
        self.lo
    }

    /// The newest slot that was decided by a commit; 0 when none was.
    #[must_use]
    pub fn newest(&self) -> SlotSequence {
        self.newest
    }

    /// What the slot was answered; `None` when it is undecided or below `lo`.
    #[must_use]
    pub fn decision(&self, sequence: SlotSequence) -> Option<&Decision> {
        self.decisions.get(&sequence)
    }

    /// All remembered answers, by slot.
    pub fn decisions(&self) -> impl Iterator<Item = (SlotSequence, &Decision)> {
        self.decisions.iter().map(|(sequence, decision)| (*sequence, decision))
    }

    /// Whether the slot can never be committed (again): it was committed, or lies below `lo`.
    #[must_use]
    pub fn is_decided(&self, sequence: SlotSequence) -> bool {
        sequence < self.lo || self.decisions.contains_key(&sequence)
    }

    /// Moves `lo` up to `to` and forgets the answers below; never moves it back.
    pub(crate) fn advance(&mut self, to: SlotSequence) {
        if to > self.lo {
            self.lo = to;
            self.decisions = self.decisions.split_off(&to);
        }
    }

    /// Remembers what a slot was answered.
    pub(crate) fn decide(&mut self, sequence: SlotSequence, decision: Decision) {
        self.newest = self.newest.max(sequence);
        self.decisions.insert(sequence, decision);
        if self.decisions.len() > DECISIONS_MAX {
            self.decisions.pop_first();
            let oldest = *self.decisions.keys().next().expect("more than one answer was remembered");
            self.advance(oldest);
        }
    }
}
