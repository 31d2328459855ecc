//! The store wrapper over a real HTTP client and a server that fails on purpose.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_env::Env;
use streamhouse_faults::{Delay, Fault, FaultServer, Op, OpPlan, ServerOptions};
use streamhouse_storage::{
    ClaimError, GetError, Key, Layout, Payload, Purpose, PutError, PutOptions, Store, StoreSettings, claim,
    clusters_in, prove_writes,
};
use streamhouse_types::ClusterId;

struct Bench {
    server: FaultServer,
    store: Store,
    env: Env,
}

async fn bench() -> Bench {
    let server =
        FaultServer::start(ServerOptions { seed: 1, ..ServerOptions::default() }).await.expect("start");
    let env = Env::system();
    let store = streamhouse_storage::open(&settings(&server, "s3://bucket/p"), &env).await.expect("open");
    Bench { server, store, env }
}

fn settings(server: &FaultServer, url: &str) -> StoreSettings {
    StoreSettings {
        endpoint: Some(server.endpoint()),
        access_key_id: Some("any".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        allow_http: true,
        ..StoreSettings::at(url)
    }
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

impl Bench {
    fn options(&self, deadline: Duration) -> PutOptions {
        PutOptions { purpose: Purpose::Produce, deadline: self.env.clock.now() + deadline }
    }

    async fn put(&self, name: &str, bytes: &'static [u8], deadline: Duration) -> Result<(), PutError> {
        self.store.put(&key(name), &Payload::from(Bytes::from_static(bytes)), self.options(deadline)).await
    }

    fn stored(&self, name: &str) -> bool {
        self.server.objects().get("bucket", &format!("p/{name}")).flatten().is_some()
    }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_write_gets_through_whatever_fails_once() {
    let bench = bench().await;
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::SlowDown, Fault::CutBefore, Fault::CutAfter] {
        let name = format!("{fault:?}");
        bench.server.faults().push_next(Op::Put, fault, 1);
        bench.put(&name, b"x", LONG).await.expect("written");
        assert!(bench.stored(&name), "{name}");
    }
}

#[tokio::test]
async fn a_read_gets_its_bytes_whatever_fails_once() {
    let bench = bench().await;
    bench.put("a", b"0123456789", LONG).await.expect("written");
    for fault in [Fault::FailBefore, Fault::SlowDown, Fault::CutBefore, Fault::Truncate, Fault::CutBody] {
        bench.server.faults().push_next(Op::Get, fault, 1);
        let read = bench.store.get_range(&key("a"), 2..8, Purpose::Fetch).await.expect("read");
        assert_eq!(read, &b"234567"[..], "{fault:?}");
    }
    for (op, fault) in
        [(Op::Head, Fault::FailBefore), (Op::List, Fault::SlowDown), (Op::Delete, Fault::FailAfter)]
    {
        bench.server.faults().push_next(op, fault, 1);
    }
    assert_eq!(bench.store.get(&key("a"), Purpose::Fetch).await.expect("read"), &b"0123456789"[..]);
    assert_eq!(clusters_in(&bench.store).await.expect("listed"), []);
    bench.store.delete(&key("a"), Purpose::Sweep).await.expect("deleted");
    assert!(!bench.stored("a"));
    assert_eq!(bench.server.faults().counters().faults.values().sum::<u64>(), 8);
}

#[tokio::test]
async fn an_error_says_truly_whether_the_write_may_have_happened() {
    let bench = bench().await;
    let short = Duration::from_millis(300);
    for (fault, may_have_happened) in
        [(Fault::Deny, false), (Fault::FailAfter, true), (Fault::CutAfter, true)]
    {
        let name = format!("{fault:?}");
        bench.server.faults().set_plan(BTreeMap::from([
            (Op::Put, OpPlan { delay: None, faults: BTreeMap::from([(fault, 1.0)]) }),
            (Op::Head, OpPlan { delay: None, faults: BTreeMap::from([(Fault::FailBefore, 1.0)]) }),
        ]));
        let error = bench.put(&name, b"x", short).await.expect_err("fails");
        assert_eq!(error.may_have_happened(), may_have_happened, "{error:?}");
        assert_eq!(bench.stored(&name), may_have_happened);
        assert_eq!(error.is_permanent(), fault == Fault::Deny, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_means_that_nothing_happened() {
    let bench = bench().await;
    bench.server.faults().refuse();
    while tokio::net::TcpStream::connect(bench.server.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let error = bench.put("a", b"x", Duration::from_millis(300)).await.expect_err("fails");
    assert!(matches!(error, PutError::NotHappened { .. }), "{error:?}");
    bench.server.faults().accept();
    bench.put("a", b"x", LONG).await.expect("written");
}

#[tokio::test]
async fn a_server_that_stops_leaves_the_write_unknown() {
    let bench = bench().await;
    bench.server.faults().stop();
    let error = bench.put("a", b"x", Duration::from_millis(300)).await.expect_err("fails");
    assert!(error.may_have_happened(), "{error:?}");
    bench.server.faults().resume();
    bench.put("a", b"x", LONG).await.expect("our own bytes are no conflict");
}

#[tokio::test]
async fn a_missing_bucket_is_told_at_once() {
    let bench = bench().await;
    let store =
        streamhouse_storage::open(&settings(&bench.server, "s3://missing"), &bench.env).await.expect("open");
    let payload = Payload::from(Bytes::from_static(b"x"));
    let error = store.put(&key("a"), &payload, bench.options(LONG)).await.expect_err("fails");
    assert!(matches!(error, PutError::Refused { .. }), "{error:?}");
    let error = store.get_range(&key("a"), 0..1, Purpose::Fetch).await.expect_err("fails");
    assert!(matches!(error, GetError::Refused { .. }), "{error:?}");
    let error = bench.store.get_range(&key("a"), 0..1, Purpose::Fetch).await.expect_err("fails");
    assert!(matches!(error, GetError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cluster_claims_its_store_again_and_again_and_no_other_can() {
    let bench = bench().await;
    let (ours, other) = (ClusterId::from_bytes([7; 16]), ClusterId::from_bytes([8; 16]));
    let claim = async |cluster| claim(&bench.store, &Layout::new(cluster), bench.options(LONG)).await;
    claim(ours).await.expect("the first");
    claim(ours).await.expect("again");
    let error = claim(other).await.expect_err("taken");
    assert!(matches!(error, ClaimError::OtherCluster { found } if found == ours), "{error:?}");
    let payload = Payload::from(Bytes::from_static(b"x"));
    let stray = Layout::new(other).marker_key();
    bench.store.put(&stray, &payload, bench.options(LONG)).await.expect("written");
    assert_eq!(clusters_in(&bench.store).await.expect("listed"), [ours, other]);
}

#[tokio::test]
async fn of_two_clusters_that_claim_a_store_at_once_at_most_one_has_it() {
    let bench = bench().await;
    let delay = Some(Delay { median_ms: 200.0, p99_ms: None });
    bench.server.faults().set_plan([(Op::Put, OpPlan { delay, ..OpPlan::default() })].into());
    let [ours, other] = [7, 8].map(|byte| ClusterId::from_bytes([byte; 16]));
    let claim = async |cluster| claim(&bench.store, &Layout::new(cluster), bench.options(LONG)).await.is_ok();
    let claimed = tokio::join!(claim(ours), claim(other));
    let left = clusters_in(&bench.store).await.expect("listed");
    match claimed {
        (true, true) => panic!("both have it"),
        (true, false) => assert_eq!(left, [ours]),
        (false, true) => assert_eq!(left, [other]),
        (false, false) => assert_eq!(left, []),
    }
}

#[tokio::test]
async fn a_store_that_takes_writes_is_told_from_one_that_takes_none_by_a_write_that_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = bench().await;
    let layout = Layout::new(ClusterId::from_bytes([7; 16]));
    let elsewhere = [StoreSettings::at("memory://"), StoreSettings::local(folder.path())];
    for settings in elsewhere {
        let store = streamhouse_storage::open(&settings, &bench.env).await.expect("open");
        claim(&store, &layout, bench.options(LONG)).await.expect("claimed");
        proves(&bench, &store, layout).await;
    }
    claim(&bench.store, &layout, bench.options(LONG)).await.expect("claimed");
    bench.server.faults().stop();
    prove_writes(&bench.store, &layout, bench.options(LONG).deadline).await;
    assert!(bench.store.writes().failing.is_some());
    bench.server.faults().resume();
    proves(&bench, &bench.store, layout).await;
    bench.server.faults().push_next(Op::Put, Fault::SlowDown, 1);
    proves(&bench, &bench.store, layout).await;
}

async fn proves(bench: &Bench, store: &Store, layout: Layout) {
    let before = store.get(&layout.marker_key(), Purpose::Meta).await.expect("the marker");
    let begun = bench.env.clock.now();
    prove_writes(store, &layout, bench.options(LONG).deadline).await;
    let (seen, took) = (store.writes(), bench.env.clock.now() - begun);
    assert!(seen.failing.is_none() && seen.succeeded.is_some_and(|ago| ago <= took), "{seen:?}");
    assert_eq!(store.get(&layout.marker_key(), Purpose::Meta).await.expect("the marker"), before);
}

#[tokio::test]
async fn a_marker_that_arrives_spoiled_is_read_again() {
    let bench = bench().await;
    let ours = Layout::new(ClusterId::from_bytes([7; 16]));
    let claim = async || claim(&bench.store, &ours, bench.options(LONG)).await;
    claim().await.expect("the first");
    bench.server.faults().push_next(Op::Get, Fault::Garble, 3);
    claim().await.expect("the fourth reading is whole");
    bench.server.faults().push_next(Op::Get, Fault::Garble, 4);
    let error = claim().await.expect_err("never whole");
    assert!(matches!(error, ClaimError::BadMarker), "{error:?}");
}
