//! What the settings must satisfy together, and the values that depend on one another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use streamhouse_broker::Role;
use streamhouse_broker::metadata::VoterCount;
use streamhouse_types::NodeId;

use super::{Config, KafkaAdvertise, Preset, Problem};

/// Most partitions of a topic, as metadata has it.
const PARTITIONS_MAX: u32 = 10_000;
/// Largest batch that any topic can allow, as metadata has it.
const BATCH_BYTES_MAX: u32 = 8 << 20;
/// The in-flight budget is never larger by default.
const IN_FLIGHT_DEFAULT_MAX: u64 = 256 << 20;
/// A smaller budget could not take one largest batch beside another.
const IN_FLIGHT_MIN: u64 = 16 << 20;
/// A smaller cache on disk would hold less than one in memory.
const DISK_CACHE_MIN: u64 = 64 << 20;

impl Config {
    /// Gives the values that depend on others or on the machine.
    pub(super) fn fill(&mut self, preset: Preset) {
        if preset == Preset::Dev && self.store.url.is_empty() {
            self.store.url = local_store_url(&self.node.data_dir.join("store"));
        }
        if self.wal.flush_interval.is_none() {
            self.wal.flush_interval = Some(Duration::from_millis(if self.is_local() { 2 } else { 50 }));
        }
        if self.limits.in_flight_bytes.is_none() {
            let quarter = memory_limit().map_or(IN_FLIGHT_DEFAULT_MAX, |limit| limit / 4);
            self.limits.in_flight_bytes = Some(quarter.clamp(IN_FLIGHT_MIN, IN_FLIGHT_DEFAULT_MAX));
        }
    }

    /// What the node does; `None` when the roles say nothing that can be.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.node.roles.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["broker"] => Some(Role::Broker),
            ["reader"] => Some(Role::Reader),
            _ => None,
        }
    }

    /// Whether the records are kept on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.store.url.starts_with("file:") || self.store.url.starts_with("memory:")
    }

    /// Everything that is wrong with the values, taken together.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key, why: String| problems.push(Problem::Invalid { key, why });
        if self.node.id == NodeId::new(0) {
            wrong("node.id", "starts at 1".to_owned());
        }
        if self.role().is_none() {
            wrong("node.roles", "is either [\"broker\"] or [\"reader\"]".to_owned());
        }
        if self.role() == Some(Role::Reader) && self.cluster.seeds.is_empty() {
            wrong("cluster.seeds", "must name nodes that a reader can follow".to_owned());
        }
        if self.node.zone.len() > 128 {
            wrong("node.zone", "has at most 128 bytes".to_owned());
        }
        self.validate_cluster(&mut wrong);
        self.validate_listeners(&mut wrong);
        self.validate_store(&mut wrong);
        self.validate_limits(&mut wrong);
        self.validate_groups(&mut wrong);
        if let Err(error) = crate::check_level(&self.log.level) {
            wrong("log.level", format!("`{}` cannot be used: {error}", self.log.level));
        }
        problems
    }

    fn validate_cluster(&self, wrong: &mut impl FnMut(&'static str, String)) {
        let voters = self.cluster.voters;
        if let Err(error) = VoterCount::try_from(u64::from(voters)) {
            wrong("cluster.voters", format!("cannot be used: {error}"));
        }
        if let Some(seed) = self.cluster.seeds.iter().find(|seed| !is_host_port(seed)) {
            wrong("cluster.seeds", format!("`{seed}` is not host:port"));
        }
        if self.store.url.starts_with("memory:") && !self.cluster.seeds.is_empty() {
            wrong(
                "store.url",
                "cannot be memory:// in a cluster: every node would have a store of its own".to_owned(),
            );
        }
    }

    fn validate_listeners(&self, wrong: &mut impl FnMut(&'static str, String)) {
        let listeners = &self.listeners;
        let bound = [
            ("listeners.kafka", &listeners.kafka),
            ("listeners.grpc", &listeners.grpc),
            ("listeners.internal", &listeners.internal),
            ("listeners.http", &listeners.http),
        ];
        for (place, (key, address)) in bound.iter().enumerate() {
            match address.parse::<std::net::SocketAddr>() {
                Err(_) => wrong(key, format!("`{address}` is not an address, such as 127.0.0.1:9094")),
                Ok(parsed) if parsed.port() != 0 => {
                    let twin = bound[..place].iter().find(|(_, other)| other == address);
                    if let Some((other, _)) = twin {
                        wrong(key, format!("is the same address as `{other}`: {address}"));
                    }
                }
                Ok(_) => {}
            }
        }
        let any = |address: &str| {
            address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
        };
        if any(&listeners.kafka) && listeners.advertised_kafka.is_empty() {
            let why = format!("must be set: clients cannot connect to {}", listeners.kafka);
            wrong("listeners.advertised_kafka", why);
        }
        if any(&listeners.internal) && listeners.advertised_internal.is_empty() {
            let why = format!("must be set: other nodes cannot connect to {}", listeners.internal);
            wrong("listeners.advertised_internal", why);
        }
        let is_single = listeners.kafka_advertise == KafkaAdvertise::SingleEndpoint;
        if is_single && listeners.advertised_kafka.is_empty() {
            let why = "must be set: with listeners.kafka_advertise = \"single-endpoint\" it is the one address of the \
                       cluster";
            wrong("listeners.advertised_kafka", why.to_owned());
        }
        let told = [
            ("listeners.advertised_kafka", &listeners.advertised_kafka),
            ("listeners.advertised_grpc", &listeners.advertised_grpc),
            ("listeners.advertised_internal", &listeners.advertised_internal),
        ];
        for (key, address) in told {
            if !address.is_empty() && !is_host_port(address) {
                wrong(key, format!("`{address}` is not host:port"));
            }
            if any(address) {
                wrong(key, format!("is the address at which others reach this node, which {address} is not"));
            }
        }
    }

    fn validate_store(&self, wrong: &mut impl FnMut(&'static str, String)) {
        const SCHEMES: [&str; 5] = ["file", "memory", "s3", "gs", "az"];
        if self.store.url.is_empty() {
            return wrong(
                "store.url",
                "must say where the records are kept, such as s3://bucket/prefix".to_owned(),
            );
        }
        match url::Url::parse(&self.store.url) {
            Ok(url) if SCHEMES.contains(&url.scheme()) => {
                if let Some(why) = misused_part(&url) {
                    wrong("store.url", why.to_owned());
                }
            }
            Ok(url) => {
                let why = format!("has the scheme `{}`; known are {}", url.scheme(), SCHEMES.join(", "));
                wrong("store.url", why);
            }
            Err(error) => wrong("store.url", format!("`{}` is not a URL: {error}", self.store.url)),
        }
        let plain = self.store.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        if plain && !self.store.allow_http {
            wrong(
                "store.endpoint",
                "is not encrypted: set store.allow_http = true if that is meant".to_owned(),
            );
        }
    }

    fn validate_groups(&self, wrong: &mut impl FnMut(&'static str, String)) {
        let groups = &self.groups;
        if groups.initial_rebalance_delay > Duration::from_secs(5 * 60) {
            wrong("groups.initial_rebalance_delay", "is at most 5m".to_owned());
        }
        if groups.session_timeout_min < Duration::from_millis(1) {
            wrong("groups.session_timeout_min", "is at least 1ms".to_owned());
        }
        let longest = Duration::from_secs(24 * 60 * 60);
        if !(groups.session_timeout_min..=longest).contains(&groups.session_timeout_max) {
            wrong("groups.session_timeout_max", "lies between groups.session_timeout_min and 24h".to_owned());
        }
        if !(1..=10_000).contains(&groups.members_max) {
            wrong("groups.members_max", "lies between 1 and 10000".to_owned());
        }
        if groups.offset_retention < Duration::from_secs(60) {
            wrong("groups.offset_retention", "is at least 1m".to_owned());
        }
    }

    fn validate_limits(&self, wrong: &mut impl FnMut(&'static str, String)) {
        let interval = self.wal.flush_interval.unwrap_or_default();
        if interval > Duration::from_secs(10) {
            wrong("wal.flush_interval", "is at most 10s".to_owned());
        }
        if !(64 << 10..=256 << 20).contains(&self.wal.flush_bytes) {
            wrong("wal.flush_bytes", "lies between 64KiB and 256MiB".to_owned());
        }
        if !(1..=64).contains(&self.wal.uploads_in_flight) {
            wrong("wal.uploads_in_flight", "lies between 1 and 64".to_owned());
        }
        if self.storage.sweep_interval < Duration::from_secs(1) {
            wrong("storage.sweep_interval", "is at least 1s".to_owned());
        }
        if !(1..=PARTITIONS_MAX).contains(&self.topics.default_partitions) {
            wrong("topics.default_partitions", format!("lies between 1 and {PARTITIONS_MAX}"));
        }
        if !(1 << 10..=BATCH_BYTES_MAX).contains(&self.limits.max_batch_bytes) {
            wrong("limits.max_batch_bytes", "lies between 1KiB and 8MiB".to_owned());
        }
        if self.limits.in_flight_bytes.is_some_and(|bytes| bytes < IN_FLIGHT_MIN) {
            wrong("limits.in_flight_bytes", "is at least 16MiB".to_owned());
        }
        if (1..DISK_CACHE_MIN).contains(&self.limits.disk_cache_bytes) {
            wrong("limits.disk_cache_bytes", "is 0 or at least 64MiB".to_owned());
        }
        if !(1..=100_000).contains(&self.limits.connections) {
            wrong("limits.connections", "lies between 1 and 100000".to_owned());
        }
        if !(1..=100_000).contains(&self.limits.kafka_connections) {
            wrong("limits.kafka_connections", "lies between 1 and 100000".to_owned());
        }
    }
}

fn is_host_port(address: &str) -> bool {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    parts.is_some_and(|(host, port)| !host.is_empty() && port != 0)
}

/// What a store's URL has beyond bucket and prefix, or folder, which nothing would read; or that it names no folder.
fn misused_part(url: &url::Url) -> Option<&'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Some(
            "has no place for credentials: give them as store.access_key_id and store.secret_access_key",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("ends before `?` and `#`: write %3F and %23 where they are part of a name");
    }
    if url.scheme() == "file" && url.to_file_path().is_err() {
        return Some("names no absolute path: write three slashes, as in file:///var/lib/streamhouse");
    }
    url.port().map(|_| "has no place for a port: give the server's address as store.endpoint")
}

/// The URL of a folder; relative folders start at the working directory.
fn local_store_url(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| PathBuf::from(folder));
    let clean: PathBuf =
        absolute.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect();
    url::Url::from_directory_path(&clean)
        .map_or_else(|()| format!("file://{}", clean.display()), String::from)
}

/// The memory this process may use: the limit of its control group, else the machine's memory.
fn memory_limit() -> Option<u64> {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    match (group, machine) {
        (Some(group), Some(machine)) => Some(group.min(machine)),
        (group, machine) => group.or(machine),
    }
}
