//! What the network does to three nodes. Clients reach every node all the time, which is the harder case: they stay with
//! one that can agree with nobody until they see that it does not answer.

use anyhow::ensure;
use streamhouse_client::{Mode, NewTopic, NodeId, StreamHouse};
use streamhouse_kafka_client::offer;
use streamhouse_kafka_client::wire::Wire;
use streamhouse_tests::campaign::Campaign;
use streamhouse_tests::faulty::FaultyCluster;
use tokio::net::TcpStream;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_sends_kafka_clients_away_and_takes_them_again() -> anyhow::Result<()> {
    const TOPIC: &str = "asked";
    const NOT_LEADER: i16 = 6;
    const REQUEST_TIMED_OUT: i16 = 7;
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    site.cluster.start().await?;
    let house = StreamHouse::connect(site.cluster.node(1).grpc()).await?;
    house.admin().create_topic(NewTopic::new(TOPIC).partitions(1), Mode::Apply).await?;
    let leader = site.cluster.leader().await?;
    let mut wire = Wire::new(TcpStream::connect(site.cluster.node(leader).kafka()).await?);
    ensure!(offer(&mut wire, TOPIC, b"before").await? == 0);

    let since = Instant::now();
    site.isolate(leader);
    // What came before the node knew is answered when it does; it is told at once afterwards.
    let mut told = Vec::new();
    while told.last() != Some(&NOT_LEADER) {
        told.push(tokio::time::timeout(PATIENCE, offer(&mut wire, TOPIC, b"meanwhile")).await??);
    }
    let took = since.elapsed();
    println!("sent away {took:?} after the cut: {told:?}");
    ensure!(took < PATIENCE, "sent away after {took:?}");
    ensure!(told.iter().all(|code| [NOT_LEADER, REQUEST_TIMED_OUT].contains(code)), "{told:?}");

    site.mend();
    site.cluster.well().await?;
    let taken = async {
        while offer(&mut wire, TOPIC, b"afterwards").await? != 0 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, taken).await?
}
