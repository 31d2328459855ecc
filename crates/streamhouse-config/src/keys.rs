//! Every setting there is: its name, what kind of value it takes, and what it trades.
//!
//! The reference page, the check of unknown names and the reading of environment variables all come from this table.

/// What a value looks like in a file, a variable or a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is never printed.
    Secret,
    /// A whole number.
    Integer,
    /// Bytes: a whole number, or a text such as `8MiB`.
    Size,
    /// A time span, such as `50ms` or `15m`.
    Duration,
    /// `true` or `false`.
    Flag,
    /// A list of texts; in variables and flags separated by commas.
    List,
}

impl Kind {
    /// How the reference page calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret text",
            Self::Integer => "number",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::Flag => "true or false",
            Self::List => "list",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `section.name`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it does and what it trades, in one or two sentences.
    pub help: &'static str,
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

/// All settings, in the order of the reference page.
pub const KEYS: &[Key] = &[
    key(
        "node.id",
        Kind::Integer,
        "Number of this node in its cluster, from 1. It belongs to the data directory for ever.",
    ),
    key(
        "node.data_dir",
        Kind::Text,
        "Where the node keeps its identity and its metadata log. One process at a time.",
    ),
    key(
        "node.roles",
        Kind::List,
        "What the node does: `broker` takes writes and reads, `reader` reads only. A reader is not a member of the cluster: it follows one of the seeds, needs no disk, and may come and go freely; it wants a node.id of its own all the same. Clients that are given its address read there, and do everything else at the brokers behind it.",
    ),
    key("node.zone", Kind::Text, "Failure zone of the node, told to the other nodes. May be empty."),
    key(
        "listeners.kafka",
        Kind::Text,
        "Address for Kafka clients. Port 0 picks a free one. Anything but loopback is open to the network: there is no authentication yet.",
    ),
    key(
        "listeners.grpc",
        Kind::Text,
        "Address for clients. Port 0 picks a free one. Anything but loopback is open to the network: there is no authentication yet.",
    ),
    key(
        "listeners.internal",
        Kind::Text,
        "Address for the other nodes of the cluster. Unless it is a wildcard such as 0.0.0.0, this node also speaks to them from it, so that firewalls and peers know it by one address; with a wildcard, listeners.advertised_internal must be set.",
    ),
    key("listeners.http", Kind::Text, "Address for metrics and health checks."),
    key(
        "listeners.advertised_kafka",
        Kind::Text,
        "Address that Kafka clients are told, by every node. They connect to it after the first answer, so it must be one that they can reach. Empty: the bound address.",
    ),
    key(
        "listeners.kafka_advertise",
        Kind::Text,
        "`nodes`: Kafka clients are told every node under its own address. `single-endpoint`: they are told one broker at listeners.advertised_kafka, a load balancer through which they reach any node; for clients that can reach nothing else. Set it alike on all nodes. Costs a hop between nodes for what consumer groups say, and reading from the nearest node.",
    ),
    key(
        "listeners.advertised_grpc",
        Kind::Text,
        "Address that clients are told, when it differs from the one listened on. Empty: the bound address.",
    ),
    key(
        "listeners.advertised_internal",
        Kind::Text,
        "Address that other nodes are told. Empty: the bound address.",
    ),
    key(
        "cluster.bootstrap",
        Kind::Flag,
        "Whether an empty data directory may found a new cluster. Never does so where the store already holds a cluster, or where cluster.seeds names another node first.",
    ),
    key(
        "cluster.voters",
        Kind::Integer,
        "How many nodes of a new cluster vote on its metadata: 1, 3 or 5. Nodes are given the vote as they come, always an odd number of them; 3 bear the loss of one, 5 of two. Later it is changed by `streamhouse cluster raft voters`.",
    ),
    key(
        "cluster.seeds",
        Kind::List,
        "Internal addresses of nodes, host:port, at which a node finds its cluster; a name may stand for several nodes, as that of a headless service does. The same list may be given to all: with an empty data directory the node whose own advertised address is named first founds the cluster if cluster.bootstrap is true, the others join. A name that nodes share founds nothing: give the founder no seeds, or its own address before that name. Empty: the node founds a cluster of its own.",
    ),
    key(
        "store.url",
        Kind::Text,
        "Where the records are kept: `file:///dir`, `s3://bucket/prefix`, `gs://…`, `az://…`, `memory://`.",
    ),
    key(
        "store.endpoint",
        Kind::Text,
        "Address of an S3-compatible server. Empty: the provider's own. Also AWS_ENDPOINT_URL.",
    ),
    key("store.region", Kind::Text, "Region of the bucket. Also AWS_REGION."),
    key(
        "store.access_key_id",
        Kind::Text,
        "Access key. Also AWS_ACCESS_KEY_ID. Empty: the machine's own role, where there is one.",
    ),
    key("store.secret_access_key", Kind::Secret, "Secret of the access key. Also AWS_SECRET_ACCESS_KEY."),
    key("store.session_token", Kind::Secret, "Token of temporary credentials. Also AWS_SESSION_TOKEN."),
    key(
        "store.allow_http",
        Kind::Flag,
        "Whether the endpoint may be reached without TLS. Also AWS_ALLOW_HTTP.",
    ),
    key(
        "store.hedge",
        Kind::Text,
        "`auto`: a request to a remote store that takes longer than 95 of 100 like it gets a second one beside it, and the first answer counts. Cuts the longest waits of produce and consume, for at most 10 more writes and 5 more reads in 100. `off`: never.",
    ),
    key(
        "wal.flush_interval",
        Kind::Duration,
        "Shortest time between two uploads under load. Adds to the latency of produce, divides the number of uploads. Default 50 ms, on a local folder 2 ms.",
    ),
    key(
        "wal.flush_bytes",
        Kind::Size,
        "An upload starts earlier when this many bytes wait. Bigger: fewer uploads, more memory.",
    ),
    key(
        "wal.uploads_in_flight",
        Kind::Integer,
        "How many uploads run at once. More: more throughput on a slow store, more memory.",
    ),
    key(
        "storage.delete_grace",
        Kind::Duration,
        "How long an object stays after nothing refers to it any more. Readers that planned before are safe for that long.",
    ),
    key(
        "storage.sweep_interval",
        Kind::Duration,
        "How often the store is listed for objects that nothing refers to. Each listing costs requests.",
    ),
    key(
        "topics.auto_create",
        Kind::Flag,
        "Whether the first write to an unknown topic makes it, or a Kafka client that asks for it. `dev` turns it on.",
    ),
    key(
        "topics.default_partitions",
        Kind::Integer,
        "Partitions of a topic that is made without a number, 1 to 10,000.",
    ),
    key(
        "groups.initial_rebalance_delay",
        Kind::Duration,
        "How long the first rebalance of an empty consumer group waits for more members, at most 5m; each that comes begins the wait anew. Longer: fewer rebalances when many consumers start, a later first record. `dev`: 0s.",
    ),
    key(
        "groups.session_timeout_min",
        Kind::Duration,
        "Shortest session timeout that a consumer may ask for. Shorter: dead consumers are found sooner, slow ones are taken for dead.",
    ),
    key(
        "groups.session_timeout_max",
        Kind::Duration,
        "Longest session timeout that a consumer may ask for, at most 24h. Longer: consumers may be silent for longer, partitions of dead ones are unread for longer.",
    ),
    key(
        "groups.members_max",
        Kind::Integer,
        "Most members of a consumer group, 1 to 10,000. More: bigger records in the metadata at each rebalance.",
    ),
    key(
        "groups.offset_retention",
        Kind::Duration,
        "How long committed offsets are kept after the last member of their group has gone, at least 1m. Longer: consumers may be away for longer, the metadata hold more.",
    ),
    key(
        "limits.in_flight_bytes",
        Kind::Size,
        "Bytes of batches that the node takes in before it stops reading connections. Default 256 MiB or a quarter of the memory limit, whichever is less.",
    ),
    key(
        "limits.cache_bytes",
        Kind::Size,
        "Memory for recently written and read batches. More: fewer reads from the store.",
    ),
    key(
        "limits.disk_cache_bytes",
        Kind::Size,
        "Disk for batches that were read from a remote store, in `cache/` of the data directory; 0 for none, else at least 64MiB. Saves requests when old records are read more than once. Each GiB takes about 4 MiB of memory, up to 13 MiB when objects are small; leave room for the metadata log, which shares the disk.",
    ),
    key("limits.max_batch_bytes", Kind::Size, "Largest batch any topic may allow, at most 8 MiB."),
    key(
        "limits.connections",
        Kind::Integer,
        "Most connections to the gRPC port at a time; more wait to be accepted.",
    ),
    key(
        "limits.kafka_connections",
        Kind::Integer,
        "Most connections to the Kafka port at a time; more wait to be accepted. An idle one takes about 5 KiB. Fewer where the process may not have so many open files (`ulimit -n`).",
    ),
    key("log.format", Kind::Text, "`text` for people, `json` for machines."),
    key(
        "log.level",
        Kind::Text,
        "`error`, `warn`, `info`, `debug` or `trace`; per module as `info,streamhouse_broker=debug`. `dev`: `warn`.",
    ),
];

/// Names that are reserved for what does not exist yet: refused with the reason, never accepted and ignored.
pub(super) const NOT_YET: &[(&str, &str)] = &[
    ("listeners.advertised_http", "nothing is told the HTTP address yet"),
    ("storage.segment_bytes", "segments come with merging"),
    ("storage.block_bytes", "blocks come with merging"),
];

/// Variables of the AWS tools that stand in for a setting that nothing else sets. The first that is set wins.
pub(super) const AWS_VARIABLES: &[(&str, &str)] = &[
    ("AWS_ENDPOINT_URL_S3", "store.endpoint"),
    ("AWS_ENDPOINT_URL", "store.endpoint"),
    ("AWS_REGION", "store.region"),
    ("AWS_DEFAULT_REGION", "store.region"),
    ("AWS_ACCESS_KEY_ID", "store.access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "store.secret_access_key"),
    ("AWS_SESSION_TOKEN", "store.session_token"),
    ("AWS_ALLOW_HTTP", "store.allow_http"),
];

/// The setting of this name.
#[must_use]
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known name that looks most like `name`, when one looks like it at all.
#[must_use]
pub(super) fn suggestion(name: &str) -> Option<&'static str> {
    let leaf = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::jaro_winkler(name, known);
        // The right word in the wrong section is as likely as a slip of the finger.
        let same_leaf = if leaf(name) == leaf(known) { 0.95 } else { 0.0 };
        f64::max(whole, same_leaf)
    };
    let best = KEYS.iter().map(|key| (likeness(key.name), key.name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
