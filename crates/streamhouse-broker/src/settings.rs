//! What a person can set about the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhouse_storage::DiskSettings;

use crate::StartError;

/// How writes are gathered and stored, and how much memory they and the caches may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSettings {
    /// Shortest time from one flush to the next. Adds to the produce latency under load, divides the number of
    /// uploads. 50 ms suits remote stores, 2 ms a local folder.
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// Size at which the open buffer is flushed at once, in bytes.
    pub flush_bytes: u64,
    /// How many WAL objects may be uploading at once.
    pub uploads_in_flight: usize,
    /// How long a batch may wait for its commit before it is answered with an error.
    #[serde(with = "humantime_serde")]
    pub request_deadline: Duration,
    /// Bytes of batches that may be on their way to the store at once in this node; a producer beyond it waits.
    pub in_flight_bytes: u64,
    /// Bytes of newly committed batches that are kept for tail readers.
    pub tail_cache_bytes: u64,
    /// Bytes of the block cache for readers that lie further back.
    pub block_cache_bytes: u64,
    /// What the block cache keeps on disk besides; `None` for nothing.
    pub disk_cache: Option<DiskSettings>,
    /// Largest batch that any topic may allow on this node, in bytes.
    pub max_batch_bytes: u32,
    /// How far ahead of a sequential reader blocks are read, in bytes.
    pub read_ahead_bytes: u64,
    /// How long an object that nothing refers to stays in the store.
    #[serde(with = "humantime_serde")]
    pub delete_grace: Duration,
    /// Time between two sweeps.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// Whether a write to an unknown topic makes it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is made without a number.
    pub default_partitions: u32,
    /// How long a partition without work keeps its actor.
    #[serde(with = "humantime_serde")]
    pub partition_idle: Duration,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(50),
            flush_bytes: 8 << 20,
            uploads_in_flight: 8,
            request_deadline: Duration::from_secs(30),
            in_flight_bytes: 256 << 20,
            tail_cache_bytes: 64 << 20,
            block_cache_bytes: 64 << 20,
            disk_cache: None,
            max_batch_bytes: 8 << 20,
            read_ahead_bytes: 8 << 20,
            delete_grace: Duration::from_secs(15 * 60),
            sweep_interval: Duration::from_secs(5 * 60),
            auto_create_topics: false,
            default_partitions: 1,
            partition_idle: Duration::from_secs(60),
        }
    }
}

impl BrokerSettings {
    /// Whether a broker can work with these.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let ranges = [
            ("flush_bytes", self.flush_bytes > 0 && self.flush_bytes <= 1 << 30, "1 byte to 1 GiB"),
            ("uploads_in_flight", (1..=64).contains(&self.uploads_in_flight), "1 to 64"),
            ("in_flight_bytes", self.in_flight_bytes > 0, "at least 1 byte"),
            ("request_deadline", !self.request_deadline.is_zero(), "longer than nothing"),
            ("sweep_interval", !self.sweep_interval.is_zero(), "longer than nothing"),
            ("default_partitions", (1..=10_000).contains(&self.default_partitions), "1 to 10,000"),
        ];
        match ranges.into_iter().find(|(_, fits, _)| !fits) {
            Some((name, _, expected)) => Err(StartError::Setting { name, expected }),
            None => Ok(()),
        }
    }
}
