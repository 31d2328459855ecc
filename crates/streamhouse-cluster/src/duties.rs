//! What the leader has to do, read off the state. Pure.

use std::collections::BTreeSet;

use streamhouse_metadata::placement::plan;
use streamhouse_metadata::voters::plan_voters;
use streamhouse_metadata::{
    Command, Drain, FeatureLevel, HOME_MOVES_MAX, HomeMove, Member, Partition, State,
};
use streamhouse_types::NodeId;

use crate::membership::RaftMember;

/// One thing to do. They are done one after the other; what is left undone is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Propose these, in this order.
    Propose(Vec<Command>),
    /// Give the vote to exactly these.
    SetVoters(BTreeSet<NodeId>),
    /// Take a node out of the metadata log.
    Remove(NodeId),
    /// Another node shall lead.
    PassOn(NodeId),
}

/// How long the state of a silent producer is kept, in milliseconds of cluster time.
const PRODUCERS_KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What lets go of producers that have been silent for a day; nothing when there is none, so that an idle cluster
/// writes nothing.
pub(crate) fn expiry(state: &State) -> Option<Command> {
    let cutoff = state.cluster_time().plus_millis(-PRODUCERS_KEPT_MS);
    let silent = |partition: &Partition| partition.producers().any(|(_, entry)| entry.last_append() < cutoff);
    state.partitions().any(silent).then_some(Command::ExpireProducers { cutoff })
}

/// What follows from who is there: homes for the partitions that have none, a fair share for everybody, the wanted
/// number of voters, the highest feature level that all understand.
pub(crate) fn duties(state: &State, members: &[RaftMember], own: NodeId) -> Vec<Duty> {
    let mut duties = Vec::new();
    let moves = plan(state);
    if !moves.is_empty() {
        duties.push(Duty::Propose(moves.chunks(HOME_MOVES_MAX).map(move_homes).collect()));
    }
    if let Some(level) = feature_level(state) {
        duties.push(Duty::Propose(vec![Command::RaiseFeatureLevel { level }]));
    }
    duties.extend(voters(state, members));
    duties.extend(successor(state, members, own).map(Duty::PassOn));
    let removed = |member: &&RaftMember| {
        member.node != own
            && !member.voter
            && state.member(member.node).is_some_and(|known| known.is_removed())
    };
    duties.extend(members.iter().filter(removed).map(|member| Duty::Remove(member.node)));
    duties
}

/// Who leads instead of a node that gives its work away.
fn successor(state: &State, members: &[RaftMember], own: NodeId) -> Option<NodeId> {
    let drains = state.member(own).is_some_and(|member| member.drain() == Drain::Operator);
    let fit = |node: NodeId| state.eligible_homes().any(|home| home.id() == node);
    let mut others = members.iter().filter(|member| member.voter && member.node != own && fit(member.node));
    others.next().filter(|_| drains).map(|member| member.node)
}

fn move_homes(moves: &[HomeMove]) -> Command {
    Command::MoveHomes { moves: moves.to_vec() }
}

/// The level that every member understands, when it is above that of the cluster.
fn feature_level(state: &State) -> Option<FeatureLevel> {
    let members = state.members().filter(|member| !member.is_removed());
    let common = members.map(|member| Member::features(member).max).min()?;
    (common > state.feature_level()).then_some(common)
}

fn voters(state: &State, members: &[RaftMember]) -> Option<Duty> {
    let current: BTreeSet<NodeId> =
        members.iter().filter(|member| member.voter).map(|member| member.node).collect();
    let usable: BTreeSet<NodeId> =
        members.iter().filter(|member| member.voter || member.caught_up).map(|member| member.node).collect();
    plan_voters(state, &current, &usable).map(Duty::SetVoters)
}
