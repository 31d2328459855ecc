//! What all connections share.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use streamhouse_advice::Clients;
use streamhouse_broker::{Broker, ByteBudget, Contact};
use streamhouse_env::{Clock, Env};
use streamhouse_groups::Groups;
use streamhouse_types::batch::{BatchError, RecordBatch};
use streamhouse_types::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Bytes beside them, for small answers.
const SPARE_BYTES: u64 = 32 << 20;
/// Bytes of Fetch answers that a node holds at a time, over all connections.
const ANSWER_BYTES: u64 = 128 << 20;
/// Requests that are long lists at a time, over all connections: read into memory they are many times their length.
const LARGE_REQUESTS: usize = 4;

/// Opens the records of compressed batches before they are taken. Its room is the whole node's, whatever protocol a
/// batch comes by.
#[async_trait]
pub trait Checking: Send + Sync + 'static {
    /// Hands the batch back when its records are what its header says. Cancel-safe.
    ///
    /// # Errors
    /// What is wrong with it.
    async fn check(&self, batch: RecordBatch) -> Result<RecordBatch, CheckError>;
}

/// Why a compressed batch was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// Its records are not what they must be.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Opening it has failed: a fault of this node.
    #[error("the batch could not be opened")]
    Failed,
}

/// The name under which nodes tell each other where they themselves take Kafka requests, whatever clients are told.
pub const DIRECT: &str = "kafka-direct";

/// How the cluster presents itself to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presentation {
    /// Every node under the address that it tells.
    Nodes,
    /// As one broker behind one address: a load balancer, through which a client reaches any node.
    SingleEndpoint {
        /// A name or an IP address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What the Kafka listener is made of.
pub struct KafkaOptions {
    /// The node's broker.
    pub broker: Broker,
    /// Clock and randomness.
    pub env: Env,
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The consumer groups; a node that takes no writes has none.
    pub groups: Option<Groups>,
    /// Where it is noted who is held back by the way it produces.
    pub clients: Clients,
    /// Opens compressed batches.
    pub checking: Arc<dyn Checking>,
    /// Largest batch that any topic may have on this node, in bytes.
    pub max_batch_bytes: u32,
    /// Whether asking for an unknown topic makes it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is made without a number.
    pub default_partitions: u32,
    /// What clients are told of the cluster.
    pub presentation: Presentation,
    /// The node stops: its clients are sent to others.
    pub drain: CancellationToken,
}

/// Answers Kafka clients. Clones are the same.
#[derive(Clone)]
pub struct Kafka(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) options: KafkaOptions,
    /// Room for what is read and not yet sent.
    pub(crate) answers: ByteBudget,
    /// Room beside it, for small answers to those who find it taken by clients that are slow.
    pub(crate) spare: ByteBudget,
    /// Places for requests that are long lists.
    large: Arc<Semaphore>,
}

impl Kafka {
    /// Answers from `options`.
    #[must_use]
    pub fn new(options: KafkaOptions) -> Self {
        let (answers, spare) = (ByteBudget::new(ANSWER_BYTES), ByteBudget::new(SPARE_BYTES));
        let large = Arc::new(Semaphore::new(LARGE_REQUESTS));
        Self(Arc::new(Shared { options, answers, spare, large }))
    }

    /// Serves one connection until the client ends it or does what no client may, or `closing` is cancelled: then no
    /// further request is read, and those that were are answered. Dropping it ends the connection; what was handed to
    /// the broker goes on. `peer` is where the client is: whoever looks at groups is shown it.
    pub async fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin,
        peer: IpAddr,
        closing: CancellationToken,
    ) {
        crate::connection::serve(self, io, peer, closing).await;
    }

    /// Waits for a place for a long list. Cancel-safe.
    pub(crate) async fn large_place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0.large).acquire_owned().await.expect("the semaphore is never closed")
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.0.options.broker
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.env.clock
    }

    pub(crate) fn is_single_endpoint(&self) -> bool {
        matches!(self.0.options.presentation, Presentation::SingleEndpoint { .. })
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.options.drain.is_cancelled()
    }

    /// Whether this node has lost the others: who can go to one of them had better do so.
    pub(crate) fn is_adrift(&self) -> bool {
        *self.broker().contact().borrow() == Contact::Lost
    }

    /// Returns when this node has lost the others.
    pub(crate) async fn adrift(&self) {
        if self.broker().contact().wait_for(|contact| *contact == Contact::Lost).await.is_err() {
            // Nobody watches any more: the node stops.
            std::future::pending().await
        }
    }
}
