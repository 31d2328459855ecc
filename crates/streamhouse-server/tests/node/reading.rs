use streamhouse_proto::v1;
use streamhouse_proto::v1::position::{At, End, Start};

use crate::harness::{Follow, Node, Session, batch, reason, records};

#[tokio::test]
async fn a_follower_gets_what_is_written_after_it_began() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 2).await;
    let mut answers =
        node.read("orders", &[(0, At::Start(Start {})), (1, At::Start(Start {}))], Follow::Yes).await;
    for _ in 0..2 {
        let answer = answers.message().await.expect("an answer").expect("a message");
        assert!(answer.caught_up && answer.record_batches.is_empty());
    }
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(1, batch(&["late"])).await;
    session.acked().await;
    let answer = answers.message().await.expect("an answer").expect("a message");
    assert_eq!((answer.partition, answer.next_offset, answer.caught_up), (1, 1, true));
    assert_eq!(records(answer.record_batches), [(0, "late".to_owned())]);
    drop(answers);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn a_read_ends_where_the_log_ended_when_it_began() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let mut answers = node.read("orders", &[(0, At::Start(Start {}))], Follow::No).await;
    let answer = answers.message().await.expect("an answer").expect("a message");
    assert!(answer.caught_up);
    assert!(answers.message().await.expect("the end").is_none());
    node.stop().await;
}

#[tokio::test]
async fn a_read_stops_at_the_offset_it_was_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    for value in ["a", "b", "c", "d"] {
        session.send(0, batch(&[value])).await;
        session.acked().await;
    }
    let read = v1::PartitionRead {
        partition: 0,
        from: Some(v1::Position { at: Some(At::Offset(1)) }),
        until: Some(v1::Position { at: Some(At::Offset(3)) }),
    };
    let request = v1::ReadRequest {
        topic: "orders".into(),
        partitions: vec![read],
        follow: true,
        ..Default::default()
    };
    let mut answers = node.streams.read(request).await.expect("a stream").into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await.expect("an answer") {
        found.extend(records(answer.record_batches));
    }
    assert_eq!(found, [(1, "b".to_owned()), (2, "c".to_owned())]);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_place_and_by_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["a", "b", "c"])).await;
    session.acked().await;
    let time = |seconds| At::Time(prost_types::Timestamp { seconds, nanos: 0 });
    let places = [
        (At::Start(Start {}), 0),
        (At::End(End {}), 3),
        (At::BeforeEnd(2), 1),
        (At::BeforeEnd(100), 0),
        (At::Offset(2), 2),
        (time(1_700_000_000), 0),
        (time(1_600_000_000), 0),
        (time(1_800_000_000), 3),
    ];
    let positions = places.iter().map(|(at, _)| v1::PartitionPosition {
        partition: 0,
        position: Some(v1::Position { at: Some(*at) }),
    });
    let request =
        v1::ListOffsetsRequest { topic: "orders".into(), positions: positions.collect(), read_token: 0 };
    let found = node.streams.list_offsets(request).await.expect("offsets").into_inner().offsets;
    for ((at, expected), found) in places.iter().zip(&found) {
        assert_eq!(found.offset, *expected, "{at:?}");
    }
    assert!(found[5].timestamp.is_some());
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn an_offset_outside_the_log_is_told_with_the_range() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let request = v1::FetchRequest { topic: "orders".into(), offset: 5, ..Default::default() };
    let status = node.streams.fetch(request).await.expect_err("out of range");
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    assert_eq!(reason(&status), "OFFSET_OUT_OF_RANGE");
    node.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_the_first_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let request =
        v1::FetchRequest { topic: "orders".into(), min_bytes: 1, max_wait_ms: 30_000, ..Default::default() };
    let mut streams = node.streams.clone();
    let waiting = tokio::spawn(async move { streams.fetch(request).await });
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["hello"])).await;
    let fetched = waiting.await.expect("no panic").expect("fetched").into_inner();
    assert_eq!(records(fetched.record_batches), [(0, "hello".to_owned())]);
    assert_eq!((fetched.next_offset, fetched.high_watermark), (1, 1));
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn partitions_are_read_in_turn_and_each_in_order_from_chunk_to_chunk() {
    const BATCHES: usize = 40;
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::start(dir.path()).await;
    node.create("orders", 2).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    let value = |number: usize| format!("{number:05}-{}", "x".repeat(40_000));
    for number in 0..BATCHES {
        session.send(u32::try_from(number % 2).expect("small"), batch(&[&value(number)])).await;
    }
    for _ in 0..BATCHES {
        session.acked().await;
    }
    let read = |partition| v1::PartitionRead { partition, from: None, until: None };
    let request = v1::ReadRequest {
        topic: "orders".into(),
        partitions: vec![read(0), read(1)],
        follow: false,
        max_bytes: 100_000,
        read_token: 0,
        patience_ms: 0,
    };
    let mut answers = node.streams.read(request).await.expect("a stream").into_inner();
    let mut found = [Vec::new(), Vec::new()];
    let (mut chunks, mut turns, mut last) = (0, 0, None);
    while let Some(answer) = answers.message().await.expect("an answer") {
        chunks += 1;
        turns += usize::from(last != Some(answer.partition));
        last = Some(answer.partition);
        found[answer.partition as usize].extend(records(answer.record_batches));
    }
    for (partition, found) in found.iter().enumerate() {
        let expected: Vec<_> =
            (0..BATCHES / 2).map(|place| (place as u64, value(place * 2 + partition))).collect();
        assert_eq!(found.len(), expected.len());
        assert!(*found == expected, "partition {partition}");
    }
    assert!(chunks >= 16, "{chunks} chunks of at most 100 kB");
    assert!(turns >= 8, "the partitions took {turns} turns in {chunks} chunks");
    drop((session, answers));
    node.stop().await;
}
