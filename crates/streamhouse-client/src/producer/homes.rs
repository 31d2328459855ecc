//! Which node is home to which partition, as far as this producer was told. Pure.

use streamhouse_proto::v1;
use streamhouse_types::NodeId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Home {
    node: NodeId,
    epoch: u32,
}

/// The homes of a topic's partitions.
#[derive(Debug, Default)]
pub(super) struct Homes(Vec<Option<Home>>);

impl Homes {
    /// The home of a partition; `None` when nobody told, or it has none.
    pub(super) fn of(&self, partition: u32) -> Option<NodeId> {
        let home = (*self.0.get(partition as usize)?)?;
        (home.node.get() != 0).then_some(home.node)
    }

    /// Whether a node is home to any partition.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.0.iter().flatten().any(|home| home.node == node)
    }

    /// Takes what a server told; of two homes the one with the higher epoch is newer. True when something is new.
    pub(super) fn learn(&mut self, homes: &[v1::PartitionHome]) -> bool {
        let mut news = false;
        for told in homes {
            let slot = told.partition as usize;
            if self.0.len() <= slot {
                self.0.resize(slot + 1, None);
            }
            let is_news = self.0[slot].is_none_or(|home| home.epoch < told.epoch);
            if is_news {
                self.0[slot] = Some(Home { node: NodeId::new(told.node_id), epoch: told.epoch });
            }
            news |= is_news;
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_homes_the_newer_counts_whoever_tells_of_it_first() {
        let mut homes = Homes::default();
        let told = |node_id, epoch| [v1::PartitionHome { partition: 3, node_id, epoch }];
        assert_eq!(homes.of(3), None);
        assert!(homes.learn(&told(1, 5)));
        assert!(homes.learn(&told(2, 6)));
        assert!(!homes.learn(&told(1, 5)), "an old word");
        assert_eq!(homes.of(3), Some(NodeId::new(2)));
        assert!(homes.has(NodeId::new(2)) && !homes.has(NodeId::new(1)));
        assert!(homes.learn(&told(0, 7)));
        assert_eq!(homes.of(3), None, "it has none now");
        assert_eq!(homes.of(0), None);
    }
}
