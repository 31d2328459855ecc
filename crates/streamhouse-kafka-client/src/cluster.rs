//! Finding the nodes: who leads which partition, and who coordinates a group.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_env::{Connection, Env};
use tokio_util::sync::CancellationToken;

use crate::code;
use crate::wire::{Call, Wire};

/// Longest that making a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest that an answer may take which waits for nothing.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
const METADATA: i16 = 9;
const FIND_COORDINATOR: i16 = 3;

/// Where a client is, whom it asks first and what it reads or writes.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its machine.
    pub env: Env,
    /// `host:port` of nodes, any of which may be down.
    pub servers: Vec<String>,
    /// The topic, which is there.
    pub topic: String,
    /// The client finishes what it has begun, and ends.
    pub stop: CancellationToken,
}

impl Place {
    /// How the history calls a partition.
    pub(crate) fn partition_name(&self, partition: i32) -> String {
        format!("{}/{partition}", self.topic)
    }

    /// True once in `n` draws.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.env.rng.below(n) == 0
    }

    /// From `low..=high`.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.env.rng.below(high - low + 1)
    }

    /// Waits up to so long, less when the client is to end.
    pub(crate) async fn pause(&self, millis_max: u64) {
        let pause = Duration::from_millis(self.env.rng.below(millis_max + 1));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.env.clock.sleep(pause) => {}
        }
    }

    /// What comes of `work`, or that it took too long.
    ///
    /// # Errors
    /// Its own.
    pub(crate) async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.env.clock.sleep(patience) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A connection to a node.
pub(crate) type Line = Wire<Connection>;

/// A partition as Metadata describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
}

/// The cluster as the client was told last.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) place: Place,
    nodes: BTreeMap<i32, String>,
    led: BTreeMap<i32, Led>,
}

impl Cluster {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, nodes: BTreeMap::new(), led: BTreeMap::new() }
    }

    /// Who leads a partition, as far as was told.
    pub(crate) fn led(&self, partition: i32) -> Option<Led> {
        self.led.get(&partition).copied()
    }

    /// The partitions of the topic, as far as was told.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.led.keys().copied().collect()
    }

    /// A connection to any node.
    pub(crate) async fn any(&self) -> io::Result<Line> {
        let servers: Vec<&String> = self.nodes.values().chain(&self.place.servers).collect();
        let place = self.place.env.rng.below(servers.len() as u64);
        self.connect(servers[usize::try_from(place).expect("few")]).await
    }

    /// A connection to a node that Metadata have named.
    pub(crate) async fn node(&self, node: i32) -> io::Result<Line> {
        let address = self.nodes.get(&node).ok_or(io::ErrorKind::NotFound)?;
        self.connect(address).await
    }

    pub(crate) async fn connect(&self, address: &str) -> io::Result<Line> {
        let connection = self.place.within(CONNECT, self.place.env.net.connect(address)).await?;
        Ok(Wire::new(connection))
    }

    /// Asks on a connection, not for long.
    pub(crate) async fn ask<C: Call>(
        &self,
        line: &mut Line,
        request: &C,
        version: i16,
    ) -> io::Result<C::Answer> {
        self.place.within(ANSWER, line.call(request, version)).await
    }

    /// Asks any node who leads.
    pub(crate) async fn refresh(&mut self) -> io::Result<()> {
        let mut line = self.any().await?;
        let topic = g::MetadataRequestTopic { name: Some(text(&self.place.topic)), ..Default::default() };
        let request = g::MetadataRequestData {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let told = self.ask(&mut line, &request, METADATA).await?;
        self.nodes =
            told.brokers.into_iter().map(|node| (node.node_id, address(&node.host, node.port))).collect();
        // A node that is behind does not know the topic yet.
        if let Some(topic) = told.topics.into_iter().find(|topic| topic.error_code == code::NONE) {
            let led = |partition: g::MetadataResponsePartition| {
                let led = Led { leader: partition.leader_id, epoch: partition.leader_epoch };
                (partition.partition_index, led)
            };
            self.led = topic.partitions.into_iter().map(led).collect();
        }
        Ok(())
    }

    /// Asks any node for the coordinator of a group: its number and where it is.
    pub(crate) async fn coordinator(&self, group: &str) -> io::Result<(i32, String)> {
        let mut line = self.any().await?;
        let request = g::FindCoordinatorRequestData { key: text(group), ..Default::default() };
        let found = self.ask(&mut line, &request, FIND_COORDINATOR).await?;
        if found.error_code == code::NONE {
            Ok((found.node_id, address(&found.host, found.port)))
        } else {
            Err(io::Error::other(format!("no coordinator: error {}", found.error_code)))
        }
    }
}

fn address(host: &KafkaString, port: i32) -> String {
    format!("{host}:{port}")
}

pub(crate) fn text(text: &str) -> KafkaString {
    KafkaString::from(text.to_owned())
}
