//! The metrics of this crate.

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels come from closed sets:
/// `op` (put, get, head, delete, list), `purpose` ([`Purpose`](crate::Purpose)), `code` (ok, dropped, or
/// [`BlobError::code`](crate::BlobError::code)); of hedges, `outcome` (won, lost, spared); of the block cache,
/// `tier` (memory, disk) and `outcome` (hit, miss, shared, damaged).
pub const METRICS: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "Requests sent to the object store, by how they ended."),
    (REQUEST_SECONDS, "histogram", "Time of one attempt at a request to the object store, in seconds."),
    (BYTES, "counter", "Bytes written to (op=put) and read from (op=get) the object store."),
    (RETRIES, "counter", "Attempts at a request beyond its first."),
    (
        HEDGES,
        "counter",
        "Requests so slow that a second one was due: it won, it lost, or the budget spared it.",
    ),
    (THROTTLED, "counter", "Answers of the object store that ask for fewer requests."),
    (
        CACHE_REQUESTS,
        "counter",
        "Blocks asked for, by tier; shared: another reader fetched it; damaged: it was not what was written.",
    ),
    (CACHE_EVICTIONS, "counter", "Blocks that made room for others, by tier."),
    (CACHE_DROPPED, "counter", "Blocks that were not kept on disk because it was slow, full or failing."),
    (CACHE_BYTES, "gauge", "Bytes in the block cache, by tier."),
];

pub(crate) const REQUESTS: &str = "streamhouse_object_store_requests_total";
pub(crate) const REQUEST_SECONDS: &str = "streamhouse_object_store_request_seconds";
pub(crate) const BYTES: &str = "streamhouse_object_store_bytes_total";
pub(crate) const RETRIES: &str = "streamhouse_object_store_retries_total";
pub(crate) const HEDGES: &str = "streamhouse_object_store_hedges_total";
pub(crate) const THROTTLED: &str = "streamhouse_object_store_throttled_total";
pub(crate) const CACHE_REQUESTS: &str = "streamhouse_cache_requests_total";
pub(crate) const CACHE_EVICTIONS: &str = "streamhouse_cache_evictions_total";
pub(crate) const CACHE_DROPPED: &str = "streamhouse_cache_dropped_total";
pub(crate) const CACHE_BYTES: &str = "streamhouse_cache_bytes";

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use parking_lot::Mutex;

    /// The counters of a test, by name and values of labels in their order.
    #[derive(Debug, Default)]
    pub(crate) struct Counted(Mutex<BTreeMap<Vec<String>, Arc<AtomicU64>>>);

    impl Counted {
        fn counter<'a>(&self, name: &'a str, labels: impl Iterator<Item = &'a str>) -> Arc<AtomicU64> {
            let key = std::iter::once(name).chain(labels).map(str::to_owned).collect();
            Arc::clone(self.0.lock().entry(key).or_default())
        }

        pub(crate) fn get(&self, name: &str, labels: &[&str]) -> u64 {
            self.counter(name, labels.iter().copied()).load(Ordering::SeqCst)
        }
    }

    impl Recorder for Counted {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.counter(key.name(), key.labels().map(metrics::Label::value)))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}
