//! What the benchmark found, for eyes.

use std::io::{self, Write};

use streamhouse_bench::{Latencies, Report, Side};

use crate::latency::cells;
use crate::output::table;
use streamhouse_units::{bytes, count, counted, span};

fn side(side: &Side, name: &str, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{name:<10} {} in {}   {} records/s   {}/s",
        counted(side.records, "record"),
        span(side.elapsed),
        count(side.records_per_second),
        bytes(side.bytes_per_second)
    )
}

/// The whole run.
pub(super) fn print(run: &Report, out: &mut impl Write) -> io::Result<()> {
    side(&run.produce, "produce", out)?;
    side(&run.consume, "consume", out)?;
    let mut rows = table(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX"]);
    let mut row = |name: &str, latencies: &Latencies| {
        rows.add_row(std::iter::once(name.to_owned()).chain(cells(latencies)));
    };
    row("ack", &run.ack);
    if let Some(end_to_end) = &run.end_to_end {
        row("end to end", end_to_end);
    }
    writeln!(out, "{rows}")?;
    if let Some(store) = &run.store {
        let per_gib = store.objects_per_gib.map(|objects| format!(", {} per GiB", count(objects)));
        let objects = counted(store.objects, "object");
        writeln!(out, "store      {objects}, {}{}", bytes(store.bytes), per_gib.unwrap_or_default())?;
    }
    let records = counted(run.integrity.records_checked, "record");
    let chains = counted(run.integrity.chains, "chain");
    if run.integrity.ok {
        return writeln!(out, "integrity  {records} in {chains}: complete, in order, unchanged");
    }
    writeln!(out, "integrity  {records} in {chains}: {} found", counted(run.integrity.break_count, "break"))?;
    run.integrity.breaks.iter().try_for_each(|broken| writeln!(out, "  {broken}"))
}
