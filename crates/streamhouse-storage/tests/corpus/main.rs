//! Replays the fuzz corpus of the target `object_footer`.

mod body;

use std::path::Path;

use bytes::Bytes;
use streamhouse_storage::object::{
    CommitResult, HEADER_BYTES, NewExtent, ObjectBuilder, ObjectHeader, PlacedRun, decode_object,
};
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, NodeId, ObjectId, Offset, PartitionId, PartitionIndex, Slot,
    SlotSequence, Timestamp, TopicId,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/object_footer");

#[test]
fn the_fuzz_corpus_is_judged_without_a_panic() {
    let mut replayed = 0;
    for file in std::fs::read_dir(CORPUS).expect("the corpus is in the repository") {
        let path = file.expect("the folder can be listed").path();
        body::run(&std::fs::read(&path).expect("the file can be read"));
        replayed += 1;
    }
    assert!(replayed >= 5, "{replayed} files were found");
}

fn object(extents: u32, results: u32) -> Vec<u8> {
    let mut builder = ObjectBuilder::new();
    for index in 0..extents {
        builder.push(NewExtent {
            partition: PartitionId::new(TopicId::new(7), PartitionIndex::new(index)),
            batches: 2,
            records: 30,
            max_timestamp: Timestamp::from_millis(1_780_000_000_000),
            pieces: vec![Bytes::from_static(b"one batch, "), Bytes::from_static(b"and another")],
        });
    }
    for sequence in 0..u64::from(results) {
        let run = PlacedRun { position: HEADER_BYTES, length: 100, records: 9, base: Offset::new(1_000) };
        builder.push_result(CommitResult {
            sequence: SlotSequence::new(sequence),
            attempt: Attempt::new(1),
            runs: vec![run; 3],
        });
    }
    let slot = Slot {
        node: NodeId::new(3),
        incarnation: Incarnation::new(7),
        lane: Lane::Wal,
        sequence: SlotSequence::new(42),
    };
    let header = ObjectHeader {
        cluster: ClusterId::from_bytes(*b"0123456789abcdef"),
        object: ObjectId { slot, attempt: Attempt::new(0) },
        created: Timestamp::from_millis(1_780_000_000_000),
    };
    builder.finish().payload(&header).pieces().concat()
}

/// What was written once must be read for ever; a new version of the format gets seeds of its own.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to write the seeds"
)]
fn objects_that_were_written_before_are_still_written_and_read_alike() {
    let seeds =
        [("v1-empty", object(0, 0)), ("v1-three-extents", object(3, 0)), ("v1-results", object(2, 4))];
    for (name, bytes) in seeds {
        let path = Path::new(CORPUS).join(name);
        if std::env::var("UPDATE_CORPUS").is_ok() {
            std::fs::write(&path, &bytes).expect("the seed can be written");
        }
        let stored = std::fs::read(&path).expect("the seed is in the repository");
        assert!(decode_object(&stored).is_ok(), "{name} is not read any more");
        assert!(stored == bytes, "{name} would be written differently today");
    }
}
