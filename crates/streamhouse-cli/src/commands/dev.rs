//! `streamhouse dev`.

mod nodes;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use streamhouse_server::{DevOptions, Ready, Signals};
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::mpsc;

use crate::address;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::Output;
use crate::settings::DevSettings;
use streamhouse_units as units;

use self::nodes::{Children, News, NodeReady, Plan};
use super::server::start_failure;

/// News of the nodes that may wait.
const NEWS_WAITING: usize = 64;
const DATA_DIR: &str = "./.streamhouse";

/// Run one node, or a few, for trying out; the data lies in ./.streamhouse
///
/// Starts a cluster of one in this process, or with --nodes a cluster of several processes. Topics are made by the first write to them. Records, metadata and the
/// addresses in use are kept in the data directory, so that the next start finds them again. Everything listens on
/// 127.0.0.1 unless told otherwise. Any setting of `streamhouse server` can be given as well, such as
/// --wal.flush-interval 10ms.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  streamhouse dev\n  streamhouse dev --data-dir /tmp/house --grpc-addr 127.0.0.1:0\n  streamhouse dev --store s3://bucket/prefix\n  streamhouse dev --nodes 3"
)]
pub(crate) struct DevArgs {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Address for Kafka clients; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    kafka_addr: Option<String>,
    /// Address for clients; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    grpc_addr: Option<String>,
    /// Address for other nodes; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    internal_addr: Option<String>,
    /// Address for metrics and health; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Keep the records elsewhere: file:///dir, s3://bucket/prefix, gs://…, az://…, memory://
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// How many nodes to run, each in a process of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// Stop when standard input ends: how the nodes of --nodes learn that the process which started them is gone
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
    #[command(flatten)]
    settings: DevSettings,
}

/// What the command prints once the node takes requests.
#[derive(Serialize)]
pub(super) struct ReadyDocument {
    ready: bool,
    ready_ms: f64,
    kafka: String,
    grpc: String,
    internal: String,
    http: String,
    data_dir: String,
    store_url: String,
    cluster_id: String,
    node_id: u64,
}

impl ReadyDocument {
    pub(super) fn of(ready: &Ready) -> Self {
        Self {
            ready: true,
            ready_ms: crate::output::millis(ready.elapsed),
            kafka: ready.addresses.kafka.to_string(),
            grpc: ready.addresses.grpc.to_string(),
            internal: ready.addresses.internal.to_string(),
            http: ready.addresses.http.to_string(),
            data_dir: ready.data_dir.display().to_string(),
            store_url: ready.store_url.clone(),
            cluster_id: ready.cluster.to_string(),
            node_id: ready.node.get(),
        }
    }
}

pub(crate) async fn run(args: DevArgs, output: Output) -> Result<Exit, Stop> {
    nodes::check_folder(&args.data_dir, args.nodes)?;
    let (nodes, data_dir) = (args.nodes, args.data_dir.clone());
    let options = DevOptions {
        data_dir: Some(args.data_dir),
        kafka_addr: args.kafka_addr,
        grpc_addr: args.grpc_addr,
        internal_addr: args.internal_addr,
        http_addr: args.http_addr,
        store: args.store,
        settings: args.settings.0,
    };
    if args.stop_with_stdin {
        nodes::stop_with_stdin();
    }
    if nodes > 1 {
        return run_nodes(Plan { nodes, data_dir, options }, output).await;
    }
    let greet = |ready: &Ready| {
        // A node whose greeting nobody reads serves all the same.
        let _unread = output.result(&ReadyDocument::of(ready), |out| greeting(ready, out));
    };
    streamhouse_server::run_dev(options, greet).await.map_err(|error| start_failure(&error))?;
    output.say(&format!("stopped; the data stays in {}", data_dir.display()));
    Ok(Exit::Done)
}

/// What the command prints once all nodes take requests.
#[derive(Serialize)]
struct NodesDocument<'a> {
    ready: bool,
    nodes: Vec<&'a NodeReady>,
    pids: Vec<u32>,
    data_dir: String,
}

async fn run_nodes(plan: Plan, output: Output) -> Result<Exit, Stop> {
    let members = plan.members()?;
    let (sender, mut news) = mpsc::channel(NEWS_WAITING);
    let mut interrupt = Signals::listen()?;
    let mut children = Children::default();
    // All at once: new ones wait for the first to found the cluster, old ones need each other for a majority.
    for number in 1..=plan.nodes {
        plan.start(number, &members, &mut children, &sender)?;
    }
    let mut ready: BTreeMap<u32, NodeReady> = BTreeMap::new();
    loop {
        let (number, said) = tokio::select! {
            said = news.recv() => said.expect("this task holds a sender"),
            _ = interrupt.next() => break,
        };
        match said {
            News::Ready(node) => {
                ready.insert(number, node);
                if ready.len() == plan.nodes as usize {
                    plan.write_endpoints(&ready)?;
                    greet_nodes(&plan, &ready, &children, output);
                }
            }
            News::Ended(said) => {
                let how = children.ended(number);
                if ready.len() < plan.nodes as usize {
                    return Err(not_started(number, &how, &said).into());
                }
                output.say(&format!(
                    "node {number} has ended: {how}; the others go on. To have it back stop this command and start it again"
                ));
            }
        }
    }
    plan.remove_endpoints();
    let majority = plan.nodes as usize / 2 + 1;
    tokio::task::spawn_blocking(move || children.stop(majority)).await.map_err(std::io::Error::other)??;
    output.say(&format!("stopped; the data stays in {}", plan.data_dir.display()));
    Ok(Exit::Done)
}

/// The failure that ended a node, by what it said of itself.
fn not_started(number: u32, how: &str, said: &Value) -> Failure {
    let said = &said["error"];
    let text = |field: &str| said[field].as_str();
    let message = format!("node {number} did not start: {}", text("message").unwrap_or(how));
    let mut failure = Failure::of_code(ErrorCode::Internal, message);
    if let Some(code) = text("code") {
        failure.code = code.to_owned();
        failure.hint = text("hint").map(str::to_owned);
        failure.retryable = said["retryable"] == true;
        failure.exit =
            Exit::from_code(said["exit_code"].as_u64().and_then(|code| code.try_into().ok()).unwrap_or(1));
    }
    failure
}

fn greet_nodes(plan: &Plan, ready: &BTreeMap<u32, NodeReady>, children: &Children, output: Output) {
    let pids = children.pids();
    let document = NodesDocument {
        ready: true,
        nodes: ready.values().collect(),
        pids: pids.values().copied().collect(),
        data_dir: plan.data_dir.display().to_string(),
    };
    // A cluster whose greeting nobody reads serves all the same.
    let _unread = output.result(&document, |out| {
        writeln!(out, "  StreamHouse {}  {} nodes ready", env!("CARGO_PKG_VERSION"), ready.len())?;
        writeln!(out, "  data     {}", plan.data_dir.display())?;
        for (number, node) in ready {
            writeln!(
                out,
                "  node {number}   kafka {}  grpc {}  http http://{}/metrics  pid {}",
                node.kafka, node.grpc, node.http, pids[number]
            )?;
        }
        let servers: Vec<&str> = ready.values().map(|node| node.grpc.as_str()).collect();
        let found_by_itself = plan.data_dir == Path::new(DATA_DIR);
        let server = if found_by_itself { String::new() } else { format!(" --server {}", servers.join(",")) };
        writeln!(out, "  try      echo hello | streamhouse produce greetings{server}")?;
        writeln!(out, "           streamhouse node list{server}")
    });
}

fn greeting(ready: &Ready, out: &mut impl Write) -> std::io::Result<()> {
    let grpc = ready.addresses.grpc.to_string();
    let found_by_itself = ready.data_dir == Path::new(DATA_DIR) || grpc == address::DEFAULT;
    let server = if found_by_itself { String::new() } else { format!(" --server {grpc}") };
    let version = env!("CARGO_PKG_VERSION");
    let elapsed = units::span(ready.elapsed.max(Duration::from_micros(1)));
    writeln!(out, "  StreamHouse {version}  ready in {elapsed}")?;
    writeln!(out, "  data     {}", ready.data_dir.display())?;
    writeln!(out, "  store    {}", ready.store_url)?;
    writeln!(out, "  kafka    {}", ready.addresses.kafka)?;
    writeln!(out, "  grpc     {grpc}")?;
    writeln!(out, "  http     http://{}/metrics", ready.addresses.http)?;
    writeln!(out, "  try      echo hello | streamhouse produce greetings{server}")?;
    writeln!(out, "           streamhouse consume greetings{server}")
}
