//! Which requests are answered, in which versions.

/// The requests that are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// Appends batches.
    Produce,
    /// Reads batches.
    Fetch,
    /// From times and ends to offsets.
    ListOffsets,
    /// Nodes, topics and who leads their partitions.
    Metadata,
    /// Notes how far a group has read.
    OffsetCommit,
    /// How far groups have read.
    OffsetFetch,
    /// Which node looks after a group.
    FindCoordinator,
    /// Becomes a member of a group, and waits until all have.
    JoinGroup,
    /// A member lives.
    Heartbeat,
    /// Members go.
    LeaveGroup,
    /// Shares out the partitions among the members.
    SyncGroup,
    /// Who is in groups, and who has what.
    DescribeGroups,
    /// The groups that this node looks after.
    ListGroups,
    /// Which requests are answered.
    ApiVersions,
    /// Makes topics.
    CreateTopics,
    /// Deletes topics.
    DeleteTopics,
    /// Drops the first records of partitions.
    DeleteRecords,
    /// Gives out a producer id.
    InitProducerId,
    /// Where the records of a leader epoch end.
    OffsetForLeaderEpoch,
    /// The settings of topics and nodes.
    DescribeConfigs,
    /// Sets the settings of topics; what is not named goes back to its default.
    AlterConfigs,
    /// How much of which partition lies where.
    DescribeLogDirs,
    /// Gives topics more partitions.
    CreatePartitions,
    /// Deletes groups without members.
    DeleteGroups,
    /// Changes single settings of topics.
    IncrementalAlterConfigs,
    /// Forgets how far a group has read.
    OffsetDelete,
    /// The nodes.
    DescribeCluster,
    /// Partitions of topics, page by page.
    DescribeTopicPartitions,
}

/// Versions of a request, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

struct Row {
    api: Api,
    key: i16,
    name: &'static str,
    told: VersionRange,
    /// The lowest version that is answered, where that is not the lowest one told.
    served_from: i16,
    /// The first version with compact lengths and tags.
    flexible_from: i16,
}

const fn row(
    api: Api,
    key: i16,
    name: &'static str,
    (min, max): (i16, i16),
    served_from: i16,
    flexible_from: i16,
) -> Row {
    Row { api, key, name, told: VersionRange { min, max }, served_from, flexible_from }
}

/// In the order of [`Api`].
///
/// librdkafka up to 2.11.0 takes exact versions for switches of features: it compresses only where Produce goes from 0
/// to 7, although nobody has sent versions 0 to 2 for years.
const TABLE: &[Row] = &[
    row(Api::Produce, 0, "Produce", (0, 13), 3, 9),
    row(Api::Fetch, 1, "Fetch", (4, 18), 4, 12),
    row(Api::ListOffsets, 2, "ListOffsets", (1, 10), 1, 6),
    row(Api::Metadata, 3, "Metadata", (0, 13), 0, 9),
    row(Api::OffsetCommit, 8, "OffsetCommit", (2, 9), 2, 8),
    row(Api::OffsetFetch, 9, "OffsetFetch", (1, 9), 1, 6),
    row(Api::FindCoordinator, 10, "FindCoordinator", (0, 6), 0, 3),
    row(Api::JoinGroup, 11, "JoinGroup", (0, 9), 0, 6),
    row(Api::Heartbeat, 12, "Heartbeat", (0, 4), 0, 4),
    row(Api::LeaveGroup, 13, "LeaveGroup", (0, 5), 0, 4),
    row(Api::SyncGroup, 14, "SyncGroup", (0, 5), 0, 4),
    row(Api::DescribeGroups, 15, "DescribeGroups", (0, 6), 0, 5),
    row(Api::ListGroups, 16, "ListGroups", (0, 5), 0, 3),
    row(Api::ApiVersions, 18, "ApiVersions", (0, 4), 0, 3),
    row(Api::CreateTopics, 19, "CreateTopics", (2, 7), 2, 5),
    row(Api::DeleteTopics, 20, "DeleteTopics", (1, 6), 1, 4),
    row(Api::DeleteRecords, 21, "DeleteRecords", (0, 2), 0, 2),
    row(Api::InitProducerId, 22, "InitProducerId", (0, 5), 0, 2),
    row(Api::OffsetForLeaderEpoch, 23, "OffsetForLeaderEpoch", (2, 4), 2, 4),
    row(Api::DescribeConfigs, 32, "DescribeConfigs", (1, 4), 1, 4),
    row(Api::AlterConfigs, 33, "AlterConfigs", (0, 2), 0, 2),
    row(Api::DescribeLogDirs, 35, "DescribeLogDirs", (1, 4), 1, 2),
    row(Api::CreatePartitions, 37, "CreatePartitions", (0, 3), 0, 2),
    row(Api::DeleteGroups, 42, "DeleteGroups", (0, 2), 0, 2),
    row(Api::IncrementalAlterConfigs, 44, "IncrementalAlterConfigs", (0, 1), 0, 1),
    row(Api::OffsetDelete, 47, "OffsetDelete", (0, 0), 0, 1),
    row(Api::DescribeCluster, 60, "DescribeCluster", (0, 2), 0, 0),
    row(Api::DescribeTopicPartitions, 75, "DescribeTopicPartitions", (0, 0), 0, 0),
];

impl Api {
    /// All there are, by key.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.api)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The request with this key.
    #[must_use]
    pub fn of_key(key: i16) -> Option<Self> {
        TABLE.iter().find(|row| row.key == key).map(|row| row.api)
    }

    /// Its key on the wire.
    #[must_use]
    pub fn key(self) -> i16 {
        self.row().key
    }

    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The versions that clients are told.
    #[must_use]
    pub fn told(self) -> VersionRange {
        self.row().told
    }

    /// Whether requests of this version are answered.
    #[must_use]
    pub fn serves(self, version: i16) -> bool {
        (self.row().served_from..=self.row().told.max).contains(&version)
    }

    /// Whether this version has compact lengths and tags.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.row().flexible_from
    }

    /// Whether the header of the answer ends with tags. That of ApiVersions never does: who asks does not know yet what
    /// is understood here.
    #[must_use]
    pub fn answer_header_has_tags(self, version: i16) -> bool {
        self != Self::ApiVersions && self.is_flexible(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_agrees_with_the_schemas() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.api as usize, place);
            assert_eq!(Api::of_key(row.key), Some(row.api));
            for version in row.served_from..=row.told.max {
                let header = kacrab_protocol::version::request_header_version(row.key, version);
                assert_eq!(row.api.is_flexible(version), header == 2, "{} {version}", row.name);
                let answer = kacrab_protocol::version::response_header_version(row.key, version);
                assert_eq!(row.api.answer_header_has_tags(version), answer == 1, "{} {version}", row.name);
            }
            assert!(!row.api.serves(row.told.max + 1) && !row.api.serves(-1));
        }
        assert!(!Api::Produce.serves(2) && Api::Produce.serves(3));
    }
}
