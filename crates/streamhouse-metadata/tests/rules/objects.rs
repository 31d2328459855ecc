//! References, the garbage list and orphans: nothing in use is deleted, and everything else is.

use streamhouse_metadata::{Command, CommitObject, ForgetObjects, Outcome};
use streamhouse_types::{Attempt, Incarnation, NodeId, ObjectId, SlotSequence, TopicId};

use crate::world::{NOW, World, commit, create, object, p, register, row, slot, time, unit};

fn forget(world: &mut World, objects: &[ObjectId]) {
    world.done(Command::ForgetObjects(ForgetObjects { objects: objects.to_vec() }));
}

fn delete_topic(world: &mut World, topic: u64) {
    let topic = TopicId::new(topic);
    world.done(Command::DeleteTopic { request: [0; 16], topic, validate_only: false });
}

#[test]
fn an_object_of_which_nothing_was_accepted_is_garbage_at_once() {
    let mut world = World::new();
    let applied = world.apply(Command::CommitObject(commit(1, [unit([row(p(9), 1)])])));
    assert!(applied.changes.garbage_added);
    assert!(world.state.object(&object(1, 0)).is_none());
    let (id, entry) = world.state.garbage().next().unwrap();
    assert_eq!(id, object(1, 0));
    assert_eq!((entry.died, entry.died_at), (world.state.applied(), time(NOW)));
    assert!(!world.state.is_orphan(&id));
}

#[test]
fn an_object_dies_with_its_last_extent_and_not_before() {
    let mut world = World::new();
    world.commit(commit(1, [unit([row(p(0), 10)]), unit([row(p(1), 10)])]));
    world.commit(commit(2, [unit([row(p(0), 10)])]));
    assert_eq!(world.trim(0, 9), 9);
    assert_eq!(world.layout(0), [(0, 10, 1), (10, 20, 2)], "the extent is still needed for record 9");
    assert_eq!(world.trim(0, 10), 10);
    assert_eq!(world.layout(0), [(10, 20, 2)]);
    assert_eq!(world.garbage(), [] as [u64; 0], "partition 1 still needs it");
    world.done(Command::Tick { now: time(NOW + 77) });
    assert_eq!(world.trim(1, 10), 10);
    assert_eq!(world.garbage(), [1]);
    let (_, entry) = world.state.garbage().next().unwrap();
    assert_eq!((entry.died, entry.died_at), (world.state.applied(), time(NOW + 77)));
}

#[test]
fn a_log_start_stops_at_the_high_watermark_and_never_goes_back() {
    let mut world = World::new();
    assert_eq!(world.trim(0, 5), 0);
    world.append(1, row(p(0), 10));
    assert_eq!(world.trim(0, 4), 4);
    assert_eq!(world.trim(0, 3), 4);
    assert_eq!(world.trim(0, u64::MAX), 10);
    assert_eq!(world.layout(0), []);
    assert_eq!(world.partition(0).stored_bytes(), 0);
    world.append(2, row(p(0), 10));
    assert_eq!(world.layout(0), [(10, 20, 2)]);
    assert_eq!(world.trim(0, 4), 10);
}

#[test]
fn only_a_moved_log_start_is_told() {
    let mut world = World::new();
    world.append(1, row(p(0), 10));
    let trim = |before| {
        let before = streamhouse_types::Offset::new(before);
        Command::TrimPartition(streamhouse_metadata::TrimPartition { partition: p(0), before })
    };
    assert_eq!(world.apply(trim(5)).changes.trimmed, [p(0)]);
    assert_eq!(world.apply(trim(5)).changes.trimmed, []);
}

#[test]
fn a_deleted_topic_leaves_the_objects_that_others_need() {
    let mut world = World::new();
    world.outcome(Command::CreateTopic(create("other", 1)));
    let other = streamhouse_types::PartitionId::new(TopicId::new(2), Default::default());
    world.commit(commit(1, [unit([row(p(0), 1)]), unit([row(other, 1)])]));
    world.commit(commit(2, [unit([row(p(0), 1)]), unit([row(p(1), 1)])]));
    delete_topic(&mut world, 1);
    assert_eq!(world.garbage(), [2]);
    assert_eq!(world.state.object(&object(1, 0)).unwrap().extents, 1);
    delete_topic(&mut world, 2);
    assert_eq!(world.garbage(), [1, 2]);
}

#[test]
fn forgetting_concerns_the_garbage_list_alone() {
    let mut world = World::new();
    world.append(1, row(p(0), 1));
    world.append(2, row(p(9), 1));
    forget(&mut world, &[object(1, 0), object(2, 1), object(7, 0)]);
    assert!(world.state.object(&object(1, 0)).is_some());
    assert_eq!(world.garbage(), [2]);
    forget(&mut world, &[object(2, 0)]);
    assert_eq!(world.garbage(), [] as [u64; 0]);
}

#[test]
fn what_may_still_be_committed_is_no_orphan() {
    let mut world = World::new();
    let of = |node, incarnation| ObjectId { slot: slot(node, incarnation, 1), attempt: Attempt::new(0) };
    assert!(!world.state.is_orphan(&of(1, 1)));
    assert!(!world.state.is_orphan(&of(1, 2)), "a later incarnation that this replica has not seen");
    assert!(!world.state.is_orphan(&of(2, 1)), "a node that this replica has not seen");
    world.apply(Command::RegisterNode(register(1, 2)));
    assert!(world.state.is_orphan(&of(1, 1)));
    assert!(!world.state.is_orphan(&of(1, 2)));
}

#[test]
fn what_can_never_be_committed_is_an_orphan() {
    let mut world = World::new();
    let skipping = CommitObject { prev: SlotSequence::new(0), lo: SlotSequence::new(3), ..commit(3, []) };
    world.commit(skipping);
    assert!(world.state.is_orphan(&object(1, 0)), "its slot lies below lo");
    assert!(!world.state.is_orphan(&object(3, 0)), "it is garbage");
    assert!(world.state.is_orphan(&object(3, 1)), "it lost its slot");
    assert!(!world.state.is_orphan(&object(4, 0)));
    world.done(Command::CloseIncarnation { node: NodeId::new(1), incarnation: Incarnation::new(1) });
    assert!(world.state.is_orphan(&object(4, 0)), "its incarnation is closed");
    assert!(!world.state.is_orphan(&object(3, 0)), "it is garbage");
}

#[test]
fn what_is_in_use_is_never_an_orphan() {
    let mut world = World::new();
    world.append(1, row(p(0), 1));
    world.done(Command::AdvanceLo { slot: slot(1, 1, 9) });
    assert!(!world.state.is_orphan(&object(1, 0)));
    world.apply(Command::RegisterNode(register(1, 2)));
    assert!(!world.state.is_orphan(&object(1, 0)));
    world.trim(0, 1);
    assert!(!world.state.is_orphan(&object(1, 0)), "it is garbage, with its grace and pins");
    forget(&mut world, &[object(1, 0)]);
    assert!(world.state.is_orphan(&object(1, 0)), "should it ever show up again");
}

#[test]
fn many_objects_are_found_by_name_and_listed_in_order() {
    let mut world = World::new();
    for sequence in 1..=1_100 {
        let mut next = commit(sequence, [unit([row(p(0), 1)])]);
        next.lo = SlotSequence::new(sequence);
        assert!(matches!(
            world
                .state
                .apply(streamhouse_types::LogIndex::new(sequence + 100), &Command::CommitObject(next))
                .outcome,
            Outcome::Committed { .. }
        ));
    }
    assert!(world.state.objects().map(|(id, _)| id.slot.sequence.get()).eq(1..=1_100));
    assert_eq!(world.state.object(&object(777, 0)).unwrap().extents, 1);
    assert_eq!(streamhouse_metadata::invariants::check(&world.state), Ok(()));
}
