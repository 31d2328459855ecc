//! What may be deleted. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use streamhouse_metadata::State;
use streamhouse_types::{LogIndex, ObjectId};

/// What a sweep will do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be deleted: never committed.
    pub(super) orphans: Vec<ObjectId>,
    /// To be deleted and forgotten: nothing refers to them any more.
    pub(super) garbage: Vec<ObjectId>,
    /// Not yet.
    pub(super) waiting: u64,
}

/// Judges the objects of a listing and the garbage list by a state. `held` tells whether a reader may still follow
/// what died at an index.
pub(super) fn plan(
    state: &State,
    listed: &[ObjectId],
    grace: Duration,
    held: impl Fn(LogIndex) -> bool,
) -> Plan {
    let mut plan = Plan { orphans: Vec::new(), garbage: Vec::new(), waiting: 0 };
    let garbage: BTreeSet<ObjectId> = state.garbage().map(|(object, _)| object).collect();
    for object in listed {
        if state.is_orphan(object) {
            plan.orphans.push(*object);
        } else if state.object(object).is_none() && !garbage.contains(object) {
            plan.waiting += 1;
        }
    }
    let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    for (object, entry) in state.garbage() {
        if entry.died_at.plus_millis(grace) <= state.cluster_time() && !held(entry.died) {
            plan.garbage.push(object);
        } else {
            plan.waiting += 1;
        }
    }
    plan
}
