//! What the benchmark found.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use streamhouse_bench::{Latencies, Measured};
use streamhouse_client::StorageSummary;

use crate::latency::{PercentilesMs, cells};
use crate::output::{millis, table};
use crate::units::{bytes, count, counted, rate, span};

use super::{BenchArgs, Subject};

/// A whole run.
#[derive(Serialize)]
pub(super) struct Run {
    subject: &'static str,
    topic: String,
    record_bytes: u64,
    producers: u16,
    partitions: u32,
    rate_limit: Option<u64>,
    unary: bool,
    compression: &'static str,
    pub(super) interrupted: bool,
    produce: Side,
    consume: Side,
    pub(super) integrity: Integrity,
    store: Option<Stored>,
    #[serde(skip)]
    ack: Latencies,
    #[serde(skip)]
    end_to_end: Option<Latencies>,
}

/// One direction.
#[derive(Serialize)]
struct Side {
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: u64,
    bytes_per_second: u64,
    /// Of acks on the writing side; from sending to reading on the reading side, where both ran at the same time.
    latency: Option<PercentilesMs>,
    #[serde(skip)]
    elapsed: Duration,
}

impl Side {
    fn new(records: u64, bytes: u64, elapsed: Duration, latency: Option<&Latencies>) -> Self {
        let latency = latency.and_then(Latencies::percentiles).map(PercentilesMs::from);
        Self {
            records,
            bytes,
            seconds: millis(elapsed) / 1e3,
            records_per_second: rate(records, elapsed),
            bytes_per_second: rate(bytes, elapsed),
            latency,
            elapsed,
        }
    }

    fn print(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{name:<10} {} in {}   {} records/s   {}/s",
            counted(self.records, "record"),
            span(self.elapsed),
            count(self.records_per_second),
            bytes(self.bytes_per_second)
        )
    }
}

/// Whether all that was written came back.
#[derive(Serialize)]
pub(super) struct Integrity {
    pub(super) ok: bool,
    chains: u64,
    records_checked: u64,
    break_count: u64,
    /// The first few.
    pub(super) breaks: Vec<String>,
}

/// What the run added to the object store.
#[derive(Serialize)]
pub(super) struct Stored {
    objects: u64,
    bytes: u64,
    objects_per_gib: Option<u64>,
}

impl Stored {
    /// The difference of two summaries.
    pub(super) fn between(before: &StorageSummary, after: &StorageSummary) -> Self {
        let total = |summary: &StorageSummary| {
            let wal = summary.classes.iter().filter(|class| class.name == "wal");
            wal.fold((0, 0), |(objects, bytes), class| (objects + class.objects, bytes + class.bytes))
        };
        let ((objects_before, bytes_before), (objects_after, bytes_after)) = (total(before), total(after));
        let objects: u64 = u64::saturating_sub(objects_after, objects_before);
        let bytes: u64 = u64::saturating_sub(bytes_after, bytes_before);
        // Of a few records it would say nothing.
        let objects_per_gib = (bytes >= 64 << 20)
            .then(|| u64::try_from(u128::from(objects) * (1 << 30) / u128::from(bytes)).unwrap_or(u64::MAX));
        Self { objects, bytes, objects_per_gib }
    }
}

impl Run {
    pub(super) fn new(args: &BenchArgs, topic: &str, measured: Measured, store: Option<Stored>) -> Self {
        let Measured { load, tail } = measured;
        let end_to_end = (args.subject == Subject::E2e).then_some(tail.latencies);
        let subject = match args.subject {
            Subject::Produce => "produce",
            Subject::Consume => "consume",
            Subject::E2e => "e2e",
        };
        let partitions = load.chains.first().map_or(0, Vec::len);
        Self {
            subject,
            topic: topic.to_owned(),
            record_bytes: args.size,
            producers: args.producers,
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            rate_limit: args.rate,
            unary: args.unary,
            compression: args.compression.as_str(),
            interrupted: load.interrupted,
            produce: Side::new(load.records, load.records * args.size, load.elapsed, Some(&load.latencies)),
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

    /// For eyes.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.produce.print("produce", out)?;
        self.consume.print("consume", out)?;
        let mut rows = table(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX"]);
        let mut row = |name: &str, latencies: &Latencies| {
            rows.add_row(std::iter::once(name.to_owned()).chain(cells(latencies)));
        };
        row("ack", &self.ack);
        if let Some(end_to_end) = &self.end_to_end {
            row("end to end", end_to_end);
        }
        writeln!(out, "{rows}")?;
        if let Some(store) = &self.store {
            let per_gib = store.objects_per_gib.map(|objects| format!(", {} per GiB", count(objects)));
            let objects = counted(store.objects, "object");
            writeln!(out, "store      {objects}, {}{}", bytes(store.bytes), per_gib.unwrap_or_default())?;
        }
        let records = counted(self.integrity.records_checked, "record");
        let chains = counted(self.integrity.chains, "chain");
        if self.integrity.ok {
            return writeln!(out, "integrity  {records} in {chains}: complete, in order, unchanged");
        }
        writeln!(
            out,
            "integrity  {records} in {chains}: {} found",
            counted(self.integrity.break_count, "break")
        )?;
        self.integrity.breaks.iter().try_for_each(|broken| writeln!(out, "  {broken}"))
    }
}
