use streamhouse_types::GroupId;

use super::*;
use crate::{
    ChangeGroups, CommittedOffset, Committer, GroupChange, GroupEntry, GroupPhase, GroupRecord, MemberRecord,
    OffsetCommit,
};

fn group() -> GroupId {
    "g".parse().expect("a good id")
}

fn change(sequence: u64, changes: Vec<GroupChange>) -> Command {
    let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
    Command::ChangeGroups(ChangeGroups { node, incarnation, sequence, changes })
}

fn record(generation: u32) -> GroupRecord {
    GroupRecord {
        generation,
        phase: GroupPhase::Stable,
        leader: Some("a".to_owned()),
        members: vec![MemberRecord { id: "a".to_owned(), ..MemberRecord::default() }],
        ..GroupRecord::default()
    }
}

fn commit_at(offset: u64) -> GroupChange {
    let (offset, epoch, metadata) = (Offset::new(offset), None, None);
    let offsets = vec![OffsetCommit { partition: partition(), offset, epoch, metadata }];
    GroupChange::Commit { group: group(), by: Committer::Member { generation: 3 }, offsets }
}

/// The state of the other tests with group "g", whose one member has read a partition.
fn state_with_groups() -> State {
    let mut state = state();
    let (node, directory) = (NodeId::new(1), DirectoryId::from_bytes([1; 16]));
    let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
    apply(&mut state, Command::AdmitNode { node, directory, features, version: String::new() });
    apply(&mut state, Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS });
    let store = GroupChange::Store { group: group(), record: record(3) };
    apply(&mut state, change(1, vec![GroupChange::Claim { group: group() }, store, commit_at(3)]));
    assert_eq!(check(&state), Ok(()));
    assert_eq!(state.group(&group()).expect("it was made").offsets().len(), 1);
    state
}

fn entry(state: &mut State) -> &mut GroupEntry {
    let groups = Arc::make_mut(&mut state.groups.by_id);
    Arc::make_mut(groups.get_mut(&group()).expect("it was made"))
}

/// Damages the group, and counts its bytes anew.
#[track_caller]
fn check_group_found(invariant: &str, damage: impl FnOnce(&mut GroupEntry)) {
    let mut state = state_with_groups();
    damage(entry(&mut state));
    state.groups.bytes = state.groups.count_bytes();
    assert_eq!(check(&state).expect_err("the damage went unnoticed").invariant, invariant);
}

#[test]
fn damage_to_a_group_is_found() {
    let with_record = |entry: &mut GroupEntry, change: fn(&mut GroupRecord)| {
        change(Arc::make_mut(&mut entry.record));
    };
    check_group_found("I11", |entry| with_record(entry, |record| record.leader = Some("b".to_owned())));
    check_group_found("I11", |entry| with_record(entry, |record| record.phase = GroupPhase::Empty));
    check_group_found("I11", |entry| with_record(entry, |record| record.members.clear()));
    check_group_found("I11", |entry| {
        with_record(entry, |record| record.members.push(record.members[0].clone()));
    });
    check_group_found("I10", |entry| {
        with_record(entry, |record| record.members[0].assignment = vec![0; 4 << 20]);
    });
    check_group_found("I9", |entry| entry.owner = Some((NodeId::new(1), Incarnation::new(2))));
    check_group_found("I9", |entry| entry.owner = Some((NodeId::new(7), Incarnation::new(1))));
    check_group_found("I8", |entry| entry.since = Timestamp::from_millis(1_001));
}

#[test]
fn damage_to_committed_offsets_is_found() {
    let read = |at: i64, bytes: usize| CommittedOffset {
        offset: Offset::new(1),
        epoch: None,
        metadata: Some("x".repeat(bytes)),
        committed: Timestamp::from_millis(at),
    };
    let put = |index: u32, read: CommittedOffset| {
        move |entry: &mut GroupEntry| {
            let partition = PartitionId::new(TopicId::new(1), PartitionIndex::new(index));
            Arc::make_mut(&mut entry.offsets).insert(partition, read);
        }
    };
    check_group_found("I11", put(1, read(1_000, 0)));
    check_group_found("I8", put(0, read(1_001, 0)));
    check_group_found("I10", put(0, read(1_000, 4_097)));
}

#[test]
fn damage_to_the_table_of_groups_is_found() {
    #[track_caller]
    fn check_found(invariant: &str, damage: impl FnOnce(&mut State)) {
        let mut state = state_with_groups();
        damage(&mut state);
        assert_eq!(check(&state).expect_err("the damage went unnoticed").invariant, invariant);
    }
    check_found("I8", |state| state.fleet.feature_level = FeatureLevel::FIRST);
    check_found("I10", |state| state.groups.bytes += 1);
    let writer = |state: &State| state.groups.writers[&NodeId::new(1)].clone();
    check_found("I11", |state| {
        let closed = crate::groups::Writer { incarnation: Incarnation::new(2), ..writer(state) };
        state.groups.writers.insert(NodeId::new(1), closed);
    });
    check_found("I11", |state| {
        state.groups.writers.insert(NodeId::new(2), writer(state));
    });
}

#[track_caller]
fn check_went_back(before: &State, after: &State) {
    let mut after = after.clone();
    after.skip_to(LogIndex::new(100));
    assert_eq!(check(&after), Ok(()));
    assert_eq!(check_step(before, &after).expect_err("it went unnoticed").invariant, "I11");
}

#[test]
fn groups_that_go_back_are_found() {
    let before = state_with_groups();
    let mut changed = before.clone();
    apply(&mut changed, Command::Tick { now: Timestamp::from_millis(2_000) });
    let store = GroupChange::Store { group: group(), record: record(3) };
    apply(&mut changed, change(2, vec![store, commit_at(4)]));
    assert_eq!(check_step(&before, &changed), Ok(()));
    // The number of the last changes, and with it the older commit.
    check_went_back(&changed, &State { groups: before.groups.clone(), ..changed.clone() });
    let mut forgotten = changed.clone();
    forgotten.groups.writers.clear();
    check_went_back(&changed, &forgotten);
    let mut older = changed.clone();
    entry(&mut older).offsets = before.group(&group()).expect("it was made").offsets.clone();
    check_went_back(&changed, &older);
    let mut generation = changed.clone();
    entry(&mut generation).record = Arc::new(record(2));
    check_went_back(&changed, &generation);
    // Between several commands it may have been deleted and made again.
    generation.skip_to(LogIndex::new(100));
    assert_eq!(check_span(&changed, &generation), Ok(()));
}
