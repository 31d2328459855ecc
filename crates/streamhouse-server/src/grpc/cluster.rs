//! The cluster as a whole.

use streamhouse_proto::v1;
use streamhouse_proto::v1::cluster_service_server::ClusterService;
use streamhouse_types::Incarnation;
use tonic::{Request, Response, Status};

use super::Services;
use crate::authorize::{Resource, check};

#[tonic::async_trait]
impl ClusterService for Services {
    async fn get_info(
        &self,
        request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        check(&request, Resource::Cluster)?;
        let state = self.broker.state();
        Ok(Response::new(v1::GetInfoResponse {
            version: crate::VERSION.to_owned(),
            commit: crate::COMMIT.to_owned(),
            cluster_id: self.cluster.to_string(),
            node_id: self.node.get(),
            incarnation: self.broker.incarnation().map_or(0, Incarnation::get),
            applied_index: state.applied().get(),
            state_hash: format!("{:016x}", state.hash()),
        }))
    }
}
