//! The reading side of the benchmark, and the proof.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_client::{ConsumedBatch, Offset, PartitionIndex, Position};
use tokio::sync::watch;

use crate::chain::ChainReader;
use crate::latency::Latencies;
use crate::load::{Chains, Work};
use crate::run::{BenchError, Progress};

/// How long nothing may come while records are missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Breaks that are told one by one.
const BREAKS_MAX: usize = 20;

/// Reads what the producers write.
pub(crate) struct Tail {
    work: Arc<Work>,
    starts: Vec<(PartitionIndex, Offset)>,
    written: watch::Receiver<Option<Chains>>,
    readers: BTreeMap<PartitionIndex, ChainReader>,
    result: Tailed,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Tailed {
    /// Records that were read and checked.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// From the first record to the last.
    pub elapsed: Duration,
    /// From sending to reading.
    pub latencies: Latencies,
    /// Where chains break, the first few.
    pub breaks: Vec<String>,
    /// How many breaks there are in all.
    pub break_count: u64,
}

impl Tail {
    pub(crate) fn new(
        work: Arc<Work>,
        starts: Vec<(PartitionIndex, Offset)>,
        written: watch::Receiver<Option<Chains>>,
    ) -> Self {
        let readers = starts.iter().map(|(partition, _)| (*partition, ChainReader::default())).collect();
        Self { work, starts, written, readers, result: Tailed::default() }
    }

    /// Reads until everything written has come, or nothing comes any more.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub(crate) async fn read_all(mut self) -> Result<Tailed, BenchError> {
        let mut builder = self.work.plan.topic.read(Position::End).follow(true);
        for (partition, offset) in &self.starts {
            builder = builder.partitions([*partition]).resume(*partition, *offset);
        }
        let mut reader = builder.open().await?;
        let clock = self.work.seams.env.clock.clone();
        let mut begun = None;
        let mut patience = clock.now() + PATIENCE;
        loop {
            if self.is_complete() {
                break;
            }
            tokio::select! {
                batch = reader.next_batch() => {
                    let Some(batch) = batch else { break };
                    let batch = batch?;
                    begun.get_or_insert_with(|| clock.now());
                    self.check(&batch)?;
                    patience = clock.now() + PATIENCE;
                    (self.work.seams.progress)(Progress::Read(self.result.records));
                }
                changed = self.written.changed() => if changed.is_err() { break },
                () = clock.sleep_until(patience), if self.written.borrow().is_some() => break,
            }
        }
        self.result.elapsed = begun.map_or(Duration::ZERO, |begun| clock.now().saturating_sub(begun));
        self.account_for_the_missing();
        Ok(self.result)
    }

    fn check(&mut self, batch: &ConsumedBatch) -> Result<(), BenchError> {
        let now = self.work.micros();
        let partition = batch.partition();
        let reader = self.readers.entry(partition).or_default();
        for record in batch.records()? {
            let record = record?;
            let offset = record.offset;
            let value = record.value.unwrap_or_default();
            self.result.records += 1;
            self.result.bytes += u64::try_from(value.len()).unwrap_or(0);
            match reader.check(&value) {
                Ok(link) => {
                    self.result.latencies.add(Duration::from_micros(now.saturating_sub(link.sent_micros)), 1);
                }
                Err(broken) => self.result.note(format!("partition {partition}, offset {offset}: {broken}")),
            }
        }
        Ok(())
    }

    /// Whether every chain that was written has been read to its end.
    fn is_complete(&self) -> bool {
        let written = self.written.borrow();
        written.as_ref().is_some_and(|chains| self.missing(chains).next().is_none())
    }

    fn account_for_the_missing(&mut self) {
        let written = self.written.borrow().clone().unwrap_or_default();
        let missing: Vec<_> = self.missing(&written).collect();
        for (chain, partition, read, written) in missing {
            self.result
                .note(format!("partition {partition}: chain {chain} ends after {read} of {written} records"));
        }
    }

    /// Chains that are not read to their end: chain, partition, read, written.
    fn missing<'a>(
        &'a self,
        written: &'a Chains,
    ) -> impl Iterator<Item = (u32, PartitionIndex, u64, u64)> + 'a {
        let chains = (0_u32..).zip(written);
        chains.flat_map(move |(chain, partitions)| {
            (0_u32..).zip(partitions).filter_map(move |(partition, written)| {
                let partition = PartitionIndex::new(partition);
                let read = self.readers.get(&partition).map_or(0, |reader| reader.read(chain));
                (read < *written).then_some((chain, partition, read, *written))
            })
        })
    }
}

impl Tailed {
    fn note(&mut self, broken: String) {
        self.break_count += 1;
        if self.breaks.len() < BREAKS_MAX {
            self.breaks.push(broken);
        }
    }
}
