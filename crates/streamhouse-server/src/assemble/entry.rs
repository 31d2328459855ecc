//! How a node comes to be part of a cluster: it founds one, is let into one, or goes on in its own.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::Broker;
use streamhouse_broker::metadata::DirectoryId;
use streamhouse_cluster::{Applicant, Cluster, JoinError, JoinRefusal, Joined, Peers};
use streamhouse_env::{Clock, Env};
use streamhouse_raft::{Failure, RaftNode};
use streamhouse_storage::{Store, clusters_in};
use streamhouse_types::NodeId;
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::identity::{Found, Past};
use crate::config::Config;

/// How long a new node looks for its cluster before it gives up, and the pause between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);
/// How long a store that answers may be without the mark of a cluster that there is already: what whoever founds it may
/// take to write it.
const MARKED_WITHIN: Duration = super::identity::CLAIM_DEADLINE;
/// What to do when nobody answers.
const REACH: &str = "start those nodes, or set cluster.seeds to the listeners.internal addresses of nodes that run; a new cluster is \
     founded by the node whose own address is the first of cluster.seeds, or which has none";
/// For so long it looks without a word: nodes that are started together wait for the one that founds.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// How often it says that it looks, or that it is not wanted.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How often a node without a registration asks whether its cluster still wants it; longer than most registrations take.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a node that was let in may take to hear of it from the metadata log.
const CATCH_UP: Duration = Duration::from_secs(60);

/// How a node begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing is there yet: it founds a cluster of one.
    Found,
    /// It is new and asks to be let in.
    Join,
    /// It has a cluster.
    GoOn,
}

impl Begin {
    /// How a node without a cluster begins, by its directory and its settings.
    pub(super) fn anew(past: Past, config: &Config, own: &str) -> Self {
        match config.cluster.seeds.first() {
            None => Self::Found,
            // All nodes may be given the same list: the first of it founds.
            Some(first) if first == own && config.cluster.bootstrap && past == Past::None => Self::Found,
            Some(_) => Self::Join,
        }
    }
}

/// Why a node is not part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The cluster does not want it, or does not answer.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It was let in, but its log never said so.
    #[error(
        "the cluster let the node in, but sends it nothing: the others cannot reach {address}. Set \
         listeners.advertised_internal to an address that they can reach"
    )]
    Unreached {
        /// What the others were told.
        address: String,
    },
    /// Its metadata log failed while it waited for the log to say so.
    #[error("the metadata log has failed")]
    Failed(#[source] Failure),
}

/// What knocking needs.
pub(super) struct Door {
    pub(super) env: Env,
    pub(super) raft: RaftNode,
    pub(super) peers: Peers,
    pub(super) applicant: Applicant,
    pub(super) seeds: Vec<String>,
    pub(super) store: Store,
}

impl Door {
    /// The applicant that this node is. A new one belongs to the cluster whose objects are in its store: another cluster
    /// must not let it in, only for it to find out that it cannot stay.
    pub(super) fn applicant(node: NodeId, raft: &RaftNode, internal: &str, found: &Found) -> Applicant {
        Applicant {
            node,
            directory: DirectoryId::from_bytes(raft.directory()),
            cluster: raft.state().cluster().or(found.cluster()),
            internal: internal.to_owned(),
            features: crate::FEATURES,
            version: crate::VERSION.to_owned(),
        }
    }

    /// Asks to be let in until it is, and waits until the metadata log says so.
    pub(super) async fn join(&self) -> Result<Joined, EntryError> {
        let joined = self.knock(PATIENCE).await?;
        self.raft.take_part();
        let mut applied = self.raft.applied();
        let clock = &self.env.clock;
        tokio::select! {
            _ = applied.wait_for(|applied| *applied >= joined.index) => Ok(joined),
            failure = self.raft.failed() => Err(EntryError::Failed(failure)),
            () = clock.sleep(CATCH_UP) => Err(EntryError::Unreached { address: self.applicant.internal.clone() }),
        }
    }

    async fn knock(&self, patience: Duration) -> Result<Joined, JoinError> {
        let clock = &self.env.clock;
        let mut deadline = clock.now() + patience;
        let mut warn_at = clock.now() + WARN_AFTER;
        let mut applicant = self.applicant.clone();
        let mut marked_by = None;
        loop {
            let (error, fix) = match self.peers.join(&applicant, self.addresses(), &**clock).await {
                Ok(joined) => return Ok(joined),
                Err(error @ JoinError::Unreachable { .. }) if clock.now() < deadline => {
                    marked_by = None;
                    (error.to_string(), REACH)
                }
                Err(JoinError::Refused(refusal))
                    if applicant.cluster.is_none() && refusal.code == ErrorCode::ClusterMismatch =>
                {
                    deadline = clock.now() + patience;
                    match clusters_in(&self.store).await {
                        Ok(found) if !found.is_empty() => {
                            applicant.cluster = found.first().copied();
                            continue;
                        }
                        // The cluster may be so new that its mark is still to come.
                        Ok(_) if clock.now() >= *marked_by.get_or_insert(clock.now() + MARKED_WITHIN) => {
                            return Err(JoinError::Refused(refusal));
                        }
                        Ok(_) => (refusal.to_string(), "set store.url to the one that the other nodes have"),
                        // Whether it is empty is not known.
                        Err(error) => {
                            marked_by = None;
                            (error.to_string(), "see that the store of store.url answers this node")
                        }
                    }
                }
                Err(error) => return Err(error),
            };
            if clock.now() >= warn_at {
                warn_at = clock.now() + WARN_EVERY;
                tracing::warn!(error, fix, "the node is not part of a cluster yet");
            }
            clock.sleep(PAUSE).await;
        }
    }

    /// Where to ask: the seeds, and the members that the log knows; not this node.
    fn addresses(&self) -> Vec<String> {
        let own = self.applicant.node;
        let members = self.raft.members().into_iter().filter(|member| member.node != own);
        let leader = self.raft.leadership().borrow().leader.clone();
        let leader = leader.filter(|(id, _)| *id != own).map(|(_, address)| address);
        let known = leader.into_iter().chain(self.seeds.clone()).chain(members.map(|member| member.address));
        known.filter(|address| *address != self.applicant.internal).collect()
    }

    /// Tells the cluster where this node is and what it understands, as often as it takes. The others may have no leader
    /// yet, which they may need this node for: so nothing waits for it. From then on it asks whether the cluster still
    /// wants this node while that has no registration: what a cluster decides does not reach a log that was taken out.
    pub(super) fn announce(self, cluster: Cluster, end: &CancellationToken) -> Arc<SetOnce<Broker>> {
        let broker = Arc::new(SetOnce::new());
        let begun = Arc::clone(&broker);
        let work = async move {
            let unwanted = match self.tell(&cluster).await {
                Ok(()) => self.unwanted_later(&cluster, begun.wait().await).await,
                Err(unwanted) => unwanted,
            };
            begun.wait().await.expel(unwanted.to_string());
        };
        tokio::spawn(end.clone().run_until_cancelled_owned(work));
        broker
    }

    /// Tells the cluster of this node until it hears; fails when it does not want the node any more.
    async fn tell(&self, cluster: &Cluster) -> Result<(), JoinRefusal> {
        let mut warn_at = Duration::ZERO;
        loop {
            match self.tell_once(cluster).await {
                Ok(()) => return Ok(()),
                Err(JoinError::Refused(refusal)) if refusal.code == ErrorCode::NodeRefused => {
                    return Err(refusal);
                }
                Err(error) => {
                    let now = self.env.clock.now();
                    if let JoinError::Refused(refusal) = &error
                        && now >= warn_at
                    {
                        warn_at = now + WARN_EVERY;
                        if refusal.code == ErrorCode::ClockSkew {
                            // A member stays one; what it tells of itself is taken once its clock is right.
                            tracing::warn!(%refusal, "the node works on with a clock that is wrong");
                        } else {
                            tracing::error!(%refusal, "the cluster does not want this node any more");
                        }
                    }
                    tracing::debug!(%error, "the cluster does not know yet that this node is back");
                    self.env.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    async fn tell_once(&self, cluster: &Cluster) -> Result<(), JoinError> {
        if cluster.leads() {
            return cluster.admit_self(&self.applicant).await;
        }
        self.peers.join(&self.applicant, self.addresses(), &*self.env.clock).await.map(|_| ())
    }

    /// Returns once the cluster does not want this node any more.
    async fn unwanted_later(&self, cluster: &Cluster, broker: &Broker) -> JoinRefusal {
        loop {
            self.env.clock.sleep(ASK_AGAIN).await;
            if broker.incarnation().is_none()
                && let Err(JoinError::Refused(refusal)) = self.tell_once(cluster).await
                && refusal.code == ErrorCode::NodeRefused
            {
                return refusal;
            }
        }
    }
}

/// Waits for a condition of the machine's clock; for steps that have no event of their own.
pub(super) async fn until(clock: &Arc<dyn Clock>, span: Duration, mut holds: impl FnMut() -> bool) -> bool {
    const LOOK: Duration = Duration::from_millis(20);
    let deadline = clock.now() + span;
    while !holds() {
        if clock.now() >= deadline {
            return false;
        }
        clock.sleep(LOOK).await;
    }
    true
}
