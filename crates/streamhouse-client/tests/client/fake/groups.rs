//! A coordinator of consumer groups that only says who it is.

use super::{Act, ErrorCode, Fake, Request, Response, Status, status, status_with, v1};

/// The answer of a method that no test calls.
fn nobody_asks<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks for it"))
}

impl Fake {
    /// Notes the call, and sends it away when another node is the coordinator.
    fn coordinate(&self) -> Result<(), Status> {
        let coordinator = {
            let mut log = self.log.lock();
            log.group_calls.push(self.id);
            log.coordinator
        };
        if coordinator == 0 {
            return Err(status(ErrorCode::CoordinatorUnavailable));
        }
        if coordinator != self.id {
            return Err(status_with(
                ErrorCode::NotCoordinator,
                &[("coordinator_id", &coordinator.to_string())],
            ));
        }
        match self.state.lock().acts.pop_front() {
            Some(Act::Nack(code)) => Err(status(code)),
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl v1::group_service_server::GroupService for Fake {
    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        nobody_asks()
    }

    async fn describe_group(
        &self,
        _request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        nobody_asks()
    }

    async fn seek_group(
        &self,
        _request: Request<v1::SeekGroupRequest>,
    ) -> Result<Response<v1::SeekGroupResponse>, Status> {
        nobody_asks()
    }

    async fn delete_group(
        &self,
        _request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        nobody_asks()
    }

    async fn join_group(
        &self,
        _request: Request<v1::JoinGroupRequest>,
    ) -> Result<Response<v1::JoinGroupResponse>, Status> {
        nobody_asks()
    }

    async fn sync_group(
        &self,
        _request: Request<v1::SyncGroupRequest>,
    ) -> Result<Response<v1::SyncGroupResponse>, Status> {
        nobody_asks()
    }

    async fn heartbeat(
        &self,
        _request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.coordinate()?;
        Ok(Response::new(v1::HeartbeatResponse {}))
    }

    async fn leave_group(
        &self,
        _request: Request<v1::LeaveGroupRequest>,
    ) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        nobody_asks()
    }

    /// Refuses the offsets of partitions that are not there.
    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        use prost::Message as _;
        self.coordinate()?;
        let partitions = self.log.lock().partitions.len();
        let result = |offset: v1::OffsetToCommit| {
            if usize::try_from(offset.partition).is_ok_and(|partition| partition < partitions) {
                return streamhouse_proto::rpc::Status::default();
            }
            let refused = status(ErrorCode::PartitionNotFound);
            streamhouse_proto::rpc::Status::decode(refused.details()).expect("details")
        };
        let results = request.into_inner().offsets.into_iter().map(result).collect();
        Ok(Response::new(v1::CommitOffsetsResponse { results }))
    }

    async fn fetch_offsets(
        &self,
        _request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        nobody_asks()
    }
}
