//! What the leader has to do, read off the state. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

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

/// What lets go of producers that have been silent for a day, and of offsets of groups that nobody has used for
/// `offset_retention`; nothing when there are none, so that an idle cluster writes nothing.
pub(crate) fn expiry(state: &State, offset_retention: Duration) -> Vec<Command> {
    let cutoff = state.cluster_time().plus_millis(-PRODUCERS_KEPT_MS);
    let silent = |partition: &Partition| partition.producers().any(|(_, entry)| entry.last_append() < cutoff);
    let producers = state.partitions().any(silent).then_some(Command::ExpireProducers { cutoff });
    let kept = i64::try_from(offset_retention.as_millis()).unwrap_or(i64::MAX);
    let cutoff = state.cluster_time().plus_millis(-kept);
    let unused = state.groups().any(|(_, group)| group.has_expired(cutoff));
    let groups = unused.then_some(Command::ExpireGroups { cutoff });
    producers.into_iter().chain(groups).collect()
}

/// What follows from who is there: homes for the partitions that have none, a fair share for everybody, the wanted
/// number of voters, the highest feature level that all understand. A change of voters that was begun is brought to an end.
pub(crate) fn duties(
    state: &State,
    members: &[RaftMember],
    unfinished: Option<BTreeSet<NodeId>>,
    own: NodeId,
) -> Vec<Duty> {
    let mut duties = Vec::new();
    let moves = plan(state);
    if !moves.is_empty() {
        duties.push(Duty::Propose(moves.chunks(HOME_MOVES_MAX).map(move_homes).collect()));
    }
    if let Some(level) = feature_level(state) {
        duties.push(Duty::Propose(vec![Command::RaiseFeatureLevel { level }]));
    }
    // A change that its leader did not live to end looks done already: old and new voters together may be those wanted.
    duties.extend(voters(state, members).or(unfinished).map(Duty::SetVoters));
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

fn voters(state: &State, members: &[RaftMember]) -> Option<BTreeSet<NodeId>> {
    let current: BTreeSet<NodeId> =
        members.iter().filter(|member| member.voter).map(|member| member.node).collect();
    let usable: BTreeSet<NodeId> =
        members.iter().filter(|member| member.voter || member.caught_up).map(|member| member.node).collect();
    plan_voters(state, &current, &usable)
}

#[cfg(test)]
mod tests {
    use streamhouse_metadata::{DirectoryId, FeatureRange, RegisterNode};
    use streamhouse_types::{ClusterId, LogIndex, Timestamp};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn groups_that_nobody_uses_expire_once_their_time_is_over() {
        let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
        let (node, directory) = (NodeId::new(1), DirectoryId::from_bytes([1; 16]));
        let (request, group) = ([1; 16], "group".parse().expect("a group id"));
        let commands = [
            Command::Bootstrap { cluster: ClusterId::from_bytes([7; 16]), now: NOW },
            Command::AdmitNode { node, directory, features, version: "test".to_owned() },
            Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS },
            Command::SeekGroup { request, group, offsets: Vec::new(), validate_only: false },
            Command::Tick { now: NOW.plus_millis(60_000) },
        ];
        let mut state = State::new();
        for (index, command) in (1..).zip(&commands) {
            state.apply(LogIndex::new(index), command);
        }
        assert_eq!(expiry(&state, Duration::from_millis(60_000)), []);
        let cutoff = NOW.plus_millis(1);
        assert_eq!(expiry(&state, Duration::from_millis(59_999)), [Command::ExpireGroups { cutoff }]);
        state.apply(LogIndex::new(6), &Command::ExpireGroups { cutoff });
        assert_eq!(expiry(&state, Duration::from_millis(59_999)), []);
    }

    #[test]
    fn the_level_of_groups_is_raised_once_no_node_of_the_release_before_is_left() {
        let known = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
        let admit = |id: u8, features| Command::AdmitNode {
            node: NodeId::new(u64::from(id)),
            directory: DirectoryId::from_bytes([id; 16]),
            features,
            version: "test".to_owned(),
        };
        let raise = Duty::Propose(vec![Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS }]);
        let cluster = ClusterId::from_bytes([7; 16]);
        let mut state = State::new();
        state.apply(LogIndex::new(1), &Command::Bootstrap { cluster, now: NOW });
        let steps = [(1, known, true), (2, FeatureRange::FIRST, false), (2, known, true)];
        for (index, (id, features, raised)) in (2..).zip(steps) {
            state.apply(LogIndex::new(index), &admit(id, features));
            assert_eq!(
                duties(&state, &[], None, NodeId::new(1)).contains(&raise),
                raised,
                "{id} knows {features}"
            );
        }
    }

    #[test]
    fn voters_that_were_begun_are_set_once_more_until_they_are_the_only_ones() {
        let mut state = State::new();
        let cluster = ClusterId::from_bytes([7; 16]);
        state.apply(LogIndex::new(1), &Command::Bootstrap { cluster, now: NOW });
        let three = [1, 2, 3].map(NodeId::new);
        for (index, node) in (2..).zip(three) {
            let register =
                RegisterNode { request: [1; 16], node, zone: String::new(), addresses: Vec::new() };
            state.apply(LogIndex::new(index), &Command::RegisterNode(register));
        }
        // From one to three: together they are the three that are wanted.
        let members = three.map(|node| RaftMember { node, voter: true, caught_up: true });
        assert_eq!(duties(&state, &members, None, three[0]), []);
        let goal = BTreeSet::from(three);
        assert_eq!(duties(&state, &members, Some(goal.clone()), three[0]), [Duty::SetVoters(goal)]);
    }
}
