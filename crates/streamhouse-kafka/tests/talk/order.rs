//! Requests sent before the one ahead is answered: each sees what those ahead have done.

use std::time::Duration;

use kacrab_protocol::generated as g;
use streamhouse_broker::BrokerSettings;
use streamhouse_broker::metadata::{Command, Outcome};
use streamhouse_types::batch::Compression;
use streamhouse_types::{NodeId, PartitionId, PartitionIndex};

use crate::harness::{Client, House, batch, fetch, produce, records, text};

/// Asks for the start of partition 0 of topic `t`, or for its end.
fn bounds(time: i64) -> g::ListOffsetsRequestData {
    let partition =
        g::ListOffsetsPartition { timestamp: time, current_leader_epoch: -1, ..Default::default() };
    let topic = g::ListOffsetsTopic { name: text("t"), partitions: vec![partition], ..Default::default() };
    g::ListOffsetsRequestData { topics: vec![topic], replica_id: -1, ..Default::default() }
}

const START: i64 = -2;
const END: i64 = -1;

async fn bound(client: &mut Client) -> i64 {
    client.receive::<g::ListOffsetsRequestData>(7).await.1.topics[0].partitions[0].offset
}

/// Waits for the offset of a batch whose request was sent.
async fn appended(client: &mut Client) -> i64 {
    let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    partition.base_offset
}

#[tokio::test]
async fn reads_see_the_writes_ahead_of_them() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for offset in 0..20 {
        let value = offset.to_string();
        client.send(&produce("t", batch(Compression::None, 1, &[&value])), 9).await;
        client.send(&bounds(END), 7).await;
        client.send(&fetch(&["t"], offset, 0), 11).await;
        assert_eq!(appended(&mut client).await, offset);
        assert_eq!(bound(&mut client).await, offset + 1);
        let (_, mut fetched) = client.receive::<g::FetchRequestData>(11).await;
        let partition = fetched.responses.remove(0).partitions.remove(0);
        assert_eq!(records(&partition), [(offset, value)]);
    }
}

#[tokio::test]
async fn who_wants_no_answer_has_no_patience_that_could_end() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for offset in 0..20 {
        let wanted = produce("t", batch(Compression::None, 1, &["a"]));
        client.send(&g::ProduceRequestData { acks: 0, timeout_ms: 0, ..wanted }, 9).await;
        client.send(&bounds(END), 7).await;
        assert_eq!(bound(&mut client).await, offset + 1);
    }
}

#[tokio::test]
async fn a_trim_comes_after_the_writes_ahead_and_before_what_is_asked_next() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for round in 0..20 {
        let first = 2 * round;
        client.send(&produce("t", batch(Compression::None, 1, &["a"])), 9).await;
        client.send(&trim("t", first + 1), 2).await;
        client.send(&bounds(START), 7).await;
        client.send(&bounds(END), 7).await;
        client.send(&produce("t", batch(Compression::None, 1, &["b"])), 9).await;
        assert_eq!(appended(&mut client).await, first);
        let (_, trimmed) = client.receive::<g::DeleteRecordsRequestData>(2).await;
        assert_eq!(trimmed.topics[0].partitions[0].low_watermark, first + 1);
        assert_eq!((bound(&mut client).await, bound(&mut client).await), (first + 1, first + 1));
        assert_eq!(appended(&mut client).await, first + 1);
    }
}

#[tokio::test]
async fn a_write_that_waits_for_its_turn_holds_nothing_that_others_need() {
    let flush_interval = Duration::from_millis(1);
    let house =
        House::with(BrokerSettings { in_flight_bytes: 1 << 20, flush_interval, ..BrokerSettings::default() })
            .await;
    house.topic("t", 1, &[]).await;
    house.topic("u", 1, &[]).await;
    let (mut client, mut other) = (house.connect(), house.connect());
    let large = "x".repeat(600 << 10);
    client.send(&fetch(&["u"], 0, 60_000), 11).await;
    client.send(&produce("t", batch(Compression::None, 1, &["a"])), 9).await;
    client.send(&bounds(END), 7).await;
    client.send(&produce("t", batch(Compression::None, 1, &[&large])), 9).await;
    // Each answer takes a turn of everybody.
    for _ in 0..200 {
        other.call(&g::ApiVersionsRequestData::default(), 0).await;
    }
    // Two of these are more than the node takes at a time, and this one ends the wait of the first connection.
    assert_eq!(other.produce("u", batch(Compression::None, 1, &[&large])).await.1, 0);
    let (_, mut fetched) = client.receive::<g::FetchRequestData>(11).await;
    assert_eq!(records(&fetched.responses.remove(0).partitions.remove(0)), [(0, large)]);
    assert_eq!(
        (appended(&mut client).await, bound(&mut client).await, appended(&mut client).await),
        (0, 1, 1)
    );
}

#[tokio::test]
async fn changes_of_topics_are_made_in_the_order_in_which_they_were_asked_for() {
    let house = House::start().await;
    let mut client = house.connect();
    for _ in 0..20 {
        let topic = g::CreatableTopic {
            name: text("t"),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let create =
            g::CreateTopicsRequestData { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let delete = deletion("t");
        let asked = g::MetadataRequestTopic { name: Some(text("t")), ..Default::default() };
        let ask = g::MetadataRequestData {
            topics: Some(vec![asked]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        client.send(&create, 5).await;
        client.send(&ask, 9).await;
        client.send(&produce("t", batch(Compression::None, 1, &["a"])), 9).await;
        client.send(&delete, 5).await;
        client.send(&create, 5).await;
        client.send(&delete, 5).await;
        client.send(&ask, 9).await;
        assert_eq!(created(&mut client).await, 0);
        assert_eq!(client.receive::<g::MetadataRequestData>(9).await.1.topics[0].error_code, 0);
        assert_eq!(appended(&mut client).await, 0);
        assert_eq!(client.receive::<g::DeleteTopicsRequestData>(5).await.1.responses[0].error_code, 0);
        assert_eq!(created(&mut client).await, 0);
        assert_eq!(client.receive::<g::DeleteTopicsRequestData>(5).await.1.responses[0].error_code, 0);
        assert_eq!(client.receive::<g::MetadataRequestData>(9).await.1.topics[0].error_code, 3);
    }
}

fn trim(topic: &str, offset: i64) -> g::DeleteRecordsRequestData {
    let partition = g::DeleteRecordsPartition { offset, ..Default::default() };
    let topic =
        g::DeleteRecordsTopic { name: text(topic), partitions: vec![partition], ..Default::default() };
    g::DeleteRecordsRequestData { topics: vec![topic], timeout_ms: 30_000, ..Default::default() }
}

fn deletion(topic: &str) -> g::DeleteTopicsRequestData {
    g::DeleteTopicsRequestData { topic_names: vec![text(topic)], timeout_ms: 30_000, ..Default::default() }
}

#[tokio::test]
async fn a_fetch_finds_what_a_change_behind_it_takes_away() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.neighbour(2, "south");
    let (mut client, mut other) = (house.connect(), house.connect());
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    let found = house.broker.topic(&"t".parse().expect("a name")).await.expect("it was made");
    let (partition, home) = (PartitionId::new(found.id, PartitionIndex::new(0)), NodeId::new(2));
    let incarnation = house.broker.look(|state| state.node(home).expect("registered").incarnation());
    // A client that knows a later epoch makes the node ask whether it is behind, and so the fetch is held up.
    let mut early = fetch(&["t"], 0, 0);
    early.topics[0].partitions[0].current_leader_epoch = 1;
    let held = house.log.confirming.lock().await;
    client.send(&early, 11).await;
    client.send(&deletion("t"), 5).await;
    // Each answer takes a turn of everybody.
    for _ in 0..200 {
        other.call(&g::ApiVersionsRequestData::default(), 0).await;
    }
    assert_eq!(house.log.apply(&Command::MoveHome { partition, home, incarnation }), Outcome::Done);
    drop(held);
    let (_, mut fetched) = client.receive::<g::FetchRequestData>(11).await;
    let partition = fetched.responses.remove(0).partitions.remove(0);
    assert_eq!((partition.error_code, records(&partition)), (0, vec![(0, "a".to_owned())]));
    assert_eq!(client.receive::<g::DeleteTopicsRequestData>(5).await.1.responses[0].error_code, 0);
}

#[tokio::test]
async fn a_fetch_that_waits_holds_up_no_change() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    house.topic("u", 1, &[]).await;
    let (mut client, mut other) = (house.connect(), house.connect());
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    client.send(&fetch(&["u"], 0, 60_000), 11).await;
    client.send(&trim("t", 1), 2).await;
    let mut start = 0;
    for _ in 0..1_000 {
        other.send(&bounds(START), 7).await;
        start = bound(&mut other).await;
        if start == 1 {
            break;
        }
    }
    assert_eq!(start, 1, "the fetch holds it up");
    assert_eq!(other.produce("u", batch(Compression::None, 1, &["b"])).await.0, 0);
    let (_, mut fetched) = client.receive::<g::FetchRequestData>(11).await;
    assert_eq!(records(&fetched.responses.remove(0).partitions.remove(0)), [(0, "b".to_owned())]);
    let (_, trimmed) = client.receive::<g::DeleteRecordsRequestData>(2).await;
    assert_eq!(trimmed.topics[0].partitions[0].low_watermark, 1);
}

async fn created(client: &mut Client) -> i16 {
    client.receive::<g::CreateTopicsRequestData>(5).await.1.topics[0].error_code
}
