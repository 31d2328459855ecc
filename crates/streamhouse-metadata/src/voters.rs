//! Which nodes are to have a vote in Raft? Pure.
//!
//! A set grows when there are enough sound nodes for the next odd number up to the wanted one. It shrinks only by an
//! operator's word: a smaller wanted number, or the removal of a node; and then to one only when one is wanted, as
//! acknowledgements would rest on a single disk. A voter that is silent stays: it may be back in a second. One whose
//! incarnation is closed, or that is drained or removed, gives its vote up when a sound learner can take it.

use std::collections::{BTreeMap, BTreeSet};

use streamhouse_types::NodeId;

use crate::{Drain, NodeEntry, State, VoterCount};

/// How much a node is worth as a voter, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Alive, and not drained.
    Sound,
    /// Under an open incarnation, but silent.
    Silent,
    /// Alive or silent, and drained or leaving.
    Drained,
    /// Without an open incarnation, or never a member.
    Closed,
    /// Removed for ever.
    Removed,
}

impl Worth {
    fn of(state: &State, node: NodeId) -> Self {
        let Some(member) = state.member(node) else {
            return Self::Closed;
        };
        let open = state.node(node).is_some_and(NodeEntry::is_open);
        match member {
            _ if member.is_removed() => Self::Removed,
            _ if !open => Self::Closed,
            _ if member.drain() != Drain::None => Self::Drained,
            _ if member.is_alive() => Self::Sound,
            _ => Self::Silent,
        }
    }

    /// Whether a voter stays even when a sound learner could take its place.
    fn stays(self) -> bool {
        matches!(self, Self::Sound | Self::Silent)
    }
}

/// The voters that should be, given those that are and all members of Raft (voters and learners); `None` when they
/// are as they should be. It may differ by more than one node: Raft changes the whole set at once.
#[must_use]
pub fn plan_voters(
    state: &State,
    current: &BTreeSet<NodeId>,
    members_of_raft: &BTreeSet<NodeId>,
) -> Option<BTreeSet<NodeId>> {
    let voters = rank(state, current.iter());
    let learners = rank(state, members_of_raft.difference(current));
    let learners: Vec<Candidate<'_>> =
        learners.into_iter().filter(|learner| learner.worth == Worth::Sound).collect();
    let size = size(state.wanted_voters(), &voters, &learners);
    let mut chosen = Chosen::default();
    let (stay, give_up): (Vec<_>, Vec<_>) = voters.into_iter().partition(|voter| voter.worth.stays());
    for candidates in [stay, learners, give_up] {
        chosen.fill(candidates, size);
    }
    (chosen.nodes != *current).then_some(chosen.nodes)
}

/// How many voters there should be.
fn size(wanted: VoterCount, voters: &[Candidate<'_>], learners: &[Candidate<'_>]) -> usize {
    let odd = |nodes: usize| VoterCount::at_most(nodes.min(wanted.get())).map_or(0, VoterCount::get);
    let count = |worth| voters.iter().filter(|voter| voter.worth == worth).count();
    let current = voters.len();
    let sound = odd(count(Worth::Sound) + learners.len());
    if sound >= current {
        return sound;
    }
    if wanted.get() < current {
        return wanted.get();
    }
    // What is left when removed voters that no learner replaces go. Of two voters, none can go: see above.
    let left = odd(current + learners.len().min(count(Worth::Removed)) - count(Worth::Removed));
    let is_even = current.is_multiple_of(2);
    if left >= 3 && (count(Worth::Removed) > 0 || is_even) { left } else { current }
}

/// A node that has or may get a vote.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    worth: Worth,
    node: NodeId,
    zone: &'a str,
}

fn rank<'a, 'n>(state: &'a State, nodes: impl Iterator<Item = &'n NodeId>) -> Vec<Candidate<'a>> {
    let zone = |node| state.node(node).map_or("", |entry| entry.zone());
    nodes.map(|node| Candidate { worth: Worth::of(state, *node), node: *node, zone: zone(*node) }).collect()
}

/// The voters chosen so far.
#[derive(Debug, Default)]
struct Chosen<'a> {
    nodes: BTreeSet<NodeId>,
    zones: BTreeMap<&'a str, usize>,
}

impl<'a> Chosen<'a> {
    /// Chooses from the candidates until there are `size` voters: the best first, among equals one from the zone that
    /// has the fewest.
    fn fill(&mut self, mut candidates: Vec<Candidate<'a>>, size: usize) {
        while self.nodes.len() < size && !candidates.is_empty() {
            let rank = |candidate: &Candidate<'a>| {
                let in_zone = self.zones.get(candidate.zone).copied().unwrap_or(0);
                (candidate.worth, in_zone, candidate.node)
            };
            let best = (0..candidates.len()).min_by_key(|at| rank(&candidates[*at]));
            let next = candidates.swap_remove(best.expect("there is a candidate"));
            self.nodes.insert(next.node);
            *self.zones.entry(next.zone).or_default() += 1;
        }
    }
}
