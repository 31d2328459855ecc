//! Replays the fuzz corpora of the targets `command` and `snapshot`.

mod command;
mod snapshot;

use std::path::PathBuf;

use streamhouse_metadata::codec::{decode_command, decode_snapshot, encode_command, encode_snapshot};
use streamhouse_metadata::{
    ChangeGroups, Command, CommitObject, Committer, CreateTopic, DirectoryId, Drain, FeatureLevel,
    FeatureRange, ForgetObjects, GroupChange, GroupPhase, GroupRecord, HomeMove, Liveness, MemberRecord,
    OffsetCommit, OtherSettings, Precondition, ProducerWindow, RegisterNode, Row, RowProducer, SettingEdits,
    SettingStep, State, TopicSettings, TrimPartition, Unit, VoterCount,
};
use streamhouse_types::{
    Attempt, ClusterId, Epoch, GroupId, Incarnation, Lane, LogIndex, NodeId, Offset, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
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

/// What comes behind those when the cluster grows to a second node.
fn fleet_commands() -> Vec<(&'static str, Command)> {
    let (node, incarnation, request) = (NodeId::new(2), Incarnation::new(1), [6; 16]);
    let (directory, version) = (DirectoryId::from_bytes([0x22; 16]), "0.2.0".to_owned());
    let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::new(2) };
    let register = RegisterNode {
        request: [4; 16],
        node,
        zone: "b".to_owned(),
        addresses: vec![("grpc".to_owned(), "127.0.0.2:9094".to_owned())],
    };
    let moves = vec![HomeMove { partition: partition(1), home: node, incarnation, epoch: Epoch::new(0) }];
    vec![
        ("admit-node", Command::AdmitNode { node, directory, features, version }),
        ("register-second", Command::RegisterNode(register)),
        ("move-homes", Command::MoveHomes { moves }),
        ("judge-node", Command::JudgeNode { node, incarnation, liveness: Liveness::Dead }),
        ("set-drain", Command::SetDrain { request: [5; 16], node, drain: Drain::Operator }),
        ("remove-node", Command::RemoveNode { request, node }),
        ("set-wanted-voters", Command::SetWantedVoters { request: [7; 16], voters: VoterCount::Five }),
        ("raise-feature-level", Command::RaiseFeatureLevel { level: FeatureLevel::FIRST }),
    ]
}

fn change_groups(sequence: u64, changes: Vec<GroupChange>) -> Command {
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    Command::ChangeGroups(ChangeGroups { node, incarnation, sequence, changes })
}

/// The first members of group "billing", and how far they have read.
fn consumed(group: &GroupId) -> Vec<GroupChange> {
    let group = || group.clone();
    let member = MemberRecord {
        id: "consumer-1".to_owned(),
        instance: Some("host-1".to_owned()),
        client: "rdkafka".to_owned(),
        host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![("range".to_owned(), vec![0, 3]), ("roundrobin".to_owned(), Vec::new())],
        assignment: vec![0, 3, 0, 0],
    };
    let record = GroupRecord {
        protocol_type: "consumer".to_owned(),
        generation: 1,
        phase: GroupPhase::Stable,
        protocol: Some("range".to_owned()),
        leader: Some(member.id.clone()),
        members: vec![member],
    };
    let read = |index, metadata| OffsetCommit {
        partition: partition(index),
        offset: Offset::new(10),
        epoch: Some(Epoch::new(0)),
        metadata,
    };
    let offsets = vec![read(0, None), read(1, Some("noted".to_owned()))];
    vec![
        GroupChange::Claim { group: group() },
        GroupChange::Store { group: group(), record },
        GroupChange::Commit { group: group(), by: Committer::Member { generation: 1 }, offsets },
    ]
}

/// What comes behind those once every member of the cluster knows groups.
fn group_commands() -> Vec<(&'static str, Command)> {
    let group: GroupId = "billing".parse().expect("a good id");
    let (node, directory) = (NodeId::new(1), DirectoryId::from_bytes([0x11; 16]));
    let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
    let version = "0.2.0".to_owned();
    let record = GroupRecord { generation: 2, ..GroupRecord::default() };
    let emptied = vec![
        GroupChange::Store { group: group.clone(), record },
        GroupChange::DeleteOffsets { group: group.clone(), partitions: vec![partition(1)] },
    ];
    let offsets = vec![(partition(0), Some(Offset::ZERO)), (partition(1), None)];
    let seek = Command::SeekGroup { request: [8; 16], group: group.clone(), offsets, validate_only: false };
    vec![
        ("admit-with-groups", Command::AdmitNode { node, directory, features, version }),
        ("raise-to-groups", Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS }),
        ("change-groups", change_groups(1, consumed(&group))),
        ("empty-group", change_groups(2, emptied)),
        ("seek-group", seek),
        ("expire-groups", Command::ExpireGroups { cutoff: NOW }),
        ("delete-group", Command::DeleteGroup { request: [9; 16], group }),
    ]
}

/// What comes behind those once every member of the cluster can edit settings.
fn edit_commands() -> Vec<(&'static str, Command)> {
    let (node, directory) = (NodeId::new(1), DirectoryId::from_bytes([0x11; 16]));
    let level = FeatureLevel::EDITED_SETTINGS;
    let features = FeatureRange { min: FeatureLevel::FIRST, max: level };
    let steps = [
        ("retention.ms", SettingStep::Set("60000".to_owned())),
        ("cleanup.policy", SettingStep::Append("compact".to_owned())),
        ("preallocate", SettingStep::Reset),
    ];
    let steps = steps.map(|(name, step)| (name.to_owned(), step)).into();
    let edits = SettingEdits { steps, others: OtherSettings::Reset };
    let (request, topic) = ([10; 16], TopicId::new(1));
    vec![
        ("admit-with-edits", Command::AdmitNode { node, directory, features, version: "0.4.0".to_owned() }),
        ("raise-to-edits", Command::RaiseFeatureLevel { level }),
        ("edit-topic", Command::EditTopic { level, request, topic, edits, validate_only: false }),
    ]
}

fn all_commands() -> Vec<(&'static str, Command)> {
    let all = commands().into_iter().chain(fleet_commands()).chain(group_commands());
    all.chain(edit_commands()).collect()
}

#[track_caller]
fn stored(target: &str, name: &str) -> Vec<u8> {
    std::fs::read(corpus(target).join(name)).expect("the seed is in the repository")
}

/// What was written once must be read for ever; a new version of a format gets seeds of its own.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to write the seeds"
)]
fn check_seed(target: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
    if std::env::var("UPDATE_CORPUS").is_ok() {
        std::fs::write(corpus(target).join(name), bytes).expect("the seed can be written");
    }
    let stored = stored(target, name);
    assert!(stored == bytes, "{name} would be written differently today");
    stored
}

#[test]
fn commands_that_were_written_before_are_still_written_and_read_alike() {
    for (name, command) in all_commands() {
        let stored = check_seed("command", &format!("v1-{name}"), &encode_command(&command));
        assert_eq!(decode_command(&stored), Ok(command), "{name}");
    }
}

/// The state after each of the commands, by the name of the command.
fn states(commands: Vec<(&'static str, Command)>) -> Vec<(&'static str, State)> {
    let mut state = State::new();
    let mut states = vec![("new", state.clone())];
    for (index, (name, command)) in (1..).map(LogIndex::new).zip(commands) {
        state.apply(index, &command);
        states.push((name, state.clone()));
    }
    states
}

#[test]
fn snapshots_that_were_written_before_are_still_written_and_read_alike() {
    let without_groups = ["new", "commit", "forget", "move-homes", "raise-feature-level"];
    let with_groups = ["change-groups", "seek-group", "edit-topic"];
    for (name, state) in states(all_commands()) {
        let version = match name {
            _ if without_groups.contains(&name) => 2,
            _ if with_groups.contains(&name) => 3,
            _ => continue,
        };
        let mut bytes = Vec::new();
        encode_snapshot(&state, &mut bytes).expect("memory takes all");
        let stored = check_seed("snapshot", &format!("v{version}-{name}"), &bytes);
        assert_eq!(stored[8], version, "{name}");
        assert_eq!(decode_snapshot(&stored).as_ref(), Ok(&state), "{name}");
    }
}

/// A node that goes on from an old snapshot is where one is that applied the log from its start.
#[test]
fn snapshots_of_version_1_are_read_as_what_their_log_makes_today() {
    let kept = ["new", "create-topic", "commit", "forget"];
    for (name, state) in states(commands()).into_iter().filter(|(name, _)| kept.contains(name)) {
        let read = decode_snapshot(&stored("snapshot", &format!("v1-{name}"))).expect("it can be read");
        assert_eq!(read, state, "{name}");
        assert_eq!(read.hash(), state.hash());
        if name == "forget" {
            assert_eq!(read.partition(partition(0)).expect("it was made").high_watermark(), Offset::new(10));
            let member = read.member(NodeId::new(1)).expect("it is registered");
            assert!(member.is_alive() && member.directory().is_none());
        }
    }
}
