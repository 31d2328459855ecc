use streamhouse_types::{Attempt, Incarnation, Slot, SlotSequence};

use super::*;

fn layout() -> Layout {
    Layout::new(ClusterId::from_bytes([7; 16]))
}

fn object(lane: Lane) -> ObjectId {
    let slot = Slot {
        node: NodeId::new(3),
        incarnation: Incarnation::new(7),
        lane,
        sequence: SlotSequence::new(42),
    };
    ObjectId { slot, attempt: Attempt::new(1) }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

#[test]
fn the_keys_are_those_that_older_versions_wrote() {
    let layout = layout();
    let cluster = "07070707-0707-0707-0707-070707070707";
    assert_eq!(layout.marker_key().as_str(), format!("{cluster}/cluster.json"));
    let wal = layout.wal_key(&object(Lane::Wal));
    assert_eq!(wal.as_str(), format!("{cluster}/wal/3-7-wal-0000000000000042-1.wal"));
    let snapshot = layout.snapshot_key(LogIndex::new(9), NodeId::new(3));
    assert_eq!(snapshot.as_str(), format!("{cluster}/meta/snapshots/00000000000000000009-3.snap"));
}

#[test]
fn a_key_says_what_it_names() {
    let layout = layout();
    let snapshot = Named::Snapshot { index: LogIndex::new(9), node: NodeId::new(3) };
    for named in [Named::Marker, Named::Wal(object(Lane::Wal)), snapshot] {
        let key = layout.build(named).unwrap();
        assert_eq!(layout.parse(&key), Some(named));
        assert_eq!(key.as_str().parse::<Key>().unwrap(), key);
        assert_eq!(cluster_of(&key), Some(layout.cluster()));
    }
}

#[test]
fn a_key_of_another_cluster_or_form_is_not_taken_for_ours() {
    let other = Layout::new(ClusterId::from_bytes([8; 16]));
    assert_eq!(layout().parse(&other.wal_key(&object(Lane::Wal))), None);
    let cluster = layout().cluster();
    for rest in [
        "wal/3-7-merge-0000000000000042-1.wal",
        "wal/3-7-wal-42-1.wal",
        "wal/3-7-wal-0000000000000042-1",
        "meta/snapshots/9-3.snap",
        "wal/deep/3-7-wal-0000000000000042-1.wal",
        "cluster.json/x",
    ] {
        assert_eq!(layout().parse(&key(&format!("{cluster}/{rest}"))), None, "{rest}");
    }
}

#[test]
fn a_key_cannot_leave_the_folder_of_the_store() {
    for text in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a/.tmp", "a b", "a\\b", "ä", "a\0"] {
        assert!(text.parse::<Key>().is_err(), "{text:?}");
    }
    assert!("a".repeat(KEY_BYTES_MAX + 1).parse::<Key>().is_err());
}

#[test]
fn the_bound_past_a_cluster_lies_between_it_and_the_next() {
    let bound = past_cluster(layout().cluster());
    assert!(layout().wal_key(&object(Lane::Wal)).as_str() < bound.as_str());
    let mut next = [7; 16];
    next[15] = 8;
    assert!(Layout::new(ClusterId::from_bytes(next)).marker_key().as_str() > bound.as_str());
}
