//! Connections: where to, how many, with what limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use streamhouse_env::Env;
use streamhouse_proto::v1::cluster_service_client::ClusterServiceClient;
use streamhouse_proto::v1::storage_service_client::StorageServiceClient;
use streamhouse_proto::v1::stream_service_client::StreamServiceClient;
use streamhouse_proto::v1::topic_service_client::TopicServiceClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::admin::Admin;
use crate::call::Caller;
use crate::error::{ConnectError, Rejection};
use crate::topic::Topic;

/// Largest message taken from the server: a batch of the largest kind and slack.
const DECODE_BYTES_MAX: usize = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Large frames are the biggest lever on bytes per CPU second.
const FRAME_BYTES_MAX: u32 = 1 << 20;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster to talk to. Cloning is cheap; clones share the connections.
#[derive(Clone)]
pub struct StreamHouse(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    address: String,
    channels: Vec<Channel>,
    next_channel: AtomicUsize,
    pub(crate) env: Env,
    pub(crate) request_timeout: Duration,
}

/// How to connect. Made by [`StreamHouse::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    env: Env,
    connections: usize,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            env: Env::system(),
            connections: 2,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Builder {
    /// Where time, randomness and sockets come from; the machine by default.
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// How many connections producers and readers spread over, at least 1; 2 by default. Each connection is worked on
    /// by one core at a time.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Longest wait for a connection; 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Longest wait for a single call, retries included; 30 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Connects to `host:port` or `streamhouse://host:port`. Cancel-safe.
    ///
    /// # Errors
    /// When the address makes no sense, or nobody answers there.
    pub async fn connect(self, address: &str) -> Result<StreamHouse, ConnectError> {
        let address = parse_address(address)?;
        let house = self.lazy(&address)?;
        // A first call shows that there is a StreamHouse behind the address.
        let mut client = house.cluster_client();
        let unreachable = |cause| ConnectError::Unreachable { address: address.clone(), cause };
        tokio::select! {
            answer = client.get_info(streamhouse_proto::v1::GetInfoRequest {}) => match answer {
                Ok(_) => Ok(house),
                Err(status) => Err(unreachable(Rejection::from_status(&status))),
            },
            () = house.0.env.clock.sleep(self.connect_timeout) => {
                let what = format!("no answer within {:?}", self.connect_timeout);
                Err(unreachable(Rejection::from_status(&Status::deadline_exceeded(what))))
            }
        }
    }

    fn lazy(&self, address: &str) -> Result<StreamHouse, ConnectError> {
        let invalid = |_| ConnectError::InvalidAddress { address: address.to_owned() };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(invalid)?
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channels = (0..self.connections).map(|_| self.channel(&endpoint, address)).collect();
        Ok(StreamHouse(Arc::new(Shared {
            address: address.to_owned(),
            channels,
            next_channel: AtomicUsize::new(0),
            env: self.env.clone(),
            request_timeout: self.request_timeout,
        })))
    }

    /// A connection that is made when it is first used, and again when it was lost.
    fn channel(&self, endpoint: &Endpoint, address: &str) -> Channel {
        let (net, address) = (self.env.net.clone(), address.to_owned());
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (net, address) = (net.clone(), address.clone());
            async move { net.connect(&address).await.map(TokioIo::new) }
        }))
    }
}

/// `host:port` out of what a person wrote.
fn parse_address(text: &str) -> Result<String, ConnectError> {
    let invalid = || ConnectError::InvalidAddress { address: text.to_owned() };
    let rest =
        ["streamhouse://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    let rest = rest.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
    let port_fits = port.parse::<u16>().is_ok_and(|port| port != 0);
    let host_fits = !host.is_empty() && !host.contains(['/', '@', ' ', '?', '#']);
    if port_fits && host_fits { Ok(rest.to_owned()) } else { Err(invalid()) }
}

impl StreamHouse {
    /// Connects to `host:port` or `streamhouse://host:port` with the defaults. Cancel-safe.
    ///
    /// # Errors
    /// When the address makes no sense, or nobody answers there.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(address).await
    }

    /// Settings other than the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The `host:port` it talks to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Topics, storage and the cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A topic to write to and read from. Asks the server nothing: a wrong name shows at first use.
    #[must_use]
    pub fn topic(&self, name: impl AsRef<str>) -> Topic {
        Topic::new(self.clone(), name.as_ref())
    }

    /// The next connection, in turn: one for each session or stream.
    pub(crate) fn stream_client(&self) -> StreamServiceClient<Channel> {
        let turn = self.0.next_channel.fetch_add(1, Ordering::Relaxed) % self.0.channels.len();
        StreamServiceClient::new(self.0.channels[turn].clone())
            .max_decoding_message_size(DECODE_BYTES_MAX)
            .max_encoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn topic_client(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.0.channels[0].clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn storage_client(&self) -> StorageServiceClient<Channel> {
        StorageServiceClient::new(self.0.channels[0].clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn cluster_client(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.0.channels[0].clone())
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new(&self.0.env, self.0.request_timeout)
    }

    /// A random UUID in text form: the name of a request, kept over its retries.
    pub(crate) fn request_id(&self) -> String {
        let mut random = [0; 16];
        self.0.env.rng.fill(&mut random);
        uuid::Builder::from_random_bytes(random).into_uuid().to_string()
    }
}

impl fmt::Debug for StreamHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHouse").field("address", &self.0.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_and_without_a_scheme() {
        for text in ["localhost:9094", "streamhouse://localhost:9094", "http://localhost:9094/"] {
            assert_eq!(parse_address(text).expect("an address"), "localhost:9094");
        }
        assert_eq!(parse_address("[::1]:9094").expect("an address"), "[::1]:9094");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "localhost", ":9094", "localhost:0", "localhost:99999", "user@host:1", "host/path:1"]
        {
            assert!(matches!(parse_address(text), Err(ConnectError::InvalidAddress { .. })), "{text}");
        }
    }
}
