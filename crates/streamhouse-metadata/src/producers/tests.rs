use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, PartitionId, PartitionIndex, Slot, SlotSequence,
    TopicId,
};

use super::*;
use crate::{Command, CommitObject, CreateTopic, RegisterNode, Row, State, TopicSettings, Unit, invariants};

fn partition(index: u64) -> PartitionId {
    PartitionId::new(TopicId::new(1), PartitionIndex::new(u32::try_from(index).expect("small")))
}

/// Producers 1 to `producers`, each with one batch in partition 0 or 1 in turn.
fn state_with(producers: u64) -> State {
    let mut state = State::new();
    let mut apply = |command: Command| {
        let index = LogIndex::new(state.applied().get() + 1);
        state.apply(index, &command);
    };
    let now = Timestamp::from_millis(1_000);
    apply(Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now });
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    let (request, zone, addresses) = ([0; 16], String::new(), Vec::new());
    apply(Command::RegisterNode(RegisterNode { request, node, zone, addresses }));
    let (name, settings) = ("t".parse().expect("a good name"), TopicSettings::default());
    apply(Command::CreateTopic(CreateTopic { request, name, partitions: 2, settings, validate_only: false }));
    apply(Command::GrantProducerIds { node, incarnation, count: 1_000, window: ProducerWindow::Kafka });
    let row = |id: u64| Row {
        partition: partition(id % 2),
        position: 64 + id,
        length: 1,
        batches: 1,
        records: 1,
        max_timestamp: now,
        producer: Some(RowProducer {
            id: ProducerId::new(id),
            epoch: ProducerEpoch::new(0),
            first_sequence: Sequence::ZERO,
        }),
    };
    let slot = Slot { node, incarnation, lane: Lane::Wal, sequence: SlotSequence::new(1) };
    apply(Command::CommitObject(CommitObject {
        slot,
        attempt: Attempt::new(0),
        prev: SlotSequence::new(0),
        lo: SlotSequence::new(1),
        length: 10_000,
        crc: 0,
        append_time: now,
        units: (1..=producers).map(|id| Unit { preconditions: Vec::new(), rows: vec![row(id)] }).collect(),
    }));
    state
}

#[track_caller]
fn check_left(state: &State, in_partition: [Vec<u64>; 2]) {
    for (index, expected) in (0..).zip(in_partition) {
        let found = state.partition(partition(index)).expect("it is there");
        let left: Vec<u64> = found.producers().map(|(id, _)| id.get()).collect();
        assert_eq!(left, expected, "in partition {index}");
    }
    assert_eq!(invariants::check(state), Ok(()));
    let left: u64 = state.partitions().map(|partition| partition.producers().count() as u64).sum();
    assert_eq!(state.producer_bytes, left * (PRODUCER_BYTES + BATCH_BYTES));
}

#[test]
fn over_the_clusters_limit_the_longest_silent_are_forgotten_wherever_they_are() {
    let mut state = state_with(20);
    state.evict_in_cluster(16 * (PRODUCER_BYTES + BATCH_BYTES));
    check_left(&state, [vec![6, 8, 10, 12, 14, 16, 18, 20], vec![7, 9, 11, 13, 15, 17, 19]]);
}

#[test]
fn over_a_partitions_limit_its_longest_silent_are_forgotten() {
    let mut state = state_with(20);
    state.evict_in_partition(partition(0), 8 * (PRODUCER_BYTES + BATCH_BYTES));
    check_left(&state, [vec![8, 10, 12, 14, 16, 18, 20], (1..20).step_by(2).collect()]);
}

#[track_caller]
fn check_eviction(ages: &[(u64, u64)], cap: u64, stamp: u64) {
    assert_eq!(eviction_stamp(ages.to_vec(), cap), stamp);
}

#[test]
fn the_oldest_go_until_fifteen_sixteenths_are_left() {
    check_eviction(&[(30, 8), (10, 8), (20, 8)], 16, 30);
    check_eviction(&[(30, 5), (10, 5), (20, 5)], 16, 10);
    check_eviction(&[(30, 5), (10, 6), (20, 5)], 16, 20);
    check_eviction(&[(10, 99)], 16, u64::MAX);
    check_eviction(&[], 16, u64::MAX);
}

#[test]
fn ids_run_out_without_wrapping() {
    let mut grants = Grants { kafka_next: NATIVE_FIRST - 5, native_next: i64::MAX as u64 - 5 };
    assert_eq!(grants.take(6, ProducerWindow::Kafka), None);
    assert_eq!(grants.take(5, ProducerWindow::Kafka), Some(ProducerId::new(NATIVE_FIRST - 5)));
    assert_eq!(grants.take(1, ProducerWindow::Kafka), None);
    assert_eq!(grants.take(6, ProducerWindow::Native), None);
    assert_eq!(grants.take(5, ProducerWindow::Native), Some(ProducerId::new(i64::MAX as u64 - 5)));
}
