//! Three real processes on a store that fails on purpose, and what befalls them under load: killed in turn, in a loop and
//! all at once, restarted in turn, paused, drained, cut off, without a store, without room on the disk.
//!
//! Each campaign writes down what its producers and consumers saw, Kafka clients and a group of theirs among them, and the
//! checker judges it. `STREAMHOUSE_BINARY` sets which build is tested, `STREAMHOUSE_KILLS` how often the loop kills (10
//! without it), `STREAMHOUSE_OUTAGE_SECONDS` how long the store is gone (10 without it), `STREAMHOUSE_OUTAGES` how often
//! (once without it), `STREAMHOUSE_PREVIOUS_BINARY` what the cluster of the rolling restart runs at
//! first: another version is then upgraded node by node (`just upgrade`).

#[path = "cluster/cut_off.rs"]
mod cut_off;
#[path = "cluster/disk.rs"]
mod disk;
#[path = "cluster/links.rs"]
mod links;
#[path = "cluster/store.rs"]
mod store;

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use streamhouse_client::Mode;
use streamhouse_tests::campaign::{Campaign, length};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::faulty::FaultyCluster;
use streamhouse_tests::node::{Node, binary, previous_binary};
use tokio::time::Instant;

fn as_it_is(node: Node, _number: u32) -> Node {
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_is_killed_in_turn_and_no_acknowledged_record_is_lost_or_repeated() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "killed").await?;
    for number in 1..=3 {
        campaign.more(500).await?;
        site.cluster.node(number).kill();
        campaign.more(500).await?;
        site.cluster.node(number).start().await?;
        site.cluster.well().await?;
    }
    campaign.end(&site.cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_acknowledgement() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    site.cluster.nodes.iter_mut().for_each(|node| node.set_build(previous_binary()));
    let mut campaign = Campaign::begin(&mut site.cluster, "rolled").await?;
    for number in 1..=3 {
        campaign.more(500).await?;
        let status = site.cluster.node(number).stop()?;
        ensure!(status.success(), "{}", site.cluster.node(number).log());
        campaign.more(500).await?;
        site.cluster.node(number).set_build(binary());
        site.cluster.node(number).start().await?;
        site.cluster.well().await?;
    }
    campaign.end(&site.cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_killed_whole_comes_back_with_every_acknowledged_record() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "whole").await?;
    campaign.more(1_000).await?;
    site.cluster.nodes.iter_mut().for_each(Node::kill);
    site.cluster.start().await?;
    campaign.more(500).await?;
    campaign.end(&site.cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_killed_in_a_loop_while_another_stands_still_lose_and_repeat_nothing() -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(0x5eed);
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "looped").await?;
    for kill in 0..length("STREAMHOUSE_KILLS", 10) {
        campaign.more(random.random_range(50..500)).await?;
        let victim = random.random_range(1..=3);
        // Every third time a majority is gone for a while: one is dead, one stands still.
        let still = (kill % 3 == 2).then(|| victim % 3 + 1);
        if let Some(still) = still {
            signal(site.cluster.node(still), "STOP")?;
        }
        site.cluster.node(victim).kill();
        if still.is_none() {
            campaign.more(random.random_range(1..200)).await?;
        }
        // One that stands still is no majority with one that starts, so nobody waits until that is ready.
        site.cluster.node(victim).start_and_wait(Duration::from_millis(500)).await?;
        if let Some(still) = still {
            signal(site.cluster.node(still), "CONT")?;
        }
        site.cluster.well().await?;
    }
    campaign.more(200).await?;
    campaign.end(&site.cluster).await
}

/// How long a node stands still.
const PAUSE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_holds_nobody_up_and_acknowledges_nothing_stale() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "paused").await?;
    campaign.more(500).await?;
    let leader = site.cluster.leader().await?;
    let paused = Instant::now();
    signal(site.cluster.node(leader), "STOP")?;
    campaign.more(1_000).await?;
    let held_up = paused.elapsed();
    while paused.elapsed() < PAUSE {
        campaign.more(100).await?;
    }
    signal(site.cluster.node(leader), "CONT")?;
    ensure!(held_up < PAUSE, "the others went on after {held_up:?}");
    site.cluster.well().await?;
    campaign.more(500).await?;
    campaign.end(&site.cluster).await
}

fn signal(node: &Node, name: &str) -> anyhow::Result<()> {
    let told = Command::new("kill").arg(format!("-{name}")).arg(node.pid().to_string()).status()?;
    ensure!(told.success(), "the node cannot be told {name}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_undrained_and_removed_for_ever() -> anyhow::Result<()> {
    // On a folder, as a cluster on one machine has it.
    let mut cluster = Cluster::new(3, as_it_is)?;
    let mut campaign = Campaign::begin(&mut cluster, "drained").await?;
    let admin = campaign.house.admin();
    let third = streamhouse_client::NodeId::new(3);
    campaign.more(200).await?;
    admin.drain_node(third, Mode::Apply).await?;
    let gone = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while admin.node(third).await?.node.homes > 0 {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await??;
    campaign.more(200).await?;
    admin.undrain_node(third, Mode::Apply).await?;
    let back = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while admin.node(third).await?.node.homes == 0 {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), back).await??;
    admin.remove_node(third, Mode::Apply).await?;
    campaign.more(500).await?;
    cluster.node(3).kill();
    let error = cluster.node(3).start().await.expect_err("a removed node is not let in");
    ensure!(error.to_string().contains("never reused"), "{error}");
    cluster.nodes.pop();
    campaign.end(&cluster).await
}
