//! What a commit of the metadata log costs on one voter, next to a bare write and sync of as many bytes on the same disk
//! in the same run. `cargo bench -p streamhouse-raft`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::{Clock as _, Env, LogFs as _, StdFs, SystemClock};
use streamhouse_metadata::Command;
use streamhouse_raft::{RaftNode, RaftOptions, RaftSettings};
use streamhouse_types::{NodeId, Timestamp};

const ROUNDS: usize = 1_000;
const RECORD: [u8; 256] = [7; 256];

fn report(what: &str, mut times: Vec<Duration>, elapsed: Duration) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("{what:<34} {rate:>9.0}/s   p50 {:>9.3?}   p99 {:>9.3?}", at(50), at(99));
    at(99)
}

fn raw(dir: &Path) -> Duration {
    let file = StdFs.create(&dir.join("raw")).expect("a new file");
    file.preallocate(8 << 20).expect("room");
    file.sync_data().expect("a healthy disk");
    let started = SystemClock.now();
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
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

async fn proposers(node: &RaftNode, proposers: usize, batch: usize) {
    let started = SystemClock.now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..proposers {
        let node = node.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                times.push(committed(&node, batch).await);
            }
            times
        });
    }
    let times = tasks.join_all().await.into_iter().flatten().collect();
    report(&format!("{proposers} proposers, {batch} commands at once"), times, SystemClock.now() - started);
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory on the disk");
    let options = RaftOptions {
        node: NodeId::new(1),
        dir: dir.path().join("raft"),
        env: Env::system(),
        settings: RaftSettings::default(),
        observer: Arc::new(()),
        snapshot_sink: None,
    };
    let before = raw(dir.path());
    runtime.block_on(async {
        let started = SystemClock.now();
        let node = RaftNode::start(options.clone()).await.expect("starts");
        node.bootstrap_single("127.0.0.1:9095").await.expect("leads");
        println!("first start, ready to commit in {:.3?}", SystemClock.now() - started);
        let lone = tokio::spawn({
            let node = node.clone();
            async move {
                let started = SystemClock.now();
                let mut times = Vec::with_capacity(ROUNDS);
                for _ in 0..ROUNDS {
                    times.push(committed(&node, 1).await);
                }
                report("1 proposer, 1 command at once", times, SystemClock.now() - started)
            }
        });
        let lone = lone.await.expect("no panic");
        println!("lone commit p99 / raw p99 = {:.2}", lone.as_secs_f64() / before.as_secs_f64());
        proposers(&node, 16, 1).await;
        proposers(&node, 256, 1).await;
        proposers(&node, 16, 64).await;
        node.shutdown().await;
        restart(&options, "restart after all this").await;
    });
    runtime.block_on(async {
        for (what, settings) in
            [("8 MiB files", RaftSettings::small()), ("64 MiB files", RaftSettings::default())]
        {
            let options = RaftOptions { dir: dir.path().join(what), settings, ..options.clone() };
            let node = RaftNode::start(options.clone()).await.expect("starts");
            node.bootstrap_single("127.0.0.1:9095").await.expect("leads");
            committed(&node, 100).await;
            node.shutdown().await;
            restart(&options, what).await;
        }
    });
}

async fn restart(options: &RaftOptions, what: &str) {
    let started = SystemClock.now();
    let node = RaftNode::start(options.clone()).await.expect("starts again");
    println!("{what}: ready to commit again in {:.3?}", SystemClock.now() - started);
    node.shutdown().await;
}
