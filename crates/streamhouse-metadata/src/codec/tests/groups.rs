use streamhouse_types::GroupId;

use super::*;
use crate::{
    ChangeGroups, Committer, GroupChange, GroupPhase, GroupRecord, GroupRefusal, GroupVerdict, MemberRecord,
    OffsetCommit,
};

fn group() -> GroupId {
    "billing".parse().expect("a good id")
}

fn record() -> GroupRecord {
    let member = |id: &str, instance: Option<&str>| MemberRecord {
        id: id.to_owned(),
        instance: instance.map(str::to_owned),
        client: "rdkafka".to_owned(),
        host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![("range".to_owned(), vec![0, 3, 255])],
        assignment: vec![0, 3, 0, 0],
    };
    GroupRecord {
        protocol_type: "consumer".to_owned(),
        generation: 300,
        phase: GroupPhase::Stable,
        protocol: Some("range".to_owned()),
        leader: Some("a".to_owned()),
        members: vec![member("a", Some("host-1")), member("b", None)],
    }
}

fn offsets() -> Vec<OffsetCommit> {
    let (epoch, metadata) = (Some(Epoch::new(2)), Some(String::new()));
    vec![
        OffsetCommit { partition: partition(1, 0), offset: Offset::new(15), epoch: None, metadata: None },
        OffsetCommit { partition: partition(1, 1), offset: Offset::new(30), epoch, metadata },
    ]
}

fn change_groups(changes: Vec<GroupChange>) -> Command {
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    Command::ChangeGroups(ChangeGroups { node, incarnation, sequence: 1, changes })
}

fn all_changes() -> Vec<GroupChange> {
    let by = Committer::Member { generation: 300 };
    vec![
        GroupChange::Claim { group: group() },
        GroupChange::Store { group: group(), record: record() },
        GroupChange::Commit { group: group(), by, offsets: offsets() },
        GroupChange::DeleteOffsets { group: group(), partitions: vec![partition(1, 9)] },
    ]
}

pub(super) fn every_kind_of_command() -> Vec<Command> {
    let (request, cutoff) = ([0xab; 16], Timestamp::from_millis(1_790_000_000_000));
    let sought = vec![(partition(1, 0), Some(Offset::new(300))), (partition(1, 1), None)];
    let outside = GroupChange::Commit { group: group(), by: Committer::Outside, offsets: offsets() };
    let completing = GroupRecord { phase: GroupPhase::Completing, ..record() };
    let empty = GroupChange::Store { group: group(), record: GroupRecord::default() };
    vec![
        change_groups(all_changes()),
        change_groups(vec![outside, empty, GroupChange::Store { group: group(), record: completing }]),
        Command::DeleteGroup { request, group: group() },
        Command::SeekGroup { request, group: group(), offsets: sought, validate_only: true },
        Command::ExpireGroups { cutoff },
    ]
}

pub(super) fn every_kind_of_outcome() -> Vec<Outcome> {
    let verdicts = vec![
        GroupVerdict::Done,
        GroupVerdict::Committed { unknown: vec![partition(5, 300)] },
        GroupVerdict::NotOwner,
        GroupVerdict::UnknownGroup,
        GroupVerdict::StaleGeneration,
        GroupVerdict::HasMembers,
        GroupVerdict::Limit { what: "x".to_owned(), limit: 4_096 },
        GroupVerdict::Malformed,
    ];
    let (needed, level) = (FeatureLevel::GROUPS, FeatureLevel::FIRST);
    vec![
        Outcome::GroupsChanged { verdicts },
        Outcome::MemberRefused(MemberRefusal::LevelTooLow { needed, level }),
        Outcome::GroupRefused(GroupRefusal::UnknownGroup),
        Outcome::GroupRefused(GroupRefusal::HasMembers),
    ]
}

/// A state with something in every table.
fn state_with_groups() -> State {
    let mut state = busy_state();
    apply(&mut state, &change_groups(all_changes()));
    let read = state.group(&group()).expect("it was made").offsets().len();
    assert_eq!((read, state.groups().len()), (2, 1));
    state
}

#[test]
fn a_snapshot_with_groups_keeps_its_bytes_and_reads_back() {
    let state = state_with_groups();
    let bytes = encoded(&state);
    let read = decode_snapshot(&bytes).expect("it was just written");
    assert_eq!(read, state);
    assert_eq!(read.hash(), state.hash());
    let lines: Vec<String> = bytes.chunks(32).map(hex).collect();
    insta::assert_snapshot!("snapshot_with_groups", lines.join("\n"));
}

#[test]
fn a_snapshot_with_groups_and_any_byte_changed_or_missing_is_refused() {
    let bytes = encoded(&state_with_groups());
    for at in 0..bytes.len() {
        assert!(decode_snapshot(&bytes[..at]).is_err(), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(decode_snapshot(&changed).is_err(), "changed at {at}");
    }
}

/// Nodes of the release before read version 2, and can be in the cluster until there are groups.
#[test]
fn a_state_without_groups_is_written_as_nodes_of_the_release_before_read_it() {
    let bytes = encoded(&busy_state());
    assert_eq!(bytes[8], 2);
    let with_groups = encoded(&state_with_groups());
    assert_eq!(with_groups[8], 3);
    // Below the level there are no groups, whatever is proposed.
    let mut first = busy_state_without_fleet();
    every_kind_of_command().iter().for_each(|command| apply(&mut first, command));
    assert_eq!((first.groups().len(), encoded(&first)[8]), (0, 2));
    // The body of one version under the number of the other is refused.
    assert_eq!(decode_snapshot(&[&bytes[..8], &[3], &bytes[9..]].concat()), Err(CodecError::Truncated));
    let older = decode_snapshot(&[&with_groups[..8], &[2], &with_groups[9..]].concat());
    assert_eq!(older, Err(CodecError::Malformed { expected: "metadata state" }));
    // After the last group has gone, what its writers were told is still known.
    let mut left = state_with_groups();
    let empty = GroupRecord { generation: 301, ..GroupRecord::default() };
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    let changes = vec![GroupChange::Store { group: group(), record: empty }];
    apply(&mut left, &Command::ChangeGroups(ChangeGroups { node, incarnation, sequence: 2, changes }));
    apply(&mut left, &Command::DeleteGroup { request: [9; 16], group: group() });
    assert_eq!((left.groups().len(), encoded(&left)[8]), (0, 3));
    apply(&mut left, &Command::CloseIncarnation { node, incarnation });
    assert_eq!(encoded(&left)[8], 2);
}

/// Bytes of a commit per partition that it names.
#[test]
fn a_committed_offset_takes_about_eight_bytes() {
    let commit = |count: u32| {
        let (epoch, metadata) = (None, None);
        let at = |index| OffsetCommit { partition: partition(5, index), ..offsets()[0].clone() };
        let offset = Offset::new(1_000_000);
        let offsets =
            (0..count).map(|index| OffsetCommit { offset, epoch, metadata: metadata.clone(), ..at(index) });
        let by = Committer::Member { generation: 300 };
        let change = GroupChange::Commit { group: group(), by, offsets: offsets.collect() };
        encode_command(&change_groups(vec![change])).len()
    };
    assert!(commit(0) <= 24, "{}", commit(0));
    assert!(commit(1_000) <= 24 + 8 * 1_000, "{}", commit(1_000));
}

fn texts() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zä]{0,6}").expect("a good pattern")
}

fn members() -> impl Strategy<Value = MemberRecord> {
    let protocols = prop::collection::vec((texts(), prop::collection::vec(any::<u8>(), 0..9)), 0..3);
    let named = (texts(), prop::option::of(texts()), texts(), texts());
    (named, any::<(u32, u32)>(), protocols, prop::collection::vec(any::<u8>(), 0..9)).prop_map(
        |((id, instance, client, host), (session, rebalance), protocols, assignment)| MemberRecord {
            id,
            instance,
            client,
            host,
            session_timeout_ms: session,
            rebalance_timeout_ms: rebalance,
            protocols,
            assignment,
        },
    )
}

fn changes() -> impl Strategy<Value = GroupChange> {
    let group = || proptest::string::string_regex("[a-zä]{1,6}").expect("a good pattern");
    let group = || group().prop_map(|id| id.parse().expect("not empty"));
    let record = (any::<u32>(), prop::collection::vec(members(), 0..3), prop::option::of(texts()));
    let records = record.prop_map(|(generation, members, leader)| {
        let phase = GroupPhase::Completing;
        GroupRecord { generation, phase, leader, members, ..GroupRecord::default() }
    });
    let partitions = || (any::<u64>(), any::<u32>()).prop_map(|(topic, index)| partition(topic, index));
    let notes = (0..=i64::MAX.cast_unsigned(), prop::option::of(any::<u32>()), prop::option::of(texts()));
    let offsets = (partitions(), notes).prop_map(|(partition, (offset, epoch, metadata))| {
        let (offset, epoch) = (Offset::new(offset), epoch.map(Epoch::new));
        OffsetCommit { partition, offset, epoch, metadata }
    });
    let by = prop::option::of(any::<u32>()).prop_map(|member| match member {
        Some(generation) => Committer::Member { generation },
        None => Committer::Outside,
    });
    prop_oneof![
        group().prop_map(|group| GroupChange::Claim { group }),
        (group(), records).prop_map(|(group, record)| GroupChange::Store { group, record }),
        (group(), by, prop::collection::vec(offsets, 0..4))
            .prop_map(|(group, by, offsets)| GroupChange::Commit { group, by, offsets }),
        (group(), prop::collection::vec(partitions(), 0..4))
            .prop_map(|(group, partitions)| GroupChange::DeleteOffsets { group, partitions }),
    ]
}

proptest! {
    #[test]
    fn any_changes_of_groups_read_back(
        who in any::<(u64, u64, u64)>(),
        changes in prop::collection::vec(changes(), 0..5),
    ) {
        let (node, incarnation) = (NodeId::new(who.0), Incarnation::new(who.1));
        let command = Command::ChangeGroups(ChangeGroups { node, incarnation, sequence: who.2, changes });
        prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
    }

    #[test]
    fn changes_of_groups_with_any_byte_changed_never_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode_command(&change_groups(all_changes())).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(command) = decode_command(&bytes) {
            prop_assert_eq!(decode_command(&encode_command(&command)), Ok(command));
        }
    }
}
