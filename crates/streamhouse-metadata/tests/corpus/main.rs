//! Replays the fuzz corpora of the targets `command` and `snapshot`.

mod command;
mod snapshot;

use std::path::PathBuf;

use streamhouse_metadata::codec::{decode_command, decode_snapshot, encode_command, encode_snapshot};
use streamhouse_metadata::{
    Command, CommitObject, CreateTopic, ForgetObjects, Precondition, ProducerWindow, RegisterNode, Row,
    RowProducer, State, TopicSettings, TrimPartition, Unit,
};
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, Offset, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target)
}

#[track_caller]
fn replay(target: &str, body: fn(&[u8])) {
    let mut replayed = 0;
    for file in std::fs::read_dir(corpus(target)).expect("the corpus is in the repository") {
        body(&std::fs::read(file.expect("the folder can be listed").path()).expect("the file can be read"));
        replayed += 1;
    }
    assert!(replayed >= 3, "{replayed} files were found");
}

#[test]
fn the_fuzz_corpus_of_commands_is_judged_without_a_panic() {
    replay("command", command::run);
}

#[test]
fn the_fuzz_corpus_of_snapshots_is_judged_without_a_panic() {
    replay("snapshot", snapshot::run);
}

const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId::new(1), PartitionIndex::new(index))
}

fn slot(sequence: u64) -> Slot {
    Slot {
        node: NodeId::new(1),
        incarnation: Incarnation::new(1),
        lane: Lane::Wal,
        sequence: SlotSequence::new(sequence),
    }
}

fn row(index: u32, position: u64, producer: Option<RowProducer>) -> Row {
    Row {
        partition: partition(index),
        position,
        length: 500,
        batches: 1,
        records: 10,
        max_timestamp: NOW,
        producer,
    }
}

fn commit() -> CommitObject {
    let producer = RowProducer {
        id: ProducerId::new(1 << 40), // the first that is granted with a window for native sessions
        epoch: ProducerEpoch::new(0),
        first_sequence: Sequence::ZERO,
    };
    let precondition = Precondition::NextOffset { partition: partition(1), offset: Offset::ZERO };
    CommitObject {
        slot: slot(1),
        attempt: Attempt::new(0),
        prev: SlotSequence::new(0),
        lo: SlotSequence::new(1),
        length: 2_000,
        crc: 0x1234_5678,
        append_time: NOW,
        units: vec![
            Unit { preconditions: Vec::new(), rows: vec![row(0, 80, Some(producer))] },
            Unit { preconditions: vec![precondition], rows: vec![row(1, 580, None), row(2, 1_080, None)] },
        ],
    }
}

/// One command after another, as a young cluster has them.
fn commands() -> Vec<(&'static str, Command)> {
    let name = "orders".parse().expect("a good name");
    let register = RegisterNode {
        request: [1; 16],
        node: NodeId::new(1),
        zone: "a".to_owned(),
        addresses: vec![("grpc".to_owned(), "127.0.0.1:9094".to_owned())],
    };
    let create = CreateTopic {
        request: [2; 16],
        name,
        partitions: 3,
        settings: TopicSettings::default(),
        validate_only: false,
    };
    let alter = Command::AlterTopic {
        request: [3; 16],
        topic: TopicId::new(1),
        changes: vec![("max.message.bytes".to_owned(), Some("2048".to_owned()))],
        validate_only: false,
    };
    let grant = Command::GrantProducerIds {
        node: NodeId::new(1),
        incarnation: Incarnation::new(1),
        count: 100,
        window: ProducerWindow::Native,
    };
    let forget = ForgetObjects { objects: vec![commit().object()] };
    vec![
        ("bootstrap", Command::Bootstrap { cluster: ClusterId::from_bytes(*b"0123456789abcdef"), now: NOW }),
        ("register", Command::RegisterNode(register)),
        ("tick", Command::Tick { now: NOW.plus_millis(500) }),
        ("create-topic", Command::CreateTopic(create)),
        ("alter-topic", alter),
        ("grant-producer-ids", grant),
        ("commit", Command::CommitObject(commit())),
        ("advance-lo", Command::AdvanceLo { slot: slot(2) }),
        ("trim", Command::TrimPartition(TrimPartition { partition: partition(2), before: Offset::new(10) })),
        ("forget", Command::ForgetObjects(forget)),
    ]
}

/// What was written once must be read for ever; a new version of a format gets seeds of its own.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to write the seeds"
)]
fn check_seed(target: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = corpus(target).join(format!("v1-{name}"));
    if std::env::var("UPDATE_CORPUS").is_ok() {
        std::fs::write(&path, bytes).expect("the seed can be written");
    }
    let stored = std::fs::read(&path).expect("the seed is in the repository");
    assert!(stored == bytes, "{name} would be written differently today");
    stored
}

#[test]
fn commands_that_were_written_before_are_still_written_and_read_alike() {
    for (name, command) in commands() {
        let stored = check_seed("command", name, &encode_command(&command));
        assert_eq!(decode_command(&stored), Ok(command), "{name}");
    }
}

#[test]
fn snapshots_that_were_written_before_are_still_written_and_read_alike() {
    let mut state = State::new();
    let check = |name: &str, state: &State| {
        let mut bytes = Vec::new();
        encode_snapshot(state, &mut bytes).expect("memory takes all");
        let stored = check_seed("snapshot", name, &bytes);
        assert_eq!(decode_snapshot(&stored).as_ref(), Ok(state), "{name}");
    };
    check("new", &state);
    for (index, (name, command)) in (1..).map(LogIndex::new).zip(commands()) {
        state.apply(index, &command);
        if ["create-topic", "commit", "forget"].contains(&name) {
            check(name, &state);
        }
    }
    assert_eq!(state.partition(partition(0)).expect("it was made").high_watermark(), Offset::new(10));
}
