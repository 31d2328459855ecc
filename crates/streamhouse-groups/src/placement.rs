//! Which node looks after which group.

use streamhouse_broker::metadata::State;
use streamhouse_types::{GroupId, NodeId};

/// The node that coordinates a group: the one that its name fits best among those that take homes, so that few groups move
/// when nodes come and go. `None` while no node does.
#[must_use]
pub fn coordinator(state: &State, group: &GroupId) -> Option<NodeId> {
    best(group.as_str().as_bytes(), state.eligible_homes().map(|node| node.id()))
}

fn best(group: &[u8], nodes: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    let fit = |node: &NodeId| {
        let bytes = node.get().to_be_bytes();
        let seed = group.iter().chain(&bytes).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        seed ^ (seed >> 29)
    };
    nodes.max_by_key(fit)
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
            let before = best(name.as_bytes(), nodes(&[1, 2, 3])).expect("a node");
            let after = best(name.as_bytes(), nodes(&[1, 3])).expect("a node");
            assert!(before == after || before == NodeId::new(2), "{name}");
            held[usize::try_from(before.get()).expect("small") - 1] += 1;
        }
        assert!(held.iter().all(|count| *count > 50), "{held:?}");
        assert_eq!(best(b"group", nodes(&[])), None);
    }
}
