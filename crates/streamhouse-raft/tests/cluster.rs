//! Three nodes in one process, talking over real sockets.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::Env;
use streamhouse_metadata::{Command, CreateTopic, Outcome, RegisterNode, TopicSettings};
use streamhouse_raft::{ProposeError, RaftNode, RaftOptions, RaftSettings};
use streamhouse_types::{ClusterId, NodeId, Timestamp};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Longer than anything here takes on a busy machine; a test waits for states, never for time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node and its listener.
struct Running {
    node: RaftNode,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

struct Cluster {
    dir: TempDir,
    settings: RaftSettings,
    addresses: BTreeMap<NodeId, SocketAddr>,
    running: BTreeMap<NodeId, Running>,
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
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
    async fn started(count: u64, settings: RaftSettings) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cluster = Self { dir, settings, addresses: BTreeMap::new(), running: BTreeMap::new() };
        for id in (1..=count).map(NodeId::new) {
            cluster.start(id).await;
        }
        cluster
    }

    fn dir_of(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Starts a node, at the address that it had before.
    async fn start(&mut self, id: NodeId) {
        let address = self.addresses.get(&id).copied().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).await.expect("a free port");
        self.addresses.insert(id, listener.local_addr().expect("bound"));
        let options = RaftOptions {
            node: id,
            dir: self.dir_of(id),
            env: Env::system(),
            settings: self.settings.clone(),
            observer: Arc::new(()),
            snapshot_sink: None,
        };
        let node = RaftNode::start(options).await.expect("starts");
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = Server::builder().add_service(node.rpc().into_service()).serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            async {
                let _ = stopped.await;
            },
        );
        let served = tokio::spawn(async { serve.await.expect("serves") });
        self.running.insert(id, Running { node, stop, served });
    }

    async fn stop(&mut self, id: NodeId) {
        let Running { node, stop, served } = self.running.remove(&id).expect("it runs");
        served.abort();
        drop(stop);
        let _ = served.await;
        node.shutdown().await;
    }

    fn node(&self, id: NodeId) -> &RaftNode {
        &self.running[&id].node
    }

    /// Makes all running nodes voters of one cluster.
    async fn bootstrap(&self) {
        let voters = self.addresses.iter().map(|(id, address)| (*id, address.to_string())).collect();
        self.node(NodeId::new(1)).bootstrap(voters).await.expect("a pristine cluster");
    }

    /// The node that leads, shown by a read.
    async fn leader(&self) -> &RaftNode {
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

    fn id_of(&self, node: &RaftNode) -> NodeId {
        node.leader().expect("it leads")
    }

    /// Proposes until it is committed, as a server does: commands are idempotent, so an unknown outcome is tried again.
    async fn commit(&self, command: &Command) -> Outcome {
        eventually("a commit", || async {
            let leader = self.leader().await;
            leader.propose(vec![command.clone()]).await.remove(0).ok()
        })
        .await
    }

    async fn prepare(&self) {
        let bootstrap = Command::Bootstrap {
            cluster: ClusterId::from_random_bytes([3; 16]),
            now: Timestamp::from_millis(1),
        };
        let register = RegisterNode {
            request: [1; 16],
            node: NodeId::new(1),
            zone: String::new(),
            addresses: Vec::new(),
        };
        self.commit(&bootstrap).await;
        self.commit(&Command::RegisterNode(register)).await;
    }

    async fn create(&self, name: &str) {
        let outcome = self.commit(&create(name)).await;
        assert!(matches!(outcome, Outcome::TopicCreated { .. }), "{outcome:?}");
    }

    /// Waits until all running nodes have applied the same entries, and compares their states.
    async fn assert_agreement(&self) -> u64 {
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

fn create(name: &str) -> Command {
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

fn settings() -> RaftSettings {
    RaftSettings { segment_bytes: 1 << 16, propose_timeout: Duration::from_secs(2), ..RaftSettings::small() }
}

fn topic_count(node: &RaftNode) -> usize {
    node.state().topics().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_its_leader_and_takes_it_back() {
    let mut cluster = Cluster::started(3, settings()).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    for topic in 0..10 {
        cluster.create(&format!("before-{topic}")).await;
    }
    let before = cluster.assert_agreement().await;

    let first = cluster.id_of(cluster.leader().await);
    cluster.stop(first).await;
    for topic in 0..10 {
        cluster.create(&format!("without-{topic}")).await;
    }
    assert_ne!(cluster.id_of(cluster.leader().await), first);

    cluster.start(first).await;
    let after = cluster.assert_agreement().await;
    assert_ne!(before, after);
    assert_eq!(topic_count(cluster.node(first)), 20, "it caught up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_the_purged_log_gets_the_snapshot() {
    let settings = RaftSettings { snapshot_entries: 20, keep_entries: 0, ..settings() };
    let mut cluster = Cluster::started(3, settings).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    cluster.create("first").await;
    let leader = cluster.id_of(cluster.leader().await);
    let away = (1..=3).map(NodeId::new).find(|id| *id != leader).expect("three nodes");
    cluster.stop(away).await;
    for topic in 0..100 {
        cluster.create(&format!("meanwhile-{topic}")).await;
    }
    cluster.start(away).await;
    cluster.assert_agreement().await;
    assert_eq!(topic_count(cluster.node(away)), 101);
    let got = std::fs::read_dir(cluster.dir_of(away).join("snapshots")).expect("listed").count();
    assert!(got > 0, "a snapshot came");
    // And it starts again from what it got.
    cluster.stop(away).await;
    cluster.start(away).await;
    cluster.assert_agreement().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_a_follower_says_who_leads() {
    let cluster = Cluster::started(3, settings()).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    cluster.assert_agreement().await;
    let old = cluster.id_of(cluster.leader().await);
    let target = (1..=3).map(NodeId::new).find(|id| *id != old).expect("three nodes");
    cluster.node(old).transfer_leader(target).await.expect("asked");
    eventually("the target to lead", || async { cluster.node(target).is_leader().then_some(()) }).await;
    cluster.create("after").await;
    let told = eventually("the old leader to know", || async {
        match cluster.node(old).propose(vec![create("refused")]).await.remove(0) {
            Err(ProposeError::NotHappened { leader }) => leader,
            other => panic!("a follower took {other:?}"),
        }
    })
    .await;
    assert_eq!(told, target);
    // A follower's read is current all the same: it asks the leader.
    cluster.node(old).read_index().await.expect("the leader answers");
    assert_eq!(topic_count(cluster.node(old)), 1);
    cluster.assert_agreement().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_grows_to_three() {
    let cluster = Cluster::started(3, settings()).await;
    let [one, two, three] = [1, 2, 3].map(NodeId::new);
    let address = |id: NodeId| cluster.addresses[&id].to_string();
    cluster.node(one).bootstrap_single(&address(one)).await.expect("a cluster of one");
    cluster.prepare().await;
    cluster.create("alone").await;
    for id in [two, three] {
        cluster.node(one).add_learner(id, &address(id)).await.expect("learns");
    }
    cluster.node(one).set_voters([one, two, three]).await.expect("three voters");
    cluster.create("together").await;
    cluster.assert_agreement().await;
    assert_eq!(topic_count(cluster.node(three)), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_acknowledges_nothing() {
    let settings = RaftSettings { commit_timeout: Duration::from_secs(2), ..settings() };
    let mut cluster = Cluster::started(3, settings).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    cluster.assert_agreement().await;
    let leader = cluster.id_of(cluster.leader().await);
    for id in (1..=3).map(NodeId::new).filter(|id| *id != leader) {
        cluster.stop(id).await;
    }
    let answer = cluster.node(leader).propose(vec![create("lonely")]).await.remove(0);
    assert!(answer.is_err(), "{answer:?}");
    assert!(cluster.node(leader).read_index().await.is_err(), "nor is a read current");
    assert_eq!(topic_count(cluster.node(leader)), 0);
}
