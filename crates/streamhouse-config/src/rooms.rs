//! What the rooms below are given of the configuration.

use streamhouse_broker::BrokerSettings;
use streamhouse_storage::DiskSettings;

use super::Config;

impl Config {
    /// The broker's settings.
    #[must_use]
    pub fn broker(&self) -> BrokerSettings {
        let defaults = BrokerSettings::default();
        let half = self.limits.cache_bytes / 2;
        let (dir, capacity_bytes) = (self.node.data_dir.join("cache"), self.limits.disk_cache_bytes);
        BrokerSettings {
            flush_interval: self.wal.flush_interval.unwrap_or(defaults.flush_interval),
            flush_bytes: self.wal.flush_bytes,
            uploads_in_flight: self.wal.uploads_in_flight,
            in_flight_bytes: self.limits.in_flight_bytes.unwrap_or(defaults.in_flight_bytes),
            // Tail readers and those further back have a budget each, so that neither pushes the other out.
            tail_cache_bytes: half,
            block_cache_bytes: self.limits.cache_bytes - half,
            // Also when it is off: what was kept before is then given back.
            disk_cache: Some(DiskSettings { dir, capacity_bytes }),
            max_batch_bytes: self.limits.max_batch_bytes,
            delete_grace: self.storage.delete_grace,
            sweep_interval: self.storage.sweep_interval,
            auto_create_topics: self.topics.auto_create,
            default_partitions: self.topics.default_partitions,
            ..defaults
        }
    }
}
