//! Producers: records in, acknowledgements out.

mod ticket;

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use streamhouse_types::batch::Compression;

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
    #[expect(clippy::fn_params_excessive_bools, reason = "the word that Kafka's users know")]
    pub fn idempotent(self, idempotent: bool) -> Self {
        self.delivery(if idempotent { Delivery::ExactlyOnce } else { Delivery::AtMostOnce })
    }

    /// Opens the session. Cancel-safe.
    ///
    /// # Errors
    /// When the topic does not exist or may not be written, or no server answers within the request timeout.
    pub async fn build(self) -> Result<Producer, CallError> {
        Err(CallError::BadAnswer { what: "not built yet" })
    }
}

/// Writes records to a topic. Cloning is cheap; clones share batches and limits.
#[derive(Debug, Clone)]
pub struct Producer {
    topic: Topic,
}

impl Producer {
    /// Takes a record; the ticket resolves when it is durable. Waits while there is no room, which is all the
    /// back-pressure there is. Records of one task and partition are stored in the order of their sends.
    ///
    /// Cancel-safe: a cancelled send sent nothing. A dropped ticket changes nothing for its record; failures of
    /// records whose tickets are dropped are told by [`flush`](Self::flush) and [`close`](Self::close).
    ///
    /// # Errors
    /// When the record can never be sent: too large, no such partition, producer closed.
    pub async fn send(&self, record: impl Into<Record>) -> Result<Ticket, SendError> {
        let _ = (record.into(), &self.topic);
        Err(SendError::Closed)
    }

    /// Sends all records of a stream and waits until all are durable; returns how many.
    ///
    /// Not cancel-safe: some records may be sent then.
    ///
    /// # Errors
    /// The first failure; later records of the stream are not read then, earlier ones may be stored.
    pub async fn send_all<S>(&self, records: S) -> Result<u64, SendError>
    where
        S: Stream + Send,
        S::Item: Into<Record> + Send,
    {
        let mut records = std::pin::pin!(records);
        let mut sent = 0;
        while let Some(record) = records.next().await {
            self.send(record).await?;
            sent += 1;
        }
        self.flush().await?;
        Ok(sent)
    }

    /// Waits until all records taken before are decided. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of a record since the last flush.
    pub async fn flush(&self) -> Result<(), SendError> {
        Ok(())
    }

    /// Refuses further records, waits until all that were taken are decided, and ends the session. Cancelling it
    /// leaves the producer closed; what was taken is still sent.
    ///
    /// # Errors
    /// The first failure of a record since the last flush.
    pub async fn close(self) -> Result<(), SendError> {
        self.flush().await
    }
}
