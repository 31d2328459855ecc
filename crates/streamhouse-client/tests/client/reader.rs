//! Readers against a server that loses, repeats and damages.

use futures::TryStreamExt as _;
use streamhouse_client::{
    ErrorCode, Offset, PartitionIndex, Position, ReadBuilder, ReadError, ReadEvent, Topic,
};

use crate::fake::{Fake, ReadAct, Running};

const P0: PartitionIndex = PartitionIndex::new(0);

async fn topic_with(fake: &Fake) -> (Topic, Running) {
    let running = fake.listen().await;
    (fake.connect(&running).await.topic("t"), running)
}

/// Ten records in batches of one, two and three.
fn fill(fake: &Fake) {
    fake.write(0, &["0", "1", "2"]);
    fake.write(0, &["3"]);
    fake.write(0, &["4", "5"]);
    fake.write(0, &["6", "7", "8"]);
    fake.write(0, &["9"]);
}

async fn read(builder: ReadBuilder) -> Result<Vec<String>, ReadError> {
    let records = builder.open().await?.records();
    let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).expect("text");
    records.map_ok(|record| text(record.value.expect("a value"))).try_collect().await
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn exactly_what_lies_between_two_positions_is_read() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    let at = |text: &str| text.parse::<Position>().expect("a position");
    let cases = [
        ("start", "end", "0 1 2 3 4 5 6 7 8 9"),
        ("1", "8", "1 2 3 4 5 6 7"),
        ("-3", "end", "7 8 9"),
        ("+2", "5", "2 3 4"),
        ("4", "5", "4"),
        ("5", "5", ""),
        ("7", "3", ""),
        ("end", "end", ""),
        ("8", "99", "8 9"),
    ];
    for (from, until, expected) in cases {
        let found = read(topic.read(at(from)).until(at(until))).await.expect("it is there");
        assert_eq!(found, words(expected), "{from}..{until}");
    }
}

#[tokio::test]
async fn a_reader_ends_where_the_log_ended_when_it_was_opened() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    let reader = topic.read(Position::Start).open().await.expect("it is there");
    fake.write(0, &["late"]);
    let records: Vec<_> = reader.records().try_collect().await.expect("all sound");
    assert_eq!(records.len(), 10);
    let offsets: Vec<_> = records.iter().map(|record| record.offset.get()).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn broken_streams_are_taken_up_where_they_ended() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    fake.state.lock().read_acts.extend([
        ReadAct::LoseAfter(1),
        ReadAct::EndAfter(1),
        ReadAct::LoseAfter(0),
        ReadAct::Rewind,
    ]);
    let found = read(topic.read(Position::Start)).await.expect("all in the end");
    assert_eq!(found, words("0 1 2 3 4 5 6 7 8 9"));
    assert_eq!(fake.state.lock().reads, 4);
}

#[tokio::test]
async fn all_partitions_are_read_unless_told_otherwise() {
    let fake = Fake::new(3);
    let (topic, _running) = topic_with(&fake).await;
    fake.write(0, &["a0", "a1"]);
    fake.write(2, &["c0"]);
    let mut found = read(topic.read(Position::Start)).await.expect("all there");
    found.sort();
    assert_eq!(found, words("a0 a1 c0"));
    let found =
        read(topic.read(Position::Start).partitions([PartitionIndex::new(2)])).await.expect("all there");
    assert_eq!(found, words("c0"));
    let found = read(topic.read(Position::Start).resume(P0, Offset::new(1))).await.expect("all there");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[tokio::test]
async fn a_follower_is_told_of_the_end_and_goes_on() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fake.write(0, &["a"]);
    let mut reader = topic.read(Position::Start).follow(true).open().await.expect("it is there");
    let mut seen = Vec::new();
    while seen.len() < 5 {
        match reader.next_event().await.expect("it never ends").expect("no fault") {
            ReadEvent::Batch(batch) => {
                seen.push(format!("{}..{}", batch.offsets().start, batch.offsets().end))
            }
            ReadEvent::CaughtUp { next_offset, .. } => {
                seen.push(format!("caught up at {next_offset}"));
                assert!(reader.progress()[&P0].caught_up);
                if seen.len() < 5 {
                    fake.write(0, &["b", "c"]);
                }
            }
            _ => unreachable!("no other event"),
        }
    }
    assert_eq!(seen, ["0..1", "caught up at 1", "1..3", "caught up at 3", "3..5"]);
}

#[tokio::test]
async fn a_follower_survives_a_restart() {
    let fake = Fake::new(1);
    let (topic, mut running) = topic_with(&fake).await;
    fake.write(0, &["a"]);
    let mut reader = topic.read(Position::Start).follow(true).open().await.expect("it is there");
    assert_eq!(reader.next_batch().await.expect("goes on").expect("sound").offsets().end, Offset::new(1));
    let address = running.address;
    running.stop();
    fake.write(0, &["b"]);
    let _again = fake.listen_on(address).await;
    assert_eq!(reader.next_batch().await.expect("goes on").expect("sound").offsets().start, Offset::new(1));
}

#[tokio::test]
async fn missing_records_are_an_error_and_nothing_after_them_is_given() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    fake.state.lock().read_acts.push_back(ReadAct::Skip(2));
    let mut reader = topic.read(Position::Start).open().await.expect("it is there");
    let mut given = 0;
    let error = loop {
        match reader.next_batch().await.expect("an error comes first") {
            Ok(batch) => given = batch.offsets().end.get(),
            Err(error) => break error,
        }
    };
    assert_eq!(given, 4);
    let gap = ReadError::Gap { partition: P0, expected: Offset::new(4), found: Offset::new(6) };
    assert_eq!(error.to_string(), gap.to_string());
    assert!(reader.next_batch().await.is_none(), "it ended");
}

#[tokio::test]
async fn a_damaged_batch_is_never_given() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    fake.state.lock().read_acts.push_back(ReadAct::Damage(1));
    let error = read(topic.read(Position::Start)).await.expect_err("damaged");
    assert!(matches!(error, ReadError::Corrupt { offset, .. } if offset == Offset::new(3)), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::StorageCorrupt));
}

#[tokio::test]
async fn trimmed_records_are_passed_over_unless_they_were_asked_for() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    let mut from_start = topic.read(Position::Start).open().await.expect("it is there");
    fake.trim(0, 4);
    let batch = from_start.next_batch().await.expect("goes on").expect("sound");
    assert_eq!(batch.offsets(), Offset::new(4)..Offset::new(6));
    assert_eq!(batch.trimmed_before(), 4);
    let error = read(topic.read(Position::Offset(Offset::new(1)))).await.expect_err("gone");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
}

#[tokio::test]
async fn a_missing_topic_or_partition_is_told_when_the_reader_is_opened() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let house = fake.connect(&running).await;
    let error = house.topic("nope").read(Position::Start).open().await.expect_err("no topic");
    assert_eq!(error.code(), Some(ErrorCode::TopicNotFound));
    let seven = [PartitionIndex::new(7)];
    let error =
        house.topic("t").read(Position::Start).partitions(seven).open().await.expect_err("no partition");
    assert_eq!(error.code(), Some(ErrorCode::PartitionNotFound));
}

#[tokio::test]
async fn a_reader_gives_up_on_a_server_that_stays_away() {
    let fake = Fake::new(1);
    let (topic, mut running) = topic_with(&fake).await;
    fill(&fake);
    let patience = std::time::Duration::from_millis(300);
    let mut reader = topic.read(Position::Start).retry_for(patience).open().await.expect("it is there");
    running.stop();
    let error = reader.next_batch().await.expect("an error").expect_err("nobody is there");
    assert!(matches!(error, ReadError::TimedOut { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_reader_gives_up_on_a_server_that_owes_records_and_says_nothing() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    fill(&fake);
    fake.state.lock().read_acts.push_back(ReadAct::Silence);
    let patience = std::time::Duration::from_millis(300);
    let mut reader = topic.read(Position::Start).retry_for(patience).open().await.expect("it is there");
    let error = reader.next_batch().await.expect("an error").expect_err("nothing is said");
    assert!(matches!(error, ReadError::TimedOut { .. }), "{error:?}");
    assert!(reader.next_batch().await.is_none(), "it has ended");
}

#[tokio::test]
async fn a_follower_waits_at_the_end_of_the_log_for_longer_than_for_an_answer_that_is_due() {
    let fake = Fake::new(1);
    let (topic, _running) = topic_with(&fake).await;
    let patience = std::time::Duration::from_millis(50);
    let builder = topic.read(Position::Start).follow(true).retry_for(patience);
    let mut reader = builder.open().await.expect("it is there");
    assert!(matches!(reader.next_event().await, Some(Ok(ReadEvent::CaughtUp { .. }))));
    let nothing = tokio::time::timeout(patience * 4, reader.next_event()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    fake.write(0, &["late"]);
    assert!(matches!(reader.next_event().await, Some(Ok(ReadEvent::Batch(_)))));
}
