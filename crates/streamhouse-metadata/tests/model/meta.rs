//! The real metadata state inside the model, and the ways to break its guards.

use std::hash::{Hash, Hasher};

use streamhouse_metadata::{
    Command, CommitObject, CreateTopic, ForgetObjects, Outcome, ProducerWindow, RegisterNode, Row,
    RowProducer, SlotJudgement, SlotRefusal, State, TopicSettings, TrimPartition, Unit, Verdict,
};
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, ObjectId, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

use crate::protocol::{Batches, Mutant, Proposal};

pub(crate) const PARTITION: PartitionId = PartitionId::new(TopicId::new(1), PartitionIndex::new(0));

/// What a proposal was answered, as far as a node needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// In the log at this offset, now or before.
    At(u64),
    /// The unit was refused: it did not happen.
    UnitRefused,
    /// The slot proposed before it is undecided.
    NotYet,
    /// Below `lo`: whether it happened is unknown.
    BelowLo,
    /// The incarnation is closed: whether it happened is unknown.
    Closed,
}

/// The state with its digest, which stands for it when model states are compared.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) state: State,
    digest: u64,
    producer: ProducerId,
}

impl Hash for Meta {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

impl Meta {
    /// A cluster with one topic of one partition and two nodes, each in its first incarnation.
    pub(crate) fn new() -> Self {
        let mut meta = Self { state: State::new(), digest: 0, producer: ProducerId::new(0) };
        let cluster = ClusterId::from_bytes([1; 16]);
        meta.apply(&Command::Bootstrap { cluster, now: Timestamp::from_millis(1_000) });
        meta.register(1);
        meta.register(2);
        let create = CreateTopic {
            request: [0; 16],
            name: "t".parse().expect("a good name"),
            partitions: 1,
            settings: TopicSettings::default(),
            validate_only: false,
        };
        meta.apply(&Command::CreateTopic(create));
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
        let grant = Command::GrantProducerIds { node, incarnation, count: 1, window: ProducerWindow::Kafka };
        if let Outcome::ProducerIds { first, .. } = meta.apply(&grant) {
            meta.producer = first;
        }
        meta
    }

    fn next_index(&self) -> LogIndex {
        LogIndex::new(self.state.applied().get() + 1)
    }

    /// Applies a command. One that changes nothing leaves the applied index too: entries that do nothing would only
    /// make equal states look different.
    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        let outcome = self.state.apply(self.next_index(), command).outcome;
        self.digest = self.state.hash();
        outcome
    }

    /// Opens the node's next incarnation.
    pub(crate) fn register(&mut self, node: u64) -> u64 {
        let (node, zone, addresses) = (NodeId::new(node), String::new(), Vec::new());
        let register = RegisterNode { request: [0; 16], node, zone, addresses };
        match self.apply(&Command::RegisterNode(register)) {
            Outcome::Registered { incarnation } => incarnation.get(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn close(&mut self, node: u64, incarnation: u64) {
        let (node, incarnation) = (NodeId::new(node), Incarnation::new(incarnation));
        self.apply(&Command::CloseIncarnation { node, incarnation });
    }

    pub(crate) fn advance_lo(&mut self, slot: Slot) {
        self.apply(&Command::AdvanceLo { slot });
    }

    pub(crate) fn trim(&mut self) {
        let before = streamhouse_types::Offset::MAX;
        self.apply(&Command::TrimPartition(TrimPartition { partition: PARTITION, before }));
    }

    pub(crate) fn forget(&mut self, object: ObjectId) {
        self.apply(&Command::ForgetObjects(ForgetObjects { objects: vec![object] }));
    }

    pub(crate) fn high_watermark(&self) -> u64 {
        self.state.partition(PARTITION).expect("the topic is there").high_watermark().get()
    }

    /// Applies a proposal through the guards, but for the one that the mutant takes away.
    pub(crate) fn commit(&mut self, proposal: &Proposal, batches: Batches, mutant: Option<Mutant>) -> Answer {
        let producer = batches.are_idempotent() && mutant != Some(Mutant::NoProducerDedupe);
        let commit = commit_object(proposal, producer.then_some(self.producer));
        let judgement = self.state.judge_slot(&commit);
        let taken_away = matches!(
            (mutant, &judgement),
            (Some(Mutant::NoIncarnationCheck), SlotJudgement::Refused(SlotRefusal::IncarnationClosed { .. }))
                | (Some(Mutant::NoLoCheck), SlotJudgement::Refused(SlotRefusal::BelowLo { .. }))
                | (Some(Mutant::IgnorePrev), SlotJudgement::NotYet)
                | (Some(Mutant::RepeatIsNew), SlotJudgement::Decided(_))
        );
        let before = self.state.clone();
        let index = self.next_index();
        let outcome = if taken_away {
            self.state.apply_unjudged(index, &commit).outcome
        } else {
            self.state.apply(index, &Command::CommitObject(commit)).outcome
        };
        self.settle(before);
        answer(&outcome)
    }

    /// Takes `before` back when nothing but the applied index differs.
    fn settle(&mut self, before: State) {
        let mut unchanged = before.clone();
        unchanged.skip_to(self.state.applied());
        if unchanged == self.state {
            self.state = before;
        } else {
            self.digest = self.state.hash();
        }
    }
}

fn commit_object(proposal: &Proposal, producer: Option<ProducerId>) -> CommitObject {
    let row = Row {
        partition: PARTITION,
        position: 64,
        length: 100,
        batches: 1,
        records: 1,
        max_timestamp: Timestamp::from_millis(1_000),
        producer: producer.map(|id| RowProducer {
            id,
            epoch: ProducerEpoch::new(0),
            first_sequence: Sequence::new(u32::from(proposal.batch)),
        }),
    };
    CommitObject {
        slot: proposal.object.slot,
        attempt: proposal.object.attempt,
        prev: SlotSequence::new(proposal.prev),
        lo: SlotSequence::new(proposal.lo),
        length: 1_000,
        crc: 0,
        append_time: Timestamp::from_millis(1_000),
        units: vec![Unit { preconditions: Vec::new(), rows: vec![row] }],
    }
}

fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Committed { verdicts, .. } => match &verdicts[0] {
            Verdict::Appended { bases } | Verdict::Duplicate { bases } => Answer::At(bases[0].get()),
            Verdict::Refused(_) => Answer::UnitRefused,
        },
        Outcome::NotYet => Answer::NotYet,
        Outcome::SlotRefused(SlotRefusal::BelowLo { .. }) => Answer::BelowLo,
        Outcome::SlotRefused(SlotRefusal::IncarnationClosed { .. }) => Answer::Closed,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn slot(node: u64, incarnation: u64, lane: Lane, sequence: u64) -> Slot {
    Slot {
        node: NodeId::new(node),
        incarnation: Incarnation::new(incarnation),
        lane,
        sequence: SlotSequence::new(sequence),
    }
}

pub(crate) fn object(slot: Slot, attempt: u32) -> ObjectId {
    ObjectId { slot, attempt: Attempt::new(attempt) }
}
