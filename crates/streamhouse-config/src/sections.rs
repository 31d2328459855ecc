//! The rooms of the configuration that belong to the process itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhouse_types::NodeId;

/// Who the node is and where it keeps what is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Number of the node, from 1.
    pub id: NodeId,
    /// Folder of the node's identity and metadata log.
    pub data_dir: PathBuf,
    /// What the node does.
    pub roles: Vec<String>,
    /// Failure zone, may be empty.
    pub zone: String,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            id: NodeId::new(1),
            data_dir: PathBuf::from("./.streamhouse"),
            roles: vec!["broker".to_owned()],
            zone: String::new(),
        }
    }
}

/// How a cluster presents itself to clients of Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaAdvertise {
    /// Every node under its own address.
    #[default]
    Nodes,
    /// As one broker behind one address.
    SingleEndpoint,
}

/// What the process listens on. Loopback unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSettings {
    /// Clients of Kafka's protocol.
    pub kafka: String,
    /// Clients.
    pub grpc: String,
    /// Other nodes.
    pub internal: String,
    /// Metrics and health.
    pub http: String,
    /// What clients of Kafka's protocol are told; empty for the bound address.
    pub advertised_kafka: String,
    /// How the cluster presents itself to them.
    pub kafka_advertise: KafkaAdvertise,
    /// What clients are told; empty for the bound address.
    pub advertised_grpc: String,
    /// What other nodes are told; empty for the bound address.
    pub advertised_internal: String,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            kafka: "127.0.0.1:9092".to_owned(),
            grpc: "127.0.0.1:9094".to_owned(),
            internal: "127.0.0.1:9095".to_owned(),
            http: "127.0.0.1:8080".to_owned(),
            advertised_kafka: String::new(),
            kafka_advertise: KafkaAdvertise::default(),
            advertised_grpc: String::new(),
            advertised_internal: String::new(),
        }
    }
}

/// How the cluster comes to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// Whether an empty data directory may found a cluster.
    pub bootstrap: bool,
    /// How many voters there should be: 1, 3 or 5.
    pub voters: u32,
    /// Addresses at which other nodes answer.
    pub seeds: Vec<String>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { bootstrap: true, voters: 3, seeds: Vec::new() }
    }
}

/// How the store is kept clean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleaningSettings {
    /// How long an object stays after nothing refers to it.
    #[serde(with = "humantime_serde")]
    pub delete_grace: Duration,
    /// How often the store is listed for orphans.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
}

impl Default for CleaningSettings {
    fn default() -> Self {
        Self { delete_grace: Duration::from_secs(15 * 60), sweep_interval: Duration::from_secs(10 * 60) }
    }
}

/// What new topics look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicDefaults {
    /// Whether the first write makes a topic.
    pub auto_create: bool,
    /// Partitions of a topic made without a number.
    pub default_partitions: u32,
}

impl Default for TopicDefaults {
    fn default() -> Self {
        Self { auto_create: false, default_partitions: 1 }
    }
}

/// What bounds the node's memory and its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Bytes of batches taken in and not yet answered; `None`: from the memory limit.
    pub in_flight_bytes: Option<u64>,
    /// Bytes of the block cache and the tail cache together.
    pub cache_bytes: u64,
    /// Bytes that the block cache may keep on disk; 0 for none.
    pub disk_cache_bytes: u64,
    /// Largest batch any topic may allow.
    pub max_batch_bytes: u32,
    /// Connections to the gRPC port.
    pub connections: usize,
    /// Connections to the Kafka port.
    pub kafka_connections: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            in_flight_bytes: None,
            cache_bytes: 128 << 20,
            disk_cache_bytes: 0,
            max_batch_bytes: 8 << 20,
            connections: 1_000,
            kafka_connections: 16_384,
        }
    }
}

impl LimitSettings {
    /// Most open files that are kept for everything but connections of clients.
    const OTHER_FILES: usize = 1_024;

    /// Takes no more connections than a process with so many open files can have, and keeps some for the store, the log and
    /// other nodes: a write that finds no room for its file would fail. Says whether that changed anything.
    pub fn fit_open_files(&mut self, open_files: u64) -> bool {
        let files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let room = files - (files / 4).min(Self::OTHER_FILES);
        let before = (self.connections, self.kafka_connections);
        self.connections = self.connections.min(room / 2).max(1);
        self.kafka_connections = self.kafka_connections.min(room.saturating_sub(self.connections)).max(1);
        (self.connections, self.kafka_connections) != before
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Least level, also per module.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// When batches are uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalSettings {
    /// Shortest time between two uploads under load; `None`: by the kind of store.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Option<Duration>,
    /// An upload starts earlier when this many bytes wait.
    pub flush_bytes: u64,
    /// How many uploads run at once.
    pub uploads_in_flight: usize,
}

impl Default for WalSettings {
    fn default() -> Self {
        Self { flush_interval: None, flush_bytes: 8 << 20, uploads_in_flight: 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_are_taken_than_a_process_may_have_files() {
        let fitted = |open_files| {
            let mut limits = LimitSettings::default();
            let changed = limits.fit_open_files(open_files);
            (limits.connections, limits.kafka_connections, changed)
        };
        assert_eq!(fitted(1 << 20), (1_000, 16_384, false));
        assert_eq!(fitted(20_000), (1_000, 16_384, false));
        assert_eq!(fitted(4_096), (1_000, 2_072, true));
        assert_eq!(fitted(1_024), (384, 384, true));
        assert_eq!(fitted(0), (1, 1, true));
    }
}
