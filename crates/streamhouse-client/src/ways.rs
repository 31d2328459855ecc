//! The connections to the nodes: made when they are needed, made anew when they break, given up when nobody answers.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use streamhouse_env::{Backoff, Env};
use streamhouse_proto::v1;
use streamhouse_proto::v1::cluster_service_client::ClusterServiceClient;
use streamhouse_proto::v1::group_service_client::GroupServiceClient;
use streamhouse_proto::v1::storage_service_client::StorageServiceClient;
use streamhouse_proto::v1::stream_service_client::StreamServiceClient;
use streamhouse_proto::v1::topic_service_client::TopicServiceClient;
use streamhouse_types::NodeId;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::connect::StreamHouse;
use crate::error::ConnectError;
use crate::leash::Leash;
use crate::nodes::Nodes;
use crate::rejection::Rejection;

/// Largest message taken from the server: a batch of the largest kind and slack.
const DECODE_BYTES_MAX: usize = 16 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Large frames are the biggest lever on bytes per CPU second.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// How soon a connection is given up. Pings are answered by the node's transport whatever its store does, so a slow
/// store never looks like a dead node.
#[derive(Debug, Clone, Copy)]
struct KeepAlive {
    /// Longest wait for it to be made.
    connect_timeout: Duration,
    /// A ping goes out after so long without a word.
    every: Duration,
    /// And has to be answered within this.
    timeout: Duration,
}

/// With nobody to turn to, giving a connection up early gains nothing.
const ALONE: KeepAlive = KeepAlive {
    connect_timeout: Duration::MAX,
    every: Duration::from_secs(10),
    timeout: Duration::from_secs(5),
};
/// With others at hand, a stopped node or a cut link is noticed within 1.5 s.
const AMONG_OTHERS: KeepAlive = KeepAlive {
    connect_timeout: Duration::from_secs(1),
    every: Duration::from_millis(750),
    timeout: Duration::from_millis(750),
};
/// Behind a slow uplink a ping waits for the batches before it. So each connection to a node that broke young doubles
/// the patience with the next, up to so many times: 12 s, which is about what it is alone.
const STRAIN_MAX: u32 = 4;
/// A connection that lived so long was given up for a good reason.
const YOUNG: Duration = Duration::from_secs(10);
/// After failures, the nodes are asked who there is at most so often, and waited for at most so long.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How connections are made.
#[derive(Debug, Clone)]
pub(crate) struct Connecting {
    pub(crate) env: Env,
    /// Connections to each node.
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
}

impl Connecting {
    fn channels(
        &self,
        address: &str,
        keep_alive: KeepAlive,
        strain: u32,
    ) -> Result<Channels, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(self.timeout.min(keep_alive.connect_timeout))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(keep_alive.every)
            .keep_alive_timeout(keep_alive.timeout.saturating_mul(1 << strain.min(STRAIN_MAX)))
            .keep_alive_while_idle(true);
        let all = (0..self.connections).map(|_| self.channel(&endpoint, address)).collect();
        Ok(Channels { all, turn: 0 })
    }

    /// A connection that is made when it is first used, and again when it was lost.
    fn channel(&self, endpoint: &Endpoint, address: &str) -> (Channel, Leash) {
        let (leash, collar) = Leash::new();
        let (net, address) = (self.env.net.clone(), address.to_owned());
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (net, address, collar) = (net.clone(), address.clone(), collar.clone());
            async move { net.connect(&address).await.map(|connection| TokioIo::new(collar.tie(connection))) }
        }));
        (channel, leash)
    }
}

/// The connections to one address.
#[derive(Debug)]
struct Line {
    /// `None` once it broke. What uses it still keeps it; the next who comes makes a new one.
    channels: Option<Channels>,
    made_at: Duration,
    /// How many of its predecessors in a row broke young.
    strain: u32,
}

#[derive(Debug)]
struct Channels {
    all: Vec<(Channel, Leash)>,
    turn: usize,
}

impl Channels {
    fn next(&mut self) -> (Channel, Leash) {
        self.turn = (self.turn + 1) % self.all.len();
        self.all[self.turn].clone()
    }
}

/// A connection to a node. It is kept as long as any way over it: one that has been given up is cut with the last.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) node: NodeId,
    channel: Channel,
    address: String,
    /// When its line was made, by which an old way's failure is not counted against a new line.
    made_at: Duration,
    _leash: Leash,
}

impl Way {
    pub(crate) fn streams(&self) -> StreamServiceClient<Channel> {
        StreamServiceClient::new(self.channel.clone())
            .max_decoding_message_size(DECODE_BYTES_MAX)
            .max_encoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn storage(&self) -> StorageServiceClient<Channel> {
        StorageServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES_MAX)
    }
}

/// All ways of a client.
#[derive(Debug)]
pub(crate) struct Ways {
    connecting: Connecting,
    nodes: Nodes,
    /// By address.
    lines: BTreeMap<String, Line>,
    /// When the nodes may be asked again who there is.
    refresh_at: Duration,
}

impl Ways {
    pub(crate) fn new(connecting: Connecting, given: Vec<String>) -> Self {
        let start = usize::try_from(connecting.env.rng.below(1 << 16)).expect("16 bits");
        let nodes = Nodes::new(given, start);
        Self { connecting, nodes, lines: BTreeMap::new(), refresh_at: Duration::ZERO }
    }

    fn way_to(&mut self, node: NodeId) -> Result<Way, Rejection> {
        let address = self.nodes.address(node).map(str::to_owned);
        let address = address.ok_or_else(|| Rejection::connection_lost("the node has no address"))?;
        self.at_address(node, address)
    }

    fn at_address(&mut self, node: NodeId, address: String) -> Result<Way, Rejection> {
        let now = self.connecting.env.clock.now();
        let line =
            self.lines.entry(address.clone()).or_insert(Line { channels: None, made_at: now, strain: 0 });
        let channels = match &mut line.channels {
            Some(channels) => channels,
            none => {
                let keep_alive = if self.nodes.is_alone() { ALONE } else { AMONG_OTHERS };
                let channels = self.connecting.channels(&address, keep_alive, line.strain);
                let channels =
                    channels.map_err(|_| Rejection::connection_lost("the node's address makes no sense"))?;
                line.made_at = now;
                none.insert(channels)
            }
        };
        let (channel, leash) = channels.next();
        Ok(Way { node, channel, made_at: line.made_at, address, _leash: leash })
    }

    fn failed(&mut self, way: &Way, rejection: &Rejection) {
        let now = self.connecting.env.clock.now();
        self.nodes.failed(way.node, now);
        let line = self
            .lines
            .get_mut(&way.address)
            .filter(|line| line.made_at == way.made_at && line.channels.is_some());
        let Some(line) = line.filter(|_| rejection.is_lost_connection()) else { return };
        line.channels = None;
        let young = now.saturating_sub(line.made_at) < YOUNG;
        line.strain = if young { line.strain.saturating_add(1) } else { 0 };
    }

    fn learn(&mut self, nodes: &[v1::NodeAddress]) {
        // Those that were made before there were others are not in such a hurry.
        let keeps_none = self.nodes.learn(nodes);
        let nodes = &self.nodes;
        self.lines.retain(|address, _| !keeps_none && nodes.has(address));
    }
}

impl StreamHouse {
    fn now(&self) -> Duration {
        self.0.env.clock.now()
    }

    /// A way to the first candidate that can be reached.
    fn first(&self, candidates: impl FnOnce(&mut Nodes, Duration) -> Vec<NodeId>) -> Way {
        let mut ways = self.0.ways.lock();
        let candidates = candidates(&mut ways.nodes, self.now());
        let found = candidates.iter().find_map(|node| ways.way_to(*node).ok());
        found.expect("the given addresses were parsed, and are a candidate when no other is")
    }

    /// A way for a single call.
    pub(crate) fn way(&self) -> Way {
        self.first(|nodes, now| nodes.candidates(now))
    }

    /// A way for a stream: they spread over the nodes.
    pub(crate) fn next_way(&self) -> Way {
        self.first(Nodes::next_candidates)
    }

    /// A way for a stream of reads: as [`Self::next_way`], but a reader that was given comes before the others.
    pub(crate) fn next_read_way(&self) -> Way {
        self.first(Nodes::next_read_candidates)
    }

    /// A way to this node; an error when nobody told where it is.
    pub(crate) fn way_to(&self, node: NodeId) -> Result<Way, Rejection> {
        self.0.ways.lock().way_to(node)
    }

    /// Whom to try, the best first. Never empty.
    pub(crate) fn candidates(&self) -> Vec<NodeId> {
        self.0.ways.lock().nodes.next_candidates(self.now())
    }

    /// Whether there is nobody else to turn to.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.ways.lock().nodes.is_alone()
    }

    /// Somebody told who there is.
    pub(crate) fn learn(&self, nodes: &[v1::NodeAddress]) {
        self.0.ways.lock().learn(nodes);
    }

    /// A way works.
    pub(crate) fn works(&self, way: &Way) {
        self.0.ways.lock().nodes.works(way.node);
    }

    /// A way failed. What another node could not do better either does not count against this one.
    pub(crate) fn failed(&self, way: &Way, rejection: &Rejection) {
        if !rejection.is_of_the_node() {
            return;
        }
        let now = self.now();
        let mut ways = self.0.ways.lock();
        ways.failed(way, rejection);
        if ways.nodes.is_alone() || now < ways.refresh_at {
            return;
        }
        ways.refresh_at = now.saturating_add(REFRESH_EVERY);
        drop(ways);
        let house = self.clone();
        let node = way.node;
        tokio::spawn(async move { house.routing("", node).await });
    }

    /// Asks any node but one who there is and, with a topic, who is home to what. `None` when nobody says.
    pub(crate) async fn routing(&self, topic: &str, but: NodeId) -> Option<v1::GetRoutingResponse> {
        let candidates = self.0.ways.lock().nodes.candidates(self.now());
        for node in candidates.into_iter().filter(|node| *node != but) {
            let Ok(way) = self.way_to(node) else { continue };
            let mut client = way.cluster();
            let answer = tokio::select! {
                answer = client.get_routing(v1::GetRoutingRequest { topic: topic.to_owned() }) => answer,
                () = self.0.env.clock.sleep(REFRESH_EVERY) => continue,
            };
            if let Ok(routing) = answer {
                let routing = routing.into_inner();
                self.learn(&routing.nodes);
                return Some(routing);
            }
        }
        None
    }

    /// How long to wait before the next try: not at all as long as there are others to try.
    pub(crate) fn pause(&self, tries: &mut Tries, rejection: &Rejection) -> Duration {
        let candidates = || self.0.ways.lock().nodes.candidates(self.now()).len();
        let others = if rejection.is_of_the_node() { candidates() } else { 1 };
        tries.failures += 1;
        let all_failed = tries.failures.is_multiple_of(others);
        if all_failed { tries.backoff.next(&*self.0.env.rng) } else { Duration::ZERO }
    }

    /// Finds a node at the addresses that were given, and by it the others. Cancel-safe.
    pub(crate) async fn find(&self) -> Result<(), ConnectError> {
        let given = self.0.ways.lock().nodes.given().to_vec();
        let mut tried: FuturesUnordered<_> =
            given.into_iter().enumerate().map(|(place, address)| self.ask(place, address)).collect();
        let (mut foreign, mut last) = (None, None);
        while let Some(answer) = tried.next().await {
            match answer {
                Ok((place, routing)) => {
                    let mut ways = self.0.ways.lock();
                    ways.nodes.answered_at(place, &routing);
                    ways.learn(&routing.nodes);
                    return Ok(());
                }
                // That an address is wrong says more than that a node is down.
                Err(error @ ConnectError::Foreign { .. }) => foreign = Some(error),
                Err(error) => last = Some(error),
            }
        }
        Err(foreign.or(last).expect("at least one address was parsed"))
    }

    async fn ask(
        &self,
        place: usize,
        address: String,
    ) -> Result<(usize, v1::GetRoutingResponse), ConnectError> {
        let unreachable = |cause| ConnectError::Unreachable { address: self.address().to_owned(), cause };
        let way = self.0.ways.lock().at_address(crate::nodes::GIVEN, address.clone()).map_err(unreachable)?;
        let mut client = way.cluster();
        let refused = |status: Status| {
            let cause = Rejection::from_status(&status);
            if Rejection::is_foreign(&status) {
                ConnectError::Foreign { address: address.clone(), cause }
            } else {
                unreachable(cause)
            }
        };
        match client.get_routing(v1::GetRoutingRequest::default()).await {
            Ok(routing) => Ok((place, routing.into_inner())),
            // A cluster of one that knows of no others.
            Err(status) if status.code() == Code::Unimplemented => {
                client.get_info(v1::GetInfoRequest {}).await.map_err(refused)?;
                Ok((place, v1::GetRoutingResponse::default()))
            }
            Err(status) => Err(refused(status)),
        }
    }
}

/// The tries of one thing that any node can do.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    failures: usize,
    backoff: Backoff,
}

impl Tries {
    /// Something worked: begin anew.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }
}
