//! How long acknowledgements take on a store whose uploads have a long tail (half within 30 ms, one in a hundred after
//! 400 ms), without and with second requests, next to what the store itself takes. All three in one run, side by side,
//! so that the ratios do not depend on the machine. `just hedge 60` for another number of seconds than 300. It fails
//! only when a record fails, or when not all that second requests left behind is swept.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::StreamExt as _;
use streamhouse_client::{Mode, NewTopic, Position, Record, StreamHouse};
use streamhouse_faults::{Delay, FaultPlan, FaultServer, Op, OpPlan, ServerOptions};
use streamhouse_tests::faulty::on_store;
use streamhouse_tests::load::verify_deep;
use streamhouse_tests::node::Node;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const DELAY: Delay = Delay { median_ms: 30.0, p99_ms: Some(400.0) };
const SECONDS: u64 = 300;
/// A node knows what slow is only after some uploads; until then nothing is measured.
const WARM_UP: Duration = Duration::from_secs(10);
/// How often a record is sent.
const PACE: Duration = Duration::from_millis(10);
const RECORD_BYTES: usize = 1 << 10;
/// Records that may wait for their acknowledgement.
const UNACKED: usize = 10_000;
/// Uploads past every node: how many at once, and how large, about as those of a node.
const RAW_AT_ONCE: usize = 4;
const RAW_BYTES: usize = 6 << 10;

fn main() -> ExitCode {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(SECONDS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    match runtime.block_on(run(WARM_UP + Duration::from_secs(seconds))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:?}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
fn now() -> Instant {
    Instant::now()
}

async fn run(length: Duration) -> anyhow::Result<()> {
    let plan = FaultPlan::from([(Op::Put, OpPlan { delay: Some(DELAY), ..OpPlan::default() })]);
    let store = FaultServer::start(ServerOptions { seed: 1, plan, ..ServerOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let (off, auto) =
        (Bench::start(&store, &folder, "off").await?, Bench::start(&store, &folder, "auto").await?);
    let end = now() + length;
    let measured = now() + WARM_UP;
    let (acks_off, acks_auto, raw) = futures::try_join!(
        off.acks(measured, end),
        auto.acks(measured, end),
        raw_puts(&store, measured, end),
    )?;
    println!("way                       requests     p50     p95     p99   p99.9   p99.9 / raw   (ms)");
    let base = print_row("raw PUT", raw, None);
    print_row("acks, store.hedge = off", acks_off, Some(base));
    print_row("acks, store.hedge = auto", acks_auto, Some(base));
    store.faults().set_plan(FaultPlan::new());
    off.settle("off").await?;
    auto.settle("auto").await
}

/// Prints the percentiles; returns the last one.
fn print_row(what: &str, mut times: Vec<Duration>, base: Option<f64>) -> f64 {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1_000].as_secs_f64() * 1_000.0;
    let last = at(999);
    println!(
        "{what:24} {:9} {:7.0} {:7.0} {:7.0} {last:7.0} {:13.2}",
        times.len(),
        at(500),
        at(950),
        at(990),
        last / base.unwrap_or(last)
    );
    last
}

/// A node with a topic of one partition.
struct Bench {
    node: Node,
    house: StreamHouse,
}

const TOPIC: &str = "hedge";

impl Bench {
    /// A node on the store, in a folder of its own.
    async fn start(store: &FaultServer, folder: &TempDir, hedge: &str) -> anyhow::Result<Self> {
        let mut node = on_store(Node::new(&folder.path().join(hedge)), store, hedge)
            .variable("STREAMHOUSE_STORE__HEDGE", hedge);
        node.start().await?;
        let house = StreamHouse::connect(node.grpc()).await?;
        house.admin().create_topic(NewTopic::new(TOPIC).partitions(1), Mode::Apply).await?;
        Ok(Self { node, house })
    }

    /// Sends a record every [`PACE`] until `end`; how long the acknowledgements took of those sent after `measured`.
    async fn acks(&self, measured: Instant, end: Instant) -> anyhow::Result<Vec<Duration>> {
        let producer = self.house.topic(TOPIC).producer().build().await?;
        let (tickets, mut waiting) = tokio::sync::mpsc::channel(UNACKED);
        let sender = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PACE);
            while now() < end {
                ticks.tick().await;
                let sent = now();
                let ticket = producer.send(Record::new(vec![7; RECORD_BYTES])).await?;
                tickets.send((sent, ticket)).await?;
            }
            drop(tickets);
            producer.close().await?;
            anyhow::Ok(())
        });
        let mut times = Vec::new();
        // Acknowledgements of one partition come in the order of its records.
        while let Some((sent, ticket)) = waiting.recv().await {
            ticket.await?;
            if sent >= measured {
                times.push(sent.elapsed());
            }
        }
        sender.await??;
        Ok(times)
    }

    /// Prints what second requests cost; checks that every record is there, and nothing else once it is swept.
    async fn settle(mut self, hedge: &str) -> anyhow::Result<()> {
        let mut records = self.house.topic(TOPIC).read(Position::Start).open().await?.records();
        let mut next = 0;
        while let Some(record) = records.next().await {
            ensure!(record?.offset.get() == next, "a gap before offset {next}");
            next += 1;
        }
        for line in self.node.metrics().await?.lines() {
            if line.contains("purpose=\"produce\"")
                && line.starts_with("streamhouse_object_store_requests_total")
                || line.starts_with("streamhouse_object_store_hedges_total")
            {
                println!("{hedge}: {line}");
            }
        }
        let swept = self.house.admin().sweep_storage().await?;
        let verified = verify_deep(&self.house).await?;
        println!("{hedge}: {next} records read back, {} orphans deleted", swept.orphans_deleted);
        ensure!(verified.faults.is_empty() && verified.orphans == 0, "{verified:?}");
        ensure!(self.node.stop()?.success(), "{}", self.node.log());
        Ok(())
    }
}

/// Uploads to the store by hand, some at once, each connection one after the other.
async fn raw_puts(store: &FaultServer, measured: Instant, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let puts = (0..RAW_AT_ONCE).map(|lane| async move {
        let address = store.address();
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (body, mut times, mut number) = (vec![7; RAW_BYTES], Vec::new(), 0);
        while now() < end {
            let head = format!(
                "PUT /bucket/raw/{lane}-{number} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {RAW_BYTES}\r\n\r\n"
            );
            let sent = now();
            stream.write_all(&[head.as_bytes(), &body].concat()).await?;
            let answer = read_head(&mut stream).await?;
            ensure!(answer.starts_with("http/1.1 200"), "{answer}");
            ensure!(answer.contains("content-length: 0"), "an answer with a body: {answer}");
            if sent >= measured {
                times.push(sent.elapsed());
            }
            number += 1;
        }
        anyhow::Ok(times)
    });
    Ok(futures::future::try_join_all(puts).await?.concat())
}

/// Reads up to the empty line.
async fn read_head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let (mut head, mut buffer) = (Vec::new(), [0; 4_096]);
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the store hung up");
        head.extend_from_slice(&buffer[..read]);
    }
    Ok(String::from_utf8(head)?.to_ascii_lowercase())
}
