//! A reader beside a cluster: it serves what clients read, and nobody misses it when it is killed.

use anyhow::ensure;
use futures::TryStreamExt as _;
use streamhouse_client::{Mode, NewTopic, Position, Record, StreamHouse};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::Node;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_through_a_reader_are_served_by_it_and_go_on_when_it_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(1, |node, _| node)?;
    cluster.start().await?;
    let mut reader = Node::new(&cluster.folder().join("reader"))
        .argument("--node.id=9")
        .argument("--node.roles=reader")
        .argument(format!("--cluster.seeds={}", cluster.internal(1)))
        .argument(format!("--store=file://{}", cluster.folder().join("store").display()));
    reader.start().await?;
    let house = StreamHouse::connect(reader.grpc()).await?;
    // What a reader does not do is done by the brokers behind it.
    house.admin().create_topic(NewTopic::new("flights").partitions(2), Mode::Apply).await?;
    let producer = house.topic("flights").producer().build().await?;
    for number in 0..RECORDS {
        drop(producer.send(Record::new(number.to_string()).key(number.to_string())).await?);
    }
    producer.close().await?;
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
