//! A small cluster: one node, one topic of four partitions, and short ways to say commands.

use streamhouse_metadata::{
    Applied, Command, CommitObject, CreateTopic, DirectoryId, Extent, FeatureLevel, FeatureRange, Outcome,
    Partition, Precondition, ProducerWindow, RegisterNode, Row, RowProducer, State, TopicSettings,
    TrimPartition, Unit, Verdict, codec, invariants,
};
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, ObjectId, Offset, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

/// Cluster time at the start of each test.
pub(crate) const NOW: i64 = 1_000_000;
/// The length of every object; the rows of [`commit`] lie in it.
pub(crate) const OBJECT_BYTES: u64 = 1 << 20;

pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn offset(raw: u64) -> Offset {
    Offset::new(raw)
}

/// A partition of the first topic.
pub(crate) fn p(index: u32) -> PartitionId {
    PartitionId::new(TopicId::new(1), PartitionIndex::new(index))
}

pub(crate) fn slot(node: u64, incarnation: u64, sequence: u64) -> Slot {
    Slot {
        node: NodeId::new(node),
        incarnation: Incarnation::new(incarnation),
        lane: Lane::Wal,
        sequence: SlotSequence::new(sequence),
    }
}

pub(crate) fn object(sequence: u64, attempt: u32) -> ObjectId {
    ObjectId { slot: slot(1, 1, sequence), attempt: Attempt::new(attempt) }
}

pub(crate) fn row(partition: PartitionId, records: u32) -> Row {
    Row {
        partition,
        position: 0,
        length: records.saturating_mul(100).min(4_096),
        batches: 1,
        records,
        max_timestamp: time(NOW),
        producer: None,
    }
}

pub(crate) fn sent(id: ProducerId, epoch: u16, first: u32) -> Option<RowProducer> {
    let (epoch, first_sequence) = (ProducerEpoch::new(epoch), Sequence::new(first));
    Some(RowProducer { id, epoch, first_sequence })
}

pub(crate) fn unit(rows: impl IntoIterator<Item = Row>) -> Unit {
    Unit { preconditions: Vec::new(), rows: rows.into_iter().collect() }
}

pub(crate) fn next_is(partition: PartitionId, next: u64) -> Precondition {
    Precondition::NextOffset { partition, offset: offset(next) }
}

/// A commit of node 1's incarnation 1 that follows slot `sequence - 1`. The rows are laid out one after another.
pub(crate) fn commit(sequence: u64, units: impl IntoIterator<Item = Unit>) -> CommitObject {
    let mut units: Vec<Unit> = units.into_iter().collect();
    let mut position = 64;
    for row in units.iter_mut().flat_map(|unit| &mut unit.rows) {
        row.position = position;
        position += u64::from(row.length);
    }
    CommitObject {
        slot: slot(1, 1, sequence),
        attempt: Attempt::new(0),
        prev: SlotSequence::new(sequence.saturating_sub(1)),
        lo: SlotSequence::new(1),
        length: OBJECT_BYTES,
        crc: 0xc0ff_ee00,
        append_time: time(NOW),
        units,
    }
}

pub(crate) fn create(name: &str, partitions: u32) -> CreateTopic {
    CreateTopic {
        request: [0; 16],
        name: name.parse().unwrap(),
        partitions,
        settings: TopicSettings::default(),
        validate_only: false,
    }
}

pub(crate) fn register(node: u64, request: u8) -> RegisterNode {
    RegisterNode {
        request: [request; 16],
        node: NodeId::new(node),
        zone: "a".to_owned(),
        addresses: vec![("grpc".to_owned(), format!("127.0.0.1:{node}"))],
    }
}

/// The base of each row; panics unless the verdict is an append.
#[track_caller]
pub(crate) fn bases(verdict: &Verdict) -> Vec<u64> {
    match verdict {
        Verdict::Appended { bases } => bases.iter().map(|base| base.get()).collect(),
        other => panic!("not appended: {other:?}"),
    }
}

pub(crate) struct World {
    pub(crate) state: State,
    index: u64,
}

impl World {
    /// Nothing applied yet.
    pub(crate) fn empty() -> Self {
        Self { state: State::new(), index: 0 }
    }

    /// Node 1 in its first incarnation, and topic 1 with four partitions.
    pub(crate) fn new() -> Self {
        let mut world = Self::empty();
        let cluster = ClusterId::from_bytes([7; 16]);
        world.done(Command::Bootstrap { cluster, now: time(NOW) });
        world.apply(Command::RegisterNode(register(1, 1)));
        world.apply(Command::CreateTopic(create("orders", 4)));
        world
    }

    /// The same with a second node, at the feature level that has groups.
    pub(crate) fn with_groups() -> Self {
        let mut world = Self::new();
        world.apply(Command::RegisterNode(register(2, 2)));
        for id in [1, 2] {
            let (node, directory) = (NodeId::new(id), DirectoryId::from_bytes([0; 16]));
            let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
            world.done(Command::AdmitNode { node, directory, features, version: String::new() });
        }
        world.done(Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS });
        world
    }

    /// Applies a command, and checks all that holds of any command.
    #[track_caller]
    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let bytes = codec::encode_command(&command);
        assert_eq!(codec::decode_command(&bytes).as_ref(), Ok(&command));
        let before = self.state.clone();
        self.index += 3;
        let applied = self.state.apply(LogIndex::new(self.index), &command);
        let outcome = codec::encode_outcome(&applied.outcome);
        assert_eq!(codec::decode_outcome(&outcome).as_ref(), Ok(&applied.outcome));
        assert_eq!(invariants::check(&self.state), Ok(()), "after {command:?}");
        assert_eq!(invariants::check_step(&before, &self.state), Ok(()), "by {command:?}");
        let mut snapshot = Vec::new();
        codec::encode_snapshot(&self.state, &mut snapshot).unwrap();
        let restored = codec::decode_snapshot(&snapshot).unwrap();
        assert_eq!(restored, self.state);
        assert_eq!(restored.hash(), self.state.hash());
        applied
    }

    #[track_caller]
    pub(crate) fn outcome(&mut self, command: Command) -> Outcome {
        self.apply(command).outcome
    }

    #[track_caller]
    pub(crate) fn done(&mut self, command: Command) {
        assert_eq!(self.outcome(command), Outcome::Done);
    }

    /// Applies a command that must change nothing but the applied index.
    #[track_caller]
    pub(crate) fn changes_nothing(&mut self, command: Command) -> Outcome {
        let mut expected = self.state.clone();
        let applied = self.apply(command);
        expected.skip_to(self.state.applied());
        assert_eq!(self.state, expected);
        assert_eq!(applied.changes, Default::default());
        applied.outcome
    }

    /// Commits, and panics unless the units were judged.
    #[track_caller]
    pub(crate) fn commit(&mut self, commit: CommitObject) -> Vec<Verdict> {
        match self.outcome(Command::CommitObject(commit)) {
            Outcome::Committed { verdicts, .. } => verdicts.to_vec(),
            other => panic!("not committed: {other:?}"),
        }
    }

    /// Commits one unit of one row and returns its verdict.
    #[track_caller]
    pub(crate) fn append(&mut self, sequence: u64, row: Row) -> Verdict {
        let mut verdicts = self.commit(commit(sequence, [unit([row])]));
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }

    #[track_caller]
    pub(crate) fn partition(&self, index: u32) -> &Partition {
        self.state.partition(p(index)).unwrap()
    }

    #[track_caller]
    pub(crate) fn extents(&self, index: u32) -> Vec<Extent> {
        self.partition(index).extents_from(Offset::ZERO).collect()
    }

    /// Base, end and object slot of each extent.
    #[track_caller]
    pub(crate) fn layout(&self, index: u32) -> Vec<(u64, u64, u64)> {
        let extents = self.extents(index);
        extents.iter().map(|e| (e.base.get(), e.end.get(), e.object.slot.sequence.get())).collect()
    }

    #[track_caller]
    pub(crate) fn trim(&mut self, index: u32, before: u64) -> u64 {
        let trim = TrimPartition { partition: p(index), before: offset(before) };
        match self.outcome(Command::TrimPartition(trim)) {
            Outcome::Trimmed { log_start } => log_start.get(),
            other => panic!("not trimmed: {other:?}"),
        }
    }

    /// The slots of the objects on the garbage list.
    pub(crate) fn garbage(&self) -> Vec<u64> {
        self.state.garbage().map(|(id, _)| id.slot.sequence.get()).collect()
    }

    /// The first id of a new block.
    #[track_caller]
    pub(crate) fn grant(&mut self, window: ProducerWindow) -> ProducerId {
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
        match self.outcome(Command::GrantProducerIds { node, incarnation, count: 10, window }) {
            Outcome::ProducerIds { first, count: 10 } => first,
            other => panic!("not granted: {other:?}"),
        }
    }
}
