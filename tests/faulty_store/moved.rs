//! A store on this machine whose folder is moved away while a node runs, as one whose disk is unmounted.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::*;

/// The checks that fail, as the command says that people type.
fn failed_checks(shell: &Shell) -> anyhow::Result<Vec<String>> {
    let output = shell.run(&["cluster", "health", "-o", "json"]);
    let health: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let checks = health["checks"].as_array().into_iter().flatten();
    let failed: Vec<_> = checks.filter(|check| check["ok"] == false).map(|check| &check["name"]).collect();
    ensure!(output.status.code() == Some(if failed.is_empty() { 0 } else { 7 }), "{health}");
    Ok(failed.into_iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Waits until just these checks fail.
async fn until_failed(shell: &Shell, wanted: &[&str]) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let seen = async {
        while failed_checks(shell)? != wanted {
            looks.tick().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(OVER_A_MINUTE, seen).await.with_context(|| format!("not so: {wanted:?} fail"))?
}

/// A write waits in vain.
fn refuses_a_record(shell: &Shell) -> anyhow::Result<()> {
    let output = shell.produce(&["other", "--timeout", "2s", "-q"], b"late\n");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(6) && said.contains("object store"), "{said}");
    Ok(())
}

/// As does everything that was sent before it.
fn takes_nothing(shell: &Shell, running: &Running) -> anyhow::Result<()> {
    let before = running.acked();
    refuses_a_record(shell)?;
    ensure!(failed_checks(shell)? == ["store"], "nobody can write");
    ensure!(running.acked() == before, "{} acknowledged, and {before} before", running.acked());
    Ok(())
}

fn is_empty(folder: &Path) -> anyhow::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_store_that_is_moved_away_takes_no_record_until_it_is_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let recording = Recording::begin(folder.path())?;
    let (store, away) = (folder.path().join("store"), folder.path().join("away"));
    let mut node =
        Node::new(&folder.path().join("data")).argument(format!("--store=file://{}", store.display()));
    node.start().await?;
    let shell = Shell::at(folder.path(), node.grpc());
    let house = StreamHouse::connect(node.grpc()).await?;
    for topic in ["moved", "other"] {
        house.admin().create_topic(NewTopic::new(topic).partitions(4), Mode::Apply).await?;
    }
    let load = Load {
        topic: "moved".into(),
        partitions: 4,
        producers: 2,
        value_bytes: 200,
        first_producer: 0,
        bytes_per_second: Some(64 << 10),
        recorder: recording.recorder(),
    };
    let mut running = load.start(&house).await?;
    running.wait_for(500).await?;
    until_failed(&shell, &[]).await?;

    fs::rename(&store, &away)?;
    until_failed(&shell, &["store"]).await?;
    // What was in the store before is acknowledged by then.
    refuses_a_record(&shell)?;
    takes_nothing(&shell, &running)?;
    ensure!(!store.exists(), "it was made anew");
    // A disk that is unmounted leaves an empty folder.
    fs::create_dir(&store)?;
    takes_nothing(&shell, &running)?;
    ensure!(is_empty(&store)?, "it was written to");
    fs::remove_dir(&store)?;
    fs::rename(&away, &store)?;
    until_failed(&shell, &[]).await?;
    let target = running.acked() + 500;
    running.wait_for(target).await?;

    let sent = running.finish().await?;
    // What is acknowledged is in the store, and not only in the caches.
    ensure!(node.stop()?.success(), "{}", node.log());
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    let judgement = sent.judge(&house).await?;
    ensure!(judgement.is_clean(), "{judgement}");
    ensure!(judgement.acked == sent.records, "{} of {} records acked", judgement.acked, sent.records);
    let verified = verify_deep(&house).await?;
    ensure!(verified.faults.is_empty(), "{verified:?}");
    recording.audited(&verified);
    println!("{judgement}; {}", recording.judge()?);
    Ok(())
}
