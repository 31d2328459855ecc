//! Two nodes over one metadata log that fails when it is told to.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_broker::local_log::LocalLog;
use streamhouse_broker::metadata::{
    Command, DirectoryId, Drain, FeatureLevel, FeatureRange, GroupRecord, OffsetCommit, Outcome, State,
};
use streamhouse_broker::{
    AppendRequest, Broker, BrokerOptions, BrokerSettings, HighWatermarks, MetadataLog, NewTopic,
    ProposeError, ReadIndexError, Role,
};
use streamhouse_env::Env;
use streamhouse_storage::StoreSettings;
use streamhouse_types::batch::{BatchBuilder, BatchLimits, Compression, RecordBatch, RecordRef};
use streamhouse_types::{
    ClusterId, GroupId, LogIndex, NodeId, Offset, PartitionId, PartitionIndex, Timestamp, TopicId,
};
use tokio::sync::watch;

use crate::{
    CommitRequest, GroupSettings, Groups, GroupsOptions, HeartbeatRequest, JoinRequest, Joined, MemberRef,
    Newcomers, SyncRequest,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// What becomes of changes of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are applied, and the answer is lost.
    AnswerLost,
    /// They are not applied, and the answer is lost.
    Lost,
    /// They are not taken.
    Refused,
}

/// The log, as one node has it.
#[derive(Clone)]
pub(crate) struct TestLog {
    pub(crate) inner: LocalLog,
    faults: Arc<Mutex<(Option<Fault>, usize)>>,
    held: Arc<watch::Sender<bool>>,
    /// Every proposal of changes of groups, in order.
    pub(crate) proposals: Arc<Mutex<Vec<Command>>>,
    cut_off: Arc<watch::Sender<bool>>,
}

impl TestLog {
    fn new(inner: LocalLog) -> Self {
        Self {
            inner,
            faults: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
            proposals: Arc::default(),
            cut_off: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The next `times` changes of groups fail.
    pub(crate) fn fail(&self, fault: Fault, times: usize) {
        *self.faults.lock() = (Some(fault), times);
    }

    /// Keeps changes of groups waiting.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets them go on.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// Nothing is confirmed to be current.
    pub(crate) fn cut_off(&self) {
        self.cut_off.send_replace(true);
    }

    /// It is again.
    pub(crate) fn join_again(&self) {
        self.cut_off.send_replace(false);
    }

    fn fault(&self) -> Option<Fault> {
        let (fault, left) = &mut *self.faults.lock();
        *left = left.checked_sub(1)?;
        *fault
    }
}

#[async_trait]
impl MetadataLog for TestLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        let mut answers = Vec::new();
        for command in commands {
            let mut fault = None;
            let groups = |command: &Command| {
                matches!(
                    command,
                    Command::ChangeGroups(_) | Command::SeekGroup { .. } | Command::DeleteGroup { .. }
                )
            };
            if groups(&command) {
                self.proposals.lock().push(command.clone());
                self.held.subscribe().wait_for(|held| !held).await.expect("the sender lives");
                fault = self.fault();
            }
            let reason = "told to".to_owned();
            answers.push(match fault {
                None => Ok(self.inner.apply(&command)),
                Some(Fault::AnswerLost) => {
                    self.inner.apply(&command);
                    Err(ProposeError::Unknown { reason })
                }
                Some(Fault::Lost) => Err(ProposeError::Unknown { reason }),
                Some(Fault::Refused) => Err(ProposeError::NotHappened { reason }),
            });
        }
        answers
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        self.inner.read(look);
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        if *self.cut_off.borrow() {
            return Err(ReadIndexError { reason: "told to".to_owned() });
        }
        self.inner.read_index().await
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        self.inner.wait_applied(index, deadline).await
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) groups: Groups,
    pub(crate) log: TestLog,
}

/// Two nodes and a topic of four partitions.
pub(crate) struct Rig {
    pub(crate) log: LocalLog,
    pub(crate) nodes: Vec<Node>,
    pub(crate) topic: TopicId,
}

/// The first request to join is answered after so long.
pub(crate) const DELAY: Duration = Duration::from_millis(300);

impl Rig {
    pub(crate) async fn start() -> Self {
        let rig = Self::without_groups().await;
        rig.apply(Command::RaiseFeatureLevel { level: FeatureLevel::GROUPS });
        rig
    }

    /// Not all nodes know groups.
    pub(crate) async fn without_groups() -> Self {
        let env = Env::system();
        let watermarks = HighWatermarks::new();
        let log = LocalLog::new(watermarks.clone());
        // The cluster's time lies behind the machine's, so it is the former that decides when something was appended.
        let now = env.clock.wall().plus_millis(-3_600_000);
        log.apply(&Command::Bootstrap { cluster: CLUSTER, now });
        let store = StoreSettings { url: "memory:///".to_owned(), ..StoreSettings::default() };
        let store = streamhouse_storage::open(&store, &env).await.expect("a store");
        let mut nodes = Vec::new();
        for id in [1, 2] {
            let node = NodeId::new(id);
            let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::GROUPS };
            let directory = DirectoryId::from_bytes([u8::try_from(id).expect("small"); 16]);
            log.apply(&Command::AdmitNode { node, directory, features, version: "test".to_owned() });
            let own = TestLog::new(log.clone());
            let options = BrokerOptions {
                role: Role::Broker,
                node,
                zone: String::new(),
                addresses: Vec::new(),
                env: env.clone(),
                log: Arc::new(own.clone()),
                store: store.clone(),
                watermarks: watermarks.clone(),
                sweep_gate: Arc::new(()),
                settings: BrokerSettings::default(),
            };
            let broker = Broker::start(options).await.expect("the broker starts");
            let settings = GroupSettings { initial_rebalance_delay: DELAY, ..GroupSettings::default() };
            let groups =
                Groups::new(GroupsOptions { broker: broker.clone(), env: env.clone(), node, settings });
            nodes.push(Node { broker, groups, log: own });
        }
        let new = NewTopic {
            name: "events".parse().expect("a name"),
            partitions: 4,
            settings: Vec::new(),
            request: None,
            validate_only: false,
        };
        let topic = nodes[0].broker.create_topic(new).await.expect("a topic").id;
        Self { log, nodes, topic }
    }

    pub(crate) fn apply(&self, command: Command) -> Outcome {
        self.log.apply(&command)
    }

    /// A group that the node at this place coordinates.
    pub(crate) fn group_of(&self, place: usize) -> GroupId {
        let node = self.nodes[place].groups.node();
        let names = (0..).map(|number| format!("group-{number}").parse().expect("a group id"));
        let mut fitting = names.filter(|group| self.nodes[place].groups.coordinator(group) == Some(node));
        fitting.next().expect("some group fits")
    }

    /// Takes the node at this place out of those that coordinate, or back in.
    pub(crate) fn drain(&self, place: usize, drain: Drain) {
        let request = self.nodes[place].broker.fresh_request_id();
        let node = self.nodes[place].groups.node();
        assert_eq!(self.apply(Command::SetDrain { request, node, drain }), Outcome::Done);
    }

    pub(crate) fn partition(&self, index: u32) -> PartitionId {
        PartitionId::new(self.topic, PartitionIndex::new(index))
    }

    pub(crate) fn record(&self, group: &GroupId) -> Arc<GroupRecord> {
        Arc::clone(self.log.state().group(group).expect("a group").record())
    }

    /// Appends a record to a partition; its append time is 5 s ahead of cluster time, the most that is allowed.
    pub(crate) async fn append(&self, index: u32) {
        let mut builder = BatchBuilder::new(Compression::None);
        let record =
            RecordRef { key: None, value: Some(b"x"), headers: &[], timestamp: Timestamp::from_millis(0) };
        builder.push(&record).expect("it fits");
        let batch = RecordBatch::parse(builder.build(), &BatchLimits::MAX).expect("a good batch");
        let broker = &self.nodes[0].broker;
        let request = AppendRequest { partition: self.partition(index), batch, permit: None };
        let ack = broker.append(&broker.session(0), request).await.expect("taken");
        ack.await.expect("appended");
    }

    /// What is committed for partition 0.
    pub(crate) fn committed(&self, group: &GroupId) -> Option<u64> {
        Some(self.log.state().group(group)?.offset(self.partition(0))?.offset.get())
    }
}

/// A member that joins; its session is 6 s, its rebalance 10 s.
pub(crate) fn joins(group: &GroupId, id: &str) -> JoinRequest {
    JoinRequest {
        group: group.clone(),
        member: id.to_owned(),
        instance: None,
        client: "client".to_owned(),
        host: "host".to_owned(),
        session_timeout: Duration::from_secs(6),
        rebalance_timeout: Duration::from_secs(10),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"m"))],
        newcomers: Newcomers::AtOnce,
    }
}

pub(crate) fn who(joined: &Joined) -> MemberRef {
    MemberRef { id: joined.member.clone(), instance: None, generation: Some(joined.generation) }
}

pub(crate) fn syncs(group: &GroupId, joined: &Joined, assignments: &[(&str, &str)]) -> SyncRequest {
    let assignments = assignments.iter().map(|(id, bytes)| ((*id).to_owned(), bytes.to_string().into()));
    SyncRequest {
        group: group.clone(),
        member: who(joined),
        protocol_type: None,
        protocol: None,
        assignments: assignments.collect(),
    }
}

pub(crate) fn beats(group: &GroupId, joined: &Joined) -> HeartbeatRequest {
    HeartbeatRequest { group: group.clone(), member: who(joined) }
}

/// Commits `offset` for one partition.
pub(crate) fn commits(
    group: &GroupId,
    member: MemberRef,
    partition: PartitionId,
    offset: u64,
) -> CommitRequest {
    let offset = OffsetCommit { partition, offset: Offset::new(offset), epoch: None, metadata: None };
    CommitRequest { group: group.clone(), member, offsets: vec![offset], forget: Vec::new() }
}

impl Node {
    /// A group of one member with its assignment.
    pub(crate) async fn lone_member(&self, group: &GroupId) -> Joined {
        let joined = self.groups.join(joins(group, "")).await.expect("joined");
        let synced = self.groups.sync(syncs(group, &joined, &[(&joined.member, "all")])).await;
        assert_eq!(synced.expect("synced").assignment, "all");
        joined
    }
}
