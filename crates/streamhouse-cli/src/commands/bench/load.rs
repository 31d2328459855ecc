//! The writing side of the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use indicatif::ProgressBar;
use streamhouse_client::{AppendTo, Compression, PartitionIndex, Producer, Record, Topic};
use streamhouse_env::Env;

use crate::chain::ChainWriter;
use crate::commands::acks::{Acks, AcksOut};
use crate::context::Interrupt;
use crate::failure::{Failure, LocalCode, Stop};
use crate::latency::Latencies;
use crate::units::{counted, rate};

/// What is written, and how.
pub(super) struct Plan {
    pub(super) topic: Topic,
    pub(super) partitions: u32,
    pub(super) producers: u16,
    pub(super) size: usize,
    pub(super) records: Option<u64>,
    pub(super) duration: Duration,
    pub(super) rate: Option<u64>,
    pub(super) unary: bool,
    pub(super) compression: Compression,
    pub(super) linger: Option<Duration>,
    pub(super) batch_bytes: Option<u32>,
    pub(super) env: Env,
    /// The zero of all times that records carry.
    pub(super) started: Duration,
}

impl Plan {
    /// Microseconds since the start.
    pub(super) fn micros(&self) -> u64 {
        let elapsed = self.env.clock.now().saturating_sub(self.started);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How many records each chain has: by producer, then by partition.
pub(super) type Chains = Vec<Vec<u64>>;

/// What was written.
pub(super) struct Load {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
    pub(super) latencies: Latencies,
    pub(super) chains: Chains,
    pub(super) interrupted: bool,
}

/// What the producers share: the numbers they take, and whether they go on.
struct Shared {
    next: AtomicU64,
    begun: Duration,
}

impl Load {
    /// Writes until the plan is fulfilled or the user has seen enough, and waits until all of it is durable.
    ///
    /// # Errors
    /// The first failure of a record.
    pub(super) async fn run(
        plan: &Arc<Plan>,
        mut interrupt: Interrupt,
        bar: &ProgressBar,
    ) -> Result<Self, Stop> {
        let shared = Arc::new(Shared { next: AtomicU64::new(0), begun: plan.env.clock.now() });
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut writers = Vec::new();
        for id in 0..plan.producers {
            let writer = Writer::open(id, plan.clone(), shared.clone(), stopped.clone(), bar.clone()).await?;
            writers.push(tokio::spawn(writer.run()));
        }
        let mut load = Self {
            records: 0,
            elapsed: Duration::ZERO,
            latencies: Latencies::new(),
            chains: Vec::new(),
            interrupted: false,
        };
        for writer in &mut writers {
            let ended = loop {
                tokio::select! {
                    ended = &mut *writer => break ended,
                    () = interrupt.wanted(), if !load.interrupted => {
                        load.interrupted = true;
                        stop.send_replace(true);
                    }
                }
            };
            let written = ended.map_err(|error| Failure::new(LocalCode::Failed, error.to_string()))??;
            load.records += written.chains.iter().sum::<u64>();
            load.latencies.join(&written.latencies);
            load.chains.push(written.chains);
        }
        load.elapsed = plan.env.clock.now().saturating_sub(shared.begun);
        Ok(load)
    }
}

/// What one producer wrote, by partition.
struct Written {
    chains: Vec<u64>,
    latencies: Latencies,
}

struct Writer {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    stopped: tokio::sync::watch::Receiver<bool>,
    bar: ProgressBar,
    chains: Vec<ChainWriter>,
    payload: Bytes,
    slab: BytesMut,
    way: Way,
}

/// How records travel.
enum Way {
    Session(Producer),
    Unary,
}

impl Writer {
    async fn open(
        id: u16,
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        stopped: tokio::sync::watch::Receiver<bool>,
        bar: ProgressBar,
    ) -> Result<Self, Stop> {
        let way = if plan.unary { Way::Unary } else { Way::Session(session(&plan).await?) };
        let mut payload = vec![0; plan.size];
        plan.env.rng.fill(&mut payload);
        let chains =
            vec![ChainWriter::new(u32::from(id)); usize::try_from(plan.partitions).expect("a small number")];
        Ok(Self { plan, shared, stopped, bar, chains, payload: payload.into(), slab: BytesMut::new(), way })
    }

    async fn run(mut self) -> Result<Written, Stop> {
        let latencies = match &self.way {
            Way::Session(producer) => {
                let producer = producer.clone();
                self.write_session(producer).await?
            }
            Way::Unary => self.write_unary().await?,
        };
        Ok(Written { chains: self.chains.iter().map(ChainWriter::written).collect(), latencies })
    }

    async fn write_session(&mut self, producer: Producer) -> Result<Latencies, Stop> {
        let (acks, tracking) = Acks::track(self.plan.env.clock.clone(), AcksOut::Nowhere);
        let mut refused = None;
        while let Some(number) = self.next_number().await {
            let Some(room) = acks.room().await else { break };
            let (partition, value) = self.next_record(number);
            let at = self.plan.env.clock.now();
            match producer.send(Record::new(value).partition(partition)).await {
                Ok(ticket) => room.take(number, at, ticket),
                Err(error) => {
                    refused = Some(Failure::of_client(&error));
                    break;
                }
            }
        }
        drop(acks);
        let _closed = producer.close().await;
        let acked = tracking.await.map_err(|error| Failure::new(LocalCode::Failed, error.to_string()))??;
        if let Some((_, error)) = &acked.failure {
            return Err(Failure::of_client(error).into());
        }
        refused.map_or(Ok(acked.latencies), |failure| Err(failure.into()))
    }

    async fn write_unary(&mut self) -> Result<Latencies, Stop> {
        let mut latencies = Latencies::new();
        while let Some(number) = self.next_number().await {
            let (partition, value) = self.next_record(number);
            let to = AppendTo { partition: Some(partition), expected_offset: None };
            let at = self.plan.env.clock.now();
            let appended = self.plan.topic.append_to(to, vec![Record::new(value)]).await;
            appended.map_err(|error| Failure::of_client(&error))?;
            latencies.add(self.plan.env.clock.now().saturating_sub(at), 1);
        }
        Ok(latencies)
    }

    /// The number of the next record, when its time has come; `None` when there is no next.
    async fn next_number(&mut self) -> Option<u64> {
        if *self.stopped.borrow() {
            return None;
        }
        let clock = &self.plan.env.clock;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if self.plan.records.is_some_and(|records| number >= records) {
            return None;
        }
        if let Some(rate) = self.plan.rate {
            let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
            let due = self.shared.begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            if due > clock.now() {
                clock.sleep_until(due).await;
            }
        }
        let elapsed = clock.now().saturating_sub(self.shared.begun);
        if self.plan.records.is_none() && elapsed >= self.plan.duration {
            return None;
        }
        if number.is_multiple_of(4_096) {
            let per_second = counted(rate(number, elapsed), "record");
            self.bar.set_message(format!("{} written, {per_second} a second", counted(number, "record")));
            self.bar.tick();
        }
        Some(number)
    }

    /// A fresh record with its place in its chain. Records of one slab share an allocation.
    fn next_record(&mut self, number: u64) -> (PartitionIndex, Bytes) {
        const SLAB_BYTES: usize = 256 << 10;
        let size = self.plan.size;
        if self.slab.len() < size {
            let records = (SLAB_BYTES / size).max(1);
            self.slab = BytesMut::with_capacity(records * size);
            for _ in 0..records {
                self.slab.extend_from_slice(&self.payload);
            }
        }
        let mut record = self.slab.split_to(size);
        let partition =
            u32::try_from(number % u64::from(self.plan.partitions)).expect("less than the partitions");
        let chain = &mut self.chains[usize::try_from(partition).expect("a small number")];
        chain.seal(&mut record, self.plan.micros());
        (PartitionIndex::new(partition), record.freeze())
    }
}

async fn session(plan: &Plan) -> Result<Producer, Stop> {
    let mut builder = plan.topic.producer().compression(plan.compression);
    if let Some(linger) = plan.linger {
        builder = builder.linger(linger);
    }
    if let Some(bytes) = plan.batch_bytes {
        builder = builder.batch_bytes(bytes);
    }
    builder.build().await.map_err(|error| Failure::of_client(&error).into())
}
