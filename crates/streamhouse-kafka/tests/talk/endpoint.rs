//! The cluster as one broker behind one address.

use std::time::Duration;

use kacrab_protocol::generated as g;
use streamhouse_broker::BrokerSettings;
use streamhouse_kafka::Presentation;
use streamhouse_types::NodeId;
use streamhouse_types::batch::Compression;

use crate::groups::{alone, beat, commit, committing, joining, leave};
use crate::harness::{House, Plot, batch, records, text};
use crate::net::Door;

async fn two_houses() -> (Plot, House, House) {
    let plot = Plot::new().await;
    let presented = Presentation::SingleEndpoint { host: "front.example".to_owned(), port: 9_000 };
    let settings =
        || BrokerSettings { flush_interval: Duration::from_millis(1), ..BrokerSettings::default() };
    let first = plot.house(1, settings(), presented.clone()).await;
    let second = plot.house(2, settings(), presented).await;
    (plot, first, second)
}

/// A group that this node looks after.
fn group_of(house: &House, node: u64) -> String {
    let mut names = (0..).map(|number| format!("group-{number}"));
    let is_kept = |name: &String| {
        let group = name.parse().expect("a name");
        house.broker.look(|state| streamhouse_groups::coordinator(state, &group)) == Some(NodeId::new(node))
    };
    names.find(is_kept).expect("each node looks after some")
}

#[tokio::test]
async fn clients_see_one_broker_that_leads_everything() {
    let (_plot, first, second) = two_houses().await;
    first.topic("t", 6, &[]).await;
    for house in [&first, &second] {
        let mut client = house.connect();
        let all = client.call(&g::MetadataRequestData::default(), 9).await;
        let [only] = &all.brokers[..] else { panic!("one broker") };
        assert_eq!((only.node_id, only.host.as_str(), only.port), (0, "front.example", 9_000));
        assert_eq!((all.controller_id, all.topics[0].partitions.len()), (0, 6));
        for partition in &all.topics[0].partitions {
            assert_eq!((partition.error_code, partition.leader_id), (0, 0));
            assert_eq!((&partition.replica_nodes[..], &partition.isr_nodes[..]), (&[0][..], &[0][..]));
        }
        let paged =
            g::DescribeTopicPartitionsRequestData { response_partition_limit: 9, ..Default::default() };
        for partition in &client.call(&paged, 0).await.topics[0].partitions {
            assert_eq!((partition.leader_id, &partition.replica_nodes[..]), (0, &[0][..]));
            assert_eq!(&partition.isr_nodes[..], &[0]);
        }
        let folders = client.call(&g::DescribeLogDirsRequestData::default(), 4).await.results;
        assert_eq!((folders.len(), folders[0].topics[0].partitions.len()), (1, 6), "those of all nodes");
        let cluster = client.call(&g::DescribeClusterRequestData::default(), 1).await;
        assert_eq!((cluster.controller_id, cluster.brokers.len()), (0, 1));
        for group in [group_of(house, 1), group_of(house, 2)] {
            let key = g::FindCoordinatorRequestData { key: text(&group), ..Default::default() };
            let found = client.call(&key, 2).await;
            assert_eq!((found.error_code, found.node_id, found.host.as_str()), (0, 0, "front.example"));
        }
        assert_eq!(client.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    }
    assert_eq!(records(&second.connect().fetch("t", 0, 0).await).len(), 2);
}

#[tokio::test]
async fn the_settings_of_the_one_broker_are_told_and_no_node_has_any() {
    let (_plot, first, _second) = two_houses().await;
    let mut client = first.connect();
    for (broker, code, known) in [("0", 0, Some("0")), ("", 0, None), ("1", 42, None)] {
        let resource = g::DescribeConfigsResource {
            resource_type: 4,
            resource_name: text(broker),
            configuration_keys: Some(vec![text("broker.id")]),
            ..Default::default()
        };
        let request = g::DescribeConfigsRequestData { resources: vec![resource], ..Default::default() };
        let told = client.call(&request, 4).await.results.remove(0);
        assert_eq!(told.error_code, code, "{broker}: {:?}", told.error_message);
        let id = told.configs.first().and_then(|id| id.value.as_ref()).map(ToString::to_string);
        assert_eq!(id.as_deref(), known, "{broker}");
    }
}

#[tokio::test]
async fn a_group_is_reached_through_any_node() {
    let (_plot, first, second) = two_houses().await;
    first.topic("t", 1, &[]).await;
    let group = group_of(&first, 2);
    for version in [0, 3, 5, 9] {
        // Each request may come to another node than the one before.
        let (mut one, mut other) = (first.connect(), second.connect());
        let joined = alone(&mut one, &group, version).await;
        assert_eq!(beat(&mut one, &group, &joined, 4).await, 0);
        assert_eq!(beat(&mut other, &group, &joined, 3).await, 0);
        let offset = [("t", 0, i64::from(version), Some("far"))];
        assert_eq!(commit(&mut one, &committing(&group, Some(&joined), &offset), 8).await, [0]);
        let described = g::DescribeGroupsRequestData { groups: vec![text(&group)], ..Default::default() };
        let described = other.call(&described, 5).await.groups.remove(0);
        let member = &described.members[0];
        assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("test", "/127.0.0.1"));
        assert_eq!(leave(&mut one, &group, &joined.member_id, 5).await, 0);
    }
    let asked =
        |name: &str| g::OffsetFetchRequestGroup { group_id: text(name), topics: None, ..Default::default() };
    let near = group_of(&first, 1);
    assert_eq!(commit(&mut second.connect(), &committing(&near, None, &[("t", 0, 4, None)]), 8).await, [0]);
    let request =
        g::OffsetFetchRequestData { groups: vec![asked(&group), asked(&near)], ..Default::default() };
    let found = first.connect().call(&request, 8).await.groups;
    let offsets: Vec<_> = found.iter().map(|found| found.topics[0].partitions[0].committed_offset).collect();
    assert_eq!(offsets, [9, 4]);
    // Who lists groups at one node sees those of all.
    let listed = second.connect().call(&g::ListGroupsRequestData::default(), 4).await.groups;
    assert_eq!(listed.len(), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_along_what_was_passed_on() {
    let (_plot, first, second) = two_houses().await;
    let group = group_of(&first, 2);
    let mut leader_io = second.connect();
    let leader = alone(&mut leader_io, &group, 3).await;
    let mut newcomer = first.connect();
    newcomer.send(&joining(&group, "", 3), 3).await;
    while beat(&mut leader_io, &group, &leader, 3).await != 27 {
        tokio::task::yield_now().await;
    }
    drop(newcomer);
    // Long before the time it had to come back in.
    let asked = g::DescribeGroupsRequestData { groups: vec![text(&group)], ..Default::default() };
    while leader_io.call(&asked, 5).await.groups[0].members.len() != 1 {
        tokio::task::yield_now().await;
    }
    let again = leader_io.call(&joining(&group, leader.member_id.as_str(), 3), 3).await;
    assert_eq!((again.error_code, again.members.len()), (0, 1));
}

#[tokio::test]
async fn commits_of_a_connection_do_not_overtake_each_other() {
    let (plot, first, _second) = two_houses().await;
    first.topic("t", 1, &[]).await;
    let group = group_of(&first, 2);
    let mut client = first.connect();
    let held = plot.net.hold_next();
    let commits: Vec<i64> = (1..=5).collect();
    for offset in &commits {
        client.send(&committing(&group, None, &[("t", 0, *offset, None)]), 8).await;
    }
    let lookup = g::OffsetFetchRequestGroup { group_id: text(&group), topics: None, ..Default::default() };
    let lookup = g::OffsetFetchRequestData { groups: vec![lookup], ..Default::default() };
    client.send(&lookup, 8).await;
    while !plot.net.is_holding() {
        tokio::task::yield_now().await;
    }
    // Through another connection somebody else gets as far as an answer meanwhile.
    let mut other = first.connect();
    for offset in 90..99 {
        let request = committing(&group_of(&first, 1), None, &[("t", 0, offset, None)]);
        assert_eq!(commit(&mut other, &request, 8).await, [0]);
    }
    held.notify_one();
    for _ in commits {
        let (_, done) = client.receive::<g::OffsetCommitRequestData>(8).await;
        assert_eq!(done.topics[0].partitions[0].error_code, 0);
    }
    let (_, found) = client.receive::<g::OffsetFetchRequestData>(8).await;
    assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, 5);
}

#[tokio::test]
async fn while_the_node_of_a_group_is_not_reached_clients_are_told_to_try_again() {
    let (plot, first, _second) = two_houses().await;
    first.topic("t", 1, &[]).await;
    let group = group_of(&first, 2);
    plot.net.shut("house-2");
    let mut client = first.connect();
    let answer = client.call(&joining(&group, "", 3), 3).await;
    assert_eq!(answer.error_code, 16);
    assert_eq!(commit(&mut client, &committing(&group, None, &[("t", 0, 4, None)]), 8).await, [16]);
    let asked = g::OffsetFetchRequestGroup { group_id: text(&group), topics: None, ..Default::default() };
    let request = g::OffsetFetchRequestData { groups: vec![asked], ..Default::default() };
    assert_eq!(client.call(&request, 8).await.groups[0].error_code, 16);
}

#[tokio::test]
async fn of_a_change_that_was_passed_on_and_not_answered_nobody_says_that_it_did_not_happen() {
    let (plot, first, _second) = two_houses().await;
    first.topic("t", 1, &[]).await;
    let group = group_of(&first, 2);
    plot.net.put("house-2".to_owned(), Door::HangsUp);
    let mut client = first.connect();
    let offsets = committing(&group, None, &[("t", 0, 4, None)]);
    assert_eq!(commit(&mut client, &offsets, 8).await, [7]);
    for version in [2, 5] {
        assert_eq!(leave(&mut client, &group, &text("me"), version).await, 7, "{version}");
    }
    let forget = g::OffsetDeleteRequestData {
        group_id: text(&group),
        topics: vec![g::OffsetDeleteRequestTopic { name: text("t"), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(client.call(&forget, 0).await.error_code, 7);
    // To join again does no harm.
    assert_eq!(client.call(&joining(&group, "", 3), 3).await.error_code, 16);
}

#[tokio::test]
async fn who_waits_at_a_node_that_is_lost_goes_on_at_the_next() {
    let (plot, first, _second) = two_houses().await;
    let group = group_of(&first, 2);
    // It is not even told that the node is gone.
    plot.net.put("house-2".to_owned(), Door::Mute);
    let mut client = first.connect();
    plot.net.hold_next().notify_one();
    client.send(&joining(&group, "", 3), 3).await;
    while !plot.net.is_holding() {
        tokio::task::yield_now().await;
    }
    plot.lose(&first, 2);
    let (_, joined) = client.receive::<g::JoinGroupRequestData>(3).await;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
}

#[tokio::test]
async fn what_was_passed_on_is_not_passed_on_again() {
    let (_plot, first, second) = two_houses().await;
    let group = group_of(&first, 2);
    let (mut wrong, mut right) = (first.connect(), second.connect());
    (wrong.wire.name, right.wire.name) =
        ("\0passed on for /192.0.2.7\0reader", "\0passed on for /192.0.2.7\0reader");
    assert_eq!(wrong.call(&joining(&group, "", 3), 3).await.error_code, 16);
    let joined = alone(&mut right, &group, 3).await;
    let asked = g::DescribeGroupsRequestData { groups: vec![text(&group)], ..Default::default() };
    let described = first.connect().call(&asked, 5).await.groups.remove(0);
    let member = &described.members[0];
    assert_eq!(member.member_id, joined.member_id);
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("reader", "/192.0.2.7"));
}
