//! How long clients wait when a node goes: three processes over one store, producers that send to every partition all the
//! time, and for each trial the longest time that a partition went without an acknowledgement.
//! `cargo bench -p streamhouse-tests --bench failover [-- PART…]` with the parts `follower`, `leader`, `rolling`; all
//! without a name. `STREAMHOUSE_TRIALS` sets how many trials (20). It fails only when a record fails.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use streamhouse_client::{Mode, NewTopic, PartitionIndex, Record, StreamHouse};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::Node;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const TOPIC: &str = "failover";
const PARTITIONS: u32 = 6;
/// How often each partition is sent a record.
const PACE: Duration = Duration::from_millis(10);
/// Records of a partition that may wait for their acknowledgement.
const UNACKED: usize = 10_000;
/// What a partition may take to be written again before a trial counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the length of a campaign is set from outside")]
fn trials() -> usize {
    std::env::var("STREAMHOUSE_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let outcome = runtime.block_on(async {
        let mut cluster = Cluster::new(3, |node: Node, _| node)?;
        cluster.start().await?;
        let house = cluster.connect().await?;
        house.admin().create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS), Mode::Apply).await?;
        for (part, how) in
            [("follower", How::KillFollower), ("leader", How::KillLeader), ("rolling", How::Stop)]
        {
            if wanted(part) {
                campaign(&mut cluster, &house, part, how).await?;
            }
        }
        anyhow::Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// What befalls a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    KillFollower,
    KillLeader,
    /// SIGTERM, each node in turn.
    Stop,
}

async fn campaign(cluster: &mut Cluster, house: &StreamHouse, part: &str, how: How) -> anyhow::Result<()> {
    let mut stalls = Vec::new();
    for trial in 0..trials() {
        let stall = one_trial(cluster, house, how, u32::try_from(trial)?).await?;
        stalls.push(stall);
    }
    stalls.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = ((stalls.len() as f64 * share).ceil() as usize).clamp(1, stalls.len());
        stalls[rank - 1].as_millis()
    };
    println!(
        "{part:<9}{} trials: longest time without an acknowledgement p50 {} ms, p99 {} ms, max {} ms",
        stalls.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

async fn one_trial(
    cluster: &mut Cluster,
    house: &StreamHouse,
    how: How,
    trial: u32,
) -> anyhow::Result<Duration> {
    let leader = cluster.leader().await?;
    let victim = match how {
        How::KillLeader => leader,
        How::KillFollower => {
            (1..=3).filter(|node| *node != leader).nth(trial as usize % 2).context("three nodes")?
        }
        How::Stop => trial % 3 + 1,
    };
    let mut streams = Vec::new();
    for partition in 0..PARTITIONS {
        streams.push(Stream::start(house, partition).await?);
    }
    for stream in &mut streams {
        stream.wait_for(50).await?;
    }
    match how {
        How::Stop => ensure!(cluster.node(victim).stop()?.success(), "{}", cluster.node(victim).log()),
        How::KillFollower | How::KillLeader => cluster.node(victim).kill(),
    }
    for stream in &mut streams {
        let target = *stream.acked.borrow() + 100;
        stream.wait_for(target).await?;
    }
    cluster.node(victim).start().await?;
    cluster.well().await?;
    let mut longest = Duration::ZERO;
    for stream in streams {
        longest = longest.max(stream.finish().await?);
    }
    Ok(longest)
}

/// Records to one partition, one every [`PACE`].
struct Stream {
    stop: watch::Sender<bool>,
    acked: watch::Receiver<u64>,
    acks: JoinHandle<anyhow::Result<Duration>>,
}

impl Stream {
    async fn start(house: &StreamHouse, partition: u32) -> anyhow::Result<Self> {
        let producer = house.topic(TOPIC).producer().build().await?;
        let (stop, stopped) = watch::channel(false);
        let (count, acked) = watch::channel(0);
        let (tickets, mut waiting) = tokio::sync::mpsc::channel(UNACKED);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PACE);
            while !*stopped.borrow() {
                ticks.tick().await;
                let record = Record::new("x").partition(PartitionIndex::new(partition));
                let Ok(ticket) = producer.send(record).await else { return };
                if tickets.send(ticket).await.is_err() {
                    return;
                }
            }
        });
        let acks = tokio::spawn(async move {
            let (mut last, mut longest) = (now(), Duration::ZERO);
            while let Some(ticket) = waiting.recv().await {
                ticket.await?;
                longest = longest.max(last.elapsed());
                last = now();
                count.send_modify(|count| *count += 1);
            }
            Ok(longest)
        });
        Ok(Self { stop, acked, acks })
    }

    async fn wait_for(&mut self, records: u64) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.acked.wait_for(|acked| *acked >= records)).await??;
        Ok(())
    }

    async fn finish(self) -> anyhow::Result<Duration> {
        self.stop.send_replace(true);
        self.acks.await?
    }
}
