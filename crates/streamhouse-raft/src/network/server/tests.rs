use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use streamhouse_env::Env;
use streamhouse_faults::MemoryFs;
use streamhouse_metadata::Command;
use streamhouse_types::Timestamp;

use super::*;
use crate::node::{RaftNode, RaftOptions};
use crate::settings::RaftSettings;
use crate::snapshot::SnapshotFile;
use crate::types::{Entry, Membership, Payload, SnapshotMeta, StoredMembership, log_id};

/// A node that is in no cluster yet.
async fn fresh() -> RaftNode {
    let options = RaftOptions {
        node: NodeId::new(2),
        dir: PathBuf::from("/data"),
        env: Env { fs: Arc::new(MemoryFs::default()), ..Env::system() },
        settings: RaftSettings::small(),
        observer: Arc::new(()),
        snapshot_sink: None,
        leader_commands: None,
    };
    RaftNode::start(options).await.expect("starts")
}

fn leader() -> Vote {
    Vote::new_committed(1, 1)
}

fn members() -> Membership {
    let nodes = [1, 2].map(|id| (id, openraft::BasicNode::new(format!("node-{id}:9095"))));
    Membership::new(vec![[1, 2].into()], BTreeMap::from(nodes)).expect("voters that are members")
}

/// The leader's entries up to `last`, all in one request, and the index up to which they are committed.
fn entries(last: u64, committed: u64) -> AppendEntriesRequest<TypeConfig> {
    let payload = |index: u64| match index {
        0 => Payload::Membership(members()),
        _ => EntryPayload::Normal(LoggedCommand::from_command(Command::Tick {
            now: Timestamp::from_millis(1),
        })),
    };
    AppendEntriesRequest {
        vote: leader(),
        prev_log_id: None,
        entries: (0..=last)
            .map(|index| Entry { log_id: log_id(1, index), payload: payload(index) })
            .collect(),
        leader_commit: Some(log_id(1, committed)),
    }
}

/// The leader's snapshot of all up to `last`.
fn snapshot(last: u64) -> Snapshot {
    let last_membership = StoredMembership::new(Some(log_id(1, 0)), members());
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, last)), last_membership };
    let file = SnapshotFile { meta: meta.clone(), state: Default::default() };
    Snapshot { meta, snapshot: file.encode().expect("small").into() }
}

/// Up to which entry the node has a snapshot.
fn installed(node: &RaftNode) -> u64 {
    node.inner.view.snapshot_index.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_what_the_log_holds_leaves_the_node_as_it_is() {
    let node = fresh().await;
    let raft = &node.inner.raft;
    assert!(raft.append_entries(entries(9, 2)).await.expect("runs").is_success());
    for last in [5, 9] {
        assert_eq!(install(&node.inner, leader(), snapshot(last)).await.expect("runs"), leader());
    }
    assert_eq!(installed(&node), 0, "nothing was installed");
    let more = AppendEntriesRequest { prev_log_id: Some(log_id(1, 9)), entries: Vec::new(), ..entries(9, 9) };
    assert!(raft.append_entries(more).await.expect("runs still").is_success());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_more_than_the_log_holds_is_installed() {
    let node = fresh().await;
    let raft = &node.inner.raft;
    assert!(raft.append_entries(entries(4, 2)).await.expect("runs").is_success());
    assert_eq!(install(&node.inner, leader(), snapshot(7)).await.expect("runs"), leader());
    assert_eq!(installed(&node), 7);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_another_leader_is_for_the_core_to_judge() {
    let node = fresh().await;
    let raft = &node.inner.raft;
    assert!(raft.append_entries(entries(9, 2)).await.expect("runs").is_success());
    let next = Vote::new_committed(2, 1);
    assert_eq!(install(&node.inner, next, snapshot(5)).await.expect("runs"), next);
    assert_eq!(installed(&node), 5);
    node.shutdown().await;
}
