//! Which node looks after which group.

use streamhouse_broker::metadata::{State, placement};
use streamhouse_types::{GroupId, NodeId};

/// The node that coordinates a group: the one that its name fits best among those that take homes, so that few groups move
/// when nodes come and go. `None` while no node does.
#[must_use]
pub fn coordinator(state: &State, group: &GroupId) -> Option<NodeId> {
    best(group.as_str(), state.eligible_homes().map(|node| node.id()))
}

fn best(group: &str, nodes: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    let words = group.as_bytes().chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    });
    placement::best_fit(words, nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> impl Iterator<Item = NodeId> {
        ids.iter().copied().map(NodeId::new)
    }

    #[test]
    fn groups_are_spread_and_only_those_of_a_lost_node_move() {
        let mut held = [0; 3];
        for number in 0..300 {
            let name = format!("group-{number}");
            let before = best(&name, nodes(&[1, 2, 3])).expect("a node");
            let after = best(&name, nodes(&[1, 3])).expect("a node");
            assert!(before == after || before == NodeId::new(2), "{name}");
            held[usize::try_from(before.get()).expect("small") - 1] += 1;
        }
        assert!(held.iter().all(|count| *count > 50), "{held:?}");
        assert_eq!(best("group", nodes(&[])), None);
    }
}
