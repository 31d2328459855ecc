//! Order, limits and ends of connections.

use bytes::Bytes;
use kacrab_protocol::generated as g;
use streamhouse_types::batch::Compression;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Client, House, LOOPBACK, batch, fetch, produce};

/// Lets every other connection do what it can: each answer here takes a turn of all.
async fn give_turns(client: &mut Client) {
    for _ in 0..200 {
        client.call(&g::ApiVersionsRequestData::default(), 0).await;
    }
}

#[tokio::test]
async fn requests_run_side_by_side_and_are_answered_in_order() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let (mut reader, mut writer) = (house.connect(), house.connect());
    // The first waits for records; the second could be answered at once.
    let first = reader.send(&fetch(&["t"], 0, 60_000), 11).await;
    let second = reader.send(&g::ApiVersionsRequestData::default(), 0).await;
    assert_eq!(writer.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    let (number, fetched) = reader.receive::<g::FetchRequestData>(11).await;
    assert_eq!((number, fetched.responses[0].partitions[0].high_watermark), (first, 1));
    assert_eq!(reader.receive::<g::ApiVersionsRequestData>(0).await.0, second);
}

#[tokio::test]
async fn a_producers_requests_share_flushes_and_keep_their_order() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    for value in 0..40 {
        client.send(&produce("t", batch(Compression::None, 1, &[&value.to_string()])), 9).await;
        // The queue has room for 32; answers must be taken for the rest.
        if value >= 20 {
            let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
            assert_eq!(answer.responses[0].partition_responses[0].base_offset, value - 20);
        }
    }
    for value in 20..40 {
        let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, value);
    }
}

/// Sends `fetches` that wait and leave room for `max_bytes` each: what follows is not read, so nothing of it happens.
async fn check_full(fetches: usize, max_bytes: i32) {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let mut waiting = fetch(&["t"], 0, 60_000);
    waiting.max_bytes = max_bytes;
    for _ in 0..fetches {
        client.send(&waiting, 11).await;
    }
    client.send(&produce("t", batch(Compression::None, 1, &["late"])), 9).await;
    let mut other = house.connect();
    give_turns(&mut other).await;
    let first = other.produce("t", batch(Compression::None, 1, &["first"])).await;
    assert_eq!(first.1, 0, "more than {fetches} requests were read");
    for _ in 0..fetches {
        client.receive::<g::FetchRequestData>(11).await;
    }
    let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 1);
}

#[tokio::test]
async fn when_the_queue_is_full_nothing_more_is_read() {
    check_full(32, 1_000).await;
    // Of answers that may have 16 MiB each, four are as much as may be unanswered; the fifth waits before it is begun.
    check_full(5, 50 << 20).await;
}

#[tokio::test]
async fn versions_that_are_not_answered_end_the_connection() {
    for (key, version) in [(3_i16, 14_i16), (0, 2), (11, 0), (999, 0)] {
        let house = House::start().await;
        let mut client = house.connect();
        let mut frame = 20_i32.to_be_bytes().to_vec();
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend([0; 16]);
        client.wire.io().write_all(&frame).await.expect("written");
        assert!(client.is_ended().await, "{key} {version}");
    }
}

#[tokio::test]
async fn frames_that_lie_end_the_connection_and_nothing_else() {
    let house = House::start().await;
    let frames: [&[u8]; 4] = [
        b"\xff\xff\xff\xff\x00\x03\x00\x05",
        b"\x7f\xff\xff\xff\x00\x00\x00\x09",
        b"\x00\x00\x00\x01\x00",
        // Metadata with an array of 2,147,483,632 topics.
        b"\x00\x00\x00\x0e\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xf0",
    ];
    for frame in frames {
        let mut client = house.connect();
        client.wire.io().write_all(frame).await.expect("written");
        assert!(client.is_ended().await, "{frame:?}");
    }
    let mut client = house.connect();
    assert_eq!(client.call(&g::ApiVersionsRequestData::default(), 0).await.error_code, 0);
}

#[tokio::test]
async fn a_newer_client_is_told_how_to_ask() {
    let house = House::start().await;
    let mut client = house.connect();
    let frame = b"\x00\x00\x00\x0e\x00\x12\x00\x63\x00\x00\x00\x05\xff\xff\xff\xff\xff\xff";
    client.wire.io().write_all(frame).await.expect("written");
    let (number, answer) = client.receive::<g::ApiVersionsRequestData>(0).await;
    assert_eq!((number, answer.error_code), (5, 35));
    let apis: Vec<_> = answer.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect();
    assert_eq!(apis, [(18, 4)]);
    assert_eq!(client.call(&g::ApiVersionsRequestData::default(), 0).await.error_code, 0);
}

#[tokio::test]
async fn without_acks_there_is_no_answer_and_an_error_ends_the_connection() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let mut request = produce("t", batch(Compression::None, 1, &["a"]));
    request.acks = 0;
    client.send(&request, 9).await;
    // The next answer is that of the next request.
    assert_eq!(client.call(&g::ApiVersionsRequestData::default(), 0).await.error_code, 0);
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["b"])).await.1, 1);
    let mut request = produce("missing", batch(Compression::None, 1, &["a"]));
    request.acks = 0;
    client.send(&request, 9).await;
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn what_was_asked_before_the_listener_closes_is_answered() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    client.send(&fetch(&["t"], 1, 60_000), 11).await;
    // Read before: a further request would be refused otherwise.
    client.send(&g::ApiVersionsRequestData::default(), 0).await;
    tokio::task::yield_now().await;
    house.drain.cancel();
    let (_, fetched) = client.receive::<g::FetchRequestData>(11).await;
    assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
    client.receive::<g::ApiVersionsRequestData>(0).await;
    // Clients are sent to other nodes now.
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["b"])).await.0, 6);
    assert_eq!(client.fetch("t", 0, 0).await.error_code, 6);
    house.closing.cancel();
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn a_closing_listener_reads_nothing_more_and_answers_what_waits() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let (mut client, mut other) = (house.connect(), house.connect());
    client.send(&fetch(&["t"], 0, 60_000), 11).await;
    give_turns(&mut other).await;
    house.closing.cancel();
    assert!(other.is_ended().await);
    // What wakes it: the node stops.
    house.drain.cancel();
    let (_, fetched) = client.receive::<g::FetchRequestData>(11).await;
    assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn nothing_is_left_of_a_client_that_goes_while_it_waits() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = house.kafka.serve(theirs, LOOPBACK, house.closing.clone());
    let leaving = async {
        let mut ours = ours;
        ours.write_all(&Bytes::from_static(b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff")).await
    };
    // The connection is dropped as soon as the request is written; serving ends by itself.
    let ((), written) = tokio::join!(serving, leaving);
    written.expect("written");
}
