//! What a run found, as plain data.

use std::time::Duration;

use serde::Serialize;
use streamhouse_client::StorageSummary;

use crate::latency::{Latencies, Percentiles, millis};
use crate::load::Plan;
use crate::run::{Measured, Reading};

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    subject: &'static str,
    topic: String,
    record_bytes: u64,
    producers: u16,
    partitions: u32,
    rate_limit: Option<u64>,
    unary: bool,
    compression: &'static str,
    /// Whether the user ended it before the plan did.
    pub interrupted: bool,
    /// The writing.
    pub produce: Side,
    /// The reading.
    pub consume: Side,
    /// The proof.
    pub integrity: Integrity,
    /// What it added to the object store, where the server can tell.
    pub store: Option<Stored>,
    /// Of acknowledgements.
    #[serde(skip)]
    pub ack: Latencies,
    /// From sending to reading, where both ran at the same time.
    #[serde(skip)]
    pub end_to_end: Option<Latencies>,
}

/// One direction.
#[derive(Debug, Serialize)]
pub struct Side {
    /// Records that went this way.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    seconds: f64,
    /// Records a second.
    pub records_per_second: u64,
    /// Bytes of values a second.
    pub bytes_per_second: u64,
    latency: Option<Percentiles>,
    /// From the first record to the last.
    #[serde(skip)]
    pub elapsed: Duration,
}

/// Whether all that was written came back.
#[derive(Debug, Serialize)]
pub struct Integrity {
    /// Whether it did.
    pub ok: bool,
    /// Chains that were written.
    pub chains: u64,
    /// Records that were read and checked.
    pub records_checked: u64,
    /// Breaks of chains.
    pub break_count: u64,
    /// The first few of them.
    pub breaks: Vec<String>,
}

/// What a run added to the object store.
#[derive(Debug, Serialize)]
pub struct Stored {
    /// WAL objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of a few records it would say nothing.
    pub objects_per_gib: Option<u64>,
}

impl Side {
    fn new(records: u64, bytes: u64, elapsed: Duration, latency: Option<&Latencies>) -> Self {
        Self {
            records,
            bytes,
            seconds: millis(elapsed) / 1e3,
            records_per_second: rate(records, elapsed),
            bytes_per_second: rate(bytes, elapsed),
            latency: latency.and_then(Latencies::percentiles),
            elapsed,
        }
    }
}

impl Stored {
    /// The difference of two summaries.
    #[must_use]
    pub fn between(before: &StorageSummary, after: &StorageSummary) -> Self {
        let total = |summary: &StorageSummary| {
            let wal = summary.classes.iter().filter(|class| class.name == "wal");
            wal.fold((0, 0), |(objects, bytes), class| (objects + class.objects, bytes + class.bytes))
        };
        let ((objects_before, bytes_before), (objects_after, bytes_after)) = (total(before), total(after));
        let objects: u64 = u64::saturating_sub(objects_after, objects_before);
        let bytes: u64 = u64::saturating_sub(bytes_after, bytes_before);
        let objects_per_gib = (bytes >= 64 << 20)
            .then(|| u64::try_from(u128::from(objects) * (1 << 30) / u128::from(bytes)).unwrap_or(u64::MAX));
        Self { objects, bytes, objects_per_gib }
    }
}

impl Report {
    /// The report of a run by `plan`, called `subject`.
    #[must_use]
    pub fn new(
        subject: &'static str,
        (plan, reading): (&Plan, Reading),
        Measured { load, tail }: Measured,
        store: Option<Stored>,
    ) -> Self {
        let record_bytes = u64::try_from(plan.size).unwrap_or(u64::MAX);
        let end_to_end = (reading == Reading::WhileWriting).then_some(tail.latencies);
        let written = load.records * record_bytes;
        Self {
            subject,
            topic: plan.topic.name().to_owned(),
            record_bytes,
            producers: plan.producers,
            partitions: load
                .chains
                .first()
                .map_or(0, |chains| u32::try_from(chains.len()).unwrap_or(u32::MAX)),
            rate_limit: plan.rate,
            unary: plan.unary,
            compression: plan.compression.as_str(),
            interrupted: load.interrupted,
            produce: Side::new(load.records, written, load.elapsed, Some(&load.latencies)),
            consume: Side::new(tail.records, tail.bytes, tail.elapsed, end_to_end.as_ref()),
            integrity: Integrity {
                ok: tail.break_count == 0,
                chains: load.chains.iter().flatten().filter(|records| **records > 0).count() as u64,
                records_checked: tail.records,
                break_count: tail.break_count,
                breaks: tail.breaks,
            },
            store,
            ack: load.latencies,
            end_to_end,
        }
    }
}

/// How many a second.
#[must_use]
pub fn rate(whole: u64, span: Duration) -> u64 {
    let per_second = u128::from(whole) * 1_000_000 / span.as_micros().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_per_second() {
        assert_eq!(rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(rate(1, Duration::ZERO), 1_000_000);
    }
}
