use std::collections::BTreeMap;
use std::path::Path;

use openraft::BasicNode;
use streamhouse_env::Env;
use streamhouse_metadata::Command;
use streamhouse_types::{ClusterId, LogIndex, Timestamp};

use super::*;
use crate::types::{Membership, StoredMembership};
use streamhouse_faults::{MemoryFs, Unsynced};

const DIR: &str = "/data/snapshots";

fn file(index: u64) -> SnapshotFile {
    let nodes = BTreeMap::from([(1, BasicNode::new("127.0.0.1:9095"))]);
    let membership = Membership::new(vec![[1].into()], nodes).expect("a voter that is a member");
    let mut state = State::new();
    let now = Timestamp::from_millis(1_000);
    let _ = state.apply(
        LogIndex::new(index),
        &Command::Bootstrap { cluster: ClusterId::from_random_bytes([5; 16]), now },
    );
    let last_membership = StoredMembership::new(Some(log_id(1, 0)), membership);
    SnapshotFile { meta: SnapshotMeta { last_log_id: Some(log_id(2, index)), last_membership }, state }
}

fn open(fs: &MemoryFs, purged: Option<LogId>) -> Result<(SnapshotDir, Option<SnapshotFile>), StartError> {
    SnapshotDir::open(Arc::new(fs.clone()), PathBuf::from(DIR), purged)
}

fn store(dir: &SnapshotDir, index: u64) -> io::Result<()> {
    let file = file(index);
    dir.store(&file.meta, &file.encode()?)
}

fn index_of(file: Option<SnapshotFile>) -> Option<u64> {
    file?.meta.last_log_id.map(|id| id.index())
}

#[test]
fn a_snapshot_reads_back_what_was_written() {
    let written = file(7);
    let bytes = Bytes::from(written.encode().expect("in memory"));
    let read = SnapshotFile::decode(&bytes).expect("valid");
    assert_eq!(read.meta, written.meta);
    assert_eq!(read.state, written.state);
}

#[test]
fn any_flipped_or_missing_byte_is_found() {
    let bytes = file(7).encode().expect("in memory");
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x20;
        assert!(SnapshotFile::decode(&damaged.into()).is_err(), "byte {position}");
        assert!(
            SnapshotFile::decode(&Bytes::copy_from_slice(&bytes[..position])).is_err(),
            "cut at {position}"
        );
    }
}

#[test]
fn the_bytes_of_the_envelope_stay_what_they_are() {
    let bytes = file(0x0102).encode().expect("in memory");
    let expected = [
        &b"SHRAFTSN\x01"[..],
        &[80, 0, 0, 0],
        // The last entry: index 0x102 of term 2.
        &[1, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0],
        // The membership and its entry: index 0 of term 1; one set of voters, node 1; one member.
        &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0],
        b"127.0.0.1:9095",
    ];
    let expected = expected.concat();
    assert_eq!(bytes[..expected.len()], expected);
}

#[test]
fn the_newest_two_stay() {
    let fs = MemoryFs::default();
    let (dir, found) = open(&fs, None).expect("an empty disk");
    assert_eq!(index_of(found), None);
    for index in [5, 9, 100] {
        store(&dir, index).expect("a healthy disk");
    }
    assert_eq!(
        dir.newest().expect("readable").and_then(|found| found.meta.last_log_id),
        Some(log_id(2, 100))
    );
    assert_eq!(fs.content().len(), 2);
    assert_eq!(index_of(open(&fs, Some(log_id(1, 99))).expect("reaches").1), Some(100));
}

#[test]
fn a_damaged_newest_falls_back_only_while_the_log_still_reaches() {
    let fs = MemoryFs::default();
    let (dir, _) = open(&fs, None).expect("an empty disk");
    store(&dir, 5).expect("a healthy disk");
    store(&dir, 9).expect("a healthy disk");
    fs.damage(&Path::new(DIR).join(name_of(log_id(2, 9))), |bytes| bytes[30] ^= 1);
    assert_eq!(index_of(open(&fs, Some(log_id(1, 4))).expect("the older one reaches").1), Some(5));
    let before = fs.content();
    let refused = open(&fs, Some(log_id(1, 7))).map(|_| ()).expect_err("entries 6 and 7 are nowhere");
    assert!(refused.to_string().contains("checksum"), "{refused}");
    assert!(fs.content() == before, "damage is shown, not cleaned up");
}

#[test]
fn a_power_cut_at_any_change_leaves_the_old_snapshot_or_the_new_one() {
    let whole = MemoryFs::default();
    let (dir, _) = open(&whole, None).expect("an empty disk");
    [5, 9, 12].into_iter().for_each(|index| store(&dir, index).expect("a healthy disk"));
    for changes in 0..=whole.changes() {
        for unsynced in
            [Unsynced::Lost, Unsynced::Kept, Unsynced::Mixed(changes), Unsynced::Mixed(changes + 1_000)]
        {
            let fs = MemoryFs::default();
            let (dir, _) = open(&fs, None).expect("an empty disk");
            fs.cut_power_after(changes);
            let stored: Vec<u64> =
                [5, 9, 12].into_iter().take_while(|index| store(&dir, *index).is_ok()).collect();
            let fs = fs.crashed(unsynced);
            let (_, found) =
                open(&fs, None).unwrap_or_else(|error| panic!("{changes} {unsynced:?}: {error}"));
            let (found, stored) = (index_of(found), stored.last().copied());
            assert!(found >= stored, "{changes} {unsynced:?}: {found:?} after {stored:?} was stored");
            assert!(
                fs.content().keys().all(|path| !path.to_string_lossy().ends_with(UNFINISHED)),
                "nothing is left"
            );
        }
    }
}

#[test]
fn the_machine_has_such_files_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let fs = Env::system().fs;
    let (snapshots, _) =
        SnapshotDir::open(fs.clone(), dir.path().join("snapshots"), None).expect("an empty disk");
    store(&snapshots, 3).expect("a healthy disk");
    let (_, found) = SnapshotDir::open(fs, dir.path().join("snapshots"), None).expect("readable");
    assert_eq!(index_of(found), Some(3));
}
