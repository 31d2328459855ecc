//! What the API tells about itself. Labels come from closed sets: `protocol` (grpc), `api` (the methods of the table in
//! `authorize.rs`), `code` (the names of gRPC codes).

/// Name, kind and help of each metric of this crate.
pub const METRICS: &[(&str, &str, &str)] = &[
    (
        REQUESTS,
        "counter",
        "Requests answered, by protocol, method and code; a stream counts when it begins to answer.",
    ),
    (REQUEST_SECONDS, "histogram", "Time from a request to the beginning of its answer, in seconds."),
    (SESSIONS, "gauge", "Open append sessions."),
    (READS, "gauge", "Open read streams."),
];

pub(crate) const REQUESTS: &str = "streamhouse_requests_total";
pub(crate) const REQUEST_SECONDS: &str = "streamhouse_request_duration_seconds";
pub(crate) const SESSIONS: &str = "streamhouse_append_sessions";
pub(crate) const READS: &str = "streamhouse_read_streams";

/// Counts one thing in a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(&'static str);

impl Counted {
    /// One more in the gauge of this name.
    pub(crate) fn new(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
