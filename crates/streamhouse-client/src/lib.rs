//! The Rust client: producer, consumer, admin.
//!
//! ```no_run
//! use futures::StreamExt as _;
//! use streamhouse_client::{Position, Record, StreamHouse};
//!
//! # async fn example() -> Result<(), streamhouse_client::Error> {
//! let house = StreamHouse::connect("localhost:9094").await?;
//! let orders = house.topic("orders");
//!
//! let producer = orders.producer().build().await?;
//! let ticket = producer.send(Record::new("hello").key("order-7")).await?; // taken: there was room
//! let ack = ticket.await?; // durable
//! println!("stored at {}/{}", ack.partition, ack.offset);
//! producer.close().await?;
//!
//! let mut records = orders.read(Position::Start).open().await?.records();
//! while let Some(record) = records.next().await {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One address of a cluster is enough, several are safer: `StreamHouse::connect("a:9094,b:9094,c:9094")`. The client
//! learns of the other nodes, writes to the home of each partition, and goes on elsewhere when a node dies, stands
//! still or drains. What it has written it sees in every later read, on any node.
//!
//! Architecture invariant: it speaks gRPC and knows nothing of what lies behind it.

mod admin;
mod call;
mod connect;
mod consumer;
mod error;
mod group;
mod leash;
mod nodes;
mod producer;
mod record;
mod rejection;
mod topic;
mod ways;

pub use admin::groups::{GroupSeek, SeekTo};
pub use admin::{Admin, Mode, NewTopic, VerifyDepth};
pub use connect::{Builder, StreamHouse};
pub use consumer::{
    BatchRecords, ConsumedBatch, ConsumedRecord, PartitionProgress, ReadBuilder, ReadEvent, Reader,
    RecordStream,
};
pub use error::{CallError, ClientError, ConnectError, Error, ReadError, Rejected, SendError};
pub use group::{Group, JoinGroup, JoinedGroup, Membership};
pub use producer::{Ack, Delivery, Producer, ProducerBuilder, Ticket};
pub use record::Record;
pub use rejection::Rejection;
pub use streamhouse_api::{
    ClusterHealth, CommittedRun, GroupInfo, GroupMember, GroupPartition, GroupState, HealthCheck,
    HeldBackClient, HomeMove, NodeDescription, NodeDrain, NodeHome, NodeInfo, NodeLoad, NodeRemoval,
    NodeState, ObjectClass, ObjectExtent, ObjectInfo, ParsePositionError, PartitionInfo, Position,
    Position as From, RaftMember, RaftStatus, ReadToken, Rebalance, ServerInfo, Setting, SettingSource,
    SoughtPartition, StorageSummary, SweepResult, TopicInfo, TopicPartition, VerifyFault, VerifyProgress,
};
pub use streamhouse_types::batch::{BatchError, Compression, RecordBatch, RecordHeader};
pub use streamhouse_types::error_code::ErrorCode;
pub use streamhouse_types::{NodeId, Offset, PartitionIndex, Timestamp};
pub use topic::{AppendTo, AppendedAt, FetchOptions, Fetched, ListedOffset, Topic};
