//! Writing and reading records.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use streamhouse_broker::metadata::ProducerWindow;
use streamhouse_broker::{FetchRequest, Position};
use streamhouse_proto::v1;
use streamhouse_proto::v1::stream_service_server::StreamService;
use streamhouse_types::batch::BatchLimits;
use tonic::{Request, Response, Status, Streaming};

use crate::authorize::{Caller, Resource, check};
use crate::chunk::joined;
use crate::convert::{offset, position, timestamp};
use crate::read::{PARTITIONS_MAX, chunk_bytes};
use crate::status::{Fault, told};
use crate::{Services, append_session};

/// Longest a fetch waits.
const WAIT_MS_MAX: u32 = 60_000;
/// Most producer ids in one request.
const PRODUCERS_MAX: u32 = 1_000;
/// Positions that are looked up at a time.
const LOOKUPS: usize = 16;

#[tonic::async_trait]
impl StreamService for Services {
    type AppendSessionStream = BoxStream<'static, Result<v1::AppendSessionResponse, Status>>;
    type ReadStream = BoxStream<'static, Result<v1::ReadResponse, Status>>;

    async fn append_session(
        &self,
        request: Request<Streaming<v1::AppendSessionRequest>>,
    ) -> Result<Response<Self::AppendSessionStream>, Status> {
        // The topic is only known from the first message: the session checks again for it.
        let caller = Caller::of(&request)?;
        self.admit()?;
        let answers = append_session::run(self.clone(), caller, request.into_inner());
        Ok(Response::new(answers.map_err(told).boxed()))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().topic))?;
        self.admit()?;
        self.append_records(request.into_inner()).await.map(Response::new)
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        check(&request, Resource::Cluster)?;
        self.admit()?;
        let count = request.get_ref().count.max(1);
        if count > PRODUCERS_MAX {
            return Err(Fault::argument("count", format!("at most {PRODUCERS_MAX} at once")).into());
        }
        let first = self.broker.init_producer(count, ProducerWindow::Native).await.map_err(Fault::from)?;
        Ok(Response::new(v1::InitProducerResponse { first_id: first.get(), count, epoch: 0 }))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let caller = Caller::of(&request)?;
        let chunks = self.start_read(&caller, request.into_inner()).await?;
        Ok(Response::new(chunks.map_ok(crate::chunk::Chunk::into_response).boxed()))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().topic))?;
        self.admit()?;
        let request = request.into_inner();
        if request.max_wait_ms > WAIT_MS_MAX {
            return Err(Fault::argument("max_wait_ms", format!("at most {WAIT_MS_MAX}")).into());
        }
        self.reach(request.read_token).await?;
        let topic = self.topic("topic", &request.topic).await?;
        let fetch = FetchRequest {
            partition: self.partition_of(&topic, request.partition).await?,
            offset: offset("offset", request.offset)?,
            max_bytes: chunk_bytes(request.max_bytes),
            min_bytes: request.min_bytes.min(chunk_bytes(request.max_bytes)),
            max_wait: Duration::from_millis(request.max_wait_ms.into()),
        };
        let fetched = self.broker.fetch(fetch).await.map_err(Fault::from)?;
        Ok(Response::new(v1::FetchResponse {
            record_batches: joined(fetched.bytes),
            next_offset: fetched.next_offset.get(),
            high_watermark: fetched.high_watermark.get(),
            log_start: fetched.log_start.get(),
            read_token: self.broker.read_token().get(),
        }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        check(&request, Resource::Topic(&request.get_ref().topic))?;
        let request = request.into_inner();
        if request.positions.len() > PARTITIONS_MAX {
            return Err(Fault::argument("positions", format!("at most {PARTITIONS_MAX}")).into());
        }
        self.reach(request.read_token).await?;
        let topic = &self.topic("topic", &request.topic).await?;
        let find = |wanted: v1::PartitionPosition| async move {
            let partition = self.partition_of(topic, wanted.partition).await?;
            let at = position("positions.position", wanted.position)?.unwrap_or(Position::End);
            let found = self.broker.list_offset(partition, at).await.map_err(Fault::from)?;
            Ok::<_, Fault>(v1::PartitionOffset {
                partition: wanted.partition,
                offset: found.offset.get(),
                timestamp: found.timestamp.map(timestamp),
            })
        };
        let found = futures::stream::iter(request.positions.into_iter().map(find)).buffered(LOOKUPS);
        let offsets = found.try_collect().await.map_err(Status::from)?;
        Ok(Response::new(v1::ListOffsetsResponse { offsets }))
    }
}

impl Services {
    /// The limits of a topic's batches, which the node's own may narrow.
    pub(crate) fn limited(&self, topic: BatchLimits) -> BatchLimits {
        BatchLimits { max_batch_bytes: topic.max_batch_bytes.min(self.max_batch_bytes), ..topic }
    }
}
