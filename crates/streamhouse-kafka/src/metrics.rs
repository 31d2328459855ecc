//! The metrics of this crate.

use std::time::Duration;

use metrics::{Counter, counter, gauge, histogram};

use crate::{Api, Code};

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels come from closed sets:
/// `api` (Kafka's names of the requests that are answered), `error` (Kafka's words for its error codes, `none`
/// included), `direction` (in, out), `reason` (why a connection was ended from here) and `kind` (produce); `client_id` is
/// the client's own name for itself, of the first 50 that were ever held back.
pub const METRICS: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "Kafka requests answered, by request and the first error in the answer."),
    (
        REQUEST_SECONDS,
        "histogram",
        "Time from a Kafka request to its answer, by request, in seconds; Fetch waits as long as the client allows.",
    ),
    (BYTES, "counter", "Bytes of Kafka requests and answers, by direction."),
    (ENDED, "counter", "Kafka connections that were ended from here, by reason."),
    (
        CEILING,
        "gauge",
        "What a client that waits for answers can produce at most: requests in flight x bytes / time to the answer; 0 \
         when it does not wait any more.",
    ),
];

const REQUESTS: &str = "streamhouse_kafka_requests_total";
const REQUEST_SECONDS: &str = "streamhouse_kafka_request_duration_seconds";
const BYTES: &str = "streamhouse_kafka_bytes_total";
const ENDED: &str = "streamhouse_kafka_connections_ended_total";
const CEILING: &str = "streamhouse_client_ceiling_bytes_per_second";

/// Counts the bytes of one connection.
pub(crate) struct Meters {
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            bytes_in: counter!(BYTES, "direction" => "in"),
            bytes_out: counter!(BYTES, "direction" => "out"),
        }
    }
}

/// Notes an answer.
pub(crate) fn answered(api: Api, code: Code, took: Duration) {
    counter!(REQUESTS, "api" => api.name(), "error" => code.word()).increment(1);
    histogram!(REQUEST_SECONDS, "api" => api.name()).record(took.as_secs_f64());
}

/// Notes a connection that was ended from here.
pub(crate) fn ended(reason: &'static str) {
    counter!(ENDED, "reason" => reason).increment(1);
}

/// Notes what a client can produce at most; 0 when nothing holds it back.
pub(crate) fn ceiling(client: &str, bytes_per_second: u64) {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    gauge!(CEILING, "client_id" => client.to_owned(), "kind" => "produce").set(bytes_per_second as f64);
}
