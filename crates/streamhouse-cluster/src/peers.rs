//! Connections to other nodes, apart from Raft's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streamhouse_env::{Clock, Env, Net};
use streamhouse_proto::internal::node_service_client::NodeServiceClient;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the addresses of a name, and the pause before a name is looked up again that is not known yet.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const RESOLVE_PAUSE: Duration = Duration::from_millis(300);
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

    /// The addresses of the nodes that `address` stands for, each to be asked by itself: `address` where it stands for one.
    pub(crate) async fn nodes_at(&self, address: &str, clock: &dyn Clock) -> Vec<String> {
        let found = self.resolve(address, clock).await;
        // Where nothing is found, connecting says why.
        if found.len() < 2 { vec![address.to_owned()] } else { found }
    }

    /// What a name stands for; nothing where it is not known.
    pub(crate) async fn resolve(&self, address: &str, clock: &dyn Clock) -> Vec<String> {
        tokio::select! {
            found = self.net.resolve(address) => {
                found.unwrap_or_default().iter().map(ToString::to_string).collect()
            }
            () = clock.sleep(RESOLVE_TIMEOUT) => Vec::new(),
        }
    }

    /// Whether a node that tells others that it is at `own` is one of those at `address`. Waits for both names to be known,
    /// at most `patience`. Cancel-safe.
    pub async fn is_among(&self, own: &str, address: &str, patience: Duration, clock: &dyn Clock) -> bool {
        let known = async {
            loop {
                if let (Ok(own), Ok(all)) = (self.net.resolve(own).await, self.net.resolve(address).await) {
                    return own.iter().any(|own| all.contains(own));
                }
                clock.sleep(RESOLVE_PAUSE).await;
            }
        };
        tokio::select! {
            among = known => among,
            () = clock.sleep(patience) => false,
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
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use streamhouse_env::{Connection, Listener};

    use super::*;

    /// A name server: `shared` stands for two nodes once it was asked twice, `own` for the second of them.
    #[derive(Debug, Default)]
    struct Names {
        asked: AtomicU32,
    }

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
                "shared:9095" if self.asked.fetch_add(1, Ordering::Relaxed) > 0 => vec![FIRST, SECOND],
                "own:9095" => vec![SECOND],
                "other:9095" => vec!["10.0.0.3:9095"],
                _ => return Err(io::ErrorKind::NotFound.into()),
            };
            Ok(nodes.into_iter().map(|node| node.parse().expect("an address")).collect())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_that_shares_a_name_is_asked_and_a_name_of_one_stays_a_name() {
        let env = Env { net: Arc::new(Names::default()), ..Env::system() };
        let (peers, clock) = (Peers::new(&env), &*env.clock);
        assert_eq!(peers.nodes_at("shared:9095", clock).await, ["shared:9095"], "it is not known yet");
        assert_eq!(peers.nodes_at("shared:9095", clock).await, [FIRST, SECOND]);
        assert_eq!(peers.nodes_at("own:9095", clock).await, ["own:9095"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_finds_itself_among_those_of_a_name_once_that_is_known() {
        let env = Env { net: Arc::new(Names::default()), ..Env::system() };
        let (peers, clock) = (Peers::new(&env), &*env.clock);
        let patience = Duration::from_secs(10);
        assert!(peers.is_among("own:9095", "shared:9095", patience, clock).await);
        assert!(!peers.is_among("own:9095", "other:9095", patience, clock).await);
        assert!(
            !peers.is_among("own:9095", "unknown:9095", patience, clock).await,
            "it waits, but not for ever"
        );
    }
}
