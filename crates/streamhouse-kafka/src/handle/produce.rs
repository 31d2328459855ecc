//! Produce: batches are judged and handed over in the order in which they came; the answer is put together later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use kacrab_protocol::generated as g;
use streamhouse_advice::Next;
use streamhouse_broker::metadata::{ProducerWindow, TimestampType};
use streamhouse_broker::{AppendError, AppendRequest, Appended, BytePermit, PendingAck, Session};
use streamhouse_types::PartitionId;
use streamhouse_types::batch::{BatchError, BatchLimits, Compression, RecordBatch, read_header};
use streamhouse_types::error_code::ErrorCode;

use super::{Found, answer, partition, wire_offset};
use crate::codec::{
    DecodeError, NodeEndpoint, ProduceAnswer, ProduceAnswerPartition, ProduceAnswerTopic, ProducePartition,
    ProduceQuery, RecordError, TopicRef,
};
use crate::connection::{Answer, Reply};
use crate::{CheckError, Code, Kafka};

/// How far ahead of the clock a producer's timestamps may be, in milliseconds.
const AHEAD_MS_MAX: i64 = 60 * 60 * 1_000;

/// Batches of one topic on their way.
struct Sent {
    topic: TopicRef,
    partitions: Vec<(i32, Option<PartitionId>, Result<OnItsWay, BatchRefusal>)>,
}

/// A batch that was handed over.
struct OnItsWay {
    ack: PendingAck,
    /// Whether the log gives the records their time.
    stamped: bool,
}

/// Why a batch was not taken, or what may have become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BatchRefusal {
    code: Code,
    message: String,
    /// The records that are at fault.
    records: Vec<u32>,
}

impl BatchRefusal {
    fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), records: Vec::new() }
    }

    fn of_append(error: &AppendError) -> Self {
        match error {
            AppendError::NoKey { records } => {
                let message = "a topic with cleanup.policy=compact takes no record without a key";
                Self { records: records.clone(), ..Self::new(Code::INVALID_RECORD, message) }
            }
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<BatchError> for BatchRefusal {
    fn from(error: BatchError) -> Self {
        let code = match &error {
            // Kafka has no other code for what it does not know inside a batch.
            BatchError::Magic { .. } | BatchError::Unsupported { .. } => Code::INVALID_RECORD,
            error => error.code().into(),
        };
        let records = if let BatchError::Record { index, .. } = &error { vec![*index] } else { Vec::new() };
        Self { code, message: error.to_string(), records }
    }
}

impl Kafka {
    /// Hands the batches of a request over; the answer waits for what becomes of them. When this returns, they are in
    /// order before everything that is handed over through `session` later. `next` tells whether the client sends
    /// more before it is answered.
    pub(crate) async fn produce(
        &self,
        version: i16,
        query: ProduceQuery,
        session: &Session,
        next: Next,
        mut budget: Option<BytePermit>,
    ) -> BoxFuture<'static, Answer> {
        let mut left = query.batches();
        let ProduceQuery { transactional_id, acks, timeout_ms, topics } = query;
        let bytes: usize = topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter_map(|p| p.records.as_ref())
            .map(Bytes::len)
            .sum();
        let refused = if !(-1..=1).contains(&acks) {
            let message = format!("acks is -1, 0 or 1, not {acks}");
            Some(BatchRefusal::new(Code::INVALID_REQUIRED_ACKS, message))
        } else if transactional_id.is_some() {
            Some(BatchRefusal::new(Code::INVALID_TXN_STATE, "transactions are not supported yet"))
        } else if self.is_draining() {
            Some(BatchRefusal::new(Code::NOT_LEADER, "the node is stopping"))
        } else if self.is_adrift() {
            Some(BatchRefusal::new(
                Code::NOT_LEADER,
                "the node does not hear the others, and can store nothing",
            ))
        } else {
            None
        };
        let mut sent = Vec::with_capacity(topics.len());
        for topic in topics {
            let found = self.find(&topic.topic).await;
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for ProducePartition { index, records } in topic.partitions {
                let id = found.as_ref().ok().and_then(|found| partition(found.id, index));
                left -= 1;
                if next == Next::WhenAnswered && left == 0 {
                    session.hold_still();
                }
                let outcome = match (&refused, &found, id) {
                    (Some(refused), ..) => Err(refused.clone()),
                    (None, Err(code), _) => Err(BatchRefusal::new(*code, "the topic is not known")),
                    (None, Ok(_), None) => {
                        Err(BatchRefusal::new(ErrorCode::PartitionNotFound, "there is no such partition"))
                    }
                    (None, Ok(found), Some(id)) => {
                        let records = records.map(|records| own(records, bytes));
                        self.take(version, (found, id), records, session, &mut budget).await
                    }
                };
                partitions.push((index, id, outcome));
            }
            sent.push(Sent { topic: topic.topic, partitions });
        }
        let kafka = self.clone();
        let deadline = self.clock().now() + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        async move { kafka.settle(version, acks, deadline, sent).await }.boxed()
    }

    /// Judges a batch and hands it over.
    async fn take(
        &self,
        version: i16,
        (found, id): (&Found, PartitionId),
        records: Option<Bytes>,
        session: &Session,
        budget: &mut Option<BytePermit>,
    ) -> Result<OnItsWay, BatchRefusal> {
        let batch = self.judge(version, found, records)?;
        let batch = match batch.header().attributes.compression() {
            Ok(Compression::None) => batch,
            _ => {
                let checked = self.0.options.checking.check(batch).await;
                checked.map_err(|error| match error {
                    CheckError::Batch(error) => BatchRefusal::from(error),
                    CheckError::Failed => BatchRefusal::new(ErrorCode::Internal, error.to_string()),
                })?
            }
        };
        let permit = budget.as_mut().map(|budget| budget.split(batch.bytes().len() as u64));
        let request = AppendRequest { partition: id, batch, permit };
        let stamped = found.settings.timestamp_type == TimestampType::LogAppend;
        match self.broker().append(session, request).await {
            Ok(ack) => Ok(OnItsWay { ack, stamped }),
            Err(error) => Err(BatchRefusal::of_append(&error)),
        }
    }

    /// What can be said of a batch without opening it, in the order in which Kafka's own brokers look.
    fn judge(
        &self,
        version: i16,
        found: &Found,
        records: Option<Bytes>,
    ) -> Result<RecordBatch, BatchRefusal> {
        let records = records.filter(|records| !records.is_empty());
        let records = records
            .ok_or_else(|| BatchRefusal::new(Code::INVALID_RECORD, "there is no batch for the partition"))?;
        let header = read_header(&records).map_err(|error| match error {
            BatchError::Length { .. } => BatchRefusal::new(Code::INVALID_RECORD, error.to_string()),
            error => error.into(),
        })?;
        if header.attributes.compression()? == Compression::Zstd && version < 7 {
            let message = "zstd needs version 7 of Produce";
            return Err(BatchRefusal::new(Code::UNSUPPORTED_COMPRESSION_TYPE, message));
        }
        if header.base_offset != 0 {
            let message = format!("the base offset of a batch is 0, not {}", header.base_offset);
            return Err(BatchRefusal::new(Code::INVALID_RECORD, message));
        }
        if header.attributes.is_control() {
            return Err(BatchRefusal::new(Code::INVALID_RECORD, "clients write no control batches"));
        }
        if header.attributes.is_transactional() {
            let message = "the batch belongs to a transaction, and transactions are not supported yet";
            return Err(BatchRefusal::new(Code::INVALID_TXN_STATE, message));
        }
        let most = found.settings.max_message_bytes.min(self.0.options.max_batch_bytes);
        let batch = RecordBatch::parse(records, &BatchLimits::of_topic(most))?;
        let latest = self.clock().wall().plus_millis(AHEAD_MS_MAX);
        let stamped = found.settings.timestamp_type == TimestampType::LogAppend;
        if !stamped && batch.header().max_timestamp > latest {
            let message = "a timestamp lies more than an hour ahead of the node's clock";
            return Err(BatchRefusal::new(ErrorCode::InvalidTimestamp, message));
        }
        Ok(batch)
    }

    /// Waits for the batches, at most as long as the client does or until this node has lost the others, and puts the
    /// answer together: a client that repeats a batch elsewhere is better off than one that waits here.
    async fn settle(self, version: i16, acks: i16, deadline: Duration, sent: Vec<Sent>) -> Answer {
        let (clock, kafka) = (Arc::clone(self.clock()), self.clone());
        let patience = match acks {
            // The time that is told is how long a client waits for its answer. Who wants none waits for nothing, and an end
            // of the connection tells of a batch that is refused, not of one that takes its time.
            0 => std::future::pending().boxed().shared(),
            _ => async move {
                tokio::select! {
                    () = clock.sleep_until(deadline) => {}
                    () = kafka.adrift() => {}
                }
            }
            .boxed()
            .shared(),
        };
        let mut all = ProduceAnswer::default();
        let mut first = Code::NONE;
        for Sent { topic, partitions } in sent {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, id, outcome) in partitions {
                let settled = match outcome {
                    Ok(sent) => settled(sent, patience.clone()).await,
                    Err(refusal) => Err(refusal),
                };
                let answer = self.partition_answer((index, id), settled, &mut all.nodes);
                if first == Code::NONE {
                    first = answer.code;
                }
                answers.push(answer);
            }
            all.topics.push(ProduceAnswerTopic { topic, partitions: answers });
        }
        let reply = match (acks, first) {
            (0, Code::NONE) => Reply::Silence,
            (0, _) => Reply::End,
            _ => Reply::Body(all.encode(version)),
        };
        Answer { reply, code: first, permit: None }
    }

    fn partition_answer(
        &self,
        (index, id): (i32, Option<PartitionId>),
        settled: Result<(Appended, bool), BatchRefusal>,
        nodes: &mut Vec<NodeEndpoint>,
    ) -> ProduceAnswerPartition {
        let mut answer = ProduceAnswerPartition {
            index,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            ..Default::default()
        };
        match settled {
            Ok((appended, stamped)) => {
                answer.base_offset = wire_offset(appended.base);
                if stamped {
                    answer.log_append_time_ms = appended.append_time.as_millis();
                }
                let start =
                    |id| self.broker().look(|state| state.partition(id).map(|found| found.log_start()));
                answer.log_start_offset = id.and_then(start).map_or(-1, wire_offset);
            }
            Err(BatchRefusal { code, message, records }) => {
                answer.code = code;
                answer.record_errors.extend(records.into_iter().map(|record| {
                    let index = i32::try_from(record).unwrap_or(i32::MAX);
                    RecordError { index, message: message.clone() }
                }));
                answer.message = Some(message);
                if code == Code::NOT_LEADER
                    && let Some((hint, node)) = self.hint(id)
                {
                    answer.leader = Some(hint);
                    if !nodes.contains(&node) {
                        nodes.push(node);
                    }
                }
            }
        }
        answer
    }

    /// Gives out a producer id of which five batches are remembered: clients have no more in flight.
    pub(super) async fn init_producer_id(
        &self,
        version: i16,
        query: &g::InitProducerIdRequestData,
    ) -> Result<Answer, DecodeError> {
        let granted = if query.transactional_id.is_some() {
            Err(Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        } else if self.is_draining() {
            Err(Code::from(ErrorCode::MetadataUnavailable))
        } else {
            self.broker().init_producer(1, ProducerWindow::Kafka).await.map_err(|error| error.code().into())
        };
        let mut message =
            g::InitProducerIdResponseData { producer_id: -1, producer_epoch: -1, ..Default::default() };
        let code = match granted {
            Ok(id) => {
                message.producer_id = i64::try_from(id.get()).unwrap_or(-1);
                message.producer_epoch = 0;
                Code::NONE
            }
            Err(code) => code,
        };
        message.error_code = code.get();
        answer(&message, version, [code])
    }
}

/// Waits for one batch. Once the client's patience is over, what became of it is not known.
async fn settled(
    OnItsWay { ack, stamped }: OnItsWay,
    patience: Shared<BoxFuture<'static, ()>>,
) -> Result<(Appended, bool), BatchRefusal> {
    tokio::select! {
        biased;
        settled = ack => match settled {
            Ok(appended) => Ok((appended, stamped)),
            Err(error) => Err(BatchRefusal::new(error.code(), error.to_string())),
        },
        () = patience => {
            let message = "it is not known whether the batch was stored within the client's timeout, or before this node \
                           lost the others";
            Err(BatchRefusal::new(ErrorCode::CommitUnknown, message))
        }
    }
}

/// A slice of the frame keeps all of it in memory for as long as the batch stands in the caches, so a small part of a
/// request is copied out.
fn own(records: Bytes, all: usize) -> Bytes {
    if records.len() * 2 >= all { records } else { Bytes::copy_from_slice(&records) }
}
