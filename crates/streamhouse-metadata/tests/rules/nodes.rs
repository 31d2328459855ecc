//! Nodes register, are closed, and get producer ids.

use streamhouse_metadata::{Command, Outcome, ProducerWindow, Refusal, RegisterNode};
use streamhouse_types::{ClusterId, Incarnation, Lane, NodeId, PartitionId, PartitionIndex, TopicId};

use crate::world::{World, create, p, register, time};

fn registered(incarnation: u64) -> Outcome {
    Outcome::Registered { incarnation: Incarnation::new(incarnation) }
}

fn close(node: u64, incarnation: u64) -> Command {
    Command::CloseIncarnation { node: NodeId::new(node), incarnation: Incarnation::new(incarnation) }
}

#[test]
fn nothing_happens_before_the_cluster_has_its_identity() {
    let mut world = World::empty();
    let refused = Outcome::Refused(Refusal::NotBootstrapped);
    assert_eq!(world.changes_nothing(Command::RegisterNode(register(1, 1))), refused);
    assert_eq!(world.changes_nothing(Command::CreateTopic(create("a", 1))), refused);
    assert_eq!(world.changes_nothing(Command::Tick { now: time(5) }), refused);
}

#[test]
fn a_cluster_gets_one_identity() {
    let mut world = World::new();
    let cluster = world.state.cluster().unwrap();
    let again = Command::Bootstrap { cluster: ClusterId::from_bytes([8; 16]), now: time(9_999_999) };
    assert_eq!(world.changes_nothing(again), Outcome::Refused(Refusal::AlreadyBootstrapped { cluster }));
}

#[test]
fn each_registration_is_a_new_incarnation_and_a_repeated_one_is_not() {
    let mut world = World::new();
    assert_eq!(world.outcome(Command::RegisterNode(register(1, 2))), registered(2));
    assert_eq!(world.changes_nothing(Command::RegisterNode(register(1, 2))), registered(2));
    assert_eq!(world.outcome(Command::RegisterNode(register(2, 3))), registered(1));
    assert_eq!(world.state.node(NodeId::new(2)).unwrap().address("grpc"), Some("127.0.0.1:2"));
}

#[test]
fn a_late_copy_of_an_old_registration_closes_nothing() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(1, 2)));
    assert_eq!(world.changes_nothing(Command::RegisterNode(register(1, 1))), registered(1));
    assert!(world.state.lane(NodeId::new(1), Incarnation::new(2), Lane::Wal).is_some());
}

#[test]
fn a_registration_is_recognised_after_its_answer_fell_out_of_the_table() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(1, 2)));
    let mut index = 1_000;
    for number in 0_u64..5_000 {
        index += 1;
        let mut request = [0xee; 16];
        request[..8].copy_from_slice(&number.to_le_bytes());
        let topic = TopicId::new(99);
        let command = Command::DeleteTopic { request, topic, validate_only: false };
        world.state.apply(streamhouse_types::LogIndex::new(index), &command);
    }
    let again = world
        .state
        .apply(streamhouse_types::LogIndex::new(index + 1), &Command::RegisterNode(register(1, 2)));
    assert_eq!(again.outcome, registered(2));
    assert_eq!(streamhouse_metadata::invariants::check(&world.state), Ok(()));
}

#[test]
fn closing_an_old_incarnation_leaves_the_new_one_open() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(1, 2)));
    assert_eq!(world.changes_nothing(close(1, 1)), Outcome::Done);
    assert!(world.state.node(NodeId::new(1)).unwrap().is_open());
    let unknown = Outcome::Refused(Refusal::UnknownNode);
    assert_eq!(world.changes_nothing(close(1, 3)), unknown);
    assert_eq!(world.changes_nothing(close(9, 1)), unknown);
    assert!(world.apply(close(1, 2)).changes.nodes_changed);
    assert!(!world.state.node(NodeId::new(1)).unwrap().is_open());
    assert_eq!(world.changes_nothing(close(1, 2)), Outcome::Done);
    assert_eq!(world.outcome(Command::RegisterNode(register(1, 3))), registered(3));
}

#[test]
fn a_node_says_little_about_itself() {
    let mut world = World::new();
    let refused = |world: &mut World, register: RegisterNode| {
        matches!(world.outcome(Command::RegisterNode(register)), Outcome::Refused(Refusal::Limit { .. }))
    };
    assert!(refused(&mut world, RegisterNode { zone: "z".repeat(513), ..register(2, 2) }));
    let many = vec![("a".to_owned(), "b".to_owned()); 17];
    assert!(refused(&mut world, RegisterNode { addresses: many, ..register(2, 3) }));
    assert!(world.state.node(NodeId::new(2)).is_none());
}

#[test]
fn blocks_of_producer_ids_never_overlap() {
    let mut world = World::new();
    let first = world.grant(ProducerWindow::Kafka);
    let native = world.grant(ProducerWindow::Native);
    let second = world.grant(ProducerWindow::Kafka);
    assert_eq!((first.get(), second.get()), (1, 11));
    assert_eq!(ProducerWindow::of(native), ProducerWindow::Native);
    assert_eq!(ProducerWindow::of(second), ProducerWindow::Kafka);
}

#[test]
fn producer_ids_go_to_open_incarnations_in_blocks_of_at_most_10_000() {
    let mut world = World::new();
    let mut grant = |incarnation, count| {
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(incarnation));
        world.outcome(Command::GrantProducerIds { node, incarnation, count, window: ProducerWindow::Native })
    };
    assert_eq!(grant(2, 1), Outcome::Refused(Refusal::UnknownNode));
    assert!(matches!(grant(1, 0), Outcome::Refused(Refusal::Limit { .. })));
    assert!(matches!(grant(1, 10_001), Outcome::Refused(Refusal::Limit { .. })));
    assert!(matches!(grant(1, 10_000), Outcome::ProducerIds { count: 10_000, .. }));
}

#[test]
fn a_home_moves_only_to_an_open_incarnation_of_another_node() {
    let mut world = World::new();
    let mut move_to = |node, incarnation, partition| {
        let (home, incarnation) = (NodeId::new(node), Incarnation::new(incarnation));
        world.outcome(Command::MoveHome { partition, home, incarnation })
    };
    let epoch = streamhouse_types::Epoch::new(0);
    assert_eq!(move_to(1, 1, p(0)), Outcome::Refused(Refusal::HomeUnchanged { epoch }));
    assert_eq!(move_to(2, 1, p(0)), Outcome::Refused(Refusal::UnknownNode));
    assert_eq!(move_to(1, 2, p(0)), Outcome::Refused(Refusal::UnknownNode));
    assert_eq!(move_to(1, 1, p(4)), Outcome::Refused(Refusal::UnknownPartition));
    world.outcome(Command::RegisterNode(register(2, 2)));
    let (home, incarnation) = (NodeId::new(2), Incarnation::new(1));
    let moved = world.apply(Command::MoveHome { partition: p(0), home, incarnation });
    assert_eq!((moved.outcome, moved.changes.moved), (Outcome::Done, vec![p(0)]));
    assert_eq!((world.partition(0).home(), world.partition(0).epoch().get()), (home, 1));
}

#[test]
fn homes_are_given_so_that_all_live_nodes_have_the_same() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(2, 2)));
    world.outcome(Command::RegisterNode(register(3, 3)));
    world.done(close(2, 1));
    world.outcome(Command::CreateTopic(create("spread", 6)));
    // Node 1 has the four homes of the first topic already.
    let homes = |world: &World| -> [usize; 3] {
        let topic = world.state.topic(TopicId::new(2)).unwrap();
        [1, 2, 3].map(|node| topic.partitions().filter(|found| found.home() == NodeId::new(node)).count())
    };
    assert_eq!(homes(&world), [1, 0, 5]);
    let topic = TopicId::new(2);
    world.done(Command::AddPartitions { request: [0; 16], topic, total: 8, validate_only: false });
    assert_eq!(homes(&world), [2, 0, 6]);
    assert!(world.state.partition(PartitionId::new(topic, PartitionIndex::new(8))).is_none());
    world.done(close(1, 1));
    world.done(close(3, 1));
    let nobody = Outcome::Refused(Refusal::NoLiveNode);
    assert_eq!(world.changes_nothing(Command::CreateTopic(create("none", 1))), nobody);
}
