//! A node of the metadata log: start, ask, stop.

mod start;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{InitializeError, RaftError};
use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{BasicNode, ChangeMembers, Raft, ReadPolicy, ServerState};
use parking_lot::Mutex;
use streamhouse_env::Env;
use streamhouse_metadata::State;
use streamhouse_types::{LogIndex, NodeId};
use tokio::task::JoinHandle;

use crate::error::{Failure, MembershipError, ReadError, StartError};
use crate::log::WriterThread;
use crate::machine::{Machine, View};
use crate::network::{Connector, RaftRpc, read_index_of};
use crate::observer::{ApplyObserver, SnapshotSink};
use crate::settings::RaftSettings;
use crate::types::TypeConfig;

/// What a node is started with.
#[derive(Clone)]
pub struct RaftOptions {
    /// Who it is.
    pub node: NodeId,
    /// Its directory, for this node alone and for ever: `log/`, `snapshots/`, `identity` and `lock` live there.
    pub dir: PathBuf,
    /// The machine.
    pub env: Env,
    /// How it behaves.
    pub settings: RaftSettings,
    /// Hears of every applied command.
    pub observer: Arc<dyn ApplyObserver>,
    /// Gets a copy of every snapshot taken here.
    pub snapshot_sink: Option<Arc<dyn SnapshotSink>>,
}

impl fmt::Debug for RaftOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, dir, settings, .. } = self;
        f.debug_struct("RaftOptions")
            .field("node", node)
            .field("dir", dir)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}

/// A running node of the metadata log. Cloning is cheap; clones are the same node.
#[derive(Clone)]
pub struct RaftNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) env: Env,
    pub(crate) propose_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) failure: Arc<tokio::sync::watch::Sender<Option<Failure>>>,
    view: Arc<View>,
    connector: Connector,
    running: Mutex<Option<Running>>,
}

/// What a shutdown ends.
struct Running {
    tasks: Vec<JoinHandle<()>>,
    writer: WriterThread,
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl RaftNode {
    /// Starts a node on its directory: reads snapshot and log back, and takes part in its cluster, if it has one. A
    /// node that is the only voter leads when this returns.
    ///
    /// # Errors
    /// When the directory is another's, is in use, is damaged or cannot be used; nothing was changed then.
    pub async fn start(options: RaftOptions) -> Result<Self, StartError> {
        start::start(options).await
    }

    /// Begins a cluster with this node as its only voter, reachable at `address`, and waits until it leads. Does nothing
    /// but wait on a node that has a cluster.
    ///
    /// # Errors
    /// When the node has stopped or does not come to lead within the propose timeout.
    pub async fn bootstrap_single(&self, address: &str) -> Result<(), MembershipError> {
        self.bootstrap(BTreeMap::from([(self.inner.node, address.to_owned())])).await?;
        if self.sole_voter().await && !self.wait_leading().await {
            return Err(MembershipError { problem: "the node does not lead in time".to_owned() });
        }
        Ok(())
    }

    /// Begins a cluster with these voters and their addresses; to be called on one of them, or on all of them with the
    /// same voters. Does nothing on a node that has a cluster.
    ///
    /// # Errors
    /// When this node is not among the voters, or has stopped.
    pub async fn bootstrap(&self, voters: BTreeMap<NodeId, String>) -> Result<(), MembershipError> {
        let nodes: BTreeMap<u64, BasicNode> =
            voters.into_iter().map(|(node, address)| (node.get(), BasicNode { addr: address })).collect();
        match self.inner.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(MembershipError { problem: error.to_string() }),
        }
    }

    /// Whether the node belongs to a cluster. `false` when it has stopped.
    pub async fn has_cluster(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Lets a node follow without a vote and waits until it has caught up. Only the leader can.
    ///
    /// # Errors
    /// When this node does not lead, or leadership or the node is lost meanwhile (then the change may have happened).
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), MembershipError> {
        let member = BasicNode { addr: address.to_owned() };
        let added = self.inner.raft.add_learner(node.get(), member, true).await;
        added.map(|_| ()).map_err(|error| MembershipError { problem: error.to_string() })
    }

    /// Gives the vote to exactly these members. The others stay as learners. Only the leader can.
    ///
    /// # Errors
    /// When this node does not lead, one of them is not a member, or leadership is lost meanwhile (then the change may
    /// have happened, in whole or in part).
    pub async fn set_voters(&self, voters: impl IntoIterator<Item = NodeId>) -> Result<(), MembershipError> {
        let voters = voters.into_iter().map(NodeId::get).collect();
        let changed = self.inner.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await;
        changed.map(|_| ()).map_err(|error| MembershipError { problem: error.to_string() })
    }

    /// Asks `node` to lead instead of this leader. Returns before it does.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn transfer_leader(&self, node: NodeId) -> Result<(), MembershipError> {
        let asked = self.inner.raft.trigger().transfer_leader(node.get()).await;
        asked.map_err(|error| MembershipError { problem: error.to_string() })
    }

    /// Takes a snapshot now. Returns before it is there.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn take_snapshot(&self) -> Result<(), MembershipError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|error| MembershipError { problem: error.to_string() })
    }

    /// The applied state, to look at briefly: applying waits meanwhile. Never hold it across an await.
    #[must_use]
    pub fn state(&self) -> impl Deref<Target = State> + '_ {
        self.inner.view.state.read()
    }

    /// A copy of the applied state that later commands do not change. Cheap.
    #[must_use]
    pub fn snapshot(&self) -> State {
        self.inner.view.state.read().clone()
    }

    /// The index of the last applied entry, as it grows.
    #[must_use]
    pub fn applied(&self) -> tokio::sync::watch::Receiver<LogIndex> {
        self.inner.view.applied.subscribe()
    }

    /// Whether this node believes that it leads. Only a commit or [`read_index`](Self::read_index) proves it.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.raft.metrics().borrow_watched().current_leader.map(NodeId::new)
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.inner.raft.metrics().borrow_watched().current_term
    }

    /// Waits until the applied state holds everything that was committed before the call, on any node. Returns the index
    /// up to which that is. Cancel-safe.
    ///
    /// # Errors
    /// When no leader confirms it within the propose timeout.
    pub async fn read_index(&self) -> Result<LogIndex, ReadError> {
        let clock = &self.inner.env.clock;
        let deadline = clock.now() + self.inner.propose_timeout;
        let mut backoff = Duration::from_millis(2);
        loop {
            let leader = match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(read) => return Ok(LogIndex::new(read.index())),
                Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
                Err(RaftError::APIError(error)) => self.other_leader(error),
            };
            if let Some((id, address)) = &leader {
                let left = deadline.saturating_sub(clock.now());
                if let Some(index) = read_index_of(&self.inner.connector, (*id, address), left).await
                    && self.wait_applied(LogIndex::new(index), deadline).await
                {
                    return Ok(LogIndex::new(index));
                }
            }
            if clock.now() >= deadline {
                return Err(ReadError::NoLeader { leader: leader.map(|(id, _)| NodeId::new(id)) });
            }
            clock.sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_millis(200));
        }
    }

    fn other_leader(
        &self,
        error: openraft::errors::LinearizableReadError<TypeConfig>,
    ) -> Option<(u64, String)> {
        let openraft::errors::LinearizableReadError::ForwardToLeader(forward) = error else { return None };
        let id = forward.leader_id.filter(|id| *id != self.inner.node.get())?;
        Some((id, forward.leader_node?.addr))
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        let mut applied = self.applied();
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| *applied >= index) => reached.is_ok(),
            () = self.inner.env.clock.sleep_until(deadline) => false,
        }
    }

    /// Waits until the applied state is at least what it was before this node stopped, which needs a leader when it is not
    /// alone. Until then readers might see time go back. Returns whether that came within the propose timeout.
    pub async fn recovered(&self) -> bool {
        self.inner.raft.wait_for_recovery(Some(self.inner.propose_timeout)).await.is_ok()
    }

    /// Waits for the failure that stopped this node, and never returns while it works. The process must then end: it
    /// cannot tell any more what is durable. Cancel-safe.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.inner.failure.subscribe();
        loop {
            if let Some(failure) = failure.borrow_and_update().clone() {
                return failure;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The side of the protocol that answers other nodes, to be mounted on the internal listener.
    #[must_use]
    pub fn rpc(&self) -> RaftRpc {
        RaftRpc::new(self.inner.raft.clone(), self.inner.node.get())
    }

    /// Stops taking part, writes what is queued, and gives the directory back. What was proposed and not answered is
    /// answered with "unknown". The state stays readable. Does nothing the second time.
    pub async fn shutdown(&self) {
        let Some(running) = self.inner.running.lock().take() else { return };
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        running.tasks.iter().for_each(JoinHandle::abort);
        let joined = tokio::task::spawn_blocking(move || running.writer.join());
        if let Err(error) = joined.await {
            tracing::warn!(%error, "the log's writer did not stop cleanly");
        }
    }

    /// Whether the membership is this node alone. Asks the core: what it shows of itself lags behind.
    async fn sole_voter(&self) -> bool {
        let node = self.inner.node.get();
        let alone = self.inner.raft.with_raft_state(move |state| {
            state.membership_state.effective().membership().voter_ids().eq([node])
        });
        alone.await.unwrap_or(false)
    }

    /// Waits until this node leads and has applied what it found in its log.
    async fn wait_leading(&self) -> bool {
        let timeout = Some(self.inner.propose_timeout);
        let leads = self.inner.raft.wait(timeout).state(ServerState::Leader, "to lead").await.is_ok();
        leads && self.read_index().await.is_ok()
    }
}

#[cfg(test)]
mod tests;
