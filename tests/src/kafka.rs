//! Kafka clients beside the others of a campaign: an idempotent producer, and two consumers that share what it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use parking_lot::Mutex;
use streamhouse_check::{Acknowledged, Event, Happened, Micros, OpId, Recorder, Sending};
use streamhouse_client::{Mode, NewTopic, Position, ReadToken, StreamHouse};
use streamhouse_env::Env;
use streamhouse_kafka_client::{CancellationToken, Habits, Load, Member, Place, Producer, Witness};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::node::Node;
use crate::reading::Reading;

const PARTITIONS: u32 = 4;
const MEMBERS: u32 = 2;
/// How long the clients may take to end, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether they were of use yet.
const LOOK: Duration = Duration::from_millis(50);

/// Kafka clients at work on a topic of their own.
#[derive(Debug)]
pub struct KafkaClients {
    topic: String,
    stop: CancellationToken,
    working: JoinSet<()>,
    saw: Saw,
}

impl KafkaClients {
    /// Makes the topic and lets them begin.
    ///
    /// # Errors
    /// When the topic cannot be made.
    pub async fn start(
        cluster: &Cluster,
        house: &StreamHouse,
        topic: String,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        house.admin().create_topic(NewTopic::new(&*topic).partitions(PARTITIONS), Mode::Apply).await?;
        let stop = CancellationToken::new();
        let place = Place {
            env: Env::system(),
            servers: cluster.nodes.iter().map(|node: &Node| node.kafka().to_owned()).collect(),
            topic: topic.clone(),
            stop: stop.clone(),
        };
        let saw = Saw { recorder, seen: Arc::default() };
        let mut working = JoinSet::new();
        let load = Load { records_max: 5_000, pause_ms_max: 20, delivery_timeout: PATIENCE };
        let (name, witness) = ("kafka-producer".to_owned(), saw.clone());
        working.spawn(Producer { place: place.clone(), witness, name, load }.run());
        for number in 0..MEMBERS {
            let habits = Habits { commit: 5, stall: 200, leave: 100 };
            let name = format!("kafka-member-{number}");
            working.spawn(Member::new(place.clone(), saw.clone(), (&name, "billing", ""), habits).run());
        }
        Ok(Self { topic, stop, working, saw })
    }

    /// Waits until something of theirs was acknowledged and committed, and lets them finish what they have begun.
    ///
    /// # Errors
    /// When they do not end in time, were told what must not be told, or had nothing acknowledged or committed.
    pub async fn finish(mut self, recorder: Recorder) -> anyhow::Result<Written> {
        let Seen { acked, committed, .. } = &*self.saw.seen;
        let mut looks = tokio::time::interval(LOOK);
        let used = async {
            while acked.load(Ordering::Relaxed) == 0 || committed.load(Ordering::Relaxed) == 0 {
                looks.tick().await;
            }
        };
        // What is missing then is said below.
        drop(tokio::time::timeout(PATIENCE, used).await);
        self.stop.cancel();
        let ending = async {
            while let Some(ended) = self.working.join_next().await {
                ended?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, ending).await.context("the kafka clients do not end")??;
        let Seen { acked, committed, wrong } = &*self.saw.seen;
        let (acked, committed) = (acked.load(Ordering::Relaxed), committed.load(Ordering::Relaxed));
        println!("kafka clients: {acked} batches acked, {committed} offsets told or committed");
        ensure!(wrong.lock().is_empty(), "{:?}", wrong.lock());
        ensure!(acked > 0 && committed > 0, "they had nothing acknowledged, or committed nothing");
        Ok(Written { topic: self.topic, recorder })
    }
}

/// What Kafka clients have written, to be read back.
#[derive(Debug)]
pub struct Written {
    topic: String,
    recorder: Recorder,
}

impl Written {
    /// Reads the whole topic through one of the nodes, at least as new as all of them are now, as part of the final read
    /// under way.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read_back(&self, cluster: &Cluster, house: &StreamHouse) -> anyhow::Result<()> {
        let mut newest = ReadToken::default();
        for node in &cluster.nodes {
            let info = StreamHouse::connect(node.grpc()).await?.admin().info().await?;
            newest = newest.max(ReadToken::new(info.applied_index));
        }
        let mut reading = Reading::begin(&self.recorder, "kafka-judge", &self.topic, newest);
        let topic = house.topic(&self.topic);
        let mut records = topic.read(Position::Start).at_least(newest).open().await?.records();
        while let Some(record) = records.next().await {
            reading.take(&record?, records.progress());
        }
        reading.write_all();
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Seen {
    acked: AtomicU64,
    committed: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Writes into the history of the campaign.
#[derive(Debug, Clone)]
struct Saw {
    recorder: Recorder,
    seen: Arc<Seen>,
}

impl Witness for Saw {
    fn now(&self) -> Micros {
        self.recorder.now()
    }

    fn append(&self, sending: &Sending<'_>) -> OpId {
        self.recorder.append(sending)
    }

    fn acked(&self, op: OpId, acknowledged: Acknowledged) {
        self.seen.acked.fetch_add(1, Ordering::Relaxed);
        self.recorder.acked(op, acknowledged);
    }

    fn failed(&self, op: OpId, happened: Happened, error: &str) {
        self.recorder.failed(op, happened, error);
    }

    fn record(&self, event: Event<'_>) {
        if matches!(event, Event::Commit(_) | Event::Committed(_)) {
            self.seen.committed.fetch_add(1, Ordering::Relaxed);
        }
        self.recorder.record(&event);
    }

    fn met(&self, _what: &str) {}

    fn wrong(&self, what: String) {
        self.seen.wrong.lock().push(what);
    }
}
