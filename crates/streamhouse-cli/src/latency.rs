//! Latencies as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::output::millis;
use crate::units::span;

/// Longest latency that is told apart, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// Latencies with three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are legal"))
    }

    /// Adds `count` equal latencies.
    pub(crate) fn add(&mut self, latency: Duration, count: u64) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX).clamp(1, MICROS_MAX);
        self.0.record_n(micros, count).expect("the latency lies within the bounds");
    }

    /// Adds all of `other`.
    pub(crate) fn join(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    fn at(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percentile))
    }

    /// The percentiles that are printed; `None` without a single latency.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        Some(Percentiles {
            count: self.0.len(),
            p50_ms: millis(self.at(50.0)),
            p90_ms: millis(self.at(90.0)),
            p99_ms: millis(self.at(99.0)),
            p99_9_ms: millis(self.at(99.9)),
            max_ms: millis(Duration::from_micros(self.0.max())),
        })
    }

    /// `p50 41 ms p99 88 ms`.
    pub(crate) fn brief(&self) -> String {
        format!("p50 {} p99 {}", span(self.at(50.0)), span(self.at(99.0)))
    }

    /// The percentiles as the cells of a row.
    pub(crate) fn cells(&self) -> [String; 5] {
        let max = Duration::from_micros(self.0.max());
        [self.at(50.0), self.at(90.0), self.at(99.0), self.at(99.9), max].map(span)
    }
}

/// Percentiles in JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    count: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        for micros in 1..=1_000_u64 {
            latencies.add(Duration::from_micros(micros * 10), 1);
        }
        let found = latencies.percentiles().unwrap();
        assert_eq!(found.count, 1_000);
        assert!((found.p50_ms - 5.0).abs() < 0.02, "{found:?}");
        assert!((found.p99_ms - 9.9).abs() < 0.02, "{found:?}");
    }
}
