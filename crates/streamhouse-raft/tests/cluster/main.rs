//! Several nodes in one process, talking over real sockets.

mod identity;
mod membership;
mod nodes;
mod proposals;
mod stalls;

use std::path::Path;
use std::time::Duration;

use streamhouse_raft::{Failure, RaftSettings};
use streamhouse_types::NodeId;

use crate::nodes::{Cluster, PATIENCE, create, eventually, settings, topic_count};

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
async fn a_node_that_comes_back_with_an_older_copy_of_its_directory_stops_and_the_leader_goes_on() {
    let mut cluster = Cluster::started(3, settings()).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    cluster.create("first").await;
    cluster.assert_agreement().await;
    let (leader, followers) = cluster.roles().await;
    let (node, term) = (followers[0], cluster.node(leader).status().term);
    cluster.stop(node).await;
    let (own, copy) = (cluster.dir_of(node), cluster.dir_of(node).with_extension("copy"));
    copy_folder(&own, &copy);
    cluster.start(node).await;
    for topic in 0..10 {
        cluster.create(&format!("since-{topic}")).await;
    }
    eventually("the leader to hear that it has all", || async {
        let status = cluster.node(leader).status();
        let member = status.members.iter().find(|member| member.node == node)?;
        (member.matched == Some(status.last_log)).then_some(())
    })
    .await;
    cluster.stop(node).await;
    std::fs::remove_dir_all(&own).expect("removed");
    std::fs::rename(&copy, &own).expect("moved");
    cluster.start(node).await;
    let failed = tokio::time::timeout(PATIENCE, cluster.node(node).failed()).await.expect("it notices");
    assert!(matches!(failed, Failure::Rolled { acknowledged, last } if last < acknowledged), "{failed:?}");
    cluster.create("after").await;
    assert_eq!(cluster.node(leader).status().term, term, "nobody else had to lead");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(from, to).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request() {
    let cluster = Cluster::started(3, settings()).await;
    cluster.bootstrap().await;
    cluster.prepare().await;
    cluster.assert_agreement().await;
    let old = cluster.id_of(cluster.leader().await);
    let target = (1..=3).map(NodeId::new).find(|id| *id != old).expect("three nodes");
    eventually("the target to be close enough", || async {
        cluster.node(old).transfer_leader(target).await.ok()
    })
    .await;
    eventually("the target to lead", || async { cluster.node(target).is_leader().then_some(()) }).await;
    cluster.create("after").await;
    // A follower's read is current all the same: it asks the leader.
    cluster.node(old).read_index().await.expect("the leader answers");
    assert_eq!(topic_count(cluster.node(old)), 1);
    cluster.assert_agreement().await;
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
