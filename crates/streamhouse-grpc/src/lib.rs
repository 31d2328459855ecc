//! How the gRPC API is spoken, and what each request means to the broker.
//!
//! Architecture invariant: every handler passes [`authorize()`] before anything else, and every error leaves as a status
//! with the details of `status.rs`. It binds no socket and starts no process.

pub mod metrics;
pub mod storage_report;

mod append;
mod append_session;
mod authorize;
mod chunk;
mod cluster;
mod cluster_health;
mod convert;
mod gate;
mod groups;
mod opening;
mod read;
mod routing;
mod seat;
mod status;
mod storage;
mod stream;
mod topics;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use streamhouse_broker::{Broker, TopicInfo};
use streamhouse_env::Clock;
use streamhouse_groups::Groups;
use streamhouse_proto::v1;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, LogIndex, NodeId, PartitionId, PartitionIndex, TopicName};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::status::Fault;

pub use authorize::{Operation, Principal, ROWS, Resource, Row, authorize, row_of};
pub use gate::{Gate, GateLayer, START_PATIENCE};
pub use opening::{OpenError, Opening};
pub use read::StreamRoutes;
pub use routing::Routing;
pub use seat::Seat;

/// How long a node may take to get as new as a read token. One that takes longer is behind, and another node will do.
const TOKEN_WAIT: Duration = Duration::from_secs(1);

/// What all handlers share. Clones are the same.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

/// What is running here, as clients are told.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version of the binary.
    pub version: &'static str,
    /// The commit of its sources.
    pub commit: &'static str,
}

/// Tells which clients of this node's other protocols are held back by the way they produce.
pub trait HeldBackClients: Send + Sync + 'static {
    /// By name, as the API tells them.
    fn held_back(&self) -> Vec<v1::HeldBackClient>;
}

/// What handlers need to know.
pub struct Shared {
    /// What they speak for.
    pub broker: Broker,
    /// The consumer groups; a node that takes no writes has none.
    pub groups: Option<Groups>,
    /// Which clients of other protocols are held back by the way they produce.
    pub clients: Arc<dyn HeldBackClients>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What runs here.
    pub build: Build,
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// The other nodes.
    pub seat: Seat,
    /// Which node is the home of what, as clients are told.
    pub routing: Routing,
    /// The store's URL, as people may see it.
    pub store_url: String,
    /// Largest batch any topic may have here.
    pub max_batch_bytes: u32,
    /// Where compressed batches are opened.
    pub opening: Opening,
    /// Which partition the next request of records without keys goes to.
    pub turn: AtomicU32,
    /// The node stops: sessions say so to their clients.
    pub drain: CancellationToken,
    /// Streams end now.
    pub stop: CancellationToken,
    /// The append sessions that are open.
    pub sessions: TaskTracker,
}

impl Services {
    /// Handlers that know this.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Refuses what would begin while the node stops.
    fn admit(&self) -> Result<(), Status> {
        if self.drain.is_cancelled() {
            return Err(Fault::new(ErrorCode::ShuttingDown, "the node is stopping").into());
        }
        Ok(())
    }

    /// Waits until this node is as new as a read token says; 0 is as new as it happens to be.
    async fn reach(&self, token: u64) -> Result<(), Status> {
        let reached = self.broker.reach(LogIndex::new(token), TOKEN_WAIT).await;
        reached.map_err(|error| Fault::new(ErrorCode::MetadataUnavailable, error.to_string()).into())
    }

    /// The topic of this name.
    async fn topic(&self, field: &str, name: &str) -> Result<TopicInfo, Status> {
        let name = self.name(field, name)?;
        self.broker.topic(&name).await.map_err(|error| Fault::from(error).into())
    }

    fn name(&self, field: &str, name: &str) -> Result<TopicName, Status> {
        Ok(crate::convert::topic_name(field, name)?)
    }

    /// The partition of this number of a topic. That there is none is said only by metadata known to be current: the
    /// topic may have grown since it was described, and this node may not know it yet.
    async fn partition_of(&self, topic: &TopicInfo, index: u32) -> Result<PartitionId, Fault> {
        let partitions = match topic.partitions {
            known if index < known => known,
            _ => self.broker.partitions_now(topic).await?,
        };
        if index < partitions {
            return Ok(PartitionId::new(topic.id, PartitionIndex::new(index)));
        }
        let last = partitions.saturating_sub(1);
        let text = format!("topic `{}` has partitions 0 to {last}, not {index}", topic.name);
        let fault = Fault::new(ErrorCode::PartitionNotFound, text).field("partition");
        Err(fault.about("topic", topic.name.as_str()))
    }
}

impl std::ops::Deref for Services {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
