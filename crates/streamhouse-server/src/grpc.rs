//! The gRPC services over the broker's facade.

mod append;
mod append_session;
mod chunk;
mod cluster;
mod cluster_health;
mod gate;
mod opening;
mod read;
mod storage;
mod stream;
mod topics;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use streamhouse_broker::{Broker, TopicInfo};
use streamhouse_env::{Clock, Env};
use streamhouse_kafka::{Kafka, KafkaOptions};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, LogIndex, NodeId, PartitionId, PartitionIndex, TopicName};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

pub(crate) use gate::GateLayer;
pub(crate) use opening::Opening;
pub(crate) use read::StreamRoutes;

use crate::config::Config;
use crate::routing::Routing;
use crate::seat::Seat;
use crate::status::Fault;

/// How long a node may take to get as new as a read token. One that takes longer is behind, and another node will do.
const TOKEN_WAIT: Duration = Duration::from_secs(1);

/// What all handlers share. Clones are the same.
#[derive(Clone)]
pub(crate) struct Services(Arc<Shared>);

/// What handlers need to know.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) node: NodeId,
    pub(crate) cluster_id: ClusterId,
    /// The other nodes.
    pub(crate) seat: Seat,
    /// Which node is the home of what, as clients are told.
    pub(crate) routing: Routing,
    /// The store's URL, as people may see it.
    pub(crate) store_url: String,
    /// Largest batch any topic may have here.
    pub(crate) max_batch_bytes: u32,
    /// Where compressed batches are opened.
    pub(crate) opening: Opening,
    /// Which partition the next request of records without keys goes to.
    pub(crate) turn: AtomicU32,
    /// The node stops: sessions say so to their clients.
    pub(crate) drain: CancellationToken,
    /// Streams end now.
    pub(crate) stop: CancellationToken,
    /// The append sessions that are open.
    pub(crate) sessions: TaskTracker,
}

impl Services {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// What answers Kafka clients: the same broker, and the same room for opening batches.
    pub(crate) fn kafka(&self, config: &Config, env: &Env) -> Kafka {
        Kafka::new(KafkaOptions {
            broker: self.broker.clone(),
            env: env.clone(),
            node: self.node,
            cluster: self.cluster_id,
            checking: Arc::new(self.opening.clone()),
            max_batch_bytes: self.max_batch_bytes,
            auto_create_topics: config.topics.auto_create,
            default_partitions: config.topics.default_partitions,
            drain: self.drain.clone(),
        })
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
