use super::*;
use crate::report::Verdict;

fn node(node_id: i32, host: &str, port: i32) -> g::metadata_response::MetadataResponseBroker {
    let host = KafkaString::from(host.to_owned());
    g::metadata_response::MetadataResponseBroker { node_id, host, port, ..Default::default() }
}

fn topic(name: &str, leaders: &[i32]) -> g::metadata_response::MetadataResponseTopic {
    let partition =
        |(partition_index, leader_id): (i32, &i32)| g::metadata_response::MetadataResponsePartition {
            partition_index,
            leader_id: *leader_id,
            ..Default::default()
        };
    g::metadata_response::MetadataResponseTopic {
        name: Some(KafkaString::from(name.to_owned())),
        partitions: (0..).zip(leaders).map(partition).collect(),
        ..Default::default()
    }
}

#[test]
fn addresses_that_mean_nobody_elsewhere_are_found() {
    for (address, bootstrap, fault) in [
        ("10.4.1.7:9092", "kafka.example:9092", false),
        ("127.0.0.1:9092", "127.0.0.1:9092", false),
        ("localhost:9092", "127.0.0.2:9092", false),
        ("127.0.0.1:9092", "kafka.example:9092", true),
        ("localhost:9092", "10.4.1.7:9092", true),
        ("[::1]:9092", "10.4.1.7:9092", true),
        ("0.0.0.0:9092", "127.0.0.1:9092", true),
        ("[::]:9092", "127.0.0.1:9092", true),
        (":9092", "127.0.0.1:9092", true),
        ("127.0.0.1:9092", "10.4.1.7:9092, localhost:9092", false),
    ] {
        assert_eq!(unreachable_elsewhere(address, bootstrap).is_some(), fault, "{address} from {bootstrap}");
    }
}

#[test]
fn partitions_without_a_leader_are_named() {
    let brokers = vec![node(1, "a.example", 9092), node(2, "fe80::1", 9092)];
    let mut metadata =
        g::MetadataResponseData { brokers, topics: vec![topic("orders", &[1, 2, 1])], ..Default::default() };
    let known = nodes(&metadata);
    assert_eq!(known.values().map(String::as_str).collect::<Vec<_>>(), ["a.example:9092", "[fe80::1]:9092"]);
    assert_eq!(leaders(&metadata, &known).verdict, Verdict::Ok);
    metadata.topics.push(topic("lost", &[-1, 3, 1, -1, -1, -1, -1]));
    let found = leaders(&metadata, &known);
    assert_eq!(found.verdict, Verdict::Fail);
    assert!(found.what.ends_with("lost-0, lost-1, lost-3, lost-4, lost-5 and 1 more"), "{}", found.what);
}

#[test]
fn an_address_needs_a_host_and_a_port() {
    let ports = ["kafka.example:9092", "[::1]:9092", "kafka.example", "kafka.example:", ":9092", "a:99999"];
    assert_eq!(ports.map(names_a_port), [true, true, false, false, false, false]);
}

#[test]
fn requests_that_clients_need_are_missed() {
    let offers = |keys: &[i16]| {
        let api =
            |api_key: &i16| g::api_versions_response::ApiVersion { api_key: *api_key, ..Default::default() };
        g::ApiVersionsResponseData { api_keys: keys.iter().map(api).collect(), ..Default::default() }
    };
    let all: Vec<i16> = NEEDED.iter().map(|(key, _)| *key).collect();
    assert_eq!(protocol(&offers(&all)).verdict, Verdict::Ok);
    let found = protocol(&offers(&all[..all.len() - 1]));
    assert_eq!(
        (found.verdict, found.what.as_str()),
        (Verdict::Fail, "protocol: InitProducerId are not answered")
    );
    let refused = g::ApiVersionsResponseData { error_code: 35, ..offers(&all) };
    assert_eq!(protocol(&refused).verdict, Verdict::Fail);
}
