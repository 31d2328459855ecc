//! Members are admitted, judged, drained and removed; the fleet agrees on voters and a feature level.

use streamhouse_metadata::{
    Command, DirectoryId, Drain, FeatureLevel, FeatureRange, HomeMove, Liveness, Member, MemberRefusal,
    Outcome, Refusal, VoterCount,
};
use streamhouse_types::{Epoch, Incarnation, NodeId, PartitionId, PartitionIndex, TopicId};

use crate::world::{World, create, p, register};

fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

fn levels(min: u32, max: u32) -> FeatureRange {
    FeatureRange { min: FeatureLevel::new(min), max: FeatureLevel::new(max) }
}

fn admit(id: u64, directory: u8, features: FeatureRange) -> Command {
    let directory = DirectoryId::from_bytes([directory; 16]);
    Command::AdmitNode { node: node(id), directory, features, version: "0.1.0".to_owned() }
}

fn judge(id: u64, incarnation: u64, liveness: Liveness) -> Command {
    Command::JudgeNode { node: node(id), incarnation: Incarnation::new(incarnation), liveness }
}

fn drain(id: u64, drain: Drain) -> Command {
    Command::SetDrain { request: [0; 16], node: node(id), drain }
}

fn remove(id: u64) -> Command {
    Command::RemoveNode { request: [0; 16], node: node(id) }
}

fn raise(level: u32) -> Command {
    Command::RaiseFeatureLevel { level: FeatureLevel::new(level) }
}

fn refused(refusal: MemberRefusal) -> Outcome {
    Outcome::MemberRefused(refusal)
}

fn member(world: &World, id: u64) -> &Member {
    world.state.member(node(id)).unwrap()
}

fn eligible(world: &World) -> Vec<u64> {
    world.state.eligible_homes().map(|home| home.id().get()).collect()
}

#[test]
fn a_node_id_belongs_to_one_data_directory() {
    let mut world = World::new();
    assert!(world.apply(admit(2, 7, levels(1, 2))).changes.nodes_changed);
    assert_eq!(world.changes_nothing(admit(2, 7, levels(1, 2))), Outcome::Done);
    let taken = refused(MemberRefusal::OtherDirectory { node: node(2) });
    assert_eq!(world.changes_nothing(admit(2, 8, levels(1, 2))), taken);
    let text = MemberRefusal::OtherDirectory { node: node(2) }.to_string();
    assert!(text.contains("belongs to another data directory; a wiped node joins under a new id"), "{text}");
    assert_eq!(member(&world, 2).directory(), Some(DirectoryId::from_bytes([7; 16])));
    assert_eq!((member(&world, 2).version(), member(&world, 2).is_alive()), ("0.1.0", false));
}

#[test]
fn a_node_that_is_upgraded_says_what_it_knows_now() {
    let mut world = World::new();
    world.done(admit(2, 7, levels(1, 1)));
    world.done(admit(2, 7, levels(1, 2)));
    assert_eq!(member(&world, 2).features(), levels(1, 2));
}

#[test]
fn a_member_whose_directory_is_not_known_takes_the_first_that_asks() {
    let mut world = World::new();
    assert_eq!(member(&world, 1).directory(), None);
    world.done(admit(1, 7, levels(1, 1)));
    let taken = refused(MemberRefusal::OtherDirectory { node: node(1) });
    assert_eq!(world.changes_nothing(admit(1, 8, levels(1, 1))), taken);
    assert!(member(&world, 1).is_alive(), "it goes on as it was");
}

#[test]
fn a_node_that_does_not_know_the_feature_level_is_not_admitted() {
    let mut world = World::new();
    let unknown = |features, level| {
        refused(MemberRefusal::LevelUnknown { node: node(2), level: FeatureLevel::new(level), features })
    };
    assert_eq!(world.changes_nothing(admit(2, 7, levels(2, 3))), unknown(levels(2, 3), 1));
    world.done(admit(1, 1, levels(1, 2)));
    world.done(raise(2));
    assert_eq!(world.changes_nothing(admit(2, 7, levels(1, 1))), unknown(levels(1, 1), 2));
    let Outcome::MemberRefused(refusal) = unknown(levels(1, 1), 2) else { unreachable!() };
    let text = refusal.to_string();
    assert!(text.contains("feature level 2") && text.contains("knows 1 to 1"), "{text}");
    world.done(admit(2, 7, levels(1, 2)));
    // A node that was never admitted is taken to know the first level alone.
    let refused = world.changes_nothing(Command::RegisterNode(register(3, 0)));
    assert!(matches!(refused, Outcome::MemberRefused(MemberRefusal::LevelUnknown { .. })), "{refused:?}");
}

#[test]
fn a_node_says_little_about_its_release() {
    let mut world = World::new();
    let (node, directory) = (node(2), DirectoryId::from_bytes([7; 16]));
    let version = "v".repeat(513);
    let long = Command::AdmitNode { node, directory, features: levels(1, 1), version };
    assert!(matches!(world.changes_nothing(long), Outcome::Refused(Refusal::Limit { .. })));
}

#[test]
fn a_member_may_be_a_home_while_it_is_registered_alive_and_not_drained() {
    let mut world = World::new();
    world.done(admit(2, 7, levels(1, 1)));
    assert_eq!(eligible(&world), [1], "admitted only");
    world.outcome(Command::RegisterNode(register(2, 2)));
    assert_eq!(eligible(&world), [1, 2]);
    world.done(judge(2, 1, Liveness::Dead));
    assert_eq!(eligible(&world), [1]);
    world.done(judge(2, 1, Liveness::Alive));
    world.done(drain(2, Drain::Leaving));
    assert_eq!(eligible(&world), [1]);
    world.done(drain(2, Drain::None));
    assert_eq!(eligible(&world), [1, 2]);
    world.done(Command::CloseIncarnation { node: node(2), incarnation: Incarnation::new(1) });
    assert_eq!((eligible(&world), member(&world, 2).liveness()), (vec![1], Liveness::Dead));
}

#[test]
fn a_judgement_of_another_incarnation_changes_nothing() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(1, 2)));
    for late in [judge(1, 1, Liveness::Dead), judge(1, 3, Liveness::Dead), judge(9, 1, Liveness::Alive)] {
        assert_eq!(world.changes_nothing(late), Outcome::Done);
    }
    assert!(world.apply(judge(1, 2, Liveness::Dead)).changes.nodes_changed);
    assert_eq!(world.changes_nothing(judge(1, 2, Liveness::Dead)), Outcome::Done);
    world.done(Command::CloseIncarnation { node: node(1), incarnation: Incarnation::new(2) });
    assert_eq!(world.changes_nothing(judge(1, 2, Liveness::Alive)), Outcome::Done, "it is closed");
}

#[test]
fn registering_ends_leaving_and_not_what_an_operator_wants() {
    let mut world = World::new();
    world.done(judge(1, 1, Liveness::Dead));
    world.done(drain(1, Drain::Leaving));
    world.outcome(Command::RegisterNode(register(1, 2)));
    assert_eq!((member(&world, 1).drain(), member(&world, 1).is_alive()), (Drain::None, true));
    world.done(drain(1, Drain::Operator));
    assert_eq!(world.changes_nothing(drain(1, Drain::Leaving)), Outcome::Done);
    world.outcome(Command::RegisterNode(register(1, 3)));
    assert_eq!(member(&world, 1).drain(), Drain::Operator);
}

#[test]
fn only_members_are_drained_and_removed() {
    let mut world = World::new();
    let unknown = refused(MemberRefusal::Unknown { node: node(9) });
    assert_eq!(world.changes_nothing(drain(9, Drain::Operator)), unknown);
    assert_eq!(world.changes_nothing(remove(9)), unknown);
    world.outcome(Command::RegisterNode(register(2, 2)));
    world.done(remove(2));
    let removed = refused(MemberRefusal::Removed { node: node(2) });
    assert_eq!(world.changes_nothing(drain(2, Drain::None)), removed);
    assert_eq!(world.changes_nothing(remove(2)), Outcome::Done);
}

#[test]
fn a_removed_node_never_comes_back() {
    let mut world = World::new();
    world.done(admit(2, 7, levels(1, 1)));
    world.outcome(Command::RegisterNode(register(2, 2)));
    assert!(world.apply(remove(2)).changes.nodes_changed);
    assert!(member(&world, 2).is_removed() && !world.state.node(node(2)).unwrap().is_open());
    let removed = refused(MemberRefusal::Removed { node: node(2) });
    assert_eq!(world.changes_nothing(admit(2, 7, levels(1, 1))), removed);
    assert_eq!(world.changes_nothing(Command::RegisterNode(register(2, 0))), removed);
    assert_eq!(world.changes_nothing(judge(2, 1, Liveness::Alive)), Outcome::Done);
    assert_eq!(eligible(&world), [1]);
}

#[test]
fn a_member_that_never_registered_can_be_removed() {
    let mut world = World::new();
    world.done(admit(2, 7, levels(1, 1)));
    world.done(remove(2));
    assert!(member(&world, 2).is_removed());
}

#[test]
fn the_last_node_that_can_be_a_home_stays_while_there_are_partitions() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(2, 2)));
    world.done(drain(2, Drain::Operator));
    let last = refused(MemberRefusal::LastHome { node: node(1), partitions: 4 });
    assert_eq!(world.changes_nothing(remove(1)), last);
    // Nor when it is drained itself: its partitions would be left with nobody.
    world.done(drain(1, Drain::Operator));
    assert_eq!(world.changes_nothing(remove(1)), last);
    world.done(drain(2, Drain::None));
    world.done(remove(1));
    let mut empty = World::new();
    empty.done(Command::DeleteTopic { request: [0; 16], topic: TopicId::new(1), validate_only: false });
    empty.done(remove(1));
}

fn move_of(index: u32, home: u64, incarnation: u64, epoch: u32) -> HomeMove {
    let (home, incarnation) = (node(home), Incarnation::new(incarnation));
    HomeMove { partition: p(index), home, incarnation, epoch: Epoch::new(epoch) }
}

#[test]
fn homes_move_only_as_they_were_planned() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(2, 2)));
    let unknown = PartitionId::new(TopicId::new(1), PartitionIndex::new(9));
    let moves = vec![
        move_of(0, 2, 1, 0),
        move_of(0, 2, 1, 1), // it is there by now
        move_of(1, 2, 2, 0), // not that incarnation
        move_of(2, 2, 1, 1), // not that epoch
        move_of(2, 1, 1, 0), // it is there already
        HomeMove { partition: unknown, ..move_of(0, 2, 1, 0) },
        move_of(3, 2, 1, 0),
    ];
    let applied = world.apply(Command::MoveHomes { moves: moves.clone() });
    assert_eq!(applied.outcome, Outcome::HomesMoved { moved: 2 });
    assert_eq!(applied.changes.moved, [p(0), p(3)]);
    let homes: Vec<_> = (0..4).map(|index| world.partition(index)).collect();
    assert_eq!(homes.iter().map(|found| found.home().get()).collect::<Vec<_>>(), [2, 1, 1, 2]);
    assert_eq!(homes.iter().map(|found| found.epoch().get()).collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!(world.changes_nothing(Command::MoveHomes { moves }), Outcome::HomesMoved { moved: 0 });
}

#[test]
fn one_command_moves_at_most_10_000_homes() {
    let mut world = World::new();
    let most = Command::MoveHomes { moves: vec![move_of(0, 2, 1, 0); 10_000] };
    assert_eq!(world.changes_nothing(most), Outcome::HomesMoved { moved: 0 });
    let over = Command::MoveHomes { moves: vec![move_of(0, 2, 1, 0); 10_001] };
    assert!(matches!(world.changes_nothing(over), Outcome::Refused(Refusal::Limit { limit: 10_000, .. })));
}

#[test]
fn partitions_are_homed_where_they_may_be_or_nowhere() {
    let mut world = World::new();
    world.outcome(Command::RegisterNode(register(2, 2)));
    world.done(judge(2, 1, Liveness::Dead));
    world.outcome(Command::CreateTopic(create("lone", 6)));
    let topic = world.state.topic(TopicId::new(2)).unwrap();
    assert!(topic.partitions().all(|partition| partition.home() == node(1)));
    world.done(drain(1, Drain::Operator));
    let nobody = Outcome::Refused(Refusal::NoLiveNode);
    assert_eq!(world.changes_nothing(Command::CreateTopic(create("none", 1))), nobody);
}

#[test]
fn the_wanted_voters_are_set_once_a_request() {
    let mut world = World::new();
    assert_eq!(world.state.wanted_voters(), VoterCount::Three);
    let set = |voters, request| Command::SetWantedVoters { request: [request; 16], voters };
    assert!(world.apply(set(VoterCount::Five, 5)).changes.nodes_changed);
    world.done(set(VoterCount::One, 6));
    assert_eq!(world.changes_nothing(set(VoterCount::Five, 5)), Outcome::Done, "a late copy");
    assert_eq!(world.state.wanted_voters(), VoterCount::One);
    let reused = Outcome::Refused(Refusal::RequestReused);
    assert_eq!(world.changes_nothing(set(VoterCount::Three, 5)), reused);
}

#[test]
fn the_feature_level_rises_when_all_members_know_it_and_never_falls() {
    let mut world = World::new();
    world.done(admit(1, 1, levels(1, 3)));
    world.done(admit(2, 2, levels(1, 2)));
    let level = FeatureLevel::new(3);
    let lacks = MemberRefusal::LevelNotEverywhere { level, node: node(2), features: levels(1, 2) };
    assert_eq!(world.changes_nothing(raise(3)), refused(lacks));
    assert!(world.apply(raise(2)).changes.nodes_changed);
    assert_eq!(world.changes_nothing(raise(2)), Outcome::Done);
    let back = MemberRefusal::LevelGoesDown { current: FeatureLevel::new(2), wanted: FeatureLevel::new(1) };
    assert_eq!(world.changes_nothing(raise(1)), refused(back));
    world.done(remove(2));
    world.done(raise(3));
    assert_eq!(world.state.feature_level(), level);
    // What no release knows yet is out of reach.
    assert!(matches!(world.changes_nothing(raise(4)), Outcome::MemberRefused(_)));
}
