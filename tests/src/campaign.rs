//! A campaign: producers and a consumer at work on a cluster while something befalls it, then the judgement of
//! everything that they saw.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use streamhouse_client::{Mode, NewTopic, StreamHouse};

use crate::cluster::Cluster;
use crate::history::Recording;
use crate::kafka::KafkaClients;
use crate::load::{Load, Running, verify_deep};
use crate::tail::Tail;

const PARTITIONS: u32 = 6;

/// The length of a campaign, as a variable of the environment sets it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the length of a campaign is set from outside")]
pub fn length(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The smallest span that has at least this share of all at or below it; zero when there is none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A cluster under load, whose history is written down.
#[derive(Debug)]
pub struct Campaign {
    /// Knows all nodes.
    pub house: StreamHouse,
    /// The producers.
    pub running: Running,
    tail: Tail,
    kafka: KafkaClients,
    recording: Recording,
}

impl Campaign {
    /// Starts the cluster, three producers that write to all partitions of a new topic, a consumer that follows it, and
    /// Kafka clients with a topic and a group of their own.
    ///
    /// # Errors
    /// When the cluster does not come up.
    pub async fn begin(cluster: &mut Cluster, topic: &str) -> anyhow::Result<Self> {
        let recording = Recording::begin(cluster.folder())?;
        cluster.start().await?;
        let house = cluster.connect().await?;
        house.admin().create_topic(NewTopic::new(topic).partitions(PARTITIONS), Mode::Apply).await?;
        let load = Load {
            topic: topic.into(),
            partitions: PARTITIONS,
            producers: 3,
            value_bytes: 200,
            first_producer: 0,
            bytes_per_second: Some(512 << 10),
            recorder: recording.recorder(),
        };
        let tail = Tail::start(&cluster.connect().await?, topic, "tail", recording.recorder()).await?;
        let running = load.start(&house).await?;
        let kafka_topic = format!("{topic}-kafka");
        let kafka = KafkaClients::start(cluster, &house, kafka_topic, recording.recorder()).await?;
        Ok(Self { house, running, tail, kafka, recording })
    }

    /// Waits until so many more records are acknowledged.
    ///
    /// # Errors
    /// When a record failed.
    pub async fn more(&mut self, records: u64) -> anyhow::Result<()> {
        let target = self.running.acked() + records;
        self.running.wait_for(target).await
    }

    /// Ends the load, reads everything back through each node, holds the store against the metadata, and has the whole
    /// history judged.
    ///
    /// # Errors
    /// When anything is wrong.
    pub async fn end(self, cluster: &Cluster) -> anyhow::Result<()> {
        let Self { running, tail, kafka, recording, .. } = self;
        let kafka = kafka.finish(recording.recorder()).await?;
        let sent = running.finish().await?;
        tail.finish(sent.records).await?;
        for node in &cluster.nodes {
            let house = StreamHouse::connect(node.grpc()).await?;
            let judgement = sent.judge(&house).await?;
            kafka.read_back(cluster, &house).await?;
            println!("through {}: {judgement}", node.grpc());
            ensure!(judgement.is_clean(), "{judgement}");
            ensure!(judgement.acked == sent.records, "{} of {} records acked", judgement.acked, sent.records);
        }
        let verified = verify_deep(&cluster.connect().await?).await?;
        ensure!(verified.faults.is_empty(), "{verified:?}");
        recording.audited(&verified);
        println!("{}", recording.judge()?);
        same_state(cluster).await
    }
}

/// I8: replicas that applied the same entry have the same state.
async fn same_state(cluster: &Cluster) -> anyhow::Result<()> {
    let mut hashes = BTreeMap::new();
    for _ in 0..200 {
        for node in &cluster.nodes {
            let info = StreamHouse::connect(node.grpc()).await?.admin().info().await?;
            let first = hashes.entry(info.applied_index).or_insert_with(|| info.state_hash.clone());
            ensure!(*first == info.state_hash, "two states at entry {}", info.applied_index);
        }
    }
    Ok(())
}
