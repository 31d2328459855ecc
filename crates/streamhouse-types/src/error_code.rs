//! Every error of the product: one table from code to what each protocol and each reader sees of it.
//!
//! Error *enums* belong to their operations and map into this table. The reasons are promises: clients compare them.

use std::fmt;
use std::str::FromStr;

/// What one code looks like from outside.
struct Row {
    code: ErrorCode,
    reason: &'static str,
    grpc: i32,
    kafka: i16,
    http: u16,
    exit: u8,
    retryable: Retry,
    meaning: &'static str,
    hint: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    Yes,
    No,
}

macro_rules! error_codes {
    ($(
        $(#[doc = $meaning:literal])+
        $code:ident = $reason:literal, grpc $grpc:literal, kafka $kafka:literal, http $http:literal,
            exit $exit:literal, retry $retry:ident, hint $hint:literal;
    )*) => {
        /// A kind of error. What each looks like in gRPC, Kafka's protocol, HTTP and the command line stands in one
        /// table, which is printed in `docs/reference/errors.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $( $(#[doc = $meaning])+ $code, )*
        }

        impl ErrorCode {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$( Self::$code, )*];
        }

        const TABLE: &[Row] = &[$(
            Row {
                code: ErrorCode::$code,
                reason: $reason,
                grpc: $grpc,
                kafka: $kafka,
                http: $http,
                exit: $exit,
                retryable: Retry::$retry,
                meaning: concat!($($meaning),+),
                hint: $hint,
            },
        )*];
    };
}

error_codes! {
    /// There is no topic of this name.
    TopicNotFound = "TOPIC_NOT_FOUND", grpc 5, kafka 3, http 404, exit 3, retry No,
        hint "see the names with `streamhouse topic list`, or make it with `streamhouse topic create`";
    /// There is a topic of this name already.
    TopicExists = "TOPIC_EXISTS", grpc 6, kafka 36, http 409, exit 4, retry No,
        hint "see its settings with `streamhouse topic describe`";
    /// The topic has no partition of this number.
    PartitionNotFound = "PARTITION_NOT_FOUND", grpc 5, kafka 3, http 404, exit 3, retry No,
        hint "partitions count from 0; see them with `streamhouse topic describe`";
    /// The store holds no such object.
    ObjectNotFound = "OBJECT_NOT_FOUND", grpc 5, kafka -1, http 404, exit 3, retry No,
        hint "see what there is with `streamhouse storage summary`";
    /// A name breaks the rules for names.
    InvalidName = "INVALID_NAME", grpc 3, kafka 17, http 400, exit 2, retry No,
        hint "topic names have 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`";
    /// An argument cannot be used.
    InvalidArgument = "INVALID_ARGUMENT", grpc 3, kafka 42, http 400, exit 2, retry No,
        hint "correct the argument named in the message";
    /// A setting is unknown, not supported, or has a value that it cannot have.
    InvalidSetting = "INVALID_SETTING", grpc 3, kafka 40, http 400, exit 2, retry No,
        hint "docs/reference/configuration.md lists the settings and their values";
    /// A position is not understood.
    InvalidPosition = "INVALID_POSITION", grpc 3, kafka 42, http 400, exit 2, retry No,
        hint "positions are `start`, `end`, an offset, or a time such as `@-15m` or `@2026-06-01T00:00Z`";
    /// A number of partitions that cannot be had.
    InvalidPartitions = "INVALID_PARTITIONS", grpc 3, kafka 37, http 400, exit 2, retry No,
        hint "a topic has 1 to 10,000 partitions, and their number only grows";
    /// The bytes of a batch do not have the CRC they were sealed with.
    CorruptBatch = "CORRUPT_BATCH", grpc 3, kafka 2, http 400, exit 1, retry Yes,
        hint "the bytes changed on their way; if it happens again, look at the network and at memory";
    /// A batch, or a record in it, is not what the format demands.
    InvalidBatch = "INVALID_BATCH", grpc 3, kafka 87, http 400, exit 2, retry No,
        hint "the client that encoded the batch is at fault; see its version";
    /// A batch has more bytes or more records than the topic takes, or decompresses to more than is allowed.
    BatchTooLarge = "BATCH_TOO_LARGE", grpc 3, kafka 10, http 413, exit 2, retry No,
        hint "send smaller batches, or raise `max.message.bytes` of the topic";
    /// A batch of another version of the format, or of a kind that is not taken.
    UnsupportedFormat = "UNSUPPORTED_FORMAT", grpc 12, kafka 43, http 415, exit 2, retry No,
        hint "batches are version 2 of Kafka's format, without transactions";
    /// The compression is not known.
    UnsupportedCompression = "UNSUPPORTED_COMPRESSION", grpc 12, kafka 76, http 415, exit 2, retry No,
        hint "use none, gzip, snappy, lz4 or zstd";
    /// A timestamp that no record can have.
    InvalidTimestamp = "INVALID_TIMESTAMP", grpc 3, kafka 32, http 400, exit 2, retry No,
        hint "timestamps are milliseconds since 1970 in UTC, or -1 for none";
    /// The sequence of an idempotent batch does not continue what its producer sent before. Nothing was written.
    OutOfOrderSequence = "OUT_OF_ORDER_SEQUENCE", grpc 9, kafka 45, http 409, exit 4, retry No,
        hint "an earlier batch was lost or this one is too old to be known; start a new producer";
    /// Nothing is known of the producer in this partition, and the batch is not its first. Nothing was written.
    UnknownProducer = "UNKNOWN_PRODUCER", grpc 9, kafka 59, http 409, exit 4, retry No,
        hint "the producer was idle for longer than its state is kept; start a new producer";
    /// A newer life of the producer has written. Nothing was written.
    ProducerFenced = "PRODUCER_FENCED", grpc 9, kafka 47, http 409, exit 4, retry No,
        hint "another process uses the same producer; only the newest may write";
    /// The producer id was never given out by this cluster. Nothing was written.
    ProducerIdNotGranted = "PRODUCER_ID_NOT_GRANTED", grpc 9, kafka 49, http 409, exit 4, retry No,
        hint "producers ask this cluster for their id before they write";
    /// What the request demanded of the log does not hold. Nothing was written.
    PreconditionFailed = "PRECONDITION_FAILED", grpc 9, kafka 42, http 412, exit 4, retry No,
        hint "read the partition again and decide anew";
    /// The offset lies before the start of the log or past its end.
    OffsetOutOfRange = "OFFSET_OUT_OF_RANGE", grpc 11, kafka 1, http 416, exit 3, retry No,
        hint "read from `start` or `end`; old records go by retention";
    /// Whether the write happened is not known.
    CommitUnknown = "COMMIT_UNKNOWN", grpc 4, kafka 7, http 504, exit 6, retry Yes,
        hint "it may have happened: idempotent producers repeat it safely, others read before they repeat it";
    /// The write or request did not happen within its time.
    TimedOut = "TIMED_OUT", grpc 4, kafka 7, http 504, exit 6, retry Yes,
        hint "it did not happen; try again, or allow more time";
    /// The object store does not answer, or refuses.
    StoreUnavailable = "STORE_UNAVAILABLE", grpc 14, kafka 56, http 503, exit 6, retry Yes,
        hint "check the store's address, credentials and health";
    /// A disk is full.
    DiskFull = "DISK_FULL", grpc 8, kafka 56, http 507, exit 6, retry Yes,
        hint "free space on the disk of the data directory or of the store";
    /// The node has as much work as it can hold.
    Overloaded = "OVERLOADED", grpc 8, kafka 89, http 429, exit 6, retry Yes,
        hint "try again a little later, with fewer requests at a time";
    /// The node gives its work away before it stops.
    Draining = "DRAINING", grpc 14, kafka 6, http 503, exit 6, retry Yes,
        hint "connect to another node";
    /// The node takes no writes.
    ReadOnly = "READ_ONLY", grpc 14, kafka 6, http 503, exit 6, retry Yes,
        hint "write to one of the brokers, see `streamhouse node list`";
    /// The node stops.
    ShuttingDown = "SHUTTING_DOWN", grpc 14, kafka 6, http 503, exit 6, retry Yes,
        hint "connect to another node, or wait until it is back";
    /// The server cannot be reached, or the connection broke.
    Unreachable = "UNREACHABLE", grpc 14, kafka 13, http 503, exit 6, retry Yes,
        hint "check that the server runs and that `--server` names its gRPC address";
    /// The metadata log has no leader at the moment.
    MetadataUnavailable = "METADATA_UNAVAILABLE", grpc 14, kafka 5, http 503, exit 6, retry Yes,
        hint "the nodes elect a leader within seconds; if not, a majority of the voters is missing";
    /// The principal may not do this.
    PermissionDenied = "PERMISSION_DENIED", grpc 7, kafka 29, http 403, exit 5, retry No,
        hint "ask an administrator of the cluster for the permission";
    /// Who is asking is not known.
    Unauthenticated = "UNAUTHENTICATED", grpc 16, kafka 58, http 401, exit 5, retry No,
        hint "give valid credentials";
    /// A limit of the cluster is reached.
    LimitExceeded = "LIMIT_EXCEEDED", grpc 8, kafka 44, http 409, exit 4, retry No,
        hint "delete what is not needed, or raise the limit";
    /// Known, but not supported by this version.
    Unsupported = "UNSUPPORTED", grpc 12, kafka 35, http 501, exit 2, retry No,
        hint "see with `streamhouse version` what client and server can do";
    /// Stored bytes are not what was written.
    StorageCorrupt = "STORAGE_CORRUPT", grpc 15, kafka 2, http 500, exit 9, retry No,
        hint "run `streamhouse storage verify`, and keep the store as it is until the cause is known";
    /// The data directory, the store or the node belongs to another cluster.
    ClusterMismatch = "CLUSTER_MISMATCH", grpc 9, kafka 104, http 409, exit 4, retry No,
        hint "check the data directory, the store's address and the seeds";
    /// The cluster has no such node.
    NodeNotFound = "NODE_NOT_FOUND", grpc 5, kafka -1, http 404, exit 3, retry No,
        hint "see the nodes with `streamhouse node list`";
    /// The cluster does not let the node in: its id belongs to another data directory, or was removed.
    NodeRefused = "NODE_REFUSED", grpc 9, kafka 104, http 409, exit 4, retry No,
        hint "give the node a new id and an empty data directory; ids are never used twice";
    /// The node does not understand what the cluster has agreed on.
    FeatureLevel = "FEATURE_LEVEL", grpc 9, kafka 35, http 409, exit 4, retry No,
        hint "start the version that the other nodes run, see `streamhouse node list`";
    /// The clock of the node is far from the cluster's.
    ClockSkew = "CLOCK_SKEW", grpc 9, kafka -1, http 409, exit 4, retry No,
        hint "set the clock of the machine, such as by NTP, and start the node again";
    /// The change would leave too few voters or brokers.
    QuorumAtRisk = "QUORUM_AT_RISK", grpc 9, kafka 44, http 409, exit 4, retry No,
        hint "add a node first, or bring back those that are away; see `streamhouse cluster raft status`";
    /// Another process uses the data directory.
    DataDirInUse = "DATA_DIR_IN_USE", grpc 9, kafka -1, http 409, exit 4, retry No,
        hint "stop the other process, or choose another `--data-dir`";
    /// The caller gave the request up; a write may have happened.
    Cancelled = "CANCELLED", grpc 1, kafka 7, http 499, exit 130, retry Yes,
        hint "it may have happened: idempotent producers repeat it safely, others read before they repeat it";
    /// Another node coordinates the consumer group.
    NotCoordinator = "NOT_COORDINATOR", grpc 14, kafka 16, http 421, exit 6, retry Yes,
        hint "ask the node that is named with the error";
    /// Nobody can coordinate the consumer group at the moment. Nothing happened.
    CoordinatorUnavailable = "COORDINATOR_UNAVAILABLE", grpc 14, kafka 15, http 503, exit 6, retry Yes,
        hint "wait until the cluster has a leader and all nodes run a release that knows consumer groups";
    /// The node is about to take the consumer group over. Nothing happened.
    CoordinatorLoading = "COORDINATOR_LOADING", grpc 14, kafka 14, http 503, exit 6, retry Yes,
        hint "try again a little later";
    /// The id of a consumer group breaks the rules.
    InvalidGroupId = "INVALID_GROUP_ID", grpc 3, kafka 24, http 400, exit 2, retry No,
        hint "the id of a group has 1 to 1,024 bytes";
    /// The consumer group does not exist.
    GroupNotFound = "GROUP_NOT_FOUND", grpc 5, kafka 69, http 404, exit 3, retry No,
        hint "see the groups with `streamhouse group list`";
    /// The consumer group has members, so nobody else may change it.
    GroupNotEmpty = "GROUP_NOT_EMPTY", grpc 9, kafka 68, http 409, exit 4, retry No,
        hint "stop the consumers of the group first";
    /// The consumer group still reads the topic.
    GroupSubscribed = "GROUP_SUBSCRIBED", grpc 9, kafka 86, http 409, exit 4, retry No,
        hint "stop the consumers that read the topic first";
    /// The consumer group has as many members as it may, or they say more of themselves than is kept.
    GroupFull = "GROUP_FULL", grpc 8, kafka 81, http 409, exit 4, retry No,
        hint "start fewer consumers, or raise `groups.members_max`";
    /// The member of a consumer group is not known; it may have been silent for too long.
    UnknownMember = "UNKNOWN_MEMBER", grpc 9, kafka 25, http 409, exit 4, retry No,
        hint "join the group again as a new member";
    /// A new member of a consumer group is to join again under the id that it was given.
    MemberIdRequired = "MEMBER_ID_REQUIRED", grpc 9, kafka 79, http 409, exit 4, retry No,
        hint "join again with the id that the answer names";
    /// The consumer group is in another generation than the member. Nothing was committed.
    IllegalGeneration = "ILLEGAL_GENERATION", grpc 9, kafka 22, http 409, exit 4, retry No,
        hint "join the group again";
    /// The members of the consumer group are to join again.
    RebalanceInProgress = "REBALANCE_IN_PROGRESS", grpc 10, kafka 27, http 409, exit 4, retry No,
        hint "join the group again";
    /// The member knows no protocol that all others of the consumer group know, or is of another kind.
    InconsistentGroupProtocol = "INCONSISTENT_GROUP_PROTOCOL", grpc 3, kafka 23, http 409, exit 2, retry No,
        hint "configure all consumers of the group with a common assignor";
    /// The session timeout is shorter or longer than the cluster allows.
    InvalidSessionTimeout = "INVALID_SESSION_TIMEOUT", grpc 3, kafka 26, http 400, exit 2, retry No,
        hint "stay within `groups.session_timeout_min` and `groups.session_timeout_max`";
    /// Another process has joined the consumer group under the same instance name.
    InstanceFenced = "INSTANCE_FENCED", grpc 9, kafka 82, http 409, exit 4, retry No,
        hint "give each process an instance name of its own";
    /// The note with a committed offset is too long.
    OffsetMetadataTooLarge = "OFFSET_METADATA_TOO_LARGE", grpc 3, kafka 12, http 413, exit 2, retry No,
        hint "a note has at most 4,096 bytes";
    /// A fault of StreamHouse itself; a write may have happened.
    Internal = "INTERNAL", grpc 13, kafka -1, http 500, exit 1, retry No,
        hint "this is a bug: please report it with the server's log";
}

impl ErrorCode {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The word by which clients know it, such as `TOPIC_NOT_FOUND`; the `reason` of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// The number of the gRPC status, 1 to 16.
    #[must_use]
    pub fn grpc_code(self) -> i32 {
        self.row().grpc
    }

    /// The error code of Kafka's protocol; −1 where Kafka has nothing like it.
    #[must_use]
    pub fn kafka_code(self) -> i16 {
        self.row().kafka
    }

    /// The HTTP status, 400 to 599.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// What the command line exits with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.row().exit
    }

    /// What a person can do about it, where the place that made the error knows nothing better.
    #[must_use]
    pub fn hint(self) -> &'static str {
        self.row().hint
    }

    /// Whether the same request may succeed when it is sent again unchanged. When it may have happened
    /// ([`Self::may_have_happened`]), repeat it only if repeating is harmless.
    #[must_use]
    pub fn retryable(self) -> bool {
        self.row().retryable == Retry::Yes
    }

    /// Whether a write that ends with this may have happened all the same. With every other code it did not.
    #[must_use]
    pub fn may_have_happened(self) -> bool {
        matches!(self, Self::CommitUnknown | Self::Cancelled | Self::Internal | Self::Unreachable)
    }

    /// What it means, in a sentence or two.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().meaning.trim()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// A text that is no reason of the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an error code")]
pub struct ParseErrorCodeError {
    /// What was read.
    pub text: String,
}

impl FromStr for ErrorCode {
    type Err = ParseErrorCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = TABLE.iter().find(|row| row.reason == text).map(|row| row.code);
        found.ok_or_else(|| ParseErrorCodeError { text: text.chars().take(128).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_one_row_per_code_in_order() {
        assert_eq!(TABLE.len(), ErrorCode::ALL.len());
        for (code, row) in ErrorCode::ALL.iter().zip(TABLE) {
            assert_eq!(*code, row.code);
            assert_eq!(code.row().reason, row.reason);
        }
    }

    #[test]
    fn every_reason_is_one_word_of_its_own_and_reads_back() {
        for code in ErrorCode::ALL {
            let reason = code.reason();
            assert!(reason.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{reason}");
            assert_eq!(reason.parse(), Ok(*code), "two codes share {reason}");
        }
        assert!("topic_not_found".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn every_row_is_within_what_its_protocols_know() {
        for code in ErrorCode::ALL {
            assert!((1..=16).contains(&code.grpc_code()), "{code}");
            assert!((-1..=133).contains(&code.kafka_code()) && code.kafka_code() != 0, "{code}");
            assert!((400..=599).contains(&code.http_status()), "{code}");
            assert!([1, 2, 3, 4, 5, 6, 7, 8, 9, 130].contains(&code.exit_code()), "{code}");
            assert!(!code.meaning().is_empty() && code.meaning().ends_with('.'), "{code}");
            assert!(!code.hint().is_empty() && !code.hint().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn a_write_that_may_have_happened_is_never_said_to_be_the_callers_mistake() {
        for code in ErrorCode::ALL.iter().filter(|code| code.may_have_happened()) {
            assert!(![2, 3, 4, 5].contains(&code.exit_code()), "{code}");
        }
    }
}
