//! The lanes of an open incarnation: which slots are decided, and what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{Attempt, SlotSequence, Timestamp};

use crate::{Outcome, Verdict};

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
    pub(crate) lo: SlotSequence,
    pub(crate) newest: SlotSequence,
    pub(crate) decisions: BTreeMap<SlotSequence, Decision>,
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

    /// Whether the slot can never be committed (again): it was committed, or lies below `lo`.
    #[must_use]
    pub fn is_decided(&self, sequence: SlotSequence) -> bool {
        sequence < self.lo || self.decisions.contains_key(&sequence)
    }
}
