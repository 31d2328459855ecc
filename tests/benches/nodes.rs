//! What several nodes cost: the same load on a cluster of one and on a cluster of three, all on this machine, taking
//! turns; and how much longer than a bare synced file a lone record takes on each, which is what Raft adds.
//! `cargo bench -p streamhouse-tests --bench nodes`. It fails only when a record fails.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use streamhouse_client::{Mode, NewTopic, Producer, Record, Topic};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::Node;

const TOPIC: &str = "nodes";
const PARTITIONS: u32 = 6;
const RECORD_BYTES: usize = 1 << 10;
/// Records of one round in bulk: 128 MiB.
const BULK_RECORDS: u64 = 128 << 10;
const BULK_ROUNDS: usize = 5;
const LONE_ROUNDS: usize = 1_000;
/// Acknowledgements that are waited for at one time.
const UNACKED: usize = 100_000;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    match runtime.block_on(run()) {
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

async fn run() -> anyhow::Result<()> {
    let (one, three) = (Site::start(1).await?, Site::start(3).await?);
    let folder = tempfile::tempdir()?;
    let (mut bulk_one, mut bulk_three) = (Vec::new(), Vec::new());
    for _ in 0..BULK_ROUNDS {
        bulk_one.push(one.bulk().await?);
        bulk_three.push(three.bulk().await?);
    }
    println!("records/s of {RECORD_BYTES} bytes, {PARTITIONS} partitions, median of {BULK_ROUNDS} rounds");
    let rate = |mut times: Vec<Duration>| {
        times.sort_unstable();
        BULK_RECORDS as f64 / times[times.len() / 2].as_secs_f64()
    };
    let (base, three_rate) = (rate(bulk_one), rate(bulk_three));
    println!("  one node    {base:9.0}   1.00");
    println!("  three nodes {three_rate:9.0}   {:.2}", three_rate / base);

    let mut times = [const { Vec::new() }; 3];
    for round in 0..LONE_ROUNDS {
        // Nobody is always the one who comes after the same neighbour.
        for turn in 0..times.len() {
            let which = (round + turn) % times.len();
            times[which].push(match which {
                0 => raw_put(folder.path(), round)?,
                1 => one.lone().await?,
                _ => three.lone().await?,
            });
        }
    }
    println!(
        "one durable record on an idle cluster, {LONE_ROUNDS} rounds         p50 ms    p99 ms   more than raw"
    );
    let mut base = None;
    for (what, mut times) in ["raw put, synced", "one node", "three nodes"].into_iter().zip(times) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let more = at(50) - *base.get_or_insert(at(50));
        println!("  {what:56} {:9.2} {:9.2} {more:9.2} ms", at(50), at(99));
    }
    Ok(())
}

/// A file of as many bytes, synced under its name.
fn raw_put(folder: &Path, number: usize) -> anyhow::Result<Duration> {
    let begun = now();
    let staged = folder.join("staged");
    let mut file = File::create_new(&staged)?;
    file.write_all(&[7; RECORD_BYTES])?;
    file.sync_all()?;
    fs::rename(&staged, folder.join(number.to_string()))?;
    File::open(folder)?.sync_all()?;
    Ok(begun.elapsed())
}

/// A cluster with a topic.
struct Site {
    topic: Topic,
    producer: Producer,
    _cluster: Cluster,
}

impl Site {
    async fn start(count: u32) -> anyhow::Result<Self> {
        let mut cluster = Cluster::new(count, |node: Node, _| node)?;
        cluster.start().await?;
        let house = cluster.connect().await?;
        house.admin().create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS), Mode::Apply).await?;
        let topic = house.topic(TOPIC);
        let producer = topic.producer().build().await?;
        Ok(Self { topic, producer, _cluster: cluster })
    }

    /// Records without keys, as fast as they are taken, until all are acknowledged.
    async fn bulk(&self) -> anyhow::Result<Duration> {
        let producer = self.topic.producer().build().await?;
        let value = Bytes::from(vec![7; RECORD_BYTES]);
        let begun = now();
        let (tickets, mut waiting) = tokio::sync::mpsc::channel(UNACKED);
        let sending = async move {
            for _ in 0..BULK_RECORDS {
                tickets.send(producer.send(Record::new(value.clone())).await?).await?;
            }
            anyhow::Ok(producer)
        };
        let taking = async {
            let mut acked = 0;
            while let Some(ticket) = waiting.recv().await {
                ticket.await?;
                acked += 1;
            }
            ensure!(acked == BULK_RECORDS, "{acked} acknowledged");
            Ok(())
        };
        let (producer, ()) = tokio::try_join!(sending, taking)?;
        let took = begun.elapsed();
        producer.close().await?;
        Ok(took)
    }

    async fn lone(&self) -> anyhow::Result<Duration> {
        let begun = now();
        self.producer.send(Record::new(vec![7; RECORD_BYTES])).await?.await?;
        Ok(begun.elapsed())
    }
}
