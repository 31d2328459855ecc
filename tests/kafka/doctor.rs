//! `streamhouse doctor` against the real binary: what it finds, and how it exits.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::{Node, binary};
use tokio::time::Instant;

use super::{Kafka, batch};

/// Runs the doctor; what it found, and its exit code.
async fn doctor(bootstrap: &str, server: &str) -> anyhow::Result<(Value, i32)> {
    let mut command = Command::new(binary());
    command.args(["doctor", "--bootstrap", bootstrap, "--server", server, "-o", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let code = output.status.code().context("it was not killed")?;
    let found = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((found, code))
}

/// What was found with this verdict.
fn said(found: &Value, verdict: &str) -> Vec<String> {
    let checks = found["checks"].as_array().into_iter().flatten();
    let checks = checks.filter(|check| check["verdict"] == verdict);
    checks.map(|check| format!("{} {}", check["what"], check["fix"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_clients_reach_is_found_well_from_every_node() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(3, |node, _| node)?;
    cluster.start().await?;
    Kafka::connect(&cluster.nodes[0]).await?.make_topic().await?;
    for node in &cluster.nodes {
        let (found, code) = doctor(node.kafka(), node.grpc()).await?;
        ensure!(code == 0 && said(&found, "fail").is_empty(), "{found:#}");
        let ok = said(&found, "ok");
        for node in &cluster.nodes {
            let told = format!("advertised as {}, and is there", node.kafka());
            ensure!(ok.iter().any(|said| said.contains(&told)), "{told}: {found:#}");
        }
        ensure!(ok.iter().any(|said| said.contains("3 nodes were asked")), "{found:#}");
        ensure!(ok.iter().any(|said| said.contains("1 topic, ")), "{found:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_clients_cannot_reach_is_told_with_what_to_set() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Nobody listens where a listener was just closed.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let data = folder.path().join("data");
    let mut node = Node::new(&data).argument(format!("--listeners.advertised_kafka={gone}"));
    node.start().await?;
    let (found, code) = doctor(node.kafka(), node.grpc()).await?;
    ensure!(code == 7, "{code}: {found:#}");
    let [fault] = &said(&found, "fail")[..] else { anyhow::bail!("{found:#}") };
    for word in [gone.as_str(), "cannot reach", "listeners.advertised_kafka", "single-endpoint"] {
        ensure!(fault.contains(word), "{word}: {fault}");
    }
    // Another listener of the same node, nobody at all, no port, and nobody beside the node.
    let both = format!("{gone},{}", node.kafka());
    let wrong = "does not speak Kafka's protocol";
    for (bootstrap, word, faults) in [
        (node.grpc(), wrong, 1),
        (&gone, "dial", 1),
        ("kafka.example", "names no port", 1),
        (&both, "dial", 2),
    ] {
        let (found, code) = doctor(bootstrap, node.grpc()).await?;
        let said = said(&found, "fail");
        ensure!(code == 7 && said.len() == faults && said[0].contains(word), "{found:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_every_answer_is_told_what_holds_it_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data")).argument("--wal.flush_interval=200ms");
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    kafka.make_topic().await?;
    let producer = kafka.producer().await?;
    let begun = Instant::now();
    let mut next = begun + Duration::from_secs(10);
    for sequence in 0.. {
        kafka.produce(&batch(producer, sequence, "one at a time")?).await?;
        if Instant::now() < next {
            continue;
        }
        let (found, code) = doctor(node.kafka(), node.grpc()).await?;
        if let [advice] = &said(&found, "warn")[..] {
            ensure!(code == 0 && advice.contains("client `test` is limited to"), "{found:#}");
            ensure!(advice.contains("linger.ms"), "{advice}");
            let metrics = node.metrics().await?;
            let name = "streamhouse_client_ceiling_bytes_per_second{client_id=\"test\",kind=\"produce\"}";
            ensure!(metrics.contains(name), "{metrics}");
            let told = node.log().matches("client `test` is limited to").count();
            ensure!(told == 1, "told {told} times:\n{}", node.log());
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "no advice: {found:#}");
        next = Instant::now() + Duration::from_secs(1);
    }
    Ok(())
}
