//! Nodes in one process. Each reaches each other node over a line of its own, which a test can stall.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use streamhouse_env::{Connection, Env, Listener, Net, TcpNet};
use streamhouse_faults::DelayProxy;
use streamhouse_metadata::{Command, CreateTopic, Outcome, RegisterNode, TopicSettings};
use streamhouse_raft::{LeaderCommands, RaftNode, RaftOptions, RaftSettings};
use streamhouse_types::{ClusterId, NodeId, Timestamp};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Longer than anything here takes on a busy machine; a test waits for states, never for time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The lines between nodes, by who calls and which address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<BTreeMap<(NodeId, SocketAddr), DelayProxy>>>);

/// How one node reaches others.
#[derive(Debug)]
struct LineNet {
    from: NodeId,
    lines: Lines,
}

#[async_trait]
impl Net for LineNet {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        TcpNet.listen(address).await
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let target = address.parse().map_err(io::Error::other)?;
        // A line takes calls whether or not somebody is at its other end.
        TcpNet.connect(address).await?;
        let near_end = self.lines.between(self.from, target, DelayProxy::address).await;
        TcpNet.connect(&near_end.to_string()).await
    }
}

impl Lines {
    async fn between<T>(&self, from: NodeId, to: SocketAddr, act: impl FnOnce(&DelayProxy) -> T) -> T {
        let mut lines = self.0.lock().await;
        let line = match lines.entry((from, to)) {
            std::collections::btree_map::Entry::Occupied(line) => line.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(DelayProxy::start(to, Duration::ZERO).await.expect("a free port"))
            }
        };
        act(line)
    }
}

/// A running node and its listener.
struct Running {
    node: RaftNode,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

pub(crate) struct Cluster {
    dir: TempDir,
    settings: RaftSettings,
    leader_commands: Option<Arc<dyn LeaderCommands>>,
    pub(crate) id: ClusterId,
    lines: Lines,
    pub(crate) addresses: BTreeMap<NodeId, SocketAddr>,
    running: BTreeMap<NodeId, Running>,
}

pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let look = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

impl Cluster {
    /// Starts nodes 1 to `count`, which know nothing of each other yet.
    pub(crate) async fn started(count: u64, settings: RaftSettings) -> Self {
        Self::named([3; 16], count, settings).await
    }

    /// The same, of a cluster with an identity of its own.
    pub(crate) async fn named(id: [u8; 16], count: u64, settings: RaftSettings) -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().expect("a directory"),
            settings,
            leader_commands: None,
            id: ClusterId::from_random_bytes(id),
            lines: Lines::default(),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for id in (1..=count).map(NodeId::new) {
            cluster.start(id).await;
        }
        cluster
    }

    /// Starts all nodes again, with what the leader proposes of its own accord.
    pub(crate) async fn restart_with(&mut self, commands: Arc<dyn LeaderCommands>) {
        self.leader_commands = Some(commands);
        for id in self.ids() {
            self.stop(id).await;
            self.start(id).await;
        }
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.addresses.keys().copied().collect()
    }

    pub(crate) fn dir_of(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Starts a node, at the address that it had before.
    pub(crate) async fn start(&mut self, id: NodeId) {
        let address = self.addresses.get(&id).copied().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        self.start_at(id, address).await;
    }

    /// Starts a node at an address.
    pub(crate) async fn start_at(&mut self, id: NodeId, address: SocketAddr) {
        let listener = TcpListener::bind(address).await.expect("a free port");
        self.addresses.insert(id, listener.local_addr().expect("bound"));
        let net = Arc::new(LineNet { from: id, lines: self.lines.clone() });
        let options = RaftOptions {
            node: id,
            dir: self.dir_of(id),
            env: Env { net, ..Env::system() },
            settings: self.settings.clone(),
            observer: Arc::new(()),
            snapshot_sink: None,
            leader_commands: self.leader_commands.clone(),
        };
        let node = RaftNode::start(options).await.expect("starts");
        node.set_cluster(self.id);
        node.take_part();
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = Server::builder().add_service(node.rpc().into_service()).serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                let _ = stopped.await;
            },
        );
        let served = tokio::spawn(async { serve.await.expect("serves") });
        self.running.insert(id, Running { node, stop, served });
    }

    pub(crate) async fn stop(&mut self, id: NodeId) {
        let Running { node, stop, served } = self.running.remove(&id).expect("it runs");
        served.abort();
        drop(stop);
        let _ = served.await;
        node.shutdown().await;
    }

    /// Nothing passes any more on what `from` has said and will say to `to`, and on the answers.
    pub(crate) async fn stall(&self, from: NodeId, to: NodeId) {
        self.lines.between(from, self.addresses[&to], DelayProxy::stall).await;
    }

    pub(crate) async fn resume(&self, from: NodeId, to: NodeId) {
        self.lines.between(from, self.addresses[&to], DelayProxy::resume).await;
    }

    /// Stalls everything between a node and the others.
    pub(crate) async fn isolate(&self, node: NodeId) {
        for other in self.ids().into_iter().filter(|other| *other != node) {
            self.stall(node, other).await;
            self.stall(other, node).await;
        }
    }

    /// Ends [`isolate`](Self::isolate).
    pub(crate) async fn rejoin(&self, node: NodeId) {
        for other in self.ids().into_iter().filter(|other| *other != node) {
            self.resume(node, other).await;
            self.resume(other, node).await;
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &RaftNode {
        &self.running[&id].node
    }

    pub(crate) fn address(&self, id: NodeId) -> String {
        self.addresses[&id].to_string()
    }

    /// Makes all running nodes voters of one cluster.
    pub(crate) async fn bootstrap(&self) {
        let voters = self.addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        self.node(NodeId::new(1)).bootstrap(voters).await.expect("a pristine cluster");
    }

    /// Three nodes that are one cluster and all know it.
    pub(crate) async fn ready(settings: RaftSettings) -> Self {
        let cluster = Self::started(3, settings).await;
        cluster.bootstrap().await;
        cluster.prepare().await;
        cluster.assert_agreement().await;
        cluster
    }

    /// The node that leads, shown by a read.
    pub(crate) async fn leader(&self) -> &RaftNode {
        eventually("a leader", || async {
            for running in self.running.values() {
                if running.node.is_leader() && running.node.read_index().await.is_ok() {
                    return Some(&running.node);
                }
            }
            None
        })
        .await
    }

    pub(crate) fn id_of(&self, node: &RaftNode) -> NodeId {
        node.leader().expect("it leads")
    }

    /// The leader and the other nodes.
    pub(crate) async fn roles(&self) -> (NodeId, Vec<NodeId>) {
        let leader = self.id_of(self.leader().await);
        (leader, self.ids().into_iter().filter(|id| *id != leader).collect())
    }

    /// Proposes until it is committed, as a server does: commands are idempotent, so an unknown outcome is tried again.
    pub(crate) async fn commit(&self, command: &Command) -> Outcome {
        eventually("a commit", || async {
            let leader = self.leader().await;
            leader.propose(vec![command.clone()]).await.remove(0).ok()
        })
        .await
    }

    pub(crate) async fn prepare(&self) {
        let bootstrap = Command::Bootstrap { cluster: self.id, now: Timestamp::from_millis(1) };
        let register = RegisterNode {
            request: [1; 16],
            node: NodeId::new(1),
            zone: String::new(),
            addresses: Vec::new(),
        };
        self.commit(&bootstrap).await;
        self.commit(&Command::RegisterNode(register)).await;
    }

    pub(crate) async fn create(&self, name: &str) {
        let outcome = self.commit(&create(name)).await;
        assert!(matches!(outcome, Outcome::TopicCreated { .. }), "{outcome:?}");
    }

    /// Waits until all running nodes have applied the same entries, and compares their states.
    pub(crate) async fn assert_agreement(&self) -> u64 {
        let current =
            eventually("a confirmed index", || async { self.leader().await.read_index().await.ok() }).await;
        let mut hashes = Vec::new();
        for running in self.running.values() {
            let mut applied = running.node.applied();
            let reached = applied.wait_for(|index| *index >= current);
            tokio::time::timeout(PATIENCE, reached).await.expect("catches up").expect("runs");
        }
        for running in self.running.values() {
            let state = running.node.snapshot();
            hashes.push((state.applied(), state.hash()));
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the states differ: {hashes:?}");
        hashes[0].1
    }
}

pub(crate) fn create(name: &str) -> Command {
    let mut request = [0; 16];
    request[..name.len()].copy_from_slice(name.as_bytes());
    Command::CreateTopic(CreateTopic {
        request,
        name: name.parse().expect("a name"),
        partitions: 1,
        settings: TopicSettings::default(),
        validate_only: false,
    })
}

pub(crate) fn settings() -> RaftSettings {
    RaftSettings { segment_bytes: 1 << 16, propose_timeout: Duration::from_secs(2), ..RaftSettings::small() }
}

/// For tests that keep a leader: a busy machine must not take it from them.
pub(crate) fn calm() -> RaftSettings {
    let (election_min, election_max) = (Duration::from_secs(8), Duration::from_secs(10));
    RaftSettings { election_min, election_max, propose_timeout: Duration::from_secs(20), ..settings() }
}

pub(crate) fn topic_count(node: &RaftNode) -> usize {
    node.state().topics().count()
}

pub(crate) fn has_topic(node: &RaftNode, name: &str) -> bool {
    node.state().topic_by_name(&name.parse().expect("a name")).is_some()
}
