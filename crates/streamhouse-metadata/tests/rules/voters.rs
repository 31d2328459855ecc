//! Who is to have a vote in Raft.

use std::collections::BTreeSet;

use streamhouse_metadata::voters::plan_voters;
use streamhouse_metadata::{Command, Drain, Liveness, RegisterNode, State, VoterCount};
use streamhouse_types::{Incarnation, NodeId, TopicId};

use crate::world::{World, register};

/// A cluster whose nodes 1, 2, 3 … lie in these zones; all are registered.
struct Fleet(World);

impl Fleet {
    fn new(zones: &[&str]) -> Self {
        let mut world = World::new();
        world.done(Command::DeleteTopic { request: [0; 16], topic: TopicId::new(1), validate_only: false });
        for (id, zone) in (1..).zip(zones) {
            let zone = (*zone).to_owned();
            world.outcome(Command::RegisterNode(RegisterNode { zone, ..register(id, 0) }));
        }
        Self(world)
    }

    /// The incarnation in which the node is: node 1 had one before.
    fn incarnation(&self, node: u64) -> Incarnation {
        self.0.state.node(NodeId::new(node)).unwrap().incarnation()
    }

    fn silent(mut self, node: u64) -> Self {
        let incarnation = self.incarnation(node);
        self.0.done(Command::JudgeNode { node: NodeId::new(node), incarnation, liveness: Liveness::Dead });
        self
    }

    fn drained(mut self, node: u64, drain: Drain) -> Self {
        self.0.done(Command::SetDrain { request: [0; 16], node: NodeId::new(node), drain });
        self
    }

    fn closed(mut self, node: u64) -> Self {
        let incarnation = self.incarnation(node);
        self.0.done(Command::CloseIncarnation { node: NodeId::new(node), incarnation });
        self
    }

    fn removed(mut self, node: u64) -> Self {
        self.0.done(Command::RemoveNode { request: [0; 16], node: NodeId::new(node) });
        self
    }

    fn wanting(mut self, voters: VoterCount) -> Self {
        self.0.done(Command::SetWantedVoters { request: [0; 16], voters });
        self
    }

    /// Checks what becomes of `current` when all nodes up to `nodes` are members of Raft.
    #[track_caller]
    fn check(&self, current: &[u64], nodes: u64, expected: &[u64]) {
        let ids = |raw: &[u64]| raw.iter().copied().map(NodeId::new).collect::<BTreeSet<_>>();
        let all = (1..=nodes).map(NodeId::new).collect();
        let state: &State = &self.0.state;
        let planned = plan_voters(state, &ids(current), &all);
        assert_eq!(planned.is_none(), current == expected, "none when nothing is to be done");
        let settled = planned.unwrap_or_else(|| ids(current));
        assert_eq!(settled, ids(expected));
        assert_eq!(plan_voters(state, &settled, &all), None, "a second plan changes nothing");
    }
}

#[test]
fn voters_grow_to_the_wanted_odd_number_as_nodes_come() {
    let fleet = Fleet::new(&["a"; 7]);
    fleet.check(&[1], 1, &[1]);
    fleet.check(&[1], 2, &[1]);
    fleet.check(&[1], 3, &[1, 2, 3]);
    fleet.check(&[1, 2, 3], 7, &[1, 2, 3]);
    let fleet = fleet.wanting(VoterCount::Five);
    fleet.check(&[1, 2, 3], 4, &[1, 2, 3]);
    fleet.check(&[1, 2, 3], 7, &[1, 2, 3, 4, 5]);
}

#[test]
fn a_node_gets_a_vote_only_when_it_is_alive_and_not_drained() {
    Fleet::new(&["a"; 3]).silent(3).check(&[1], 3, &[1]);
    Fleet::new(&["a"; 3]).closed(3).check(&[1], 3, &[1]);
    Fleet::new(&["a"; 3]).removed(3).check(&[1], 3, &[1]);
    Fleet::new(&["a"; 3]).drained(3, Drain::Operator).check(&[1], 3, &[1]);
    Fleet::new(&["a"; 3]).drained(3, Drain::Leaving).check(&[1], 3, &[1]);
    Fleet::new(&["a"; 4]).silent(2).check(&[1], 4, &[1, 3, 4]);
    // Nodes 3 and 4 are learners of Raft that never registered.
    Fleet::new(&["a"; 2]).check(&[1], 4, &[1]);
}

#[test]
fn a_silent_voter_keeps_its_vote() {
    Fleet::new(&["a"; 3]).silent(3).check(&[1, 2, 3], 3, &[1, 2, 3]);
    Fleet::new(&["a"; 4]).silent(3).check(&[1, 2, 3], 4, &[1, 2, 3]);
    Fleet::new(&["a"; 5]).silent(2).silent(3).check(&[1, 2, 3], 5, &[1, 2, 3]);
}

#[test]
fn a_voter_that_is_closed_drained_or_removed_is_replaced_by_a_sound_learner() {
    Fleet::new(&["a"; 4]).closed(2).check(&[1, 2, 3], 4, &[1, 3, 4]);
    Fleet::new(&["a"; 4]).drained(2, Drain::Operator).check(&[1, 2, 3], 4, &[1, 3, 4]);
    Fleet::new(&["a"; 4]).drained(2, Drain::Leaving).check(&[1, 2, 3], 4, &[1, 3, 4]);
    Fleet::new(&["a"; 4]).removed(2).check(&[1, 2, 3], 4, &[1, 3, 4]);
    Fleet::new(&["a"; 5]).closed(1).removed(2).check(&[1, 2, 3], 5, &[3, 4, 5]);
    // The one that may still help is kept when there is only one learner.
    Fleet::new(&["a"; 4]).closed(1).drained(2, Drain::Operator).check(&[1, 2, 3], 4, &[2, 3, 4]);
}

#[test]
fn a_voter_is_not_dropped_when_nobody_can_take_its_place() {
    Fleet::new(&["a"; 3]).closed(2).check(&[1, 2, 3], 3, &[1, 2, 3]);
    Fleet::new(&["a"; 3]).closed(2).closed(3).check(&[1, 2, 3], 3, &[1, 2, 3]);
    Fleet::new(&["a"; 3]).drained(2, Drain::Leaving).check(&[1, 2, 3], 3, &[1, 2, 3]);
    Fleet::new(&["a"; 4]).drained(2, Drain::Leaving).silent(4).check(&[1, 2, 3], 4, &[1, 2, 3]);
    let five = Fleet::new(&["a"; 5]).wanting(VoterCount::Five);
    five.closed(4).closed(5).check(&[1, 2, 3, 4, 5], 5, &[1, 2, 3, 4, 5]);
}

#[test]
fn acknowledgements_never_come_to_rest_on_one_disk_by_themselves() {
    // Two that are left of three keep the third vote until somebody can take it.
    Fleet::new(&["a"; 3]).removed(3).check(&[1, 2, 3], 3, &[1, 2, 3]);
    Fleet::new(&["a"; 2]).check(&[1, 2], 2, &[1, 2]);
    // One that is wanted is an operator's choice.
    Fleet::new(&["a"; 3]).wanting(VoterCount::One).check(&[1, 2, 3], 3, &[1]);
    Fleet::new(&["a"; 3]).wanting(VoterCount::One).silent(1).check(&[1, 2, 3], 3, &[2]);
}

#[test]
fn voters_shrink_when_fewer_are_wanted_or_some_were_removed() {
    Fleet::new(&["a"; 5]).check(&[1, 2, 3, 4, 5], 5, &[1, 2, 3]);
    Fleet::new(&["a"; 5]).silent(1).closed(2).check(&[1, 2, 3, 4, 5], 5, &[3, 4, 5]);
    Fleet::new(&["a"; 5]).silent(1).closed(2).closed(3).check(&[1, 2, 3, 4, 5], 5, &[1, 4, 5]);
    let five = || Fleet::new(&["a"; 5]).wanting(VoterCount::Five);
    five().removed(4).removed(5).check(&[1, 2, 3, 4, 5], 5, &[1, 2, 3]);
    five().removed(2).check(&[1, 2, 3, 4, 5], 5, &[1, 3, 4]);
    five().removed(2).silent(1).check(&[1, 2, 3, 4, 5], 5, &[3, 4, 5]);
}

#[test]
fn an_even_number_is_made_odd_where_that_loses_nothing() {
    Fleet::new(&["a"; 4]).check(&[1, 2, 3, 4], 4, &[1, 2, 3]);
    let five = Fleet::new(&["a"; 5]).wanting(VoterCount::Five);
    five.check(&[1, 2, 3, 4], 5, &[1, 2, 3, 4, 5]);
    five.silent(5).check(&[1, 2, 3, 4], 5, &[1, 2, 3]);
    Fleet::new(&["a"; 3]).check(&[1, 2], 3, &[1, 2, 3]);
}

#[test]
fn voters_lie_in_as_many_zones_as_they_can() {
    Fleet::new(&["a", "a", "a", "b", "c"]).check(&[1], 5, &[1, 4, 5]);
    Fleet::new(&["a", "b", "a", "b", "c"]).closed(2).check(&[1, 2, 3], 5, &[1, 3, 4]);
    Fleet::new(&["a", "b", "c", "a", "c"]).closed(3).check(&[1, 2, 3], 5, &[1, 2, 5]);
    Fleet::new(&["a", "a", "b", "b", "c"]).check(&[1, 2, 3, 4, 5], 5, &[1, 3, 5]);
    // A zone alone is no reason to take a vote away.
    Fleet::new(&["a", "a", "a", "b", "c"]).check(&[1, 2, 3], 5, &[1, 2, 3]);
}

#[test]
fn a_voter_that_has_not_registered_yet_keeps_its_vote() {
    let nobody = Fleet(World::empty());
    nobody.check(&[1], 1, &[1]);
    Fleet::new(&["a"]).check(&[1, 2, 3], 3, &[1, 2, 3]);
}
