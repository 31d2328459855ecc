//! Single calls.

use futures::TryStreamExt as _;
use streamhouse_client::{
    AppendTo, CallError, ConnectError, ErrorCode, FetchOptions, Mode, NewTopic, Offset, PartitionIndex,
    Position, Record, StreamHouse,
};

use crate::fake::{Act, Fake};

#[tokio::test]
async fn a_wrong_address_is_told_at_once_and_nobody_home_is_unreachable() {
    let error = StreamHouse::connect("nowhere").await.expect_err("no port");
    assert!(matches!(error, ConnectError::InvalidAddress { .. }), "{error}");
    let fake = Fake::new(1);
    let mut running = fake.listen().await;
    let address = running.address.to_string();
    running.stop();
    let error = StreamHouse::connect(&address).await.expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert_eq!(error.code(), Some(ErrorCode::Unreachable));
    assert!(error.is_retryable());
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn a_retried_change_keeps_its_request_id() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let house = fake.connect(&running).await;
    fake.script([Act::Nack(ErrorCode::MetadataUnavailable), Act::Nack(ErrorCode::CommitUnknown)]);
    let made = house
        .admin()
        .create_topic(NewTopic::new("x").partitions(3), Mode::Apply)
        .await
        .expect("the third works");
    assert_eq!(made.partition_count, 3);
    assert_eq!(made.name.len(), 36, "a UUID: {}", made.name);
    // Nothing is left of the script: both refusals were met by the same call, with one id.
    assert!(fake.state.lock().acts.is_empty());
    let other = house.admin().create_topic(NewTopic::new("x"), Mode::Apply).await.expect("it works");
    assert_ne!(made.name, other.name, "another call has another id");
}

#[tokio::test]
async fn errors_carry_the_servers_code_and_hint() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let house = fake.connect(&running).await;
    let error = house.admin().describe_topic("nope").await.expect_err("there is none");
    assert_eq!(error.code(), Some(ErrorCode::TopicNotFound));
    assert_eq!(error.hint(), Some(ErrorCode::TopicNotFound.hint()));
    assert!(!error.is_retryable());
    assert!(!error.may_have_happened());
}

#[tokio::test]
async fn a_list_reads_page_after_page() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let house = fake.connect(&running).await;
    let topics: Vec<_> = house.admin().list_topics("").try_collect().await.expect("three pages");
    let names: Vec<_> = topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4", "t5"]);
}

#[tokio::test]
async fn a_unary_append_is_not_repeated_when_it_may_have_happened() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let topic = fake.connect(&running).await.topic("t");
    fake.script([Act::Nack(ErrorCode::StoreUnavailable)]);
    let places = topic.append(vec![Record::new("a"), Record::new("b")]).await.expect("the second try works");
    assert_eq!(places.len(), 2);
    fake.script([Act::Nack(ErrorCode::CommitUnknown)]);
    let error = topic.append(vec![Record::new("c")]).await.expect_err("nobody knows");
    assert!(error.may_have_happened());
    assert_eq!(fake.values(0), ["a", "b"]);
}

#[tokio::test]
async fn a_call_gives_up_at_its_deadline_with_the_last_reason() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let builder = StreamHouse::builder().request_timeout(std::time::Duration::from_millis(200));
    let topic = builder.connect(&running.address.to_string()).await.expect("it listens").topic("t");
    fake.script(vec![Act::Nack(ErrorCode::StoreUnavailable); 1_000]);
    let error =
        topic.append_to(AppendTo::default(), vec![Record::new("a")]).await.expect_err("it never works");
    assert!(matches!(error, CallError::TimedOut { may_have_happened: false, .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::StoreUnavailable));
}

#[tokio::test]
async fn what_is_only_checked_has_never_happened() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let builder = StreamHouse::builder().request_timeout(std::time::Duration::from_millis(200));
    let admin = builder.connect(&running.address.to_string()).await.expect("it listens").admin();
    for (mode, may_have_happened) in [(Mode::Apply, true), (Mode::ValidateOnly, false)] {
        fake.script(vec![Act::Nack(ErrorCode::CommitUnknown); 1_000]);
        let error = admin.create_topic(NewTopic::new("x"), mode).await.expect_err("nobody knows");
        assert_eq!(error.may_have_happened(), may_have_happened, "{error:?}");
        assert_eq!(error.code() == Some(ErrorCode::CommitUnknown), may_have_happened, "{error:?}");
    }
}

#[tokio::test]
async fn offsets_are_looked_up_by_every_kind_of_position() {
    let fake = Fake::new(2);
    let running = fake.listen().await;
    let topic = fake.connect(&running).await.topic("t");
    fake.write(1, &["a", "b", "c", "d"]);
    let one = PartitionIndex::new(1);
    let wanted = ["start", "end", "-3", "+1", "+9", "2"]
        .map(|text| (one, text.parse::<Position>().expect("a position")));
    let found = topic.list_offsets(&wanted).await.expect("it exists");
    let offsets: Vec<_> = found.iter().map(|found| found.offset.get()).collect();
    assert_eq!(offsets, [0, 4, 1, 1, 4, 2]);
    let missing = topic.list_offsets(&[(PartitionIndex::new(7), Position::Start)]).await;
    assert_eq!(missing.expect_err("no such partition").code(), Some(ErrorCode::PartitionNotFound));
}

#[tokio::test]
async fn a_fetch_brings_batches() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let topic = fake.connect(&running).await.topic("t");
    fake.write(0, &["a"]);
    let options = FetchOptions::default();
    let fetched = topic.fetch(PartitionIndex::new(0), Offset::ZERO, options).await.expect("it is there");
    assert_eq!(fetched.next_offset, Offset::new(1));
    assert!(!fetched.record_batches.is_empty());
}
