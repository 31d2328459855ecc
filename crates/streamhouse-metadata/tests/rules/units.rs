//! Units: judged in order, each wholly or not at all; offsets, preconditions, epochs.

use streamhouse_metadata::{Command, CommitObject, Extent, Row, Unit, UnitRefusal, Verdict};
use streamhouse_types::{Incarnation, NodeId, Offset, PartitionId};

use crate::world::{
    OBJECT_BYTES, World, bases, commit, next_is, object, offset, p, register, row, time, unit,
};

#[test]
fn offsets_are_given_in_the_order_of_units_and_rows() {
    let mut world = World::new();
    let units = [unit([row(p(0), 3)]), unit([row(p(1), 1), row(p(0), 4)]), unit([row(p(0), 1)])];
    let verdicts = world.commit(commit(1, units));
    let found: Vec<_> = verdicts.iter().map(bases).collect();
    assert_eq!(found, [vec![0], vec![0, 3], vec![7]]);
    assert_eq!(world.partition(0).high_watermark(), offset(8));
    assert_eq!(world.partition(1).high_watermark(), offset(1));
}

#[test]
fn neighbouring_rows_of_an_object_become_one_extent() {
    let mut world = World::new();
    let units = [unit([row(p(0), 3)]), unit([row(p(0), 4)]), unit([row(p(1), 1)]), unit([row(p(0), 2)])];
    world.commit(commit(1, units));
    assert_eq!(world.layout(0), [(0, 7, 1), (7, 9, 1)]);
    let first = world.extents(0)[0];
    assert_eq!((first.position, first.length, first.batches), (64, 700, 2));
    assert_eq!(world.state.object(&object(1, 0)).unwrap().extents, 3);
    world.append(2, row(p(0), 1));
    assert_eq!(world.layout(0), [(0, 7, 1), (7, 9, 1), (9, 10, 2)]);
}

#[test]
fn a_refused_unit_leaves_a_hole_in_its_object() {
    let mut world = World::new();
    let refused = Unit { preconditions: vec![next_is(p(0), 99)], rows: vec![row(p(0), 5)] };
    let verdicts = world.commit(commit(1, [unit([row(p(0), 3)]), refused, unit([row(p(0), 4)])]));
    let actual = UnitRefusal::PreconditionFailed { actual: offset(3) };
    assert_eq!(verdicts[1], Verdict::Refused(actual));
    assert_eq!(bases(&verdicts[2]), [3]);
    assert_eq!(world.layout(0), [(0, 3, 1), (3, 7, 1)]);
    let positions: Vec<_> = world.extents(0).iter().map(|extent| extent.position).collect();
    assert_eq!(positions, [64, 64 + 300 + 500]);
}

#[test]
fn a_unit_of_many_rows_is_appended_wholly_or_not_at_all() {
    let mut world = World::new();
    let torn = unit([row(p(0), 1), row(p(1), 1), row(p(9), 1)]);
    let verdicts = world.commit(commit(1, [torn, unit([row(p(1), 2)])]));
    assert_eq!(verdicts[0], Verdict::Refused(UnitRefusal::UnknownPartition));
    assert_eq!(bases(&verdicts[1]), [0]);
    assert_eq!(world.partition(0).high_watermark(), Offset::ZERO);
}

#[test]
fn a_precondition_holds_against_what_earlier_units_of_the_object_did() {
    let mut world = World::new();
    let conditional = |next| Unit { preconditions: vec![next_is(p(0), next)], rows: vec![row(p(0), 2)] };
    let verdicts = world.commit(commit(1, [conditional(0), conditional(0), conditional(2)]));
    assert_eq!(bases(&verdicts[0]), [0]);
    let actual = UnitRefusal::PreconditionFailed { actual: offset(2) };
    assert_eq!(verdicts[1], Verdict::Refused(actual));
    assert_eq!(bases(&verdicts[2]), [2]);
}

#[test]
fn a_precondition_may_concern_a_partition_that_is_not_written() {
    let mut world = World::new();
    let on = |partition: PartitionId, next| Unit {
        preconditions: vec![next_is(partition, next)],
        rows: vec![row(p(0), 1)],
    };
    let verdicts = world.commit(commit(1, [on(p(1), 0), on(p(1), 1), on(p(9), 0)]));
    assert_eq!(bases(&verdicts[0]), [0]);
    assert_eq!(verdicts[1], Verdict::Refused(UnitRefusal::PreconditionFailed { actual: offset(0) }));
    assert_eq!(verdicts[2], Verdict::Refused(UnitRefusal::UnknownPartition));
}

#[track_caller]
fn check_malformed(change: impl Fn(&mut Row)) {
    let mut world = World::new();
    let mut bad = commit(1, [unit([row(p(0), 2)]), unit([row(p(1), 2)])]);
    change(&mut bad.units[0].rows[0]);
    let verdicts = world.commit(bad);
    assert_eq!(verdicts[0], Verdict::Refused(UnitRefusal::Malformed));
    assert_eq!(bases(&verdicts[1]), [0], "its neighbour");
}

#[test]
fn a_row_that_describes_no_batches_is_refused_and_its_neighbours_are_not() {
    check_malformed(|row| row.records = 0);
    check_malformed(|row| row.batches = 0);
    check_malformed(|row| row.batches = 3);
    check_malformed(|row| row.length = 0);
    check_malformed(|row| row.position = OBJECT_BYTES);
    check_malformed(|row| row.position = OBJECT_BYTES - 199);
    check_malformed(|row| row.position = u64::MAX);
}

#[test]
fn a_row_may_end_where_its_object_ends() {
    let mut world = World::new();
    let mut last = commit(1, [unit([row(p(0), 2)])]);
    last.units[0].rows[0].position = OBJECT_BYTES - 200;
    assert_eq!(bases(&world.commit(last)[0]), [0]);
}

#[test]
fn an_append_time_is_clamped_between_the_partitions_last_and_five_seconds_ahead() {
    let mut world = World::new();
    let mut at = |sequence, millis| {
        let commit = CommitObject { append_time: time(millis), ..commit(sequence, [unit([row(p(0), 1)])]) };
        world.commit(commit);
        world.extents(0).last().map(|extent: &Extent| extent.append_time.as_millis()).unwrap()
    };
    assert_eq!(at(1, 999_000), 999_000);
    assert_eq!(at(2, 998_000), 999_000);
    assert_eq!(at(3, 1_005_000), 1_005_000);
    assert_eq!(at(4, i64::MAX), 1_005_000);
    assert_eq!(at(5, i64::MIN), 1_005_000);
    world.done(Command::Tick { now: time(1_000_001) });
    let commit = CommitObject { append_time: time(i64::MAX), ..commit(6, [unit([row(p(0), 1)])]) };
    world.commit(commit);
    assert_eq!(world.partition(0).last_append(), time(1_005_001));
}

#[test]
fn a_time_before_1970_becomes_1970() {
    let mut world = World::new();
    world.commit(CommitObject { append_time: time(-5), ..commit(1, [unit([row(p(0), 1)])]) });
    assert_eq!(world.extents(0)[0].append_time, time(0));
}

/// Moves the home of partition 0 to and fro `times` times, node 2 first.
fn move_home(world: &mut World, times: u64) {
    for _ in 0..times {
        let now = world.partition(0).home();
        let home = NodeId::new(3 - now.get());
        let command = Command::MoveHome { partition: p(0), home, incarnation: Incarnation::new(1) };
        world.done(command);
    }
}

#[test]
fn the_first_batch_under_a_new_epoch_adds_a_row_to_the_epoch_table() {
    let mut world = World::new();
    world.apply(Command::RegisterNode(register(2, 2)));
    let epochs = |world: &World| -> Vec<_> {
        world.partition(0).epochs().iter().map(|row| (row.epoch.get(), row.start.get())).collect()
    };
    assert_eq!(epochs(&world), []);
    world.append(1, row(p(0), 10));
    world.append(2, row(p(0), 10));
    assert_eq!(epochs(&world), [(0, 0)]);
    move_home(&mut world, 3);
    assert_eq!(epochs(&world), [(0, 0)], "an epoch without a batch has no row");
    world.append(3, row(p(0), 10));
    move_home(&mut world, 1);
    world.append(4, row(p(0), 10));
    assert_eq!(epochs(&world), [(0, 0), (3, 20), (4, 30)]);
    let extents: Vec<_> = world.extents(0).iter().map(|extent| extent.epoch.get()).collect();
    assert_eq!(extents, [0, 0, 3, 4]);
    world.trim(0, 29);
    assert_eq!(epochs(&world), [(3, 20), (4, 30)], "29 was appended under epoch 3");
    world.trim(0, 40);
    assert_eq!(epochs(&world), [(4, 30)]);
}

#[test]
fn an_epoch_fences_no_write() {
    let mut world = World::new();
    world.apply(Command::RegisterNode(register(2, 2)));
    move_home(&mut world, 1);
    assert_eq!(bases(&world.append(1, row(p(0), 1))), [0], "node 1 is not the home");
}
