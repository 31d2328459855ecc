use std::sync::atomic::Ordering;
use std::time::Duration;

use streamhouse_env::Env;
use streamhouse_metadata::Command;
use streamhouse_types::Offset;
use streamhouse_verify::{Depth, VerifyProgress};

use crate::BrokerSettings;
use crate::testing::{PutFault, Rig, batch};

async fn verify(rig: &Rig, depth: Depth) -> VerifyProgress {
    let mut messages = rig.broker.verify(depth);
    let mut faults = Vec::new();
    while let Some(message) = messages.recv().await {
        let mut message = message.expect("listed");
        faults.append(&mut message.faults);
        if message.done {
            return VerifyProgress { faults, ..message };
        }
    }
    panic!("verify ended without its last message");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_not_decided_is_never_swept() {
    let rig = Rig::start().await;
    rig.log.hold();
    let session = rig.broker.session(0);
    let pending = rig.send(&session, 0, batch(&["in flight"])).await;
    Env::system().clock.sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.blob.names().len(), 1);
    let report = rig.broker.sweep_now().await.expect("swept");
    assert_eq!((report.orphans_deleted, report.garbage_deleted, report.waiting), (0, 0, 1));
    rig.log.release();
    pending.await.expect("appended");
    assert_eq!(rig.broker.sweep_now().await.expect("swept").waiting, 0);
    assert_eq!(rig.values(0).await, ["in flight"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_node_left_uploading_is_swept_after_its_restart() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["kept"])).await.expect("appended");
    rig.log.hold();
    let session = rig.broker.session(0);
    let _pending = rig.send(&session, 0, batch(&["lost"])).await;
    Env::system().clock.sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.blob.names().len(), 2);
    let again = rig.restarted(BrokerSettings::default()).await;
    assert_eq!(again.broker.sweep_now().await.expect("swept").orphans_deleted, 1);
    // The commit that was on its way comes too late.
    rig.log.release();
    Env::system().clock.sleep(Duration::from_millis(100)).await;
    assert_eq!(again.values(0).await, ["kept"]);
    let verified = verify(&again, Depth::Bytes).await;
    assert_eq!((verified.faults.len(), verified.orphans, verified.records_checked), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn garbage_goes_after_the_grace_and_after_its_readers() {
    let grace = Duration::from_secs(60);
    let rig = Rig::with(BrokerSettings { delete_grace: grace, ..BrokerSettings::default() }).await;
    rig.append(0, batch(&["old"])).await.expect("appended");
    rig.append(1, batch(&["kept"])).await.expect("appended");
    let pin = {
        let state = rig.broker.state();
        rig.broker.0.pins.pin(&state)
    };
    rig.broker.trim(rig.partition(0), Offset::new(1)).await.expect("trimmed");
    let report = rig.broker.sweep_now().await.expect("swept");
    assert_eq!((report.garbage_deleted, report.waiting), (0, 1));
    let later = rig.broker.state().cluster_time().plus_millis(60_001);
    rig.log.inner.apply(&Command::Tick { now: later });
    assert_eq!(
        rig.broker.sweep_now().await.expect("swept").garbage_deleted,
        0,
        "a reader may still follow it"
    );
    drop(pin);
    assert_eq!(rig.broker.sweep_now().await.expect("swept").garbage_deleted, 1);
    assert_eq!(rig.broker.state().garbage().count(), 0, "the metadata have forgotten it");
    assert_eq!(rig.blob.names().len(), 1);
    assert_eq!(rig.values(1).await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_slot_is_swept_on_an_idle_node() {
    let rig = Rig::start().await;
    rig.blob.fail_slot(1, PutFault::After, usize::MAX);
    assert!(rig.append(0, batch(&["never confirmed"])).await.is_err());
    Env::system().clock.sleep(Duration::from_secs(3)).await;
    let attempts = rig.blob.names().len() as u64;
    assert!(attempts > 1);
    assert_eq!(rig.broker.sweep_now().await.expect("swept").orphans_deleted, attempts);
}

#[tokio::test(start_paused = true)]
async fn of_two_attempts_at_a_slow_slot_the_durable_one_is_committed_and_the_other_is_swept() {
    let rig = Rig::with(BrokerSettings { tail_cache_bytes: 0, ..BrokerSettings::default() }).await;
    for _ in 0..60 {
        rig.append(0, batch(&["quick"])).await.expect("appended");
    }
    rig.blob.first_attempts_hang.store(true, Ordering::SeqCst);
    let begun = Env::system().clock.now();
    rig.append(0, batch(&["slow"])).await.expect("appended");
    let took = Env::system().clock.now() - begun;
    assert!(took < Duration::from_secs(1), "sooner than the first attempt is given up: {took:?}");
    let committed = rig.blob.names().pop().expect("objects");
    assert!(committed.ends_with("-1.wal"), "{committed}");
    // What was dropped on its way arrives after all.
    let late = committed.replace("-1.wal", "-0.wal");
    rig.blob.objects.lock().insert(late.clone(), bytes::Bytes::from_static(b"late"));
    Env::system().clock.sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.broker.sweep_now().await.expect("swept").orphans_deleted, 1);
    assert!(!rig.blob.names().contains(&late));
    assert_eq!(rig.values(0).await.pop().as_deref(), Some("slow"));
}

#[tokio::test(start_paused = true)]
async fn verify_finds_what_is_missing_short_and_wrong() {
    let rig = Rig::start().await;
    for value in ["a", "b", "c", "d"] {
        rig.append(0, batch(&[value])).await.expect("appended");
    }
    let sound = verify(&rig, Depth::Bytes).await;
    assert_eq!((sound.faults.len(), sound.objects_checked, sound.records_checked), (0, 4, 4));
    let names = rig.blob.names();
    {
        let mut objects = rig.blob.objects.lock();
        objects.remove(&names[0]);
        let short = objects[&names[1]].slice(..100);
        objects.insert(names[1].clone(), short);
        let mut wrong = objects[&names[2]].to_vec();
        wrong[150] ^= 1;
        objects.insert(names[2].clone(), wrong.into());
    }
    let faults = verify(&rig, Depth::Presence).await.faults;
    assert_eq!(faults.iter().map(|fault| fault.offsets.start.get()).collect::<Vec<_>>(), [0, 1]);
    let mut deep: Vec<_> = verify(&rig, Depth::Bytes).await.faults;
    deep.sort_by_key(|fault| fault.offsets.start);
    assert_eq!(deep.iter().map(|fault| fault.offsets.start.get()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(deep[0].what.contains("missing"), "{}", deep[0].what);
}

#[tokio::test(start_paused = true)]
async fn an_object_tells_what_it_holds() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["a", "b"])).await.expect("appended");
    let name = rig.blob.names().remove(0);
    let report = rig.broker.inspect(&name).await.expect("an object");
    assert_eq!(report.state.as_str(), "referenced");
    assert_eq!(report.extents.len(), 1);
    assert_eq!(report.extents[0].1[0].end.get(), 2);
    assert_eq!(rig.broker.inspect(&report.header.object.to_string()).await.expect("by id"), report);
    assert!(rig.broker.inspect("9-9-wal-0000000000000009-0").await.is_err());
    let summary = rig.broker.summary().await.expect("listed");
    assert_eq!((summary.wal_objects, summary.garbage_objects), (1, 0));
}
