//! Idempotent producers: each batch is in the log exactly once, in sequence order.

use streamhouse_metadata::{Command, CommitObject, Outcome, ProducerWindow, Row, Unit, UnitRefusal, Verdict};
use streamhouse_types::{PartitionId, ProducerEpoch, ProducerId, Sequence, SlotSequence};

use crate::world::{NOW, World, bases, commit, next_is, offset, p, row, sent, time, unit};

/// A world with a producer, and the next slot.
struct Sender {
    world: World,
    id: ProducerId,
    slot: u64,
}

impl Sender {
    fn new(window: ProducerWindow) -> Self {
        let mut world = World::new();
        let id = world.grant(window);
        Self { world, id, slot: 0 }
    }

    fn kafka() -> Self {
        Self::new(ProducerWindow::Kafka)
    }

    fn batch(&self, epoch: u16, first: u32, records: u32) -> Row {
        Row { producer: sent(self.id, epoch, first), ..row(p(0), records) }
    }

    #[track_caller]
    fn commit(&mut self, units: impl IntoIterator<Item = Unit>) -> Vec<Verdict> {
        self.slot += 1;
        let lo = SlotSequence::new(self.slot);
        self.world.commit(CommitObject { lo, ..commit(self.slot, units) })
    }

    #[track_caller]
    fn send(&mut self, epoch: u16, first: u32, records: u32) -> Verdict {
        let batch = self.batch(epoch, first, records);
        self.commit([unit([batch])]).remove(0)
    }

    #[track_caller]
    fn sends(&mut self, epoch: u16, first: u32, records: u32, base: u64) {
        assert_eq!(bases(&self.send(epoch, first, records)), [base]);
    }
}

fn duplicate(base: u64) -> Verdict {
    Verdict::Duplicate { bases: vec![offset(base)] }
}

fn out_of_order(expected: u32) -> Verdict {
    Verdict::Refused(UnitRefusal::OutOfOrderSequence { expected: Sequence::new(expected) })
}

#[test]
fn a_retry_gets_the_offset_of_its_first_try() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 10, 0);
    sender.sends(0, 10, 5, 10);
    assert_eq!(sender.send(0, 0, 10), duplicate(0));
    assert_eq!(sender.send(0, 10, 5), duplicate(10));
    sender.sends(0, 15, 1, 15);
    assert_eq!(sender.world.partition(0).high_watermark(), offset(16));
}

#[test]
fn a_retry_in_the_same_object_is_recognised() {
    let mut sender = Sender::kafka();
    let batches = [sender.batch(0, 0, 10), sender.batch(0, 0, 10), sender.batch(0, 10, 1)];
    let verdicts = sender.commit(batches.map(|batch| unit([batch])));
    assert_eq!(bases(&verdicts[0]), [0]);
    assert_eq!(verdicts[1], duplicate(0));
    assert_eq!(bases(&verdicts[2]), [10]);
    assert_eq!(sender.world.layout(0), [(0, 10, 1), (10, 11, 1)], "the retry's bytes are a hole");
}

#[test]
fn a_gap_is_refused() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 10, 0);
    assert_eq!(sender.send(0, 11, 1), out_of_order(10));
    assert_eq!(sender.send(0, 9, 1), out_of_order(10));
    sender.sends(0, 10, 1, 10);
}

#[test]
fn a_batch_that_only_starts_like_a_remembered_one_is_refused() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 10, 0);
    assert_eq!(sender.send(0, 0, 9), out_of_order(10));
    assert_eq!(sender.send(0, 0, 11), out_of_order(10));
}

#[test]
fn what_is_older_than_what_is_remembered_is_refused_and_never_acked() {
    let mut sender = Sender::kafka();
    for number in 0..6 {
        sender.sends(0, number, 1, u64::from(number));
    }
    assert_eq!(sender.send(0, 0, 1), out_of_order(6));
    for number in 1..6 {
        assert_eq!(sender.send(0, number, 1), duplicate(u64::from(number)));
    }
}

#[test]
fn a_native_session_has_64_batches_remembered() {
    let mut sender = Sender::new(ProducerWindow::Native);
    for number in 0..65 {
        sender.sends(0, number, 1, u64::from(number));
    }
    assert_eq!(sender.send(0, 0, 1), out_of_order(65));
    assert_eq!(sender.send(0, 1, 1), duplicate(1));
    assert_eq!(sender.send(0, 64, 1), duplicate(64));
}

#[test]
fn an_unknown_producer_starts_at_sequence_0() {
    let mut sender = Sender::kafka();
    assert_eq!(sender.send(0, 1, 1), Verdict::Refused(UnitRefusal::UnknownProducer));
    sender.sends(0, 0, 1, 0);
}

#[test]
fn a_producer_may_start_under_any_epoch() {
    let mut sender = Sender::kafka();
    sender.sends(7, 0, 1, 0);
    assert_eq!(sender.send(6, 0, 1), fenced(7));
}

fn fenced(current: u16) -> Verdict {
    Verdict::Refused(UnitRefusal::ProducerFenced { current: ProducerEpoch::new(current) })
}

#[test]
fn a_newer_epoch_starts_at_sequence_0_and_fences_the_older() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 10, 0);
    assert_eq!(sender.send(1, 10, 1), out_of_order(0));
    assert_eq!(sender.send(0, 0, 10), duplicate(0), "a refused bump fences nobody");
    sender.sends(1, 0, 10, 10);
    assert_eq!(sender.send(0, 10, 1), fenced(1));
    assert_eq!(sender.send(0, 0, 10), fenced(1), "not even a retry");
    assert_eq!(sender.send(1, 0, 10), duplicate(10), "of its own epoch");
}

#[test]
fn sequences_go_round_after_2_to_the_31() {
    let mut sender = Sender::kafka();
    let step = 1 << 24;
    let mut first = 0_u32;
    for number in 0..128_u64 {
        sender.sends(0, first, step, number * u64::from(step));
        first = (first + step) & (i32::MAX as u32);
    }
    assert_eq!(first, 0);
    assert_eq!(sender.send(0, i32::MAX as u32, 2), out_of_order(0));
    sender.sends(0, 0, 5, 1 << 31);
    assert_eq!(sender.send(0, 0, 5), duplicate(1 << 31), "not the batch of the first round");
}

#[test]
fn a_batch_may_straddle_the_end_of_the_ring() {
    let mut sender = Sender::kafka();
    let step = 1 << 24;
    for number in 0..127_u32 {
        sender.sends(0, number * step, step, u64::from(number * step));
    }
    let end = 127 * step;
    sender.sends(0, end, step - 1, u64::from(end));
    sender.sends(0, i32::MAX as u32, 3, u64::from(i32::MAX as u32));
    assert_eq!(sender.send(0, i32::MAX as u32, 3), duplicate(u64::from(i32::MAX as u32)));
    sender.sends(0, 2, 1, u64::from(i32::MAX as u32) + 3);
}

#[track_caller]
fn check_not_granted(id: u64) {
    let mut world = World::new();
    world.grant(ProducerWindow::Kafka);
    world.grant(ProducerWindow::Native);
    let batch = Row { producer: sent(ProducerId::new(id), 0, 0), ..row(p(0), 1) };
    assert_eq!(world.append(1, batch), Verdict::Refused(UnitRefusal::ProducerIdNotGranted));
}

#[test]
fn ids_outside_the_granted_blocks_are_refused() {
    check_not_granted(0);
    check_not_granted(11);
    check_not_granted((1 << 40) - 1);
    check_not_granted((1 << 40) + 10);
    check_not_granted(u64::MAX);
}

#[test]
fn partitions_remember_a_producer_each_for_itself() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 10, 0);
    let elsewhere = Row { partition: p(1), ..sender.batch(0, 0, 10) };
    assert_eq!(bases(&sender.commit([unit([elsewhere])])[0]), [0]);
    let ahead = Row { partition: p(2), ..sender.batch(0, 10, 1) };
    assert_eq!(sender.commit([unit([ahead])])[0], Verdict::Refused(UnitRefusal::UnknownProducer));
}

#[test]
fn a_unit_of_several_batches_of_one_producer_continues_within_itself() {
    let mut sender = Sender::kafka();
    let good = [sender.batch(0, 0, 2), sender.batch(0, 2, 3)];
    assert_eq!(bases(&sender.commit([unit(good.clone())])[0]), [0, 2]);
    let again = Verdict::Duplicate { bases: vec![offset(0), offset(2)] };
    assert_eq!(sender.commit([unit(good)])[0], again);
    let gap = [sender.batch(0, 5, 1), sender.batch(0, 7, 1)];
    assert_eq!(sender.commit([unit(gap)])[0], out_of_order(6));
    let twice = [sender.batch(0, 5, 1), sender.batch(0, 5, 1)];
    assert_eq!(sender.commit([unit(twice)])[0], out_of_order(6));
    sender.sends(0, 5, 1, 5);
}

#[test]
fn a_unit_that_is_partly_in_the_log_is_refused_wholly() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 2, 0);
    let mixed = [sender.batch(0, 0, 2), sender.batch(0, 2, 1)];
    assert_eq!(sender.commit([unit(mixed)])[0], Verdict::Refused(UnitRefusal::PartlyDuplicate));
    let plain_too = [sender.batch(0, 0, 2), row(p(1), 1)];
    assert_eq!(sender.commit([unit(plain_too)])[0], Verdict::Refused(UnitRefusal::PartlyDuplicate));
    sender.sends(0, 2, 1, 2);
}

#[test]
fn a_retried_conditional_append_is_a_duplicate_and_not_a_failed_condition() {
    let mut sender = Sender::kafka();
    let conditional = Unit { preconditions: vec![next_is(p(0), 0)], rows: vec![sender.batch(0, 0, 2)] };
    assert_eq!(bases(&sender.commit([conditional.clone()])[0]), [0]);
    assert_eq!(sender.commit([conditional])[0], duplicate(0));
}

#[test]
fn a_refused_precondition_is_no_step_in_the_sequence() {
    let mut sender = Sender::kafka();
    let failing = Unit { preconditions: vec![next_is(p(0), 9)], rows: vec![sender.batch(0, 0, 2)] };
    let actual = UnitRefusal::PreconditionFailed { actual: offset(0) };
    assert_eq!(sender.commit([failing])[0], Verdict::Refused(actual));
    sender.sends(0, 0, 2, 0);
}

#[test]
fn a_duplicate_is_recognised_after_its_bytes_were_trimmed() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 2, 0);
    sender.world.trim(0, 2);
    assert_eq!(sender.send(0, 0, 2), duplicate(0));
}

#[test]
fn an_idempotent_row_is_one_batch_of_a_possible_size() {
    let mut sender = Sender::kafka();
    let two = Row { batches: 2, ..sender.batch(0, 0, 2) };
    assert_eq!(sender.commit([unit([two])])[0], Verdict::Refused(UnitRefusal::Malformed));
    let huge = Row { length: 1, ..sender.batch(0, 0, (1 << 24) + 1) };
    let mut verdicts = sender.commit([unit([huge])]);
    assert_eq!(verdicts.remove(0), Verdict::Refused(UnitRefusal::Malformed));
}

#[test]
fn what_a_producer_sent_expires_by_its_last_append() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 1, 0);
    sender.world.done(Command::ExpireProducers { cutoff: time(NOW) });
    assert_eq!(sender.send(0, 0, 1), duplicate(0), "the cutoff itself stays");
    sender.world.done(Command::ExpireProducers { cutoff: time(NOW + 1) });
    assert_eq!(sender.send(0, 1, 1), Verdict::Refused(UnitRefusal::UnknownProducer));
    assert!(sender.world.partition(0).producer(sender.id).is_none());
}

#[test]
fn a_deleted_topic_takes_its_producers_along() {
    let mut sender = Sender::kafka();
    sender.sends(0, 0, 1, 0);
    let topic = streamhouse_types::TopicId::new(1);
    sender.world.done(Command::DeleteTopic { request: [0; 16], topic, validate_only: false });
    let batch = sender.batch(0, 1, 1);
    assert_eq!(sender.commit([unit([batch])])[0], Verdict::Refused(UnitRefusal::UnknownPartition));
}

#[test]
fn a_partition_forgets_the_longest_silent_producers_past_its_limit() {
    let mut world = World::new();
    let mut index = world.state.applied().get();
    let mut apply = |world: &mut World, command: Command| {
        index += 1;
        world.state.apply(streamhouse_types::LogIndex::new(index), &command).outcome
    };
    let mut ids: Vec<ProducerId> = Vec::new();
    while ids.len() < 24_000 {
        let (node, incarnation) = (streamhouse_types::NodeId::new(1), streamhouse_types::Incarnation::new(1));
        let grant =
            Command::GrantProducerIds { node, incarnation, count: 10_000, window: ProducerWindow::Kafka };
        let Outcome::ProducerIds { first, count } = apply(&mut world, grant) else { panic!("not granted") };
        ids.extend((first.get()..first.get() + u64::from(count)).map(ProducerId::new));
    }
    let target: PartitionId = p(0);
    for (slot, chunk) in (1..).zip(ids[..24_000].chunks(1_024)) {
        let units =
            chunk.iter().map(|id| unit([Row { producer: sent(*id, 0, 0), length: 1, ..row(target, 1) }]));
        let outcome = apply(&mut world, Command::CommitObject(commit(slot, units)));
        assert!(matches!(outcome, Outcome::Committed { .. }));
    }
    let left: Vec<ProducerId> = world.partition(0).producers().map(|(id, _)| id).collect();
    // The last object went past the 4 MiB, 176 bytes for each; then down to 15/16.
    let kept = (4 << 20) * 15 / 16 / 176;
    assert_eq!(left, ids[24_000 - kept..24_000], "the oldest go first");
    assert_eq!(streamhouse_metadata::invariants::check(&world.state), Ok(()));
}
