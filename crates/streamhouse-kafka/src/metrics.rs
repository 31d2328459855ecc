//! The metrics of this crate.

use std::time::Duration;

use metrics::{Counter, counter, histogram};

use crate::{Api, Code};

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels come from closed sets:
/// `api` (Kafka's names of the requests that are answered), `error` (Kafka's words for its error codes, `none`
/// included), `direction` (in, out) and `reason` (why a connection was ended from here).
pub const METRICS: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "Kafka requests answered, by request and the first error in the answer."),
    (
        REQUEST_SECONDS,
        "histogram",
        "Time from a Kafka request to its answer, by request, in seconds; Fetch waits as long as the client allows.",
    ),
    (BYTES, "counter", "Bytes of Kafka requests and answers, by direction."),
    (ENDED, "counter", "Kafka connections that were ended from here, by reason."),
];

const REQUESTS: &str = "streamhouse_kafka_requests_total";
const REQUEST_SECONDS: &str = "streamhouse_kafka_request_duration_seconds";
const BYTES: &str = "streamhouse_kafka_bytes_total";
const ENDED: &str = "streamhouse_kafka_connections_ended_total";

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
