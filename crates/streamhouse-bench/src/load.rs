//! The writing side of the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use streamhouse_client::{AppendTo, Compression, PartitionIndex, Producer, Record, Topic};

use crate::acks::Acks;
use crate::chain::ChainWriter;
use crate::latency::Latencies;
use crate::run::{BenchError, Progress, Seams};

/// What is written, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub topic: Topic,
    /// Producers that write at the same time, at least 1.
    pub producers: u16,
    /// Bytes of a record's value, at least [`HEAD_BYTES`](crate::HEAD_BYTES).
    pub size: usize,
    /// Write so many records over all producers, instead of so long.
    pub records: Option<u64>,
    /// How long to write.
    pub duration: Duration,
    /// At most so many records a second, over all producers.
    pub rate: Option<u64>,
    /// One call and one record at a time instead of a session.
    pub unary: bool,
    /// How batches are compressed.
    pub compression: Compression,
    /// Longest a record waits for company; else the client's default.
    pub linger: Option<Duration>,
    /// Largest batch; else the client's default.
    pub batch_bytes: Option<u32>,
}

/// A plan that is being carried out.
pub(crate) struct Work {
    pub(crate) plan: Plan,
    partitions: u32,
    pub(crate) seams: Seams,
    /// The zero of all times that records carry.
    started: Duration,
}

impl Work {
    pub(crate) fn new(plan: Plan, partitions: u32, seams: Seams) -> Self {
        let started = seams.env.clock.now();
        Self { plan, partitions, seams, started }
    }

    /// Microseconds since the start.
    pub(crate) fn micros(&self) -> u64 {
        let elapsed = self.seams.env.clock.now().saturating_sub(self.started);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// How many records each chain has: by producer, then by partition.
pub(crate) type Chains = Vec<Vec<u64>>;

/// What was written.
#[derive(Debug, Default)]
pub struct Load {
    /// Records that are durable.
    pub records: u64,
    /// From the first record until the last was durable.
    pub elapsed: Duration,
    /// Of acknowledgements.
    pub latencies: Latencies,
    /// How many records each chain has: by producer, then by partition.
    pub chains: Vec<Vec<u64>>,
    /// Whether the user ended it before the plan did.
    pub interrupted: bool,
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
    pub(crate) async fn run(work: &Arc<Work>) -> Result<Self, BenchError> {
        let mut seams = work.seams.clone();
        let clock = seams.env.clock.clone();
        let shared = Arc::new(Shared { next: AtomicU64::new(0), begun: clock.now() });
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut writers = Vec::new();
        for id in 0..work.plan.producers {
            let writer = Writer::open(id, work.clone(), shared.clone(), stopped.clone()).await?;
            writers.push(tokio::spawn(writer.run()));
        }
        let mut load = Self::default();
        for writer in &mut writers {
            let ended = loop {
                tokio::select! {
                    ended = &mut *writer => break ended,
                    () = seams.interrupted(), if !load.interrupted => {
                        load.interrupted = true;
                        stop.send_replace(true);
                    }
                }
            };
            let written = ended??;
            load.records += written.chains.iter().sum::<u64>();
            load.latencies.join(&written.latencies);
            load.chains.push(written.chains);
        }
        load.elapsed = clock.now().saturating_sub(shared.begun);
        Ok(load)
    }
}

/// What one producer wrote, by partition.
struct Written {
    chains: Vec<u64>,
    latencies: Latencies,
}

struct Writer {
    work: Arc<Work>,
    shared: Arc<Shared>,
    stopped: tokio::sync::watch::Receiver<bool>,
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
        work: Arc<Work>,
        shared: Arc<Shared>,
        stopped: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Self, BenchError> {
        let plan = &work.plan;
        let way = if plan.unary { Way::Unary } else { Way::Session(session(plan).await?) };
        let mut payload = vec![0; plan.size];
        work.seams.env.rng.fill(&mut payload);
        let chains =
            vec![ChainWriter::new(u32::from(id)); usize::try_from(work.partitions).expect("a small number")];
        Ok(Self { work, shared, stopped, chains, payload: payload.into(), slab: BytesMut::new(), way })
    }

    async fn run(mut self) -> Result<Written, BenchError> {
        let latencies = match &self.way {
            Way::Session(producer) => {
                let producer = producer.clone();
                self.write_session(producer).await?
            }
            Way::Unary => self.write_unary().await?,
        };
        Ok(Written { chains: self.chains.iter().map(ChainWriter::written).collect(), latencies })
    }

    async fn write_session(&mut self, producer: Producer) -> Result<Latencies, BenchError> {
        let (acks, tracking) = Acks::track(self.work.seams.env.clock.clone(), ());
        let mut refused = None;
        while let Some(number) = self.next_number().await {
            let Some(room) = acks.room().await else { break };
            let (partition, value) = self.next_record(number);
            let at = self.work.seams.env.clock.now();
            match producer.send(Record::new(value).partition(partition)).await {
                Ok(ticket) => room.take(number, at, ticket),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        drop(acks);
        let _closed = producer.close().await;
        let acked = tracking.await?.expect("nobody who listens fails");
        match acked.failure.map(|(_, error)| error).or(refused) {
            Some(error) => Err(error.into()),
            None => Ok(acked.latencies),
        }
    }

    async fn write_unary(&mut self) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::default();
        while let Some(number) = self.next_number().await {
            let (partition, value) = self.next_record(number);
            let to = AppendTo { partition: Some(partition), expected_offset: None };
            let at = self.work.seams.env.clock.now();
            self.work.plan.topic.append_to(to, vec![Record::new(value)]).await?;
            latencies.add(self.work.seams.env.clock.now().saturating_sub(at), 1);
        }
        Ok(latencies)
    }

    /// The number of the next record, when its time has come; `None` when there is no next.
    async fn next_number(&mut self) -> Option<u64> {
        if *self.stopped.borrow() {
            return None;
        }
        let clock = &self.work.seams.env.clock;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        if self.work.plan.records.is_some_and(|records| number >= records) {
            return None;
        }
        if let Some(rate) = self.work.plan.rate {
            let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
            let due = self.shared.begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            if due > clock.now() {
                clock.sleep_until(due).await;
            }
        }
        let elapsed = clock.now().saturating_sub(self.shared.begun);
        if self.work.plan.records.is_none() && elapsed >= self.work.plan.duration {
            return None;
        }
        if number.is_multiple_of(4_096) {
            (self.work.seams.progress)(Progress::Written(number, elapsed));
        }
        Some(number)
    }

    /// A fresh record with its place in its chain. Records of one slab share an allocation.
    fn next_record(&mut self, number: u64) -> (PartitionIndex, Bytes) {
        const SLAB_BYTES: usize = 256 << 10;
        let size = self.work.plan.size;
        if self.slab.len() < size {
            let records = (SLAB_BYTES / size).max(1);
            self.slab = BytesMut::with_capacity(records * size);
            for _ in 0..records {
                self.slab.extend_from_slice(&self.payload);
            }
        }
        let mut record = self.slab.split_to(size);
        let partition =
            u32::try_from(number % u64::from(self.work.partitions)).expect("less than the partitions");
        let chain = &mut self.chains[usize::try_from(partition).expect("a small number")];
        chain.seal(&mut record, self.work.micros());
        (PartitionIndex::new(partition), record.freeze())
    }
}

async fn session(plan: &Plan) -> Result<Producer, BenchError> {
    let mut builder = plan.topic.producer().compression(plan.compression);
    if let Some(linger) = plan.linger {
        builder = builder.linger(linger);
    }
    if let Some(bytes) = plan.batch_bytes {
        builder = builder.batch_bytes(bytes);
    }
    Ok(builder.build().await?)
}
