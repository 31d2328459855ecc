use std::sync::Arc;

use streamhouse_metadata::Command;
use streamhouse_types::{ClusterId, Timestamp};

use super::*;
use crate::error::ProposeError;
use streamhouse_faults::{MemoryFs, Unsynced};

fn options(fs: &MemoryFs) -> RaftOptions {
    RaftOptions {
        node: NodeId::new(1),
        dir: PathBuf::from("/data"),
        env: Env { fs: Arc::new(fs.clone()), ..Env::system() },
        settings: RaftSettings { segment_bytes: 1 << 16, ..RaftSettings::small() },
        observer: Arc::new(()),
        snapshot_sink: None,
        leader_commands: None,
    }
}

async fn started(fs: &MemoryFs) -> RaftNode {
    let node = RaftNode::start(options(fs)).await.expect("starts");
    node.bootstrap_single("127.0.0.1:9095").await.expect("a cluster of one");
    let bootstrap =
        Command::Bootstrap { cluster: ClusterId::from_random_bytes([1; 16]), now: Timestamp::from_millis(1) };
    node.propose(vec![bootstrap]).await.remove(0).expect("committed");
    node
}

fn tick(millis: i64) -> Command {
    Command::Tick { now: Timestamp::from_millis(millis) }
}

/// Proposes ticks until one is not committed; returns the last committed time and what became of the next one.
async fn tick_until_it_fails(node: &RaftNode) -> (i64, ProposeError) {
    for millis in 2.. {
        if let Err(error) = node.propose(vec![tick(millis)]).await.remove(0) {
            return (millis - 1, error);
        }
    }
    unreachable!("a disk does not last for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_and_costs_nothing_that_was_answered() {
    let fs = MemoryFs::default();
    let node = started(&fs).await;
    fs.limit(Some(fs.used()));
    let (committed, error) = tick_until_it_fails(&node).await;
    assert_eq!(error, ProposeError::Unknown, "it may be on the disk");
    let failure = node.failed().await;
    assert!(failure.to_string().starts_with("the disk is full"), "{failure}");
    assert_eq!(node.propose(vec![tick(i64::MAX)]).await, [Err(ProposeError::Stopped)]);
    node.shutdown().await;

    let fs = fs.crashed(Unsynced::Lost);
    let node = RaftNode::start(options(&fs)).await.expect("starts once there is room");
    let time = node.state().cluster_time().as_millis();
    assert!((committed..=committed + 1).contains(&time), "{committed} was answered, {time} was found");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_costs_nothing_that_was_answered() {
    for changes in 0..40 {
        let fs = MemoryFs::default();
        let node = started(&fs).await;
        fs.cut_power_after(changes);
        let (committed, _) = tick_until_it_fails(&node).await;
        let after = fs.crashed(Unsynced::Mixed(changes));
        node.shutdown().await;
        let node = RaftNode::start(options(&after)).await.expect("starts again");
        let time = node.state().cluster_time().as_millis();
        assert!((committed..=committed + 1).contains(&time), "{committed} was answered, {time} was found");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_let_go_without_a_stop_keeps_its_directory() {
    let fs = MemoryFs::default();
    drop(started(&fs).await);
    let second = RaftNode::start(options(&fs)).await.expect_err("the first may still write");
    assert!(matches!(second, StartError::InUse { .. }), "{second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_recovered_once_it_has_started() {
    let fs = MemoryFs::default();
    started(&fs).await.shutdown().await;
    let node = RaftNode::start(options(&fs)).await.expect("starts again");
    assert!(node.recovered().await);
    assert!(node.state().cluster().is_some());
    node.shutdown().await;
}
