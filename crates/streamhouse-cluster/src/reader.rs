//! The metadata log of a node that is not a member: it follows one, keeps the state in memory, and proposes nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use streamhouse_broker::{HighWatermarks, MetadataLog, ProposeError, ReadIndexError};
use streamhouse_env::Env;
use streamhouse_metadata::codec::{CodecError, check_level, decode_command, decode_snapshot};
use streamhouse_metadata::{Command, NodeEntry, Outcome, State};
use streamhouse_proto::internal as pb;
use streamhouse_proto::internal::follow_response::Message;
use streamhouse_types::LogIndex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::cluster::{View, view_of};
use crate::peers::Peers;
use crate::readers::{ReaderTold, ReaderView, views};

/// How often a reader says what it still reads of.
const SHOW: Duration = Duration::from_millis(500);
/// Pause before another node is followed.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a reader asks whether the node that it follows is still in touch with the cluster.
const CONFIRM: Duration = Duration::from_secs(1);
/// A node that was out of touch for so long is followed no more: what it knows grows old.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Largest snapshot that is taken.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What a reader knows of the cluster. Clones are the same.
#[derive(Debug, Clone)]
pub struct ReaderLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    told: ReaderTold,
    env: Env,
    peers: Peers,
    seeds: Vec<String>,
    state: RwLock<State>,
    applied: watch::Sender<LogIndex>,
    watermarks: HighWatermarks,
    moved: watch::Sender<u64>,
    /// The node that is followed now.
    followed: watch::Sender<Option<String>>,
    /// What this release does not know of what the cluster has agreed on.
    outdated: watch::Sender<Option<String>>,
    /// Why the last node was left, until the next one sends something.
    left: Mutex<Option<String>>,
}

impl ReaderLog {
    /// A reader that knows nothing yet; [`run`](Self::run) makes it follow.
    #[must_use]
    pub fn new(told: ReaderTold, env: &Env, seeds: Vec<String>, watermarks: HighWatermarks) -> Self {
        Self(Arc::new(Shared {
            told,
            env: env.clone(),
            peers: Peers::new(env),
            seeds,
            state: RwLock::new(State::new()),
            applied: watch::Sender::new(LogIndex::ZERO),
            watermarks,
            moved: watch::Sender::new(0),
            followed: watch::Sender::new(None),
            outdated: watch::Sender::new(None),
            left: Mutex::default(),
        }))
    }

    /// Waits until the cluster has agreed on something that this release does not know: it follows nobody any more then.
    /// Cancel-safe.
    pub async fn outdated(&self) -> String {
        let mut outdated = self.0.outdated.subscribe();
        let problem = outdated.wait_for(Option::is_some).await.ok().and_then(|problem| problem.clone());
        // The sender lives as long as this handle.
        problem.unwrap_or_default()
    }

    /// Why it follows nobody; `None` while it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.left.lock().clone()
    }

    /// Changes whenever nodes or homes have.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.0.moved.subscribe()
    }

    /// Waits until it has a state. Cancel-safe.
    pub async fn ready(&self) {
        let mut applied = self.0.applied.subscribe();
        // The sender lives as long as this handle.
        drop(applied.wait_for(|applied| *applied > LogIndex::ZERO).await);
    }

    /// Follows one node after the other, until it cannot read what they send. `pinned` tells what the reader still reads of.
    pub async fn run(self, pinned: impl Fn() -> LogIndex + Send) {
        let mut turn = 0;
        loop {
            let addresses = self.addresses();
            let address = &addresses[turn % addresses.len()];
            if let Err(error) = self.follow(address, &pinned).await {
                let error = error.message();
                tracing::info!(address, error, "the reader follows another node");
                *self.0.left.lock() = Some(format!("node at {address}: {error}"));
                self.0.peers.drop_connection(address);
            }
            self.0.followed.send_replace(None);
            if self.0.outdated.borrow().is_some() {
                return;
            }
            turn += 1;
            self.0.env.clock.sleep(PAUSE).await;
        }
    }

    /// Whom to follow: the nodes that the metadata knows, and the seeds.
    fn addresses(&self) -> Vec<String> {
        let state = self.0.state.read();
        let open = state.nodes().filter(|node| node.is_open());
        let known = open.filter_map(|node: &NodeEntry| node.address("internal").map(str::to_owned));
        let mut all: Vec<String> = known.chain(self.0.seeds.clone()).collect();
        // Readers spread over the nodes, and seeds that are nodes are asked once.
        all.sort_unstable();
        all.dedup();
        let shift = usize::try_from(self.0.told.node.get()).unwrap_or(0) % all.len().max(1);
        all.rotate_left(shift);
        all
    }

    async fn follow(&self, address: &str, pinned: &(impl Fn() -> LogIndex + Send)) -> Result<(), Status> {
        let mut client =
            self.0.peers.client(address).ok_or_else(|| Status::invalid_argument("that is no address"))?;
        let (said, queue) = mpsc::channel(4);
        let begin = pb::FollowRequest {
            reader_id: self.0.told.node.get(),
            from_index: self.0.applied.borrow().get(),
            version: self.0.told.version.clone(),
            zone: self.0.told.zone.clone(),
            grpc_address: self.0.told.grpc.clone(),
            ..Default::default()
        };
        said.try_send(begin).expect("the queue is empty and its other end is here");
        let answers = tokio::select! {
            answers = client.follow(ReceiverStream::new(queue)) => answers?.into_inner(),
            () = self.0.env.clock.sleep(ANSWER_TIMEOUT) => return Err(Status::deadline_exceeded("no answer in time")),
        };
        self.0.followed.send_replace(Some(address.to_owned()));
        tokio::select! {
            ended = self.take_in(answers) => ended,
            ended = self.show(said, pinned) => ended,
            ended = self.lose_touch() => ended,
        }
    }

    /// Ends when the node that is followed is cut off from its cluster: others know more.
    async fn lose_touch(&self) -> Result<(), Status> {
        let clock = &self.0.env.clock;
        let mut in_touch = clock.now();
        loop {
            clock.sleep(CONFIRM).await;
            match self.confirm().await {
                Ok(_) => {
                    in_touch = clock.now();
                    *self.0.left.lock() = None;
                }
                Err(reason) if clock.now().saturating_sub(in_touch) > SILENCE_MAX => {
                    return Err(Status::unavailable(format!(
                        "it is out of touch with the cluster: {reason}"
                    )));
                }
                Err(_) => {}
            }
        }
    }

    /// Says again and again what is still read of.
    async fn show(
        &self,
        said: mpsc::Sender<pb::FollowRequest>,
        pinned: &(impl Fn() -> LogIndex + Send),
    ) -> Result<(), Status> {
        loop {
            self.0.env.clock.sleep(SHOW).await;
            let now = pb::FollowRequest {
                reader_id: self.0.told.node.get(),
                applied_index: self.0.applied.borrow().get(),
                pinned_index: pinned().get(),
                ..Default::default()
            };
            said.try_send(now).map_err(|_| Status::unavailable("the node does not hear this reader"))?;
        }
    }

    async fn take_in(&self, mut answers: Streaming<pb::FollowResponse>) -> Result<(), Status> {
        loop {
            let message = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
            match message.message {
                Some(Message::Snapshot(head)) => self.take_snapshot(&head, &mut answers).await?,
                Some(Message::Entries(entries)) => self.apply(entries)?,
                _ => return Err(Status::invalid_argument("a message out of place")),
            }
            *self.0.left.lock() = None;
        }
    }

    async fn take_snapshot(
        &self,
        head: &pb::FollowSnapshot,
        answers: &mut Streaming<pb::FollowResponse>,
    ) -> Result<(), Status> {
        if head.length > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted("the snapshot is larger than a reader takes"));
        }
        // Room is made as the bytes come, not as they are announced.
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < head.length {
            let message = answers.message().await?.and_then(|message| message.message);
            let Some(Message::SnapshotChunk(chunk)) = message else {
                return Err(Status::invalid_argument("the snapshot is cut short"));
            };
            bytes.extend_from_slice(&chunk);
        }
        let state = decode_snapshot(&Bytes::from(bytes)).map_err(|error| self.unreadable(&error))?;
        self.check_cluster(&state)?;
        let index = state.applied();
        if index < *self.0.applied.borrow() {
            return Err(Status::unavailable("the node is older than this reader"));
        }
        *self.0.state.write() = state;
        self.0.applied.send_replace(index);
        self.0.watermarks.replaced();
        self.0.moved.send_modify(|version| *version += 1);
        Ok(())
    }

    /// A reader stays with the cluster that it began with.
    fn check_cluster(&self, state: &State) -> Result<(), Status> {
        match (self.0.state.read().cluster(), state.cluster()) {
            (Some(own), Some(other)) if own != other => {
                Err(Status::failed_precondition(format!("that node is of cluster {other}, not of {own}")))
            }
            _ => Ok(()),
        }
    }

    /// What a node sends cannot be read; whether another's can depends on why.
    fn unreadable(&self, error: &CodecError) -> Status {
        if matches!(error, CodecError::Level { .. }) {
            self.0.outdated.send_replace(Some(error.to_string()));
        }
        Status::data_loss(error.to_string())
    }

    fn apply(&self, entries: pb::FollowEntries) -> Result<(), Status> {
        for entry in entries.entries {
            let command = decode_command(&entry.command).map_err(|error| self.unreadable(&error))?;
            let index = LogIndex::new(entry.index);
            let applied = {
                let mut state = self.0.state.write();
                if index <= state.applied() {
                    continue;
                }
                let applied = state.apply(index, &command);
                check_level(&state).map_err(|error| self.unreadable(&error))?;
                applied
            };
            self.0.watermarks.advanced(&applied.changes);
            if applied.changes.nodes_changed
                || applied.changes.topics_changed
                || !applied.changes.moved.is_empty()
            {
                self.0.moved.send_modify(|version| *version += 1);
            }
        }
        let index = LogIndex::new(entries.index);
        let mut state = self.0.state.write();
        if index > state.applied() {
            state.skip_to(index);
        }
        drop(state);
        self.0.applied.send_if_modified(|applied| {
            let newer = index > *applied;
            *applied = index.max(*applied);
            newer
        });
        Ok(())
    }

    /// How the nodes agree, as the node that is followed tells; nothing is known while none is.
    pub async fn view(&self) -> View {
        self.asked_view().await.unwrap_or_else(|| View {
            leader: None,
            term: 0,
            last_log: LogIndex::ZERO,
            committed: LogIndex::ZERO,
            applied: *self.0.applied.borrow(),
            snapshot: LogIndex::ZERO,
            members: Vec::new(),
        })
    }

    async fn asked_view(&self) -> Option<View> {
        let address = self.0.followed.borrow().clone()?;
        let mut client = self.0.peers.client(&address)?;
        let answer = tokio::select! {
            answer = client.leader_view(pb::LeaderViewRequest { to: 0 }) => answer.ok()?,
            () = self.0.env.clock.sleep(ANSWER_TIMEOUT) => return None,
        };
        Some(view_of(answer.into_inner()))
    }

    /// All readers, as the node that is followed finds out; this one while it does not answer. Cancel-safe.
    pub async fn readers(&self) -> Vec<ReaderView> {
        let applied = *self.0.applied.borrow();
        let own = || ReaderView { told: self.0.told.clone(), applied, silent: Duration::ZERO };
        self.asked_readers().await.unwrap_or_else(|| vec![own()])
    }

    async fn asked_readers(&self) -> Option<Vec<ReaderView>> {
        let address = self.0.followed.borrow().clone()?;
        let mut client = self.0.peers.client(&address)?;
        let answer = tokio::select! {
            answer = client.readers(pb::ReadersRequest { of_all: true }) => answer.ok()?,
            // The node itself waits for others for so long.
            () = self.0.env.clock.sleep(ANSWER_TIMEOUT * 2) => return None,
        };
        Some(views(answer.into_inner()))
    }

    async fn confirm(&self) -> Result<LogIndex, String> {
        let address = self.0.followed.borrow().clone().ok_or("no node is followed")?;
        let mut client = self.0.peers.client(&address).ok_or("that is no address")?;
        let answer = tokio::select! {
            answer = client.confirm(pb::ConfirmRequest {}) => answer,
            () = self.0.env.clock.sleep(ANSWER_TIMEOUT) => return Err("no answer in time".to_owned()),
        };
        let answer = answer.map_err(|status| status.message().to_owned())?;
        Ok(LogIndex::new(answer.into_inner().index))
    }
}

#[async_trait]
impl MetadataLog for ReaderLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        let reason = "this node only reads; ask one of the brokers, see `streamhouse node list`";
        commands.iter().map(|_| Err(ProposeError::NotHappened { reason: reason.to_owned() })).collect()
    }

    fn state(&self) -> State {
        self.0.state.read().clone()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        look(&self.0.state.read());
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        let index = self.confirm().await.map_err(|reason| ReadIndexError { reason })?;
        let deadline = self.0.env.clock.now() + ANSWER_TIMEOUT;
        if self.wait_applied(index, deadline).await {
            return Ok(index);
        }
        Err(ReadIndexError { reason: format!("the reader has not reached entry {index} yet") })
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        let mut applied = self.0.applied.subscribe();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| *applied >= index) => reached.is_ok(),
            () = self.0.env.clock.sleep_until(deadline) => false,
        }
    }
}
