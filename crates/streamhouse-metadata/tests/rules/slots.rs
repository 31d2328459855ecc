//! Slots, attempts, `prev` and `lo`: an object is decided once.

use streamhouse_metadata::{Command, CommitObject, Outcome, SlotRefusal, Verdict};
use streamhouse_types::{Attempt, Incarnation, Lane, NodeId, Slot, SlotSequence};

use crate::world::{World, bases, commit, object, p, register, row, slot, unit};

/// A commit of one row of ten records to partition 0.
fn ten(sequence: u64) -> CommitObject {
    commit(sequence, [unit([row(p(0), 10)])])
}

fn with_prev(sequence: u64, prev: u64) -> CommitObject {
    CommitObject { prev: SlotSequence::new(prev), ..ten(sequence) }
}

fn with_lo(sequence: u64, lo: u64) -> CommitObject {
    CommitObject { lo: SlotSequence::new(lo), ..ten(sequence) }
}

fn below_lo(lo: u64) -> Outcome {
    Outcome::SlotRefused(SlotRefusal::BelowLo { lo: SlotSequence::new(lo) })
}

fn closed(current: Option<u64>) -> Outcome {
    Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current: current.map(Incarnation::new) })
}

fn lo(world: &World) -> u64 {
    world.state.lane(NodeId::new(1), Incarnation::new(1), Lane::Wal).unwrap().lo().get()
}

#[test]
fn a_repeated_proposal_gets_its_first_answer() {
    let mut world = World::new();
    let first = world.outcome(Command::CommitObject(ten(1)));
    world.commit(ten(2));
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(1))), first);
    assert_eq!(world.partition(0).high_watermark().get(), 20);
}

#[test]
fn a_repeated_proposal_gets_its_first_answer_even_where_it_would_now_get_another() {
    let mut world = World::new();
    let refused = commit(1, [unit([row(p(9), 1)])]);
    let first = world.outcome(Command::CommitObject(refused.clone()));
    let topic = streamhouse_types::TopicId::new(1);
    world.done(Command::AddPartitions { request: [9; 16], topic, total: 10, validate_only: false });
    assert_eq!(world.changes_nothing(Command::CommitObject(refused)), first);
    assert_eq!(world.partition(9).high_watermark().get(), 0);
}

#[test]
fn another_attempt_at_a_decided_slot_learns_which_attempt_won_and_is_an_orphan() {
    let mut world = World::new();
    assert!(!world.state.is_orphan(&object(1, 0)), "it may still win");
    assert!(!world.state.is_orphan(&object(1, 1)), "it may still win");
    let winner = CommitObject { attempt: Attempt::new(1), ..ten(1) };
    let first = world.outcome(Command::CommitObject(winner));
    assert!(matches!(first, Outcome::Committed { attempt, .. } if attempt == Attempt::new(1)));
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(1))), first);
    assert!(world.state.object(&object(1, 1)).is_some());
    assert!(world.state.object(&object(1, 0)).is_none());
    assert!(world.state.is_orphan(&object(1, 0)));
    assert!(!world.state.is_orphan(&object(1, 1)));
}

#[test]
fn a_slot_waits_until_the_one_proposed_before_it_is_decided() {
    let mut world = World::new();
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(2))), Outcome::NotYet);
    assert_eq!(world.changes_nothing(Command::CommitObject(with_lo(2, 1))), Outcome::NotYet);
    world.commit(ten(1));
    assert_eq!(bases(&world.commit(ten(2))[0]), [10]);
}

#[test]
fn waiting_moves_no_lo() {
    let mut world = World::new();
    let waiting = CommitObject { prev: SlotSequence::new(4), lo: SlotSequence::new(3), ..ten(5) };
    assert_eq!(world.changes_nothing(Command::CommitObject(waiting)), Outcome::NotYet);
    assert_eq!(lo(&world), 1);
}

#[test]
fn a_slot_that_failed_is_skipped_by_naming_the_one_before_it() {
    let mut world = World::new();
    world.commit(ten(1));
    assert_eq!(bases(&world.commit(with_prev(3, 1))[0]), [10]);
    assert_eq!(bases(&world.commit(with_prev(4, 3))[0]), [20]);
}

#[test]
fn a_slot_whose_units_were_all_refused_is_decided() {
    let mut world = World::new();
    world.commit(commit(1, [unit([row(p(9), 1)])]));
    assert_eq!(bases(&world.commit(ten(2))[0]), [0]);
}

#[test]
fn a_slot_below_lo_is_refused_for_ever() {
    let mut world = World::new();
    world.commit(with_lo(3, 3));
    assert_eq!(lo(&world), 3);
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(2))), below_lo(3));
    assert_eq!(world.changes_nothing(Command::CommitObject(with_lo(2, 1))), below_lo(3));
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(0))), below_lo(3));
    world.commit(with_lo(4, 1));
    assert_eq!(lo(&world), 3, "lo went back");
}

#[test]
fn slot_0_stands_for_none_and_can_not_be_committed() {
    let mut world = World::new();
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(0))), below_lo(1));
}

#[test]
fn a_proposal_that_gives_itself_up_is_refused_and_changes_nothing() {
    let mut world = World::new();
    assert_eq!(world.changes_nothing(Command::CommitObject(with_lo(2, 3))), below_lo(3));
    assert_eq!(lo(&world), 1);
}

#[test]
fn a_slot_that_the_proposal_itself_gives_up_counts_as_decided() {
    let mut world = World::new();
    world.commit(ten(1));
    let after_a_lost_one = CommitObject { prev: SlotSequence::new(2), lo: SlotSequence::new(3), ..ten(3) };
    assert_eq!(bases(&world.commit(after_a_lost_one)[0]), [10]);
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(2))), below_lo(3));
}

#[test]
fn a_repeated_proposal_moves_lo_on() {
    let mut world = World::new();
    world.commit(ten(1));
    let first = world.outcome(Command::CommitObject(ten(2)));
    assert_eq!(world.outcome(Command::CommitObject(with_lo(2, 2))), first);
    assert_eq!(lo(&world), 2);
    assert_eq!(world.outcome(Command::CommitObject(ten(1))), below_lo(2));
}

#[test]
fn each_lane_has_its_own_slots_and_lo() {
    let mut world = World::new();
    world.commit(with_lo(5, 5));
    let merge = Slot { lane: Lane::Merge, ..slot(1, 1, 1) };
    let merged = CommitObject { slot: merge, ..ten(1) };
    assert_eq!(bases(&world.commit(merged)[0]), [10]);
    assert_eq!(lo(&world), 5);
}

#[test]
fn an_incarnation_is_closed_by_the_next_and_then_commits_nothing() {
    let mut world = World::new();
    world.commit(ten(1));
    world.apply(Command::RegisterNode(register(1, 2)));
    for sequence in [1, 2] {
        assert_eq!(world.changes_nothing(Command::CommitObject(ten(sequence))), closed(Some(2)));
    }
    let next = CommitObject { slot: slot(1, 2, 1), ..ten(1) };
    assert_eq!(bases(&world.commit(next)[0]), [10]);
}

#[test]
fn a_closed_incarnation_commits_nothing() {
    let mut world = World::new();
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    world.done(Command::CloseIncarnation { node, incarnation });
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(1))), closed(None));
    assert_eq!(world.changes_nothing(Command::AdvanceLo { slot: slot(1, 1, 9) }), closed(None));
}

#[test]
fn an_incarnation_that_never_was_commits_nothing() {
    let mut world = World::new();
    let ahead = CommitObject { slot: slot(1, 2, 1), ..ten(1) };
    assert_eq!(world.changes_nothing(Command::CommitObject(ahead)), closed(Some(1)));
    let stranger = CommitObject { slot: slot(2, 1, 1), ..ten(1) };
    assert_eq!(world.changes_nothing(Command::CommitObject(stranger)), closed(None));
}

#[test]
fn an_idle_node_gives_up_its_undecided_slots() {
    let mut world = World::new();
    world.commit(ten(1));
    world.done(Command::AdvanceLo { slot: slot(1, 1, 3) });
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(2))), below_lo(3));
    assert_eq!(world.changes_nothing(Command::AdvanceLo { slot: slot(1, 1, 2) }), Outcome::Done);
    assert_eq!(bases(&world.commit(ten(3))[0]), [10]);
}

#[test]
fn a_node_that_never_moves_its_lo_has_it_moved() {
    let mut world = World::new();
    for sequence in 1..=300 {
        world.commit(commit(sequence, []));
    }
    assert_eq!(lo(&world), 300 - 256 + 1);
    assert_eq!(world.changes_nothing(Command::CommitObject(ten(44))), below_lo(45));
    assert!(matches!(world.outcome(Command::CommitObject(ten(45))), Outcome::Committed { .. }));
}

#[test]
fn the_changes_name_each_partition_once_with_its_newest_high_watermark() {
    let mut world = World::new();
    let units = [unit([row(p(3), 2)]), unit([row(p(1), 1), row(p(3), 5)]), unit([row(p(9), 1)])];
    let applied = world.apply(Command::CommitObject(commit(1, units)));
    let found: Vec<_> =
        applied.changes.appended.iter().map(|(id, high)| (id.index.get(), high.get())).collect();
    assert_eq!(found, [(1, 1), (3, 7)]);
}

#[test]
fn an_empty_object_decides_its_slot() {
    let mut world = World::new();
    assert_eq!(world.commit(commit(1, [])), Vec::<Verdict>::new());
    assert_eq!(world.garbage(), [1]);
    world.commit(ten(2));
}
