//! The error codes of Kafka's protocol.

use streamhouse_types::error_code::ErrorCode;

/// An error code as it stands in an answer; 0 is none. What other protocols know as well comes from the table of
/// [`ErrorCode`]; the constants are those that only Kafka has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Code(i16);

macro_rules! codes {
    ($( $(#[doc = $meaning:literal])+ $name:ident = $code:literal, $word:literal; )*) => {
        impl Code {
            $( $(#[doc = $meaning])+ pub const $name: Self = Self($code); )*

            /// Kafka's word for it, for metrics and logs.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self.0 {
                    $( $code => $word, )*
                    -1 => "unknown_server_error",
                    1 => "offset_out_of_range",
                    2 => "corrupt_message",
                    3 => "unknown_topic_or_partition",
                    5 => "leader_not_available",
                    7 => "request_timed_out",
                    10 => "message_too_large",
                    12 => "offset_metadata_too_large",
                    14 => "coordinator_load_in_progress",
                    16 => "not_coordinator",
                    17 => "invalid_topic",
                    22 => "illegal_generation",
                    23 => "inconsistent_group_protocol",
                    24 => "invalid_group_id",
                    25 => "unknown_member_id",
                    26 => "invalid_session_timeout",
                    27 => "rebalance_in_progress",
                    29 => "topic_authorization_failed",
                    32 => "invalid_timestamp",
                    36 => "topic_already_exists",
                    37 => "invalid_partitions",
                    40 => "invalid_config",
                    43 => "unsupported_for_message_format",
                    45 => "out_of_order_sequence_number",
                    47 => "invalid_producer_epoch",
                    49 => "invalid_producer_id_mapping",
                    56 => "kafka_storage_error",
                    59 => "unknown_producer_id",
                    68 => "non_empty_group",
                    69 => "group_id_not_found",
                    79 => "member_id_required",
                    81 => "group_max_size_reached",
                    82 => "fenced_instance_id",
                    86 => "group_subscribed_to_topic",
                    89 => "throttling_quota_exceeded",
                    _ => "other",
                }
            }
        }
    };
}

codes! {
    /// No error.
    NONE = 0, "none";
    /// This node does not serve the partition, or soon will not: ask for the metadata anew.
    NOT_LEADER = 6, "not_leader_or_follower";
    /// No node looks after the group yet.
    COORDINATOR_NOT_AVAILABLE = 15, "coordinator_not_available";
    /// `acks` is none of −1, 0 and 1.
    INVALID_REQUIRED_ACKS = 21, "invalid_required_acks";
    /// A version that is not spoken.
    UNSUPPORTED_VERSION = 35, "unsupported_version";
    /// A replication factor that cannot be had.
    INVALID_REPLICATION_FACTOR = 38, "invalid_replication_factor";
    /// An assignment of replicas that makes no sense.
    INVALID_REPLICA_ASSIGNMENT = 39, "invalid_replica_assignment";
    /// The request contradicts itself.
    INVALID_REQUEST = 42, "invalid_request";
    /// A rule of the topic is against it, or a limit.
    POLICY_VIOLATION = 44, "policy_violation";
    /// The batch belongs to a transaction that is not open.
    INVALID_TXN_STATE = 48, "invalid_txn_state";
    /// Transactions are not to be had: the code at which every client stops at once.
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, "transactional_id_authorization_failed";
    /// There is no such fetch session.
    FETCH_SESSION_ID_NOT_FOUND = 70, "fetch_session_id_not_found";
    /// The client knows an older leader of the partition.
    FENCED_LEADER_EPOCH = 74, "fenced_leader_epoch";
    /// The client knows a newer leader of the partition than this node.
    UNKNOWN_LEADER_EPOCH = 75, "unknown_leader_epoch";
    /// A compression that is not spoken in this version, or not at all.
    UNSUPPORTED_COMPRESSION_TYPE = 76, "unsupported_compression_type";
    /// Whether there is such an offset cannot be told now.
    OFFSET_NOT_AVAILABLE = 78, "offset_not_available";
    /// A batch or record is not what the format demands.
    INVALID_RECORD = 87, "invalid_record";
    /// There is no topic of this id.
    UNKNOWN_TOPIC_ID = 100, "unknown_topic_id";
    /// Only nodes are described here, not controllers.
    MISMATCHED_ENDPOINT_TYPE = 114, "mismatched_endpoint_type";
}

impl Code {
    /// The code with this number.
    pub(crate) const fn raw(number: i16) -> Self {
        Self(number)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        Self(code.kafka_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_product_has_a_word() {
        let unnamed = [ErrorCode::Unreachable, ErrorCode::Unauthenticated, ErrorCode::ClusterMismatch];
        for code in ErrorCode::ALL {
            let named = Code::from(*code).word() != "other";
            let here = !unnamed.contains(code) && *code != ErrorCode::NodeRefused;
            assert_eq!(named, here, "{code}");
        }
    }
}
