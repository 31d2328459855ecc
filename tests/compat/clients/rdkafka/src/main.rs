//! Operations of the compatibility scenarios with rdkafka: asked by one line of JSON, it answers in lines of JSON.

mod admin;
mod group;
mod perf;
mod records;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Read as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rdkafka::ClientConfig;
use serde::Deserialize;
use serde_json::{Value, json};

/// The input has ended.
static OVER: AtomicBool = AtomicBool::new(false);

/// All that can be asked; each operation uses its part.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Request {
    topic: String,
    group: String,
    mode: String,
    instance: Option<String>,
    compression: String,
    idempotent: bool,
    partition: i32,
    partitions: i32,
    from: i64,
    count: usize,
    per_second: f64,
    bytes: usize,
    seconds: f64,
    settings: BTreeMap<String, String>,
    times: Vec<i64>,
    records: Vec<Sent>,
    steps: Vec<admin::Step>,
}

/// A record to be written; bytes are hexadecimal.
#[derive(Deserialize)]
struct Sent {
    partition: i32,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
    timestamp: Option<i64>,
}

fn out(line: Value) {
    println!("{line}");
}

fn over() -> bool {
    OVER.load(Ordering::Relaxed)
}

fn bytes(text: Option<&String>) -> anyhow::Result<Option<Vec<u8>>> {
    Ok(text.map(hex::decode).transpose()?)
}

fn config(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("topic.metadata.refresh.interval.ms", "1000");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

fn consumer_config(bootstrap: &str, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = config(
        bootstrap,
        &[("group.id", "unused"), ("auto.offset.reset", "earliest"), ("enable.auto.commit", "false")],
    );
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

/// Numbers from 0 on, so many a second, until the input ends.
fn paced(per_second: f64, mut call: impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut number = 0;
    while !over() {
        call(number)?;
        number += 1;
        let due = Duration::from_secs_f64(f64::from(number) / per_second);
        std::thread::park_timeout(due.saturating_sub(started.elapsed()));
    }
    Ok(())
}

async fn perform(operation: &str, bootstrap: &str, asked: Request) -> anyhow::Result<()> {
    match operation {
        "produce" => records::produce(bootstrap, asked).await,
        "read" => records::read(bootstrap, &asked),
        "seek" => records::seek(bootstrap, &asked),
        "follow" => records::follow(bootstrap, &asked),
        "stream" => records::stream(bootstrap, &asked),
        "group" => group::group(bootstrap, &asked),
        "committed" => group::committed(bootstrap, &asked),
        "flood" => perf::flood(bootstrap, &asked),
        "paced" => perf::paced(bootstrap, &asked),
        "drain" => perf::drain(bootstrap, &asked),
        "admin" => admin::admin(bootstrap, asked.steps).await,
        _ => anyhow::bail!("unknown: {operation}"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line)?;
    drop(input);
    let asked = serde_json::from_str(&line).context("the request")?;
    std::thread::spawn(|| {
        let _ended = std::io::stdin().lock().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
    });
    let done = perform(&arguments[1], &arguments[2], asked).await;
    if let Err(error) = &done {
        out(json!({ "error": format!("{error:#}") }));
        std::process::exit(1);
    }
    std::process::exit(0)
}

/// Offsets by partition, as they are printed.
type Offsets = BTreeMap<i32, i64>;
