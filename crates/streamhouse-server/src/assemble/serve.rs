//! The listeners: bound at first, served at last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use streamhouse_advice::Clients;
use streamhouse_cluster::NodeRpc;
use streamhouse_env::{Clock, Env};
use streamhouse_grpc::{GateLayer, START_PATIENCE, Services, StreamRoutes};
use streamhouse_proto::v1;
use streamhouse_raft::RaftRpc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::health::Health;
use crate::http::{Pages, router};
use crate::listen::{Acceptor, Incoming, ListenError, Socket, Window, Windows};
use crate::run::Addresses;

/// Flow-control window of a connection of another node: what it may send before it is read.
const PEER_WINDOW: u32 = 8 << 20;
/// Largest HTTP/2 frame taken: batches of 1 MiB come in one piece, which is worth half of the CPU time.
const FRAME_MAX: u32 = 1 << 20;
/// Room for the fields around a batch in a message.
const MESSAGE_SLACK: usize = 64 << 10;
/// Largest message of the services that carry no batches.
const SMALL_MESSAGE: usize = 1 << 20;
/// Streams of one connection at a time.
const STREAMS_MAX: u32 = 1_024;
/// A silent peer is asked after `KEEPALIVE` and given up `KEEPALIVE_TIMEOUT` later.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A peer over HTTP may pause for this long; over HTTP/2 it answers a ping within half of it.
const PAUSE: Duration = Duration::from_secs(60);
/// A Kafka client may: most end connections themselves after nine minutes without a request.
const KAFKA_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Connections to the HTTP port and to the internal port.
const SIDE_CONNECTIONS: usize = 256;

/// Sockets that are bound and not served yet.
pub(super) struct Sockets {
    gates: Gates,
    http: Socket,
}

/// The sockets that wait for the node to be part of a cluster.
pub(super) struct Gates {
    pub(super) clients: ClientGates,
    internal: Socket,
}

/// The sockets for clients.
pub(super) struct ClientGates {
    kafka: Socket,
    grpc: Socket,
}

/// The port for other nodes at work, until it is dropped.
pub(super) struct InternalListener {
    _serving: AbortOnDropHandle<()>,
}

/// The HTTP port at work.
pub(super) struct HttpListener {
    closing: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

impl Sockets {
    pub(super) async fn bind(env: &Env, config: &Config) -> Result<Self, ListenError> {
        let listeners = &config.listeners;
        Ok(Self {
            gates: Gates {
                clients: ClientGates {
                    kafka: Socket::bind(env, "listeners.kafka", &listeners.kafka).await?,
                    grpc: Socket::bind(env, "listeners.grpc", &listeners.grpc).await?,
                },
                internal: Socket::bind(env, "listeners.internal", &listeners.internal).await?,
            },
            http: Socket::bind(env, "listeners.http", &listeners.http).await?,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses {
            kafka: self.gates.clients.kafka.address(),
            grpc: self.gates.clients.grpc.address(),
            internal: self.gates.internal.address(),
            http: self.http.address(),
        }
    }
}

/// What serving needs to know.
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) env: &'a Env,
    pub(super) health: &'a Health,
    /// Where the Kafka listener notes who is held back.
    pub(super) waiting: &'a Clients,
}

/// The listeners at work.
pub(super) struct Listeners {
    reporter: HealthReporter,
    closing: CancellationToken,
    kafka: AbortOnDropHandle<()>,
    grpc: AbortOnDropHandle<()>,
    internal: Option<InternalListener>,
    http: AbortOnDropHandle<()>,
}

impl Plan<'_> {
    /// Serves metrics and health.
    pub(super) fn serve_http(&self, sockets: Sockets, pages: Pages) -> (HttpListener, Gates) {
        let closing = CancellationToken::new();
        let Sockets { gates, http } = sockets;
        let heart = self.health.watch("http listener");
        let acceptor = http.accept("http", (SIDE_CONNECTIONS, PAUSE), Arc::clone(&self.env.clock), heart);
        let served = axum::serve(acceptor, router(pages));
        let served = served.with_graceful_shutdown(closing.clone().cancelled_owned());
        (HttpListener { closing, serving: spawn("http", served.into_future()) }, gates)
    }

    /// Serves gRPC to other nodes, which a node needs to come to be part of a cluster.
    pub(super) fn serve_internal(
        &self,
        gates: Gates,
        raft: RaftRpc,
        node: NodeRpc,
    ) -> (InternalListener, ClientGates) {
        let Gates { clients, internal } = gates;
        let clock = || Arc::clone(&self.env.clock);
        let peers = server(GateLayer::new(clock()), PEER_WINDOW)
            .add_service(raft.into_service())
            .add_service(node.into_service());
        let heart = self.health.watch("internal listener");
        let incoming = internal.accept("internal", (SIDE_CONNECTIONS, PAUSE), clock(), heart).into_stream();
        let serving = spawn("internal", peers.serve_with_incoming(incoming));
        (InternalListener { _serving: serving }, clients)
    }

    /// Serves gRPC and Kafka's protocol to clients; what needs a node that has started waits for that.
    pub(super) async fn serve(
        &self,
        http: HttpListener,
        internal: Option<InternalListener>,
        ClientGates { kafka, grpc }: ClientGates,
        services: &Services,
    ) -> Listeners {
        let HttpListener { closing, serving: http } = http;
        let kafka = self.serve_kafka(kafka, services, closing.clone());
        let (reporter, health) = tonic_health::server::health_reporter();
        report(&reporter, ServingStatus::NotServing).await;
        let message = self.config.limits.max_batch_bytes as usize + MESSAGE_SLACK;
        // The descriptors also hold what nodes say to one another, which is not spoken here.
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(streamhouse_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let spoken = SERVICES[1..].iter().chain(&["grpc.health.v1.Health"]);
            spoken.fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let valid = "the compiled descriptors are valid";
        let topics = v1::topic_service_server::TopicServiceServer::new(services.clone());
        let cluster = v1::cluster_service_server::ClusterServiceServer::new(services.clone());
        let storage = v1::storage_service_server::StorageServiceServer::new(services.clone());
        let groups = v1::group_service_server::GroupServiceServer::new(services.clone());
        let public = Routes::new(StreamRoutes::new(services.clone(), message))
            .add_service(topics.max_decoding_message_size(SMALL_MESSAGE))
            .add_service(cluster.max_decoding_message_size(SMALL_MESSAGE))
            .add_service(storage.max_decoding_message_size(SMALL_MESSAGE))
            .add_service(groups.max_decoding_message_size(SMALL_MESSAGE))
            .add_service(health)
            .add_service(reflection().build_v1().expect(valid))
            // What older tools and Python's library still ask.
            .add_service(reflection().build_v1alpha().expect(valid));
        let grpc = self.serve_grpc(grpc, public.prepare(), closing.clone());
        Listeners { reporter, closing, kafka, grpc, internal, http }
    }

    /// Each connection gets the window that the others leave it.
    fn serve_grpc(
        &self,
        socket: Socket,
        routes: Routes,
        closing: CancellationToken,
    ) -> AbortOnDropHandle<()> {
        let limits = (self.config.limits.connections, PAUSE);
        let (clock, heart) = (Arc::clone(&self.env.clock), self.health.watch("grpc listener"));
        let acceptor = socket.accept("grpc", limits, Arc::clone(&clock), heart);
        let (windows, started, closes) = (Windows::new(), self.health.opened(), closing.clone());
        AbortOnDropHandle::new(tokio::spawn(serve_each(acceptor, closes, move |incoming| {
            let window = windows.take();
            let gate = GateLayer::new(Arc::clone(&clock)).once(started.clone(), closing.clone());
            let server = (server(gate, window.bytes()), window);
            serve_connection(server, incoming, routes.clone(), closing.clone())
        })))
    }

    fn serve_kafka(
        &self,
        socket: Socket,
        services: &Services,
        closing: CancellationToken,
    ) -> AbortOnDropHandle<()> {
        let kafka = crate::kafka::kafka(services, self.waiting, self.config, self.env);
        let limits = (self.config.limits.kafka_connections, KAFKA_PAUSE);
        let clock = Arc::clone(&self.env.clock);
        let acceptor =
            socket.accept("kafka", limits, Arc::clone(&clock), self.health.watch("kafka listener"));
        let (started, closes) = (self.health.opened(), closing.clone());
        AbortOnDropHandle::new(tokio::spawn(serve_each(acceptor, closes, move |incoming| {
            let (kafka, closing, mut started) = (kafka.clone(), closing.clone(), started.clone());
            let clock = Arc::clone(&clock);
            async move {
                // The protocol has no "not yet" that fits every request: whoever is not let in goes to another node.
                tokio::select! {
                    _ = started.wait_for(|started| *started) => {}
                    () = clock.sleep(START_PATIENCE) => return,
                    () = closing.cancelled() => return,
                }
                let peer = incoming.peer_addr().ip();
                kafka.serve(incoming, peer, closing).await;
            }
        })))
    }
}

/// Serves each connection until it ends; once `closing` is cancelled, takes no more and waits for those that there are.
async fn serve_each<F>(acceptor: Acceptor, closing: CancellationToken, serve: impl Fn(Incoming) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = acceptor.next() => {
                connections.spawn(serve(incoming));
            }
            Some(_ended) = connections.join_next() => {}
            () = closing.cancelled() => break,
        }
    }
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}

/// A server with a gate before its services.
type GatedServer = Server<tower::layer::util::Stack<GateLayer, tower::layer::util::Identity>>;

/// Serves one connection until it ends, or `closing` is cancelled and what was asked is answered.
async fn serve_connection(
    (server, window): (GatedServer, Window),
    incoming: Incoming,
    routes: Routes,
    closing: CancellationToken,
) {
    let ended = incoming.ended().clone();
    let end = async move {
        tokio::select! {
            () = ended.cancelled() => {}
            () = closing.cancelled() => {}
        }
    };
    // The stream of connections must not end before this one does.
    let only = stream::iter([io::Result::Ok(incoming)]).chain(stream::pending());
    if let Err(error) = server.serve_with_incoming_shutdown(routes, only, end).await {
        tracing::debug!(%error, "a connection has failed");
    }
    drop(window);
}

/// A server whose connections have windows of this size.
fn server(gate: GateLayer, window: u32) -> GatedServer {
    Server::builder()
        // A call that is not read must not keep the others of its connection from being heard.
        .initial_stream_window_size(window / 2)
        .initial_connection_window_size(window)
        .max_frame_size(FRAME_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(16 << 10)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(gate)
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

fn spawn<E: std::fmt::Display + Send>(
    listener: &'static str,
    serving: impl Future<Output = Result<(), E>> + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(listener, %error, "listener has failed");
        }
    }))
}

impl Listeners {
    /// Tells health checks over gRPC whether the node may be sent work.
    pub(super) async fn report(&self, status: ServingStatus) {
        report(&self.reporter, status).await;
    }

    /// Takes no new connections, ends idle ones, and waits for calls under way; after `patience` it does not wait any
    /// more.
    pub(super) async fn close(self, clock: &dyn Clock, patience: Duration) {
        self.closing.cancel();
        // Streams between nodes have no end of their own; the others go on without this node.
        drop(self.internal);
        let all = futures::future::join3(self.kafka, self.grpc, self.http);
        tokio::select! {
            _ = all => {}
            // Dropping them ends them.
            () = clock.sleep(patience) => tracing::warn!("calls were still under way when the listeners closed"),
        }
    }
}

/// The server as a whole, and the services of the client port, whose health is told.
const SERVICES: [&str; 6] = [
    "",
    "streamhouse.v1.ClusterService",
    "streamhouse.v1.GroupService",
    "streamhouse.v1.StorageService",
    "streamhouse.v1.StreamService",
    "streamhouse.v1.TopicService",
];
