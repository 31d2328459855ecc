//! Where to connect to, and with what limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_env::Env;
use tonic::Status;

use crate::admin::Admin;
use crate::call::Caller;
use crate::error::ConnectError;
use crate::group::Group;
use crate::rejection::Rejection;
use crate::topic::Topic;
use crate::ways::{Connecting, Ways};
use streamhouse_api::ReadToken;

/// A cluster to talk to. Cloning is cheap; clones share the connections.
#[derive(Clone)]
pub struct StreamHouse(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    address: String,
    pub(crate) env: Env,
    pub(crate) request_timeout: Duration,
    pub(crate) ways: Mutex<Ways>,
    /// The newest read token seen; stays 0 when it is not wanted.
    newest: AtomicU64,
    read_your_writes: bool,
}

/// How to connect. Made by [`StreamHouse::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    env: Env,
    connections: usize,
    connect_timeout: Duration,
    request_timeout: Duration,
    read_your_writes: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            env: Env::system(),
            connections: 2,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            read_your_writes: true,
        }
    }
}

impl Builder {
    /// Where time, randomness and sockets come from; the machine by default.
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// How many connections to each node producers and readers spread over, at least 1; 2 by default. Each connection
    /// is worked on by one core at a time.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Longest wait for a connection; 5 s by default. While there are other nodes to try, none is waited for longer
    /// than 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Longest wait for a single call, retries included; 30 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Whether every read sees what this client has written and read before, on whatever node; `true` by default. A
    /// read may then wait for a node that lags, which is some milliseconds when all is well. Clones share what they
    /// have seen; what other clients have seen can be handed over with [`Topic::at_least`].
    #[expect(clippy::fn_params_excessive_bools, reason = "a switch that is named by its method")]
    pub fn read_your_writes(mut self, read_your_writes: bool) -> Self {
        self.read_your_writes = read_your_writes;
        self
    }

    /// Connects to a cluster by one or several of its nodes: `host:port` or `streamhouse://host:port`, with commas
    /// between them. Whichever answers first tells of the others. Cancel-safe.
    ///
    /// # Errors
    /// When an address makes no sense, or nobody answers at any.
    pub async fn connect(self, addresses: &str) -> Result<StreamHouse, ConnectError> {
        let given = addresses.split(',').map(parse_address).collect::<Result<Vec<_>, _>>()?;
        let address = given.join(",");
        let unreachable = |cause| ConnectError::Unreachable { address: address.clone(), cause };
        let connecting = Connecting {
            env: self.env.clone(),
            connections: self.connections,
            timeout: self.connect_timeout,
        };
        let house = StreamHouse(Arc::new(Shared {
            address: address.clone(),
            env: self.env,
            request_timeout: self.request_timeout,
            ways: Mutex::new(Ways::new(connecting, given)),
            newest: AtomicU64::new(0),
            read_your_writes: self.read_your_writes,
        }));
        tokio::select! {
            found = house.find() => found?,
            () = house.0.env.clock.sleep(self.connect_timeout) => {
                let what = format!("no answer within {:?}", self.connect_timeout);
                return Err(unreachable(Rejection::from_status(&Status::deadline_exceeded(what))));
            }
        }
        Ok(house)
    }
}

/// `host:port` out of what a person wrote.
fn parse_address(text: &str) -> Result<String, ConnectError> {
    let text = text.trim();
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
    /// Connects with the defaults; see [`Builder::connect`]. Cancel-safe.
    ///
    /// # Errors
    /// When an address makes no sense, or nobody answers at any.
    pub async fn connect(addresses: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(addresses).await
    }

    /// Settings other than the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The `host:port` that were given, with commas between them.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Topics, storage and the cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// A consumer group, for whoever speaks as one of its members. Asks the server nothing.
    #[must_use]
    pub fn group(&self, id: impl AsRef<str>) -> Group {
        Group::new(self.clone(), id.as_ref())
    }

    /// Where its time, randomness and sockets come from.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// A topic to write to and read from. Asks the server nothing: a wrong name shows at first use.
    #[must_use]
    pub fn topic(&self, name: impl AsRef<str>) -> Topic {
        Topic::new(self.clone(), name.as_ref())
    }

    /// The newest read token that was seen by this client; the oldest of all when
    /// [`read_your_writes`](Builder::read_your_writes) is off.
    #[must_use]
    pub fn read_token(&self) -> ReadToken {
        ReadToken::new(self.0.newest.load(Ordering::Relaxed))
    }

    /// An answer is as new as this: so are all reads from now on.
    pub(crate) fn saw(&self, token: ReadToken) {
        if self.0.read_your_writes {
            self.0.newest.fetch_max(token.get(), Ordering::Relaxed);
        }
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new(self, self.0.request_timeout)
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
