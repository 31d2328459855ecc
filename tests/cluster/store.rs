//! What the store does to three nodes.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::ensure;
use streamhouse_client::{Mode, NewTopic};
use streamhouse_faults::{Fault, FaultPlan, Op, OpPlan, Place};
use streamhouse_tests::campaign::{Campaign, length, percentile};
use streamhouse_tests::faulty::{FaultyCluster, calm};
use streamhouse_tests::history::Recording;
use streamhouse_tests::load::{Load, Running, verify_deep};
use streamhouse_tests::node::Node;
use tokio::time::{Instant, Interval};

use super::as_it_is;

/// Of ten requests so many are told to slow down.
fn storm() -> FaultPlan {
    let plan = OpPlan { faults: [(Fault::SlowDown, 0.8)].into(), ..OpPlan::default() };
    [Op::Put, Op::Get, Op::List].into_iter().map(|op| (op, plan.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_answers_503_to_nearly_everything_fails_no_record() -> anyhow::Result<()> {
    let mut site = FaultyCluster::new(3, as_it_is).await?;
    let mut campaign = Campaign::begin(&mut site.cluster, "storm").await?;
    for _ in 0..3 {
        campaign.more(300).await?;
        site.store.faults().set_plan(storm());
        campaign.more(1_000).await?;
        site.store.faults().set_plan(calm());
    }
    let told = site.store.faults().counters().faults.get(&Fault::SlowDown).copied().unwrap_or_default();
    println!("{told} requests were told to slow down");
    ensure!(told > 20, "no storm: {told}");
    campaign.end(&site.cluster).await
}

/// Budget of each node for unacknowledged bytes, and its caches.
const IN_FLIGHT: u64 = 64 << 20;
const CACHE: u64 = 64 << 20;
/// What a node may use beside its budgets.
const ALLOWANCE: u64 = 128 << 20;
const CEILING: u64 = IN_FLIGHT + CACHE + ALLOWANCE;
/// What all producers together offer in a second.
const OFFERED: u64 = 24 << 20;
const VALUE_BYTES: usize = 16 << 10;
/// Records in a second that are stored at least while the store is well.
const LEAST: f64 = 200.0;
const PARTITIONS: u32 = 12;
const PRODUCERS: u32 = 4;
/// How often is looked at how far they are.
const LOOK: Duration = Duration::from_millis(100);
/// For so long the rate is measured before the store goes; it is regained when this window has nine tenths of it.
const BEFORE: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(1);
/// Within this time after the store is back.
const REGAINED_WITHIN: Duration = Duration::from_secs(10);

fn within_budgets(node: Node, _number: u32) -> Node {
    node.variable("STREAMHOUSE_LIMITS__IN_FLIGHT_BYTES", IN_FLIGHT.to_string())
        .variable("STREAMHOUSE_LIMITS__CACHE_BYTES", CACHE.to_string())
}

fn acked(loads: &[Running]) -> u64 {
    loads.iter().map(Running::acked).sum()
}

/// How many records are acknowledged in a second, looked at again and again.
struct Pace {
    ticks: Interval,
    samples: VecDeque<(Instant, u64)>,
}

impl Pace {
    fn new() -> Self {
        Self { ticks: tokio::time::interval(LOOK), samples: VecDeque::new() }
    }

    /// Waits for the next look, and looks.
    async fn look(&mut self, loads: &[Running]) {
        self.ticks.tick().await;
        self.samples.push_back((Instant::now(), acked(loads)));
    }

    /// Over everything since the start, or since this was asked last.
    fn take(&mut self) -> f64 {
        let rate = self.rate();
        self.samples.clear();
        rate
    }

    fn rate(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((since, before)), Some((now, acked))) if now > since => {
                per_second(acked - before, *now - *since)
            }
            _ => 0.0,
        }
    }

    /// Over the newest second; nothing before there is one.
    fn newest(&mut self) -> Option<f64> {
        let now = self.samples.back()?.0;
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
        (now - self.samples.front()?.0 >= WINDOW).then(|| self.rate())
    }
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 records")]
fn per_second(records: u64, span: Duration) -> f64 {
    records as f64 / span.as_secs_f64()
}

/// Producers on connections of their own: their windows take far more than the nodes' budgets.
async fn producers(site: &FaultyCluster, recording: &Recording) -> anyhow::Result<Vec<Running>> {
    let mut loads = Vec::new();
    for first_producer in 0..PRODUCERS {
        let load = Load {
            topic: "outage".into(),
            partitions: PARTITIONS,
            producers: 1,
            value_bytes: VALUE_BYTES,
            first_producer,
            bytes_per_second: Some(OFFERED / u64::from(PRODUCERS)),
            recorder: recording.recorder(),
        };
        loads.push(load.start(&site.cluster.connect().await?).await?);
    }
    Ok(loads)
}

/// The most that any node has resident, now.
fn resident(site: &FaultyCluster) -> anyhow::Result<u64> {
    let all = site.cluster.nodes.iter().map(|node| node.resident_bytes().map(|(now, _)| now));
    Ok(all.collect::<anyhow::Result<Vec<_>>>()?.into_iter().max().unwrap_or_default())
}

/// Ends the producers, reads everything back and has it judged; the most that any node had resident all the time.
async fn settle(site: &FaultyCluster, loads: Vec<Running>, recording: &Recording) -> anyhow::Result<u64> {
    loads.iter().for_each(Running::stop);
    let mut all_sent = Vec::new();
    for running in loads {
        all_sent.push(running.finish().await?);
    }
    let house = site.cluster.connect().await?;
    for sent in all_sent {
        let judgement = sent.judge(&house).await?;
        ensure!(judgement.is_clean() && judgement.acked == sent.records, "{judgement} of {}", sent.records);
    }
    let peaks = site.cluster.nodes.iter().map(|node| node.resident_bytes().map(|(_, peak)| peak));
    let peak = peaks.collect::<anyhow::Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
    let verified = verify_deep(&house).await?;
    ensure!(verified.faults.is_empty(), "{verified:?}");
    recording.audited(&verified);
    println!("{}", recording.judge()?);
    Ok(peak)
}

/// What it cost that the store was gone for a while.
struct Outage {
    /// Records in a second before, and when the rate was looked at last.
    rates: (f64, f64),
    /// How long after its return nine tenths of the rate were there again.
    regained: Option<Duration>,
    /// The most that a node had resident.
    peak: u64,
}

async fn outage(
    site: &FaultyCluster,
    loads: &[Running],
    pace: &mut Pace,
    span: Duration,
) -> anyhow::Result<Outage> {
    pace.take();
    let start = Instant::now();
    while start.elapsed() < BEFORE {
        pace.look(loads).await;
    }
    let (before, mut peak) = (pace.take(), resident(site)?);
    ensure!(before >= LEAST, "only {before:.0} records/s are stored: there is nothing to regain");
    site.store.faults().stop();
    let gone = Instant::now();
    while gone.elapsed() < span {
        pace.look(loads).await;
        peak = peak.max(resident(site)?);
    }
    site.store.faults().resume();
    let back = Instant::now();
    pace.take();
    let regained = loop {
        pace.look(loads).await;
        if pace.newest().is_some_and(|rate| rate >= 0.9 * before) {
            break Some(back.elapsed());
        }
        if back.elapsed() > REGAINED_WITHIN {
            break None;
        }
    };
    Ok(Outage { rates: (before, pace.rate()), regained, peak })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_wait_within_bounded_memory_while_the_store_of_a_cluster_is_gone_and_regain_their_rate()
-> anyhow::Result<()> {
    // They may be more than there is memory for.
    let objects = tempfile::tempdir()?;
    let place = Place::Folder(objects.path().to_owned());
    let mut site = FaultyCluster::with_objects_in(place, 3, within_budgets).await?;
    let recording = Recording::begin(site.cluster.folder())?;
    site.cluster.start().await?;
    let house = site.cluster.connect().await?;
    house.admin().create_topic(NewTopic::new("outage").partitions(PARTITIONS), Mode::Apply).await?;
    let mut loads = producers(&site, &recording).await?;
    for running in &mut loads {
        running.wait_for(500).await?;
    }
    let span = Duration::from_secs(length("STREAMHOUSE_OUTAGE_SECONDS", 10));
    let mut pace = Pace::new();
    let mut outages = Vec::new();
    for _ in 0..length("STREAMHOUSE_OUTAGES", 1) {
        let outage = outage(&site, &loads, &mut pace, span).await?;
        let ((before, after), regained, peak) = (outage.rates, outage.regained, outage.peak >> 20);
        println!(
            "store gone for {span:?}: {before:.0} records/s before, {after:.0} records/s {regained:?} after its return; \
             at most {peak} MiB resident in a node while it was gone"
        );
        outages.push(outage);
    }
    let most = settle(&site, loads, &recording).await?;
    let mut regained: Vec<Duration> = outages.iter().filter_map(|outage| outage.regained).collect();
    regained.sort_unstable();
    println!(
        "{} of {} times the rate was regained, p50 {:?}, p99 {:?}; at most {} MiB resident in a node until all was \
         read, ceiling {} MiB",
        regained.len(),
        outages.len(),
        percentile(&regained, 50),
        percentile(&regained, 99),
        most >> 20,
        CEILING >> 20
    );
    ensure!(most <= CEILING, "{most} bytes resident, over the ceiling of {CEILING}");
    ensure!(regained.len() == outages.len(), "not regained within {REGAINED_WITHIN:?}");
    Ok(())
}
