//! Kills the broker in the middle of its work, again and again, and counts what became of every record.
//!
//! `STREAMHOUSE_KILLS` sets how often (10 without it; `just crash` runs 50), `STREAMHOUSE_BINARY` which build.

use std::time::Duration;

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use streamhouse_client::{Mode, NewTopic, StreamHouse};
use streamhouse_tests::campaign::length;
use streamhouse_tests::history::Recording;
use streamhouse_tests::load::{Load, verify_deep};
use streamhouse_tests::node::Node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_repeats_or_reorders_an_acknowledged_record() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let recording = Recording::begin(folder.path())?;
    let mut random = StdRng::seed_from_u64(0x5eed);
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    house.admin().create_topic(NewTopic::new("crash").partitions(4), Mode::Apply).await?;
    let load = Load {
        topic: "crash".into(),
        partitions: 4,
        producers: 3,
        value_bytes: 200,
        first_producer: 0,
        bytes_per_second: None,
        recorder: recording.recorder(),
    };
    let mut running = load.start(&house).await?;

    let (wanted, mut before_ready) = (length("STREAMHOUSE_KILLS", 10), 0);
    for kill in 0..wanted {
        let target = running.acked() + random.random_range(1..20_000);
        running.wait_for(target).await?;
        node.kill();
        // Now and then the next life ends too, before or just after it is ready.
        if kill % 4 == 3 {
            let patience = Duration::from_millis(random.random_range(0..120));
            before_ready += u32::from(!node.start_and_wait(patience).await?);
            node.kill();
        }
        node.start().await?;
    }
    let target = running.acked() + 1_000;
    running.wait_for(target).await?;
    let sent = running.finish().await?;

    let swept = house.admin().sweep_storage().await?;
    let judgement = sent.judge(&house).await?;
    let verified = verify_deep(&house).await?;
    recording.audited(&verified);
    println!("{wanted} kills under load, {before_ready} more before the node was ready: {judgement}");
    println!("sweep: {swept:?}; verify: {verified:?}");
    ensure!(judgement.is_clean(), "{judgement}");
    ensure!(judgement.acked == sent.records, "{} of {} records acked", judgement.acked, sent.records);
    ensure!(verified.faults.is_empty() && verified.orphans == 0, "{verified:?}");
    println!("{}", recording.judge()?);
    ensure!(node.stop()?.success(), "{}", node.log());
    Ok(())
}
