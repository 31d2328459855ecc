mod groups;

use std::sync::Arc;

use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, Offset, PartitionId, PartitionIndex, Slot,
    SlotSequence, Timestamp, TopicId,
};

use super::*;
use crate::fleet::Fleet;
use crate::{
    Command, CommitObject, CreateTopic, DirectoryId, FeatureLevel, FeatureRange, RegisterNode, Row,
    TopicSettings, Unit,
};

fn partition() -> PartitionId {
    PartitionId::new(TopicId::new(1), PartitionIndex::new(0))
}

fn apply(state: &mut State, command: Command) {
    state.apply(LogIndex::new(state.applied().get() + 1), &command);
}

fn row() -> Row {
    Row {
        partition: partition(),
        position: 64,
        length: 100,
        batches: 1,
        records: 10,
        max_timestamp: Timestamp::default(),
        producer: None,
    }
}

fn commit(sequence: u64) -> Command {
    Command::CommitObject(CommitObject {
        slot: Slot {
            node: NodeId::new(1),
            incarnation: Incarnation::new(1),
            lane: Lane::Wal,
            sequence: SlotSequence::new(sequence),
        },
        attempt: Attempt::new(0),
        prev: SlotSequence::new(sequence - 1),
        lo: SlotSequence::new(1),
        length: 1_000,
        crc: 0,
        append_time: Timestamp::default(),
        units: vec![Unit { preconditions: Vec::new(), rows: vec![row()] }],
    })
}

fn state() -> State {
    let mut state = State::new();
    let cluster = ClusterId::from_bytes([1; 16]);
    apply(&mut state, Command::Bootstrap { cluster, now: Timestamp::from_millis(1_000) });
    let node = NodeId::new(1);
    let zone = String::new();
    let request = [1; 16];
    apply(&mut state, Command::RegisterNode(RegisterNode { request, node, zone, addresses: Vec::new() }));
    let name = "t".parse().expect("a good name");
    let settings = TopicSettings::default();
    let request = [2; 16];
    let create = CreateTopic { request, name, partitions: 1, settings, validate_only: false };
    apply(&mut state, Command::CreateTopic(create));
    apply(&mut state, commit(1));
    apply(&mut state, commit(2));
    assert_eq!(check(&state), Ok(()));
    state
}

#[track_caller]
fn check_found(invariant: &str, damage: impl FnOnce(&mut State)) {
    let mut state = state();
    damage(&mut state);
    let found = check(&state).expect_err("the damage went unnoticed");
    assert_eq!(found.invariant, invariant, "{found}");
}

#[test]
fn damage_to_the_state_is_found() {
    check_found("I2", |state| state.names = Arc::default());
    check_found("I2", |state| state.topic_next = TopicId::new(1));
    check_found("I10", |state| state.partition_count = 7);
    check_found("I7", |state| state.objects = Default::default());
    check_found("I8", |state| state.time = Timestamp::from_millis(-9_000));
    check_found("I8", |state| {
        state.nodes.clear();
        state.fleet = Fleet::default();
    });
    check_found("I8", |state| state.cluster = None);
    check_found("I8", |state| state.applied = LogIndex::new(4));
    check_found("I9", |state| {
        let node = state.nodes.get(&NodeId::new(1)).cloned().expect("it is registered");
        state.nodes.insert(NodeId::new(2), node);
    });
}

#[test]
fn damage_to_the_fleet_is_found() {
    let node = NodeId::new(1);
    let change = |state: &mut State, change: fn(&mut Fleet)| change(&mut state.fleet);
    check_found("I9", |state| change(state, |fleet| fleet.members.clear()));
    check_found("I8", |state| change(state, |fleet| fleet.feature_level = FeatureLevel::new(0)));
    check_found("I8", |state| change(state, |fleet| fleet.feature_level = FeatureLevel::new(2)));
    check_found("I10", |state| state.home_counts = Default::default());
    check_found("I9", |state| {
        let member = Arc::clone(&state.fleet.members[&node]);
        state.fleet.members.insert(NodeId::new(2), member);
    });
    // Closed behind the fleet's back, so that it still counts as alive.
    check_found("I9", |state| {
        let register = RegisterNode { request: [1; 16], node, zone: String::new(), addresses: Vec::new() };
        let mut other = State::new();
        apply(
            &mut other,
            Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now: Timestamp::default() },
        );
        apply(&mut other, Command::RegisterNode(register));
        apply(&mut other, Command::CloseIncarnation { node, incarnation: Incarnation::new(1) });
        state.nodes = other.nodes;
    });
    // Removed elsewhere, and open here.
    check_found("I9", |state| {
        let mut other = State::new();
        apply(
            &mut other,
            Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now: Timestamp::default() },
        );
        let (directory, features) = (DirectoryId::from_bytes([1; 16]), FeatureRange::FIRST);
        apply(&mut other, Command::AdmitNode { node, directory, features, version: String::new() });
        apply(&mut other, Command::RemoveNode { request: [2; 16], node });
        state.fleet = other.fleet;
    });
}

#[test]
fn an_object_that_did_not_win_its_slot_is_found() {
    // Both attempts at one slot appended, as a broken apply would.
    let mut state = state();
    let Command::CommitObject(first) = commit(2) else { unreachable!("it is a commit") };
    let index = LogIndex::new(state.applied().get() + 1);
    state.apply_unjudged(index, &CommitObject { attempt: Attempt::new(1), ..first });
    assert_eq!(check(&state).expect_err("both are committed").invariant, "I9");
}

#[track_caller]
fn check_step_found(invariant: &str, damage: impl FnOnce(&mut State)) {
    let before = state();
    let mut after = before.clone();
    after.skip_to(LogIndex::new(100));
    assert_eq!(check_step(&before, &after), Ok(()));
    damage(&mut after);
    let found = check_step(&before, &after).expect_err("the damage went unnoticed");
    assert_eq!(found.invariant, invariant, "{found}");
}

#[test]
fn what_goes_back_is_found() {
    check_step_found("I8", |state| state.applied = LogIndex::new(1));
    check_step_found("I8", |state| state.time = Timestamp::default());
    check_step_found("I8", |state| state.cluster = None);
    check_step_found("I2", |state| state.topic_next = TopicId::new(1));
    check_step_found("I9", |state| state.nodes.clear());
    check_step_found("I9", |state| state.fleet.members.clear());
    check_step_found("I3", |state| {
        let partition = state.partition_mut(partition()).expect("it is there");
        partition.move_to(NodeId::new(2));
        partition.move_to(NodeId::new(3));
    });
    check_step_found("I3", |state| {
        let partition = state.partition_mut(partition()).expect("it is there");
        partition.move_to(partition.home());
    });
    check_step_found("I7", |state| state.objects = Default::default());
    check_step_found("I9", |state| {
        apply(
            state,
            Command::RegisterNode(RegisterNode {
                request: [9; 16],
                node: NodeId::new(1),
                zone: String::new(),
                addresses: Vec::new(),
            }),
        );
        let node = state.nodes.get_mut(&NodeId::new(1)).expect("it is registered");
        *node = Arc::new(self::state().node(NodeId::new(1)).expect("it is registered").clone());
        let lane = state.lane_mut(&Slot {
            node: NodeId::new(1),
            incarnation: Incarnation::new(1),
            lane: Lane::Wal,
            sequence: SlotSequence::new(1),
        });
        *lane.expect("it is open") = Default::default();
    });
}

#[test]
fn a_home_that_came_back_between_two_looks_is_no_violation_and_a_move_without_epoch_is() {
    let before = state();
    let mut after = before.clone();
    after.skip_to(LogIndex::new(100));
    let home = after.partition(partition()).expect("it is there").home();
    let moved = after.partition_mut(partition()).expect("it is there");
    moved.move_to(NodeId::new(7));
    moved.move_to(home);
    assert_eq!(check_span(&before, &after), Ok(()));
    assert_eq!(check_step(&before, &after).expect_err("one command moves once").invariant, "I3");
    let moved = after.partition_mut(partition()).expect("it is there");
    moved.move_to(NodeId::new(7));
    let mut unmoved = before.clone();
    unmoved.skip_to(LogIndex::new(200));
    assert_eq!(check_span(&after, &unmoved).expect_err("the epoch went back").invariant, "I3");
}

#[test]
fn a_fleet_that_goes_back_is_found() {
    let node = NodeId::new(2);
    let admit = |directory| {
        let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::new(2) };
        let directory = DirectoryId::from_bytes([directory; 16]);
        Command::AdmitNode { node, directory, features, version: String::new() }
    };
    #[track_caller]
    fn check(invariant: &str, before: &State, fleet: &Fleet) {
        let mut after = before.clone();
        after.skip_to(LogIndex::new(100));
        after.fleet = fleet.clone();
        assert_eq!(check_step(before, &after).expect_err("it went unnoticed").invariant, invariant);
    }
    let mut admitted = state();
    apply(&mut admitted, admit(1));
    let mut elsewhere = state();
    apply(&mut elsewhere, admit(2));
    check("I9", &admitted, &elsewhere.fleet);
    let mut removed = admitted.clone();
    apply(&mut removed, Command::RemoveNode { request: [3; 16], node });
    assert_eq!(check_step(&admitted, &removed), Ok(()));
    check("I9", &removed, &admitted.fleet);
    let mut raised = admitted.clone();
    let directory = DirectoryId::from_bytes([7; 16]);
    let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::new(2) };
    let first = NodeId::new(1);
    apply(&mut raised, Command::AdmitNode { node: first, directory, features, version: String::new() });
    apply(&mut raised, Command::RaiseFeatureLevel { level: FeatureLevel::new(2) });
    assert_eq!(raised.feature_level(), FeatureLevel::new(2));
    check("I8", &raised, &admitted.fleet);
}

#[test]
fn an_offset_that_names_another_record_is_found() {
    let before = state();
    let mut trimmed = before.clone();
    trimmed.skip_to(LogIndex::new(100));
    trimmed.partition_mut(partition()).expect("it is there").trim(Offset::new(10), |_| ());
    assert_eq!(check_step(&before, &trimmed), Ok(()), "a trim changes nothing that is readable");
    let mut back = before.clone();
    back.skip_to(LogIndex::new(101));
    assert_eq!(check_step(&trimmed, &back).expect_err("the log start went back").invariant, "I3");
    // The same log start and high watermark, but the extents have changed places.
    let mut swapped = before.clone();
    swapped.skip_to(LogIndex::new(100));
    let extents: Vec<_> = before.partition(partition()).expect("there").extents_from(Offset::ZERO).collect();
    assert_eq!(extents.len(), 2);
    let mut rewritten = crate::Partition::new(partition(), NodeId::new(1));
    for (stamp, extent) in (0..).zip(extents.iter().rev()) {
        let (object, append_time) = (extent.object, extent.append_time);
        rewritten.append(&row(), &crate::partition::Landing { object, append_time, stamp });
    }
    *swapped.partition_mut(partition()).expect("it is there") = rewritten;
    assert_eq!(check_step(&before, &swapped).expect_err("the records changed places").invariant, "I2");
}
