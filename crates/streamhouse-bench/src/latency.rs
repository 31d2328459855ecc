//! Latencies as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Longest latency that is told apart, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// Latencies with three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Adds `count` equal latencies.
    pub fn add(&mut self, latency: Duration, count: u64) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(MICROS_MAX).clamp(1, MICROS_MAX);
        self.0.record_n(micros, count).expect("the latency lies within the bounds");
    }

    /// Adds all of `other`.
    pub fn join(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// The percentiles that are told; `None` without a single latency.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |percentile| Duration::from_micros(self.0.value_at_percentile(percentile));
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: Duration::from_micros(self.0.max()),
        })
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are legal"))
    }
}

/// Below which latency so many of 100 lie. In JSON they are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Latencies that were added.
    pub count: u64,
    /// Half of them.
    #[serde(rename = "p50_ms", serialize_with = "as_millis")]
    pub p50: Duration,
    /// 90 of 100.
    #[serde(rename = "p90_ms", serialize_with = "as_millis")]
    pub p90: Duration,
    /// 99 of 100.
    #[serde(rename = "p99_ms", serialize_with = "as_millis")]
    pub p99: Duration,
    /// 999 of 1,000.
    #[serde(rename = "p99_9_ms", serialize_with = "as_millis")]
    pub p99_9: Duration,
    /// All of them.
    #[serde(rename = "max_ms", serialize_with = "as_millis")]
    pub max: Duration,
}

/// A span in milliseconds with three decimals: the text is short and the same on every machine.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn as_millis<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(millis(*span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), None);
        for micros in 1..=1_000_u64 {
            latencies.add(Duration::from_micros(micros * 10), 1);
        }
        let found = latencies.percentiles().unwrap();
        assert_eq!(found.count, 1_000);
        assert!(found.p50.abs_diff(Duration::from_micros(5_000)) < Duration::from_micros(20), "{found:?}");
        assert!(found.p99.abs_diff(Duration::from_micros(9_900)) < Duration::from_micros(20), "{found:?}");
    }
}
