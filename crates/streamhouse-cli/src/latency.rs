//! Latencies for eyes and for scripts.

use std::time::Duration;

use serde::Serialize;
use streamhouse_bench::{Latencies, Percentiles};

use crate::output::millis;
use crate::units::span;

/// Percentiles in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PercentilesMs {
    count: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
}

impl From<Percentiles> for PercentilesMs {
    fn from(found: Percentiles) -> Self {
        Self {
            count: found.count,
            p50_ms: millis(found.p50),
            p90_ms: millis(found.p90),
            p99_ms: millis(found.p99),
            p99_9_ms: millis(found.p99_9),
            max_ms: millis(found.max),
        }
    }
}

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
