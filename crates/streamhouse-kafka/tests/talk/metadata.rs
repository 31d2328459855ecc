//! Nodes, topics and settings.

use kacrab_protocol::KafkaUuid;
use kacrab_protocol::generated as g;
use streamhouse_broker::BrokerSettings;

use crate::groups::alone;
use crate::harness::{Client, House, text};

fn asking(names: Option<&[&str]>) -> g::MetadataRequestData {
    let topic = |name: &&str| g::MetadataRequestTopic { name: Some(text(name)), ..Default::default() };
    g::MetadataRequestData {
        topics: names.map(|names| names.iter().map(topic).collect()),
        ..Default::default()
    }
}

async fn create(client: &mut Client, topic: g::CreatableTopic, version: i16) -> g::CreatableTopicResult {
    let request =
        g::CreateTopicsRequestData { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    client.call(&request, version).await.topics.remove(0)
}

fn creatable(name: &str, partitions: i32, factor: i16) -> g::CreatableTopic {
    g::CreatableTopic {
        name: text(name),
        num_partitions: partitions,
        replication_factor: factor,
        ..Default::default()
    }
}

#[tokio::test]
async fn metadata_names_nodes_leaders_epochs_and_ids_in_every_version() {
    let house = House::start().await;
    house.topic("orders", 3, &[]).await;
    let mut client = house.connect();
    for version in 0..=13 {
        let all = if version == 0 { Some(&[][..]) } else { None };
        let answer = client.call(&asking(all), version).await;
        let node = &answer.brokers[0];
        assert_eq!((node.node_id, node.host.as_str(), node.port), (1, "house.example", 9092), "{version}");
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
        assert_eq!(topic.name.as_ref().map(|name| name.as_str()), Some("orders"));
        assert_eq!(topic.topic_id == KafkaUuid::ZERO, version < 10);
        for partition in &topic.partitions {
            assert_eq!((partition.error_code, partition.leader_id), (0, 1));
            assert_eq!(partition.leader_epoch, if version >= 7 { 0 } else { -1 });
            assert_eq!((&partition.replica_nodes[..], &partition.isr_nodes[..]), (&[1][..], &[1][..]));
        }
        if version >= 1 {
            assert_eq!(answer.controller_id, 1);
            assert_eq!(node.rack.as_ref().map(|rack| rack.as_str()), Some("north"));
            assert_eq!(client.call(&asking(Some(&[])), version).await.topics.len(), 0);
        }
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
    }
}

#[tokio::test]
async fn a_topic_is_found_by_its_id_and_an_unknown_id_is_told() {
    let house = House::start().await;
    house.topic("a", 1, &[]).await;
    house.topic("b", 1, &[]).await;
    let mut client = house.connect();
    let all = client.call(&asking(None), 12).await.topics;
    assert_ne!(all[0].topic_id, all[1].topic_id);
    let by_id = |topic_id| {
        let topic = g::MetadataRequestTopic { topic_id, name: None, ..Default::default() };
        g::MetadataRequestData { topics: Some(vec![topic]), ..Default::default() }
    };
    let found = client.call(&by_id(all[1].topic_id), 12).await.topics.remove(0);
    assert_eq!(found.name.as_ref().map(|name| name.as_str()), Some("b"));
    let missing = client.call(&by_id(KafkaUuid::from_parts(1, 2)), 12).await.topics.remove(0);
    assert_eq!(missing.error_code, 100);
}

#[tokio::test]
async fn asking_makes_a_topic_where_that_is_wanted() {
    let house = House::start().await;
    let mut client = house.connect();
    let made = client.call(&asking(Some(&["fresh", "no/name"])), 5).await.topics;
    assert_eq!((made[0].error_code, made[0].partitions.len()), (0, 1));
    assert_eq!(made[1].error_code, 17);
    let mut request = asking(Some(&["other"]));
    request.allow_auto_topic_creation = false;
    assert_eq!(client.call(&request, 5).await.topics[0].error_code, 3);

    let strict = House::with(BrokerSettings::default()).await;
    assert_eq!(strict.connect().call(&asking(Some(&["fresh"])), 5).await.topics[0].error_code, 3);
}

#[tokio::test]
async fn topics_are_made_with_what_was_asked_or_refused_by_name() {
    let house = House::start().await;
    let mut client = house.connect();
    for version in 2..=7 {
        let name = format!("made-{version}");
        let made = create(&mut client, creatable(&name, 2, 3), version).await;
        assert_eq!((made.error_code, made.topic_id == KafkaUuid::ZERO), (0, version < 7), "{version}");
        if version >= 5 {
            assert_eq!((made.num_partitions, made.replication_factor), (2, 1));
            assert!(made.configs.is_some_and(|configs| configs.len() >= 2));
        }
    }
    let code = |made: g::CreatableTopicResult| (made.error_code, made.error_message.is_some());
    assert_eq!(code(create(&mut client, creatable("made-2", 1, 1), 5).await), (36, true));
    assert_eq!(code(create(&mut client, creatable("zero", 0, 1), 5).await), (37, true));
    assert_eq!(code(create(&mut client, creatable("none", 1, 0), 5).await), (38, true));
    assert_eq!(code(create(&mut client, creatable("a b", 1, 1), 5).await), (17, true));
    let with = |name: &str, value: &str| {
        let config =
            g::CreatableTopicConfig { name: text(name), value: Some(text(value)), ..Default::default() };
        g::CreatableTopic { configs: vec![config], ..creatable("set", -1, -1) }
    };
    assert_eq!(code(create(&mut client, with("no.such.setting", "1"), 5).await), (40, true));
    assert_eq!(code(create(&mut client, with("max.message.bytes", "99999999"), 5).await), (40, true));
    assert_eq!(code(create(&mut client, with("max.message.bytes", "2000"), 5).await), (0, false));

    let assigned = |index, ids: &[i32]| g::CreatableReplicaAssignment {
        partition_index: index,
        broker_ids: ids.to_vec(),
        ..Default::default()
    };
    let placed = |all| g::CreatableTopic { assignments: all, ..creatable("placed", -1, -1) };
    assert_eq!(code(create(&mut client, placed(vec![assigned(0, &[9])]), 5).await), (39, true));
    assert_eq!(code(create(&mut client, placed(vec![assigned(1, &[1])]), 5).await), (39, true));
    let made = create(&mut client, placed(vec![assigned(1, &[1]), assigned(0, &[1])]), 5).await;
    assert_eq!((made.error_code, made.num_partitions), (0, 2));

    let twice = g::CreateTopicsRequestData {
        topics: vec![creatable("twice", 1, 1), creatable("twice", 1, 1), creatable("once", 1, 1)],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let codes: Vec<_> = client.call(&twice, 5).await.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [42, 42, 0]);
    let checked = g::CreateTopicsRequestData {
        topics: vec![creatable("checked", 4, 1)],
        timeout_ms: 30_000,
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(client.call(&checked, 5).await.topics[0].num_partitions, 4);
    let mut look = asking(Some(&["checked"]));
    look.allow_auto_topic_creation = false;
    assert_eq!(client.call(&look, 5).await.topics[0].error_code, 3);
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let house = House::start().await;
    house.topic("a", 1, &[]).await;
    house.topic("b", 1, &[]).await;
    let mut client = house.connect();
    let request = g::DeleteTopicsRequestData {
        topic_names: vec![text("a"), text("missing")],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let codes: Vec<_> =
        client.call(&request, 5).await.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, 3]);
    let topic_id = client.call(&asking(None), 12).await.topics[0].topic_id;
    let by_id = |topic_id| g::DeleteTopicsRequestData {
        topics: vec![g::DeleteTopicState { topic_id, ..Default::default() }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let deleted = client.call(&by_id(topic_id), 6).await.responses.remove(0);
    assert_eq!((deleted.error_code, deleted.name.map(|name| name.to_string())), (0, Some("b".to_owned())));
    assert_eq!(client.call(&by_id(topic_id), 6).await.responses[0].error_code, 100);
}

#[tokio::test]
async fn settings_are_told_with_sources_and_synonyms() {
    let house = House::start().await;
    house.topic("t", 1, &[("max.message.bytes", "2000")]).await;
    let mut client = house.connect();
    let resource = |resource_type, name: &str, keys: Option<&[&str]>| g::DescribeConfigsResource {
        resource_type,
        resource_name: text(name),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| text(key)).collect()),
        ..Default::default()
    };
    let mut request = g::DescribeConfigsRequestData {
        resources: vec![
            resource(2, "t", None),
            resource(2, "t", Some(&["message.timestamp.type"])),
            resource(2, "missing", None),
            resource(4, "1", None),
            resource(4, "2", None),
            resource(99, "t", None),
        ],
        include_synonyms: true,
        ..Default::default()
    };
    for version in 1..=4 {
        request.include_documentation = version >= 3;
        let results = client.call(&request, version).await.results;
        let codes: Vec<_> = results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [0, 0, 3, 0, 42, 42]);
        let most = results[0].configs.iter().find(|config| config.name.as_str() == "max.message.bytes");
        let most = most.expect("the setting is told");
        assert_eq!((most.value.as_ref().map(|value| value.as_str()), most.config_source), (Some("2000"), 1));
        let below: Vec<_> =
            most.synonyms.iter().map(|synonym| (synonym.name.as_str(), synonym.source)).collect();
        assert_eq!(below, [("max.message.bytes", 1), ("message.max.bytes", 5)]);
        assert_eq!(results[1].configs.len(), 1);
        assert_eq!(results[1].configs[0].config_source, 5);
        assert!(results[3].configs.iter().any(|config| config.name.as_str() == "auto.create.topics.enable"));
        assert_eq!(most.documentation.is_some(), version >= 3);
    }
}

/// The settings with which Connect, Streams, the Schema Registry and Debezium make their topics, and look them up again.
#[tokio::test]
async fn what_other_programs_set_is_kept_and_told() {
    let house = House::start().await;
    let mut client = house.connect();
    let wanted = [
        ("cleanup.policy", "compact,delete"),
        ("delete.retention.ms", "1000"),
        ("max.compaction.lag.ms", "5000"),
        ("message.timestamp.type", "CreateTime"),
        ("min.compaction.lag.ms", "4000"),
        ("min.insync.replicas", "2"),
        ("retention.bytes", "-1"),
        ("retention.ms", "9223372036854775807"),
        ("segment.bytes", "52428800"),
        ("segment.ms", "600000"),
        ("segment.jitter.ms", "1000"),
        ("segment.index.bytes", "1048576"),
        ("index.interval.bytes", "8192"),
        ("file.delete.delay.ms", "1000"),
        ("compression.gzip.level", "3"),
        ("compression.type", "producer"),
        ("remote.storage.enable", "false"),
        ("local.retention.ms", "-2"),
        ("leader.replication.throttled.replicas", ""),
    ];
    let config = |(name, value): &(&str, &str)| g::CreatableTopicConfig {
        name: text(name),
        value: Some(text(value)),
        ..Default::default()
    };
    let topic = |name: &str, settings: &[(&str, &str)]| g::CreatableTopic {
        configs: settings.iter().map(config).collect(),
        ..creatable(name, 1, 3)
    };
    let made = create(&mut client, topic("t", &wanted), 7).await;
    assert_eq!(made.error_code, 0, "{:?}", made.error_message);
    let resources =
        vec![g::DescribeConfigsResource { resource_type: 2, resource_name: text("t"), ..Default::default() }];
    let request = g::DescribeConfigsRequestData { resources, ..Default::default() };
    let told = client.call(&request, 4).await.results.remove(0).configs;
    let told_in_creation = made.configs.expect("the settings");
    for (name, value) in wanted {
        let found = told.iter().find(|told| told.name.as_str() == name).expect(name);
        assert_eq!(found.value.as_ref().map(|value| value.as_str()), Some(value), "{name}");
        let found = told_in_creation.iter().find(|told| told.name.as_str() == name).expect(name);
        assert_eq!(found.value.as_ref().map(|value| value.as_str()), Some(value), "{name}");
    }
    for (name, value) in [
        ("compression.type", "zstd"),
        ("compression.gzip.level", "10"),
        ("local.retention.ms", "1000"),
        ("leader.replication.throttled.replicas", "*"),
        ("cleanup.policy", "keep"),
        ("retention.ms", "soon"),
        ("message.timestamp.after.max.ms", "1"),
        ("unclean.leader.election.enable", "true"),
        ("remote.storage.enable", "true"),
    ] {
        let refused = create(&mut client, topic("u", &[(name, value)]), 7).await;
        let message = refused.error_message.map(|message| message.to_string()).unwrap_or_default();
        assert_eq!((refused.error_code, message.contains(name)), (40, true), "{name}: {message}");
    }
}

#[tokio::test]
async fn a_node_tells_what_holds_for_topics_that_set_nothing() {
    let house = House::with(BrokerSettings::default()).await;
    house.neighbour(2, "south");
    let mut client = house.connect();
    let resources =
        vec![g::DescribeConfigsResource { resource_type: 4, resource_name: text("1"), ..Default::default() }];
    let request =
        g::DescribeConfigsRequestData { resources, include_documentation: true, ..Default::default() };
    let told = client.call(&request, 4).await.results.remove(0).configs;
    for (name, value) in [
        ("advertised.listeners", "PLAINTEXT://house.example:9092"),
        ("auto.create.topics.enable", "false"),
        ("broker.id", "1"),
        ("compression.type", "producer"),
        ("default.replication.factor", "2"),
        ("log.cleanup.policy", "delete"),
        ("fetch.max.bytes", "16777216"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.max.session.timeout.ms", "1800000"),
        ("group.max.size", "1000"),
        ("group.min.session.timeout.ms", "6000"),
        ("log.dirs", "/object-store"),
        ("log.message.timestamp.type", "CreateTime"),
        ("log.roll.jitter.ms", "0"),
        ("log.segment.delete.delay.ms", "60000"),
        ("log.retention.ms", "-1"),
        ("message.max.bytes", "1048588"),
        ("min.insync.replicas", "1"),
        ("node.id", "1"),
        ("num.partitions", "1"),
        ("offset.metadata.max.bytes", "4096"),
        ("offsets.retention.minutes", "10080"),
        ("socket.request.max.bytes", "104857600"),
    ] {
        let found = told.iter().find(|told| told.name.as_str() == name).expect(name);
        assert_eq!(found.value.as_ref().map(|value| value.as_str()), Some(value), "{name}");
        assert!(found.read_only && found.documentation.is_some());
        // What a node can be set is told as set, and what holds anyway as the default.
        let is_set = ["auto.create.topics.enable", "num.partitions"].contains(&name);
        let is_fixed = name.starts_with("log.") || name.ends_with(".bytes");
        assert!((!is_set || found.config_source == 4) && (!is_fixed || found.config_source == 5), "{name}");
    }
    assert!(told.iter().all(|told| !told.name.as_str().contains("remote.storage")), "no node has it");
}

/// What a client is told of a resource: the error, its text, and how many settings.
async fn told_of(client: &mut Client, kind: i8, name: &str) -> (i16, String, usize) {
    let resource =
        g::DescribeConfigsResource { resource_type: kind, resource_name: text(name), ..Default::default() };
    let request = g::DescribeConfigsRequestData { resources: vec![resource], ..Default::default() };
    let told = client.call(&request, 4).await.results.remove(0);
    let message = told.error_message.map(|message| message.to_string()).unwrap_or_default();
    (told.error_code, message, told.configs.len())
}

#[tokio::test]
async fn resources_without_settings_are_described_as_such() {
    let house = House::start().await;
    let mut client = house.connect();
    // Groups, metrics of clients, and what holds for all nodes at once.
    for (kind, name) in [(32, "billing"), (16, "lag"), (4, "")] {
        assert_eq!(told_of(&mut client, kind, name).await, (0, String::new(), 0), "{kind} {name}");
    }
    for (kind, name, advice) in [
        (32, "", "is empty"),
        (16, "", "is empty"),
        (8, "1", "`log.level`"),
        (8, "2", "ask each node"),
        (4, "2", "ask each node"),
        (99, "t", "no settings"),
    ] {
        let (code, message, settings) = told_of(&mut client, kind, name).await;
        assert_eq!((code, message.contains(advice), settings), (42, true, 0), "{kind} {name}: {message}");
    }
}

#[tokio::test]
async fn the_cluster_and_the_coordinators_of_groups_are_told() {
    let house = House::start().await;
    let mut client = house.connect();
    for version in 0..=2 {
        let answer = client.call(&g::DescribeClusterRequestData::default(), version).await;
        assert_eq!((answer.error_code, answer.controller_id, answer.brokers.len()), (0, 1, 1));
    }
    let controllers = g::DescribeClusterRequestData { endpoint_type: 2, ..Default::default() };
    assert_eq!(client.call(&controllers, 1).await.error_code, 114);

    let group = g::FindCoordinatorRequestData { key: text("group"), ..Default::default() };
    let answer = client.call(&group, 2).await;
    assert_eq!((answer.error_code, answer.node_id, answer.port), (0, 1, 9092));
    let transaction = g::FindCoordinatorRequestData {
        key_type: 1,
        coordinator_keys: vec![text("x")],
        ..Default::default()
    };
    let answer = client.call(&transaction, 4).await;
    assert_eq!((answer.coordinators[0].error_code, answer.coordinators[0].node_id), (53, -1));
}

#[tokio::test]
async fn who_asks_is_told_what_it_may_do_and_that_is_everything() {
    // What Kafka's own brokers tell that have no access rules.
    const TOPIC: i32 = 3_576;
    const CLUSTER: i32 = 8_096;
    const GROUP: i32 = 328;
    const NOT_ASKED: i32 = i32::MIN;
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let mut both = g::MetadataRequestData {
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..asking(Some(&["t", "none"]))
    };
    both.allow_auto_topic_creation = false;
    for version in 8..=12 {
        both.include_cluster_authorized_operations = version <= 10;
        let answer = client.call(&both, version).await;
        assert_eq!(answer.topics[0].topic_authorized_operations, TOPIC, "{version}");
        assert_eq!(answer.topics[1].topic_authorized_operations, NOT_ASKED, "{version}");
        let cluster = if version <= 10 { CLUSTER } else { NOT_ASKED };
        assert_eq!(answer.cluster_authorized_operations, cluster, "{version}");
    }
    let answer = client.call(&asking(Some(&["t"])), 9).await;
    assert_eq!(answer.topics[0].topic_authorized_operations, NOT_ASKED);
    assert_eq!(answer.cluster_authorized_operations, NOT_ASKED);
    for (asks, told) in [(true, CLUSTER), (false, NOT_ASKED)] {
        let request = g::DescribeClusterRequestData {
            include_cluster_authorized_operations: asks,
            endpoint_type: 1,
            ..Default::default()
        };
        assert_eq!(client.call(&request, 1).await.cluster_authorized_operations, told);
    }
    alone(&mut client, "g", 5).await;
    for (asks, told) in [(true, GROUP), (false, NOT_ASKED)] {
        let request = g::DescribeGroupsRequestData {
            groups: vec![text("g")],
            include_authorized_operations: asks,
            ..Default::default()
        };
        assert_eq!(client.call(&request, 5).await.groups[0].authorized_operations, told);
    }
}
