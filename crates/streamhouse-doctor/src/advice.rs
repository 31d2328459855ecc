//! Which Kafka clients are held back by the way they produce, asked of every node.

use std::time::Duration;

use streamhouse_client::{CallError, HeldBackClient, NodeState, StreamHouse};
use streamhouse_env::Env;

use crate::report::{Finding, Report};

/// Adds to a report what the nodes see of their Kafka clients. `server` is a node's address for gRPC; when nobody answers
/// there, or it is of another cluster, that is what the report says. Cancel-safe: nothing is changed.
pub async fn advise(env: &Env, server: &str, patience: Duration, report: &mut Report) {
    let looked = look(env, server, patience, report.cluster_id.as_deref()).await;
    report.checks.extend(looked.unwrap_or_else(|why| {
        let hint = "give --server host:port of a node's gRPC listener to be told which clients wait too much";
        vec![Finding::skipped(format!("advice for clients: {why}")).fix(hint)]
    }));
}

async fn look(
    env: &Env,
    server: &str,
    patience: Duration,
    cluster: Option<&str>,
) -> Result<Vec<Finding>, String> {
    let house = connect(env, server, patience).await.map_err(|error| format!("{server}: {error}"))?;
    let said = |error: CallError| format!("{server}: {error}");
    let info = house.admin().info().await.map_err(said)?;
    if cluster.is_some_and(|cluster| cluster != info.cluster_id) {
        return Err(format!("{server} is of another cluster, {}", info.cluster_id));
    }
    let mut found = Vec::new();
    let (mut asked, mut waiting) = (0, 0);
    for node in house.admin().nodes().await.map_err(said)? {
        if node.state != NodeState::Serving || node.grpc_address.is_empty() {
            continue;
        }
        match clients(env, &node.grpc_address, patience).await {
            Ok(clients) => {
                asked += 1;
                waiting += clients.len();
                found.extend(clients.iter().map(|client| {
                    let what = format!("on node {}: {}", node.id, client.advice);
                    Finding::warn(what)
                }));
            }
            Err(error) => found.push(Finding::skipped(format!(
                "advice for clients of node {} at {}: {error}",
                node.id, node.grpc_address
            ))),
        }
    }
    if asked > 0 && waiting == 0 {
        let nodes = if asked == 1 { "1 node was".to_owned() } else { format!("{asked} nodes were") };
        found.push(Finding::ok(format!("no client is held back by the way it produces ({nodes} asked)")));
    }
    Ok(found)
}

async fn clients(env: &Env, address: &str, patience: Duration) -> Result<Vec<HeldBackClient>, String> {
    let house = connect(env, address, patience).await?;
    let (_, clients) = house.admin().held_back_clients().await.map_err(|error| error.to_string())?;
    Ok(clients)
}

async fn connect(env: &Env, address: &str, patience: Duration) -> Result<StreamHouse, String> {
    let builder = StreamHouse::builder().env(env.clone()).connect_timeout(patience).request_timeout(patience);
    builder.connect(address).await.map_err(|error| error.to_string())
}
