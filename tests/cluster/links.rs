//! What the network does to three nodes. Clients reach every node all the time, which is the harder case: they stay with
//! one that can agree with nobody until they see that it does not answer.

use anyhow::ensure;
use streamhouse_client::NodeId;
use streamhouse_tests::campaign::Campaign;
use streamhouse_tests::faulty::FaultyCluster;
use tokio::time::{Duration, Instant};

use super::as_it_is;

/// How long clients may stay with a leader that was cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Cuts the leader off, goes on without it, makes the network whole, and has everything judged.
async fn without_leader(topic: &str, cut: fn(&FaultyCluster, u32)) -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, topic).await?;
    campaign.more(500).await?;
    let leader = site.cluster.leader().await?;
    let since = Instant::now();
    cut(&site, leader);
    let other = site.cluster.node(leader % 3 + 1).grpc().to_owned();
    let follows = |now: NodeId| now.get() != u64::from(leader);
    // What was under way at the cut may be acknowledged late: only records after this are proof.
    site.cluster.until_seen_by(&other, "led by another", |health| health.leader.is_some_and(follows)).await?;
    let led = since.elapsed();
    campaign.more(4_000).await?;
    let took = since.elapsed();
    println!(
        "{topic}: another led {led:?} after the cut; 4,000 records more were acknowledged {took:?} after it"
    );
    ensure!(took < PATIENCE, "the clients went on after {took:?}");
    site.mend();
    site.cluster.well().await?;
    campaign.more(500).await?;
    campaign.end(&site.cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_stale_and_the_others_go_on() -> anyhow::Result<()> {
    without_leader("isolated", FaultyCluster::isolate).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_is_replaced() -> anyhow::Result<()> {
    without_leader("mute", FaultyCluster::mute).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_is_replaced() -> anyhow::Result<()> {
    without_leader("deaf", FaultyCluster::deafen).await
}
