//! Any commands in any order: the invariants hold, replicas agree, and idempotent batches are in the log once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use streamhouse_metadata::{
    Command, CommitObject, CreateTopic, DirectoryId, Drain, FeatureLevel, FeatureRange, ForgetObjects,
    HomeMove, Liveness, Outcome, ProducerWindow, Row, State, TrimPartition, Unit, Verdict, VoterCount, codec,
    placement,
};
use streamhouse_types::{
    Attempt, Epoch, Incarnation, Lane, LogIndex, NodeId, ObjectId, PartitionId, PartitionIndex, ProducerId,
    Slot, SlotSequence, TopicId,
};

use crate::group_histories::of_groups;
use crate::world::{NOW, World, commit, create, next_is, offset, register, row, sent, time};

fn partition() -> impl Strategy<Value = PartitionId> {
    (1_u64..4, 0_u32..3)
        .prop_map(|(topic, index)| PartitionId::new(TopicId::new(topic), PartitionIndex::new(index)))
}

/// Ids 1 to 3 of either kind; the last of each may not be granted yet.
fn producer() -> impl Strategy<Value = ProducerId> {
    (0_u64..3, any::<bool>())
        .prop_map(|(id, native)| ProducerId::new(if native { (1 << 40) + id } else { 1 + id * 5 }))
}

fn rows() -> impl Strategy<Value = Row> {
    let idempotent = prop::option::weighted(0.7, (producer(), 0_u16..2, 0_u32..12));
    (partition(), 1_u32..4, idempotent).prop_map(|(partition, records, producer)| {
        let producer = producer.and_then(|(id, epoch, first)| sent(id, epoch, first));
        Row { producer, ..row(partition, records) }
    })
}

fn units() -> impl Strategy<Value = Unit> {
    let condition = prop::option::weighted(0.1, (partition(), 0_u64..5));
    (condition, prop::collection::vec(rows(), 1..4)).prop_map(|(condition, rows)| {
        let preconditions = condition.map(|(partition, next)| next_is(partition, next)).into_iter().collect();
        Unit { preconditions, rows }
    })
}

fn slots() -> impl Strategy<Value = Slot> {
    let lane = prop::sample::select(vec![Lane::Wal, Lane::Wal, Lane::Merge]);
    (1_u64..3, 1_u64..4, lane, 1_u64..12).prop_map(|(node, incarnation, lane, sequence)| Slot {
        node: NodeId::new(node),
        incarnation: Incarnation::new(incarnation),
        lane,
        sequence: SlotSequence::new(sequence),
    })
}

fn commits() -> impl Strategy<Value = Command> {
    let parts =
        (slots(), 0_u32..2, 0_u64..3, 0_u64..4, NOW - 100..NOW + 9_999, prop::collection::vec(units(), 0..5));
    parts.prop_map(|(slot, attempt, back, behind, at, units)| {
        let sequence = slot.sequence.get();
        Command::CommitObject(CommitObject {
            slot,
            attempt: Attempt::new(attempt),
            prev: SlotSequence::new(sequence.saturating_sub(back)),
            lo: SlotSequence::new(sequence.saturating_sub(behind)),
            append_time: time(at),
            ..commit(1, units)
        })
    })
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["orders", "clicks", "audit"])
}

fn others() -> impl Strategy<Value = Command> {
    let node = (1_u64..3).prop_map(NodeId::new);
    let incarnation = (1_u64..4).prop_map(Incarnation::new);
    let topic = (1_u64..4).prop_map(TopicId::new);
    let request = (0_u8..4).prop_map(|id| [id; 16]);
    let object =
        (slots(), 0_u32..2).prop_map(|(slot, attempt)| ObjectId { slot, attempt: Attempt::new(attempt) });
    prop_oneof![
        (1_u64..3, 1_u8..9).prop_map(|(node, request)| Command::RegisterNode(register(node, request))),
        (node.clone(), incarnation.clone())
            .prop_map(|(node, incarnation)| Command::CloseIncarnation { node, incarnation }),
        (NOW..NOW + 100_000).prop_map(|now| Command::Tick { now: time(now) }),
        slots().prop_map(|slot| Command::AdvanceLo { slot }),
        (request.clone(), names(), 1_u32..4).prop_map(|(request, name, partitions)| {
            Command::CreateTopic(CreateTopic { request, ..create(name, partitions) })
        }),
        (request.clone(), topic.clone()).prop_map(|(request, topic)| Command::DeleteTopic {
            request,
            topic,
            validate_only: false
        }),
        (request, topic, 1_u32..5).prop_map(|(request, topic, total)| {
            Command::AddPartitions { request, topic, total, validate_only: false }
        }),
        (partition(), node.clone(), incarnation.clone())
            .prop_map(|(partition, home, incarnation)| Command::MoveHome { partition, home, incarnation }),
        (partition(), 0_u64..20).prop_map(|(partition, before)| Command::TrimPartition(TrimPartition {
            partition,
            before: offset(before)
        })),
        prop::collection::vec(object, 0..4)
            .prop_map(|objects| Command::ForgetObjects(ForgetObjects { objects })),
        (node, incarnation, any::<bool>()).prop_map(|(node, incarnation, native)| {
            let window = if native { ProducerWindow::Native } else { ProducerWindow::Kafka };
            Command::GrantProducerIds { node, incarnation, count: 5, window }
        }),
        (NOW - 100..NOW + 9_999).prop_map(|cutoff| Command::ExpireProducers { cutoff: time(cutoff) }),
    ]
}

/// Commands about the fleet. Node 3 only ever asks to be a member.
fn of_the_fleet() -> impl Strategy<Value = Command> {
    let node = || (1_u64..4).prop_map(NodeId::new);
    let incarnation = || (1_u64..4).prop_map(Incarnation::new);
    let request = || (0_u8..6).prop_map(|id| [id; 16]);
    let level = || (0_u32..4).prop_map(FeatureLevel::new);
    let moves =
        (partition(), (1_u64..3).prop_map(NodeId::new), incarnation(), (0_u32..3).prop_map(Epoch::new))
            .prop_map(|(partition, home, incarnation, epoch)| HomeMove {
                partition,
                home,
                incarnation,
                epoch,
            });
    prop_oneof![
        (node(), 0_u8..2, level(), level()).prop_map(|(node, directory, min, max)| Command::AdmitNode {
            node,
            directory: DirectoryId::from_bytes([directory; 16]),
            features: FeatureRange { min, max },
            version: String::from("0.1.0"),
        }),
        (node(), incarnation(), prop::sample::select(vec![Liveness::Alive, Liveness::Dead]))
            .prop_map(|(node, incarnation, liveness)| Command::JudgeNode { node, incarnation, liveness }),
        (request(), node(), prop::sample::select(vec![Drain::None, Drain::Operator, Drain::Leaving]))
            .prop_map(|(request, node, drain)| Command::SetDrain { request, node, drain }),
        (request(), node()).prop_map(|(request, node)| Command::RemoveNode { request, node }),
        prop::collection::vec(moves, 0..5).prop_map(|moves| {
            // A plan moves a partition once.
            let once: BTreeMap<PartitionId, HomeMove> =
                moves.into_iter().map(|planned| (planned.partition, planned)).collect();
            Command::MoveHomes { moves: once.into_values().collect() }
        }),
        (request(), prop::sample::select(VoterCount::ALL.to_vec()))
            .prop_map(|(request, voters)| Command::SetWantedVoters { request, voters }),
        level().prop_map(|level| Command::RaiseFeatureLevel { level }),
    ]
}

fn histories() -> impl Strategy<Value = Vec<Command>> {
    prop::collection::vec(
        prop_oneof![3 => commits(), 2 => others(), 1 => of_the_fleet(), 2 => of_groups()],
        1..60,
    )
}

/// What the log of one partition holds of one producer, told by verdicts alone.
#[derive(Default)]
struct Sent {
    epoch: u16,
    next: u32,
    bases: BTreeMap<(u16, u32, u32), u64>,
}

/// Follows the verdicts: an accepted batch continues the one before or starts anew at 0, and a duplicate names the
/// offset of an accepted one.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<(PartitionId, ProducerId), Sent>,
    decided: BTreeMap<Slot, Outcome>,
}

impl Ledger {
    fn note(&mut self, commit: &CommitObject, outcome: &Outcome) {
        let Outcome::Committed { verdicts, .. } = outcome else {
            return;
        };
        if let Some(first) = self.decided.insert(commit.slot, outcome.clone()) {
            assert_eq!(&first, outcome, "a slot was answered differently");
            return;
        }
        for (unit, verdict) in commit.units.iter().zip(verdicts.iter()) {
            match verdict {
                Verdict::Appended { bases } => {
                    for (row, base) in unit.rows.iter().zip(bases) {
                        self.appended(row, base.get());
                    }
                }
                Verdict::Duplicate { bases } => {
                    for (row, base) in unit.rows.iter().zip(bases) {
                        self.repeated(row, base.get());
                    }
                }
                Verdict::Refused(_) => {}
            }
        }
    }

    fn appended(&mut self, row: &Row, base: u64) {
        let Some(producer) = row.producer else {
            return;
        };
        let known = self.sent.entry((row.partition, producer.id)).or_default();
        let (epoch, first) = (producer.epoch.get(), producer.first_sequence.get());
        let continues = epoch == known.epoch && first == known.next;
        // Sequence 0 also opens an epoch, or starts again after the state has expired.
        assert!(continues || first == 0, "{producer:?} does not continue {}/{}", known.epoch, known.next);
        (known.epoch, known.next) = (epoch, first + row.records);
        known.bases.insert((epoch, first, row.records), base);
    }

    fn repeated(&mut self, row: &Row, base: u64) {
        let producer = row.producer.expect("only idempotent batches are recognised");
        let known = &self.sent[&(row.partition, producer.id)];
        let key = (producer.epoch.get(), producer.first_sequence.get(), row.records);
        assert_eq!(known.bases.get(&key), Some(&base), "a duplicate of nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_after_any_command(history in histories()) {
        let mut world = World::with_groups();
        world.grant(ProducerWindow::Kafka);
        world.grant(ProducerWindow::Native);
        let mut ledger = Ledger::default();
        for command in history {
            let outcome = world.outcome(command.clone());
            if let Command::CommitObject(commit) = &command {
                ledger.note(commit, &outcome);
            }
        }
    }

    #[test]
    fn a_replica_that_starts_from_a_snapshot_reaches_the_same_state(history in histories(), cut in 0_usize..60) {
        let start = World::with_groups().state;
        let mut leader = start.clone();
        let mut follower = start;
        for (at, command) in history.iter().enumerate() {
            if at == cut {
                let mut bytes = Vec::new();
                codec::encode_snapshot(&leader, &mut bytes).unwrap();
                follower = codec::decode_snapshot(&bytes).unwrap();
            }
            let index = LogIndex::new(1_000 + at as u64);
            let command_again = codec::decode_command(&codec::encode_command(command)).unwrap();
            prop_assert_eq!(leader.apply(index, command), follower.apply(index, &command_again));
        }
        prop_assert_eq!(leader.hash(), follower.hash());
    }

    /// Whatever the fleet has come to, a plan is carried out wholly and leaves nothing to plan.
    #[test]
    fn a_plan_is_carried_out_wholly(history in prop::collection::vec(prop_oneof![others(), of_the_fleet()], 1..60)) {
        let mut world = World::new();
        for command in history {
            world.state.apply(LogIndex::new(world.state.applied().get() + 1), &command);
        }
        let moves = placement::plan(&world.state);
        let moved = u32::try_from(moves.len()).unwrap();
        let index = LogIndex::new(world.state.applied().get() + 1);
        let applied = world.state.apply(index, &Command::MoveHomes { moves });
        prop_assert_eq!(applied.outcome, Outcome::HomesMoved { moved });
        prop_assert_eq!(placement::plan(&world.state), []);
        prop_assert_eq!(streamhouse_metadata::invariants::check(&world.state), Ok(()));
    }

    #[test]
    fn what_was_an_orphan_is_never_committed(history in histories()) {
        let mut state: State = World::new().state;
        let mut orphans = std::collections::BTreeSet::new();
        for (at, command) in history.iter().enumerate() {
            if let Command::CommitObject(commit) = command {
                let object = commit.object();
                if state.is_orphan(&object) {
                    orphans.insert(object);
                }
            }
            state.apply(LogIndex::new(1_000 + at as u64), command);
            for orphan in &orphans {
                prop_assert!(state.object(orphan).is_none(), "{} came back", orphan);
            }
        }
    }
}
