//! Three real processes over one store, and what befalls them under load: each killed in turn, restarted in turn, all
//! killed at once, the leader paused.
//!
//! `STREAMHOUSE_BINARY` sets which build is tested.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use streamhouse_client::{Mode, NewTopic, StreamHouse};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::history::Recording;
use streamhouse_tests::load::{Load, Running, verify_deep};
use streamhouse_tests::node::Node;

fn load(topic: &str, recording: &Recording) -> Load {
    Load {
        topic: topic.into(),
        partitions: 6,
        producers: 3,
        value_bytes: 200,
        first_producer: 0,
        bytes_per_second: Some(1 << 20),
        recorder: recording.recorder(),
    }
}

fn as_it_is(node: Node, _number: u32) -> Node {
    node
}

/// A cluster under load, whose history is written down.
async fn started(topic: &str) -> anyhow::Result<(Cluster, StreamHouse, Running, Recording)> {
    let mut cluster = Cluster::new(3, as_it_is)?;
    let recording = Recording::begin(cluster.folder())?;
    cluster.start().await?;
    let house = cluster.connect().await?;
    house.admin().create_topic(NewTopic::new(topic).partitions(6), Mode::Apply).await?;
    let running = load(topic, &recording).start(&house).await?;
    Ok((cluster, house, running, recording))
}

/// Waits until so many more records are acknowledged.
async fn more(running: &mut Running, records: u64) -> anyhow::Result<()> {
    let target = running.acked() + records;
    running.wait_for(target).await
}

/// Ends the load, reads everything back through each node, and has the whole history judged.
async fn judge(cluster: &Cluster, running: Running, recording: Recording) -> anyhow::Result<()> {
    let sent = running.finish().await?;
    for node in &cluster.nodes {
        let house = StreamHouse::connect(node.grpc()).await?;
        let judgement = sent.judge(&house).await?;
        println!("through {}: {judgement}", node.grpc());
        ensure!(judgement.is_clean(), "{judgement}");
        ensure!(judgement.acked == sent.records, "{} of {} records acked", judgement.acked, sent.records);
    }
    let house = cluster.connect().await?;
    let verified = verify_deep(&house).await?;
    ensure!(verified.faults.is_empty(), "{verified:?}");
    recording.audited(&verified);
    println!("{}", recording.judge()?);
    same_state(cluster).await
}

/// I8: replicas that applied the same entry have the same state.
async fn same_state(cluster: &Cluster) -> anyhow::Result<()> {
    let mut hashes = std::collections::BTreeMap::new();
    for _ in 0..200 {
        for node in &cluster.nodes {
            let info = StreamHouse::connect(node.grpc()).await?.admin().info().await?;
            let first = hashes.entry(info.applied_index).or_insert_with(|| info.state_hash.clone());
            ensure!(*first == info.state_hash, "two states at entry {}", info.applied_index);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_is_killed_in_turn_and_no_acknowledged_record_is_lost_or_repeated() -> anyhow::Result<()> {
    let (mut cluster, _house, mut running, recording) = started("killed").await?;
    for number in 1..=3 {
        more(&mut running, 500).await?;
        cluster.node(number).kill();
        more(&mut running, 500).await?;
        cluster.node(number).start().await?;
        cluster.well().await?;
    }
    judge(&cluster, running, recording).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_acknowledgement() -> anyhow::Result<()> {
    let (mut cluster, _house, mut running, recording) = started("rolled").await?;
    for number in 1..=3 {
        more(&mut running, 500).await?;
        let status = cluster.node(number).stop()?;
        ensure!(status.success(), "{}", cluster.node(number).log());
        more(&mut running, 500).await?;
        cluster.node(number).start().await?;
        cluster.well().await?;
    }
    judge(&cluster, running, recording).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_killed_whole_comes_back_with_every_acknowledged_record() -> anyhow::Result<()> {
    let (mut cluster, _house, mut running, recording) = started("whole").await?;
    more(&mut running, 1_000).await?;
    for number in 1..=3 {
        cluster.node(number).kill();
    }
    cluster.start().await?;
    more(&mut running, 500).await?;
    judge(&cluster, running, recording).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_holds_nobody_up_and_acknowledges_nothing_stale() -> anyhow::Result<()> {
    let (mut cluster, _house, mut running, recording) = started("paused").await?;
    more(&mut running, 500).await?;
    let leader = cluster.leader().await?;
    signal(cluster.node(leader), "STOP")?;
    more(&mut running, 1_000).await?;
    signal(cluster.node(leader), "CONT")?;
    cluster.well().await?;
    more(&mut running, 500).await?;
    judge(&cluster, running, recording).await
}

fn signal(node: &Node, name: &str) -> anyhow::Result<()> {
    let told = Command::new("kill").arg(format!("-{name}")).arg(node.pid().to_string()).status()?;
    ensure!(told.success(), "the node cannot be told {name}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_undrained_and_removed_for_ever() -> anyhow::Result<()> {
    let (mut cluster, house, mut running, recording) = started("drained").await?;
    let admin = house.admin();
    let third = streamhouse_client::NodeId::new(3);
    more(&mut running, 200).await?;
    admin.drain_node(third, Mode::Apply).await?;
    let gone = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while admin.node(third).await?.node.homes > 0 {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await??;
    more(&mut running, 200).await?;
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
    more(&mut running, 500).await?;
    cluster.node(3).kill();
    let error = cluster.node(3).start().await.expect_err("a removed node is not let in");
    ensure!(error.to_string().contains("never reused"), "{error}");
    cluster.nodes.pop();
    judge(&cluster, running, recording).await
}
