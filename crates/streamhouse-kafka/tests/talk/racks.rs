//! Reading from a node in the client's rack.

use std::collections::BTreeSet;

use kacrab_protocol::generated as g;
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, fetch, produce, records, text};

const PARTITIONS: u8 = 24;

/// Reads partition `index` of topic `t` for a client in `rack`.
async fn read(client: &mut Client, index: u8, rack: &str, version: i16) -> g::fetch_response::PartitionData {
    let mut request = fetch(&["t"], 0, 60_000);
    request.topics[0].partitions[0].partition = index.into();
    if version >= 11 {
        request.rack_id = text(rack);
    }
    let mut answer = client.call(&request, version).await;
    answer.responses.remove(0).partitions.remove(0)
}

/// A node in the north, two in the south, and a topic over all of them.
async fn over_three_nodes() -> House {
    let house = House::start().await;
    house.neighbour(2, "south");
    house.neighbour(3, "south");
    house.topic("t", PARTITIONS.into(), &[]).await;
    let mut client = house.connect();
    for index in 0..PARTITIONS {
        let mut request = produce("t", batch(Compression::None, 1, &["a"]));
        request.topic_data[0].partition_data[0].index = index.into();
        assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 0);
    }
    house
}

#[tokio::test]
async fn a_leader_sends_readers_of_another_rack_to_a_node_there() {
    let house = over_three_nodes().await;
    let at_home = house.homes("t").await;
    assert!(at_home.contains(&1) && at_home.contains(&2));
    let mut client = house.connect();
    let mut named = BTreeSet::new();
    for (index, home) in (0..).zip(at_home) {
        for version in [10, 11, 12] {
            let found = read(&mut client, index, "south", version).await;
            assert_eq!((found.error_code, found.high_watermark, found.log_start_offset), (0, 1, 0));
            if home == 1 && version >= 11 {
                // No records, and no waiting for any: they are had elsewhere.
                assert_eq!(found.records.as_deref(), Some(&b""[..]));
                assert!([2, 3].contains(&found.preferred_read_replica), "{}", found.preferred_read_replica);
                let again = read(&mut client, index, "south", version).await;
                assert_eq!(again.preferred_read_replica, found.preferred_read_replica);
                named.insert(found.preferred_read_replica);
            } else {
                // Whoever is not the leader was named by it: it serves.
                assert_eq!(found.preferred_read_replica, -1);
                assert_eq!(records(&found), [(0, "a".to_owned())]);
            }
        }
        for rack in ["north", "", "nowhere"] {
            let found = read(&mut client, index, rack, 11).await;
            assert_eq!((found.preferred_read_replica, records(&found).len()), (-1, 1), "{rack}");
        }
    }
    assert_eq!(named, BTreeSet::from([2, 3]), "the partitions are spread over the rack");
}

#[tokio::test]
async fn an_offset_that_may_be_further_on_is_not_taken_for_lost() {
    let house = over_three_nodes().await;
    let mut client = house.connect();
    let at = |offset| {
        let mut request = fetch(&["t"], offset, 0);
        request.rack_id = text("north");
        request
    };
    assert_eq!(client.call(&at(7), 11).await.responses[0].partitions[0].error_code, 1);
    house.log.cut_off();
    for (version, code) in [(11, 78), (12, 78)] {
        assert_eq!(client.call(&at(7), version).await.responses[0].partitions[0].error_code, code);
    }
    // Where the log ends here, nothing is out of range.
    let end = client.call(&at(1), 11).await;
    assert_eq!(end.responses[0].partitions[0].error_code, 0);
}

#[tokio::test]
async fn a_node_tells_its_rack_among_its_settings() {
    let house = House::start().await;
    let resource = g::DescribeConfigsResource {
        resource_type: 4,
        resource_name: text("1"),
        configuration_keys: Some(vec![text("broker.rack")]),
        ..Default::default()
    };
    let request = g::DescribeConfigsRequestData { resources: vec![resource], ..Default::default() };
    let told = house.connect().call(&request, 4).await.results.remove(0);
    let rack = told.configs.first().and_then(|rack| rack.value.as_ref()).map(ToString::to_string);
    assert_eq!((told.error_code, rack.as_deref()), (0, Some("north")));
}
