//! A request of each kind.

use bytes::{Bytes, BytesMut};
use kacrab_protocol::generated as g;
use kacrab_protocol::{KafkaString, KafkaUuid};

use crate::Api;

fn text(text: &'static str) -> KafkaString {
    KafkaString::from_static(text)
}

/// The versions of a request that are answered.
pub(super) fn versions(api: Api) -> impl Iterator<Item = i16> {
    (0..=api.told().max).filter(move |version| api.serves(*version))
}

fn written(write: impl FnOnce(&mut BytesMut) -> kacrab_protocol::Result<()>) -> Bytes {
    let mut bytes = BytesMut::new();
    write(&mut bytes).expect("it can be written");
    bytes.freeze()
}

const TOPIC_ID: KafkaUuid = KafkaUuid::from_parts(7, 9);

fn sample_produce(version: i16) -> g::ProduceRequestData {
    let records = Some(Bytes::from_static(b"batch"));
    let partition = g::PartitionProduceData { index: 3, records, ..Default::default() };
    let topic = g::TopicProduceData {
        name: if version < 13 { text("orders") } else { KafkaString::default() },
        topic_id: if version < 13 { KafkaUuid::ZERO } else { TOPIC_ID },
        partition_data: vec![partition],
        ..Default::default()
    };
    g::ProduceRequestData { acks: -1, timeout_ms: 5, topic_data: vec![topic], ..Default::default() }
}

fn sample_fetch(version: i16) -> g::FetchRequestData {
    let partition = g::fetch_request::FetchPartition {
        partition: 3,
        fetch_offset: 11,
        partition_max_bytes: 13,
        ..Default::default()
    };
    let topic = g::fetch_request::FetchTopic {
        topic: if version < 13 { text("orders") } else { KafkaString::default() },
        topic_id: if version < 13 { KafkaUuid::ZERO } else { TOPIC_ID },
        partitions: vec![partition],
        ..Default::default()
    };
    g::FetchRequestData {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 99,
        isolation_level: 1,
        topics: vec![topic],
        rack_id: if version < 11 { KafkaString::default() } else { text("a") },
        ..Default::default()
    }
}

fn sample_list_offsets() -> g::ListOffsetsRequestData {
    let partition = g::ListOffsetsPartition { partition_index: 1, timestamp: -1, ..Default::default() };
    let topic = g::ListOffsetsTopic { name: text("t"), partitions: vec![partition], ..Default::default() };
    g::ListOffsetsRequestData { topics: vec![topic], ..Default::default() }
}

fn sample_epochs() -> g::OffsetForLeaderEpochRequestData {
    let partition = g::OffsetForLeaderPartition { leader_epoch: 4, ..Default::default() };
    let topic =
        g::OffsetForLeaderTopic { topic: text("t"), partitions: vec![partition], ..Default::default() };
    g::OffsetForLeaderEpochRequestData { topics: vec![topic], ..Default::default() }
}

fn sample_create_topics() -> g::CreateTopicsRequestData {
    let config = g::CreatableTopicConfig { name: text("k"), value: None, ..Default::default() };
    let assigned =
        g::CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![1, 2], ..Default::default() };
    let topic = g::CreatableTopic {
        name: text("t"),
        configs: vec![config],
        assignments: vec![assigned],
        ..Default::default()
    };
    g::CreateTopicsRequestData { topics: vec![topic], ..Default::default() }
}

fn sample_describe_configs() -> g::DescribeConfigsRequestData {
    let resource = g::DescribeConfigsResource {
        resource_type: 2,
        resource_name: text("t"),
        configuration_keys: Some(vec![text("max.message.bytes")]),
        ..Default::default()
    };
    g::DescribeConfigsRequestData { resources: vec![resource], ..Default::default() }
}

fn sample_alter_configs() -> g::AlterConfigsRequestData {
    use g::alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig { name: text("k"), value: Some(text("v")), ..Default::default() };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: text("t"),
        configs: vec![config],
        ..Default::default()
    };
    g::AlterConfigsRequestData { resources: vec![resource], ..Default::default() }
}

fn sample_alter_configs_by_step() -> g::IncrementalAlterConfigsRequestData {
    use g::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig { name: text("k"), config_operation: 1, value: None, ..Default::default() };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: text("t"),
        configs: vec![config],
        ..Default::default()
    };
    g::IncrementalAlterConfigsRequestData { resources: vec![resource], ..Default::default() }
}

fn sample_create_partitions() -> g::CreatePartitionsRequestData {
    let assigned = g::CreatePartitionsAssignment { broker_ids: vec![1, 2], ..Default::default() };
    let topic = g::CreatePartitionsTopic {
        name: text("t"),
        count: 2,
        assignments: Some(vec![assigned]),
        ..Default::default()
    };
    g::CreatePartitionsRequestData { topics: vec![topic], ..Default::default() }
}

fn sample_delete_records() -> g::DeleteRecordsRequestData {
    let partition = g::DeleteRecordsPartition { partition_index: 1, offset: -1, ..Default::default() };
    let topic = g::DeleteRecordsTopic { name: text("t"), partitions: vec![partition], ..Default::default() };
    g::DeleteRecordsRequestData { topics: vec![topic], ..Default::default() }
}

fn sample_describe_topic_partitions() -> g::DescribeTopicPartitionsRequestData {
    use g::describe_topic_partitions_request::{Cursor, TopicRequest};
    let cursor = Cursor { topic_name: text("t"), partition_index: 4, ..Default::default() };
    g::DescribeTopicPartitionsRequestData {
        topics: vec![TopicRequest { name: text("t"), ..Default::default() }],
        cursor: Some(Box::new(cursor)),
        ..Default::default()
    }
}

fn sample_of_groups(api: Api, version: i16, bytes: &mut BytesMut) -> kacrab_protocol::Result<()> {
    let (group_id, member_id) = (text("group"), text("member"));
    match api {
        Api::JoinGroup => {
            let metadata = Bytes::from_static(b"topics");
            let protocols =
                vec![g::JoinGroupRequestProtocol { name: text("range"), metadata, ..Default::default() }];
            let request = g::JoinGroupRequestData { group_id, member_id, protocols, ..Default::default() };
            request.write(bytes, version)
        }
        Api::SyncGroup => {
            let assignment = Bytes::from_static(b"partitions");
            let assigned = g::SyncGroupRequestAssignment {
                member_id: member_id.clone(),
                assignment,
                ..Default::default()
            };
            let assignments = vec![assigned];
            g::SyncGroupRequestData { group_id, member_id, assignments, ..Default::default() }
                .write(bytes, version)
        }
        Api::Heartbeat => {
            g::HeartbeatRequestData { group_id, member_id, ..Default::default() }.write(bytes, version)
        }
        Api::LeaveGroup => {
            let mut request = g::LeaveGroupRequestData { group_id, ..Default::default() };
            if version >= 3 {
                request.members = vec![g::MemberIdentity { member_id, ..Default::default() }];
            } else {
                request.member_id = member_id;
            }
            request.write(bytes, version)
        }
        Api::OffsetCommit => {
            let partition = g::OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
            let topic = g::OffsetCommitRequestTopic {
                name: text("t"),
                partitions: vec![partition],
                ..Default::default()
            };
            let topics = vec![topic];
            g::OffsetCommitRequestData { group_id, member_id, topics, ..Default::default() }
                .write(bytes, version)
        }
        Api::OffsetFetch => sample_offset_fetch(version).write(bytes, version),
        Api::OffsetDelete => {
            let partitions = vec![g::OffsetDeleteRequestPartition::default()];
            let topic = g::OffsetDeleteRequestTopic { name: text("t"), partitions, ..Default::default() };
            g::OffsetDeleteRequestData { group_id, topics: vec![topic], ..Default::default() }
                .write(bytes, version)
        }
        Api::DescribeGroups => g::DescribeGroupsRequestData { groups: vec![group_id], ..Default::default() }
            .write(bytes, version),
        Api::ListGroups => {
            let mut request = g::ListGroupsRequestData::default();
            if version >= 4 {
                request.states_filter = vec![text("Stable")];
            }
            request.write(bytes, version)
        }
        Api::DeleteGroups => {
            g::DeleteGroupsRequestData { groups_names: vec![group_id], ..Default::default() }
                .write(bytes, version)
        }
        api => unreachable!("{api:?} has nothing to do with groups"),
    }
}

fn sample_offset_fetch(version: i16) -> g::OffsetFetchRequestData {
    let mut request = g::OffsetFetchRequestData::default();
    if version >= 8 {
        let topic = g::OffsetFetchRequestTopics {
            name: text("t"),
            partition_indexes: vec![0, 1],
            ..Default::default()
        };
        let group = g::OffsetFetchRequestGroup {
            group_id: text("group"),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        request.groups = vec![group];
    } else {
        let topic = g::OffsetFetchRequestTopic {
            name: text("t"),
            partition_indexes: vec![0, 1],
            ..Default::default()
        };
        (request.group_id, request.topics) = (text("group"), Some(vec![topic]));
    }
    request
}

/// A request of each kind with something in every array, as a client of this version writes it.
pub(super) fn sample(api: Api, version: i16) -> Bytes {
    written(|bytes| match api {
        Api::Produce => sample_produce(version).write(bytes, version),
        Api::Fetch => sample_fetch(version).write(bytes, version),
        Api::ListOffsets => sample_list_offsets().write(bytes, version),
        Api::Metadata => {
            let topic = g::MetadataRequestTopic { name: Some(text("t")), ..Default::default() };
            g::MetadataRequestData { topics: Some(vec![topic]), ..Default::default() }.write(bytes, version)
        }
        Api::FindCoordinator => {
            let mut request = g::FindCoordinatorRequestData::default();
            if version >= 4 {
                request.coordinator_keys = vec![text("group")];
            } else {
                request.key = text("group");
            }
            request.write(bytes, version)
        }
        Api::ApiVersions => {
            let mut request = g::ApiVersionsRequestData::default();
            if version >= 3 {
                (request.client_software_name, request.client_software_version) = (text("c"), text("1"));
            }
            request.write(bytes, version)
        }
        Api::CreateTopics => sample_create_topics().write(bytes, version),
        Api::DeleteTopics => {
            let mut request = g::DeleteTopicsRequestData::default();
            if version >= 6 {
                request.topics = vec![g::DeleteTopicState { topic_id: TOPIC_ID, ..Default::default() }];
            } else {
                request.topic_names = vec![text("t")];
            }
            request.write(bytes, version)
        }
        Api::InitProducerId => g::InitProducerIdRequestData::default().write(bytes, version),
        Api::OffsetForLeaderEpoch => sample_epochs().write(bytes, version),
        Api::DescribeConfigs => sample_describe_configs().write(bytes, version),
        Api::AlterConfigs => sample_alter_configs().write(bytes, version),
        Api::IncrementalAlterConfigs => sample_alter_configs_by_step().write(bytes, version),
        Api::CreatePartitions => sample_create_partitions().write(bytes, version),
        Api::DeleteRecords => sample_delete_records().write(bytes, version),
        Api::DescribeLogDirs => {
            let topic =
                g::DescribableLogDirTopic { topic: text("t"), partitions: vec![1, 2], ..Default::default() };
            g::DescribeLogDirsRequestData { topics: Some(vec![topic]), ..Default::default() }
                .write(bytes, version)
        }
        Api::DescribeCluster => g::DescribeClusterRequestData::default().write(bytes, version),
        Api::DescribeTopicPartitions => sample_describe_topic_partitions().write(bytes, version),
        api => sample_of_groups(api, version, bytes),
    })
}
