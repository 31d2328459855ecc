//! Invariants of the fleet: who is a member, and where homes are.

use streamhouse_types::NodeId;

use super::{Check, ensure};
use crate::homes::HomeCounts;
use crate::nodes::{NODES_MAX, TEXT_BYTES_MAX};
use crate::{FeatureLevel, Member, NodeEntry, State};

pub(super) fn check(state: &State) -> Check {
    let members = state.fleet.members.len();
    ensure(members <= NODES_MAX, "I10", || format!("{members} members"))?;
    for (id, member) in &state.fleet.members {
        check_member(state, *id, member)?;
    }
    for node in state.nodes() {
        let id = node.id();
        ensure(state.member(id).is_some(), "I9", || format!("node {id} registered and is no member"))?;
    }
    let level = state.feature_level();
    ensure(level >= FeatureLevel::FIRST, "I8", || format!("feature level {level}"))?;
    let counted = state.home_counts == HomeCounts::of(state.partitions());
    ensure(counted, "I10", || "homes are counted wrongly")
}

fn check_member(state: &State, id: NodeId, member: &Member) -> Check {
    ensure(member.id() == id, "I9", || format!("member {id} is entered as {}", member.id()))?;
    let open = state.node(id).is_some_and(NodeEntry::is_open);
    ensure(open || !member.is_alive(), "I9", || format!("member {id} is alive without an incarnation"))?;
    ensure(!(open && member.is_removed()), "I9", || {
        format!("member {id} is removed and its incarnation open")
    })?;
    let able = member.is_removed() || member.features().contains(state.feature_level());
    ensure(able, "I8", || format!("member {id} does not know the feature level"))?;
    let version = member.version().len();
    ensure(version <= TEXT_BYTES_MAX, "I10", || format!("the version of member {id} has {version} bytes"))
}

/// What must stay as it was from `before` to `after`.
pub(super) fn check_step(before: &State, after: &State) -> Check {
    ensure(after.feature_level() >= before.feature_level(), "I8", || "the feature level went down")?;
    for member in before.members() {
        let id = member.id();
        let Some(later) = after.member(id) else {
            return ensure(false, "I9", || format!("member {id} vanished"));
        };
        ensure(later.is_removed() || !member.is_removed(), "I9", || format!("member {id} came back"))?;
        let same = member.directory().is_none() || later.directory() == member.directory();
        ensure(same, "I9", || format!("member {id} is in another directory"))?;
    }
    Ok(())
}
