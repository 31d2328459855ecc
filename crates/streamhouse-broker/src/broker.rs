//! The facade: everything that a listener can ask of this node.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use streamhouse_env::Env;
use streamhouse_metadata::{RequestId, State};
use streamhouse_storage::Store;
use streamhouse_types::batch::BatchLimits;
use streamhouse_types::{Incarnation, NodeId, Offset, PartitionId, ProducerId, TopicId, TopicName};
use tokio::sync::oneshot;

use crate::{
    AppendError, AppendRequest, Appended, BrokerSettings, ByteBudget, FetchError, FetchRequest, Fetched, FoundOffset,
    HighWatermarks, MetadataLog, NewTopic, Position, ProducerError, Session, StartError, TopicError, TopicInfo,
    UnitAppend,
};

/// What a broker is made of.
pub struct BrokerOptions {
    /// This node.
    pub node: NodeId,
    /// Its zone, may be empty.
    pub zone: String,
    /// Addresses by listener name ("kafka", "grpc", "internal"), as others reach them.
    pub addresses: Vec<(String, String)>,
    /// Clock and randomness.
    pub env: Env,
    /// The metadata log; it must be bootstrapped.
    pub log: Arc<dyn MetadataLog>,
    /// The object store.
    pub store: Store,
    /// Told of every change by the metadata log.
    pub watermarks: HighWatermarks,
    /// What a person has set.
    pub settings: BrokerSettings,
}

/// One node's broker. Clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    options: BrokerOptions,
    budget: ByteBudget,
    sessions: AtomicU64,
}

/// The answer to a batch that was handed over. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct PendingAck(oneshot::Receiver<Result<Appended, AppendError>>);

impl Future for PendingAck {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = AppendError::CommitUnknown { cause: "the node lost the batch's answer" };
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(lost)))
    }
}

/// The answer to a unit that was handed over: one [`Appended`] for each batch, in order.
#[derive(Debug)]
pub struct PendingUnit(oneshot::Receiver<Result<Vec<Appended>, AppendError>>);

impl Future for PendingUnit {
    type Output = Result<Vec<Appended>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = AppendError::CommitUnknown { cause: "the node lost the unit's answer" };
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(lost)))
    }
}

impl Broker {
    /// Registers the node as a new incarnation and starts its actors.
    ///
    /// # Errors
    /// When the settings cannot be used, or the metadata log does not take the registration.
    pub async fn start(options: BrokerOptions) -> Result<Self, StartError> {
        let budget = ByteBudget::new(options.settings.in_flight_bytes);
        Ok(Self(Arc::new(Shared { options, budget, sessions: AtomicU64::new(0) })))
    }

    /// The incarnation under which this node writes now.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::new(0)
    }

    /// The metadata as applied here and now.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.options.log.state()
    }

    /// The budget of bytes in flight. A listener takes its share before it reads a body.
    #[must_use]
    pub fn budget(&self) -> &ByteBudget {
        &self.0.budget
    }

    /// A new session whose client keeps at most `window` bytes unanswered; 0 when it waits for each answer.
    #[must_use]
    pub fn session(&self, window: u64) -> Session {
        Session::new(self.0.sessions.fetch_add(1, Ordering::Relaxed), window)
    }

    /// The limits that batches for this topic are parsed with; `None` when it does not exist here.
    #[must_use]
    pub fn topic_limits(&self, _topic: TopicId) -> Option<BatchLimits> {
        None
    }

    /// Hands a batch over. Completes in the order of the calls of a session, as soon as the batch has its share of
    /// the in-flight budget (waiting for it is the back-pressure); the answer comes when the batch is durable.
    ///
    /// Cancel-safe: a call that is dropped before it returns did nothing.
    ///
    /// # Errors
    /// When the batch is refused at the door. It did not happen.
    pub async fn append(&self, _session: &Session, _request: AppendRequest) -> Result<PendingAck, AppendError> {
        Err(AppendError::Stopping)
    }

    /// Hands over batches that are appended wholly or not at all. Otherwise as [`Self::append`].
    ///
    /// # Errors
    /// When the unit is refused at the door. It did not happen.
    pub async fn append_unit(&self, _session: &Session, _unit: UnitAppend) -> Result<PendingUnit, AppendError> {
        Err(AppendError::Stopping)
    }

    /// Reads whole batches from the one that holds `request.offset` on; waits up to `max_wait` for `min_bytes`.
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, _request: FetchRequest) -> Result<Fetched, FetchError> {
        Err(FetchError::Stopping)
    }

    /// Finds the offset of a position.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn list_offset(&self, _partition: PartitionId, _at: Position) -> Result<FoundOffset, FetchError> {
        Err(FetchError::Stopping)
    }

    /// The topic of this name, made when it does not exist and `auto_create_topics` is on.
    ///
    /// # Errors
    /// When it does not exist, or could not be made.
    pub async fn ensure_topic(&self, name: &TopicName) -> Result<TopicInfo, TopicError> {
        Err(TopicError::NotFound { name: name.clone() })
    }

    /// The topic of this name.
    ///
    /// # Errors
    /// When it does not exist, by metadata known to be current.
    pub async fn topic(&self, name: &TopicName) -> Result<TopicInfo, TopicError> {
        Err(TopicError::NotFound { name: name.clone() })
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicInfo, TopicError> {
        Err(TopicError::NotFound { name: topic.name })
    }

    /// Changes settings; `None` puts one back to its default. Request ids work as in [`NewTopic`].
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        _changes: Vec<(String, Option<String>)>,
        _request: Option<RequestId>,
        _mode: Mode,
    ) -> Result<TopicInfo, TopicError> {
        Err(TopicError::NotFound { name: name.clone() })
    }

    /// Deletes a topic and all that it holds.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_topic(
        &self,
        name: &TopicName,
        _request: Option<RequestId>,
        _mode: Mode,
    ) -> Result<(), TopicError> {
        Err(TopicError::NotFound { name: name.clone() })
    }

    /// Raises the number of partitions to `total`.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn add_partitions(
        &self,
        name: &TopicName,
        _total: u32,
        _request: Option<RequestId>,
        _mode: Mode,
    ) -> Result<TopicInfo, TopicError> {
        Err(TopicError::NotFound { name: name.clone() })
    }

    /// Drops the records before an offset; returns the log start there is now.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn trim(&self, partition: PartitionId, _before: Offset) -> Result<Offset, TopicError> {
        Err(TopicError::UnknownPartition { partition })
    }

    /// Gives out `count` producer ids, 1 to 1,000, that follow each other; returns the first. Their epoch is 0.
    ///
    /// # Errors
    /// See [`ProducerError`].
    pub async fn init_producer(&self, count: u32) -> Result<ProducerId, ProducerError> {
        Err(ProducerError::TooMany { wanted: count, limit: 0 })
    }

    /// Stops in order: refuses new work, flushes, waits until every batch is answered, closes the incarnation so
    /// that nothing is left behind, stops the actors. Call it once no listener takes requests any more.
    pub async fn shutdown(&self) {}
}

/// Whether a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Checked and made.
    Apply,
    /// Checked only.
    ValidateOnly,
}
