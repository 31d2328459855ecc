//! Homes of partitions move, and how many each node has is counted.

use std::collections::BTreeMap;

use streamhouse_types::{Incarnation, NodeId, PartitionId};

use crate::state::{Changes, State};
use crate::{HOME_MOVES_MAX, HomeMove, Outcome, Partition, Refusal};

/// How many partitions have their home at each node. Holds no zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HomeCounts(BTreeMap<NodeId, u64>);

impl HomeCounts {
    pub(crate) fn of<'a>(partitions: impl Iterator<Item = &'a Partition>) -> Self {
        let mut counts = Self::default();
        partitions.for_each(|partition| counts.put(partition.home()));
        counts
    }

    pub(crate) fn get(&self, node: NodeId) -> u64 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.0.iter().map(|(node, count)| (*node, *count))
    }

    pub(crate) fn put(&mut self, node: NodeId) {
        *self.0.entry(node).or_default() += 1;
    }

    pub(crate) fn take(&mut self, node: NodeId) {
        let count = self.0.get_mut(&node).expect("a home is counted until it is taken");
        *count -= 1;
        if *count == 0 {
            self.0.remove(&node);
        }
    }
}

impl State {
    pub(crate) fn move_home(
        &mut self,
        partition: PartitionId,
        home: NodeId,
        incarnation: Incarnation,
        changes: &mut Changes,
    ) -> Outcome {
        if self.open_incarnation(home) != Some(incarnation) {
            return Outcome::Refused(Refusal::UnknownNode);
        }
        let Some(found) = self.partition(partition) else {
            return Outcome::Refused(Refusal::UnknownPartition);
        };
        if found.home() == home {
            return Outcome::Refused(Refusal::HomeUnchanged { epoch: found.epoch() });
        }
        self.give_home(partition, home, changes);
        Outcome::Done
    }

    pub(crate) fn move_homes(&mut self, moves: &[HomeMove], changes: &mut Changes) -> Outcome {
        if moves.len() > HOME_MOVES_MAX {
            let what = "home moves in one command".into();
            return Outcome::Refused(Refusal::Limit { what, limit: HOME_MOVES_MAX as u64 });
        }
        let mut moved = 0;
        for wanted in moves {
            if self.is_current(wanted) {
                self.give_home(wanted.partition, wanted.home, changes);
                moved += 1;
            }
        }
        Outcome::HomesMoved { moved }
    }

    /// Whether the partition is still as the planner saw it, and the new home still open.
    pub(crate) fn is_current(&self, wanted: &HomeMove) -> bool {
        let unmoved = |found: &Partition| found.epoch() == wanted.epoch && found.home() != wanted.home;
        self.open_incarnation(wanted.home) == Some(wanted.incarnation)
            && self.partition(wanted.partition).is_some_and(unmoved)
    }

    fn give_home(&mut self, partition: PartitionId, home: NodeId, changes: &mut Changes) {
        let found = self.partition_mut(partition).expect("the partition was found");
        let before = found.home();
        found.move_to(home);
        self.home_counts.take(before);
        self.home_counts.put(home);
        changes.moved.push(partition);
    }
}
