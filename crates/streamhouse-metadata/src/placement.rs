//! Which node is to be the home of which partition? Pure, and the same on every replica.
//!
//! Three rules, the first before the second before the third:
//! 1. Every home is a node that may be one, and no two of them differ by more than one partition.
//! 2. As few homes move as that takes: those of nodes that may be none, and what a node has over its share.
//! 3. Where the first two leave a choice, a partition goes to the zone that has the fewest of its topic for its nodes,
//!    there to the node that has the fewest of its topic, and there to the node of the greatest score (rendezvous).
//!
//! New partitions get their homes in apply, so a change of these rules or of the score takes a new feature level.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use streamhouse_types::{Incarnation, NodeId, PartitionId, PartitionIndex, TopicId};

use crate::{HomeMove, State, Topic};

/// How many partitions have their home at a node, before and after some moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLoad {
    /// The node.
    pub node: NodeId,
    /// How many it has.
    pub before: u64,
    /// How many it will have.
    pub after: u64,
}

/// A node that may be the home of partitions.
#[derive(Debug)]
struct Seat {
    node: NodeId,
    incarnation: Incarnation,
    /// Index into the sizes of zones.
    zone: usize,
    /// How many partitions it keeps or has got.
    load: u64,
}

/// The nodes that may be homes, and how many partitions each has and gets.
#[derive(Debug)]
pub struct Placement {
    /// By node; at least one.
    seats: Vec<Seat>,
    /// How many seats each zone has.
    zone_sizes: Vec<u64>,
    /// How many partitions each seat gets at least.
    share: u64,
    /// How many seats may still get one more than that.
    extras: u64,
}

/// How the partitions of one topic lie.
#[derive(Debug)]
struct Spread {
    by_zone: Vec<u64>,
    by_seat: Vec<u64>,
}

/// The moves that bring every home to a node that may be one and all nodes to the same load, give or take one, by
/// partition. None when nothing is to be done, or when no node may be a home. May be more than one command takes.
#[must_use]
pub fn plan(state: &State) -> Vec<HomeMove> {
    let Some(mut placement) = Placement::of(state, state.partition_count) else {
        return Vec::new();
    };
    let over = placement.level();
    let kept: u64 = placement.seats.iter().map(|seat| seat.load).sum();
    if kept == state.partition_count {
        return Vec::new();
    }
    let loose = placement.loose(state, &over);
    loose
        .chunk_by(|one, next| one.topic == next.topic)
        .flat_map(|run| {
            let topic = state.topic(run[0].topic).expect("a partition has a topic");
            placement.seat_loose(topic, run)
        })
        .collect()
}

/// The homes of `count` more partitions of a topic, which may be new; `None` when no node may be a home.
pub(crate) fn homes_of_new(state: &State, topic: TopicId, count: u32) -> Option<Vec<NodeId>> {
    let mut placement = Placement::of(state, state.partition_count + u64::from(count))?;
    placement.level();
    let known = state.topic(topic);
    let mut spread = placement.spread(known, &[]);
    let first = known.map_or(0, Topic::partition_count);
    let home = |index| {
        let id = PartitionId::new(topic, PartitionIndex::new(index));
        let seat = placement.take_seat(&mut spread, id);
        placement.seats[seat].node
    };
    Some((first..first + count).map(home).collect())
}

impl Placement {
    /// How many homes each node has, and will have after `moves`, which name no partition twice. Moves that would be
    /// passed over change nothing. Lists the nodes that have homes or may have some, by id.
    #[must_use]
    pub fn describe(state: &State, moves: &[HomeMove]) -> Vec<NodeLoad> {
        let mut loads: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        loads.extend(state.eligible_homes().map(|node| (node.id(), (0, 0))));
        loads.extend(state.home_counts.iter().map(|(node, count)| (node, (count, count))));
        for wanted in moves.iter().filter(|wanted| state.is_current(wanted)) {
            let before = state.partition(wanted.partition).map(|found| found.home());
            let left = before.and_then(|home| loads.get_mut(&home)).expect("its homes were counted");
            left.1 = left.1.saturating_sub(1);
            loads.entry(wanted.home).or_default().1 += 1;
        }
        loads.into_iter().map(|(node, (before, after))| NodeLoad { node, before, after }).collect()
    }

    /// What each node has of `partitions`; `None` when no node may be a home.
    fn of(state: &State, partitions: u64) -> Option<Self> {
        let zones: BTreeMap<&str, usize> = state.eligible_homes().map(|node| (node.zone(), 0)).collect();
        let zones: BTreeMap<&str, usize> = zones.into_keys().zip(0..).collect();
        let mut zone_sizes = vec![0; zones.len()];
        let seats: Vec<Seat> = state
            .eligible_homes()
            .map(|node| {
                let zone = zones[node.zone()];
                zone_sizes[zone] += 1;
                let load = state.home_counts.get(node.id());
                Seat { node: node.id(), incarnation: node.incarnation(), zone, load }
            })
            .collect();
        let count = seats.len() as u64;
        let share = partitions.checked_div(count)?;
        Some(Self { seats, zone_sizes, share, extras: partitions % count })
    }

    /// Leaves each seat what it may keep, and returns how many it has over that. As many as can keep one more than the
    /// share; which of those that have more does not matter, as it spares each of them one move.
    fn level(&mut self) -> Vec<u64> {
        let (share, extras) = (self.share, &mut self.extras);
        let level = |seat: &mut Seat| {
            let mut keeps = share;
            if seat.load > keeps && *extras > 0 {
                *extras -= 1;
                keeps += 1;
            }
            let over = seat.load.saturating_sub(keeps);
            seat.load -= over;
            over
        };
        self.seats.iter_mut().map(level).collect()
    }

    fn seat_of(&self, node: NodeId) -> Option<usize> {
        self.seats.binary_search_by_key(&node, |seat| seat.node).ok()
    }

    /// The partitions that need another home, by id: those of nodes that may be none, and `over` of each seat.
    fn loose(&self, state: &State, over: &[u64]) -> Vec<PartitionId> {
        let mut loose = Vec::new();
        // What may be shed, by seat, and of a seat the first to go first.
        let mut held: Vec<(usize, Reverse<u64>, u64, PartitionId)> = Vec::new();
        for topic in state.topics.values() {
            let mut shared: Vec<(usize, Reverse<u64>, PartitionId)> = Vec::new();
            for partition in topic.partitions() {
                match self.seat_of(partition.home()) {
                    None => loose.push(partition.id()),
                    Some(seat) if over[seat] > 0 => {
                        shared.push((seat, Reverse(score(partition.id(), partition.home())), partition.id()));
                    }
                    Some(_) => {}
                }
            }
            shared.sort_unstable();
            for run in shared.chunk_by(|one, next| one.0 == next.0) {
                for (rank, (seat, own, id)) in run.iter().enumerate() {
                    held.push((*seat, Reverse(depth(rank, run.len())), own.0, *id));
                }
            }
        }
        held.sort_unstable();
        for run in held.chunk_by(|one, next| one.0 == next.0) {
            let count =
                usize::try_from(over[run[0].0]).expect("a seat has no more partitions than there are");
            loose.extend(run[..count].iter().map(|(.., id)| *id));
        }
        loose.sort_unstable();
        loose
    }

    /// Gives `run`, partitions of `topic` by id, their seats.
    fn seat_loose(&mut self, topic: &Topic, run: &[PartitionId]) -> Vec<HomeMove> {
        let mut spread = self.spread(Some(topic), run);
        let place = |id: &PartitionId| {
            let seat = self.take_seat(&mut spread, *id);
            let Seat { node, incarnation, .. } = self.seats[seat];
            let epoch = topic.partition(id.index).expect("the partition was found").epoch();
            HomeMove { partition: *id, home: node, incarnation, epoch }
        };
        run.iter().map(place).collect()
    }

    /// How the partitions of the topic lie, without `loose` ones.
    fn spread(&self, topic: Option<&Topic>, loose: &[PartitionId]) -> Spread {
        let mut spread =
            Spread { by_zone: vec![0; self.zone_sizes.len()], by_seat: vec![0; self.seats.len()] };
        let mut loose = loose.iter().peekable();
        for partition in topic.into_iter().flat_map(Topic::partitions) {
            if loose.next_if(|id| **id == partition.id()).is_none()
                && let Some(seat) = self.seat_of(partition.home())
            {
                self.note(&mut spread, seat);
            }
        }
        spread
    }

    fn note(&self, spread: &mut Spread, seat: usize) {
        spread.by_zone[self.seats[seat].zone] += 1;
        spread.by_seat[seat] += 1;
    }

    /// Gives a partition the best seat that has room.
    fn take_seat(&mut self, spread: &mut Spread, partition: PartitionId) -> usize {
        let room = self.share + self.extras.min(1);
        let rank = |seat: &usize| {
            let Seat { node, zone, .. } = self.seats[*seat];
            let filled = ratio(spread.by_zone[zone] + 1, self.zone_sizes[zone]);
            (filled, spread.by_seat[*seat], Reverse(score(partition, node)), node)
        };
        let open = (0..self.seats.len()).filter(|seat| self.seats[*seat].load < room);
        let seat = open.min_by_key(rank).expect("the shares hold all partitions");
        if self.seats[seat].load >= self.share {
            self.extras -= 1;
        }
        self.seats[seat].load += 1;
        self.note(spread, seat);
        seat
    }
}

/// How deep in its topic's partitions of a node one lies, as a part of them. Shedding the deepest takes the same part
/// of every topic.
fn depth(rank: usize, count: usize) -> u64 {
    ratio(2 * rank as u64 + 1, 2 * count as u64)
}

/// `part / whole` in 2⁻³² steps: tells apart any two ratios of numbers up to 10,000.
fn ratio(part: u64, whole: u64) -> u64 {
    (part << 32) / whole
}

/// The node that a key fits best, by the rendezvous hash of both: few keys change their nodes when nodes come and go.
/// `None` without nodes.
pub fn best_fit(
    key: impl IntoIterator<Item = u64, IntoIter: Clone>,
    nodes: impl IntoIterator<Item = NodeId>,
) -> Option<NodeId> {
    let key = key.into_iter();
    nodes.into_iter().max_by_key(|node| rendezvous(key.clone().chain([node.get()])))
}

/// How much a partition belongs to a node: the rendezvous hash of topic, partition and node.
fn score(partition: PartitionId, node: NodeId) -> u64 {
    rendezvous([partition.topic.get(), u64::from(partition.index.get()), node.get()])
}

/// `SplitMix64` over words, one after another; equal on every machine for ever.
fn rendezvous(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0, |hash, word| mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word))
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_score(topic: u64, index: u32, node: u64, expected: u64) {
        let partition = PartitionId::new(TopicId::new(topic), PartitionIndex::new(index));
        let found = score(partition, NodeId::new(node));
        assert_eq!(found, expected, "{found:#018x}");
    }

    /// Replicas of different releases give a new topic the same homes.
    #[test]
    fn the_score_is_the_same_for_ever() {
        check_score(0, 0, 0, 0x2382_75bc_38fc_be91);
        check_score(1, 0, 1, 0xd48e_ba3d_3562_40fd);
        check_score(1, 1, 1, 0x40aa_389b_a7cc_36a4);
        check_score(2, 0, 1, 0x4db5_5a9b_8054_77eb);
        check_score(1, 0, 2, 0x9fac_4648_478a_013c);
        check_score(u64::MAX, u32::MAX, u64::MAX, 0x9c5b_fdf6_c623_6c63);
    }

    #[test]
    fn ratios_are_told_apart() {
        assert!(ratio(9_998, 9_999) < ratio(9_999, 10_000));
        assert_eq!(ratio(3, 9), ratio(1_000, 3_000));
        assert_eq!([0, 1, 2].map(|rank| depth(rank, 3)), [ratio(1, 6), ratio(1, 2), ratio(5, 6)]);
    }
}
