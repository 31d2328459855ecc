use streamhouse_types::{Attempt, Incarnation, Lane, NodeId, Slot, SlotSequence};

use super::*;

fn object(sequence: u64) -> ObjectId {
    ObjectId {
        slot: Slot {
            node: NodeId::new(1),
            incarnation: Incarnation::new(1),
            lane: Lane::Wal,
            sequence: SlotSequence::new(sequence),
        },
        attempt: Attempt::new(0),
    }
}

/// The extent of `base..base + 10` at its own place in an object of its own.
fn extent(base: u64) -> Extent {
    Extent {
        base: Offset::new(base),
        end: Offset::new(base + 10),
        object: object(base),
        position: 100,
        length: 1_000,
        batches: 1,
        max_timestamp: Timestamp::from_millis(5),
        append_time: Timestamp::from_millis(7),
        epoch: Epoch::new(0),
    }
}

fn filled(count: u64) -> Extents {
    let mut extents = Extents::default();
    for i in 0..count {
        assert_eq!(extents.append(extent(i * 10)), 1);
    }
    extents
}

#[track_caller]
fn check_lookup(extents: &Extents, offset: u64, first_base: Option<u64>) {
    let found = extents.at_or_after(Offset::new(offset)).next().map(|extent| extent.base.get());
    assert_eq!(found, first_base, "looking up {offset}");
}

#[test]
fn every_offset_is_found_in_its_extent_across_chunks() {
    let extents = filled(1_000);
    assert_eq!(extents.count(), 1_000);
    for offset in 0..10_000 {
        check_lookup(&extents, offset, Some(offset / 10 * 10));
    }
    check_lookup(&extents, 10_000, None);
    check_lookup(&extents, u64::MAX, None);
    check_lookup(&Extents::default(), 0, None);
}

#[test]
fn dropping_hands_out_exactly_the_extents_that_end_before() {
    for before in [0, 9, 10, 11, 2_559, 2_560, 2_561, 5_125, 9_999, 10_000, 20_000] {
        let mut extents = filled(1_000);
        let mut dropped = Vec::new();
        extents.drop_before(Offset::new(before), |extent| dropped.push(extent.base.get()));
        let expected: Vec<u64> = (0..1_000).map(|i| i * 10).filter(|base| base + 10 <= before).collect();
        assert_eq!(dropped, expected, "before {before}");
        assert_eq!(extents.count(), 1_000 - expected.len());
        check_lookup(&extents, 0, (before < 10_000).then_some(before / 10 * 10));
    }
}

#[test]
fn what_is_left_after_a_trim_equals_a_fresh_list_of_the_same_extents() {
    let mut trimmed = filled(600);
    trimmed.drop_before(Offset::new(3_000), |_| ());
    let mut fresh = Extents::default();
    for i in 300..600 {
        fresh.append(extent(i * 10));
    }
    assert_eq!(trimmed, fresh);
    let bytes = postcard::to_stdvec(&trimmed).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(&fresh).unwrap());
    assert_eq!(postcard::from_bytes::<Extents>(&bytes).unwrap(), fresh);
}

#[test]
fn a_snapshot_keeps_what_it_saw() {
    let mut extents = filled(300);
    let snapshot = extents.clone();
    extents.append(extent(3_000));
    extents.drop_before(Offset::new(1_005), |_| ());
    assert_eq!(snapshot, filled(300));
}

#[test]
fn neighbours_in_an_object_become_one_extent() {
    let mut extents = filled(1);
    let next =
        Extent { base: Offset::new(10), end: Offset::new(15), position: 1_100, length: 7, ..extent(0) };
    let next = Extent { max_timestamp: Timestamp::from_millis(6), batches: 3, ..next };
    assert_eq!(extents.append(next), 0);
    let joined: Vec<Extent> = extents.iter().collect();
    let expected = Extent {
        end: Offset::new(15),
        length: 1_007,
        batches: 4,
        max_timestamp: Timestamp::from_millis(6),
        ..extent(0)
    };
    assert_eq!(joined, [expected]);
}

#[track_caller]
fn check_kept_apart(next: Extent) {
    let mut extents = filled(1);
    assert_eq!(extents.append(next), 1, "{next:?}");
}

#[test]
fn extents_that_differ_in_place_epoch_or_time_stay_apart() {
    let next = Extent { base: Offset::new(10), end: Offset::new(15), position: 1_100, ..extent(0) };
    check_kept_apart(Extent { position: 1_101, ..next });
    check_kept_apart(Extent { object: object(99), ..next });
    check_kept_apart(Extent { epoch: Epoch::new(1), ..next });
    check_kept_apart(Extent { append_time: Timestamp::from_millis(8), ..next });
    check_kept_apart(Extent { length: u32::MAX, ..next });
}
