//! Latencies for eyes.

use std::time::Duration;

use streamhouse_bench::{Latencies, Percentiles};

use streamhouse_units::span;

/// `p50 41 ms p99 88 ms`.
pub(crate) fn brief(latencies: &Latencies) -> String {
    let [p50, _, p99, ..] = cells(latencies);
    format!("p50 {p50} p99 {p99}")
}

/// Half, 90, 99 and 99.9 of 100, and the longest, as the cells of a row.
pub(crate) fn cells(latencies: &Latencies) -> [String; 5] {
    let at = |found: Percentiles| [found.p50, found.p90, found.p99, found.p99_9, found.max];
    latencies.percentiles().map_or([Duration::ZERO; 5], at).map(span)
}
