use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use streamhouse_env::Env;
use streamhouse_metadata::{Command, ProducerWindow};

use crate::error::{Obstacle, ProducerError};
use crate::log::ProposeError;
use crate::testing::{LogFault, PutFault, Rig, batch, large, produced};
use crate::{AppendError, BrokerSettings, StoreAccess, UnitAppend};

fn now() -> Duration {
    Env::system().clock.now()
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_read_back_at_its_offsets() {
    let rig = Rig::start().await;
    let session = rig.broker.session(1 << 20);
    let acks = [
        rig.send(&session, 0, batch(&["a", "b"])).await,
        rig.send(&session, 1, batch(&["x"])).await,
        rig.send(&session, 0, batch(&["c"])).await,
    ];
    let mut bases = Vec::new();
    for ack in acks {
        let appended = ack.await.expect("appended");
        bases.push((appended.base.get(), appended.end.get()));
    }
    assert_eq!(bases, [(0, 2), (0, 1), (2, 3)]);
    assert_eq!(rig.values(0).await, ["a", "b", "c"]);
    assert_eq!(rig.values(1).await, ["x"]);
    assert_eq!(session.outstanding(), 0);
    assert_eq!(rig.broker.budget().in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lone_batch_waits_for_nothing() {
    let rig = Rig::start().await;
    let begun = now();
    rig.append(0, batch(&["lone"])).await.expect("appended");
    assert_eq!(now(), begun);
}

#[tokio::test(start_paused = true)]
async fn batches_that_come_together_share_an_object() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["first"])).await.expect("appended");
    let sessions: Vec<_> = (0..100).map(|_| rig.broker.session(1 << 20)).collect();
    let mut acks = Vec::new();
    for (index, session) in (0..).zip(&sessions) {
        acks.push(rig.send(session, index % 4, batch(&["together"])).await);
    }
    for ack in acks {
        ack.await.expect("appended");
    }
    assert_eq!(rig.blob.names().len(), 2);
    let extents: usize = rig
        .broker
        .state()
        .partitions()
        .map(|partition| partition.extents_from(Default::default()).count())
        .sum();
    assert_eq!(extents, 5, "plain batches side by side share a row");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_holds_still_is_answered_before_the_interval_is_over() {
    let interval = Duration::from_millis(400);
    let rig = Rig::with(BrokerSettings { flush_interval: interval, ..BrokerSettings::default() }).await;
    let session = rig.broker.session(1 << 20);
    let mut took = Vec::new();
    for still in [false, true, false] {
        rig.append(0, batch(&["the interval begins"])).await.expect("appended");
        let begun = now();
        let first = rig.send(&session, 0, batch(&["first"])).await;
        if still {
            session.hold_still();
        }
        let second = rig.send(&session, 1, batch(&["second"])).await;
        first.await.expect("appended");
        second.await.expect("appended");
        took.push(now() - begun);
        session.go_on();
        Env::system().clock.sleep(interval).await;
    }
    assert_eq!(took, [interval, interval / 4, interval]);
}

#[tokio::test(start_paused = true)]
async fn uploads_that_overtake_each_other_do_not_reorder_batches() {
    let rig =
        Rig::with(BrokerSettings { flush_interval: Duration::from_millis(1), ..BrokerSettings::default() })
            .await;
    rig.blob.jitter_ms.store(200, Ordering::SeqCst);
    let session = rig.broker.session(1 << 30);
    let mut acks = Vec::new();
    for number in 0..60 {
        acks.push(rig.send(&session, 0, batch(&[&number.to_string()])).await);
        Env::system().clock.sleep(Duration::from_millis(5)).await;
    }
    for ack in acks {
        ack.await.expect("appended");
    }
    assert!(rig.blob.names().len() > 10, "several uploads were in flight");
    assert_eq!(rig.values(0).await, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_store_that_only_others_reach_did_not_happen_at_once() {
    let rig = Rig::start().await;
    let session = rig.broker.session(1 << 20);
    rig.blob.hold_slot(1);
    let waits = rig.send(&session, 0, batch(&["waits"])).await;
    rig.blob.until_puts(1).await;
    let begun = now();
    let behind = rig.send(&session, 0, batch(&["behind it"])).await;
    rig.broker.set_store_access(StoreAccess::CutOff);
    let refused = |error| matches!(error, AppendError::NotStored { obstacle: Obstacle::CutOff });
    assert!(refused(waits.await.expect_err("it is not stored here")));
    assert!(refused(behind.await.expect_err("nor is this")));
    assert_eq!(now(), begun, "nobody waits for a deadline");
    assert!(refused(rig.append(1, batch(&["later"])).await.expect_err("nothing is taken meanwhile")));
    // The object may land all the same: without a commit it is no part of the log.
    rig.blob.release_slot(1);
    rig.broker.set_store_access(StoreAccess::Tried);
    rig.append(0, batch(&["stored"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["stored"]);
    assert_eq!(rig.broker.budget().in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_never_stored_did_not_happen_and_nothing_of_its_session_overtakes_it() {
    let rig = Rig::start().await;
    rig.blob.fail_slot(1, PutFault::Before, usize::MAX);
    let (session, other) = (rig.broker.session(1 << 20), rig.broker.session(1 << 20));
    let first = rig.send(&session, 0, batch(&["first"])).await;
    rig.blob.until_puts(1).await;
    let second = rig.send(&session, 0, batch(&["second"])).await;
    let elsewhere = rig.send(&session, 1, batch(&["other partition"])).await;
    let others = rig.send(&other, 0, batch(&["other session"])).await;
    let begun = now();
    let error = first.await.expect_err("the store never took it");
    assert!(!error.may_have_happened(), "{error}");
    assert!(now() - begun <= Duration::from_secs(31));
    let error = second.await.expect_err("it may not overtake");
    assert!(matches!(error, AppendError::NotStored { obstacle: Obstacle::Store }), "{error}");
    elsewhere.await.expect("appended");
    others.await.expect("appended");
    assert_eq!(rig.values(0).await, ["other session"]);
    // After the answer, the session goes on.
    rig.send(&session, 0, batch(&["again"])).await.await.expect("appended");
    assert_eq!(rig.values(0).await, ["other session", "again"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_or_refuses_is_said_to() {
    for (fault, expected) in [(PutFault::Full, Obstacle::DiskFull), (PutFault::Refused, Obstacle::Refused)] {
        let rig = Rig::start().await;
        rig.blob.fail_slot(1, fault, usize::MAX);
        let error = rig.append(0, batch(&["x"])).await.expect_err("not taken");
        assert!(matches!(error, AppendError::NotStored { obstacle } if obstacle == expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_tried_again_under_another_name_and_leaves_an_orphan() {
    let rig = Rig::start().await;
    rig.blob.fail_slot(1, PutFault::After, 1);
    rig.append(0, batch(&["once"])).await.expect("appended");
    assert_eq!(rig.blob.names().len(), 2);
    assert_eq!(rig.values(0).await, ["once"]);
    let report = rig.broker.sweep_now().await.expect("swept");
    assert_eq!((report.orphans_deleted, report.waiting), (1, 0));
    assert_eq!(rig.values(0).await, ["once"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_proposed_again_and_happens_once() {
    let rig = Rig::start().await;
    for fault in [LogFault::AnswerLost, LogFault::Lost, LogFault::Refused] {
        rig.log.fail_commits(fault, 3);
        let before = rig.high_watermark(0);
        let appended = rig.append(0, batch(&["once"])).await.expect("appended");
        assert_eq!((appended.base.get(), rig.high_watermark(0)), (before, before + 1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_until_the_deadline_may_have_happened() {
    let rig = Rig::start().await;
    rig.log.fail_commits(LogFault::AnswerLost, usize::MAX);
    let error = rig.append(0, batch(&["maybe"])).await.expect_err("nobody knows");
    assert!(error.may_have_happened(), "{error}");
    assert_eq!(rig.high_watermark(0), 1);
    // What comes behind stands on the slot that is undecided here, and is decided with it.
    rig.log.fail_commits(LogFault::AnswerLost, 0);
    rig.append(0, batch(&["next"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["maybe", "next"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_log_never_took_did_not_happen() {
    let rig = Rig::start().await;
    rig.log.fail_commits(LogFault::Refused, usize::MAX);
    let error = rig.append(0, batch(&["no"])).await.expect_err("never taken");
    assert!(matches!(error, AppendError::NotStored { obstacle: Obstacle::Metadata }), "{error}");
    rig.log.fail_commits(LogFault::Refused, 0);
    rig.append(0, batch(&["yes"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["yes"]);
    // The object of the first is below `lo` by now.
    assert_eq!(rig.broker.sweep_now().await.expect("swept").orphans_deleted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_incarnation_makes_the_node_register_anew_and_go_on() {
    let rig = Rig::start().await;
    let incarnation = rig.broker.incarnation().expect("registered");
    rig.log.inner.apply(&Command::CloseIncarnation { node: rig.broker.0.node, incarnation });
    let looked = rig.log.read_indexes.load(Ordering::SeqCst);
    let error = rig.append(0, batch(&["lost"])).await.expect_err("refused");
    assert!(error.may_have_happened(), "{error}");
    rig.append(0, batch(&["kept"])).await.expect("appended");
    assert!(rig.broker.incarnation().expect("registered anew") > incarnation);
    assert!(rig.log.read_indexes.load(Ordering::SeqCst) > looked, "it is up to date before");
    assert_eq!(rig.values(0).await, ["kept"]);
    assert_eq!(rig.broker.sweep_now().await.expect("swept").orphans_deleted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_does_not_register_again() {
    let rig = Rig::start().await;
    let incarnation = rig.broker.incarnation().expect("registered");
    rig.broker.flush().await;
    rig.log.inner.apply(&Command::CloseIncarnation { node: rig.broker.0.node, incarnation });
    rig.broker.incarnation_closed(incarnation);
    Env::system().clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.broker.incarnation(), None);
    let state = rig.broker.state();
    assert!(!state.node(rig.broker.0.node).expect("known").is_open());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_and_is_closed_by_others_answers_what_it_holds_at_once() {
    let settings = BrokerSettings { uploads_in_flight: 1, ..BrokerSettings::default() };
    let rig = Rig::with(settings).await;
    let incarnation = rig.broker.incarnation().expect("registered");
    rig.blob.hold();
    let session = rig.broker.session(0);
    let uploaded = rig.send(&session, 0, batch(&["uploaded"])).await;
    Env::system().clock.sleep(Duration::from_secs(1)).await;
    let buffered = rig.send(&session, 1, batch(&["buffered"])).await;
    let begun = now();
    let close = async {
        Env::system().clock.sleep(Duration::from_millis(1)).await;
        rig.broker.incarnation_closed(incarnation);
    };
    let ((), (), uploaded, buffered) = tokio::join!(rig.broker.flush(), close, uploaded, buffered);
    for answer in [uploaded, buffered] {
        assert!(matches!(answer, Err(AppendError::NotStored { .. })), "{answer:?}");
    }
    assert!(now() - begun < Duration::from_secs(1), "nobody waits for what never comes");
}

#[tokio::test(start_paused = true)]
async fn who_wants_a_producer_id_of_a_node_that_is_not_registered_does_not_wait_for_ever() {
    let rig = Rig::start().await;
    let incarnation = rig.broker.incarnation().expect("registered");
    // It is on its way out, and gets no other.
    rig.broker.flush().await;
    rig.broker.incarnation_closed(incarnation);
    let begun = now();
    let ask = || rig.broker.init_producer(1, ProducerWindow::Kafka);
    while rig.broker.incarnation().is_some() {
        tokio::task::yield_now().await;
    }
    let (one, other) = tokio::join!(ask(), ask());
    for refused in [one, other] {
        assert!(matches!(refused, Err(ProducerError::Unavailable(ProposeError::NotHappened { .. }))));
    }
    assert_eq!(now() - begun, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_flush_actor_that_fails_answers_everyone_and_starts_again_under_a_new_incarnation() {
    let rig = Rig::start().await;
    let incarnation = rig.broker.incarnation().expect("registered");
    let (session, other) = (rig.broker.session(1 << 20), rig.broker.session(1 << 20));
    rig.log.hold();
    let proposed = rig.send(&session, 0, batch(&["proposed"])).await;
    Env::system().clock.sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.blob.names().len(), 1);
    rig.blob.hold();
    let uploading = rig.send(&other, 1, batch(&["uploading"])).await;
    rig.blob.until_puts(2).await;
    let flush = rig.broker.0.flush.actor().expect("an actor");
    flush.cast(super::Msg::Crash).expect("sent");
    assert!(proposed.await.expect_err("lost").may_have_happened());
    assert!(!uploading.await.expect_err("lost").may_have_happened());
    rig.blob.release();
    rig.log.release();
    while rig.broker.incarnation().is_none_or(|now| now == incarnation) {
        Env::system().clock.sleep(Duration::from_millis(1)).await;
    }
    rig.append(2, batch(&["after"])).await.expect("appended");
    assert_eq!(rig.values(2).await, ["after"]);
    assert_eq!(rig.high_watermark(1), 0, "what was never proposed did not happen");
    assert_eq!(rig.broker.budget().in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_partition_actor_that_fails_is_replaced() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["before"])).await.expect("appended");
    rig.broker.0.directory.crash(rig.partition(0));
    let mut answer = rig.append(0, batch(&["after"])).await;
    while let Err(error) = answer {
        assert!(!error.may_have_happened(), "{error}");
        answer = rig.append(0, batch(&["after"])).await;
    }
    assert_eq!(rig.values(0).await, ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_work_keeps_no_actor() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["a"])).await.expect("appended");
    assert_eq!(rig.broker.0.directory.len(), 1);
    Env::system().clock.sleep(Duration::from_secs(80)).await;
    assert_eq!(rig.broker.0.directory.len(), 0);
    rig.append(0, batch(&["b"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_batch_that_comes_again_is_a_duplicate() {
    let rig = Rig::start().await;
    let producer = rig.broker.init_producer(1, ProducerWindow::Native).await.expect("an id");
    let first = rig.append(0, produced(producer, 0, &["a", "b"])).await.expect("appended");
    let again = rig.append(0, produced(producer, 0, &["a", "b"])).await.expect("known");
    assert_eq!(
        (again.base, again.end, again.duplicate, first.duplicate),
        (first.base, first.end, true, false)
    );
    let error = rig.append(0, produced(producer, 9, &["gap"])).await.expect_err("a gap");
    assert!(matches!(error, AppendError::OutOfOrderSequence { .. }), "{error}");
    assert_eq!(rig.values(0).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn batches_of_an_idempotent_producer_behind_a_failed_one_fail_retryably() {
    let rig = Rig::start().await;
    let producer = rig.broker.init_producer(1, ProducerWindow::Native).await.expect("an id");
    rig.blob.fail_slot(1, PutFault::Before, usize::MAX);
    let session = rig.broker.session(1 << 20);
    let first = rig.send(&session, 0, produced(producer, 0, &["a"])).await;
    rig.blob.until_puts(1).await;
    let second = rig.send(&session, 0, produced(producer, 1, &["b"])).await;
    for pending in [first, second] {
        let error = pending.await.expect_err("not stored");
        assert!(matches!(error, AppendError::NotStored { .. }), "{error}");
    }
    rig.append(0, produced(producer, 0, &["a"])).await.expect("appended");
    rig.append(0, produced(producer, 1, &["b"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_budget_makes_producers_wait_and_never_fails_them() {
    let rig = Rig::with(BrokerSettings { in_flight_bytes: 100_000, ..BrokerSettings::default() }).await;
    rig.blob.hold();
    let session = rig.broker.session(1 << 30);
    let first = rig.send(&session, 0, large(60_000)).await;
    let mut second = Box::pin(rig.send(&session, 0, large(60_000)));
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!((&mut second).now_or_never().is_none(), "there is no room yet");
    }
    rig.blob.release();
    first.await.expect("appended");
    second.await.await.expect("appended");
    assert_eq!(rig.high_watermark(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_finds_no_upload_slot_until_its_deadline_did_not_happen() {
    let settings = BrokerSettings { uploads_in_flight: 1, ..BrokerSettings::default() };
    let rig = Rig::with(settings).await;
    rig.blob.hold_slot(1);
    let stuck = rig.send(&rig.broker.session(0), 0, batch(&["stuck"])).await;
    rig.blob.until_puts(1).await;
    let waiting = rig.send(&rig.broker.session(0), 1, batch(&["waiting"])).await;
    assert!(!stuck.await.expect_err("stuck").may_have_happened());
    let answer = waiting.await;
    assert!(answer.is_ok() || !answer.expect_err("late").may_have_happened());
    rig.blob.release_slot(1);
    rig.append(2, batch(&["free"])).await.expect("appended");
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_appended_wholly_or_not_at_all() {
    let rig = Rig::start().await;
    let session = rig.broker.session(0);
    let unit = |expected: &[u64]| UnitAppend {
        batches: vec![
            (rig.partition(1), batch(&["b"])),
            (rig.partition(0), batch(&["a"])),
            (rig.partition(1), batch(&["c"])),
        ],
        expected: expected
            .iter()
            .map(|offset| (rig.partition(0), streamhouse_types::Offset::new(*offset)))
            .collect(),
        permit: None,
    };
    let appended =
        rig.broker.append_unit(&session, unit(&[0])).await.expect("admitted").await.expect("appended");
    assert_eq!(appended.iter().map(|one| one.base.get()).collect::<Vec<_>>(), [0, 0, 1]);
    let error =
        rig.broker.append_unit(&session, unit(&[0])).await.expect("admitted").await.expect_err("stale");
    assert!(matches!(error, AppendError::PreconditionFailed { actual } if actual.get() == 1), "{error}");
    assert_eq!(rig.values(0).await, ["a"]);
    assert_eq!(rig.values(1).await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_does_not_fail_its_neighbours_in_the_object() {
    let rig = Rig::start().await;
    let other = crate::testing::make_topic(&rig.broker, "other", &[]).await;
    rig.log.hold();
    let session = rig.broker.session(1 << 20);
    let kept = rig.send(&session, 0, batch(&["kept"])).await;
    let request = crate::AppendRequest {
        partition: streamhouse_types::PartitionId::new(other, streamhouse_types::PartitionIndex::new(0)),
        batch: batch(&["gone"]),
        permit: None,
    };
    let gone = rig.broker.append(&session, request).await.expect("admitted");
    rig.broker.delete_topic(&"other".parse().unwrap(), None, crate::Mode::Apply).await.expect("deleted");
    rig.log.release();
    kept.await.expect("appended");
    let error = gone.await.expect_err("its topic is gone");
    assert!(matches!(error, AppendError::UnknownPartition { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_everyone_and_leaves_nothing_behind() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["before"])).await.expect("appended");
    let session = rig.broker.session(1 << 20);
    let mut acks = Vec::new();
    for number in 0..20 {
        acks.push(rig.send(&session, number % 4, batch(&["late"])).await);
    }
    rig.broker.shutdown(std::future::pending()).await;
    for ack in acks {
        ack.now_or_never().expect("answered before the end").expect("appended");
    }
    let request = crate::AppendRequest { partition: rig.partition(0), batch: batch(&["no"]), permit: None };
    let error = rig.broker.append(&session, request).await.expect("handed over").await.expect_err("stopping");
    assert!(matches!(error, AppendError::Stopping), "{error}");
    let again = rig.restarted(BrokerSettings::default()).await;
    assert_eq!(again.broker.sweep_now().await.expect("swept").orphans_deleted, 0);
    assert_eq!(again.values(0).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_on_its_way_to_the_buffer_fails_with_the_one_before_it() {
    let rig = Rig::start().await;
    rig.blob.fail_slot(1, PutFault::Full, 1);
    rig.blob.hold();
    let session = rig.broker.session(1 << 20);
    let first = rig.send(&session, 0, batch(&["first"])).await;
    rig.blob.until_puts(1).await;
    // The failure reaches the flush actor before the second batch does, and its answer has not left yet.
    rig.blob.release();
    let second = rig.send(&session, 0, batch(&["second"])).await;
    assert!(first.await.is_err());
    assert!(second.await.is_err(), "it may not overtake");
    assert_eq!(rig.high_watermark(0), 0);
}
