//! Connections to other nodes, apart from Raft's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streamhouse_env::{Env, Net};
use streamhouse_proto::internal::node_service_client::NodeServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent peer is asked after this time, and given up as long after that.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Addresses whose connections are kept; more than a cluster has nodes.
const KEPT_MAX: usize = 256;
/// Largest message from another node: pieces of a snapshot, and entries of the metadata log.
const MESSAGE_BYTES: usize = 64 << 20;

/// Connections to other nodes. Clones share them.
#[derive(Debug, Clone)]
pub struct Peers {
    net: Arc<dyn Net>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        Self { net: Arc::clone(&env.net), channels: Arc::default() }
    }

    /// A client of the node that listens for other nodes at `address`; `None` when that is no address.
    pub(crate) fn client(&self, address: &str) -> Option<NodeServiceClient<Channel>> {
        let channel = {
            let mut channels = self.channels.lock();
            match channels.get(address) {
                Some(channel) => channel.clone(),
                None => {
                    let channel = self.connect(address)?;
                    if channels.len() >= KEPT_MAX {
                        channels.clear();
                    }
                    channels.insert(address.to_owned(), channel.clone());
                    channel
                }
            }
        };
        Some(NodeServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES))
    }

    /// Forgets a connection that may be half dead: the next client gets a fresh one.
    pub(crate) fn drop_connection(&self, address: &str) {
        self.channels.lock().remove(address);
    }

    /// A connection that is made when it is first used, and again when it was lost.
    fn connect(&self, address: &str) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let (net, address) = (Arc::clone(&self.net), address.to_owned());
        Some(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (net, address) = (Arc::clone(&net), address.clone());
            async move { net.connect(&address).await.map(TokioIo::new) }
        })))
    }
}
