//! A reader beside a cluster: it serves what clients read, and nobody misses it when it is killed.

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use streamhouse_client::{ClusterHealth, Mode, NewTopic, NodeId, NodeState, Position, Record, StreamHouse};
use streamhouse_proto::v1;
use streamhouse_proto::v1::cluster_service_client::ClusterServiceClient;
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::faulty::{FaultyCluster, on_store};
use streamhouse_tests::node::Node;
use streamhouse_tests::shell::Shell;
use tokio::time::Duration;

const RECORDS: usize = 20_000;

async fn count(house: &StreamHouse) -> anyhow::Result<usize> {
    let mut records = house.topic("flights").read(Position::Start).open().await?.records();
    let mut count = 0;
    while records.try_next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// How many bytes a node has sent to those who read.
async fn read_bytes(node: &Node) -> anyhow::Result<u64> {
    let metrics = node.metrics().await?;
    let values = metrics.lines().filter(|line| line.starts_with("streamhouse_fetch_bytes_total"));
    let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(values.sum())
}

/// A reader beside `cluster` that asks the node of this number first.
fn reader(cluster: &Cluster, first: u32) -> Node {
    Node::new(&cluster.folder().join("reader"))
        .argument("--node.id=9")
        .argument("--node.roles=reader")
        .argument(format!("--cluster.seeds={}", cluster.internal(first)))
}

/// A reader can be looked at, and who wants it out of the cluster is told that it is not in it.
fn is_described_and_not_removed(cluster: &Cluster, reader: &Node) -> anyhow::Result<()> {
    let shell = Shell::at(cluster.folder(), &cluster.servers());
    let node = &shell.json(&["node", "describe", "9"])["node"];
    ensure!(node["role"] == "reader" && node["grpc_address"] == reader.grpc(), "{node}");
    let said = shell.ok(&["node", "describe", "9"]);
    ensure!(said.contains("reader") && !said.contains("internal"), "{said}");
    for words in [&["node", "remove", "9", "--yes"][..], &["node", "drain", "9"]] {
        let error = shell.error(words);
        ensure!(error["code"] == "INVALID_ARGUMENT" && error["exit_code"] == 2, "{error}");
        ensure!(error["message"].as_str().is_some_and(|text| text.contains("is a reader")), "{error}");
        ensure!(error["hint"].as_str().is_some_and(|text| text.contains("stop its process")), "{error}");
    }
    let error = shell.error(&["node", "describe", "8"]);
    ensure!(error["code"] == "NODE_NOT_FOUND", "{error}");
    Ok(())
}

/// A reader under the id of a broker would be taken for it.
async fn wants_an_id_of_its_own(cluster: &Cluster) -> anyhow::Result<()> {
    let mut second = Node::new(&cluster.folder().join("second"))
        .argument("--node.id=1")
        .argument("--node.roles=reader")
        .argument(format!("--cluster.seeds={}", cluster.internal(1)))
        .argument(format!("--store=file://{}", cluster.folder().join("store").display()));
    let error = second.start().await.err().context("it was let in")?.to_string();
    ensure!(error.contains("stopped with exit status: 4:\n"), "{error}");
    ensure!(error.contains("node 1 is a broker of this cluster") && error.contains("`node.id`"), "{error}");
    Ok(())
}

async fn write(house: &StreamHouse) -> anyhow::Result<()> {
    let producer = house.topic("flights").producer().build().await?;
    for number in 0..RECORDS {
        drop(producer.send(Record::new(number.to_string()).key(number.to_string())).await?);
    }
    producer.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_through_a_reader_are_served_by_it_and_go_on_when_it_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(1, |node, _| node)?;
    cluster.start().await?;
    let store = format!("--store=file://{}", cluster.folder().join("store").display());
    let mut reader = reader(&cluster, 1).argument(store);
    reader.start().await?;
    let house = StreamHouse::connect(reader.grpc()).await?;
    let listed = house.admin().nodes().await?;
    let told: Vec<_> = listed.iter().map(|node| (node.id.get(), node.role.as_str())).collect();
    ensure!(told == [(1, "broker"), (9, "reader")], "{listed:?}");
    ensure!(listed[1].grpc_address == reader.grpc() && listed[1].state == NodeState::Serving, "{listed:?}");
    is_described_and_not_removed(&cluster, &reader)?;
    wants_an_id_of_its_own(&cluster).await?;
    // What a reader does not do is done by the brokers behind it.
    house.admin().create_topic(NewTopic::new("flights").partitions(2), Mode::Apply).await?;
    write(&house).await?;
    ensure!(count(&house).await? == RECORDS, "its own writes are seen at once");
    let (by_reader, by_broker) = (read_bytes(&reader).await?, read_bytes(cluster.node(1)).await?);
    ensure!(
        by_reader > 100_000 && by_broker == 0,
        "{by_reader} bytes by the reader, {by_broker} by the broker"
    );
    reader.kill();
    ensure!(count(&house).await? == RECORDS, "the broker reads in its place");
    Ok(())
}

/// Waits until this very node knows so many topics; a client would ask another one instead.
async fn knows(node: &Node, topics: u64) -> anyhow::Result<()> {
    let mut client = ClusterServiceClient::connect(format!("http://{}", node.grpc())).await?;
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let until_it_does = async {
        loop {
            looks.tick().await;
            if client.get_health(v1::GetHealthRequest {}).await?.into_inner().topics == topics {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until_it_does).await.context("it never knew")?
}

/// Whether this very node lists the reader beside three brokers.
async fn lists_the_reader(node: &Node) -> anyhow::Result<bool> {
    let mut client = ClusterServiceClient::connect(format!("http://{}", node.grpc())).await?;
    let listed = client.list_nodes(v1::ListNodesRequest {}).await?.into_inner().nodes;
    let told: Vec<_> = listed.iter().map(|node| (node.id, node.role.as_str())).collect();
    Ok(told == [(1, "broker"), (2, "broker"), (3, "broker"), (9, "reader")])
}

/// Writes without the node that a reader followed, and reads it through the reader.
async fn goes_on(reader: &Node, by: &str) -> anyhow::Result<()> {
    let house = StreamHouse::connect(by).await?;
    house.admin().create_topic(NewTopic::new("flights").partitions(2), Mode::Apply).await?;
    knows(reader, 1).await?;
    write(&house).await?;
    let house = StreamHouse::connect(reader.grpc()).await?;
    ensure!(count(&house).await? == RECORDS, "all that was written");
    let by_reader = read_bytes(reader).await?;
    ensure!(by_reader > 100_000, "{by_reader} bytes by the reader");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_leaves_a_node_that_the_others_do_not_hear() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, |node, _| node).await?;
    site.cluster.start().await?;
    let leader = site.cluster.leader().await?;
    let mut reader = on_store(reader(&site.cluster, leader), &site.store, "streamhouse");
    reader.start().await?;
    site.isolate(leader);
    let other = site.cluster.node(leader % 3 + 1).grpc().to_owned();
    let follows = |now: NodeId| now.get() != u64::from(leader);
    let led = |health: &ClusterHealth| health.leader.is_some_and(follows);
    site.cluster.until_seen_by(&other, "led by another", led).await?;
    goes_on(&reader, &other).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_another_node_when_its_own_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(3, |node, _| node)?;
    cluster.start().await?;
    let store = format!("--store=file://{}", cluster.folder().join("store").display());
    let mut reader = reader(&cluster, 2).argument(store);
    // A reader keeps nothing, so it also runs where it can write nothing.
    std::fs::write(cluster.folder().join("reader"), "in the way")?;
    reader.start().await?;
    for node in cluster.nodes.iter().chain([&reader]) {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        let listed = async {
            while !lists_the_reader(node).await? {
                looks.tick().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), listed).await.with_context(|| node.log())??;
    }
    cluster.node(2).kill();
    let follows = |now: NodeId| now.get() != 2;
    cluster.until("led by another", |health| health.leader.is_some_and(follows)).await?;
    let other = cluster.node(1).grpc().to_owned();
    goes_on(&reader, &other).await
}
