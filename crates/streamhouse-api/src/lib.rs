//! What the messages of the API mean in Rust: topics, nodes, groups, objects, and the words for places in a partition.
//!
//! Architecture invariant: plain data and what it is made of; it connects to nothing and waits for nothing.

mod model;
mod position;

pub use model::cluster::{
    ClusterHealth, HealthCheck, HeldBackClient, HomeMove, NodeDescription, NodeDrain, NodeHome, NodeInfo,
    NodeLoad, NodeRemoval, NodeState, RaftMember, RaftStatus, Rebalance, node_id,
};
pub use model::groups::{
    GroupInfo, GroupMember, GroupPartition, GroupState, SoughtPartition, TopicPartition,
};
pub use model::{
    CommittedRun, ObjectClass, ObjectExtent, ObjectInfo, PartitionInfo, ReadToken, ServerInfo, Setting,
    SettingSource, StorageSummary, SweepResult, TopicInfo, VerifyFault, VerifyProgress, proto_timestamp,
    timestamp,
};
pub use position::{ParsePositionError, Position};
