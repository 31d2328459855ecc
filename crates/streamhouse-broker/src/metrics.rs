//! The metrics of this crate. Handles are looked up once; recording costs an atomic or two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;
use streamhouse_metadata::State;
use streamhouse_types::TopicId;

use crate::flush::{SealedEntry, Trigger};
use crate::{AppendError, Appended, MetadataLog};

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels come from closed sets:
/// `stage` (queue, buffer, upload, commit), `trigger` (size, age, window, drain), `source` (memory, store), `reason`
/// (the reason of an error code), and `topic`.
pub const METRICS: &[(&str, &str, &str)] = &[
    (PRODUCE_RECORDS, "counter", "Records acknowledged, by topic."),
    (PRODUCE_BYTES, "counter", "Bytes of batches acknowledged, by topic."),
    (PRODUCE_ACK_SECONDS, "histogram", "Time from handing a batch over to its acknowledgement, in seconds."),
    (PRODUCE_STAGE_SECONDS, "histogram", "Time that batches spend in each stage on their way, in seconds."),
    (PRODUCE_BATCH_BYTES, "histogram", "Size of acknowledged batches, in bytes."),
    (PRODUCE_REJECTED, "counter", "Batches that were not acknowledged, by reason."),
    (PRODUCE_DUPLICATES, "counter", "Batches that were in the log already."),
    (IN_FLIGHT_BYTES, "gauge", "Bytes of batches that are on their way to the store."),
    (IN_FLIGHT_LIMIT, "gauge", "Most bytes of batches that may be on their way to the store."),
    (WAL_FLUSHES, "counter", "WAL objects started, by what closed the buffer."),
    (WAL_OBJECT_BYTES, "histogram", "Size of uploaded WAL objects, in bytes."),
    (WAL_OBJECT_PARTITIONS, "histogram", "Partitions in a WAL object."),
    (WAL_BUFFER_BYTES, "gauge", "Bytes in the open buffer."),
    (WAL_OLDEST_SECONDS, "gauge", "Age of the oldest batch in the open buffer, in seconds."),
    (WAL_UPLOADS, "gauge", "WAL objects that are uploading."),
    (WAL_FAILED_SLOTS, "counter", "WAL objects whose upload failed."),
    (FETCH_BYTES, "counter", "Bytes of batches returned to readers, by source."),
    (FETCH_RECORDS, "counter", "Records returned to readers, by source."),
    (FETCH_SECONDS, "histogram", "Time to read what is there, by source, in seconds; waiting is left out."),
    (TAIL_CACHE_BYTES, "gauge", "Bytes of new batches kept for tail readers."),
    (SWEEP_DELETED, "counter", "Objects deleted by the sweep, by class (orphan, garbage)."),
    (ACTOR_RESTARTS, "counter", "Actors that failed and were restarted, by actor."),
];

pub(crate) const PRODUCE_RECORDS: &str = "streamhouse_produce_records_total";
pub(crate) const PRODUCE_BYTES: &str = "streamhouse_produce_bytes_total";
pub(crate) const PRODUCE_ACK_SECONDS: &str = "streamhouse_produce_ack_seconds";
pub(crate) const PRODUCE_STAGE_SECONDS: &str = "streamhouse_produce_stage_seconds";
pub(crate) const PRODUCE_BATCH_BYTES: &str = "streamhouse_produce_batch_bytes";
pub(crate) const PRODUCE_REJECTED: &str = "streamhouse_produce_rejected_total";
pub(crate) const PRODUCE_DUPLICATES: &str = "streamhouse_produce_duplicates_total";
pub(crate) const IN_FLIGHT_BYTES: &str = "streamhouse_in_flight_bytes";
pub(crate) const IN_FLIGHT_LIMIT: &str = "streamhouse_in_flight_limit_bytes";
pub(crate) const WAL_FLUSHES: &str = "streamhouse_wal_flush_total";
pub(crate) const WAL_OBJECT_BYTES: &str = "streamhouse_wal_object_bytes";
pub(crate) const WAL_OBJECT_PARTITIONS: &str = "streamhouse_wal_object_partitions";
pub(crate) const WAL_BUFFER_BYTES: &str = "streamhouse_wal_buffer_bytes";
pub(crate) const WAL_OLDEST_SECONDS: &str = "streamhouse_wal_oldest_unacked_seconds";
pub(crate) const WAL_UPLOADS: &str = "streamhouse_wal_uploads_in_flight";
pub(crate) const WAL_FAILED_SLOTS: &str = "streamhouse_wal_failed_slots_total";
pub(crate) const FETCH_BYTES: &str = "streamhouse_fetch_bytes_total";
pub(crate) const FETCH_RECORDS: &str = "streamhouse_fetch_records_total";
pub(crate) const FETCH_SECONDS: &str = "streamhouse_fetch_seconds";
pub(crate) const TAIL_CACHE_BYTES: &str = "streamhouse_tail_cache_bytes";
pub(crate) const SWEEP_DELETED: &str = "streamhouse_sweep_deleted_total";
pub(crate) const ACTOR_RESTARTS: &str = "streamhouse_actor_restarts_total";

/// Handles of the metrics that are recorded often.
pub(crate) struct Meters {
    pub(crate) queue: Histogram,
    pub(crate) buffer: Histogram,
    pub(crate) upload: Histogram,
    pub(crate) commit: Histogram,
    ack: Histogram,
    batch_bytes: Histogram,
    duplicates: Counter,
    flushes: [Counter; 4],
    pub(crate) object_bytes: Histogram,
    pub(crate) object_partitions: Histogram,
    pub(crate) buffer_bytes: Gauge,
    pub(crate) oldest: Gauge,
    pub(crate) uploads: Gauge,
    pub(crate) failed_slots: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) tail_bytes: Gauge,
    pub(crate) from_memory: FetchMeters,
    pub(crate) from_store: FetchMeters,
    log: Arc<dyn MetadataLog>,
    topics: Mutex<BTreeMap<TopicId, TopicMeters>>,
}

/// What one source of fetched batches records.
pub(crate) struct FetchMeters {
    pub(crate) bytes: Counter,
    pub(crate) records: Counter,
    pub(crate) seconds: Histogram,
}

struct TopicMeters {
    records: Counter,
    bytes: Counter,
}

impl Meters {
    pub(crate) fn new(log: Arc<dyn MetadataLog>, in_flight_limit: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        gauge!(IN_FLIGHT_LIMIT).set(in_flight_limit as f64);
        let stage = |stage: &'static str| histogram!(PRODUCE_STAGE_SECONDS, "stage" => stage);
        let fetch = |source: &'static str| FetchMeters {
            bytes: counter!(FETCH_BYTES, "source" => source),
            records: counter!(FETCH_RECORDS, "source" => source),
            seconds: histogram!(FETCH_SECONDS, "source" => source),
        };
        Self {
            queue: stage("queue"),
            buffer: stage("buffer"),
            upload: stage("upload"),
            commit: stage("commit"),
            ack: histogram!(PRODUCE_ACK_SECONDS),
            batch_bytes: histogram!(PRODUCE_BATCH_BYTES),
            duplicates: counter!(PRODUCE_DUPLICATES),
            flushes: Trigger::ALL.map(|trigger| counter!(WAL_FLUSHES, "trigger" => trigger.as_str())),
            object_bytes: histogram!(WAL_OBJECT_BYTES),
            object_partitions: histogram!(WAL_OBJECT_PARTITIONS),
            buffer_bytes: gauge!(WAL_BUFFER_BYTES),
            oldest: gauge!(WAL_OLDEST_SECONDS),
            uploads: gauge!(WAL_UPLOADS),
            failed_slots: counter!(WAL_FAILED_SLOTS),
            in_flight: gauge!(IN_FLIGHT_BYTES),
            tail_bytes: gauge!(TAIL_CACHE_BYTES),
            from_memory: fetch("memory"),
            from_store: fetch("store"),
            log,
            topics: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn flushed(&self, trigger: Trigger) {
        self.flushes[trigger as usize].increment(1);
    }

    /// A batch or unit was judged.
    pub(crate) fn answered(
        &self,
        entry: &SealedEntry,
        judged: &Result<Vec<Appended>, AppendError>,
        now: Duration,
    ) {
        let appended = match judged {
            Ok(appended) => appended,
            Err(error) => {
                counter!(PRODUCE_REJECTED, "reason" => error.code().reason()).increment(1);
                return;
            }
        };
        self.ack.record(now.saturating_sub(entry.waiter.admitted()).as_secs_f64());
        let mut topics = self.topics.lock();
        for (batch, appended) in entry.batches.iter().zip(appended) {
            self.batch_bytes.record(f64::from(batch.length()));
            if appended.duplicate {
                self.duplicates.increment(1);
            }
            let topic = batch.partition().topic;
            let meters = topics.entry(topic).or_insert_with(|| {
                let name = |state: &State| state.topic(topic).map(|topic| topic.name().to_string());
                let topic = crate::log::read(&*self.log, name).unwrap_or_else(|| topic.to_string());
                TopicMeters {
                    records: counter!(PRODUCE_RECORDS, "topic" => topic.clone()),
                    bytes: counter!(PRODUCE_BYTES, "topic" => topic),
                }
            });
            meters.records.increment(u64::from(batch.records()));
            meters.bytes.increment(u64::from(batch.length()));
        }
    }

    /// A batch or unit was not stored, or nobody knows.
    pub(crate) fn rejected(&self, error: &AppendError) {
        counter!(PRODUCE_REJECTED, "reason" => error.code().reason()).increment(1);
    }
}
