//! Makes connections to other nodes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use streamhouse_env::{Clock, Net};
use streamhouse_proto::internal::raft_service_client::RaftServiceClient;
use streamhouse_types::ClusterId;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::guard::CLUSTER_METADATA;

pub(super) type Client = RaftServiceClient<InterceptedService<Channel, Stamp>>;

/// Largest message that crosses. Replication sends about 1 MiB at once, or one entry; no command is larger than
/// [`PROPOSAL_BYTES_MAX`](crate::propose::PROPOSAL_BYTES_MAX).
pub(super) const MESSAGE_BYTES: usize = 32 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Makes connections, each stamped with the cluster, to where the members are now.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    net: Arc<dyn Net>,
    pub(super) clock: Arc<dyn Clock>,
    cluster: Arc<OnceLock<ClusterId>>,
    /// The consensus library gives an address once and does not hear that it changed.
    addresses: Arc<RwLock<BTreeMap<u64, String>>>,
}

/// Puts the cluster on each request, once it is known.
#[derive(Debug, Clone)]
pub(super) struct Stamp(Arc<OnceLock<ClusterId>>);

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster) = self.0.get() {
            let text = MetadataValue::try_from(cluster.to_string()).expect("a cluster id is plain text");
            request.metadata_mut().insert(CLUSTER_METADATA, text);
        }
        Ok(request)
    }
}

impl Connector {
    pub(crate) fn new(net: Arc<dyn Net>, clock: Arc<dyn Clock>) -> Self {
        Self { net, clock, cluster: Arc::default(), addresses: Arc::default() }
    }

    /// The cluster of this node, which is known some time after its start.
    pub(crate) fn cluster(&self) -> &Arc<OnceLock<ClusterId>> {
        &self.cluster
    }

    /// Takes note of where the members are.
    pub(crate) fn note_addresses(&self, members: impl Iterator<Item = (u64, String)>) {
        *self.addresses.write() = members.collect();
    }

    /// Where `node` is now, if it is a member.
    pub(super) fn address_of(&self, node: u64) -> Option<String> {
        self.addresses.read().get(&node).cloned()
    }

    /// A client of the node at `address`, connected at its first call; `None` when that is no address.
    pub(super) fn client(&self, address: &str) -> Option<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let net = self.net.clone();
        let address = address.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let (net, address) = (net.clone(), address.clone());
            async move {
                let connected = tokio::time::timeout(CONNECT_DEADLINE, net.connect(&address)).await;
                connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
            }
        });
        let channel = endpoint.connect_with_connector_lazy(connect);
        let client = Client::new(InterceptedService::new(channel, Stamp(self.cluster.clone())));
        Some(client.max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }
}
