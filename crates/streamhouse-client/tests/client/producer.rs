//! Producers against a server that loses, repeats, refuses and dawdles.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use streamhouse_client::{
    Compression, Delivery, ErrorCode, PartitionIndex, Producer, ProducerBuilder, Record, SendError, Ticket,
};

use crate::fake::{Act, Fake, Running};

/// A producer with small batches, so that a few records make many.
async fn producer_with(
    fake: &Fake,
    set: impl FnOnce(ProducerBuilder) -> ProducerBuilder,
) -> (Producer, Running) {
    let running = fake.listen().await;
    let builder = fake.connect(&running).await.topic("t").producer().batch_bytes(400).linger(Duration::ZERO);
    (set(builder).build().await.expect("the topic exists"), running)
}

fn value(index: usize) -> String {
    format!(
        "record {index:06}, padded to a length at which few of them fit into one batch ............................"
    )
}

fn values(count: usize) -> Vec<String> {
    (0..count).map(value).collect()
}

async fn send_values(producer: &Producer, count: usize) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for index in 0..count {
        tickets.push(producer.send(value(index)).await.expect("there is room"));
    }
    tickets
}

/// All tickets are acknowledged, with the offsets that the log has.
async fn all_acked(fake: &Fake, tickets: Vec<Ticket>) {
    let partitions = fake.log.lock().partitions.len();
    let logs: Vec<_> = (0..partitions).map(|partition| fake.values(partition)).collect();
    for (index, ack) in join_all(tickets).await.into_iter().enumerate() {
        let ack = ack.expect("acknowledged");
        let at = usize::try_from(ack.offset.get()).expect("few");
        assert_eq!(logs[ack.partition.get() as usize][at], value(index));
    }
}

#[tokio::test]
async fn records_are_stored_in_order_and_acknowledged_with_their_offsets() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    let tickets = send_values(&producer, 500).await;
    producer.flush().await.expect("all stored");
    assert_eq!(fake.values(0), values(500));
    all_acked(&fake, tickets).await;
    producer.close().await.expect("closed");
}

#[tokio::test]
async fn lost_sessions_neither_lose_nor_repeat_nor_reorder() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    for round in 0..20 {
        let act = if round % 2 == 0 { Act::LoseAfter } else { Act::LoseBefore };
        fake.script([Act::Store, Act::Store, act, Act::Store, act]);
    }
    let tickets = send_values(&producer, 400).await;
    producer.flush().await.expect("all stored in the end");
    assert_eq!(fake.values(0), values(400));
    all_acked(&fake, tickets).await;
    assert!(fake.state.lock().sessions > 10, "sessions were lost");
    assert_eq!(fake.log.lock().next_producer, 2, "one producer id was enough");
}

#[tokio::test]
async fn refusals_that_pass_are_tried_again_in_order() {
    let fake = Fake::new(2);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    for _ in 0..10 {
        fake.script([
            Act::Store,
            Act::Nack(ErrorCode::StoreUnavailable),
            Act::Store,
            Act::StoreAndNack(ErrorCode::CommitUnknown),
        ]);
    }
    let mut tickets = Vec::new();
    for index in 0..200 {
        let record = Record::new(value(index)).partition(PartitionIndex::new(u32::from(index % 2 == 1)));
        tickets.push(producer.send(record).await.expect("there is room"));
    }
    producer.flush().await.expect("all stored in the end");
    let (even, odd): (Vec<_>, Vec<_>) =
        values(200).into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    assert_eq!(fake.values(0), even.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
    assert_eq!(fake.values(1), odd.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
    all_acked(&fake, tickets).await;
    assert_eq!(fake.state.lock().sessions, 1, "a refusal costs no session");
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let fake = Fake::new(1);
    let (producer, mut running) = producer_with(&fake, |builder| builder).await;
    let mut tickets = send_values(&producer, 50).await;
    let address = running.address;
    running.stop();
    for index in 50..100 {
        tickets.push(producer.send(value(index)).await.expect("there is room"));
    }
    let _again = fake.listen_on(address).await;
    producer.flush().await.expect("all stored in the end");
    assert_eq!(fake.values(0), values(100));
    all_acked(&fake, tickets).await;
}

#[tokio::test]
async fn a_server_that_drains_is_left_after_its_answers() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    fake.script([Act::Store, Act::StoreAndGoAway]);
    let tickets = send_values(&producer, 100).await;
    producer.flush().await.expect("all stored");
    assert_eq!(fake.values(0), values(100));
    all_acked(&fake, tickets).await;
    // The word to leave may come after the last answer.
    while fake.state.lock().sessions < 2 {
        producer.send("more").await.expect("there is room").await.expect("stored");
    }
}

#[tokio::test]
async fn an_answer_to_nothing_costs_the_session_and_no_record() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    fake.script([Act::Store, Act::AckWrong]);
    let tickets = send_values(&producer, 50).await;
    producer.flush().await.expect("all stored");
    assert_eq!(fake.values(0), values(50));
    all_acked(&fake, tickets).await;
}

#[tokio::test]
async fn a_refusal_for_good_fails_its_batch_alone() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    fake.script([Act::Store, Act::Nack(ErrorCode::InvalidBatch)]);
    let tickets = send_values(&producer, 60).await;
    let failure = producer.flush().await.expect_err("one batch failed");
    assert_eq!(failure.code(), Some(ErrorCode::InvalidBatch));
    assert!(!failure.may_have_happened());
    producer.flush().await.expect("told once");
    let mut kept = Vec::new();
    let mut failed = 0;
    for (index, outcome) in join_all(tickets).await.into_iter().enumerate() {
        match outcome {
            Ok(_) => kept.push(value(index)),
            Err(error) => {
                assert!(!error.may_have_happened());
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    assert_eq!(fake.values(0), kept, "the others are stored, in order");
}

#[tokio::test]
async fn a_forgotten_producer_begins_a_new_epoch_and_loses_nothing() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    let mut tickets = send_values(&producer, 20).await;
    producer.flush().await.expect("stored");
    fake.forget_producers();
    for index in 20..60 {
        tickets.push(producer.send(value(index)).await.expect("there is room"));
    }
    producer.flush().await.expect("stored in a new epoch");
    assert_eq!(fake.values(0), values(60));
    all_acked(&fake, tickets).await;
    assert_eq!(fake.log.lock().identities, [(1, 0), (1, 1)].into());
}

#[tokio::test]
async fn what_nobody_can_know_any_more_is_told_and_not_repeated() {
    let fake = Fake::new(1);
    let (producer, mut running) = producer_with(&fake, |builder| builder).await;
    drop(producer.send("before").await.expect("there is room"));
    producer.flush().await.expect("stored");
    // The batch is stored, its answer is lost, and then the server forgets the producer.
    fake.otherwise(Act::Ignore);
    fake.script([Act::Ignore]);
    let ticket = producer.send("in doubt").await.expect("there is room");
    fake.saw(2).await;
    let address = running.address;
    running.stop();
    fake.write(0, &["in doubt"]);
    fake.forget_producers();
    fake.otherwise(Act::Store);
    let _again = fake.listen_on(address).await;
    let error = ticket.await.expect_err("nobody knows");
    assert!(error.may_have_happened(), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::UnknownProducer));
    producer.send("after").await.expect("there is room").await.expect("goes on under a new id");
    assert_eq!(fake.values(0), ["before", "in doubt", "after"]);
}

#[tokio::test]
async fn without_sequences_a_batch_in_doubt_is_not_sent_again() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.delivery(Delivery::AtMostOnce)).await;
    fake.script([Act::LoseAfter]);
    let error = producer.send("a").await.expect("there is room").await.expect_err("lost");
    assert!(error.may_have_happened());
    fake.script([Act::Nack(ErrorCode::Overloaded)]);
    producer.send("b").await.expect("there is room").await.expect("what did not happen is sent again");
    assert_eq!(fake.values(0), ["a", "b"]);
    assert_eq!(fake.log.lock().next_producer, 1, "no producer id was asked for");
}

#[tokio::test]
async fn full_means_waiting_and_never_an_error() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.max_unacked(4_000)).await;
    fake.otherwise(Act::Gate);
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send_values(&producer, 300).await }
    });
    fake.saw(1).await;
    assert!(!sending.is_finished());
    fake.open_gate();
    let tickets = sending.await.expect("no panic");
    producer.flush().await.expect("all stored");
    assert_eq!(fake.values(0), values(300));
    all_acked(&fake, tickets).await;
}

#[tokio::test]
async fn a_cancelled_send_sent_nothing() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.max_unacked(2_000)).await;
    fake.otherwise(Act::Gate);
    let mut tickets = Vec::new();
    let mut sent = Vec::new();
    let mut cancelled = 0;
    for index in 0..200 {
        let send = producer.send(value(index));
        tokio::select! {
            biased;
            ticket = send => {
                tickets.push(ticket.expect("there is room"));
                sent.push(value(index));
            }
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    fake.open_gate();
    producer.flush().await.expect("all stored");
    assert!(cancelled > 0, "the room was full at some time");
    assert_eq!(fake.values(0), sent);
}

#[tokio::test]
async fn the_servers_credit_bounds_what_is_on_its_way() {
    let fake = Fake::new(1);
    fake.state.lock().credit_bytes = 1_500;
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    // Without an answer, as many are sent as the credit allows; a quick server would hide that.
    fake.otherwise(Act::Gate);
    let tickets = send_values(&producer, 300).await;
    fake.saw(2).await;
    fake.open_gate();
    producer.flush().await.expect("all stored");
    assert_eq!(fake.values(0), values(300));
    all_acked(&fake, tickets).await;
    let (bytes, batches) = fake.state.lock().unanswered_max;
    assert!(bytes <= 1_500, "{bytes}");
    assert!(batches > 1, "batches are pipelined: {batches}");
}

#[tokio::test]
async fn at_most_as_many_batches_are_on_their_way_as_the_server_remembers() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    fake.otherwise(Act::Gate);
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { send_values(&producer, 1_000).await }
    });
    fake.saw(64).await;
    fake.open_gate();
    let tickets = sending.await.expect("no panic");
    producer.flush().await.expect("all stored");
    all_acked(&fake, tickets).await;
    assert_eq!(fake.state.lock().unanswered_max.1, 64);
}

#[tokio::test]
async fn sessions_that_were_given_up_are_not_left_behind_at_a_node_that_does_not_read() {
    let fake = Fake::new(1);
    fake.state.lock().stalled = true;
    let timeout = Duration::from_millis(300);
    let set = |builder: ProducerBuilder| builder.delivery_timeout(timeout).batch_bytes(100_000);
    let (producer, _running) = producer_with(&fake, set).await;
    for session in 1..=3 {
        // More than the transport takes that nobody reads.
        let tickets = send_values(&producer, 20_000).await;
        fake.opened(session).await;
        for ticket in tickets {
            assert!(matches!(ticket.await, Err(SendError::TimedOut { .. })));
        }
    }
    fake.left(3).await;
}

#[tokio::test]
async fn a_batch_without_an_answer_times_out_and_the_next_goes_on() {
    let fake = Fake::new(1);
    let timeout = Duration::from_millis(300);
    let (producer, _running) = producer_with(&fake, |builder| builder.delivery_timeout(timeout)).await;
    fake.script([Act::Ignore]);
    let error = producer.send("never answered").await.expect("there is room").await.expect_err("no answer");
    assert!(matches!(error, SendError::TimedOut { may_have_happened: true, .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::CommitUnknown));
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("has not said that it is stored"), "{cause}");
    producer.send("next").await.expect("there is room").await.expect("stored");
    assert_eq!(fake.values(0), ["next"]);
}

#[tokio::test]
async fn what_was_never_sent_did_not_happen() {
    let fake = Fake::new(1);
    let timeout = Duration::from_millis(300);
    let (producer, mut running) = producer_with(&fake, |builder| builder.delivery_timeout(timeout)).await;
    running.stop();
    // The first may have been handed to the dying connection; those after it find none.
    let first = producer.send("first").await.expect("there is room").await.expect_err("nobody is there");
    assert!(first.is_retryable(), "{first:?}");
    let tickets = send_values(&producer, 5).await;
    let failure = producer.flush().await.expect_err("nobody is there");
    assert!(matches!(failure, SendError::TimedOut { .. }), "{failure:?}");
    for outcome in join_all(tickets).await {
        let error = outcome.expect_err("nobody is there");
        assert!(matches!(error, SendError::TimedOut { may_have_happened: false, .. }), "{error:?}");
        assert_eq!(error.code(), Some(ErrorCode::Unreachable));
    }
}

#[tokio::test]
async fn close_sends_the_rest_and_refuses_more() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.linger(Duration::from_secs(60))).await;
    let other = producer.clone();
    let tickets = send_values(&producer, 10).await;
    producer.close().await.expect("all stored");
    assert_eq!(fake.values(0), values(10));
    all_acked(&fake, tickets).await;
    assert!(matches!(other.send("late").await, Err(SendError::Closed)));
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_it_took() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.linger(Duration::from_secs(60))).await;
    let tickets = send_values(&producer, 10).await;
    drop(producer);
    let acks = join_all(tickets).await;
    assert!(acks.iter().all(Result::is_ok));
    assert_eq!(fake.values(0), values(10));
}

#[tokio::test]
async fn a_lone_record_waits_for_nobody() {
    let fake = Fake::new(1);
    let (producer, _running) =
        producer_with(&fake, |builder| builder.linger(Duration::from_secs(3_600))).await;
    for text in ["a", "b", "c"] {
        producer
            .send(text)
            .await
            .expect("there is room")
            .await
            .expect("stored long before the linger is over");
    }
    assert_eq!(fake.values(0), ["a", "b", "c"]);
}

#[tokio::test]
async fn records_that_come_together_share_a_batch() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.batch_bytes(1 << 20)).await;
    let tickets = send_values(&producer, 5_000).await;
    producer.flush().await.expect("all stored");
    all_acked(&fake, tickets).await;
    let batches = fake.state.lock().batches_seen;
    assert!(batches < 100, "{batches}");
}

#[tokio::test]
async fn keys_stay_together_and_the_keyless_spread() {
    let fake = Fake::new(4);
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    for index in 0..40 {
        drop(
            producer
                .send(Record::new(value(index)).key(format!("key {}", index % 7)))
                .await
                .expect("there is room"),
        );
    }
    producer.flush().await.expect("all stored");
    let mut keyed: Vec<_> = (0..4).flat_map(|partition| fake.values(partition)).collect();
    keyed.sort();
    assert_eq!(keyed, values(40));
    for partition in 0..4 {
        let mut sorted = fake.values(partition);
        sorted.sort();
        assert_eq!(fake.values(partition), sorted, "order of each partition, so of each key");
    }
    let mut used = BTreeSet::new();
    for index in 0..40 {
        let ticket = producer.send(value(index)).await.expect("there is room");
        used.insert(ticket.partition());
    }
    producer.flush().await.expect("all stored");
    assert_eq!(used.len(), 4);
}

#[tokio::test]
async fn what_can_never_be_stored_is_refused_at_once() {
    let fake = Fake::new(1);
    fake.state.lock().max_batch_bytes = 1_000;
    let (producer, _running) = producer_with(&fake, |builder| builder).await;
    let error = producer.send(vec![b'x'; 2_000]).await.expect_err("too large");
    assert!(matches!(error, SendError::TooLarge { limit: 1_000, .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::BatchTooLarge));
    let error = producer.send(Record::new("a").partition(PartitionIndex::new(1))).await.expect_err("no such");
    assert!(matches!(error, SendError::NoSuchPartition { partitions: 1, .. }), "{error:?}");
    let mut many = Record::new("a");
    for _ in 0..1_001 {
        many = many.header("h", "");
    }
    let error = producer.send(many).await.expect_err("too many headers");
    assert_eq!(error.code(), Some(ErrorCode::InvalidBatch));
    producer
        .send(vec![b'x'; 900])
        .await
        .expect("larger than a batch should be, but it fits")
        .await
        .expect("stored");
}

#[tokio::test]
async fn a_topic_that_is_not_there_fails_the_build_and_later_the_batch() {
    let fake = Fake::new(1);
    let running = fake.listen().await;
    let house = fake.connect(&running).await;
    let error = house.topic("nope").producer().build().await.expect_err("there is none");
    assert_eq!(error.code(), Some(ErrorCode::TopicNotFound));
    let producer = house.topic("t").producer().build().await.expect("it exists");
    fake.state.lock().open_refusals.push_back(ErrorCode::TopicNotFound);
    fake.script([Act::LoseBefore]);
    let error = producer.send("a").await.expect("there is room").await.expect_err("deleted under us");
    assert_eq!(error.code(), Some(ErrorCode::TopicNotFound));
    producer.send("b").await.expect("there is room").await.expect("made again");
    assert_eq!(fake.values(0), ["b"]);
}

#[tokio::test]
async fn a_stream_of_records_is_sent_whole() {
    let fake = Fake::new(1);
    let (producer, _running) = producer_with(&fake, |builder| builder.compression(Compression::Zstd)).await;
    let records = futures::stream::iter(values(250)).map(Record::new);
    assert_eq!(producer.send_all(records).await.expect("all stored"), 250);
    assert_eq!(fake.values(0), values(250));
}

#[test]
fn tickets_do_not_outlive_their_runtime() {
    let server = tokio::runtime::Runtime::new().expect("a runtime");
    let fake = Fake::new(1);
    fake.otherwise(Act::Ignore);
    let running = server.block_on(fake.listen());
    let client = tokio::runtime::Runtime::new().expect("a runtime");
    let (_producer, ticket) = client.block_on(async {
        let producer = fake.connect(&running).await.topic("t").producer().build().await.expect("it exists");
        let ticket = producer.send("a").await.expect("there is room");
        fake.saw(1).await;
        (producer, ticket)
    });
    drop(client);
    let error = server.block_on(ticket).expect_err("nobody will answer");
    assert!(matches!(error, SendError::Abandoned { may_have_happened: true }), "{error:?}");
    drop(running);
}
