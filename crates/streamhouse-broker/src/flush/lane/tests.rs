use std::sync::Arc;

use streamhouse_types::{Offset, PartitionIndex, TopicId};
use tokio::sync::oneshot;

use super::super::buffer::Buffer;
use super::super::entry::{Entry, Load, Reply};
use super::super::seal::seal;
use super::*;
use crate::testing::batch;
use crate::{AppendError, Appended, ByteBudget, Session};

type Answer = oneshot::Receiver<Result<Appended, AppendError>>;

const DEADLINE: Duration = Duration::from_secs(30);

fn sequence(number: u64) -> SlotSequence {
    SlotSequence::new(number)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn entry(session: &Session, index: u32) -> (Entry, Answer) {
    let partition = PartitionId::new(TopicId::new(1), PartitionIndex::new(index));
    let load = Load { batches: vec![(partition, batch(&["x"]))], expected: Vec::new() };
    let (port, answer) = oneshot::channel();
    let permit = ByteBudget::new(1).acquire(1).await;
    let waiter = Waiter::new(session, permit, Reply::Batch(port), &load, Duration::ZERO);
    (Entry { load, waiter }, answer)
}

async fn entries(session: &Session, index: u32) -> (Vec<SealedEntry>, Answer) {
    let (entry, answer) = entry(session, index).await;
    (seal(vec![entry]).entries, answer)
}

async fn open(lane: &mut Lane, session: &Session) -> (SlotSequence, Answer) {
    let (entries, answer) = entries(session, 0).await;
    (lane.open(entries, Timestamp::from_millis(1), DEADLINE), answer)
}

fn upload(lane: &mut Lane, slot: SlotSequence) {
    lane.uploaded(slot, Uploaded { attempt: Attempt::new(0), length: 500, crc: 1 });
}

/// Sequence, `prev` and `lo` of what is proposed.
fn proposed(lane: &mut Lane, now: Duration) -> Vec<(u64, u64, u64)> {
    let shape = |(sequence, command): (SlotSequence, Command)| match command {
        Command::CommitObject(commit) => (sequence.get(), commit.prev.get(), commit.lo.get()),
        other => panic!("{other:?}"),
    };
    lane.propose(now).into_iter().map(shape).collect()
}

fn committed() -> Result<Outcome, ProposeError> {
    let verdicts: Arc<[Verdict]> = Arc::new([Verdict::Appended { bases: vec![Offset::ZERO] }]);
    Ok(Outcome::Committed { attempt: Attempt::new(0), verdicts, append_time: Timestamp::from_millis(1) })
}

fn lost() -> Result<Outcome, ProposeError> {
    Err(ProposeError::Unknown { reason: String::new() })
}

fn refused() -> Result<Outcome, ProposeError> {
    Err(ProposeError::NotHappened { reason: String::new() })
}

fn lane() -> Lane {
    Lane::new(NodeId::new(1), Incarnation::new(1))
}

#[tokio::test]
async fn slots_are_proposed_in_their_order_whatever_the_order_of_their_uploads() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    for _ in 0..3 {
        let (_, _answer) = open(&mut lane, &session).await;
    }
    upload(&mut lane, sequence(2));
    upload(&mut lane, sequence(3));
    assert_eq!(proposed(&mut lane, ms(0)), []);
    upload(&mut lane, sequence(1));
    assert_eq!(proposed(&mut lane, ms(0)), [(1, 0, 1), (2, 1, 1), (3, 2, 1)]);
    assert!(matches!(lane.answered(sequence(1), committed(), ms(1)), Decided::Settled(_)));
    let (slot, _answer) = open(&mut lane, &session).await;
    upload(&mut lane, slot);
    assert_eq!(proposed(&mut lane, ms(1)), [(4, 3, 2)]);
}

#[tokio::test]
async fn a_slot_that_came_too_early_is_proposed_again_behind_the_one_it_stands_on() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    for number in 1..=2 {
        let (slot, _answer) = open(&mut lane, &session).await;
        upload(&mut lane, slot);
        assert_eq!(proposed(&mut lane, ms(0)).len(), 1, "slot {number}");
    }
    assert!(matches!(lane.answered(sequence(2), Ok(Outcome::NotYet), ms(1)), Decided::Open));
    assert_eq!(proposed(&mut lane, ms(1)), [], "the first one is still on its way");
    assert!(matches!(lane.answered(sequence(1), lost(), ms(2)), Decided::Open));
    assert_eq!(proposed(&mut lane, ms(2)), [], "it rests");
    assert_eq!(proposed(&mut lane, ms(100)), [(1, 0, 1), (2, 1, 1)]);
}

#[tokio::test]
async fn a_slot_that_rests_behind_one_on_its_way_is_not_woken_for_until_that_one_is_answered() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    let (first, _first) = open(&mut lane, &session).await;
    upload(&mut lane, first);
    assert_eq!(proposed(&mut lane, ms(0)), [(1, 0, 1)]);
    let (second, _second) = open(&mut lane, &session).await;
    upload(&mut lane, second);
    assert_eq!(proposed(&mut lane, ms(0)), [(2, 1, 1)]);
    assert!(matches!(lane.answered(second, lost(), ms(1)), Decided::Open));
    assert_eq!(proposed(&mut lane, ms(100)), [], "the first one is still on its way");
    assert_eq!(lane.next_wake(), Some(DEADLINE), "nothing is due before");
    assert!(matches!(lane.answered(first, lost(), ms(100)), Decided::Open));
    assert_eq!(lane.next_wake(), Some(ms(120)));
    assert_eq!(proposed(&mut lane, ms(120)), [(1, 0, 1), (2, 1, 1)]);
}

#[tokio::test]
async fn a_failed_slot_is_skipped_and_lies_below_the_next_lo() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    let (first, _first) = open(&mut lane, &session).await;
    let (second, mut answer) = open(&mut lane, &Session::new(2, 0)).await;
    upload(&mut lane, second);
    for waiter in lane.upload_failed(first) {
        waiter.not_stored(Obstacle::Store);
    }
    assert!(answer.try_recv().is_err(), "another session is not concerned");
    assert_eq!(proposed(&mut lane, ms(0)), [(2, 0, 2)]);
    assert!(matches!(lane.answered(second, committed(), ms(1)), Decided::Settled(_)));
    assert_eq!(lane.idle_lo(ms(1)).map(|slot| slot.sequence), Some(sequence(3)));
    lane.lo_proposed();
    assert_eq!(lane.idle_lo(ms(1)), None);
}

#[tokio::test]
async fn a_slot_that_may_be_in_the_log_is_proposed_until_it_is_decided() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    let (slot, _answer) = open(&mut lane, &session).await;
    upload(&mut lane, slot);
    assert_eq!(proposed(&mut lane, ms(0)).len(), 1);
    assert!(matches!(lane.answered(slot, lost(), ms(0)), Decided::Open));
    let expired = lane.expire(DEADLINE);
    assert_eq!((expired.unknown.len(), expired.not_stored.len()), (1, 0));
    assert!(lane.is_settled());
    assert_eq!(proposed(&mut lane, DEADLINE), [(1, 0, 1)]);
    assert!(matches!(lane.answered(slot, committed(), DEADLINE), Decided::Settled(_)));
    assert_eq!(lane.undecided(), 0);
}

#[tokio::test]
async fn a_slot_that_the_log_never_took_did_not_happen_and_takes_those_behind_it_along() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    for _ in 0..2 {
        let (slot, _answer) = open(&mut lane, &session).await;
        upload(&mut lane, slot);
    }
    assert_eq!(proposed(&mut lane, ms(0)).len(), 2);
    for slot in [1, 2] {
        assert!(matches!(lane.answered(sequence(slot), refused(), ms(0)), Decided::Open));
    }
    let expired = lane.expire(DEADLINE);
    assert_eq!((expired.unknown.len(), expired.not_stored.len()), (0, 2));
    assert_eq!(lane.undecided(), 0);
    // While a later slot may be in the log, nothing before it can be said not to have happened.
    let mut other = Lane::new(NodeId::new(1), Incarnation::new(2));
    for _ in 0..2 {
        let (slot, _answer) = open(&mut other, &session).await;
        upload(&mut other, slot);
    }
    assert_eq!(proposed(&mut other, ms(0)).len(), 2);
    assert!(matches!(other.answered(sequence(1), refused(), ms(0)), Decided::Open));
    assert!(matches!(other.answered(sequence(2), lost(), ms(0)), Decided::Open));
    let expired = other.expire(DEADLINE);
    assert_eq!((expired.unknown.len(), expired.not_stored.len()), (2, 0));
}

#[tokio::test]
async fn a_closed_incarnation_splits_what_was_proposed_from_what_was_not() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    let (slot, _first) = open(&mut lane, &session).await;
    upload(&mut lane, slot);
    assert_eq!(proposed(&mut lane, ms(0)).len(), 1);
    let (_, _second) = open(&mut lane, &session).await;
    let closed = Ok(Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current: None }));
    assert!(matches!(lane.answered(slot, closed, ms(0)), Decided::Closed));
    let abandoned = lane.abandon();
    assert_eq!((abandoned.unknown.len(), abandoned.not_stored.len()), (1, 1));
}

#[tokio::test]
async fn what_is_too_much_for_one_proposal_is_proposed_once_that_is_answered() {
    let (mut lane, session) = (lane(), Session::new(1, 0));
    lane.rows_at_once = 2;
    let mut answers = Vec::new();
    for _ in 1..=5 {
        answers.push(open(&mut lane, &session).await);
    }
    (1..=4).for_each(|slot| upload(&mut lane, sequence(slot)));
    assert_eq!(proposed(&mut lane, ms(0)), [(1, 0, 1), (2, 1, 1)]);
    // Pipelined behind it.
    assert_eq!(proposed(&mut lane, ms(0)), [(3, 2, 1), (4, 3, 1)]);
    for slot in 1..=4 {
        let _open = lane.answered(sequence(slot), lost(), ms(0));
    }
    // It carries the same when nobody waits for it any more.
    assert_eq!(lane.expire(Duration::MAX).unknown.len(), 4);
    upload(&mut lane, sequence(5));
    assert_eq!(proposed(&mut lane, ms(100)), [(1, 0, 1), (2, 1, 1)], "not all that rested at once");
    assert_eq!(proposed(&mut lane, ms(100)), []);
    for slot in [1, 2] {
        let _settled = lane.answered(sequence(slot), committed(), ms(100));
    }
    assert_eq!(proposed(&mut lane, ms(100)), [(3, 2, 3), (4, 3, 3)]);
    lane.rows_at_once = 0;
    for slot in [3, 4] {
        let _settled = lane.answered(sequence(slot), committed(), ms(100));
    }
    assert_eq!(proposed(&mut lane, ms(100)), [(5, 4, 5)], "one goes however large it is");
}

#[tokio::test]
async fn a_flush_takes_no_more_batches_than_go_into_a_proposal() {
    let session = Session::new(1, 0);
    let mut buffer = Buffer::default();
    for _ in 0..5 {
        let (entry, _answer) = entry(&session, 0).await;
        buffer.push(entry);
    }
    let taken: Vec<usize> = (0..4).map(|_| buffer.take(u64::MAX, 2).len()).collect();
    assert_eq!(taken, [2, 2, 1, 0]);
}
