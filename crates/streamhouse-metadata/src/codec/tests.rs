mod groups;

use bytes::Bytes;
use proptest::prelude::*;
use streamhouse_types::{
    Attempt, ClusterId, Epoch, Incarnation, Lane, LogIndex, NodeId, Offset, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

use super::*;
use crate::{
    Command, CommitObject, CreateTopic, DirectoryId, Drain, FeatureLevel, FeatureRange, HomeMove, Liveness,
    MemberRefusal, Outcome, Precondition, ProducerWindow, Refusal, RegisterNode, Row, RowProducer,
    SlotRefusal, State, TimestampType, TopicSettings, TrimPartition, Unit, UnitRefusal, Verdict, VoterCount,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn partition(topic: u64, index: u32) -> PartitionId {
    PartitionId::new(TopicId::new(topic), PartitionIndex::new(index))
}

fn slot() -> Slot {
    Slot {
        node: NodeId::new(3),
        incarnation: Incarnation::new(7),
        lane: Lane::Wal,
        sequence: SlotSequence::new(300),
    }
}

fn plain(partition: PartitionId, position: u64) -> Row {
    Row {
        partition,
        position,
        length: 1_000,
        batches: 1,
        records: 10,
        max_timestamp: Timestamp::from_millis(1_790_000_000_000),
        producer: None,
    }
}

fn idempotent(partition: PartitionId, position: u64, id: u64, first: u32) -> Row {
    let producer = RowProducer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(0),
        first_sequence: Sequence::new(first),
    };
    Row { producer: Some(producer), ..plain(partition, position) }
}

fn unit(row: Row) -> Unit {
    Unit { preconditions: Vec::new(), rows: vec![row] }
}

fn commit(units: Vec<Unit>) -> CommitObject {
    CommitObject {
        slot: slot(),
        attempt: Attempt::new(1),
        prev: SlotSequence::new(299),
        lo: SlotSequence::new(297),
        length: 8 << 20,
        crc: 0x1234_5678,
        append_time: Timestamp::from_millis(1_790_000_000_123),
        units,
    }
}

fn every_kind_of_command() -> Vec<Command> {
    let (node, incarnation) = (NodeId::new(3), Incarnation::new(7));
    let (request, topic) = ([0xab; 16], TopicId::new(5));
    let conditional = Unit {
        preconditions: vec![Precondition::NextOffset {
            partition: partition(5, 1),
            offset: Offset::new(1_000),
        }],
        rows: vec![
            plain(partition(5, 1), 64),
            Row { batches: 3, ..idempotent(partition(6, 0), 1_064, 9, 70_000) },
        ],
    };
    let changes = vec![("max.message.bytes".to_owned(), Some("1024".to_owned())), ("x".to_owned(), None)];
    let addresses = vec![("grpc".to_owned(), "127.0.0.1:9094".to_owned())];
    let timestamp_type = TimestampType::LogAppend;
    let settings = TopicSettings { max_message_bytes: 4_096, timestamp_type, ..TopicSettings::default() };
    let name = "orders".parse().expect("a good name");
    vec![
        Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now: Timestamp::from_millis(-1) },
        Command::RegisterNode(RegisterNode { request, node, zone: "z1".to_owned(), addresses }),
        Command::CloseIncarnation { node, incarnation },
        Command::Tick { now: Timestamp::from_millis(1_790_000_000_000) },
        Command::CommitObject(commit(vec![unit(plain(partition(5, 0), 64)), conditional])),
        Command::AdvanceLo { slot: slot() },
        Command::CreateTopic(CreateTopic { request, name, partitions: 12, settings, validate_only: false }),
        Command::AlterTopic { request, topic, changes, validate_only: true },
        Command::DeleteTopic { request, topic, validate_only: false },
        Command::AddPartitions { request, topic, total: 24, validate_only: false },
        Command::MoveHome { partition: partition(5, 3), home: node, incarnation },
        Command::TrimPartition(TrimPartition { partition: partition(5, 3), before: Offset::new(1 << 40) }),
        Command::ForgetObjects(crate::ForgetObjects { objects: vec![commit(Vec::new()).object()] }),
        Command::GrantProducerIds { node, incarnation, count: 1_000, window: ProducerWindow::Native },
        Command::ExpireProducers { cutoff: Timestamp::from_millis(1_790_000_000_000) },
    ]
    .into_iter()
    .chain(every_kind_of_command_for_the_fleet())
    .chain(groups::every_kind_of_command())
    .collect()
}

fn every_kind_of_command_for_the_fleet() -> Vec<Command> {
    let (node, incarnation, request) = (NodeId::new(3), Incarnation::new(7), [0xab; 16]);
    let (directory, version) = (DirectoryId::from_bytes([0xcd; 16]), "0.2.0".to_owned());
    let features = FeatureRange { min: FeatureLevel::new(1), max: FeatureLevel::new(300) };
    let home_move = |index| HomeMove {
        partition: partition(5, index),
        home: node,
        incarnation,
        epoch: Epoch::new(400 + index),
    };
    vec![
        Command::AdmitNode { node, directory, features, version },
        Command::JudgeNode { node, incarnation, liveness: Liveness::Alive },
        Command::JudgeNode { node, incarnation, liveness: Liveness::Dead },
        Command::SetDrain { request, node, drain: Drain::None },
        Command::SetDrain { request, node, drain: Drain::Operator },
        Command::SetDrain { request, node, drain: Drain::Leaving },
        Command::RemoveNode { request, node },
        Command::MoveHomes { moves: vec![home_move(0), home_move(1)] },
        Command::SetWantedVoters { request, voters: VoterCount::One },
        Command::SetWantedVoters { request, voters: VoterCount::Three },
        Command::SetWantedVoters { request, voters: VoterCount::Five },
        Command::RaiseFeatureLevel { level: FeatureLevel::new(2) },
    ]
}

#[test]
fn every_kind_of_command_keeps_its_bytes() {
    let lines: Vec<String> =
        every_kind_of_command().iter().map(|command| hex(&encode_command(command))).collect();
    insta::assert_snapshot!("commands", lines.join("\n"));
}

#[test]
fn every_kind_of_command_reads_back() {
    for command in every_kind_of_command() {
        assert_eq!(decode_command(&encode_command(&command)).as_ref(), Ok(&command));
    }
}

#[test]
fn a_command_is_read_to_its_last_byte_and_no_further() {
    for command in every_kind_of_command() {
        let bytes = encode_command(&command);
        for end in 0..bytes.len() {
            let cut = decode_command(&bytes[..end]);
            assert!(cut.is_err(), "{end} of {} bytes of {command:?}", bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode_command(&longer), Err(CodecError::Malformed { expected: "command" }));
    }
}

#[test]
fn an_unknown_version_or_kind_is_refused() {
    assert_eq!(decode_command(&[2, 0, 0]), Err(CodecError::Version { version: 2 }));
    assert_eq!(decode_command(&[1, 2, 0]), Err(CodecError::Malformed { expected: "command" }));
    assert_eq!(decode_outcome(&[0, 0]), Err(CodecError::Version { version: 0 }));
}

#[test]
fn a_commit_has_one_form() {
    let generic =
        postcard::to_extend(&Command::CommitObject(commit(Vec::new())), vec![1, 1]).expect("plain data");
    assert_eq!(decode_command(&generic), Err(CodecError::Malformed { expected: "command" }));
}

/// Bytes of a commit that touches `partitions` partitions, per row.
fn bytes_per_row(partitions: u32, row: impl Fn(u32) -> Row) -> f64 {
    let units = (0..partitions).map(|index| unit(row(index))).collect();
    let bytes = encode_command(&Command::CommitObject(commit(units))).len();
    println!("{partitions} partitions: {bytes} bytes");
    f64::from(u32::try_from(bytes).expect("small")) / f64::from(partitions)
}

#[test]
fn a_row_takes_ten_to_twenty_bytes() {
    // Varied as real rows are: lengths, timestamps, and a producer per partition far into its sequence.
    let plain_row = |index: u32| {
        let at = 1_790_000_000_000 + i64::from(index * 7_919 % 2_000);
        let length = 500 + index * 31 % 4_000;
        Row { length, max_timestamp: Timestamp::from_millis(at), ..plain(partition(5, index), 64) }
    };
    let spread = |index: u32| Row { position: 64 + u64::from(index) * 5_000, ..plain_row(index) };
    let kafka = |index: u32| {
        let sent =
            idempotent(partition(5, index), 64, u64::from(1_000 + index * 613 % 100_000), 1_000_000 + index);
        Row { producer: sent.producer, ..spread(index) }
    };
    let native = |index: u32| {
        let mut row = kafka(index);
        let producer = row.producer.as_mut().expect("it is idempotent");
        producer.id = ProducerId::new((1 << 40) + producer.id.get());
        row
    };
    assert!(bytes_per_row(1, native) <= 64.0);
    for partitions in [100, 10_000] {
        let side_by_side = bytes_per_row(partitions, |index| Row {
            length: 1_000,
            position: 64 + u64::from(index) * 1_000,
            ..plain_row(index)
        });
        assert!(side_by_side <= 9.5, "{side_by_side}");
        assert!(bytes_per_row(partitions, spread) <= 12.0);
        assert!(bytes_per_row(partitions, kafka) <= 20.0);
        assert!(bytes_per_row(partitions, native) <= 20.5);
    }
}

fn every_kind_of_outcome() -> Vec<Outcome> {
    let verdicts = [
        Verdict::Appended { bases: vec![Offset::new(300), Offset::new(0)] },
        Verdict::Duplicate { bases: vec![Offset::new(7)] },
        Verdict::Refused(UnitRefusal::OutOfOrderSequence { expected: Sequence::new(5) }),
        Verdict::Refused(UnitRefusal::ProducerFenced { current: ProducerEpoch::new(2) }),
    ];
    let append_time = Timestamp::from_millis(1_790_000_000_000);
    let setting = crate::SettingError::Unsupported { name: "x".to_owned() };
    vec![
        Outcome::Done,
        Outcome::Registered { incarnation: Incarnation::new(7) },
        Outcome::Committed { attempt: Attempt::new(1), verdicts: verdicts.into(), append_time },
        Outcome::NotYet,
        Outcome::SlotRefused(SlotRefusal::BelowLo { lo: SlotSequence::new(9) }),
        Outcome::TopicCreated { topic: TopicId::new(5) },
        Outcome::ProducerIds { first: ProducerId::new(1 << 40), count: 1_000 },
        Outcome::Trimmed { log_start: Offset::new(12) },
        Outcome::Refused(Refusal::HomeUnchanged { epoch: Epoch::new(3) }),
        Outcome::Refused(Refusal::Setting(setting)),
    ]
    .into_iter()
    .chain(every_kind_of_outcome_for_the_fleet())
    .chain(groups::every_kind_of_outcome())
    .collect()
}

fn every_kind_of_outcome_for_the_fleet() -> Vec<Outcome> {
    let (node, level) = (NodeId::new(3), FeatureLevel::new(2));
    let features = FeatureRange { min: FeatureLevel::new(1), max: FeatureLevel::new(300) };
    let refusals = [
        MemberRefusal::OtherDirectory { node },
        MemberRefusal::Removed { node },
        MemberRefusal::LevelUnknown { node, level, features },
        MemberRefusal::Unknown { node },
        MemberRefusal::LastHome { node, partitions: 1_000 },
        MemberRefusal::LevelNotEverywhere { level, node, features },
        MemberRefusal::LevelGoesDown { current: level, wanted: FeatureLevel::FIRST },
    ];
    let moved = [Outcome::HomesMoved { moved: 300 }];
    moved.into_iter().chain(refusals.map(Outcome::MemberRefused)).collect()
}

#[test]
fn every_kind_of_outcome_keeps_its_bytes_and_reads_back() {
    let outcomes = every_kind_of_outcome();
    let lines: Vec<String> = outcomes.iter().map(|outcome| hex(&encode_outcome(outcome))).collect();
    insta::assert_snapshot!("outcomes", lines.join("\n"));
    for outcome in outcomes {
        let bytes = encode_outcome(&outcome);
        assert_eq!(decode_outcome(&bytes).as_ref(), Ok(&outcome));
        assert!(decode_outcome(&bytes[..bytes.len() - 1]).is_err());
    }
}

fn apply(state: &mut State, command: &Command) {
    state.apply(LogIndex::new(state.applied().get() + 1), command);
}

/// A state with something in every table that there was in version 1.
fn busy_state_without_fleet() -> State {
    let mut state = State::new();
    let mut apply = |command: Command| apply(&mut state, &command);
    let cluster = ClusterId::from_bytes([1; 16]);
    apply(Command::Bootstrap { cluster, now: Timestamp::from_millis(1_000) });
    let (request, node, zone) = ([2; 16], NodeId::new(1), "z1".to_owned());
    let addresses = vec![("grpc".to_owned(), "127.0.0.1:9094".to_owned())];
    apply(Command::RegisterNode(RegisterNode { request, node, zone, addresses }));
    let name = "orders".parse().expect("a good name");
    let settings = TopicSettings::default();
    apply(Command::CreateTopic(CreateTopic {
        request: [3; 16],
        name,
        partitions: 2,
        settings,
        validate_only: false,
    }));
    let incarnation = Incarnation::new(1);
    apply(Command::GrantProducerIds { node, incarnation, count: 5, window: ProducerWindow::Kafka });
    for sequence in 1..4 {
        let units = vec![
            unit(idempotent(partition(1, 0), 64, 1, u32::try_from(sequence).expect("small") * 10 - 10)),
            unit(plain(partition(1, 1), 5_000)),
        ];
        let slot = Slot { node, incarnation, lane: Lane::Wal, sequence: SlotSequence::new(sequence) };
        let prev = SlotSequence::new(sequence - 1);
        apply(Command::CommitObject(CommitObject { slot, prev, lo: SlotSequence::new(1), ..commit(units) }));
    }
    for index in 0..2 {
        let before = Offset::new(15);
        apply(Command::TrimPartition(TrimPartition { partition: partition(1, index), before }));
    }
    state
}

/// A state with something in every table.
fn busy_state() -> State {
    let mut state = busy_state_without_fleet();
    let mut apply = |command: Command| apply(&mut state, &command);
    let features = FeatureRange { min: FeatureLevel::new(1), max: FeatureLevel::new(2) };
    for node in [1, 2].map(NodeId::new) {
        let directory = DirectoryId::from_bytes([node.get().to_le_bytes()[0]; 16]);
        apply(Command::AdmitNode { node, directory, features, version: "0.2.0".to_owned() });
    }
    apply(Command::SetDrain { request: [4; 16], node: NodeId::new(1), drain: Drain::Operator });
    apply(Command::SetWantedVoters { request: [5; 16], voters: VoterCount::Five });
    apply(Command::RaiseFeatureLevel { level: FeatureLevel::new(2) });
    state
}

fn encoded(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_snapshot(state, &mut bytes).expect("a vector takes all bytes");
    bytes
}

#[test]
fn a_snapshot_keeps_its_bytes_and_reads_back() {
    let state = busy_state();
    let bytes = encoded(&state);
    assert_eq!(decode_snapshot(&bytes).as_ref(), Ok(&state));
    let lines: Vec<String> = bytes.chunks(32).map(hex).collect();
    insta::assert_snapshot!("snapshot", lines.join("\n"));
}

#[test]
fn a_snapshot_of_version_1_is_still_read() {
    let text: String = include_str!("snapshot-v1.hex").lines().collect();
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hexadecimal digits"));
    let bytes: Vec<u8> =
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect();
    assert_eq!(bytes[8], 1);
    assert_eq!(decode_snapshot(&bytes), Ok(busy_state_without_fleet()));
    // The body of one version under the number of the other is refused.
    assert_eq!(decode_snapshot(&[&bytes[..8], &[2], &bytes[9..]].concat()), Err(CodecError::Truncated));
    let mut newer = encoded(&busy_state());
    newer[8] = 1;
    assert_eq!(decode_snapshot(&newer), Err(CodecError::Malformed { expected: "metadata state" }));
}

#[test]
fn a_snapshot_with_any_byte_changed_or_missing_is_refused() {
    let bytes = encoded(&busy_state());
    for at in 0..bytes.len() {
        assert!(decode_snapshot(&bytes[..at]).is_err(), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(decode_snapshot(&changed).is_err(), "changed at {at}");
    }
    assert_eq!(decode_snapshot(&[&bytes[..], &[0]].concat()), Err(CodecError::Truncated));
}

#[track_caller]
fn check_snapshot(change: impl Fn(&mut Vec<u8>), error: CodecError) {
    let mut bytes = encoded(&busy_state());
    change(&mut bytes);
    assert_eq!(decode_snapshot(&bytes), Err(error));
}

#[test]
fn a_snapshot_is_checked_for_length_magic_version_and_checksum() {
    check_snapshot(|bytes| bytes.truncate(23), CodecError::Truncated);
    check_snapshot(|bytes| bytes[0] = 0, CodecError::Magic);
    check_snapshot(|bytes| bytes[8] = 0, CodecError::Version { version: 0 });
    check_snapshot(|bytes| bytes[8] = 4, CodecError::Version { version: 4 });
    check_snapshot(|bytes| bytes[12] ^= 1, CodecError::Truncated);
    check_snapshot(|bytes| bytes[30] ^= 1, CodecError::Checksum);
}

#[test]
fn a_snapshot_whose_state_breaks_an_invariant_is_refused() {
    let mut state = busy_state();
    state.append_next = 0;
    let error = decode_snapshot(&encoded(&state));
    assert!(matches!(error, Err(CodecError::Inconsistent(violation)) if violation.invariant == "I4"));
}

fn rows() -> impl Strategy<Value = Row> {
    let producer = (any::<u64>(), any::<u16>(), any::<u32>()).prop_map(|(id, epoch, first)| RowProducer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(epoch),
        first_sequence: Sequence::new(first),
    });
    let place = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u32>());
    (place, any::<u32>(), any::<u32>(), any::<i64>(), prop::option::of(producer)).prop_map(
        |((topic, index, position, length), batches, records, time, producer)| Row {
            partition: partition(topic, index),
            position,
            length,
            batches,
            records,
            max_timestamp: Timestamp::from_millis(time),
            producer,
        },
    )
}

fn commits() -> impl Strategy<Value = CommitObject> {
    let condition = (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(topic, index, offset)| {
        Precondition::NextOffset { partition: partition(topic, index), offset: Offset::new(offset) }
    });
    let parts = (prop::collection::vec(condition, 0..3), prop::collection::vec(rows(), 0..4));
    let units =
        prop::collection::vec(parts.prop_map(|(preconditions, rows)| Unit { preconditions, rows }), 0..6);
    let slot = (any::<u64>(), any::<u64>(), 0..3_usize, any::<u64>()).prop_map(
        |(node, incarnation, lane, sequence)| Slot {
            node: NodeId::new(node),
            incarnation: Incarnation::new(incarnation),
            lane: Lane::ALL[lane],
            sequence: SlotSequence::new(sequence),
        },
    );
    let head = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<i64>());
    (slot, head, units).prop_map(|(slot, (attempt, prev, lo, length, crc, time), units)| CommitObject {
        slot,
        attempt: Attempt::new(attempt),
        prev: SlotSequence::new(prev),
        lo: SlotSequence::new(lo),
        length,
        crc,
        append_time: Timestamp::from_millis(time),
        units,
    })
}

proptest! {
    #[test]
    fn any_commit_reads_back(commit in commits()) {
        let command = Command::CommitObject(commit);
        prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(kind in 0_u8..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let command: Bytes = [&[1, kind], &bytes[..]].concat().into();
        if let Ok(decoded) = decode_command(&command) {
            prop_assert_eq!(decode_command(&encode_command(&decoded)), Ok(decoded));
        }
        let _ = decode_outcome(&command);
        let _ = decode_snapshot(&bytes);
    }

    /// The checksum stops accidents; an attacker can make it fit.
    #[test]
    fn a_snapshot_with_a_fitting_checksum_is_judged_without_a_panic(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        again in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&busy_state());
        let body = 24..bytes.len();
        for at in [at, again] {
            bytes[body.start + at.index(body.len())] = value;
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[24..]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc[..4]);
        if let Ok(state) = decode_snapshot(&bytes) {
            prop_assert_eq!(crate::invariants::check(&state), Ok(()));
        }
    }
}

#[test]
fn what_a_later_release_raised_is_refused_by_name() {
    let level = FeatureLevel::new(FeatureLevel::NEWEST.get() + 1);
    // To raise it may be refused, so that is judged when it is applied.
    let raise = Command::RaiseFeatureLevel { level };
    assert_eq!(decode_command(&encode_command(&raise)), Ok(raise));
    let mut state = busy_state();
    state.fleet.feature_level = level;
    let refused = decode_snapshot(&encoded(&state)).expect_err("refused");
    let text = "they are of feature level 5, this release knows up to 4: start the release that raised it";
    assert_eq!((&refused, refused.to_string().as_str()), (&CodecError::Level { level }, text));
}
