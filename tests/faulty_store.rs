//! The broker on an S3 server that fails on purpose: before, after applying, by cutting connections, by truncated
//! and garbled ranges, by bursts of 503, and by not answering at all. And the broker on a folder that is moved away.
//!
//! `STREAMHOUSE_OUTAGE_SECONDS` sets how long the store is gone (10 without it; `just outage` takes 60),
//! `STREAMHOUSE_BINARY` which build is tested.

#[path = "faulty_store/moved.rs"]
mod moved;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use streamhouse_client::{Mode, NewTopic, StreamHouse};
use streamhouse_faults::{Delay, Fault, FaultPlan, FaultServer, Op, OpPlan, Place, ServerOptions};
use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_request::Message;
use streamhouse_proto::v1::stream_service_client::StreamServiceClient;
use streamhouse_tests::campaign::length;
use streamhouse_tests::faulty::on_store;
use streamhouse_tests::history::Recording;
use streamhouse_tests::load::{Load, Running, verify_deep};
use streamhouse_tests::node::Node;
use streamhouse_tests::shell::Shell;
use streamhouse_types::Timestamp;
use streamhouse_types::batch::{BatchBuilder, Compression, RecordRef};
use tokio::task::JoinSet;

/// The broker's budget for unacknowledged bytes in these tests.
const IN_FLIGHT: u64 = 64 << 20;
/// Its caches.
const CACHE: u64 = 64 << 20;
/// What all producers together offer in a second.
const OFFERED: u64 = 50 << 20;
/// What takes seconds may take this long on a busy machine.
const OVER_A_MINUTE: Duration = Duration::from_secs(90);
/// What a node may use beside its budgets.
const ALLOWANCE: u64 = 128 << 20;

fn outage() -> Duration {
    Duration::from_secs(length("STREAMHOUSE_OUTAGE_SECONDS", 10))
}

fn node_on(store: &FaultServer, folder: &tempfile::TempDir) -> Node {
    on_store(Node::new(&folder.path().join("data")), store, "streamhouse")
        .variable("STREAMHOUSE_LIMITS__IN_FLIGHT_BYTES", IN_FLIGHT.to_string())
        .variable("STREAMHOUSE_LIMITS__CACHE_BYTES", CACHE.to_string())
        .variable("STREAMHOUSE_LIMITS__DISK_CACHE_BYTES", CACHE.to_string())
}

fn some_of_everything() -> FaultPlan {
    let common = [
        (Fault::FailBefore, 0.05),
        (Fault::FailAfter, 0.05),
        (Fault::CutBefore, 0.03),
        (Fault::CutAfter, 0.03),
    ];
    let delay = Some(Delay { median_ms: 5.0, p99_ms: Some(60.0) });
    let plan = |more: &[(Fault, f64)]| OpPlan { delay, faults: common.iter().chain(more).copied().collect() };
    FaultPlan::from([
        (Op::Put, plan(&[(Fault::SlowDown, 0.05)])),
        (Op::Get, plan(&[(Fault::Truncate, 0.03), (Fault::Garble, 0.03), (Fault::CutBody, 0.03)])),
        (Op::Head, plan(&[])),
        (Op::Delete, plan(&[])),
        (Op::List, plan(&[(Fault::SlowDown, 0.05)])),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_the_store_loses_repeats_or_reorders_an_acknowledged_record() -> anyhow::Result<()> {
    let store = FaultServer::start(ServerOptions { seed: 7, ..ServerOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let recording = Recording::begin(folder.path())?;
    let mut node = node_on(&store, &folder);
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    house.admin().create_topic(NewTopic::new("faulty").partitions(4), Mode::Apply).await?;
    store.faults().set_plan(some_of_everything());

    let load = Load {
        topic: "faulty".into(),
        partitions: 4,
        producers: 3,
        value_bytes: 200,
        first_producer: 0,
        bytes_per_second: None,
        recorder: recording.recorder(),
    };
    let mut running = load.start(&house).await?;
    for burst in 1..=8 {
        let target = running.acked() + 5_000;
        running.wait_for(target).await?;
        store.faults().push_next(Op::Put, Fault::SlowDown, 4 * burst);
        // A restart must find the same in the store whatever the store does meanwhile.
        if burst % 4 == 0 {
            let target = running.acked() + 1_000;
            running.wait_for(target).await?;
            node.kill();
            node.start().await?;
        }
    }
    let sent = running.finish().await?;
    let judgement = sent.judge(&house).await?;
    // A restarted node has an empty cache, so everything comes from the store.
    ensure!(node.stop()?.success(), "{}", node.log());
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    let cold = sent.judge(&house).await?;
    let counters = store.faults().counters();
    store.faults().set_plan(FaultPlan::new());
    let swept = house.admin().sweep_storage().await?;
    let verified = verify_deep(&house).await?;
    recording.audited(&verified);
    println!("{judgement}; read cold: {cold}");
    println!("{:?}; sweep: {swept:?}; verify: {verified:?}", counters.faults);
    ensure!(judgement.is_clean(), "{judgement}");
    ensure!(cold.is_clean(), "read cold: {cold}");
    ensure!(judgement.acked == sent.records, "{} of {} records acked", judgement.acked, sent.records);
    let injected = |fault: Fault| counters.faults.get(&fault).copied().unwrap_or_default();
    let wanted = [Fault::FailBefore, Fault::FailAfter, Fault::CutBefore, Fault::CutAfter, Fault::SlowDown];
    let missing: Vec<_> = wanted.into_iter().filter(|fault| injected(*fault) == 0).collect();
    ensure!(missing.is_empty(), "never injected: {missing:?}");
    ensure!(
        injected(Fault::Truncate) + injected(Fault::Garble) + injected(Fault::CutBody) > 0,
        "no read failed"
    );
    ensure!(verified.faults.is_empty() && verified.orphans == 0, "{verified:?}");
    println!("{}", recording.judge()?);
    Ok(())
}

/// Producers on connections of their own. While the store is gone, their windows take far more than the node's budget.
async fn four_clients(node: &Node, recording: &Recording) -> anyhow::Result<BTreeMap<u32, Running>> {
    let mut loads = BTreeMap::new();
    for id in 0..4 {
        let load = Load {
            topic: "outage".into(),
            partitions: 8,
            producers: 1,
            value_bytes: 16 << 10,
            first_producer: id,
            bytes_per_second: Some(OFFERED / 4),
            recorder: recording.recorder(),
        };
        let client = StreamHouse::connect(node.grpc()).await?;
        loads.insert(id, load.start(&client).await?);
    }
    Ok(loads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_wait_within_bounded_memory_while_the_store_is_gone_and_then_go_on() -> anyhow::Result<()> {
    let store = FaultServer::start(ServerOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    let recording = Recording::begin(folder.path())?;
    let mut node = node_on(&store, &folder);
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    house.admin().create_topic(NewTopic::new("outage").partitions(8), Mode::Apply).await?;

    let mut loads = four_clients(&node, &recording).await?;
    for running in loads.values_mut() {
        running.wait_for(500).await?;
    }
    let (before, _) = node.resident_bytes()?;
    let start = tokio::time::Instant::now();
    store.faults().stop();
    let mut seconds = tokio::time::interval(Duration::from_millis(250));
    let (mut acked_in_outage, mut peak) = (0, 0);
    while start.elapsed() < outage() {
        seconds.tick().await;
        peak = peak.max(node.resident_bytes()?.0);
        acked_in_outage = loads.values().map(Running::acked).sum::<u64>();
    }
    store.faults().resume();
    let back = tokio::time::Instant::now();
    for running in loads.values_mut() {
        let target = running.acked() + 500;
        running.wait_for(target).await?;
    }
    let resumed = back.elapsed();
    for running in loads.values() {
        running.stop();
    }
    let mut all_sent = Vec::new();
    for running in loads.into_values() {
        all_sent.push(running.finish().await?);
    }
    let (_, writing) = node.resident_bytes()?;
    let mut records = 0;
    for sent in all_sent {
        records += sent.records;
        let judgement = sent.judge(&house).await?;
        ensure!(judgement.is_clean(), "{judgement}");
    }
    let (_, reading) = node.resident_bytes()?;
    let ceiling = IN_FLIGHT + CACHE + ALLOWANCE;
    println!(
        "store gone for {:?}: resident {} MiB before, {} MiB at most while it was gone, {} MiB until all was acked, \
         {} MiB until all was read, ceiling {} MiB; {acked_in_outage} records acked until its end, {records} in all, \
         going on after {resumed:?}",
        outage(),
        before >> 20,
        peak >> 20,
        writing >> 20,
        reading >> 20,
        ceiling >> 20
    );
    ensure!(reading <= ceiling, "{reading} bytes resident, over the ceiling of {ceiling}");
    let verified = verify_deep(&house).await?;
    recording.audited(&verified);
    ensure!(verified.faults.is_empty(), "{verified:?}");
    println!("{}", recording.judge()?);
    Ok(())
}

/// Connections that fill what a node lets them send, and the batches that each has.
const CONNECTIONS: usize = 24;
const BATCHES: u64 = 12;

fn almost_a_mebibyte() -> bytes::Bytes {
    let (mut batch, value) = (BatchBuilder::new(Compression::None), vec![7; (1 << 20) - 1_024]);
    let record =
        RecordRef { key: None, value: Some(&value), headers: &[], timestamp: Timestamp::from_millis(1) };
    batch.push(&record).expect("one record fits");
    batch.build()
}

/// Sends all batches on a connection of its own, and counts them as they leave; returns how many were acknowledged.
async fn send_all(address: String, batch: bytes::Bytes, left: Arc<AtomicU64>) -> anyhow::Result<u64> {
    let mut client = StreamServiceClient::connect(format!("http://{address}")).await?;
    let open = v1::OpenAppend { topic: "many".to_owned(), producer: None, want_credit_bytes: BATCHES << 21 };
    let batches = (0..BATCHES).map(move |session_sequence| {
        left.fetch_add(1, Ordering::Relaxed);
        let record_batch = batch.clone();
        Message::Batch(v1::AppendBatch { partition: 0, session_sequence, record_batch })
    });
    let messages = std::iter::once(Message::Open(open)).chain(batches);
    let requests = messages.map(|message| v1::AppendSessionRequest { message: Some(message) });
    let mut answers = client.append_session(futures::stream::iter(requests)).await?.into_inner();
    let mut acked = 0;
    while let Some(answer) = answers.message().await? {
        use v1::append_session_response::Message;
        match answer.message {
            Some(Message::Ack(_)) => acked += 1,
            Some(Message::Nack(nack)) => anyhow::bail!("{nack:?}"),
            _ => {}
        }
    }
    Ok(acked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_that_send_all_they_may_stay_within_the_ceiling_while_the_store_is_gone()
-> anyhow::Result<()> {
    let objects = tempfile::tempdir()?;
    let place = Place::Folder(objects.path().to_owned());
    let store = FaultServer::start(ServerOptions { place, ..ServerOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let mut node = node_on(&store, &folder);
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    house.admin().create_topic(NewTopic::new("many"), Mode::Apply).await?;
    store.faults().stop();
    let (batch, left) = (almost_a_mebibyte(), Arc::new(AtomicU64::new(0)));
    let mut sending = JoinSet::new();
    for _ in 0..CONNECTIONS {
        sending.spawn(send_all(node.grpc().to_owned(), batch.clone(), Arc::clone(&left)));
    }
    // Until nothing more leaves for a while: every window is full.
    let mut looks = tokio::time::interval(Duration::from_millis(500));
    let (mut seen, mut same) = (0, 0);
    while same < 4 {
        looks.tick().await;
        let now = left.load(Ordering::Relaxed);
        same = if now == seen && now > 0 { same + 1 } else { 0 };
        seen = now;
    }
    let (stalled, _) = node.resident_bytes()?;
    store.faults().resume();
    let mut acked = 0;
    while let Some(sent) = sending.join_next().await {
        acked += sent??;
    }
    let (peak, ceiling) = (node.resident_bytes()?.1, IN_FLIGHT + CACHE + ALLOWANCE);
    println!(
        "{CONNECTIONS} connections: {seen} MiB had left when nothing more was taken, {} MiB resident then; {acked} \
         batches acknowledged; at most {} MiB resident, ceiling {} MiB",
        stalled >> 20,
        peak >> 20,
        ceiling >> 20
    );
    ensure!(acked == BATCHES * CONNECTIONS as u64, "{acked} acknowledged");
    ensure!(peak <= ceiling, "{peak} bytes resident, over the ceiling of {ceiling}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_why_its_store_keeps_it_from_starting() -> anyhow::Result<()> {
    let store = FaultServer::start(ServerOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    let mut node = node_on(&store, &folder);
    // A refusal is final: such as of a wrong secret.
    store.faults().push_next(Op::List, Fault::Deny, 1);
    let refused = node.start().await.expect_err("it is not let in").to_string();
    for words in ["refuses this node; see that its credentials are right", "AccessDenied", "exit status: 6"] {
        ensure!(refused.contains(words), "no `{words}` in: {refused}");
    }
    // A store that is away is waited for.
    store.faults().refuse();
    ensure!(!node.start_and_wait(Duration::from_millis(1)).await?, "there is no store");
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let told = async {
        while !node.log().contains("the node is not ready: the object store does not answer") {
            looks.tick().await;
        }
    };
    tokio::time::timeout(OVER_A_MINUTE, told).await?;
    store.faults().accept();
    let connected = async {
        loop {
            // It gives up after 5 s, which a start may take after such a wait.
            if let Ok(house) = StreamHouse::connect(node.grpc()).await {
                return house;
            }
        }
    };
    let house = tokio::time::timeout(OVER_A_MINUTE, connected).await?;
    house.admin().create_topic(NewTopic::new("here"), Mode::Apply).await?;

    // An idle node is asked to show that it can write.
    let store_of = |health: streamhouse_client::ClusterHealth| {
        health.checks.into_iter().find(|check| check.name == "store").map(|check| check.ok)
    };
    ensure!(store_of(house.admin().health().await?) == Some(true), "it can write");
    store.faults().refuse();
    let told = async {
        while store_of(house.admin().health().await?) != Some(false) {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, told).await?
}

/// A node whose cache is empty, with two records of a topic in its store.
async fn node_with_records(store: &FaultServer, folder: &tempfile::TempDir) -> anyhow::Result<(Node, Shell)> {
    let mut node = node_on(store, folder);
    node.start().await?;
    let shell = Shell::at(folder.path(), node.grpc());
    let _created = shell.ok(&["topic", "create", "away"]);
    ensure!(shell.produce(&["away"], b"1\n2\n").status.success());
    ensure!(node.stop()?.success(), "{}", node.log());
    node.start().await?;
    Ok((node, shell))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consume_ends_after_its_timeout_while_the_store_is_gone_and_says_so() -> anyhow::Result<()> {
    let store = FaultServer::start(ServerOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    let (_node, shell) = node_with_records(&store, &folder).await?;
    store.faults().stop();
    let long_after = Duration::from_secs(40);
    for reading in [&["away", "-n", "2"][..], &["away", "--group", "g"], &["away", "--follow"]] {
        let begun = tokio::time::Instant::now();
        let error = shell.error(&[&["consume", "--timeout", "4s"], reading].concat());
        ensure!(begun.elapsed() < long_after, "{reading:?} took {:?}", begun.elapsed());
        ensure!(error["code"] == "STORE_UNAVAILABLE" && error["exit_code"] == 6, "{reading:?}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(message.contains("no answer within 4s: the object store does not give"), "{message}");
        ensure!(error["hint"].is_string() && error["may_have_happened"] == false, "{reading:?}: {error}");
    }
    store.faults().resume();
    ensure!(shell.ok(&["consume", "away", "-n", "2", "--timeout", "30s"]) == "1\n2\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn produce_says_after_its_timeout_what_stood_in_its_way_and_what_became_of_the_record()
-> anyhow::Result<()> {
    let store = FaultServer::start(ServerOptions::default()).await?;
    let folder = tempfile::tempdir()?;
    let (_node, shell) = node_with_records(&store, &folder).await?;
    store.faults().stop();
    let holds = |output: &std::process::Output, parts: &[&str]| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for part in parts {
            ensure!(said.contains(part), "`{part}` is missing in: {said}");
        }
        ensure!(output.status.code() == Some(6), "{said}");
        Ok(())
    };
    let timed_out = |span: &str| {
        [
            format!("error[COMMIT_UNKNOWN]: line 1: not acknowledged within {span}: the node has not said"),
            "its object store does not answer".to_owned(),
            "hint: ".to_owned(),
            "note: the write may have happened all the same".to_owned(),
        ]
    };
    let output = shell.produce(&["away", "--timeout", "1s", "-q"], b"3\n");
    holds(&output, &timed_out("1s").each_ref().map(String::as_str))?;
    // Later the cluster itself knows.
    let output = shell.produce(&["away", "--timeout", "8s", "-q"], b"3\n");
    holds(&output, &timed_out("8s").each_ref().map(String::as_str))?;
    holds(&output, &["; node 1 has not been able to write for ", "hint: look at the way from there"])?;
    Ok(())
}
