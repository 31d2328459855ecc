//! Three nodes that clients reach through one address alone, and know as one broker.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Buf as _;
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::Node;
use tokio::net::{TcpListener, TcpStream};

use super::{GROUP, Kafka, LEAVE_GROUP, METADATA, Member, TOPIC, batch, text, word};

/// For so long the loss of a node may be felt, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often something is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// A load balancer: it takes connections to one node after the other, and passes over those that are gone.
struct Front {
    address: String,
    nodes: Arc<Mutex<Vec<String>>>,
}

impl Front {
    async fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let nodes = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(lead(listener, Arc::clone(&nodes)));
        Ok(Self { address, nodes })
    }

    fn leads_to(&self, nodes: &[Node]) {
        let nodes = nodes.iter().map(|node| node.kafka().to_owned()).collect();
        *self.nodes.lock().expect("nobody panics with it") = nodes;
    }

    async fn client(&self) -> anyhow::Result<Kafka> {
        Kafka::to(&self.address).await
    }

    /// Asks through one connection after the other until there is an answer.
    async fn insist<T>(&self, ask: impl AsyncFn(Kafka) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut last = None;
        let insisting = async {
            let mut tries = tokio::time::interval(AGAIN);
            loop {
                tries.tick().await;
                let asked = async { ask(self.client().await?).await };
                match asked.await {
                    Ok(answer) => return answer,
                    Err(error) => last = Some(error),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, insisting).await {
            Ok(answer) => Ok(answer),
            Err(_) => bail!("no answer within {PATIENCE:?}: {last:?}"),
        }
    }
}

async fn lead(listener: TcpListener, nodes: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut turn = 0;
    loop {
        let (mut client, _) = listener.accept().await?;
        let nodes = nodes.lock().expect("nobody panics with it").clone();
        for _ in 0..nodes.len() {
            turn += 1;
            if let Ok(mut node) = TcpStream::connect(&nodes[turn % nodes.len()]).await {
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut node).await });
                break;
            }
        }
    }
}

impl Kafka {
    /// What a client is told of the brokers: the one, and that it controls and leads everything.
    async fn sees_one_broker(&mut self, address: &str) -> anyhow::Result<()> {
        let body = [&1_i32.to_be_bytes()[..], &text(TOPIC), &[0]].concat();
        let mut answer = self.ask(METADATA, 4, &body).await?;
        let (_throttled, brokers, id) = (answer.get_i32(), answer.get_i32(), answer.get_i32());
        let (host, port, rack) = (word(&mut answer), answer.get_i32(), answer.get_i16());
        ensure!((brokers, id, rack) == (1, 0, -1), "{brokers} brokers, the first is {id} in {rack}");
        ensure!(format!("{host}:{port}") == address, "it is said to be at {host}:{port}");
        let _cluster = word(&mut answer);
        let (controller, topics, error) = (answer.get_i32(), answer.get_i32(), answer.get_i16());
        ensure!(
            (controller, topics, error) == (0, 1, 0),
            "{controller} controls; {topics} topics, error {error}"
        );
        let (_topic, _internal, partitions) = (word(&mut answer), answer.get_u8(), answer.get_i32());
        for _ in 0..partitions {
            let (error, _index, leader) = (answer.get_i16(), answer.get_i32(), answer.get_i32());
            let replicas = [(); 4].map(|()| answer.get_i32());
            ensure!((error, leader, replicas) == (0, 0, [1, 0, 1, 0]), "{error}, {leader}, {replicas:?}");
        }
        Ok(())
    }

    async fn lives(&mut self, member: &Member) -> anyhow::Result<()> {
        let error = self.heartbeat(member).await?;
        ensure!(error == 0, "sign of life: error {error}");
        Ok(())
    }

    async fn commits(&mut self, member: &Member, offset: i64) -> anyhow::Result<()> {
        let error = self.commit(member, offset).await?;
        ensure!(error == 0, "commit: error {error}");
        Ok(())
    }
}

/// Three nodes, and what stands before them.
async fn three_behind_one() -> anyhow::Result<(Cluster, Front)> {
    let front = Front::open().await?;
    let mut cluster = Cluster::new(3, |node, _| node)?;
    let told = |node: Node| {
        node.argument("--listeners.kafka_advertise=single-endpoint")
            .argument(format!("--listeners.advertised_kafka={}", front.address))
    };
    cluster.nodes = mem::take(&mut cluster.nodes).into_iter().map(told).collect();
    cluster.start().await?;
    front.leads_to(&cluster.nodes);
    Ok((cluster, front))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_behind_one_address_goes_on_without_the_node_of_a_group() -> anyhow::Result<()> {
    let (mut cluster, front) = three_behind_one().await?;
    front.client().await?.make_topic().await?;
    // Three clients in a row are at three nodes.
    let (mut first, second, third) = (front.client().await?, front.client().await?, front.client().await?);
    let producer = first.producer().await?;
    let member = first.join(b"partition 0").await?;
    for (number, mut client) in (0..).zip([first, second, third]) {
        client.sees_one_broker(&front.address).await?;
        let offset = client.produce(&batch(producer, number, &format!("record {number}."))?).await?;
        ensure!(offset == i64::from(number), "{offset}");
        client.lives(&member).await?;
        client.commits(&member, offset).await?;
        ensure!(client.committed().await? == (offset, "so far".to_owned()));
    }

    let house = cluster.connect().await?;
    let group = house.admin().describe_group(GROUP).await?;
    let keeper = u32::try_from(group.coordinator.context("somebody looks after it")?.get())?;
    cluster.node(keeper).kill();
    for number in 3..9 {
        let batch = batch(producer, number, &format!("record {number}."))?;
        let offset = front.insist(async |mut client: Kafka| client.produce(&batch).await).await?;
        ensure!(offset == i64::from(number), "{offset}");
    }
    // It is a member still, wherever it comes in, and has committed what it was told that it had.
    front.insist(async |mut client: Kafka| client.lives(&member).await).await?;
    ensure!(front.insist(async |mut client: Kafka| client.committed().await).await?.0 == 2);
    for offset in 3..9 {
        front.insist(async |mut client: Kafka| client.commits(&member, offset).await).await?;
    }
    for _ in 0..2 {
        let mut client = front.client().await?;
        ensure!(client.committed().await?.0 == 8, "the last commit is the one that counts");
        let fetched = client.fetch().await?;
        for number in 0..9 {
            let value = format!("record {number}.");
            let times = fetched.windows(value.len()).filter(|window| *window == value.as_bytes()).count();
            ensure!(times == 1, "`{value}` came {times} times");
        }
    }
    let body = [text(GROUP), text(&member.id)].concat();
    let mut answer = front.client().await?.ask(LEAVE_GROUP, 1, &body).await?;
    answer.advance(4);
    ensure!(answer.get_i16() == 0, "it has left");
    let left = house.admin().describe_group(GROUP).await?;
    let now = left.coordinator.context("somebody looks after it")?.get();
    ensure!(left.member_count == 0 && now != u64::from(keeper), "{left:?}");
    Ok(())
}
