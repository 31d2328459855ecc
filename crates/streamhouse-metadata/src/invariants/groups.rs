//! Invariants of consumer groups: who owns them, who is in them, how far they have read.

use streamhouse_types::GroupId;

use super::{Check, ensure};
use crate::groups::GROUPS_BYTES_MAX;
use crate::{FeatureLevel, GROUP_RECORD_BYTES_MAX, GroupEntry, NodeEntry, OFFSET_METADATA_BYTES_MAX, State};

pub(super) fn check(state: &State) -> Check {
    let known = state.groups.is_empty() || state.feature_level() >= FeatureLevel::GROUPS;
    ensure(known, "I8", || "there are groups below their feature level")?;
    state.groups().try_for_each(|(id, entry)| check_group(state, id, entry))?;
    for (node, writer) in &state.groups.writers {
        let open = state.open_incarnation(*node) == Some(writer.incarnation);
        ensure(open && writer.sequence > 0, "I11", || format!("node {node} changes groups and is not open"))?;
    }
    let (bytes, counted) = (state.groups.count_bytes(), state.groups.bytes);
    let held = bytes == counted && bytes <= GROUPS_BYTES_MAX;
    ensure(held, "I10", || format!("{bytes} bytes of groups counted as {counted}"))
}

fn check_group(state: &State, id: &GroupId, entry: &GroupEntry) -> Check {
    let record = entry.record();
    ensure(record.is_whole(), "I11", || format!("group {id}: its members, leader and phase do not fit"))?;
    let bytes = record.encoded_bytes();
    ensure(bytes <= GROUP_RECORD_BYTES_MAX, "I10", || format!("group {id}: {bytes} bytes of members"))?;
    let owned = entry.owner().is_none_or(|(node, incarnation)| {
        let newest = state.node(node).map(NodeEntry::incarnation);
        incarnation.get() > 0 && Some(incarnation) <= newest
    });
    ensure(owned, "I9", || format!("group {id}: its owner never registered"))?;
    let now = state.cluster_time();
    ensure(entry.since() <= now, "I8", || format!("group {id}: it lost its members in the future"))?;
    for (partition, read) in entry.offsets() {
        let exists = state.partition(partition).is_some();
        ensure(exists, "I11", || format!("group {id}: has read {partition}, which does not exist"))?;
        ensure(read.committed <= now, "I8", || format!("group {id}: commits {partition} in the future"))?;
        let noted = read.metadata.as_ref().map_or(0, String::len);
        ensure(noted <= OFFSET_METADATA_BYTES_MAX, "I10", || format!("group {id}: notes {noted} bytes"))?;
    }
    Ok(())
}

/// What must stay as it was from `before` to `after`, however many commands lie between.
pub(super) fn check_span(before: &State, after: &State) -> Check {
    for (node, writer) in &before.groups.writers {
        if after.open_incarnation(*node) != Some(writer.incarnation) {
            continue;
        }
        // Else a late copy of its changes would be carried out once more.
        let later = after.groups.writers.get(node);
        let kept = later.is_some_and(|later| later.sequence > writer.sequence || later == writer);
        ensure(kept, "I11", || format!("the changes of groups by node {node} went back"))?;
    }
    for (id, entry) in before.groups() {
        let Some(later) = after.group(id) else {
            continue;
        };
        for (partition, read) in entry.offsets() {
            let forward = later.offset(partition).is_none_or(|later| later.committed >= read.committed);
            ensure(forward, "I11", || format!("group {id}: an older commit of {partition} came back"))?;
        }
    }
    Ok(())
}

/// What one command leaves as it was. Between more of them a group may have been deleted and made again.
pub(super) fn check_step(before: &State, after: &State) -> Check {
    for (id, entry) in before.groups() {
        let generation = entry.record().generation;
        let forward = after.group(id).is_none_or(|later| later.record().generation >= generation);
        ensure(forward, "I11", || format!("group {id}: generation {generation} went back"))?;
    }
    Ok(())
}
