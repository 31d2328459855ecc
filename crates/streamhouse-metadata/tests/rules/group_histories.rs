//! Changes of groups in any order, repeated and late: each is carried out at most once, and only for who may.

use std::collections::BTreeMap;

use proptest::prelude::*;
use streamhouse_metadata::{
    ChangeGroups, Command, Committer, GroupChange, GroupPhase, GroupRecord, GroupVerdict, MemberRecord,
    OffsetCommit, Outcome, State,
};
use streamhouse_types::{GroupId, Incarnation, NodeId, PartitionId, PartitionIndex, TopicId};

use crate::world::{NOW, World, create, offset, register, time};

/// Topic 2 and the partitions past the third may not exist.
fn partition() -> impl Strategy<Value = PartitionId> {
    (1_u64..3, 0_u32..6)
        .prop_map(|(topic, index)| PartitionId::new(TopicId::new(topic), PartitionIndex::new(index)))
}

fn group() -> impl Strategy<Value = GroupId> {
    prop::sample::select(vec!["g", "h"]).prop_map(|id| id.parse().unwrap())
}

/// Now and then of parts that do not fit each other.
fn record() -> impl Strategy<Value = GroupRecord> {
    let phase = prop::sample::select(vec![GroupPhase::Completing, GroupPhase::Stable]);
    (0_u32..6, prop::collection::vec(0_u8..4, 0..4), phase, 0_u8..10).prop_map(
        |(generation, ids, phase, odd)| {
            let member = |id: &u8| MemberRecord { id: format!("m{id}"), ..MemberRecord::default() };
            GroupRecord {
                generation,
                phase: if ids.is_empty() && odd > 0 { GroupPhase::Empty } else { phase },
                leader: ids.first().map(|id| format!("m{id}")).filter(|_| odd != 1),
                members: ids.iter().map(member).collect(),
                ..GroupRecord::default()
            }
        },
    )
}

fn offset_commit() -> impl Strategy<Value = OffsetCommit> {
    let metadata = prop::option::of("[a-z]{0,3}");
    (partition(), 0_u64..50, metadata).prop_map(|(partition, at, metadata)| OffsetCommit {
        partition,
        offset: offset(at),
        epoch: None,
        metadata,
    })
}

fn change() -> impl Strategy<Value = GroupChange> {
    let by = prop_oneof![
        (0_u32..6).prop_map(|generation| Committer::Member { generation }),
        Just(Committer::Outside)
    ];
    prop_oneof![
        2 => group().prop_map(|group| GroupChange::Claim { group }),
        3 => (group(), record()).prop_map(|(group, record)| GroupChange::Store { group, record }),
        4 => (group(), by, prop::collection::vec(offset_commit(), 0..4))
            .prop_map(|(group, by, offsets)| GroupChange::Commit { group, by, offsets }),
        1 => (group(), prop::collection::vec(partition(), 0..3))
            .prop_map(|(group, partitions)| GroupChange::DeleteOffsets { group, partitions }),
    ]
}

fn change_groups() -> impl Strategy<Value = Command> {
    let writer = (1_u64..3, 1_u64..3, 1_u64..5);
    (writer, prop::collection::vec(change(), 0..4)).prop_map(|((node, incarnation, sequence), changes)| {
        let (node, incarnation) = (NodeId::new(node), Incarnation::new(incarnation));
        Command::ChangeGroups(ChangeGroups { node, incarnation, sequence, changes })
    })
}

/// Any command about groups, as likely late as not.
pub(crate) fn of_groups() -> impl Strategy<Value = Command> {
    let request = || (0_u8..6).prop_map(|id| [id; 16]);
    let sought = prop::collection::vec((partition(), prop::option::of((0_u64..50).prop_map(offset))), 0..4);
    prop_oneof![
        6 => change_groups(),
        1 => (request(), group()).prop_map(|(request, group)| Command::DeleteGroup { request, group }),
        2 => (request(), group(), sought, any::<bool>()).prop_map(|(request, group, offsets, validate_only)| {
            Command::SeekGroup { request, group, offsets, validate_only }
        }),
        1 => (NOW - 100..NOW + 9_999).prop_map(|cutoff| Command::ExpireGroups { cutoff: time(cutoff) }),
    ]
}

/// What a coordinator does next, or what happens to what it did.
#[derive(Debug, Clone)]
enum Step {
    /// Node 1 or 2 proposes its next change.
    Propose(u64, GroupChange),
    /// A copy of a proposal comes again: the one so many proposals ago.
    Repeat(usize),
    /// A node starts again.
    Restart(u64),
    /// Something else happens to the groups.
    Other(Command),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let others = prop_oneof![
        (NOW..NOW + 10_000).prop_map(|now| Command::Tick { now: time(now) }),
        Just(Command::CreateTopic(create("second", 2))),
        (1_u64..3).prop_map(|topic| Command::DeleteTopic {
            request: [0; 16],
            topic: TopicId::new(topic),
            validate_only: false
        }),
        of_groups().prop_filter("numbered by the coordinators alone", |command| !matches!(
            command,
            Command::ChangeGroups(_)
        )),
    ];
    let step = prop_oneof![
        12 => (1_u64..3, change()).prop_map(|(node, change)| Step::Propose(node, change)),
        5 => (0_usize..12).prop_map(Step::Repeat),
        1 => (1_u64..3).prop_map(Step::Restart),
        2 => others.prop_map(Step::Other),
    ];
    prop::collection::vec(step, 1..60)
}

/// The coordinators of two nodes, which number their changes as they must.
struct Coordinators {
    world: World,
    /// Of each node: its incarnation, and the number of its last change.
    at: BTreeMap<u64, (u64, u64)>,
    proposed: Vec<(Command, Outcome)>,
}

impl Coordinators {
    fn new() -> Self {
        let at = [(1, (1, 0)), (2, (1, 0))].into_iter().collect();
        Self { world: World::with_groups(), at, proposed: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Propose(node, change) => self.propose(node, change),
            Step::Repeat(back) => self.repeat(back),
            Step::Restart(node) => {
                self.world.apply(Command::RegisterNode(register(node, 0)));
                let (incarnation, _) = self.at[&node];
                self.at.insert(node, (incarnation + 1, 0));
            }
            Step::Other(command) => {
                self.world.apply(command);
            }
        }
    }

    fn propose(&mut self, node: u64, change: GroupChange) {
        let (incarnation, sequence) = self.at[&node];
        self.at.insert(node, (incarnation, sequence + 1));
        let (proposer, incarnation) = (NodeId::new(node), Incarnation::new(incarnation));
        let changes = vec![change.clone()];
        let command = ChangeGroups { node: proposer, incarnation, sequence: sequence + 1, changes };
        let before = self.world.state.clone();
        let command = Command::ChangeGroups(command);
        let outcome = self.world.outcome(command.clone());
        let Outcome::GroupsChanged { verdicts } = &outcome else { panic!("not judged: {outcome:?}") };
        assert_eq!(verdicts.len(), 1);
        check_verdict(&before, &self.world.state, (proposer, incarnation), &change, &verdicts[0]);
        self.proposed.push((command, outcome));
    }

    /// The newest of an open incarnation gets its first answer, any other is refused; none changes anything.
    fn repeat(&mut self, back: usize) {
        let Some((command, first)) = self.proposed.iter().rev().nth(back).cloned() else {
            return;
        };
        let Command::ChangeGroups(ChangeGroups { node, incarnation, sequence, .. }) = &command else {
            unreachable!("only such are proposed")
        };
        let newest = self.at[&node.get()] == (incarnation.get(), *sequence);
        let again = self.world.changes_nothing(command);
        assert_eq!(again == first, newest, "{again:?}");
        assert!(newest || matches!(again, Outcome::SlotRefused(_)), "{again:?}");
    }
}

/// Whether the verdict is what the rules say, and the group what the verdict says.
fn check_verdict(
    before: &State,
    after: &State,
    proposer: (NodeId, Incarnation),
    change: &GroupChange,
    verdict: &GroupVerdict,
) {
    let (was, is) = (before.group(change.group()), after.group(change.group()));
    match change {
        GroupChange::Claim { .. } => {
            assert_eq!(*verdict, GroupVerdict::Done);
            assert_eq!(is.unwrap().owner(), Some(proposer));
            return;
        }
        _ if was.is_none() => assert_eq!(*verdict, GroupVerdict::UnknownGroup),
        _ if was.unwrap().owner() != Some(proposer) => assert_eq!(*verdict, GroupVerdict::NotOwner),
        GroupChange::Store { record, .. } => {
            let stale = record.generation < was.unwrap().record().generation;
            assert_eq!(*verdict == GroupVerdict::StaleGeneration, stale);
            assert!(*verdict != GroupVerdict::Done || **is.unwrap().record() == *record);
        }
        GroupChange::Commit { by, offsets, .. } => {
            let current = was.unwrap().has_members().then(|| was.unwrap().record().generation);
            let expected = match (by, current) {
                (Committer::Member { generation }, Some(current)) if *generation == current => None,
                (Committer::Member { .. }, _) => Some(GroupVerdict::StaleGeneration),
                (Committer::Outside, Some(_)) => Some(GroupVerdict::HasMembers),
                (Committer::Outside, None) => None,
            };
            let unknown = |commit: &&OffsetCommit| after.partition(commit.partition).is_none();
            let unknown = offsets.iter().filter(unknown).map(|commit| commit.partition).collect();
            let committed = GroupVerdict::Committed { unknown };
            assert_eq!(*verdict, expected.unwrap_or(committed));
        }
        GroupChange::DeleteOffsets { partitions, .. } => {
            assert_eq!(*verdict, GroupVerdict::Done);
            assert!(partitions.iter().all(|partition| is.unwrap().offset(*partition).is_none()));
        }
    }
    let changed = matches!(verdict, GroupVerdict::Done | GroupVerdict::Committed { .. });
    assert!(changed || was == is, "refused with {verdict:?}, and changed all the same");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn each_change_is_carried_out_at_most_once_and_only_for_who_may(steps in steps()) {
        let mut coordinators = Coordinators::new();
        for step in steps {
            coordinators.take(step);
        }
    }
}
