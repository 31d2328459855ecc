//! Who may do what. Every method of every service has a row here; a method without one is refused.
//!
//! There is no authentication yet, so everybody is anonymous and everything that has a row is allowed. What counts is
//! that every request already passes this one place with a principal, an operation and a resource.

use std::sync::Arc;

use streamhouse_types::error_code::ErrorCode;
use tonic::Status;

use crate::status::Fault;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: Arc<str>,
}

impl Principal {
    /// Somebody who has not said who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "anonymous".into() }
    }

    /// How logs call them.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// See what is there: names, settings, offsets.
    Describe,
    /// Read records, as a member of a group or by oneself.
    Read,
    /// Append records.
    Write,
    /// Make a topic.
    Create,
    /// Change settings or the number of partitions, or move what a group has committed.
    Alter,
    /// Delete a topic or records of it, or a group.
    Delete,
    /// Work on the objects of the store.
    Maintain,
    /// Drain, remove and move: the nodes of the cluster and what they do.
    Operate,
    /// Talk as one node to another.
    Peer,
    /// What anybody who can connect may see: health and descriptors.
    Public,
}

/// What it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic, by its name as given.
    Topic(&'a str),
    /// A consumer group, by its id as given.
    Group(&'a str),
    /// The cluster as a whole.
    Cluster,
    /// The object store.
    Store,
}

/// A method and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The method's short name, for metrics.
    pub api: &'static str,
    /// What it does.
    pub operation: Operation,
}

impl Row {
    /// Whether it only tells about the node and its cluster, which a node can that has not started yet.
    pub(crate) fn is_about_the_cluster(&self) -> bool {
        let tells =
            self.operation == Operation::Describe && self.path.starts_with("/streamhouse.v1.ClusterService/");
        tells || self.operation == Operation::Public
    }
}

const fn row(path: &'static str, api: &'static str, operation: Operation) -> Row {
    Row { path, api, operation }
}

/// Every method of every service that this binary speaks, sorted by path.
pub const ROWS: &[Row] = &[
    row("/grpc.health.v1.Health/Check", "Health.Check", Operation::Public),
    row("/grpc.health.v1.Health/Watch", "Health.Watch", Operation::Public),
    row("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "Reflection", Operation::Public),
    row("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "Reflection", Operation::Public),
    row("/streamhouse.internal.v1.NodeService/ChangeMembers", "Node.ChangeMembers", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/Confirm", "Node.Confirm", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/Follow", "Node.Follow", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/Heartbeat", "Node.Heartbeat", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/Join", "Node.Join", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/LeaderView", "Node.LeaderView", Operation::Peer),
    row("/streamhouse.internal.v1.NodeService/Readers", "Node.Readers", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/AppendStream", "Raft.AppendStream", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/InstallSnapshot", "Raft.InstallSnapshot", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/PreVote", "Raft.PreVote", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/Propose", "Raft.Propose", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/ReadIndex", "Raft.ReadIndex", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/TransferLeader", "Raft.TransferLeader", Operation::Peer),
    row("/streamhouse.internal.v1.RaftService/Vote", "Raft.Vote", Operation::Peer),
    row("/streamhouse.v1.ClusterService/DescribeNode", "DescribeNode", Operation::Describe),
    row("/streamhouse.v1.ClusterService/DrainNode", "DrainNode", Operation::Operate),
    row("/streamhouse.v1.ClusterService/GetHealth", "GetHealth", Operation::Describe),
    row("/streamhouse.v1.ClusterService/GetInfo", "GetInfo", Operation::Describe),
    row("/streamhouse.v1.ClusterService/GetRaftStatus", "GetRaftStatus", Operation::Describe),
    row("/streamhouse.v1.ClusterService/GetRouting", "GetRouting", Operation::Describe),
    row("/streamhouse.v1.ClusterService/ListHeldBackClients", "ListHeldBackClients", Operation::Describe),
    row("/streamhouse.v1.ClusterService/ListNodes", "ListNodes", Operation::Describe),
    row("/streamhouse.v1.ClusterService/Rebalance", "Rebalance", Operation::Operate),
    row("/streamhouse.v1.ClusterService/RemoveNode", "RemoveNode", Operation::Operate),
    row("/streamhouse.v1.ClusterService/SetVoters", "SetVoters", Operation::Operate),
    row("/streamhouse.v1.ClusterService/TransferLeader", "TransferLeader", Operation::Operate),
    row("/streamhouse.v1.ClusterService/UndrainNode", "UndrainNode", Operation::Operate),
    row("/streamhouse.v1.GroupService/CommitOffsets", "CommitOffsets", Operation::Read),
    row("/streamhouse.v1.GroupService/DeleteGroup", "DeleteGroup", Operation::Delete),
    row("/streamhouse.v1.GroupService/DescribeGroup", "DescribeGroup", Operation::Describe),
    row("/streamhouse.v1.GroupService/FetchOffsets", "FetchOffsets", Operation::Describe),
    row("/streamhouse.v1.GroupService/Heartbeat", "Heartbeat", Operation::Read),
    row("/streamhouse.v1.GroupService/JoinGroup", "JoinGroup", Operation::Read),
    row("/streamhouse.v1.GroupService/LeaveGroup", "LeaveGroup", Operation::Read),
    row("/streamhouse.v1.GroupService/ListGroups", "ListGroups", Operation::Describe),
    row("/streamhouse.v1.GroupService/SeekGroup", "SeekGroup", Operation::Alter),
    row("/streamhouse.v1.GroupService/SyncGroup", "SyncGroup", Operation::Read),
    row("/streamhouse.v1.StorageService/Inspect", "Inspect", Operation::Describe),
    row("/streamhouse.v1.StorageService/Summary", "Summary", Operation::Describe),
    row("/streamhouse.v1.StorageService/Sweep", "Sweep", Operation::Maintain),
    row("/streamhouse.v1.StorageService/Verify", "Verify", Operation::Maintain),
    row("/streamhouse.v1.StreamService/Append", "Append", Operation::Write),
    row("/streamhouse.v1.StreamService/AppendSession", "AppendSession", Operation::Write),
    row("/streamhouse.v1.StreamService/Fetch", "Fetch", Operation::Read),
    row("/streamhouse.v1.StreamService/InitProducer", "InitProducer", Operation::Write),
    row("/streamhouse.v1.StreamService/ListOffsets", "ListOffsets", Operation::Describe),
    row("/streamhouse.v1.StreamService/Read", "Read", Operation::Read),
    row("/streamhouse.v1.TopicService/AddPartitions", "AddPartitions", Operation::Alter),
    row("/streamhouse.v1.TopicService/AlterTopic", "AlterTopic", Operation::Alter),
    row("/streamhouse.v1.TopicService/CreateTopic", "CreateTopic", Operation::Create),
    row("/streamhouse.v1.TopicService/DeleteTopic", "DeleteTopic", Operation::Delete),
    row("/streamhouse.v1.TopicService/DescribeTopic", "DescribeTopic", Operation::Describe),
    row("/streamhouse.v1.TopicService/ListTopics", "ListTopics", Operation::Describe),
    row("/streamhouse.v1.TopicService/TrimPartition", "TrimPartition", Operation::Delete),
];

/// The row of a method, by the path of its request.
#[must_use]
pub fn row_of(path: &str) -> Option<&'static Row> {
    ROWS.binary_search_by(|row| row.path.cmp(path)).ok().map(|place| &ROWS[place])
}

/// Whether `principal` may do `operation` to `resource`.
#[must_use]
pub fn authorize(principal: &Principal, operation: Operation, resource: Resource<'_>) -> bool {
    // Without authentication there is nobody to tell apart.
    let _ = (principal, operation, resource);
    true
}

/// Who sent a request and by which method. The listener puts it on every request that it lets through.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) row: &'static Row,
}

impl Caller {
    /// Who sent a request; refused when it did not pass the gate.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let refused =
            || Fault::new(ErrorCode::PermissionDenied, "the request did not pass the listener's gate");
        request.extensions().get::<Self>().cloned().ok_or_else(|| refused().into())
    }

    /// Checks what the caller asks for against the table.
    pub(crate) fn may(&self, resource: Resource<'_>) -> Result<(), Status> {
        let Self { principal, row } = self;
        if authorize(principal, row.operation, resource) {
            return Ok(());
        }
        let text = format!("{} may not {:?} {resource:?}", principal.name(), row.operation);
        Err(Fault::new(ErrorCode::PermissionDenied, text).into())
    }
}

/// Checks a request against the table. Every handler calls it before anything else.
pub(crate) fn check<T>(request: &tonic::Request<T>, resource: Resource<'_>) -> Result<(), Status> {
    Caller::of(request)?.may(resource)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn methods(descriptors: &[u8]) -> Vec<String> {
        let set = prost_types::FileDescriptorSet::decode(descriptors).expect("descriptors");
        let mut paths = Vec::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        paths
    }

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let mut known = methods(streamhouse_proto::FILE_DESCRIPTOR_SET);
        known.extend(methods(tonic_health::pb::FILE_DESCRIPTOR_SET));
        known.extend(methods(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET));
        known.extend(methods(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
        known.sort();
        let rows: Vec<&str> = ROWS.iter().map(|row| row.path).collect();
        assert_eq!(rows, known, "the rows are sorted and complete");
    }

    #[test]
    fn a_method_without_a_row_is_not_found() {
        assert_eq!(row_of("/streamhouse.v1.TopicService/ListTopics").map(|row| row.api), Some("ListTopics"));
        assert_eq!(row_of("/streamhouse.v1.TopicService/Nothing"), None);
        assert_eq!(row_of(""), None);
    }

    #[test]
    fn a_request_that_did_not_pass_the_gate_is_refused() {
        let request = tonic::Request::new(());
        assert!(check(&request, Resource::Cluster).is_err());
    }
}
