//! What lies in the object store, and whether it is what the metadata says.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use streamhouse_proto::v1;
use streamhouse_proto::v1::storage_service_server::StorageService;
use streamhouse_verify::Depth;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::Services;
use crate::authorize::{Resource, check};
use crate::status::Fault;
use crate::storage_report;

/// Longest name of an object.
const KEY_BYTES_MAX: usize = 1_024;

#[tonic::async_trait]
impl StorageService for Services {
    type VerifyStream = BoxStream<'static, Result<v1::VerifyResponse, Status>>;

    async fn summary(
        &self,
        request: Request<v1::StorageSummaryRequest>,
    ) -> Result<Response<v1::StorageSummaryResponse>, Status> {
        check(&request, Resource::Store)?;
        let found = self.broker.summary().await.map_err(Fault::from)?;
        Ok(Response::new(storage_report::summary(found, &self.store_url)))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectObjectRequest>,
    ) -> Result<Response<v1::InspectObjectResponse>, Status> {
        check(&request, Resource::Store)?;
        let key = &request.get_ref().key;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Fault::argument("key", "the key of an object, or its id").into());
        }
        let report = self.broker.inspect(key).await.map_err(Fault::from)?;
        Ok(Response::new(storage_report::object(report, &self.broker.state())))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        check(&request, Resource::Store)?;
        self.admit()?;
        let depth = if request.get_ref().deep { Depth::Bytes } else { Depth::Presence };
        let broker = self.broker.clone();
        let told = move |found: Result<_, _>| match found {
            Ok(found) => Ok(storage_report::progress(found, &broker.state())),
            Err(error) => Err(Fault::from(error).into()),
        };
        let progress = ReceiverStream::new(self.broker.verify(depth)).map(told);
        Ok(Response::new(progress.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }

    async fn sweep(&self, request: Request<v1::SweepRequest>) -> Result<Response<v1::SweepResponse>, Status> {
        check(&request, Resource::Store)?;
        self.admit()?;
        let report = self.broker.sweep_now().await.map_err(Fault::from)?;
        Ok(Response::new(v1::SweepResponse {
            orphans_deleted: report.orphans_deleted,
            garbage_deleted: report.garbage_deleted,
            waiting: report.waiting,
        }))
    }
}
