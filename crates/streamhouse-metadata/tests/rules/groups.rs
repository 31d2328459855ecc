//! Consumer groups: one owner, generations that only rise, offsets that never go back by themselves.

use streamhouse_metadata::{
    ChangeGroups, Command, Committer, FeatureLevel, GroupChange, GroupEntry, GroupPhase, GroupRecord,
    GroupRefusal, GroupVerdict, MemberRecord, MemberRefusal, OffsetCommit, Outcome, Refusal, SlotRefusal,
};
use streamhouse_types::{Epoch, GroupId, Incarnation, NodeId, PartitionId, SlotSequence, TopicId};

use crate::world::{NOW, World, create, offset, p, register, time};

fn group(id: &str) -> GroupId {
    id.parse().unwrap()
}

fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

fn world() -> World {
    World::with_groups()
}

fn changes(id: u64, incarnation: u64, sequence: u64, changes: Vec<GroupChange>) -> Command {
    let (node, incarnation) = (node(id), Incarnation::new(incarnation));
    Command::ChangeGroups(ChangeGroups { node, incarnation, sequence, changes })
}

/// A node that changes groups, one command after the other.
struct Coordinator {
    node: u64,
    incarnation: u64,
    sequence: u64,
}

impl Coordinator {
    fn new(node: u64) -> Self {
        Self { node, incarnation: 1, sequence: 0 }
    }

    fn command(&mut self, all: impl IntoIterator<Item = GroupChange>) -> Command {
        self.sequence += 1;
        changes(self.node, self.incarnation, self.sequence, all.into_iter().collect())
    }

    #[track_caller]
    fn change(&mut self, world: &mut World, change: GroupChange) -> GroupVerdict {
        match world.outcome(self.command([change])) {
            Outcome::GroupsChanged { mut verdicts } if verdicts.len() == 1 => verdicts.remove(0),
            other => panic!("not judged: {other:?}"),
        }
    }

    #[track_caller]
    fn done(&mut self, world: &mut World, change: GroupChange) {
        assert_eq!(self.change(world, change), GroupVerdict::Done);
    }

    /// The owner of group "g".
    fn of_g(world: &mut World) -> Self {
        let mut coordinator = Self::new(1);
        coordinator.done(world, claim("g"));
        coordinator
    }
}

fn claim(id: &str) -> GroupChange {
    GroupChange::Claim { group: group(id) }
}

fn store(id: &str, record: GroupRecord) -> GroupChange {
    GroupChange::Store { group: group(id), record }
}

fn commit(id: &str, by: Committer, offsets: Vec<OffsetCommit>) -> GroupChange {
    GroupChange::Commit { group: group(id), by, offsets }
}

fn outside(partition: PartitionId, at: u64) -> GroupChange {
    commit("g", Committer::Outside, vec![at_offset(partition, at)])
}

fn member_commit(generation: u32, partition: PartitionId, at: u64) -> GroupChange {
    commit("g", Committer::Member { generation }, vec![at_offset(partition, at)])
}

fn at_offset(partition: PartitionId, at: u64) -> OffsetCommit {
    OffsetCommit { partition, offset: offset(at), epoch: None, metadata: None }
}

fn committed() -> GroupVerdict {
    GroupVerdict::Committed { unknown: Vec::new() }
}

/// A stable group of these members, the first of which leads.
fn members(generation: u32, ids: &[&str]) -> GroupRecord {
    let member = |id: &&str| MemberRecord {
        id: (*id).to_owned(),
        instance: Some(format!("static-{id}")),
        client: "rdkafka".to_owned(),
        host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 300_000,
        protocols: vec![("range".to_owned(), vec![0, 1, 2]), ("roundrobin".to_owned(), Vec::new())],
        assignment: vec![3; 40],
    };
    GroupRecord {
        protocol_type: "consumer".to_owned(),
        generation,
        phase: if ids.is_empty() { GroupPhase::Empty } else { GroupPhase::Stable },
        protocol: ids.first().map(|_| "range".to_owned()),
        leader: ids.first().map(|id| (*id).to_owned()),
        members: ids.iter().map(member).collect(),
    }
}

fn entry(world: &World) -> &GroupEntry {
    world.state.group(&group("g")).unwrap()
}

/// Partition index and offset of each that the group has read.
fn read(world: &World) -> Vec<(u32, u64)> {
    entry(world).offsets().map(|(at, read)| (at.index.get(), read.offset.get())).collect()
}

fn tick(world: &mut World, millis: i64) {
    world.done(Command::Tick { now: time(NOW + millis) });
}

fn seek(offsets: Vec<(PartitionId, Option<u64>)>) -> Command {
    let offsets = offsets.into_iter().map(|(at, to)| (at, to.map(offset))).collect();
    Command::SeekGroup { request: [0; 16], group: group("g"), offsets, validate_only: false }
}

fn delete() -> Command {
    Command::DeleteGroup { request: [0; 16], group: group("g") }
}

fn expire(millis: i64) -> Command {
    Command::ExpireGroups { cutoff: time(NOW + millis) }
}

#[test]
fn below_their_feature_level_there_are_no_groups() {
    let mut world = World::new();
    let (needed, level) = (FeatureLevel::GROUPS, FeatureLevel::FIRST);
    let too_low = Outcome::MemberRefused(MemberRefusal::LevelTooLow { needed, level });
    let claim = changes(1, 1, 1, vec![claim("g")]);
    for command in [claim, delete(), seek(vec![(p(0), Some(1))]), expire(0)] {
        assert_eq!(world.changes_nothing(command), too_low);
    }
}

#[test]
fn a_claim_makes_the_group_and_its_owner() {
    let mut world = world();
    tick(&mut world, 500);
    let mut coordinator = Coordinator::of_g(&mut world);
    let made = entry(&world);
    assert_eq!((made.owner(), made.since()), (Some((node(1), Incarnation::new(1))), time(NOW + 500)));
    assert_eq!((&**made.record(), made.offsets().len()), (&GroupRecord::default(), 0));
    coordinator.done(&mut world, claim("other"));
    let ids: Vec<_> = world.state.groups().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["g", "other"]);
}

#[test]
fn only_the_owner_changes_a_group() {
    let mut world = world();
    let mut first = Coordinator::of_g(&mut world);
    first.done(&mut world, store("g", members(3, &["a"])));
    assert_eq!(first.change(&mut world, member_commit(3, p(0), 5)), committed());
    let mut second = Coordinator::new(2);
    let delete = || GroupChange::DeleteOffsets { group: group("g"), partitions: vec![p(0)] };
    let all = || [store("g", members(4, &["b"])), member_commit(3, p(0), 6), delete()];
    for change in all() {
        assert_eq!(second.change(&mut world, change), GroupVerdict::NotOwner);
    }
    second.done(&mut world, claim("g"));
    assert_eq!((entry(&world).record().generation, read(&world)), (3, vec![(0, 5)]), "a claim keeps what is");
    for change in all() {
        assert_eq!(first.change(&mut world, change), GroupVerdict::NotOwner);
    }
    assert_eq!(read(&world), [(0, 5)]);
    second.done(&mut world, store("g", members(4, &["b"])));
}

#[test]
fn an_owner_that_started_again_claims_again() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    world.apply(Command::RegisterNode(register(1, 9)));
    (coordinator.incarnation, coordinator.sequence) = (2, 0);
    assert_eq!(coordinator.change(&mut world, outside(p(0), 5)), GroupVerdict::NotOwner);
    coordinator.done(&mut world, claim("g"));
    assert_eq!(coordinator.change(&mut world, outside(p(0), 5)), committed());
}

#[test]
fn a_group_that_is_not_there_is_told_apart() {
    let mut world = world();
    let mut coordinator = Coordinator::new(1);
    let delete = GroupChange::DeleteOffsets { group: group("g"), partitions: vec![p(0)] };
    for change in [store("g", members(1, &["a"])), outside(p(0), 1), delete] {
        assert_eq!(coordinator.change(&mut world, change), GroupVerdict::UnknownGroup);
    }
    assert_eq!(world.state.groups().len(), 0);
}

#[test]
fn a_late_copy_sets_no_offset_back() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    let old = coordinator.command([outside(p(0), 5)]);
    let expected = Outcome::GroupsChanged { verdicts: vec![committed()] };
    assert_eq!(world.outcome(old.clone()), expected);
    assert_eq!(world.changes_nothing(old.clone()), expected, "its answer was lost");
    assert_eq!(coordinator.change(&mut world, outside(p(0), 9)), committed());
    let lo = SlotSequence::new(4);
    let below = Outcome::SlotRefused(SlotRefusal::BelowLo { lo });
    assert_eq!(world.changes_nothing(old.clone()), below);
    // Nor when the owner has started again since, and owns the group once more.
    world.apply(Command::RegisterNode(register(1, 9)));
    let current = Some(Incarnation::new(2));
    let closed = Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current });
    assert_eq!(world.changes_nothing(old.clone()), closed);
    world.done(Command::CloseIncarnation { node: node(1), incarnation: Incarnation::new(2) });
    let closed = Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current: None });
    assert_eq!(world.changes_nothing(old), closed);
    assert_eq!(read(&world), [(0, 9)]);
}

#[test]
fn changes_are_taken_in_the_order_of_their_numbers() {
    let mut world = world();
    assert_eq!(world.changes_nothing(changes(1, 1, 2, vec![claim("g")])), Outcome::NotYet);
    let below = Outcome::SlotRefused(SlotRefusal::BelowLo { lo: SlotSequence::new(1) });
    assert_eq!(world.changes_nothing(changes(1, 1, 0, vec![claim("g")])), below);
    let none = Outcome::GroupsChanged { verdicts: Vec::new() };
    assert_eq!(world.outcome(changes(1, 1, 1, Vec::new())), none);
    assert_eq!(world.changes_nothing(changes(1, 1, 3, vec![claim("g")])), Outcome::NotYet);
    // Each node, and each incarnation, counts for itself.
    assert_eq!(world.outcome(changes(2, 1, 1, Vec::new())), none);
    world.apply(Command::RegisterNode(register(1, 9)));
    assert_eq!(world.changes_nothing(changes(1, 2, 2, Vec::new())), Outcome::NotYet);
    assert_eq!(world.outcome(changes(1, 2, 1, Vec::new())), none);
    let closed = Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current: None });
    assert_eq!(world.changes_nothing(changes(9, 1, 1, Vec::new())), closed, "it never registered");
}

#[test]
fn each_change_has_a_verdict_of_its_own() {
    let mut world = world();
    let mut coordinator = Coordinator::new(1);
    let all = [claim("g"), store("x", members(1, &["a"])), outside(p(0), 7), member_commit(1, p(0), 8)];
    let expected =
        [GroupVerdict::Done, GroupVerdict::UnknownGroup, committed(), GroupVerdict::StaleGeneration];
    let outcome = world.outcome(coordinator.command(all));
    assert_eq!(outcome, Outcome::GroupsChanged { verdicts: expected.to_vec() });
    assert_eq!(read(&world), [(0, 7)]);
}

#[test]
fn a_generation_never_goes_back() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    coordinator.done(&mut world, store("g", members(5, &["a", "b"])));
    let stale = coordinator.change(&mut world, store("g", members(4, &["c"])));
    assert_eq!(stale, GroupVerdict::StaleGeneration);
    assert_eq!(**entry(&world).record(), members(5, &["a", "b"]));
    // The assignments come, or a static member is replaced, within a generation.
    coordinator.done(&mut world, store("g", members(5, &["a", "c"])));
    assert!(entry(&world).record().member("c").is_some() && entry(&world).record().member("b").is_none());
}

#[test]
fn only_the_newest_generation_commits() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    coordinator.done(&mut world, store("g", members(5, &["a"])));
    for generation in [4, 6] {
        let verdict = coordinator.change(&mut world, member_commit(generation, p(0), 1));
        assert_eq!(verdict, GroupVerdict::StaleGeneration);
    }
    assert_eq!(coordinator.change(&mut world, outside(p(0), 1)), GroupVerdict::HasMembers);
    assert_eq!(coordinator.change(&mut world, member_commit(5, p(0), 2)), committed());
    coordinator.done(&mut world, store("g", members(5, &[])));
    let verdict = coordinator.change(&mut world, member_commit(5, p(0), 3));
    assert_eq!(verdict, GroupVerdict::StaleGeneration, "a member of a group without members");
    assert_eq!(coordinator.change(&mut world, outside(p(0), 4)), committed());
    assert_eq!(read(&world), [(0, 4)]);
}

#[test]
fn offsets_are_kept_as_they_were_committed() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    tick(&mut world, 70);
    let noted = |metadata: Option<&str>, at| OffsetCommit {
        epoch: Some(Epoch::new(3)),
        metadata: metadata.map(str::to_owned),
        ..at_offset(p(1), at)
    };
    let offsets = vec![noted(Some("a"), 3), at_offset(p(3), 9), noted(Some(""), 4)];
    assert_eq!(coordinator.change(&mut world, commit("g", Committer::Outside, offsets)), committed());
    assert_eq!(read(&world), [(1, 4), (3, 9)], "the later of two counts");
    let kept = entry(&world).offset(p(1)).unwrap();
    assert_eq!((kept.epoch, kept.metadata.as_deref()), (Some(Epoch::new(3)), Some("")));
    assert_eq!(kept.committed, time(NOW + 70));
    let kept = entry(&world).offset(p(3)).unwrap();
    assert_eq!((kept.epoch, kept.metadata.as_deref()), (None, None));
    // Back is where a consumer may go, when it says so.
    assert_eq!(coordinator.change(&mut world, outside(p(1), 1)), committed());
    assert_eq!(read(&world), [(1, 1), (3, 9)]);
}

#[test]
fn what_does_not_exist_is_not_committed() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    let offsets = vec![at_offset(p(9), 1), at_offset(p(0), 2), at_offset(p(7), 3)];
    let verdict = coordinator.change(&mut world, commit("g", Committer::Outside, offsets));
    assert_eq!(verdict, GroupVerdict::Committed { unknown: vec![p(9), p(7)] });
    assert_eq!(read(&world), [(0, 2)]);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    world.apply(Command::CreateTopic(create("other", 1)));
    let other = PartitionId { topic: TopicId::new(2), ..p(0) };
    let offsets = vec![at_offset(p(0), 1), at_offset(other, 2)];
    coordinator.change(&mut world, commit("g", Committer::Outside, offsets));
    let topic = TopicId::new(1);
    world.done(Command::DeleteTopic { request: [0; 16], topic, validate_only: true });
    assert_eq!(entry(&world).offsets().len(), 2, "only checked");
    world.done(Command::DeleteTopic { request: [0; 16], topic, validate_only: false });
    let left: Vec<_> = entry(&world).offsets().map(|(at, _)| at).collect();
    assert_eq!(left, [other]);
}

#[test]
fn offsets_are_deleted_by_the_owner() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    let offsets = (0..3).map(|index| at_offset(p(index), 1)).collect();
    coordinator.change(&mut world, commit("g", Committer::Outside, offsets));
    let partitions = vec![p(0), p(2), p(3)];
    coordinator.done(&mut world, GroupChange::DeleteOffsets { group: group("g"), partitions });
    assert_eq!(read(&world), [(1, 1)]);
}

#[test]
fn a_record_whose_parts_do_not_fit_is_refused() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    let mut check = |change: fn(&mut GroupRecord)| {
        let mut record = members(1, &["a", "b"]);
        change(&mut record);
        let before = entry(&world).clone();
        assert_eq!(coordinator.change(&mut world, store("g", record)), GroupVerdict::Malformed);
        assert_eq!(*entry(&world), before);
    };
    check(|record| record.members[1].id = "a".to_owned());
    check(|record| record.leader = Some("c".to_owned()));
    check(|record| record.leader = None);
    check(|record| record.phase = GroupPhase::Empty);
    check(|record| record.members.clear());
    check(|record| *record = GroupRecord { phase: GroupPhase::Stable, ..members(1, &[]) });
    check(|record| record.generation = 1 << 31);
}

#[test]
fn what_is_too_large_is_refused() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    let limited = |verdict: &GroupVerdict| match verdict {
        GroupVerdict::Limit { limit, .. } => *limit,
        other => panic!("not refused: {other:?}"),
    };
    let record = |bytes| {
        let mut record = members(1, &["a"]);
        record.members[0].assignment = vec![0; bytes];
        store("g", record)
    };
    assert_eq!(limited(&coordinator.change(&mut world, record(4 << 20))), 4 << 20);
    coordinator.done(&mut world, record((4 << 20) - 200));
    coordinator.done(&mut world, store("g", members(1, &[])));
    let noted = |index, bytes| OffsetCommit { metadata: Some("x".repeat(bytes)), ..at_offset(p(index), 1) };
    let offsets = vec![noted(0, 1), noted(1, 4_097)];
    let verdict = coordinator.change(&mut world, commit("g", Committer::Outside, offsets));
    assert_eq!(limited(&verdict), 4_096);
    assert_eq!(read(&world), [], "wholly or not at all");
    let offsets = vec![noted(0, 1), noted(1, 4_096)];
    assert_eq!(coordinator.change(&mut world, commit("g", Committer::Outside, offsets)), committed());
}

#[test]
fn a_group_without_members_is_deleted_once_a_request() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    coordinator.done(&mut world, store("g", members(1, &["a"])));
    assert_eq!(world.changes_nothing(delete()), Outcome::GroupRefused(GroupRefusal::HasMembers));
    coordinator.done(&mut world, store("g", members(1, &[])));
    let request = [5; 16];
    let remembered = Command::DeleteGroup { request, group: group("g") };
    world.done(remembered.clone());
    assert!(world.state.group(&group("g")).is_none());
    assert_eq!(world.changes_nothing(delete()), Outcome::GroupRefused(GroupRefusal::UnknownGroup));
    assert_eq!(coordinator.change(&mut world, outside(p(0), 1)), GroupVerdict::UnknownGroup);
    coordinator.done(&mut world, claim("g"));
    assert_eq!(world.changes_nothing(remembered), Outcome::Done, "a late copy");
    assert!(world.state.group(&group("g")).is_some());
}

#[test]
fn a_group_without_members_goes_on_from_where_it_is_told() {
    let mut world = world();
    tick(&mut world, 30);
    let to = seek(vec![(p(0), Some(7)), (p(1), Some(8))]);
    let Command::SeekGroup { request, group, offsets, .. } = to.clone() else { unreachable!() };
    let check = Command::SeekGroup { request, group, offsets, validate_only: true };
    assert_eq!(world.changes_nothing(check), Outcome::Done);
    world.done(to);
    assert_eq!((read(&world), entry(&world).owner()), (vec![(0, 7), (1, 8)], None));
    assert_eq!(entry(&world).offset(p(0)).unwrap().committed, time(NOW + 30));
    world.done(seek(vec![(p(0), None), (p(1), Some(2)), (p(2), None)]));
    assert_eq!(read(&world), [(1, 2)]);
    let unknown = Outcome::Refused(Refusal::UnknownPartition);
    assert_eq!(world.changes_nothing(seek(vec![(p(0), Some(1)), (p(9), None)])), unknown);
    let mut coordinator = Coordinator::of_g(&mut world);
    coordinator.done(&mut world, store("g", members(1, &["a"])));
    let refused = world.changes_nothing(seek(vec![(p(0), Some(1))]));
    assert_eq!(refused, Outcome::GroupRefused(GroupRefusal::HasMembers));
}

#[test]
fn offsets_expire_when_the_group_has_long_had_no_members() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    coordinator.done(&mut world, store("g", members(1, &["a"])));
    coordinator.change(&mut world, member_commit(1, p(0), 5));
    tick(&mut world, 100);
    assert_eq!(world.changes_nothing(expire(99)), Outcome::Done, "it has members");
    coordinator.done(&mut world, store("g", members(2, &[])));
    assert_eq!(entry(&world).since(), time(NOW + 100));
    tick(&mut world, 200);
    coordinator.change(&mut world, outside(p(1), 6));
    coordinator.done(&mut world, store("g", members(3, &[])));
    assert_eq!(entry(&world).since(), time(NOW + 100), "it has had none before");
    assert_eq!(world.changes_nothing(expire(100)), Outcome::Done, "not yet older than the cutoff");
    world.done(expire(101));
    assert_eq!(read(&world), [(1, 6)]);
    world.done(expire(201));
    assert!(world.state.group(&group("g")).is_none(), "nothing is left of it");
}

#[test]
fn a_group_that_was_only_claimed_expires() {
    let mut world = world();
    Coordinator::of_g(&mut world);
    assert_eq!(world.changes_nothing(expire(0)), Outcome::Done);
    world.done(expire(1));
    assert_eq!(world.state.groups().len(), 0);
}

#[test]
fn of_several_offsets_of_a_partition_in_one_commit_the_last_counts() {
    let mut world = world();
    let mut coordinator = Coordinator::of_g(&mut world);
    assert_eq!(coordinator.change(&mut world, outside(p(0), 1)), committed());
    let again = (2..40).map(|at| OffsetCommit { metadata: Some("a note".to_owned()), ..at_offset(p(0), at) });
    let change = commit("g", Committer::Outside, again.chain([at_offset(p(1), 7)]).collect());
    assert_eq!(coordinator.change(&mut world, change), committed());
    assert_eq!(read(&world), [(0, 39), (1, 7)]);
}
