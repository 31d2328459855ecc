use bytes::Bytes;
use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_response::Message as Out;
use streamhouse_types::Timestamp;
use streamhouse_types::batch::{BatchBuilder, Compression, RecordRef};
use tonic_types::StatusExt as _;

use crate::harness::{Node, Session, batch, reason};

#[tokio::test]
async fn what_a_session_appends_is_read_back_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 2).await;
    let (mut session, opened) = Session::open(&mut node, "orders").await;
    assert_eq!(opened.partition_count, 2);
    assert_eq!(opened.credit_bytes, 16 << 20);
    session.send(0, batch(&["a", "b"])).await;
    session.send(1, batch(&["x"])).await;
    session.send(0, batch(&["c"])).await;
    let acks = [session.acked().await, session.acked().await, session.acked().await];
    let told = acks.map(|ack| (ack.session_sequence, ack.base_offset, ack.end_offset, ack.duplicate));
    assert_eq!(told, [(0, 0, 2, false), (1, 0, 1, false), (2, 2, 3, false)]);
    session.finish();
    assert!(session.answered().await.expect("a clean end").is_none());
    assert_eq!(node.values("orders", 0, 0).await, ["a", "b", "c"]);
    assert_eq!(node.values("orders", 0, 1).await, ["b", "c"]);
    assert_eq!(node.values("orders", 1, 0).await, ["x"]);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn a_bad_batch_is_refused_and_the_session_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    let mut corrupt = batch(&["broken"]).to_vec();
    *corrupt.last_mut().expect("bytes") ^= 1;
    session.send(0, corrupt.into()).await;
    session.send(0, Bytes::from_static(b"no batch at all")).await;
    session.send(7, batch(&["nowhere"])).await;
    session.send(0, batch(&[&"x".repeat(2 << 20)])).await;
    session.send(0, batch(&["good"])).await;
    let mut reasons = Vec::new();
    for expected in 0..4 {
        let nack = session.refused().await;
        assert_eq!(nack.session_sequence, expected);
        let status = nack.status.expect("a status");
        assert!(!status.message.is_empty());
        let info = status.details.iter().find(|any| any.type_url.ends_with("ErrorInfo")).expect("error info");
        reasons.push(String::from_utf8_lossy(&info.value).into_owned());
    }
    assert!(reasons[0].contains("CORRUPT_BATCH"), "{}", reasons[0]);
    assert!(reasons[1].contains("INVALID_BATCH"), "{}", reasons[1]);
    assert!(reasons[2].contains("PARTITION_NOT_FOUND"), "{}", reasons[2]);
    assert!(reasons[3].contains("BATCH_TOO_LARGE"), "{}", reasons[3]);
    assert_eq!(session.acked().await.base_offset, 0);
    assert_eq!(node.values("orders", 0, 0).await, ["good"]);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_like_a_batch_over_the_limit() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let huge = Bytes::from(vec![0; 9 << 20]);
    let record = v1::Record { value: Some(huge.clone()), ..Default::default() };
    let request = v1::AppendRequest { topic: "orders".into(), records: vec![record], ..Default::default() };
    let status = node.streams.append(request).await.expect_err("refused");
    assert_eq!(reason(&status), "BATCH_TOO_LARGE");

    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send(0, batch(&["kept"])).await;
    session.send(0, huge).await;
    assert_eq!(session.acked().await.base_offset, 0);
    assert_eq!(reason(&session.answered().await.expect_err("the session ends")), "BATCH_TOO_LARGE");
    assert_eq!(node.values("orders", 0, 0).await, ["kept"]);
    drop(session);
    node.stop().await;
}

fn compressed(compression: Compression, value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    let record =
        RecordRef { key: None, value: Some(value), headers: &[], timestamp: Timestamp::from_millis(1) };
    builder.push(&record).expect("it fits");
    builder.build()
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[tokio::test]
async fn compressed_records_that_could_not_be_read_back_are_not_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut garbage = compressed(compression, &[b'a'; 4_096]).to_vec();
        garbage[61..].fill(0xee);
        let crc = crc32c(&garbage[21..]);
        garbage[17..21].copy_from_slice(&crc.to_be_bytes());
        session.send(0, garbage.into()).await;
        let nack = format!("{:?}", session.refused().await);
        assert!(nack.contains("compress"), "{compression}: {nack}");
    }
    // 65 MiB out of a few KiB.
    session.send(0, compressed(Compression::Zstd, &vec![0; 65 << 20])).await;
    let nack = format!("{:?}", session.refused().await);
    assert!(nack.contains("compress"), "{nack}");
    // 32 MiB of it are no more than there is room for.
    session.send(0, compressed(Compression::Zstd, &vec![0; 32 << 20])).await;
    assert_eq!(session.acked().await.base_offset, 0);
    session.send(0, compressed(Compression::Zstd, &[b'a'; 4_096])).await;
    assert_eq!(session.acked().await.base_offset, 1);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn a_gap_in_the_session_sequence_ends_the_session() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    session.send_as(0, 0, batch(&["a"])).await;
    session.send_as(2, 0, batch(&["c"])).await;
    assert_eq!(session.acked().await.base_offset, 0);
    let status = session.answered().await.expect_err("a violation");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(node.values("orders", 0, 0).await, ["a"]);
    drop(session);
    node.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_made_only_where_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("store.url", "memory:///"), ("topics.auto_create", "false")];
    let mut node = Node::with(crate::harness::config(dir.path(), &settings)).await.expect("started");
    let mut session = Session::connect(&mut node, "ordrs").await;
    let status = session.answered().await.expect_err("there is no such topic");
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(reason(&status), "TOPIC_NOT_FOUND");
    let info = status.get_details_error_info().expect("error info");
    assert!(info.metadata["hint"].contains("streamhouse topic create ordrs"), "{:?}", info.metadata);
    drop(session);
    node.stop().await;

    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let (mut session, opened) = Session::open(&mut node, "greetings").await;
    assert_eq!(opened.partition_count, 1);
    session.send(0, batch(&["hello"])).await;
    session.acked().await;
    assert_eq!(node.values("greetings", 0, 0).await, ["hello"]);
    drop(session);
    node.stop().await;
}

fn record(key: Option<&'static str>, value: &'static str) -> v1::Record {
    v1::Record {
        key: key.map(Bytes::from),
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
        timestamp: None,
    }
}

#[tokio::test]
async fn plain_records_go_where_their_keys_say_and_are_durable() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 4).await;
    let records = vec![record(Some("k1"), "a"), record(Some("k2"), "b"), record(Some("k1"), "c")];
    let request = v1::AppendRequest { topic: "orders".into(), records, ..Default::default() };
    let appended = node.streams.append(request).await.expect("appended").into_inner().appended;
    assert_eq!(appended.len(), 3);
    assert_eq!(appended[0].partition, appended[2].partition);
    assert!(appended[0].offset < appended[2].offset);
    let values = node.values("orders", appended[0].partition, appended[0].offset).await;
    assert_eq!(values.first().map(String::as_str), Some("a"));
    node.stop().await;
}

#[tokio::test]
async fn an_expected_offset_that_does_not_hold_appends_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    node.create("orders", 1).await;
    let request = |offset, value| v1::AppendRequest {
        topic: "orders".into(),
        partition: Some(0),
        records: vec![record(None, value)],
        expected_offset: Some(offset),
    };
    let first = node.streams.append(request(0, "a")).await.expect("appended").into_inner();
    assert_eq!(first.appended[0].offset, 0);
    let status = node.streams.append(request(0, "b")).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let info = status.get_details_error_info().expect("error info");
    assert_eq!(info.metadata["next_offset"], "1");
    assert_eq!(info.metadata["may_have_happened"], "false");
    assert_eq!(node.values("orders", 0, 0).await, ["a"]);
    node.stop().await;
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::in_memory(dir.path()).await;
    let first =
        node.streams.init_producer(v1::InitProducerRequest { count: 0 }).await.expect("an id").into_inner();
    let second =
        node.streams.init_producer(v1::InitProducerRequest { count: 10 }).await.expect("ids").into_inner();
    assert_eq!((first.count, second.count), (1, 10));
    assert!(second.first_id > first.first_id);
    let status =
        node.streams.init_producer(v1::InitProducerRequest { count: 1_001 }).await.expect_err("too many");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_answers_what_it_took() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = Node::start(dir.path()).await;
    let (mut session, _) = Session::open(&mut node, "orders").await;
    for _ in 0..10 {
        session.send(0, batch(&["x"])).await;
    }
    let first = session.acked().await;
    assert_eq!(first.session_sequence, 0);
    let Node { running, .. } = node;
    let stopped = tokio::spawn(running.shutdown());
    let (mut acks, mut told) = (1, 0);
    while let Ok(Some(answer)) = session.answered().await {
        match answer {
            Out::Ack(_) => acks += 1,
            Out::GoAway(_) => {
                told += 1;
                session.finish();
            }
            other => panic!("{other:?}"),
        }
    }
    stopped.await.expect("stopped");
    assert_eq!((acks, told), (10, 1));
}
