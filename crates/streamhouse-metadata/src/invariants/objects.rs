//! Invariants of objects: referenced as often as counted, never overlapping, never both in use and garbage.

use streamhouse_types::{ObjectId, Offset};

use super::{Check, ensure};
use crate::State;

/// The bytes of an object that one extent holds.
type Piece = (ObjectId, u64, u32);

pub(super) fn check(state: &State) -> Check {
    let mut pieces: Vec<Piece> = Vec::new();
    for partition in state.partitions() {
        let extents = partition.extents_from(Offset::ZERO);
        pieces.extend(extents.map(|extent| (extent.object, extent.position, extent.length)));
    }
    pieces.sort_unstable();
    for pair in pieces.windows(2) {
        let ((object, position, length), (next_object, next, _)) = (pair[0], pair[1]);
        // That an extent lies inside its object was checked with its partition.
        let apart = object != next_object || position.saturating_add(u64::from(length)) <= next;
        ensure(apart, "I2", || format!("two extents share bytes of {object} at {next}"))?;
    }
    let mut runs = pieces.chunk_by(|a, b| a.0 == b.0);
    for (id, entry) in state.objects() {
        let references = runs.next().filter(|run| run[0].0 == id).map_or(0, <[Piece]>::len);
        let counted = references > 0 && references as u64 == u64::from(entry.extents);
        ensure(counted, "I7", || format!("{id} is referenced {references} times, not {}", entry.extents))?;
        ensure(entry.committed <= state.applied(), "I8", || format!("{id} was committed in the future"))?;
        ensure(!state.objects.is_garbage(&id), "I7", || format!("{id} is in use and garbage"))?;
        check_slot(state, &id)?;
    }
    ensure(runs.next().is_none(), "I7", || "an extent refers to an object that is not there")?;
    for (id, entry) in state.garbage() {
        let past = entry.died <= state.applied() && entry.died_at <= state.cluster_time();
        ensure(past, "I7", || format!("{id} died in the future"))?;
        check_slot(state, &id)?;
    }
    Ok(())
}

/// A committed object's slot is decided, by this object as long as the answer is remembered.
fn check_slot(state: &State, id: &ObjectId) -> Check {
    let slot = id.slot;
    let known = state.node(slot.node).is_some_and(|node| slot.incarnation <= node.incarnation());
    ensure(known, "I9", || format!("{id} is of an incarnation that never was"))?;
    let Some(lane) = state.lane(slot.node, slot.incarnation, slot.lane) else {
        return Ok(());
    };
    let won = lane.decision(slot.sequence).map_or(slot.sequence < lane.lo(), |won| won.attempt == id.attempt);
    ensure(won, "I9", || format!("{id} is committed but did not win its slot"))
}
