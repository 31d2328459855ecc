//! A node of the metadata log: start, ask, stop.

mod membership;
mod start;
mod status;
mod watch;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy, ServerState};
use parking_lot::Mutex;
use streamhouse_env::{Env, LongRun};
use streamhouse_metadata::State;
use streamhouse_types::{ClusterId, LogIndex, NodeId};
use tokio::task::JoinHandle;

use crate::error::{Failure, ReadError, StartError};
use crate::log::LogReader;
use crate::machine::{Machine, View};
use crate::network::{Forwarder, Leader, Part, RaftRpc, Room};
use crate::observer::{ApplyObserver, LeaderCommands, SnapshotSink};
use crate::settings::RaftSettings;
use crate::types::TypeConfig;
pub use status::{Leadership, RaftMember, RaftMemberStatus, RaftStatus};

/// How long a leader is looked for where none was found in the whole propose timeout before, and none was heard of since:
/// who asks then is answered soon.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    /// Asked, while this node leads, what to propose in front of each proposal.
    pub leader_commands: Option<Arc<dyn LeaderCommands>>,
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
    pub(crate) log: LogReader,
    pub(crate) env: Env,
    pub(crate) propose_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) snapshot_timeout: Duration,
    /// A follower that has not answered for so long has lost contact.
    silence_max: Duration,
    pub(crate) failure: Arc<tokio::sync::watch::Sender<Option<Failure>>>,
    pub(crate) leadership: Arc<tokio::sync::watch::Sender<Leadership>>,
    /// Who asked last found no leader in all that time, and none was heard of since.
    leaderless: Arc<AtomicBool>,
    pub(crate) leader_commands: Option<Arc<dyn LeaderCommands>>,
    pub(crate) forwarder: Forwarder,
    pub(crate) cluster: Arc<OnceLock<ClusterId>>,
    pub(crate) part: Part,
    pub(crate) room: Room,
    pub(crate) view: Arc<View>,
    directory: Directory,
    running: Mutex<Option<Running>>,
}

/// What the data directory is.
#[derive(Debug, Clone, Copy)]
struct Directory {
    lineage: [u8; 16],
    fresh: bool,
}

/// What a shutdown ends.
struct Running {
    tasks: Vec<JoinHandle<()>>,
    writer: LongRun,
}

impl Inner {
    /// Somebody has found a leader.
    pub(crate) fn found_leader(&self) {
        self.leaderless.store(false, Ordering::Relaxed);
    }

    /// Somebody has looked for a leader for as long as that makes sense.
    pub(crate) fn found_no_leader(&self) {
        self.leaderless.store(true, Ordering::Relaxed);
    }

    /// How long a leader is looked for.
    pub(crate) fn patience(&self) -> Duration {
        let brief = self.leaderless.load(Ordering::Relaxed) || self.leads_alone();
        if brief { self.propose_timeout.min(LOOK_AGAIN) } else { self.propose_timeout }
    }
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
        let node = start::start(options).await?;
        if node.has_cluster().await {
            node.take_part();
        }
        Ok(node)
    }

    /// Makes the cluster known to this node, once it is known: from then on it is on every request to another node, and
    /// requests of nodes of another cluster are refused. The first one stays.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let known = *self.inner.cluster.get_or_init(|| cluster);
        if known != cluster {
            tracing::error!(%known, told = %cluster, "a node belongs to one cluster for ever");
        }
    }

    /// From now on other nodes are answered, whose votes and entries make a cluster. A node with a cluster takes part from its
    /// start, one that founds a cluster from then on. A new one must have been let in before: its directory may stand in
    /// place of a lost one, and until the cluster has compared them the node must not vote under its old name.
    pub fn take_part(&self) {
        self.inner.part.begin();
    }

    /// What was drawn when the data directory was first used: tells apart two directories of one node id, such as a wiped
    /// one and its successor.
    #[must_use]
    pub fn directory(&self) -> [u8; 16] {
        self.inner.directory.lineage
    }

    /// Whether the data directory was first used by this start.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.inner.directory.fresh
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

    /// Waits until the applied state holds everything that was committed before the call, on any node. Returns the index
    /// up to which that is. Cancel-safe.
    ///
    /// # Errors
    /// When no leader confirms it within the propose timeout, which is half a second while the call before found none.
    pub async fn read_index(&self) -> Result<LogIndex, ReadError> {
        let clock = &self.inner.env.clock;
        let deadline = clock.now() + self.inner.patience();
        let (mut backoff, mut found) = (Duration::from_millis(2), false);
        loop {
            // A leader that is alone would wait for the answers of the others.
            let leader = if self.inner.leads_alone() {
                None
            } else {
                // A leader that was cut off before its first entry was committed would wait until it is back.
                let read = tokio::select! {
                    read = self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex) => Some(read),
                    () = clock.sleep_until(deadline) => None,
                };
                match read {
                    Some(Ok(read)) => {
                        self.inner.found_leader();
                        return Ok(LogIndex::new(read.index()));
                    }
                    Some(Err(RaftError::Fatal(_))) => return Err(ReadError::Stopped),
                    Some(Err(RaftError::APIError(error))) => self.other_leader(error),
                    None => None,
                }
            };
            if let Some(leader) = &leader {
                let left = deadline.saturating_sub(clock.now());
                if let Some(index) = self.inner.forwarder.read_index(leader, left).await {
                    self.inner.found_leader();
                    found = true;
                    if self.wait_applied(index, deadline).await {
                        return Ok(index);
                    }
                }
            }
            if clock.now() >= deadline {
                if !found {
                    self.inner.found_no_leader();
                }
                return Err(ReadError::NoLeader { leader: leader.map(|leader| leader.node) });
            }
            clock.sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_millis(200));
        }
    }

    fn other_leader(&self, error: LinearizableReadError<TypeConfig>) -> Option<Leader> {
        let LinearizableReadError::ForwardToLeader(forward) = error else { return None };
        self.inner.elsewhere(forward)
    }

    pub(crate) async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
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
        RaftRpc::new(self.inner.clone())
    }

    /// Stops taking part, writes what is queued, and gives the directory back. What was proposed and not answered is
    /// answered with "unknown". The state stays readable. Does nothing the second time.
    pub async fn shutdown(&self) {
        let Some(running) = self.inner.running.lock().take() else { return };
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        running.tasks.iter().for_each(JoinHandle::abort);
        running.writer.ended().await;
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
