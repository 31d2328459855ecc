//! What commands must leave as it was.

use streamhouse_types::Lane;

use super::{Check, Violation, ensure, fleet, groups};
use crate::{NodeEntry, Partition, State};

/// Checks that what must never go back or change did not, from `before` to the `after` of one command.
///
/// # Errors
/// The first violation found.
pub fn check_step(before: &State, after: &State) -> Result<(), Violation> {
    check_span(before, after)?;
    groups::check_step(before, after)?;
    for partition in before.partitions() {
        if let Some(later) = after.partition(partition.id()) {
            let id = partition.id();
            let counted = epochs(partition, later) == Some(moves_at_least(partition, later));
            ensure(counted, "I3", || format!("{id}: the epoch does not count the moves of its home"))?;
        }
    }
    for (id, _) in before.objects() {
        let kept = after.object(&id).is_some() || after.objects.is_garbage(&id);
        ensure(kept, "I7", || format!("{id} vanished without having been garbage"))?;
    }
    Ok(())
}

/// Checks the same as far as it shows from `before` to the `after` of one command or more: in between a home may have moved
/// and come back, and an object may have become garbage and been forgotten.
///
/// # Errors
/// The first violation found.
pub fn check_span(before: &State, after: &State) -> Result<(), Violation> {
    ensure(after.applied() > before.applied(), "I8", || "the applied index did not grow")?;
    ensure(after.cluster_time() >= before.cluster_time(), "I8", || "cluster time went back")?;
    ensure(
        before.cluster().is_none() || after.cluster() == before.cluster(),
        "I8",
        || "the identity changed",
    )?;
    ensure(after.topic_next >= before.topic_next, "I2", || "topic ids went back")?;
    for node in before.nodes() {
        let id = node.id();
        let later = after.node(id);
        ensure(later.is_some_and(|later| !went_back(node, later)), "I9", || format!("node {id} went back"))?;
    }
    fleet::check_step(before, after)?;
    groups::check_span(before, after)?;
    for partition in before.partitions() {
        if let Some(later) = after.partition(partition.id()) {
            check_partition(partition, later)?;
        }
    }
    Ok(())
}

/// Whether an incarnation was opened again, or a lane lost what it knew.
fn went_back(before: &NodeEntry, after: &NodeEntry) -> bool {
    if before.incarnation() != after.incarnation() {
        return after.incarnation() < before.incarnation();
    }
    let lane_went_back = |lane: Lane| match (before.lane(lane), after.lane(lane)) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => {
            let changed = |slot, answer| slot >= after.lo() && after.decision(slot) != Some(answer);
            after.lo() < before.lo() || before.decisions().any(|(slot, answer)| changed(slot, answer))
        }
        _ => false,
    };
    Lane::ALL.into_iter().any(lane_went_back)
}

fn check_partition(before: &Partition, after: &Partition) -> Check {
    let id = before.id();
    let forward =
        after.high_watermark() >= before.high_watermark() && after.log_start() >= before.log_start();
    ensure(forward, "I3", || format!("{id}: the high watermark or the log start went back"))?;
    let counted = epochs(before, after).is_some_and(|epochs| epochs >= moves_at_least(before, after));
    ensure(counted, "I3", || format!("{id}: the home moved and its epoch did not"))?;
    ensure(after.last_append() >= before.last_append(), "I8", || format!("{id}: time went back"))?;
    // Each offset names one record for ever: what was readable and still is lies where it lay.
    let readable = |partition: &Partition| {
        let until = before.high_watermark();
        let extents = partition.extents_from(after.log_start());
        extents.take_while(|extent| extent.base < until).collect::<Vec<_>>()
    };
    let kept = after.log_start() >= before.high_watermark() || readable(before) == readable(after);
    ensure(kept, "I2", || format!("{id}: an offset names another record"))
}

/// How far the epoch has gone on; `None` when it went back.
fn epochs(before: &Partition, after: &Partition) -> Option<u32> {
    after.epoch().get().checked_sub(before.epoch().get())
}

fn moves_at_least(before: &Partition, after: &Partition) -> u32 {
    u32::from(after.home() != before.home())
}
