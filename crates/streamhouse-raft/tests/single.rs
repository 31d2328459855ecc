//! One node on a real disk, through the public interface only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use streamhouse_env::{Env, LogFs as _, StdFs};
use streamhouse_metadata::codec::decode_command;
use streamhouse_metadata::{Changes, Command, CreateTopic, Outcome, RegisterNode, State, TopicSettings};
use streamhouse_raft::{
    ApplyObserver, Identity, LeaderCommands, PROPOSAL_COMMANDS_MAX, ProposeError, RaftNode, RaftOptions,
    RaftSettings, SnapshotInfo, SnapshotSink, StartError,
};
use streamhouse_types::{ClusterId, LogIndex, NodeId, Timestamp};
use tokio::sync::mpsc;

const ADDRESS: &str = "127.0.0.1:9095";

fn settings() -> RaftSettings {
    RaftSettings { segment_bytes: 1 << 16, ..RaftSettings::small() }
}

fn options(dir: &Path) -> RaftOptions {
    RaftOptions {
        node: NodeId::new(1),
        dir: dir.to_owned(),
        env: Env::system(),
        settings: settings(),
        observer: Arc::new(()),
        snapshot_sink: None,
        leader_commands: None,
    }
}

async fn started(dir: &Path) -> RaftNode {
    let node = RaftNode::start(options(dir)).await.expect("starts");
    node.bootstrap_single(ADDRESS).await.expect("a cluster of one");
    node
}

fn bootstrap() -> Command {
    Command::Bootstrap { cluster: ClusterId::from_random_bytes([7; 16]), now: Timestamp::from_millis(1_000) }
}

fn register() -> Command {
    Command::RegisterNode(RegisterNode {
        request: [1; 16],
        node: NodeId::new(1),
        zone: String::new(),
        addresses: Vec::new(),
    })
}

/// What every topic needs before it.
async fn prepare(node: &RaftNode) {
    for outcome in node.propose(vec![bootstrap(), register()]).await {
        assert!(matches!(outcome, Ok(Outcome::Done | Outcome::Registered { .. })), "{outcome:?}");
    }
}

fn create(name: &str) -> Command {
    let mut request = [0; 16];
    request[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    Command::CreateTopic(CreateTopic {
        request,
        name: name.parse().expect("a name"),
        partitions: 2,
        settings: TopicSettings::default(),
        validate_only: false,
    })
}

fn names(state: &State) -> Vec<String> {
    state.topics().map(|topic| topic.name().to_string()).collect()
}

async fn propose_one(node: &RaftNode, command: Command) -> Result<Outcome, ProposeError> {
    node.propose(vec![command]).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_has_all_it_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    assert!(node.is_leader() && node.leader() == Some(NodeId::new(1)));
    let outcomes = node.propose(vec![bootstrap(), register(), create("b"), create("a")]).await;
    assert_eq!(outcomes.len(), 4);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let (hash, index) = (node.state().hash(), node.read_index().await.expect("it leads"));
    assert_eq!(names(&node.state()), ["a", "b"]);
    node.shutdown().await;
    assert_eq!(propose_one(&node, create("c")).await, Err(ProposeError::Stopped));

    let node = RaftNode::start(options(dir.path())).await.expect("starts again");
    assert!(node.is_leader(), "the only voter leads at once");
    assert!(node.read_index().await.expect("it leads") > index);
    assert_eq!(names(&node.snapshot()), ["a", "b"]);
    assert_eq!(node.state().cluster(), Some(ClusterId::from_random_bytes([7; 16])));
    let restarted = node.state().hash();
    node.shutdown().await;
    let again = RaftNode::start(options(dir.path())).await.expect("starts again");
    // Blank entries of elections count into the index, so only equal indexes have equal hashes.
    assert_ne!((hash, restarted), (0, 0));
    assert_eq!(names(&again.state()), ["a", "b"]);
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_without_a_clean_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    prepare(&node).await;
    for topic in 0..50 {
        propose_one(&node, create(&format!("topic-{topic:02}"))).await.expect("committed");
    }
    // What a killed process leaves behind: the files as they are while it runs.
    for part in ["", "log"] {
        let (from, to) = (dir.path().join(part), copy.path().join(part));
        StdFs.create_dir(&to).expect("made");
        for file in StdFs.list(&from).expect("listed") {
            std::fs::copy(from.join(&file.name), to.join(&file.name)).expect("copied");
        }
    }
    let revived = RaftNode::start(options(copy.path())).await.expect("starts");
    assert_eq!(names(&revived.state()).len(), 50);
    revived.shutdown().await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposers_are_each_answered_with_their_own_outcome() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    prepare(&node).await;
    let mut proposers = tokio::task::JoinSet::new();
    for proposer in 0..16 {
        let node = node.clone();
        proposers.spawn(async move {
            for round in 0..10 {
                let name = format!("t-{proposer}-{round}");
                let outcome = propose_one(&node, create(&name)).await.expect("committed");
                let Outcome::TopicCreated { topic } = outcome else { panic!("{outcome:?}") };
                assert_eq!(node.state().topic(topic).expect("applied").name().to_string(), name);
            }
        });
    }
    proposers.join_all().await;
    assert_eq!(names(&node.state()).len(), 160);
    node.shutdown().await;
}

#[derive(Default)]
struct Heard {
    /// One more than the last entry that was heard of.
    next: AtomicU64,
    replaced: AtomicU64,
}

impl Heard {
    fn hear(&self, index: LogIndex) {
        let next = self.next.swap(index.get() + 1, Ordering::SeqCst);
        assert!(
            next == index.get() || next == 1 && index == LogIndex::ZERO,
            "in order, each once, none left out"
        );
    }
}

impl ApplyObserver for Heard {
    fn applied(&self, index: LogIndex, command: &Bytes, changes: &Changes) {
        let command = decode_command(command).expect("what was proposed");
        assert_eq!(
            changes.topics_changed,
            matches!(command, Command::CreateTopic(_)),
            "{index}: {changes:?}"
        );
        self.hear(index);
    }

    fn skipped(&self, index: LogIndex) {
        self.hear(index);
    }

    fn replaced(&self, state: &State) {
        self.next.store(state.applied().get() + 1, Ordering::SeqCst);
        self.replaced.store(state.applied().get() + 1, Ordering::SeqCst);
    }
}

struct Sink(mpsc::Sender<(SnapshotInfo, Bytes)>);

#[async_trait]
impl SnapshotSink for Sink {
    async fn put(&self, info: SnapshotInfo, bytes: Bytes) {
        self.0.send((info, bytes)).await.expect("the test listens");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_taken_copied_and_started_from_and_the_log_gets_shorter() {
    let dir = tempfile::tempdir().expect("a directory");
    let (told, mut copies) = mpsc::channel(100);
    let heard = Arc::new(Heard::default());
    let options = RaftOptions {
        settings: RaftSettings { snapshot_bytes: 2_000, keep_entries: 0, ..settings() },
        observer: heard.clone(),
        snapshot_sink: Some(Arc::new(Sink(told))),
        ..options(dir.path())
    };
    let node = RaftNode::start(options.clone()).await.expect("starts");
    node.bootstrap_single(ADDRESS).await.expect("a cluster of one");
    prepare(&node).await;
    let mut topics = 0;
    let mut indexes = Vec::new();
    while indexes.len() < 4 {
        propose_one(&node, create(&format!("topic-{topics}"))).await.expect("committed");
        topics += 1;
        while let Ok((info, bytes)) = copies.try_recv() {
            assert!(bytes.starts_with(b"SHRAFTSN"));
            indexes.push(info.index);
        }
    }
    assert!(indexes.is_sorted(), "{indexes:?}");
    assert_eq!(heard.next.load(Ordering::SeqCst), node.state().applied().get() + 1);
    node.shutdown().await;
    let files = StdFs.list(&dir.path().join("snapshots")).expect("listed");
    assert_eq!(files.len(), 2, "the newest two stay: {files:?}");

    let heard = Arc::new(Heard::default());
    let options = RaftOptions { observer: heard.clone(), ..options };
    let node = RaftNode::start(options).await.expect("starts from a snapshot");
    assert!(heard.replaced.load(Ordering::SeqCst) > indexes[3].get(), "it began at a snapshot");
    assert_eq!(names(&node.state()).len(), topics);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_user_and_one_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    let second = RaftNode::start(options(dir.path())).await.expect_err("in use");
    assert!(matches!(second, StartError::InUse { .. }), "{second}");
    node.shutdown().await;
    let stranger = RaftOptions { node: NodeId::new(2), ..options(dir.path()) };
    let refused = RaftNode::start(stranger).await.expect_err("another's");
    assert!(matches!(refused, StartError::OtherNode { found, .. } if found == NodeId::new(1)), "{refused}");
    let identity = Identity::read(&StdFs, dir.path()).expect("readable").expect("written");
    assert_eq!(identity.node, NodeId::new(1));
    assert!(node.is_fresh() && node.directory() == identity.lineage);
    let node = RaftNode::start(options(dir.path())).await.expect("still ours");
    assert!(!node.is_fresh() && node.directory() == identity.lineage);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_log_does_not_vote_again() {
    let dir = tempfile::tempdir().expect("a directory");
    started(dir.path()).await.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("log")).expect("removed");
    let refused = RaftNode::start(options(dir.path())).await.expect_err("it forgot its promises");
    assert!(refused.to_string().contains("has an identity but no log"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_identity_draws_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = RaftNode::start(options(dir.path())).await.expect("starts");
    node.bootstrap_single(ADDRESS).await.expect("a cluster of one");
    node.shutdown().await;
    std::fs::remove_file(dir.path().join("identity")).expect("removed");
    let refused = RaftNode::start(options(dir.path())).await.expect_err("it was somebody");
    let told = std::error::Error::source(&refused).map_or_else(|| refused.to_string(), ToString::to_string);
    assert!(told.contains("identity is missing"), "{told}");
    assert!(!dir.path().join("identity").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_that_the_log_needs_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = RaftOptions {
        settings: RaftSettings { snapshot_entries: 5, keep_entries: 0, ..settings() },
        ..options(dir.path())
    };
    let node = RaftNode::start(options.clone()).await.expect("starts");
    node.bootstrap_single(ADDRESS).await.expect("a cluster of one");
    prepare(&node).await;
    for topic in 0..30 {
        propose_one(&node, create(&format!("topic-{topic}"))).await.expect("committed");
    }
    let written = async {
        while node.status().applied.get() >= node.status().snapshot.get() + 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("the last snapshot is written");
    node.shutdown().await;
    let snapshots = dir.path().join("snapshots");
    for file in StdFs.list(&snapshots).expect("listed") {
        let path = snapshots.join(file.name);
        let mut bytes = std::fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    }
    let refused = RaftNode::start(options).await.expect_err("damaged");
    assert!(
        matches!(&refused, StartError::Corrupt { problem, .. } if problem.contains("checksum")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_cluster_says_that_nothing_happened() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = RaftOptions {
        settings: RaftSettings { propose_timeout: Duration::from_millis(50), ..settings() },
        ..options(dir.path())
    };
    let node = RaftNode::start(options).await.expect("starts");
    assert!(!node.has_cluster().await);
    assert_eq!(propose_one(&node, bootstrap()).await, Err(ProposeError::NotHappened { leader: None }));
    assert!(node.read_index().await.is_err());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_is_too_large_is_refused_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = started(dir.path()).await;
    prepare(&node).await;
    let index = node.state().applied();
    let commands = vec![create("one"); PROPOSAL_COMMANDS_MAX + 1];
    let answers = node.propose(commands).await;
    assert_eq!(answers.len(), PROPOSAL_COMMANDS_MAX + 1);
    for answer in answers {
        let error = answer.expect_err("refused");
        assert!(matches!(error, ProposeError::TooLarge { commands: 4_097, .. }), "{error}");
    }
    assert_eq!(node.state().applied(), index, "nothing was appended");
    assert!(node.propose(Vec::new()).await.is_empty());
    node.shutdown().await;
}

/// Finds a tick due before everything.
struct Ticks;

impl LeaderCommands for Ticks {
    fn due(&self, state: &State) -> Vec<Command> {
        if state.cluster().is_none() {
            return Vec::new();
        }
        vec![Command::Tick { now: state.cluster_time().plus_millis(1) }]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_leader_finds_due_goes_in_front_and_is_not_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = RaftOptions { leader_commands: Some(Arc::new(Ticks)), ..options(dir.path()) };
    let node = RaftNode::start(options).await.expect("starts");
    node.bootstrap_single(ADDRESS).await.expect("a cluster of one");
    prepare(&node).await;
    let time = node.state().cluster_time();
    let answers = node.propose(vec![create("a"), create("b")]).await;
    assert!(matches!(answers[..], [Ok(Outcome::TopicCreated { .. }), Ok(Outcome::TopicCreated { .. })]));
    assert_eq!(node.state().cluster_time(), time.plus_millis(1));
    node.shutdown().await;
}
