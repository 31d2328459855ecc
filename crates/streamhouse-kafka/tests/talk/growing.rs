//! More partitions, fewer records, and how both are told.

use std::collections::BTreeMap;

use kacrab_protocol::generated as g;
use kacrab_protocol::generated::describe_topic_partitions_request::{Cursor, TopicRequest};
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, keyed, records, text};

fn wider(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> g::CreatePartitionsTopic {
    let assigned =
        |ids: &&[i32]| g::CreatePartitionsAssignment { broker_ids: ids.to_vec(), ..Default::default() };
    g::CreatePartitionsTopic {
        name: text(name),
        count,
        assignments: assignments.map(|all| all.iter().map(assigned).collect()),
        ..Default::default()
    }
}

async fn grow(
    client: &mut Client,
    topics: Vec<g::CreatePartitionsTopic>,
    version: i16,
) -> Vec<(String, i16)> {
    let request = g::CreatePartitionsRequestData { topics, timeout_ms: 30_000, ..Default::default() };
    let results = client.call(&request, version).await.results;
    let told = results.into_iter().map(|result| {
        assert_eq!(result.error_message.is_some(), result.error_code != 0);
        (result.name.to_string(), result.error_code)
    });
    told.collect()
}

async fn partitions(house: &House, name: &str) -> u32 {
    house.broker.topic(&name.parse().expect("a name")).await.expect("it is there").partitions
}

#[tokio::test]
async fn topics_get_more_partitions_and_each_is_answered_by_name() {
    let house = House::start().await;
    house.topic("a", 1, &[]).await;
    house.topic("b", 3, &[]).await;
    let mut client = house.connect();
    for version in 0..=3 {
        let more = i32::from(version) + 2;
        let asked = vec![wider("a", more, None), wider("b", 2, None), wider("none", 5, None)];
        let expected = [("a".to_owned(), 0), ("b".to_owned(), 37), ("none".to_owned(), 3)];
        assert_eq!(grow(&mut client, asked, version).await, expected, "{version}");
        assert_eq!(partitions(&house, "a").await, more.unsigned_abs());
    }
    assert_eq!(partitions(&house, "b").await, 3);
    for (count, code) in [(3, 37), (0, 37), (-1, 37), (10_001, 37), (4, 0)] {
        assert_eq!(grow(&mut client, vec![wider("b", count, None)], 1).await[0].1, code, "{count}");
    }
    let twice = vec![wider("b", 9, None), wider("b", 9, None)];
    assert_eq!(grow(&mut client, twice, 1).await, [("b".to_owned(), 42), ("b".to_owned(), 42)]);
}

#[tokio::test]
async fn an_assignment_of_new_partitions_is_checked_and_a_check_changes_nothing() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let bad: [&[&[i32]]; 5] = [&[&[1]], &[&[1], &[9]], &[&[1], &[]], &[&[1], &[1, 1]], &[&[1], &[1], &[1]]];
    for assignments in bad {
        let answered = grow(&mut client, vec![wider("t", 3, Some(assignments))], 2).await;
        assert_eq!(answered[0].1, 39, "{assignments:?}");
    }
    let checked = g::CreatePartitionsRequestData {
        topics: vec![wider("t", 3, Some(&[&[1], &[1]])), wider("none", 3, None)],
        timeout_ms: 30_000,
        validate_only: true,
        ..Default::default()
    };
    let codes: Vec<i16> = client.call(&checked, 1).await.results.iter().map(|done| done.error_code).collect();
    assert_eq!((codes, partitions(&house, "t").await), (vec![0, 3], 1));
    assert_eq!(grow(&mut client, vec![wider("t", 3, Some(&[&[1], &[1]]))], 1).await[0].1, 0);
    assert_eq!(partitions(&house, "t").await, 3);
}

/// Drops records of partition 0; returns the low watermark and the error.
async fn drop_records(client: &mut Client, topic: &str, offset: i64, version: i16) -> (i64, i16) {
    let partition = g::DeleteRecordsPartition { partition_index: 0, offset, ..Default::default() };
    let topic =
        g::DeleteRecordsTopic { name: text(topic), partitions: vec![partition], ..Default::default() };
    let request = g::DeleteRecordsRequestData { topics: vec![topic], timeout_ms: 0, ..Default::default() };
    let partition = client.call(&request, version).await.topics.remove(0).partitions.remove(0);
    (partition.low_watermark, partition.error_code)
}

#[tokio::test]
async fn records_are_dropped_up_to_an_offset_and_the_high_watermark_stays() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for value in ["a", "b", "c", "d"] {
        assert_eq!(client.produce("t", batch(Compression::None, 1_000, &[value])).await.0, 0);
    }
    for version in 0..=2 {
        let before = i64::from(version) + 1;
        assert_eq!(drop_records(&mut client, "t", before, version).await, (before, 0));
    }
    let fetched = client.fetch("t", 3, 0).await;
    assert_eq!((fetched.log_start_offset, fetched.high_watermark), (3, 4));
    assert_eq!(records(&fetched), [(3, "d".to_owned())]);
    assert_eq!(client.fetch("t", 2, 0).await.error_code, 1);
    // What is gone already stays gone; what is not there yet is not dropped.
    assert_eq!(drop_records(&mut client, "t", 1, 2).await, (3, 0));
    assert_eq!(drop_records(&mut client, "t", 5, 2).await, (-1, 1));
    assert_eq!(drop_records(&mut client, "t", -2, 2).await, (-1, 1));
    assert_eq!(drop_records(&mut client, "none", 0, 2).await, (-1, 3));
    assert_eq!(drop_records(&mut client, "t", -1, 2).await, (4, 0));
    let fetched = client.fetch("t", 4, 0).await;
    assert_eq!((fetched.error_code, fetched.log_start_offset, fetched.high_watermark), (0, 4, 4));
    // Offsets go on where they were.
    assert_eq!(client.produce("t", batch(Compression::None, 1_000, &["e"])).await.1, 4);
}

#[tokio::test]
async fn records_of_a_topic_that_is_only_compacted_are_not_dropped() {
    let house = House::start().await;
    house.topic("t", 1, &[("cleanup.policy", "compact")]).await;
    house.topic("u", 1, &[("cleanup.policy", "compact,delete")]).await;
    house.topic("v", 1, &[("cleanup.policy", "")]).await;
    let mut client = house.connect();
    for (topic, answered) in [("t", (-1, 44)), ("u", (1, 0)), ("v", (1, 0))] {
        assert_eq!(client.produce(topic, keyed(Compression::None, &[Some("k")])).await.0, 0);
        assert_eq!(drop_records(&mut client, topic, -1, 2).await, answered);
    }
}

fn page(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> g::DescribeTopicPartitionsRequestData {
    let cursor = cursor.map(|(topic, partition_index)| Cursor {
        topic_name: text(topic),
        partition_index,
        ..Default::default()
    });
    g::DescribeTopicPartitionsRequestData {
        topics: topics.iter().map(|name| TopicRequest { name: text(name), ..Default::default() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(Box::new),
        ..Default::default()
    }
}

#[tokio::test]
async fn partitions_are_told_page_by_page_without_one_missing_or_twice() {
    let house = House::start().await;
    for (name, count) in [("a", 3), ("b", 1), ("c", 4)] {
        house.topic(name, count, &[]).await;
    }
    let mut client = house.connect();
    for limit in [1, 2, 3, 4, 5, 8, 9, 2_000, -1] {
        let mut told: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let mut cursor: Option<(String, i32)> = None;
        loop {
            let from = cursor.as_ref().map(|(topic, index)| (topic.as_str(), *index));
            let answer = client.call(&page(&[], limit, from), 0).await;
            let count: usize = answer.topics.iter().map(|topic| topic.partitions.len()).sum();
            assert!(count <= usize::try_from(limit).unwrap_or(1), "{limit}");
            for topic in answer.topics {
                assert_eq!(topic.error_code, 0);
                for partition in &topic.partitions {
                    assert_eq!((partition.error_code, partition.leader_id), (0, 1));
                    assert_eq!(
                        (&partition.replica_nodes[..], &partition.isr_nodes[..]),
                        (&[1][..], &[1][..])
                    );
                }
                let indices = topic.partitions.iter().map(|partition| partition.partition_index);
                told.entry(topic.name.expect("a name").to_string()).or_default().extend(indices);
            }
            match answer.next_cursor {
                Some(next) => cursor = Some((next.topic_name.to_string(), next.partition_index)),
                None => break,
            }
        }
        let expected = [("a", vec![0, 1, 2]), ("b", vec![0]), ("c", vec![0, 1, 2, 3])];
        assert_eq!(told, expected.map(|(name, all)| (name.to_owned(), all)).into(), "{limit}");
    }
}

#[tokio::test]
async fn asked_for_topics_are_told_with_those_that_are_missing() {
    let house = House::start().await;
    house.topic("a", 2, &[]).await;
    house.topic("z", 1, &[]).await;
    let mut client = house.connect();
    let answer = client.call(&page(&["z", "missing", "a"], 2_000, None), 0).await;
    let told: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| (topic.name.as_ref().map(ToString::to_string), topic.error_code, topic.partitions.len()))
        .collect();
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(told, [(name("a"), 0, 2), (name("missing"), 3, 0), (name("z"), 0, 1)]);
    assert!(answer.next_cursor.is_none());
    // A cursor at a topic that has been deleted goes on with the next.
    let answer = client.call(&page(&["a", "z"], 2_000, Some(("gone", 7))), 0).await;
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].partitions.len(), 1);
    let answer = client.call(&page(&["a"], 2_000, Some(("a", -1))), 0).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (42, 0));
}

#[tokio::test]
async fn the_one_log_directory_has_the_bytes_of_the_partitions_at_home() {
    let house = House::start().await;
    house.topic("a", 2, &[]).await;
    house.topic("b", 1, &[]).await;
    let mut client = house.connect();
    let sent = batch(Compression::None, 1_000, &["value"]);
    let bytes = i64::try_from(sent.len()).expect("short");
    assert_eq!(client.produce("a", sent).await.0, 0);
    for version in 1..=4 {
        let answer = client.call(&g::DescribeLogDirsRequestData::default(), version).await;
        let [only] = &answer.results[..] else { panic!("one directory") };
        assert_eq!((answer.error_code, only.error_code, only.topics.len()), (0, 0, 2));
        let sizes: Vec<_> = only.topics[0]
            .partitions
            .iter()
            .map(|part| (part.partition_index, part.partition_size))
            .collect();
        assert_eq!(sizes, [(0, bytes), (1, 0)], "{version}");
        let topic = |name: &str, partitions: &[i32]| g::DescribableLogDirTopic {
            topic: text(name),
            partitions: partitions.to_vec(),
            ..Default::default()
        };
        let topics = Some(vec![topic("a", &[1, 7]), topic("missing", &[0])]);
        let some =
            client.call(&g::DescribeLogDirsRequestData { topics, ..Default::default() }, version).await;
        let [only] = &some.results[0].topics[..] else { panic!("one topic") };
        assert_eq!((only.partitions.len(), only.partitions[0].partition_index), (1, 1));
        let none = g::DescribeLogDirsRequestData { topics: Some(Vec::new()), ..Default::default() };
        assert_eq!(client.call(&none, version).await.results[0].topics.len(), 0);
    }
}
