//! The metric of this crate.

use metrics::gauge;

/// Name, kind and help. `client_id` is the client's own name for itself, of the first 50 that were ever held back; `kind`
/// is produce.
pub const METRICS: &[(&str, &str, &str)] = &[(
    CEILING,
    "gauge",
    "What a client that waits for answers can produce at most: requests in flight x bytes / time to the answer; 0 when \
     it does not wait any more.",
)];

const CEILING: &str = "streamhouse_client_ceiling_bytes_per_second";

/// Notes what a client can produce at most; 0 when nothing holds it back.
pub(crate) fn ceiling(client: &str, bytes_per_second: u64) {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    gauge!(CEILING, "client_id" => client.to_owned(), "kind" => "produce").set(bytes_per_second as f64);
}
