//! Producers: records in, acknowledgements out.

mod accumulator;
mod batch;
mod flow;
mod homes;
mod lane;
mod outbox;
mod sender;
mod session;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use streamhouse_env::Env;
use streamhouse_types::batch::Compression;
use tokio::sync::{Notify, Semaphore};

use self::accumulator::{Accumulator, Limits, Pushed};
use self::outbox::Outbox;
use self::sender::Sender;
use self::session::Opening;
use crate::call::Repeat;
use crate::error::{CallError, SendError};
use crate::record::Record;
use crate::topic::Topic;

pub use ticket::{Ack, Ticket};

/// What a producer promises about repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Each batch is in the log exactly once, in order, over lost connections and restarts of the server.
    #[default]
    ExactlyOnce,
    /// A batch whose outcome is unknown is not sent again.
    AtMostOnce,
}

/// Settings of a producer. Made by [`Topic::producer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    topic: Topic,
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: u32,
    pub(crate) compression: Compression,
    pub(crate) max_unacked: u64,
    pub(crate) delivery_timeout: Duration,
    pub(crate) delivery: Delivery,
}

impl ProducerBuilder {
    pub(crate) fn new(topic: Topic) -> Self {
        Self {
            topic,
            linger: Duration::from_millis(1),
            batch_bytes: 1 << 20,
            compression: Compression::None,
            max_unacked: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
            delivery: Delivery::default(),
        }
    }

    /// Longest a record waits for company while other batches are unacknowledged; 1 ms by default. When nothing is
    /// unacknowledged, records go at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Largest batch before compression; 1 MiB by default, and never more than the topic takes.
    pub fn batch_bytes(mut self, bytes: u32) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How batches are compressed; not at all by default.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Most bytes of records that are taken and not yet acknowledged, over all partitions; 32 MiB by default. When
    /// they are reached, [`Producer::send`] waits.
    pub fn max_unacked(mut self, bytes: u64) -> Self {
        self.max_unacked = bytes;
        self
    }

    /// Longest from taking a record to its acknowledgement, retries included; 120 s by default.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// What is promised about repeats; exactly once by default.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// `true` is [`Delivery::ExactlyOnce`], `false` [`Delivery::AtMostOnce`].
    #[expect(clippy::fn_params_excessive_bools, reason = "a switch that is named by its method")]
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.delivery(if idempotent { Delivery::ExactlyOnce } else { Delivery::AtMostOnce })
    }

    /// Opens the first session. Cancel-safe.
    ///
    /// # Errors
    /// When the topic does not exist or may not be written, or no server answers within the request timeout.
    pub async fn build(self) -> Result<Producer, CallError> {
        let env = self.topic.house.0.env.clone();
        let opening = Opening {
            topic: self.topic.clone(),
            delivery: self.delivery,
            identity: None,
            want_credit_bytes: self.max_unacked,
        };
        let house = &self.topic.house;
        let open = |way| opening.clone().open(way);
        let opened = house.caller().attempt(Repeat::Harmless, || house.next_way(), open).await;
        let (session, opened) = opened.map_err(|error| match error {
            // Nothing was sent.
            CallError::TimedOut { after, last, .. } => {
                CallError::TimedOut { after, last, may_have_happened: false }
            }
            error => error,
        })?;
        let room_bytes = usize::try_from(self.max_unacked).unwrap_or(usize::MAX);
        let room_bytes = room_bytes.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room_bytes));
        let limits = Limits {
            linger: self.linger,
            delivery_timeout: self.delivery_timeout,
            compression: self.compression,
            batch_bytes: self.batch_bytes as usize,
            batch_bytes_max: opened.max_batch_bytes as usize,
            room_bytes,
        };
        let sticky =
            u32::try_from(env.rng.below(u64::from(opened.partitions))).expect("below a 32-bit number");
        let accumulator = Accumulator::new(limits, room.clone(), opened.partitions, sticky);
        let shared =
            Arc::new(Shared { env, room, accumulator: Mutex::new(accumulator), work: Notify::new() });
        let outbox = Outbox::new(self.delivery, self.delivery_timeout);
        let sender = Sender::new(shared.clone(), opening, outbox).with_session(session, opened);
        tokio::spawn(sender.run());
        Ok(Producer { handle: Arc::new(Handle { shared }) })
    }
}

/// What sends and the sender share.
#[derive(Debug)]
struct Shared {
    env: Env,
    /// Room for records that are not acknowledged, in bytes.
    room: Arc<Semaphore>,
    accumulator: Mutex<Accumulator>,
    /// Wakes the sender.
    work: Notify,
}

/// The users' end. When the last one goes, what was taken is still sent, and then the session ends.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    fn shut(&self) {
        self.shared.accumulator.lock().shut();
        self.shared.work.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Writes records to a topic. Cloning is cheap; clones share batches and limits.
///
/// Each partition's batches go to the node that is its home. When a home moves, the partition first waits for what is
/// on its way, then follows, so nothing overtakes. While a home cannot be reached any other node takes its batches. No
/// error tells of any of this: what is not acknowledged goes on until the delivery timeout.
///
/// When the last clone is dropped without [`close`](Self::close), what was taken is still sent while the runtime
/// lives, but only tickets tell what became of it.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

impl Producer {
    /// Takes a record; the ticket resolves when it is durable. Waits while there is no room, which is all the
    /// back-pressure there is. Records that one task sends to one partition are stored in that order.
    ///
    /// Cancel-safe: a cancelled send sent nothing. A dropped ticket changes nothing for its record; failures of
    /// records whose tickets are dropped are told by [`flush`](Self::flush) and [`close`](Self::close).
    ///
    /// # Errors
    /// When the record can never be sent: too large, malformed, no such partition, producer closed.
    pub async fn send(&self, record: impl Into<Record>) -> Result<Ticket, SendError> {
        let record = record.into();
        let shared = &*self.handle.shared;
        let mut hand = None;
        loop {
            let pushed = shared.accumulator.lock().push(&record, &mut hand, &shared.env)?;
            match pushed {
                Pushed::Taken { ticket, opened } => {
                    if opened {
                        shared.work.notify_one();
                    }
                    return Ok(ticket);
                }
                Pushed::LetSenderRun => {
                    shared.work.notify_one();
                    tokio::task::yield_now().await;
                }
                Pushed::NoRoom(bytes) => {
                    let room = shared.room.clone().acquire_many_owned(bytes).await;
                    hand = Some(room.map_err(|_| SendError::Closed)?);
                }
            }
        }
    }

    /// Sends all records of a stream and waits until all are durable; returns how many.
    ///
    /// Not cancel-safe: some records may be sent then.
    ///
    /// # Errors
    /// The first failure. What was read from the stream before may be stored.
    pub async fn send_all<S>(&self, records: S) -> Result<u64, SendError>
    where
        S: Stream + Send,
        S::Item: Into<Record> + Send,
    {
        let mut records = std::pin::pin!(records);
        let mut sent = 0;
        while let Some(record) = records.next().await {
            drop(self.send(record).await?);
            sent += 1;
        }
        self.flush().await?;
        Ok(sent)
    }

    /// Waits until all records taken before are decided. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of a record since the last flush, whether its ticket was kept or not.
    pub async fn flush(&self) -> Result<(), SendError> {
        let shared = &*self.handle.shared;
        let fates = shared.accumulator.lock().flush();
        shared.work.notify_one();
        for fate in fates {
            fate.decided().await;
        }
        match shared.accumulator.lock().take_failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Refuses further records, on all clones, waits until all that were taken are decided, and ends the session. One in
    /// which a node still owes an answer to a record that timed out ends with that answer, or with the patience for it.
    /// Cancelling it leaves the producer closed; what was taken is still sent.
    ///
    /// # Errors
    /// The first failure of a record since the last flush, whether its ticket was kept or not.
    pub async fn close(self) -> Result<(), SendError> {
        self.handle.shut();
        self.flush().await
    }
}
