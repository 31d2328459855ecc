//! What a Kafka client goes through when it starts: the first address, the requests that are answered, the nodes it is
//! told, each of their addresses, the leaders of its partitions and the coordinator of its group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_env::Env;

use crate::report::{Finding, Report};
use crate::wire::Broker;

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Options {
    /// host:port, or several with commas between, as clients are given them in `bootstrap.servers`.
    pub bootstrap: String,
    /// Longest wait for each step.
    pub patience: Duration,
}

/// Requests that clients cannot work without: Kafka's keys and names.
const NEEDED: &[(i16, &str)] = &[
    (0, "Produce"),
    (1, "Fetch"),
    (2, "ListOffsets"),
    (3, "Metadata"),
    (8, "OffsetCommit"),
    (9, "OffsetFetch"),
    (10, "FindCoordinator"),
    (11, "JoinGroup"),
    (12, "Heartbeat"),
    (13, "LeaveGroup"),
    (14, "SyncGroup"),
    (22, "InitProducerId"),
];
/// How many partitions are named when something is wrong with many.
const NAMED_MAX: usize = 5;
/// What every advice about addresses ends with.
const ONE_ADDRESS: &str =
    "or put all nodes behind one address and set listeners.kafka_advertise=single-endpoint";

/// Examines a cluster from here. Cancel-safe: nothing is changed.
pub async fn examine(env: &Env, options: &Options) -> Report {
    let mut report = Report::default();
    let Some((metadata, mut broker)) = enter(env, options, &mut report).await else { return report };
    report.cluster_id = metadata.cluster_id.as_ref().map(ToString::to_string);
    report.checks.push(summary(&metadata));
    let nodes = nodes(&metadata);
    if nodes.is_empty() {
        let fix = "every node stops or is drained: see `streamhouse cluster health`";
        report.checks.push(Finding::fail("clients are told no node at all").fix(fix));
    }
    report.checks.push(leaders(&metadata, &nodes));
    for (id, address) in &nodes {
        report.checks.push(visit(env, options, *id, address, report.cluster_id.as_deref()).await);
    }
    report.checks.push(coordinator(&mut broker, &nodes).await);
    report
}

/// Dials each of the first addresses, and goes in by the first that lets in. `None` when none does.
async fn enter<'a>(
    env: &'a Env,
    options: &Options,
    report: &mut Report,
) -> Option<(g::MetadataResponseData, Broker<'a>)> {
    let mut entered = None;
    for address in options.bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        let tried = enter_by(env, (address, options.patience), report).await;
        entered = entered.or(tried);
    }
    entered
}

/// One of the first addresses, what is answered there, and what it tells of the cluster. `None` when it ends there.
async fn enter_by<'a>(
    env: &'a Env,
    (bootstrap, patience): (&str, Duration),
    report: &mut Report,
) -> Option<(g::MetadataResponseData, Broker<'a>)> {
    if !names_a_port(bootstrap) {
        let fix = "write host:port, such as kafka.example:9092";
        report.checks.push(Finding::fail(format!("`{bootstrap}` names no port")).fix(fix));
        return None;
    }
    let begun = env.clock.now();
    let mut broker = match Broker::dial(env, bootstrap, patience).await {
        Ok(broker) => broker,
        Err(error) => {
            let fix = "is the node running, and is listeners.kafka an address that this machine reaches? 127.0.0.1, \
                       the default, is reached from the node's own machine alone";
            report.checks.push(Finding::fail(format!("dial {bootstrap}: {error}")).fix(fix));
            return None;
        }
    };
    report.checks.push(Finding::ok(format!("dial {bootstrap}")).took(env.clock.now().saturating_sub(begun)));
    let begun = env.clock.now();
    let versions = match broker.ask(&g::ApiVersionsRequestData::default()).await {
        Ok(versions) => versions,
        Err(error) => {
            let fix = "is this the port of listeners.kafka (9092 by default)? gRPC, the nodes' own and HTTP have others";
            report.checks.push(
                Finding::fail(format!("{bootstrap} does not speak Kafka's protocol: {error}")).fix(fix),
            );
            return None;
        }
    };
    report.checks.push(protocol(&versions).took(env.clock.now().saturating_sub(begun)));
    let all = g::MetadataRequestData { topics: None, allow_auto_topic_creation: false, ..Default::default() };
    match broker.ask(&all).await {
        Ok(metadata) => Some((metadata, broker)),
        Err(error) => {
            let fix = "a client gets no further either: see the node's log";
            report
                .checks
                .push(Finding::fail(format!("{bootstrap} does not tell the cluster: {error}")).fix(fix));
            None
        }
    }
}

fn protocol(versions: &g::ApiVersionsResponseData) -> Finding {
    let offered: BTreeSet<i16> = versions.api_keys.iter().map(|api| api.api_key).collect();
    let missing = NEEDED.iter().filter(|(key, _)| !offered.contains(key)).map(|(_, name)| *name);
    let missing: Vec<&str> = missing.collect();
    match (versions.error_code, &missing[..]) {
        (0, []) => Finding::ok(format!("protocol: {} kinds of requests are answered", offered.len())),
        (0, _) => Finding::fail(format!("protocol: {} are not answered", missing.join(", "))),
        (code, _) => Finding::fail(format!("protocol: ApiVersions is answered with error {code}")),
    }
}

fn summary(metadata: &g::MetadataResponseData) -> Finding {
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let cluster =
        metadata.cluster_id.as_ref().map_or_else(|| "without a name".to_owned(), ToString::to_string);
    let (nodes, topics) = (metadata.brokers.len(), metadata.topics.len());
    let parts = [(nodes, "node"), (topics, "topic"), (partitions, "partition")];
    let parts = parts.map(|(number, what)| format!("{number} {what}{}", if number == 1 { "" } else { "s" }));
    Finding::ok(format!("cluster {cluster}: {}", parts.join(", ")))
}

fn names_a_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// The nodes that clients are told, with their addresses.
fn nodes(metadata: &g::MetadataResponseData) -> BTreeMap<i32, String> {
    let address = |host: &KafkaString, port: i32| match host.as_str().parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{}:{port}", host.as_str()),
    };
    metadata.brokers.iter().map(|node| (node.node_id, address(&node.host, node.port))).collect()
}

fn leaders(metadata: &g::MetadataResponseData, nodes: &BTreeMap<i32, String>) -> Finding {
    let mut without = Vec::new();
    for topic in &metadata.topics {
        let name = topic.name.as_ref().map_or("?", |name| name.as_str());
        for partition in &topic.partitions {
            if partition.error_code != 0 || !nodes.contains_key(&partition.leader_id) {
                without.push(format!("{name}-{}", partition.partition_index));
            }
        }
    }
    if without.is_empty() {
        return Finding::ok("every partition has a leader among the nodes");
    }
    let more = without.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = without[..without.len().min(NAMED_MAX)].join(", ");
    Finding::fail(format!("no leader that clients can go to for {named}{more}")).fix(
        "see `streamhouse node list`: nodes that are dead or stopped lead nothing for longer than a second",
    )
}

/// Whether a node is reached where clients are told that it is.
async fn visit(env: &Env, options: &Options, id: i32, address: &str, cluster: Option<&str>) -> Finding {
    let told = format!("node {id} is advertised as {address}");
    if let Some(fault) = unreachable_elsewhere(address, &options.bootstrap) {
        return Finding::fail(format!("{told}, {fault}")).fix(advertise(id));
    }
    let begun = env.clock.now();
    let mut broker = match Broker::dial(env, address, options.patience).await {
        Ok(broker) => broker,
        Err(error) => {
            return Finding::fail(format!("{told}, which this machine cannot reach: {error}"))
                .fix(advertise(id));
        }
    };
    let none = g::MetadataRequestData {
        topics: Some(Vec::new()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    match broker.ask(&none).await {
        Err(error) => {
            Finding::fail(format!("{told}, where something else answers: {error}")).fix(advertise(id))
        }
        Ok(metadata) => {
            let found = metadata.cluster_id.as_ref().map(|cluster| cluster.as_str());
            if found == cluster {
                return Finding::ok(format!("{told}, and is there"))
                    .took(env.clock.now().saturating_sub(begun));
            }
            let found = found.unwrap_or("without a name");
            Finding::fail(format!("{told}, where a node of cluster {found} answers")).fix(advertise(id))
        }
    }
}

fn advertise(id: i32) -> String {
    format!("set listeners.advertised_kafka of node {id} to host:port as clients reach it, {ONE_ADDRESS}")
}

/// Why an address can mean this node to nobody else, although it may be reached from here.
fn unreachable_elsewhere(address: &str, bootstrap: &str) -> Option<&'static str> {
    let host = host(address);
    if host.is_empty() || host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
        return Some("which is no address of anybody");
    }
    let own = "which every machine takes for itself, while the cluster is elsewhere";
    let is_here = bootstrap.split(',').any(|bootstrap| is_loopback(self::host(bootstrap.trim())));
    (is_loopback(host) && !is_here).then_some(own)
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether a group would find its coordinator.
async fn coordinator(broker: &mut Broker<'_>, nodes: &BTreeMap<i32, String>) -> Finding {
    let key = KafkaString::from("streamhouse-doctor".to_owned());
    let asked = g::FindCoordinatorRequestData { key, key_type: 0, ..Default::default() };
    match broker.ask(&asked).await {
        Err(error) => Finding::fail(format!("the coordinator of a group is not told: {error}")),
        Ok(answer) if answer.error_code != 0 => {
            let code = answer.error_code;
            Finding::fail(format!("groups have no coordinator now (error {code})")).fix(
                "see `streamhouse cluster health`: without a majority of voters nobody can look after groups",
            )
        }
        Ok(answer) if nodes.contains_key(&answer.node_id) => {
            Finding::ok(format!("groups find their coordinator (node {} for one of them)", answer.node_id))
        }
        Ok(answer) => Finding::fail(format!(
            "groups are sent to node {}, which clients are not told of",
            answer.node_id
        )),
    }
}

#[cfg(test)]
mod tests;
