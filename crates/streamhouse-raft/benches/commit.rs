//! What a commit of the metadata log costs on one voter, next to a bare write and sync of as many bytes on the same disk
//! in the same run, and on three voters next to that. `cargo bench -p streamhouse-raft`; with `-- --test` it only shows
//! that everything runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::{Clock as _, Env, LogFs as _, StdFs, SystemClock};
use streamhouse_metadata::Command;
use streamhouse_raft::{RaftNode, RaftOptions, RaftSettings};
use streamhouse_types::{NodeId, Timestamp};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

const RECORD: [u8; 256] = [7; 256];

/// How often each thing is measured.
fn rounds() -> usize {
    if std::env::args().any(|argument| argument == "--test") { 10 } else { 1_000 }
}

#[derive(Clone, Copy)]
struct Spread {
    p50: Duration,
    p99: Duration,
}

fn report(what: &str, mut times: Vec<Duration>, elapsed: Duration) -> Spread {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("{what:<44} {rate:>9.0}/s   p50 {:>9.3?}   p99 {:>9.3?}", at(50), at(99));
    Spread { p50: at(50), p99: at(99) }
}

fn raw(dir: &Path) -> Spread {
    let rounds = rounds();
    let file = StdFs.create(&dir.join("raw")).expect("a new file");
    file.preallocate(8 << 20).expect("room");
    file.sync_data().expect("a healthy disk");
    let started = SystemClock.now();
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let before = SystemClock.now();
        file.write_at((round * RECORD.len()) as u64, &RECORD).expect("a healthy disk");
        file.sync_data().expect("a healthy disk");
        times.push(SystemClock.now() - before);
    }
    report("raw write and fdatasync, 256 bytes", times, SystemClock.now() - started)
}

async fn committed(node: &RaftNode, count: usize) -> Duration {
    let before = SystemClock.now();
    let commands = vec![Command::Tick { now: Timestamp::from_millis(1) }; count];
    for answer in node.propose(commands).await {
        answer.expect("committed");
    }
    SystemClock.now() - before
}

async fn proposers(node: &RaftNode, what: &str, proposers: usize, batch: usize) -> Spread {
    let started = SystemClock.now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..proposers {
        let node = node.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..rounds() {
                times.push(committed(&node, batch).await);
            }
            times
        });
    }
    let times = tasks.join_all().await.into_iter().flatten().collect();
    let what = format!("{what}: {proposers} proposers, {batch} commands at once");
    report(&what, times, SystemClock.now() - started)
}

fn options(dir: &Path, node: u64, settings: RaftSettings) -> RaftOptions {
    RaftOptions {
        node: NodeId::new(node),
        dir: dir.to_owned(),
        env: Env::system(),
        settings,
        observer: Arc::new(()),
        snapshot_sink: None,
        leader_commands: None,
    }
}

/// A commit on one voter; gives what a lone one takes.
async fn one_voter(dir: &Path, raw: Spread) -> Spread {
    let options = options(&dir.join("raft"), 1, RaftSettings::default());
    let started = SystemClock.now();
    let node = RaftNode::start(options.clone()).await.expect("starts");
    node.bootstrap_single("127.0.0.1:9095").await.expect("leads");
    println!("first start, ready to commit in {:.3?}", SystemClock.now() - started);
    let lone = proposers(&node, "one voter", 1, 1).await;
    println!("lone commit p99 / raw p99 = {:.2}", lone.p99.as_secs_f64() / raw.p99.as_secs_f64());
    for (count, batch) in [(16, 1), (256, 1), (16, 64)] {
        proposers(&node, "one voter", count, batch).await;
    }
    node.shutdown().await;
    restart(&options, "restart after all this").await;
    lone
}

/// A commit on three voters on one disk, proposed on the leader and on a follower.
async fn three_voters(dir: &Path, one: Spread) {
    let mut nodes = Vec::new();
    let mut addresses = std::collections::BTreeMap::new();
    for id in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        addresses.insert(NodeId::new(id), address);
        let options = options(&dir.join(format!("voter-{id}")), id, RaftSettings::small());
        let node = RaftNode::start(options).await.expect("starts");
        node.take_part();
        let server = tonic::transport::Server::builder().add_service(node.rpc().into_service());
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        nodes.push(node);
    }
    nodes[0].bootstrap(addresses).await.expect("a new cluster");
    let mut leadership = nodes[0].leadership();
    let leader = leadership.wait_for(|now| now.leader.is_some()).await.expect("it runs").clone();
    let (leader, _) = leader.leader.expect("it was waited for");
    let (leads, follows): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.status().node == leader);
    for (what, node) in [("three voters, leader", leads[0]), ("three voters, follower", follows[0])] {
        let lone = proposers(node, what, 1, 1).await;
        let ratio = lone.p50.as_secs_f64() / one.p50.as_secs_f64();
        println!("{what}: lone commit p50 / one voter's p50 = {ratio:.2}");
        for (count, batch) in [(16, 1), (16, 64)] {
            proposers(node, what, count, batch).await;
        }
    }
    for node in nodes {
        node.shutdown().await;
    }
}

async fn restart(options: &RaftOptions, what: &str) {
    let started = SystemClock.now();
    let node = RaftNode::start(options.clone()).await.expect("starts again");
    println!("{what}: ready to commit again in {:.3?}", SystemClock.now() - started);
    node.shutdown().await;
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let raw = raw(dir.path());
    // In tasks of their own, as in the server.
    let (path, one) = (dir.path().to_owned(), dir.path().to_owned());
    let one = runtime.block_on(async { tokio::spawn(async move { one_voter(&one, raw).await }).await });
    let one = one.expect("no panic");
    let three = runtime.block_on(async { tokio::spawn(async move { three_voters(&path, one).await }).await });
    three.expect("no panic");
    runtime.block_on(async {
        for (what, settings) in
            [("8 MiB files", RaftSettings::small()), ("64 MiB files", RaftSettings::default())]
        {
            let options = options(&dir.path().join(what), 1, settings);
            let node = RaftNode::start(options.clone()).await.expect("starts");
            node.bootstrap_single("127.0.0.1:9095").await.expect("leads");
            committed(&node, 100).await;
            node.shutdown().await;
            restart(&options, what).await;
        }
    });
}
