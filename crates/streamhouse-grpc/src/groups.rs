//! Consumer groups: what people ask of them, and what their members do.

mod fault;
mod seek;
mod view;

use std::time::Duration;

use streamhouse_broker::Mode;
use streamhouse_broker::metadata::OffsetCommit;
use streamhouse_groups::{
    CommitRequest, GroupAdminError, GroupError, GroupState, Groups, HeartbeatRequest, JoinRequest,
    LeaveRequest, Leaver, MemberRef, Newcomers, SyncRequest,
};
use streamhouse_proto::rpc;
use streamhouse_proto::v1;
use streamhouse_proto::v1::group_service_server::GroupService;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Epoch, GroupId, NodeId, PartitionId, PartitionIndex};
use tonic::{Request, Response, Status};

use crate::Services;
use crate::authorize::{Resource, check};
use crate::convert::{offset, request_id};
use crate::status::{Fault, nack_status};

/// Most groups on a page.
const PAGE_MAX: u32 = 1_000;
/// Groups on a page when the caller does not say.
const PAGE_DEFAULT: u32 = 100;
/// Most partitions in one request.
const PARTITIONS_MAX: usize = 10_000;
/// What stands for a member that is well.
const WELL: rpc::Status = rpc::Status { code: 0, message: String::new(), details: Vec::new() };

#[tonic::async_trait]
impl GroupService for Services {
    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let request = request.into_inner();
        let size = match request.page_size {
            0 => PAGE_DEFAULT,
            size if size <= PAGE_MAX => size,
            _ => return Err(Fault::argument("page_size", format!("at most {PAGE_MAX}")).into()),
        };
        let size = usize::try_from(size).expect("at most a thousand");
        let groups = self.groups()?;
        let mut page = groups.list().await.map_err(Fault::from)?;
        page.retain(|group| {
            let id = group.group.as_str();
            id.starts_with(&request.id_prefix) && id > request.page_token.as_str()
        });
        let more = page.len() > size;
        page.truncate(size);
        let last = page.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |group| group.group.to_string());
        let mut told = Vec::with_capacity(page.len());
        for group in page {
            match groups.lag(&group.group).await {
                Ok(lag) => told.push(view::summary(&group, &lag)),
                // It went meanwhile.
                Err(GroupAdminError::NotFound { .. }) => {}
                Err(error) => return Err(Fault::from(error).into()),
            }
        }
        Ok(Response::new(v1::ListGroupsResponse { groups: told, next_page_token }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let id = group_id(&request.get_ref().group_id)?;
        let groups = self.groups()?;
        let described = groups.describe(&id).await.map_err(Fault::from)?;
        let lag = groups.lag(&id).await.map_err(Fault::from)?;
        let group = self.broker.look(|state| view::group(state, &described, &lag));
        Ok(Response::new(v1::DescribeGroupResponse { group: Some(group) }))
    }

    async fn seek_group(
        &self,
        request: Request<v1::SeekGroupRequest>,
    ) -> Result<Response<v1::SeekGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        self.admit()?;
        let request = request.into_inner();
        let id = group_id(&request.group_id)?;
        let groups = self.groups()?;
        let sought = self.sought(&id, request.seeks).await?;
        let offsets = sought.iter().map(|sought| (sought.partition, sought.to)).collect();
        let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let name = request_id(&request.request_id)?;
        groups.seek(&id, offsets, name, mode).await.map_err(Fault::from)?;
        let partitions = sought.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::SeekGroupResponse { partitions }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        self.admit()?;
        let request = request.into_inner();
        let id = group_id(&request.group_id)?;
        let groups = self.groups()?;
        if request.validate_only {
            let described = groups.describe(&id).await.map_err(Fault::from)?;
            if described.status.state != GroupState::Empty {
                let text = format!("group `{id}` has members");
                return Err(Fault::new(ErrorCode::GroupNotEmpty, text).about("group", id.as_str()).into());
            }
        } else {
            groups.delete(&id, request_id(&request.request_id)?).await.map_err(Fault::from)?;
        }
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }

    async fn join_group(
        &self,
        request: Request<v1::JoinGroupRequest>,
    ) -> Result<Response<v1::JoinGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        self.admit()?;
        let host = request.remote_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
        let request = request.into_inner();
        let join = JoinRequest {
            group: group_id(&request.group_id)?,
            member: request.member_id,
            instance: request.instance_id,
            client: request.client_id,
            host,
            session_timeout: Duration::from_millis(request.session_timeout_ms.into()),
            rebalance_timeout: Duration::from_millis(request.rebalance_timeout_ms.into()),
            protocol_type: request.protocol_type,
            protocols: request.protocols.into_iter().map(|known| (known.name, known.metadata)).collect(),
            newcomers: Newcomers::MustReturn,
        };
        let joined = self.groups()?.join(join).await.map_err(|error| self.refused(&error))?;
        let member = |member: streamhouse_groups::JoinedMember| v1::JoinedMember {
            id: member.id,
            instance_id: member.instance,
            metadata: member.metadata,
        };
        Ok(Response::new(v1::JoinGroupResponse {
            member_id: joined.member,
            generation: joined.generation,
            protocol_type: joined.protocol_type,
            protocol: joined.protocol,
            leader_id: joined.leader,
            skip_assignment: joined.skip_assignment,
            members: joined.members.into_iter().map(member).collect(),
        }))
    }

    async fn sync_group(
        &self,
        request: Request<v1::SyncGroupRequest>,
    ) -> Result<Response<v1::SyncGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let request = request.into_inner();
        let assignments = request.assignments.into_iter();
        let sync = SyncRequest {
            group: group_id(&request.group_id)?,
            member: member_ref(request.member),
            protocol_type: request.protocol_type,
            protocol: request.protocol,
            assignments: assignments.map(|brought| (brought.member_id, brought.assignment)).collect(),
        };
        let synced = self.groups()?.sync(sync).await.map_err(|error| self.refused(&error))?;
        Ok(Response::new(v1::SyncGroupResponse {
            protocol_type: synced.protocol_type,
            protocol: synced.protocol,
            assignment: synced.assignment,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let request = request.into_inner();
        let beat =
            HeartbeatRequest { group: group_id(&request.group_id)?, member: member_ref(request.member) };
        self.groups()?.heartbeat(beat).await.map_err(|error| self.refused(&error))?;
        Ok(Response::new(v1::HeartbeatResponse {}))
    }

    async fn leave_group(
        &self,
        request: Request<v1::LeaveGroupRequest>,
    ) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let request = request.into_inner();
        let leaver = |member: v1::LeavingMember| Leaver { id: member.id, instance: member.instance_id };
        let leave = LeaveRequest {
            group: group_id(&request.group_id)?,
            members: request.members.into_iter().map(leaver).collect(),
        };
        let left = self.groups()?.leave(leave).await.map_err(|error| self.refused(&error))?;
        let result = |left: Result<(), GroupError>| match left {
            Ok(()) => WELL,
            Err(error) => nack_status(self.refused(&error)),
        };
        Ok(Response::new(v1::LeaveGroupResponse { results: left.into_iter().map(result).collect() }))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let request = request.into_inner();
        limited("offsets", request.offsets.len())?;
        let (mut offsets, mut refused) = (Vec::with_capacity(request.offsets.len()), Vec::new());
        for wanted in request.offsets {
            match self.to_commit(wanted).await {
                Ok(commit) => {
                    offsets.push(commit);
                    refused.push(None);
                }
                Err(fault) => refused.push(Some(nack_status(fault))),
            }
        }
        let commit = CommitRequest {
            group: group_id(&request.group_id)?,
            member: member_ref(request.member),
            offsets,
            forget: Vec::new(),
        };
        let committed = self.groups()?.commit(commit).await.map_err(|error| self.refused(&error))?;
        let mut committed = committed.into_iter().map(|committed| match committed {
            Ok(()) => WELL,
            Err(refusal) => nack_status(Fault::from(refusal)),
        });
        let result = |refused: Option<rpc::Status>| refused.or_else(|| committed.next()).unwrap_or(WELL);
        Ok(Response::new(v1::CommitOffsetsResponse { results: refused.into_iter().map(result).collect() }))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        check(&request, Resource::Group(&request.get_ref().group_id))?;
        let request = request.into_inner();
        let id = group_id(&request.group_id)?;
        limited("partitions", request.partitions.len())?;
        let mut wanted = Vec::with_capacity(request.partitions.len());
        for partition in &request.partitions {
            let topic = self.topic("partitions.topic", &partition.topic).await?;
            wanted.push(PartitionId::new(topic.id, PartitionIndex::new(partition.partition)));
        }
        let wanted = (!wanted.is_empty()).then_some(wanted);
        let found = self.groups()?.offsets(&id, wanted).await.map_err(|error| self.refused(&error))?;
        let offsets = self.broker.look(|state| view::offsets(state, found));
        Ok(Response::new(v1::FetchOffsetsResponse { offsets }))
    }
}

impl Services {
    /// The groups; a reader has none.
    fn groups(&self) -> Result<&Groups, Status> {
        let refused = || Fault::new(ErrorCode::ReadOnly, "this node is a reader and looks after no groups");
        self.groups.as_ref().ok_or_else(|| refused().into())
    }

    /// Why a member was not served, with what it needs to go on.
    fn refused(&self, error: &GroupError) -> Fault {
        let fault = Fault::from(error);
        match error {
            GroupError::NotCoordinator { coordinator: Some(node) } => {
                let fault = fault.fact("coordinator_id", node);
                match self.address_of(*node) {
                    Some(address) => fault.fact("coordinator_address", address),
                    None => fault,
                }
            }
            _ => fault,
        }
    }

    fn address_of(&self, node: NodeId) -> Option<String> {
        self.broker.look(|state| state.node(node)?.address("grpc").map(ToOwned::to_owned))
    }

    async fn to_commit(&self, wanted: v1::OffsetToCommit) -> Result<OffsetCommit, Fault> {
        let topic = crate::convert::topic_name("offsets.topic", &wanted.topic)?;
        let topic = self.broker.topic(&topic).await?;
        Ok(OffsetCommit {
            partition: PartitionId::new(topic.id, PartitionIndex::new(wanted.partition)),
            offset: offset("offsets.offset", wanted.offset)?,
            epoch: wanted.epoch.map(Epoch::new),
            metadata: wanted.metadata,
        })
    }
}

fn group_id(text: &str) -> Result<GroupId, Fault> {
    let refused = |error: streamhouse_types::GroupIdError| {
        Fault::new(ErrorCode::InvalidGroupId, error.to_string()).field("group_id")
    };
    text.parse().map_err(refused)
}

/// Who speaks; without a word, somebody outside the group.
fn member_ref(given: Option<v1::GroupMemberRef>) -> MemberRef {
    given.map_or_else(MemberRef::default, |given| MemberRef {
        id: given.id,
        instance: given.instance_id,
        generation: Some(given.generation),
    })
}

fn limited(field: &str, count: usize) -> Result<(), Fault> {
    if count > PARTITIONS_MAX {
        return Err(Fault::argument(field, format!("at most {PARTITIONS_MAX} partitions in one request")));
    }
    Ok(())
}
