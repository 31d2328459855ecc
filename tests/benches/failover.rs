//! How long clients wait when a node goes: three processes over one S3 server that takes 3 ms at the median and 30 ms at p99, a producer for each partition that sends all the
//! time, and for each trial the longest time that a partition went without an acknowledgement.
//!
//! Partitions whose home is the node that goes are told apart from the others, and what its going costs from what its
//! coming back costs.
//! `cargo bench -p streamhouse-tests --bench failover [-- PART…]` with the parts `follower`, `leader`, `rolling`; all
//! without a name. `STREAMHOUSE_TRIALS` sets how many trials (20). It fails when a record does, and when writing stands still
//! for longer than it may: p50 and p99 in milliseconds of a killed follower 1,000 and 1,000, of a killed leader 1,500 and
//! 3,000, of a node that is stopped in order 500 and 500.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use streamhouse_client::{Mode, NewTopic, NodeId, PartitionIndex, Record, StreamHouse};
use streamhouse_tests::campaign::{length, percentile};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::faulty::FaultyCluster;
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

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let outcome = runtime.block_on(async {
        let mut site = FaultyCluster::new(3, |node: Node, _| node).await?;
        let cluster = &mut site.cluster;
        cluster.start().await?;
        let house = cluster.connect().await?;
        house.admin().create_topic(NewTopic::new(TOPIC).partitions(PARTITIONS), Mode::Apply).await?;
        let mut within = true;
        for (part, how, limits) in [
            ("follower", How::KillFollower, (1_000, 1_000)),
            ("leader", How::KillLeader, (1_500, 3_000)),
            ("rolling", How::Stop, (500, 500)),
        ] {
            if wanted(part) {
                within &= campaign(cluster, &house, (part, how, limits)).await?;
            }
        }
        ensure!(within, "a limit was missed");
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

/// One of the figures of a trial.
type Figure = fn(&Stalls) -> Duration;

/// The longest time without an acknowledgement of any partition of a kind, in one trial.
#[derive(Debug, Clone, Copy, Default)]
struct Stalls {
    /// Partitions at home on the node, while it goes.
    homes: Duration,
    /// The others, while it goes.
    others: Duration,
    /// All, while it comes back.
    on_return: Duration,
}

/// Runs the trials of one part; whether all of it stays within its limits, p50 and p99 in milliseconds.
async fn campaign(
    cluster: &mut Cluster,
    house: &StreamHouse,
    (part, how, limits): (&str, How, (u128, u128)),
) -> anyhow::Result<bool> {
    let trials = usize::try_from(length("STREAMHOUSE_TRIALS", 20))?;
    let mut stalls = Vec::new();
    for trial in 0..trials {
        stalls.push(one_trial(cluster, house, how, u32::try_from(trial)?).await?);
    }
    println!("{part}: {trials} trials, longest time without an acknowledgement");
    let kinds: [(&str, Figure); 3] = [
        ("its homes", |stalls| stalls.homes),
        ("others", |stalls| stalls.others),
        ("on return", |stalls| stalls.on_return),
    ];
    let mut all_within = true;
    for (kind, of) in kinds {
        let mut spans: Vec<Duration> = stalls.iter().map(of).collect();
        spans.sort_unstable();
        let at = |percent: usize| percentile(&spans, percent).as_millis();
        let within = at(50) <= limits.0 && at(99) <= limits.1;
        let word = if within { "within" } else { "OVER" };
        let (p50, p99, max) = (at(50), at(99), at(100));
        println!("  {kind:<10} p50 {p50:>5} ms   p99 {p99:>5} ms   max {max:>5} ms   {word} {limits:?}");
        all_within &= within;
    }
    Ok(all_within)
}

/// The partitions at home on a node.
async fn homes(house: &StreamHouse, node: u32) -> anyhow::Result<Vec<u32>> {
    let topic = house.topic(TOPIC).describe().await?;
    let own = topic.partitions.iter().filter(|partition| partition.home == Some(NodeId::new(node.into())));
    Ok(own.map(|partition| partition.index.get()).collect())
}

/// Waits until every node is home to something again, so that each trial takes homes away.
async fn share_homes(house: &StreamHouse) -> anyhow::Result<()> {
    let shared = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let mut all_have = true;
            for node in 1..=3 {
                all_have &= !homes(house, node).await?.is_empty();
            }
            if all_have {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, shared).await.context("a node got no homes")?
}

async fn one_trial(
    cluster: &mut Cluster,
    house: &StreamHouse,
    how: How,
    trial: u32,
) -> anyhow::Result<Stalls> {
    share_homes(house).await?;
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
    let homes = homes(house, victim).await?;
    let goes = now();
    match how {
        How::Stop => ensure!(cluster.node(victim).stop()?.success(), "{}", cluster.node(victim).log()),
        How::KillFollower | How::KillLeader => cluster.node(victim).kill(),
    }
    for stream in &mut streams {
        let target = *stream.acked.borrow() + 100;
        stream.wait_for(target).await?;
    }
    let returns = now();
    cluster.node(victim).start().await?;
    cluster.well().await?;
    for stream in &mut streams {
        let target = *stream.acked.borrow() + 50;
        stream.wait_for(target).await?;
    }
    let mut stalls = Stalls::default();
    for (partition, stream) in (0..PARTITIONS).zip(streams) {
        let acks = stream.finish().await?;
        let going = if homes.contains(&partition) { &mut stalls.homes } else { &mut stalls.others };
        *going = (*going).max(longest_gap(&acks, goes..returns));
        stalls.on_return = stalls.on_return.max(longest_gap(&acks, returns..now()));
    }
    if std::env::args().any(|argument| argument == "--each") {
        println!("  trial {trial}: n{victim} of homes {homes:?}, n{leader} led: {stalls:?}");
    }
    Ok(stalls)
}

/// The longest time between two acknowledgements, of those that reach into the span.
fn longest_gap(acks: &[Instant], span: Range<Instant>) -> Duration {
    let gaps = acks.windows(2).filter(|pair| pair[1] > span.start && pair[0] < span.end);
    gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Records to one partition, one every [`PACE`].
struct Stream {
    stop: watch::Sender<bool>,
    acked: watch::Receiver<u64>,
    acks: JoinHandle<anyhow::Result<Vec<Instant>>>,
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
            let mut acks = Vec::new();
            while let Some(ticket) = waiting.recv().await {
                ticket.await?;
                acks.push(now());
                count.send_replace(acks.len() as u64);
            }
            Ok(acks)
        });
        Ok(Self { stop, acked, acks })
    }

    async fn wait_for(&mut self, records: u64) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.acked.wait_for(|acked| *acked >= records)).await??;
        Ok(())
    }

    async fn finish(self) -> anyhow::Result<Vec<Instant>> {
        self.stop.send_replace(true);
        self.acks.await?
    }
}
