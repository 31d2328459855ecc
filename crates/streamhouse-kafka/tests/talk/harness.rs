//! A broker, connections to it, and the few calls that every test makes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_advice::Clients;
use streamhouse_broker::metadata::{Command, DirectoryId, FeatureLevel, FeatureRange, Outcome, RegisterNode};
use streamhouse_broker::{Broker, BrokerOptions, BrokerSettings, HighWatermarks, NewTopic, Role};
use streamhouse_env::Env;
use streamhouse_groups::{GroupSettings, Groups, GroupsOptions};
use streamhouse_kafka::{CheckError, Checking, DIRECT, Kafka, KafkaOptions, Presentation};
use streamhouse_kafka_client::wire::{Call, Wire};
use streamhouse_storage::{Store, StoreSettings};
use streamhouse_types::batch::{
    BatchBuilder, BatchProducer, Compression, OPENED_BYTES_MAX, RecordBatch, RecordRef,
};
use streamhouse_types::{ClusterId, NodeId, ProducerEpoch, ProducerId, Sequence, Timestamp};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::log::HouseLog;
use crate::net::{Door, HouseNet};

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

struct Checked;

#[async_trait]
impl Checking for Checked {
    async fn check(&self, mut batch: RecordBatch) -> Result<RecordBatch, CheckError> {
        batch.check_compressed(OPENED_BYTES_MAX)?;
        Ok(batch)
    }
}

/// A broker with a listener.
pub(crate) struct House {
    pub(crate) broker: Broker,
    pub(crate) kafka: Kafka,
    pub(crate) clients: Clients,
    pub(crate) log: Arc<HouseLog>,
    pub(crate) drain: CancellationToken,
    pub(crate) closing: CancellationToken,
}

/// Where houses stand side by side: what they share.
pub(crate) struct Plot {
    log: Arc<HouseLog>,
    watermarks: HighWatermarks,
    store: Store,
    pub(crate) net: Arc<HouseNet>,
}

impl Plot {
    pub(crate) async fn new() -> Self {
        Self::at(FeatureLevel::NEWEST).await
    }

    /// Where every node keeps to this feature level.
    pub(crate) async fn at(level: FeatureLevel) -> Self {
        let env = Env::system();
        let watermarks = HighWatermarks::new();
        let log = Arc::new(HouseLog::new(watermarks.clone()));
        log.apply(&Command::Bootstrap { cluster: CLUSTER, now: env.clock.wall() });
        let store = StoreSettings { url: "memory:///".to_owned(), ..StoreSettings::default() };
        let store = streamhouse_storage::open(&store, &env).await.expect("a store");
        admit(&log, 1);
        log.apply(&Command::RaiseFeatureLevel { level });
        Self { log, watermarks, store, net: Arc::default() }
    }

    /// The house of a node.
    pub(crate) async fn house(
        &self,
        number: u64,
        settings: BrokerSettings,
        presentation: Presentation,
    ) -> House {
        let net: Arc<HouseNet> = Arc::clone(&self.net);
        let env = Env { net, ..Env::system() };
        let (node, direct) = (NodeId::new(number), format!("house-{number}"));
        admit(&self.log, number);
        let auto_create_topics = settings.auto_create_topics;
        let options = BrokerOptions {
            role: Role::Broker,
            node,
            zone: "north".to_owned(),
            addresses: vec![
                ("kafka".to_owned(), "house.example:9092".to_owned()),
                (DIRECT.to_owned(), direct.clone()),
            ],
            env: env.clone(),
            log: Arc::<HouseLog>::clone(&self.log),
            store: self.store.clone(),
            watermarks: self.watermarks.clone(),
            sweep_gate: Arc::new(()),
            settings,
        };
        let broker = Broker::start(options).await.expect("the broker starts");
        let drain = CancellationToken::new();
        let groups = Groups::new(GroupsOptions {
            broker: broker.clone(),
            env: env.clone(),
            node,
            settings: GroupSettings { initial_rebalance_delay: Duration::ZERO, ..GroupSettings::default() },
        });
        let clients = Clients::default();
        let kafka = Kafka::new(KafkaOptions {
            broker: broker.clone(),
            env,
            groups: Some(groups),
            clients: clients.clone(),
            node,
            cluster: CLUSTER,
            checking: Arc::new(Checked),
            max_batch_bytes: 8 << 20,
            auto_create_topics,
            default_partitions: 1,
            presentation,
            drain: drain.clone(),
        });
        self.net.put(direct, Door::Open(kafka.clone()));
        House { broker, kafka, clients, log: Arc::clone(&self.log), drain, closing: CancellationToken::new() }
    }
}

impl House {
    pub(crate) async fn start() -> Self {
        let flush_interval = Duration::from_millis(1);
        Self::with(BrokerSettings { auto_create_topics: true, flush_interval, ..BrokerSettings::default() })
            .await
    }

    pub(crate) async fn with(settings: BrokerSettings) -> Self {
        Plot::new().await.house(1, settings, Presentation::Nodes).await
    }

    /// A topic with these settings.
    pub(crate) async fn topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let new = NewTopic {
            name: name.parse().expect("a name"),
            partitions,
            settings: settings.collect(),
            request: None,
            validate_only: false,
        };
        self.broker.create_topic(new).await.expect("made");
    }

    /// Another node, of which only the metadata know.
    pub(crate) fn neighbour(&self, node: u64, zone: &str) {
        admit(&self.log, node);
        let register = RegisterNode {
            request: [u8::try_from(node).expect("a small number"); 16],
            node: NodeId::new(node),
            zone: zone.to_owned(),
            addresses: vec![("kafka".to_owned(), format!("house-{node}.example:9092"))],
        };
        let registered = self.log.apply(&Command::RegisterNode(register));
        assert!(matches!(registered, Outcome::Registered { .. }), "{registered:?}");
    }

    /// The home of each partition of a topic.
    pub(crate) async fn homes(&self, topic: &str) -> Vec<u64> {
        let id = self.broker.topic(&topic.parse().expect("a name")).await.expect("it is there").id;
        let homes = self.broker.look(|state| {
            let topic = state.topic(id)?;
            Some(topic.partitions().map(|partition| partition.home().get()).collect())
        });
        homes.expect("it is still there")
    }

    pub(crate) fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (kafka, closing) = (self.kafka.clone(), self.closing.clone());
        tokio::spawn(async move { kafka.serve(theirs, LOOPBACK, closing).await });
        Client { wire: Wire::new(ours) }
    }
}

impl Plot {
    /// The cluster takes a node for lost.
    pub(crate) fn lose(&self, house: &House, node: u64) {
        let node = NodeId::new(node);
        let incarnation = house.broker.look(|state| state.node(node).expect("registered").incarnation());
        self.log.apply(&Command::CloseIncarnation { node, incarnation });
    }
}

/// Makes a node a member that knows all there is.
fn admit(log: &HouseLog, node: u64) {
    let directory = DirectoryId::from_bytes([u8::try_from(node).expect("a small number"); 16]);
    let features = FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::NEWEST };
    let admit = Command::AdmitNode { node: NodeId::new(node), directory, features, version: String::new() };
    assert_eq!(log.apply(&admit), Outcome::Done);
}

/// A connection of a client.
pub(crate) struct Client {
    pub(crate) wire: Wire<DuplexStream>,
}

impl Client {
    /// Sends a request; returns the number its answer will have.
    pub(crate) async fn send<C: Call>(&mut self, request: &C, version: i16) -> i32 {
        self.wire.send(request, version).await.expect("written")
    }

    /// The next answer, which must be whole; returns its number.
    pub(crate) async fn receive<C: Call>(&mut self, version: i16) -> (i32, C::Answer) {
        self.wire.receive::<C>(version).await.expect("an answer")
    }

    pub(crate) async fn call<C: Call>(&mut self, request: &C, version: i16) -> C::Answer {
        self.wire.call(request, version).await.expect("an answer")
    }

    /// Whether the other side has ended the connection.
    pub(crate) async fn is_ended(&mut self) -> bool {
        self.wire.io().read_u8().await.is_err()
    }

    /// Produces one batch to partition 0 of a topic; returns error, base offset, append time and message.
    pub(crate) async fn produce(&mut self, topic: &str, batch: Bytes) -> (i16, i64, i64, Option<String>) {
        let answer = self.call(&produce(topic, batch), 9).await;
        let partition = &answer.responses[0].partition_responses[0];
        let message = partition.error_message.as_ref().map(ToString::to_string);
        (partition.error_code, partition.base_offset, partition.log_append_time_ms, message)
    }

    /// Reads partition 0 of a topic.
    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        offset: i64,
        wait_ms: i32,
    ) -> g::fetch_response::PartitionData {
        let mut answer = self.call(&fetch(&[topic], offset, wait_ms), 11).await;
        answer.responses.remove(0).partitions.remove(0)
    }
}

pub(crate) fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_owned())
}

/// A request to append a batch to partition 0.
pub(crate) fn produce(topic: &str, batch: Bytes) -> g::ProduceRequestData {
    let partition = g::PartitionProduceData { index: 0, records: Some(batch), ..Default::default() };
    let topic =
        g::TopicProduceData { name: text(topic), partition_data: vec![partition], ..Default::default() };
    g::ProduceRequestData { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// A request to read partition 0 of each topic.
pub(crate) fn fetch(topics: &[&str], offset: i64, wait_ms: i32) -> g::FetchRequestData {
    let topic = |topic: &&str| g::fetch_request::FetchTopic {
        topic: text(topic),
        partitions: vec![g::fetch_request::FetchPartition {
            partition: 0,
            fetch_offset: offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        }],
        ..Default::default()
    };
    g::FetchRequestData {
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: topics.iter().map(topic).collect(),
        ..Default::default()
    }
}

/// A batch with these values; their times count up from `time`.
pub(crate) fn batch(compression: Compression, time: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    fill(&mut builder, time, values);
    builder.build()
}

/// The same from an idempotent producer.
pub(crate) fn sequenced(id: i64, epoch: u16, first: u32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(BatchProducer {
        id: ProducerId::new(id.unsigned_abs()),
        epoch: ProducerEpoch::new(epoch),
        first_sequence: Sequence::new(first),
    });
    fill(&mut builder, 1_000, values);
    builder.build()
}

/// A batch of records with these keys; `None` for one without.
pub(crate) fn keyed(compression: Compression, keys: &[Option<&str>]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for key in keys {
        let key = key.map(str::as_bytes);
        let (value, timestamp) = (Some(&b"value"[..]), Timestamp::from_millis(1_000));
        builder.push(&RecordRef { key, value, headers: &[], timestamp }).expect("it fits");
    }
    builder.build()
}

fn fill(builder: &mut BatchBuilder, time: i64, values: &[&str]) {
    for (delta, value) in (0..).zip(values) {
        let record = RecordRef {
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
            timestamp: Timestamp::from_millis(time + delta),
        };
        builder.push(&record).expect("it fits");
    }
}

/// Offsets and values of the records of a fetch.
pub(crate) fn records(fetched: &g::fetch_response::PartitionData) -> Vec<(i64, String)> {
    let mut bytes = fetched.records.clone().unwrap_or_default();
    let mut all = Vec::new();
    let limits = streamhouse_types::batch::BatchLimits::MAX;
    while let Some(batch) = RecordBatch::split_first(&mut bytes, &limits).expect("sound batches") {
        let base = batch.header().base_offset;
        for record in batch.records().expect("records") {
            let record = record.expect("a record");
            let value = record.value.map(|value| String::from_utf8_lossy(&value).into_owned());
            all.push((base + i64::from(record.offset_delta), value.unwrap_or_default()));
        }
    }
    all
}
