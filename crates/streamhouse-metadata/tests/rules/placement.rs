//! Homes of partitions: level, moved as little as that takes, spread over zones, and the same on every replica.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use streamhouse_metadata::placement::plan;
use streamhouse_metadata::{
    Applied, Command, Drain, HomeMove, Liveness, NodeLoad, Outcome, Placement, RegisterNode, State, codec,
    invariants,
};
use streamhouse_types::{ClusterId, Incarnation, LogIndex, NodeId, PartitionId, PartitionIndex, TopicId};

use crate::world::{NOW, create, register, time};

/// A cluster of nodes 1, 2, 3 …, which are in their first incarnation, and topics.
struct Cluster {
    state: State,
}

impl Cluster {
    fn new(zones: &[&str]) -> Self {
        let mut cluster = Self { state: State::new() };
        cluster.apply(&Command::Bootstrap { cluster: ClusterId::from_bytes([7; 16]), now: time(NOW) });
        for zone in zones {
            cluster.add_node(zone);
        }
        cluster
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.state.apply(LogIndex::new(self.state.applied().get() + 1), command)
    }

    fn add_node(&mut self, zone: &str) -> NodeId {
        let id = self.state.nodes().count() as u64 + 1;
        self.apply(&Command::RegisterNode(RegisterNode { zone: zone.to_owned(), ..register(id, 0) }));
        NodeId::new(id)
    }

    fn add_topic(&mut self, partitions: u32) -> TopicId {
        let name = format!("t{}", self.state.topics().count());
        match self.apply(&Command::CreateTopic(create(&name, partitions))).outcome {
            Outcome::TopicCreated { topic } => topic,
            other => panic!("not created: {other:?}"),
        }
    }

    fn add_partitions(&mut self, topic: TopicId, total: u32) {
        let grow = Command::AddPartitions { request: [0; 16], topic, total, validate_only: false };
        assert_eq!(self.apply(&grow).outcome, Outcome::Done);
    }

    /// Takes a node out of those that may be homes, one way or another.
    fn lose(&mut self, node: NodeId, way: u8) {
        let incarnation = Incarnation::new(1);
        self.apply(&match way % 3 {
            0 => Command::JudgeNode { node, incarnation, liveness: Liveness::Dead },
            1 => Command::SetDrain { request: [0; 16], node, drain: Drain::Operator },
            _ => Command::CloseIncarnation { node, incarnation },
        });
    }

    /// Moves a home to any node, whatever the plan would say.
    fn scramble(&mut self, partition: PartitionId, home: NodeId) {
        let epoch = self.state.partition(partition).unwrap().epoch();
        let wanted = HomeMove { partition, home, incarnation: Incarnation::new(1), epoch };
        self.apply(&Command::MoveHomes { moves: vec![wanted] });
    }

    /// Plans, holds the plan against the rules, and carries it out.
    #[track_caller]
    fn settle(&mut self) -> Vec<HomeMove> {
        let moves = plan(&self.state);
        let fewest = fewest_moves(&self.state);
        assert_eq!(moves.len() as u64, fewest, "as few as it takes");
        let described = Placement::describe(&self.state, &moves);
        assert!(described.windows(2).all(|pair| pair[0].node < pair[1].node));
        let told =
            |load: fn(&NodeLoad) -> u64| described.iter().map(|node| (node.node, load(node))).collect();
        let before: BTreeMap<NodeId, u64> = told(|node| node.before);
        assert_eq!(before, all_loads(&self.state));
        let applied = self.apply(&Command::MoveHomes { moves: moves.clone() });
        assert_eq!(applied.outcome, Outcome::HomesMoved { moved: u32::try_from(moves.len()).unwrap() });
        let after: BTreeMap<NodeId, u64> = told(|node| node.after);
        let mut now = all_loads(&self.state);
        // A node that lost its last home is still told of.
        before.keys().for_each(|node| _ = now.entry(*node).or_default());
        assert_eq!(after, now);
        assert_eq!(invariants::check(&self.state), Ok(()));
        self.check_settled();
        moves
    }

    #[track_caller]
    fn check_settled(&self) {
        assert_eq!(plan(&self.state), [], "a second plan changes nothing");
        let loads = eligible_loads(&self.state);
        let most = loads.values().max().copied().unwrap_or(0);
        let least = loads.values().min().copied().unwrap_or(0);
        assert!(most - least <= 1, "{loads:?}");
    }

    /// How many partitions of a topic each zone has.
    fn zones_of(&self, topic: TopicId) -> Vec<(String, usize)> {
        let mut zones: BTreeMap<String, usize> = BTreeMap::new();
        for partition in self.state.topic(topic).unwrap().partitions() {
            let zone = self.state.node(partition.home()).unwrap().zone();
            *zones.entry(zone.to_owned()).or_default() += 1;
        }
        zones.into_iter().collect()
    }
}

fn counted(state: &State) -> BTreeMap<NodeId, u64> {
    let mut loads = BTreeMap::new();
    state.partitions().for_each(|partition| *loads.entry(partition.home()).or_default() += 1);
    loads
}

/// How many partitions each node has that may be a home.
fn eligible_loads(state: &State) -> BTreeMap<NodeId, u64> {
    let all = counted(state);
    state.eligible_homes().map(|node| (node.id(), all.get(&node.id()).copied().unwrap_or(0))).collect()
}

/// The same, and those that have some although they may not.
fn all_loads(state: &State) -> BTreeMap<NodeId, u64> {
    let mut loads = eligible_loads(state);
    loads.extend(counted(state));
    loads
}

/// The least number of moves after which all nodes have the same, give or take one: over all ways to say which nodes
/// have one more.
fn fewest_moves(state: &State) -> u64 {
    let loads: Vec<u64> = eligible_loads(state).into_values().collect();
    let partitions = state.partitions().count() as u64;
    if loads.is_empty() {
        return 0;
    }
    let (share, extras) = (partitions / loads.len() as u64, partitions % loads.len() as u64);
    let lost = partitions - loads.iter().sum::<u64>();
    let excess = |favoured: u32| -> u64 {
        let keeps = |at: usize| share + u64::from(favoured >> at & 1);
        loads.iter().enumerate().map(|(at, load)| load.saturating_sub(keeps(at))).sum()
    };
    let ways = (0..1_u32 << loads.len()).filter(|favoured| u64::from(favoured.count_ones()) == extras);
    lost + ways.map(excess).min().unwrap()
}

const ZONES: [&str; 3] = ["a", "b", "c"];

/// Nodes in zones, and topics that were made while all were there; then homes were moved about.
fn clusters() -> impl Strategy<Value = Cluster> {
    let zones = prop::collection::vec(prop::sample::select(ZONES.to_vec()), 1..8);
    let topics = prop::collection::vec(1_u32..20, 0..6);
    let moved = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20);
    (zones, topics, moved).prop_map(|(zones, topics, moved)| {
        let mut cluster = Cluster::new(&zones);
        topics.iter().for_each(|partitions| _ = cluster.add_topic(*partitions));
        let all: Vec<PartitionId> = cluster.state.partitions().map(|partition| partition.id()).collect();
        for (partition, home) in moved.into_iter().filter(|_| !all.is_empty()) {
            let home = NodeId::new(home.index(zones.len()) as u64 + 1);
            cluster.scramble(all[partition.index(all.len())], home);
        }
        cluster
    })
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.state.partitions().map(|found| (found.id(), found.home()))).finish()
    }
}

fn any_node(cluster: &Cluster, index: prop::sample::Index) -> NodeId {
    NodeId::new(index.index(cluster.state.nodes().count()) as u64 + 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_levels_any_cluster_by_as_few_moves_as_it_takes(
        mut cluster in clusters(),
        lost in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        for (node, way) in lost {
            let node = any_node(&cluster, node);
            cluster.lose(node, way);
        }
        cluster.settle();
    }

    #[test]
    fn a_new_node_takes_its_share_and_nobody_else_anything(
        mut cluster in clusters(),
        zone in prop::sample::select(ZONES.to_vec()),
    ) {
        cluster.settle();
        let new = cluster.add_node(zone);
        let moves = cluster.settle();
        prop_assert!(moves.iter().all(|wanted| wanted.home == new));
        let share = cluster.state.partitions().count().div_ceil(cluster.state.nodes().count());
        prop_assert!(moves.len() <= share);
    }

    #[test]
    fn a_node_that_goes_leaves_the_homes_of_others_alone(
        mut cluster in clusters(),
        node in any::<prop::sample::Index>(),
        way in any::<u8>(),
    ) {
        cluster.settle();
        let gone = any_node(&cluster, node);
        let homes = |state: &State| -> Vec<PartitionId> {
            state.partitions().filter(|found| found.home() == gone).map(|found| found.id()).collect()
        };
        let own = homes(&cluster.state);
        cluster.lose(gone, way);
        let moved: Vec<PartitionId> = cluster.settle().iter().map(|wanted| wanted.partition).collect();
        if cluster.state.eligible_homes().next().is_some() {
            prop_assert_eq!(moved, own);
        } else {
            prop_assert_eq!(moved, []);
        }
    }

    #[test]
    fn what_is_new_lies_where_a_plan_leaves_it(
        mut cluster in clusters(),
        sizes in prop::collection::vec(1_u32..20, 1..4),
        more in 1_u32..20,
    ) {
        cluster.settle();
        for partitions in sizes {
            let topic = cluster.add_topic(partitions);
            cluster.check_settled();
            cluster.add_partitions(topic, partitions + more);
            cluster.check_settled();
        }
        prop_assert_eq!(invariants::check(&cluster.state), Ok(()));
    }

    /// Also while a plan is due, what is new goes only where it may.
    #[test]
    fn what_is_new_lies_on_nodes_that_may_be_homes(
        mut cluster in clusters(),
        lost in (any::<prop::sample::Index>(), any::<u8>()),
        partitions in 1_u32..40,
    ) {
        let gone = any_node(&cluster, lost.0);
        cluster.lose(gone, lost.1);
        if cluster.state.eligible_homes().next().is_some() {
            let topic = cluster.add_topic(partitions);
            let found = cluster.state.topic(topic).unwrap();
            prop_assert!(found.partitions().all(|partition| partition.home() != gone));
        }
        cluster.settle();
    }

    #[test]
    fn a_replica_that_started_from_a_snapshot_plans_the_same(
        mut cluster in clusters(),
        lost in any::<prop::sample::Index>(),
    ) {
        let gone = any_node(&cluster, lost);
        cluster.lose(gone, 0);
        let mut bytes = Vec::new();
        codec::encode_snapshot(&cluster.state, &mut bytes).unwrap();
        let replica = codec::decode_snapshot(&bytes).unwrap();
        prop_assert_eq!(plan(&cluster.state), plan(&replica));
    }
}

#[test]
fn nothing_is_planned_when_no_node_may_be_a_home() {
    let mut cluster = Cluster::new(&["a", "a"]);
    cluster.add_topic(5);
    cluster.lose(NodeId::new(1), 0);
    cluster.lose(NodeId::new(2), 1);
    assert_eq!(plan(&cluster.state), []);
    assert_eq!(plan(&State::new()), []);
}

#[test]
fn the_partitions_of_a_topic_are_spread_over_the_zones_by_their_nodes() {
    let mut cluster = Cluster::new(&["a", "b", "b", "c", "c", "c"]);
    let topic = cluster.add_topic(60);
    let zone = |name: &str, count| (name.to_owned(), count);
    assert_eq!(cluster.zones_of(topic), [zone("a", 10), zone("b", 20), zone("c", 30)]);
    // Small topics: the two partitions of each lie in two zones.
    let mut cluster = Cluster::new(&["a", "a", "b", "b"]);
    for _ in 0..20 {
        let topic = cluster.add_topic(2);
        assert_eq!(cluster.zones_of(topic), [zone("a", 1), zone("b", 1)]);
    }
}

#[test]
fn the_homes_of_a_lost_node_go_to_the_zones_that_have_the_fewest_of_their_topics() {
    let mut cluster = Cluster::new(&["a", "b", "c", "a"]);
    let topics: Vec<TopicId> = (0..8).map(|_| cluster.add_topic(4)).collect();
    cluster.lose(NodeId::new(4), 0);
    cluster.settle();
    let zones: Vec<usize> =
        topics.iter().flat_map(|topic| cluster.zones_of(*topic)).map(|(_, count)| count).collect();
    assert!(zones.iter().all(|count| (1..=2).contains(count)), "{zones:?}");
}

#[test]
fn a_new_node_gets_the_same_part_of_every_topic() {
    let mut cluster = Cluster::new(&["a", "a", "a"]);
    let (large, small) = (cluster.add_topic(60), cluster.add_topic(30));
    let new = cluster.add_node("a");
    cluster.settle();
    let count = |topic| cluster.state.topic(topic).unwrap().partitions().filter(|p| p.home() == new).count();
    let counts = [count(large), count(small)];
    assert_eq!(counts.iter().sum::<usize>(), 22);
    assert!((13..=17).contains(&counts[0]) && (5..=9).contains(&counts[1]), "{counts:?}");
}

#[test]
fn the_partitions_of_a_topic_are_spread_over_the_nodes_when_one_is_lost() {
    let mut cluster = Cluster::new(&["a"; 4]);
    let topics: Vec<TopicId> = (0..6).map(|_| cluster.add_topic(12)).collect();
    cluster.lose(NodeId::new(2), 2);
    cluster.settle();
    for topic in topics {
        let homes: BTreeSet<_> = cluster.state.topic(topic).unwrap().partitions().map(|p| p.home()).collect();
        let count =
            |home| cluster.state.topic(topic).unwrap().partitions().filter(|p| p.home() == home).count();
        assert!(homes.iter().all(|home| count(*home) == 4));
    }
}

#[test]
fn a_description_passes_over_what_would_be_passed_over() {
    let mut cluster = Cluster::new(&["a", "a"]);
    let topic = cluster.add_topic(2);
    let moves: Vec<HomeMove> = (0..2)
        .map(|index| PartitionId::new(topic, PartitionIndex::new(index)))
        .map(|partition| {
            let epoch = cluster.state.partition(partition).unwrap().epoch();
            HomeMove { partition, home: NodeId::new(1), incarnation: Incarnation::new(2), epoch }
        })
        .collect();
    let load = |node, before, after| NodeLoad { node: NodeId::new(node), before, after };
    assert_eq!(Placement::describe(&cluster.state, &moves), [load(1, 1, 1), load(2, 1, 1)]);
    let current = moves.iter().map(|wanted| HomeMove { incarnation: Incarnation::new(1), ..*wanted });
    let current: Vec<HomeMove> = current.collect();
    assert_eq!(Placement::describe(&cluster.state, &current), [load(1, 1, 2), load(2, 1, 0)]);
}
