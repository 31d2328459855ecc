//! The metrics of this crate.

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels come from closed sets:
/// `op` (put, get, head, delete, list), `purpose` ([`Purpose`](crate::Purpose)), `code` (ok or
/// [`BlobError::code`](crate::BlobError::code)).
pub const METRICS: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "Attempts at requests to the object store, by how they ended."),
    (REQUEST_SECONDS, "histogram", "Time of one attempt at a request to the object store, in seconds."),
    (BYTES, "counter", "Bytes written to (op=put) and read from (op=get) the object store."),
    (RETRIES, "counter", "Attempts at a request beyond its first."),
    (THROTTLED, "counter", "Answers of the object store that ask for fewer requests."),
    (CACHE_HITS, "counter", "Blocks found in the block cache."),
    (CACHE_MISSES, "counter", "Blocks fetched into the block cache."),
    (CACHE_BYTES, "gauge", "Bytes in the block cache."),
];

pub(crate) const REQUESTS: &str = "streamhouse_object_store_requests_total";
pub(crate) const REQUEST_SECONDS: &str = "streamhouse_object_store_request_seconds";
pub(crate) const BYTES: &str = "streamhouse_object_store_bytes_total";
pub(crate) const RETRIES: &str = "streamhouse_object_store_retries_total";
pub(crate) const THROTTLED: &str = "streamhouse_object_store_throttled_total";
pub(crate) const CACHE_HITS: &str = "streamhouse_cache_block_hits_total";
pub(crate) const CACHE_MISSES: &str = "streamhouse_cache_block_misses_total";
pub(crate) const CACHE_BYTES: &str = "streamhouse_cache_block_bytes";
