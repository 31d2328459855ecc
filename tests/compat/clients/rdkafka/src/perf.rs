//! Load, for `bench.py`: writing as fast as it goes or at a pace, and reading what is there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use serde_json::json;

use crate::{Request, config, consumer_config, out};

/// Longest wait for what was asked for last.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a full producer is left alone.
const FULL: Duration = Duration::from_millis(2);
/// How long a consumer waits before it looks whether its time is over.
const POLL: Duration = Duration::from_millis(100);
/// How often a paced producer sends.
const TICK: Duration = Duration::from_millis(1);
/// What is sent before this is not counted: connections are made, codes are warm and consumers are under way only then.
const WARM_UP: Duration = Duration::from_secs(1);

/// What became of the records.
#[derive(Default)]
struct Acks {
    micros: Vec<u32>,
    failed: u64,
    why: Option<String>,
}

/// Takes the time from sending to acknowledgement.
struct Timed {
    started: Instant,
    acks: Arc<Mutex<Acks>>,
}

impl ClientContext for Timed {}

impl ProducerContext for Timed {
    /// Nanoseconds from the start to sending.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: usize) {
        let sent = Duration::from_nanos(sent as u64);
        let took = self.started.elapsed().saturating_sub(sent);
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) if sent >= WARM_UP => acks.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)),
            Ok(_) => {}
            Err((error, _)) => {
                acks.failed += 1;
                acks.why.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

struct Load {
    producer: ThreadedProducer<Timed>,
    started: Instant,
    acks: Arc<Mutex<Acks>>,
    sent: usize,
}

impl Load {
    fn new(bootstrap: &str, asked: &Request) -> anyhow::Result<Self> {
        let idempotent = asked.idempotent.to_string();
        let mut settings = vec![
            ("acks", "all"),
            ("enable.idempotence", &idempotent[..]),
            // Room for more than is on its way, so that the broker is what a producer waits for.
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        settings.extend(asked.settings.iter().map(|(name, value)| (&name[..], &value[..])));
        let (started, acks) = (Instant::now(), Arc::default());
        let context = Timed { started, acks: Arc::clone(&acks) };
        let producer = config(bootstrap, &settings).create_with_context(context)?;
        Ok(Self { producer, started, acks, sent: 0 })
    }

    /// Sends one record to the partition whose turn it is; the time of sending is in its first eight bytes.
    fn send(&mut self, asked: &Request, payload: &mut [u8]) -> anyhow::Result<()> {
        let nanos = u64::try_from(self.started.elapsed().as_nanos())?;
        payload[..8].copy_from_slice(&nanos.to_be_bytes());
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&asked.topic, usize::try_from(nanos)?)
            .partition(i32::try_from(self.sent)? % asked.partitions)
            .payload(payload);
        while let Err((error, back)) = self.producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.into());
            }
            record = back;
            std::thread::park_timeout(FULL);
        }
        self.sent += 1;
        Ok(())
    }

    /// Waits for the acknowledgements and tells about them.
    fn finish(self, bytes: usize, more: serde_json::Value) -> anyhow::Result<()> {
        self.producer.flush(PATIENCE * 2)?;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(acks.failed == 0, "{} records failed: {}", acks.failed, acks.why.as_deref().unwrap_or("?"));
        let mut line = json!({
            "records": self.sent, "bytes": self.sent * bytes, "seconds": seconds,
            "ack_p50_ms": percentile(&mut acks.micros, 500), "ack_p99_ms": percentile(&mut acks.micros, 990),
        });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        out(line);
        Ok(())
    }
}

/// In milliseconds; null where nothing was measured.
fn percentile(micros: &mut [u32], permille: usize) -> Option<f64> {
    let place = micros.len().checked_sub(1)? * permille / 1_000;
    Some(f64::from(*micros.select_nth_unstable(place).1) / 1_000.0)
}

/// As fast as it goes, until the time is over or enough bytes are sent.
pub(crate) fn flood(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let mut load = Load::new(bootstrap, asked)?;
    let mut payload = vec![b'x'; asked.bytes];
    let most = asked.count.max(1) / asked.bytes;
    while load.started.elapsed().as_secs_f64() < asked.seconds && load.sent < most {
        load.send(asked, &mut payload)?;
    }
    load.finish(asked.bytes, json!({}))
}

/// At a pace, while a consumer follows: the time to the acknowledgement and to the consumer.
pub(crate) fn paced(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let mut load = Load::new(bootstrap, asked)?;
    let consumer = whole(bootstrap, asked)?;
    let (started, seconds) = (load.started, asked.seconds);
    let follower = std::thread::spawn(move || follow(&consumer, started, seconds));
    let mut payload = vec![b'x'; asked.bytes];
    let mut next = started;
    while started.elapsed().as_secs_f64() < seconds {
        let due = asked.per_second * started.elapsed().as_secs_f64();
        while (load.sent as f64) < due {
            load.send(asked, &mut payload)?;
        }
        next += TICK;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    let mut micros = follower.join().ok().context("the follower ended")??;
    let (p50, p99) = (percentile(&mut micros, 500), percentile(&mut micros, 990));
    load.finish(asked.bytes, json!({ "e2e_p50_ms": p50, "e2e_p99_ms": p99 }))
}

/// How long records were under way, for those sent in the time that is measured.
fn follow(consumer: &BaseConsumer, started: Instant, seconds: f64) -> anyhow::Result<Vec<u32>> {
    let mut micros = Vec::new();
    while started.elapsed().as_secs_f64() < seconds {
        let Some(message) = consumer.poll(POLL) else { continue };
        let message = message?;
        let stamp = message.payload().and_then(|payload| payload.first_chunk()).context("a short record")?;
        let sent = Duration::from_nanos(u64::from_be_bytes(*stamp));
        if sent >= WARM_UP {
            let took = started.elapsed().saturating_sub(sent);
            micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(micros)
}

/// All partitions from their starts.
fn whole(bootstrap: &str, asked: &Request) -> anyhow::Result<BaseConsumer> {
    let settings: Vec<_> = asked.settings.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let consumer: BaseConsumer = consumer_config(bootstrap, &settings).create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..asked.partitions {
        places.add_partition_offset(&asked.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    Ok(consumer)
}

/// Reads `count` records from the start, from the first to the last one.
pub(crate) fn drain(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let started = Instant::now();
    let consumer = whole(bootstrap, asked)?;
    let (mut records, mut bytes, mut first) = (0, 0, None);
    while records < asked.count {
        ensure!(started.elapsed() < PATIENCE, "{} of {} records came", records, asked.count);
        if let Some(message) = consumer.poll(POLL) {
            bytes += message?.payload_len();
            records += 1;
            first.get_or_insert_with(Instant::now);
        }
    }
    let seconds = first.unwrap_or(started).elapsed().as_secs_f64();
    out(
        json!({ "records": records, "bytes": bytes, "seconds": seconds, "all_seconds": started.elapsed().as_secs_f64() }),
    );
    Ok(())
}
