//! Whole histories under random faults, from a seed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use streamhouse_env::{Env, Rng as _, SeededRng};
use streamhouse_metadata::{Command, ProducerWindow};
use streamhouse_types::ProducerId;

use crate::testing::{LogFault, PutFault, Rig, batch, produced};
use crate::{AppendError, Appended, BrokerSettings, Mode, PendingAck, Session, TopicError};

const SESSIONS: usize = 4;
const PARTITIONS: u32 = 2;
const BATCHES: usize = 150;

/// What one session sent to one partition, and what it was told.
struct Sent {
    partition: u32,
    value: String,
    answer: Result<Appended, AppendError>,
}

struct Sender {
    session: Session,
    /// The id and the next sequence of each partition. After a failure nothing of it fits any more.
    producer: Option<(ProducerId, BTreeMap<u32, u32>)>,
}

/// A fault about every `rarity / 23` times.
async fn misbehave(rig: &Rig, rng: &SeededRng, rarity: u64) {
    let slot = rng.below(400);
    let times = usize::try_from(rng.below(3)).unwrap() + 1;
    match rng.below(rarity) {
        0..3 => rig.blob.fail_slot(slot, PutFault::Before, times),
        3..6 => rig.blob.fail_slot(slot, PutFault::After, times),
        6 => rig.blob.fail_slot(slot, PutFault::Full, 1),
        7 => rig.blob.fail_slot(slot, PutFault::Before, usize::MAX),
        8..11 => rig.log.fail_commits(LogFault::AnswerLost, times),
        11..14 => rig.log.fail_commits(LogFault::Lost, times),
        14..17 => rig.log.fail_commits(LogFault::Refused, times),
        17 => {
            if let Some(incarnation) = rig.broker.incarnation() {
                rig.log.inner.apply(&Command::CloseIncarnation { node: rig.broker.0.node, incarnation });
            }
        }
        18 => {
            if let Some(flush) = rig.broker.0.flush.actor() {
                let _ = flush.cast(crate::flush::Msg::Crash);
            }
        }
        19 => rig.broker.0.directory.crash(rig.partition(0)),
        20..23 => Env::system().clock.sleep(Duration::from_millis(rng.below(200))).await,
        _ => {}
    }
}

async fn history(seed: u64) -> (Rig, Vec<Sent>) {
    let rng = SeededRng::new(seed);
    let settings = BrokerSettings {
        flush_interval: Duration::from_millis(1),
        in_flight_bytes: 2_000_000,
        ..BrokerSettings::default()
    };
    let rig = Rig::with(settings).await;
    rig.blob.jitter_ms.store(20, std::sync::atomic::Ordering::SeqCst);
    let mut senders = Vec::new();
    for number in 0..SESSIONS {
        let producer = if number % 2 == 0 {
            Some((rig.broker.init_producer(1, ProducerWindow::Native).await.expect("an id"), BTreeMap::new()))
        } else {
            None
        };
        senders.push(Sender { session: rig.broker.session(1 << 20), producer });
    }
    let mut pending: Vec<(u32, String, PendingAck)> = Vec::new();
    for number in 0..BATCHES {
        misbehave(&rig, &rng, 250).await;
        let session = usize::try_from(rng.below(SESSIONS as u64)).unwrap();
        let partition = u32::try_from(rng.below(u64::from(PARTITIONS))).unwrap();
        let value = format!("{session}/{number}");
        let sender = &mut senders[session];
        let batch = match &mut sender.producer {
            Some((producer, sequences)) => {
                let sequence = sequences.entry(partition).or_default();
                let batch = produced(*producer, *sequence, &[&value]);
                *sequence += 1;
                batch
            }
            None => batch(&[&value]),
        };
        pending.push((partition, value, rig.send(&sender.session, partition, batch).await));
        if rng.below(3) == 0 {
            Env::system().clock.sleep(Duration::from_millis(rng.below(5))).await;
        }
    }
    let mut sent = Vec::new();
    for (partition, value, ack) in pending {
        sent.push(Sent { partition, value, answer: ack.await });
    }
    (rig, sent)
}

fn check(seed: u64, sent: &[Sent], stored: &BTreeMap<u32, Vec<String>>) {
    for one in sent {
        let log = &stored[&one.partition];
        let places: Vec<_> = log.iter().enumerate().filter(|(_, value)| **value == one.value).collect();
        assert!(places.len() <= 1, "seed {seed}: {} is stored {} times", one.value, places.len());
        match &one.answer {
            Ok(appended) => {
                let place =
                    places.first().unwrap_or_else(|| panic!("seed {seed}: acked {} is lost", one.value));
                assert_eq!(place.0 as u64, appended.base.get(), "seed {seed}: {} is elsewhere", one.value);
            }
            Err(error) if error.may_have_happened() => {}
            Err(error) => assert!(places.is_empty(), "seed {seed}: {} happened, but: {error}", one.value),
        }
    }
    for session in 0..SESSIONS {
        for (partition, log) in stored {
            let of_session = format!("{session}/");
            let order: Vec<usize> = log
                .iter()
                .filter_map(|value| value.strip_prefix(&of_session))
                .map(|number| number.parse().expect("a number"))
                .collect();
            assert!(order.is_sorted(), "seed {seed}: session {session} in partition {partition}: {order:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_random_faults_every_answer_is_true_and_nothing_is_reordered() {
    let (mut acked, mut failed, mut unknown) = (0, 0, 0);
    for seed in 0..100 {
        let (rig, sent) = history(seed).await;
        for one in &sent {
            match &one.answer {
                Ok(_) => acked += 1,
                Err(error) if error.may_have_happened() => unknown += 1,
                Err(_) => failed += 1,
            }
        }
        // Let what may still happen happen.
        rig.log.fail_commits(LogFault::Lost, 0);
        Env::system().clock.sleep(Duration::from_secs(40)).await;
        let mut stored = BTreeMap::new();
        for partition in 0..PARTITIONS {
            stored.insert(partition, rig.values(partition).await);
        }
        check(seed, &sent, &stored);
        assert_eq!(rig.broker.budget().in_use(), 0, "seed {seed}: every permit came back");
        // The node still works, and leaves nothing behind.
        rig.append(3, batch(&["after"])).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        rig.broker.shutdown(std::future::pending()).await;
    }
    assert!(
        acked > 5_000 && failed > 1_000 && unknown > 100,
        "{acked} acked, {failed} failed, {unknown} unknown"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_producer_that_retries_is_stored_once_and_in_order_whatever_fails() {
    const WINDOW: usize = 5;
    for seed in 1_000..1_060 {
        let rng = SeededRng::new(seed);
        let settings =
            BrokerSettings { flush_interval: Duration::from_millis(1), ..BrokerSettings::default() };
        let rig = Rig::with(settings).await;
        rig.blob.jitter_ms.store(20, std::sync::atomic::Ordering::SeqCst);
        let producer = rig.broker.init_producer(1, ProducerWindow::Native).await.expect("an id");
        let mut acked = 0;
        while acked < 100 {
            misbehave(&rig, &rng, 80).await;
            let session = rig.broker.session(1 << 20);
            let mut window = Vec::new();
            for number in acked..(acked + WINDOW).min(100) {
                let batch = produced(producer, u32::try_from(number).unwrap(), &[&number.to_string()]);
                window.push(rig.send(&session, 0, batch).await);
                if rng.below(4) == 0 {
                    Env::system().clock.sleep(Duration::from_millis(3)).await;
                }
            }
            let mut in_order = true;
            for answer in window {
                let appended = answer.await;
                in_order &= appended.is_ok();
                if let (true, Ok(appended)) = (in_order, appended) {
                    assert_eq!(appended.base.get(), acked as u64, "seed {seed}");
                    acked += 1;
                }
            }
        }
        let expected: Vec<_> = (0..100).map(|number: u32| number.to_string()).collect();
        assert_eq!(rig.values(0).await, expected, "seed {seed}");
    }
}

#[tokio::test]
async fn that_a_topic_has_no_more_partitions_is_told_only_by_current_metadata() {
    let rig = Rig::start().await;
    let name = rig.broker.state().topic(rig.topic).expect("there").name().clone();
    let described = rig.broker.topic(&name).await.expect("there");
    rig.broker.add_partitions(&name, 7, None, Mode::Apply).await.expect("grown");
    let before = rig.log.read_indexes.load(Ordering::SeqCst);
    assert_eq!((described.partitions, rig.broker.partitions_now(&described).await.expect("there")), (4, 7));
    assert_eq!(rig.log.read_indexes.load(Ordering::SeqCst), before + 1);
    rig.broker.delete_topic(&name, None, Mode::Apply).await.expect("deleted");
    let gone = rig.broker.partitions_now(&described).await.expect_err("deleted");
    assert!(matches!(gone, TopicError::NotFound { .. }), "{gone}");
}
