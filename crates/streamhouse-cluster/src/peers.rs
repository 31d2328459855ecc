//! Connections to other nodes, apart from Raft's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streamhouse_env::{Clock, Env, Net};
use streamhouse_proto::internal::node_service_client::NodeServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the addresses of a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
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

    /// The addresses of the nodes that `address` stands for but for those of `own`, each to be asked by itself; `address`
    /// where it stands for one.
    pub(crate) async fn nodes_at(&self, address: &str, own: &[SocketAddr], clock: &dyn Clock) -> Vec<String> {
        let found = self.resolve(address, clock).await;
        // Where nothing is found, connecting says why.
        if found.len() < 2 {
            return vec![address.to_owned()];
        }
        found.iter().filter(|node| !own.contains(node)).map(ToString::to_string).collect()
    }

    /// What a name stands for; nothing where it is not known.
    pub(crate) async fn resolve(&self, address: &str, clock: &dyn Clock) -> Vec<SocketAddr> {
        tokio::select! {
            found = self.net.resolve(address) => found.unwrap_or_default(),
            () = clock.sleep(RESOLVE_TIMEOUT) => Vec::new(),
        }
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

#[cfg(test)]
mod tests {
    use std::io;

    use async_trait::async_trait;
    use streamhouse_env::{Connection, Listener};

    use super::*;

    /// A name server: `shared` stands for two nodes, of which `own` is the second.
    #[derive(Debug)]
    struct Names;

    const FIRST: &str = "10.0.0.1:9095";
    const SECOND: &str = "10.0.0.2:9095";

    #[async_trait]
    impl Net for Names {
        async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        async fn connect(&self, _: &str) -> io::Result<Connection> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
            let nodes = match address {
                "shared:9095" => vec![SECOND, FIRST],
                "own:9095" => vec![SECOND],
                _ => return Err(io::ErrorKind::NotFound.into()),
            };
            Ok(nodes.into_iter().map(|node| node.parse().expect("an address")).collect())
        }
    }

    #[tokio::test]
    async fn of_the_nodes_that_share_a_name_each_other_one_is_asked() {
        let env = Env { net: Arc::new(Names), ..Env::system() };
        let (peers, clock) = (Peers::new(&env), &*env.clock);
        let own = peers.resolve("own:9095", clock).await;
        assert_eq!(peers.nodes_at("shared:9095", &own, clock).await, [FIRST]);
        assert_eq!(peers.nodes_at("shared:9095", &[], clock).await, [SECOND, FIRST]);
        for name in ["own:9095", "unknown:9095"] {
            assert_eq!(peers.nodes_at(name, &own, clock).await, [name], "what stands for one stays as it is");
        }
    }
}
