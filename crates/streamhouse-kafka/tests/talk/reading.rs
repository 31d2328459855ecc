//! Fetch, and how offsets are found.

use kacrab_protocol::generated as g;
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, fetch, records, text};

async fn offset_at(client: &mut Client, topic: &str, time: i64, version: i16) -> (i16, i64, i64) {
    let partition = g::ListOffsetsPartition {
        partition_index: 0,
        timestamp: time,
        current_leader_epoch: -1,
        ..Default::default()
    };
    let topic = g::ListOffsetsTopic { name: text(topic), partitions: vec![partition], ..Default::default() };
    let request = g::ListOffsetsRequestData { topics: vec![topic], replica_id: -1, ..Default::default() };
    let answer = client.call(&request, version).await;
    let found = &answer.topics[0].partitions[0];
    (found.error_code, found.offset, found.timestamp)
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_is_woken_by_them() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.topic("u", 1, &[]).await;
    let (mut reader, mut writer) = (house.connect(), house.connect());
    reader.send(&fetch(&["t", "u"], 0, 60_000), 11).await;
    assert_eq!(writer.produce("u", batch(Compression::None, 1, &["a"])).await.0, 0);
    let (_, answer) = reader.receive::<g::FetchRequestData>(11).await;
    let [t, u] = &answer.responses[..] else { panic!("two topics") };
    assert_eq!(t.partitions[0].high_watermark, 0);
    assert_eq!(records(&u.partitions[0]), [(0, "a".to_owned())]);
}

#[tokio::test]
async fn an_empty_answer_has_the_true_ends() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for _ in 0..3 {
        client.produce("t", batch(Compression::None, 1, &["a", "b"])).await;
    }
    let fetched = client.fetch("t", 6, 1).await;
    assert_eq!((fetched.error_code, fetched.high_watermark, fetched.last_stable_offset), (0, 6, 6));
    assert_eq!((fetched.log_start_offset, fetched.records.map(|records| records.len())), (0, Some(0)));
    for offset in [7, -5] {
        assert_eq!(client.fetch("t", offset, 1).await.error_code, 1, "{offset}");
    }
    assert_eq!(client.fetch("missing", 0, 1).await.error_code, 3);
}

#[tokio::test]
async fn the_batch_that_holds_the_offset_comes_whole_and_first_even_over_the_limit() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let long = "x".repeat(5_000);
    for _ in 0..3 {
        client.produce("t", batch(Compression::None, 1, &["a", &long, "c"])).await;
    }
    let mut request = fetch(&["t"], 4, 0);
    request.max_bytes = 10;
    request.topics[0].partitions[0].partition_max_bytes = 10;
    for version in 4..=11 {
        let answer = client.call(&request, version).await;
        let offsets: Vec<i64> =
            records(&answer.responses[0].partitions[0]).iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [3, 4, 5], "{version}");
    }
}

#[tokio::test]
async fn room_is_kept_to_over_several_partitions() {
    let house = House::start().await;
    let mut client = house.connect();
    let long = "x".repeat(5_000);
    for topic in ["t", "u"] {
        house.topic(topic, 1, &[]).await;
        client.produce(topic, batch(Compression::None, 1, &[&long])).await;
    }
    let mut request = fetch(&["t", "u"], 0, 0);
    request.max_bytes = 4_000;
    let answer = client.call(&request, 11).await;
    let lengths: Vec<usize> =
        answer.responses.iter().map(|topic| records(&topic.partitions[0]).len()).collect();
    assert_eq!(lengths, [1, 0]);
    assert_eq!(answer.responses[1].partitions[0].high_watermark, 1);
    request.max_bytes = 50 << 20;
    let answer = client.call(&request, 11).await;
    assert!(answer.responses.iter().all(|topic| records(&topic.partitions[0]).len() == 1));
}

#[tokio::test]
async fn topics_are_read_by_id_and_sessions_are_declined() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    client.produce("t", batch(Compression::None, 1, &["a"])).await;
    let topic_id = client.call(&g::MetadataRequestData::default(), 12).await.topics[0].topic_id;
    for version in 13..=18 {
        let mut request = fetch(&[""], 0, 0);
        request.topics[0].topic_id = topic_id;
        request.session_epoch = 0;
        let answer = client.call(&request, version).await;
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        assert_eq!(records(&answer.responses[0].partitions[0]).len(), 1);
        request.topics[0].topic_id = kacrab_protocol::KafkaUuid::from_parts(1, 2);
        assert_eq!(client.call(&request, version).await.responses[0].partitions[0].error_code, 100);
    }
    let mut request = fetch(&["t"], 0, 0);
    (request.session_id, request.session_epoch) = (77, 3);
    assert_eq!(client.call(&request, 11).await.error_code, 70);
}

#[tokio::test]
async fn a_client_with_another_leader_epoch_is_told() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let mut request = fetch(&["t"], 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = 5;
    assert_eq!(client.call(&request, 11).await.responses[0].partitions[0].error_code, 75);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    assert_eq!(client.call(&request, 11).await.responses[0].partitions[0].error_code, 0);
}

#[tokio::test]
async fn offsets_are_found_by_time_exact_to_the_record() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    assert_eq!(offset_at(&mut client, "t", -3, 7).await, (0, -1, -1));
    // Times 1000 to 1002, then 500, then 2000 and 2001; the last batch is compressed.
    client.produce("t", batch(Compression::None, 1_000, &["a", "b", "c"])).await;
    client.produce("t", batch(Compression::None, 500, &["d"])).await;
    client.produce("t", batch(Compression::Gzip, 2_000, &[&"e".repeat(300), "f"])).await;
    for version in 1..=10 {
        let mut at = async |time| offset_at(&mut client, "t", time, version).await;
        assert_eq!(at(-1).await, (0, 6, -1), "{version}");
        assert_eq!(at(-2).await, (0, 0, -1));
        assert_eq!(at(0).await, (0, 0, 1_000));
        assert_eq!(at(1_001).await, (0, 1, 1_001));
        assert_eq!(at(1_003).await, (0, 4, 2_000));
        assert_eq!(at(2_001).await, (0, 5, 2_001));
        assert_eq!(at(2_002).await, (0, -1, -1));
        assert_eq!(at(-3).await, (0, 5, 2_001));
        assert_eq!(at(-4).await, (0, 0, -1));
        assert_eq!(at(-5).await, (0, -1, -1));
        assert_eq!(at(-9).await.0, 35);
    }
    assert_eq!(offset_at(&mut client, "missing", -1, 5).await.0, 3);
}

#[tokio::test]
async fn the_end_of_an_epoch_is_told() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    client.produce("t", batch(Compression::None, 1_000, &["a", "b", "c"])).await;
    for version in 2..=4 {
        for (epoch, expected) in [(0, (0, 0, 3)), (1, (0, -1, -1)), (-1, (0, -1, -1))] {
            let partition = g::OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: -1,
                leader_epoch: epoch,
                ..Default::default()
            };
            let topic = g::OffsetForLeaderTopic {
                topic: text("t"),
                partitions: vec![partition],
                ..Default::default()
            };
            let request = g::OffsetForLeaderEpochRequestData {
                topics: vec![topic],
                replica_id: -1,
                ..Default::default()
            };
            let answer = client.call(&request, version).await;
            let found = &answer.topics[0].partitions[0];
            assert_eq!((found.error_code, found.leader_epoch, found.end_offset), expected);
        }
    }
}

#[tokio::test]
async fn small_batches_of_one_by_one_writers_come_together() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for number in 0..200 {
        assert_eq!(client.produce("t", batch(Compression::None, number, &["a"])).await.0, 0);
    }
    let fetched = client.fetch("t", 0, 1).await;
    let offsets: Vec<i64> = records(&fetched).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_partition_that_is_listed_again_and_again_comes_once() {
    let house = House::start().await;
    house.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut client = house.connect();
    let long = "x".repeat(5_000);
    client.produce("t", batch(Compression::None, 1, &[&long])).await;
    let mut request = fetch(&["t"], 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    request.topics[0].partitions = vec![request.topics[0].partitions[0].clone(); 2_000];
    let answer = client.call(&request, 11).await;
    let lengths: Vec<usize> =
        answer.responses[0].partitions.iter().map(|partition| records(partition).len()).collect();
    assert_eq!((lengths.len(), lengths[0], lengths.iter().sum::<usize>()), (2_000, 1, 1));
    assert!(answer.responses[0].partitions.iter().all(|partition| partition.high_watermark == 1));
}

/// A topic of more than one answer may have.
async fn much(house: &House, topic: &str) {
    house.topic(topic, 1, &[]).await;
    let (mut client, long) = (house.connect(), "x".repeat(1_000_000));
    for _ in 0..18 {
        assert_eq!(client.produce(topic, batch(Compression::None, 1, &[&long])).await.0, 0);
    }
}

fn fetch_much(topic: &str) -> g::FetchRequestData {
    let mut request = fetch(&[topic], 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    request
}

#[tokio::test]
async fn what_waits_behind_a_fetch_that_waits_holds_no_room_that_others_need() {
    let house = House::start().await;
    much(&house, "t").await;
    house.topic("u", 1, &[]).await;
    let mut clients: Vec<Client> = (0..10).map(|_| house.connect()).collect();
    for client in &mut clients {
        client.send(&fetch(&["u"], 0, 60_000), 11).await;
        client.send(&fetch_much("t"), 11).await;
    }
    let mut other = house.connect();
    let answer = other.call(&fetch_much("t"), 11).await;
    assert_eq!(records(&answer.responses[0].partitions[0]).len(), 16);
    assert_eq!(other.produce("u", batch(Compression::None, 1, &["a"])).await.0, 0);
    for client in &mut clients {
        let mut counts = Vec::new();
        for _ in 0..2 {
            let (_, answer) = client.receive::<g::FetchRequestData>(11).await;
            counts.push(records(&answer.responses[0].partitions[0]).len());
        }
        // Who waits long for those before it is sent a little.
        assert!(counts[0] == 1 && (1..=16).contains(&counts[1]), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_all_room_taken_by_slow_clients_is_sent_a_little() {
    let house = House::start().await;
    much(&house, "t").await;
    house.topic("u", 1, &[]).await;
    let mut quick = house.connect();
    for value in ["a", "b"] {
        quick.produce("u", batch(Compression::None, 1, &[value])).await;
    }
    let mut slow: Vec<Client> = (0..9).map(|_| house.connect()).collect();
    for client in &mut slow {
        client.send(&fetch_much("t"), 11).await;
    }
    let mut long = fetch(&["t", "u"], 0, 0);
    long.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    // Until the slow ones have come to it there is room.
    let mut tries = 0..1_000;
    while tries.next().is_some() {
        let answer = quick.call(&long, 11).await;
        let lengths: Vec<usize> =
            answer.responses.iter().map(|topic| records(&topic.partitions[0]).len()).collect();
        // The first batch, and no more.
        if lengths == [1, 0] {
            break;
        }
        assert_eq!(lengths, [16, 0]);
    }
    assert!(!tries.is_empty(), "there is room for ever");
    assert_eq!(records(&quick.fetch("u", 0, 0).await).len(), 2);
}
