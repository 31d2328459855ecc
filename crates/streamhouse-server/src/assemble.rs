//! Puts a node together: store, metadata log, broker, listeners, in this order; and takes it apart in the other.

mod care;
mod entry;
mod identity;
mod reader;
mod serve;
mod stop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_advice::Clients;
use streamhouse_broker::metadata::{Command, VoterCount};
use streamhouse_broker::{Broker, BrokerOptions, HighWatermarks, NotRegistered, Role};
use streamhouse_cluster::{
    AgreedTime, Cluster, ClusterOptions, Controller, ControllerOptions, JoinError, LeaseSettings, NodeRpc,
    Peers, RaftMembers,
};
use streamhouse_env::{Clock, Env, is_no_room};
use streamhouse_groups::{Groups, GroupsOptions};
use streamhouse_grpc::{Build, Opening, Routing, Seat, Services, Shared};
use streamhouse_raft::{
    Failure, IdentityError as RaftIdentityError, RaftNode, RaftOptions, RaftSettings,
    StartError as RaftStartError,
};
use streamhouse_storage::{Layout, OpenError, Store};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, NodeId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;

use self::care::{Care, registered};
use self::entry::{Begin, Door};
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::health::Health;
use crate::http::Pages;
use crate::kafka::Waiting;
use crate::listen::ListenError;
use crate::metadata_log::{RaftLog, Ticks, Waker};
use crate::run::{Addresses, Ready};
use crate::snapshots::StoreSnapshots;
use crate::sweep_gate::ClusterGate;
use crate::telemetry::Telemetry;

pub use entry::EntryError;
pub use identity::IdentityError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] OpenError),
    /// The metadata log.
    #[error("the metadata log does not start")]
    Raft(#[source] RaftStartError),
    /// The metadata log started, and failed while the node waited for its registration.
    #[error("the metadata log has failed")]
    Failed(#[source] Failure),
    /// The metadata log has no first leader.
    #[error("the metadata log cannot be founded")]
    Found(#[source] streamhouse_raft::MembershipError),
    /// Data directory, store and configuration do not belong together.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node is not part of its cluster.
    #[error("the node is not part of a cluster")]
    Entry(#[source] EntryError),
    /// The broker.
    #[error("the broker does not start")]
    Broker(#[source] streamhouse_broker::StartError),
    /// The addresses in use could not be written down.
    #[error("endpoints.json cannot be written")]
    Endpoints(#[source] std::io::Error),
}

impl StartError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::DataDir(DataDirError::InUse { .. }) | Self::Raft(RaftStartError::InUse { .. }) => {
                ErrorCode::DataDirInUse
            }
            Self::Raft(RaftStartError::OtherNode { .. }) => ErrorCode::ClusterMismatch,
            Self::Raft(
                RaftStartError::Corrupt { .. }
                | RaftStartError::LogMissing { .. }
                | RaftStartError::Identity(
                    RaftIdentityError::Corrupt { .. } | RaftIdentityError::Missing { .. },
                ),
            ) => ErrorCode::StorageCorrupt,
            Self::Identity(error) => error.code(),
            Self::Entry(EntryError::Join(JoinError::Refused(refusal))) => refusal.code,
            Self::Failed(failure) | Self::Entry(EntryError::Failed(failure)) => code_of(failure),
            Self::Entry(_) => ErrorCode::Unreachable,
            Self::Store(_) => ErrorCode::InvalidSetting,
            Self::Broker(streamhouse_broker::StartError::Refused(refusal)) => match &**refusal {
                NotRegistered::Member(_) | NotRegistered::Expelled { .. } => ErrorCode::NodeRefused,
                NotRegistered::Refused(_) => ErrorCode::MetadataUnavailable,
            },
            Self::Broker(_) | Self::Found(_) => ErrorCode::MetadataUnavailable,
            Self::DataDir(DataDirError::Io { source, .. })
            | Self::Raft(
                RaftStartError::Io { source, .. }
                | RaftStartError::Identity(RaftIdentityError::Io { source, .. }),
            ) if is_no_room(source) => ErrorCode::DiskFull,
            // The directory or the address that the settings name cannot be had: nothing is wrong with the node.
            Self::Listen(_)
            | Self::DataDir(_)
            | Self::Raft(
                RaftStartError::Io { .. } | RaftStartError::Identity(RaftIdentityError::Io { .. }),
            ) => ErrorCode::InvalidSetting,
            Self::Raft(_) | Self::Endpoints(_) => ErrorCode::Internal,
        }
    }
}

/// The code of a metadata log that has failed.
pub(crate) fn code_of(failure: &Failure) -> ErrorCode {
    match failure {
        Failure::DiskFull { .. } => ErrorCode::DiskFull,
        Failure::Outdated { .. } => ErrorCode::FeatureLevel,
        Failure::Rolled { .. } => ErrorCode::NodeRefused,
        _ => ErrorCode::Internal,
    }
}

/// A node that runs.
pub struct Running {
    ready: Ready,
    health: Arc<Health>,
    parts: Parts,
}

/// What a node is made of, in the order in which it is taken apart.
struct Parts {
    clock: Arc<dyn Clock>,
    listeners: serve::Listeners,
    services: Services,
    broker: Broker,
    seat: Seat,
    /// Absent on a reader.
    raft: Option<RaftNode>,
    /// Absent on a reader that got none.
    data_dir: Option<DataDir>,
    background: CancellationToken,
}

impl Running {
    /// Where it listens and who it is.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The addresses in use.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.ready.addresses
    }

    /// Waits until the cluster does not want this node any more: it was removed. Cancel-safe.
    pub async fn refused(&self) -> Arc<NotRegistered> {
        self.parts.broker.refused().await
    }

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Its metadata log, to be looked at by tests and simulations; `None` on a reader.
    #[must_use]
    pub fn raft(&self) -> Option<&RaftNode> {
        self.parts.raft.as_ref()
    }

    /// Waits until the node cannot go on: its metadata log has failed. Cancel-safe.
    pub async fn failed(&self) -> Failure {
        match &self.parts.raft {
            Some(raft) => raft.failed().await,
            None => match &self.parts.seat {
                Seat::Reader(log) => Failure::Outdated { problem: log.outdated().await },
                Seat::Member(_) => std::future::pending().await,
            },
        }
    }

    /// Stops the node in order: no new work, tell the clients, store and answer what is there, end. Each stage is
    /// logged with the time it took.
    pub async fn shutdown(self) {
        stop::stop(self.health, self.parts).await;
    }
}

/// What no setting says and a simulation does.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// How the metadata log behaves; by the kind of store when absent.
    pub raft: Option<RaftSettings>,
    /// How long silence is borne.
    pub lease: LeaseSettings,
}

impl Tuning {
    fn raft(&self, config: &Config) -> RaftSettings {
        match &self.raft {
            Some(settings) => settings.clone(),
            // A laptop should not give 64 MiB of disk to an empty log.
            None if config.is_local() => RaftSettings::small(),
            None => RaftSettings::default(),
        }
    }
}

fn is_reader(config: &Config) -> bool {
    config.role() == Some(Role::Reader)
}

/// Claims the data directory, and takes away what an earlier process said of its addresses. A reader keeps nothing: where it
/// gets no directory it goes without one.
fn claim(config: &Config, env: &Env) -> Result<Option<DataDir>, DataDirError> {
    match DataDir::claim(&env.fs, &config.node.data_dir) {
        Ok(data_dir) => {
            data_dir.remove_endpoints();
            Ok(Some(data_dir))
        }
        Err(error @ DataDirError::Io { .. }) if is_reader(config) => {
            tracing::info!(%error, "the reader goes without a data directory");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Starts a node; it takes requests when this returns.
///
/// # Errors
/// When anything it needs is not there or not its own. Nothing is left running then.
pub async fn start(config: Config, env: Env) -> Result<Running, StartError> {
    start_tuned(config, env, Tuning::default()).await
}

/// As [`start`], with what no setting says.
///
/// # Errors
/// As `start`.
pub async fn start_tuned(config: Config, env: Env, tuning: Tuning) -> Result<Running, StartError> {
    let begun = env.clock.now();
    let data_dir = claim(&config, &env)?;
    let health = Health::new(Arc::clone(&env.clock));
    let telemetry = Telemetry::of_process();
    let sockets = serve::Sockets::bind(&env, &config).await?;
    let addresses = sockets.addresses();
    let pages = Pages { health: Arc::clone(&health), telemetry: telemetry.clone() };
    let waiting = Clients::default();
    let plan = serve::Plan { config: &config, env: &env, health: &health, waiting: &waiting };
    // Probes are answered while the node recovers.
    let (http, gates) = plan.serve_http(sockets, pages);
    let store = streamhouse_storage::open(&config.store, &env).await.map_err(StartError::Store)?;
    let found = identity::first_look(&store, &config.store.url, &*env.clock, &health).await?;
    let place = Place { config: &config, env: &env, tuning: &tuning, told: Told::of(&config, addresses) };
    let background = CancellationToken::new();
    let (begun_as, internal, clients) = match &data_dir {
        Some(data_dir) if !is_reader(&config) => {
            // Looked at before the metadata log makes its files.
            let past = identity::Past::of(data_dir);
            let core = Core::start(&place, data_dir, store).await?;
            let node = NodeRpc::new(core.cluster.clone());
            let (internal, clients) = plan.serve_internal(gates, core.raft.rpc(), node);
            (core.begin(&place, (past, &found), &background).await?, Some(internal), clients)
        }
        _ => {
            (reader::begin(&place, store, &found, data_dir.as_ref(), &background).await?, None, gates.clients)
        }
    };
    let BegunAs { broker, cluster_id, seat, raft, routing } = begun_as;
    let services = Services::new(Shared {
        broker: broker.clone(),
        groups: groups(&config, &env, &broker),
        clients: Arc::new(Waiting(waiting.clone())),
        clock: Arc::clone(&env.clock),
        build: Build { version: crate::VERSION, commit: crate::COMMIT },
        node: config.node.id,
        cluster_id,
        seat: seat.clone(),
        routing,
        store_url: config.store.url.clone(),
        max_batch_bytes: config.limits.max_batch_bytes,
        opening: Opening::new(Arc::clone(&env.threads)),
        turn: Default::default(),
        drain: CancellationToken::new(),
        stop: CancellationToken::new(),
        sessions: TaskTracker::new(),
    });
    let listeners = plan.serve(http, internal, clients, &services).await;
    let clock = Arc::clone(&env.clock);
    let (lease, seated) = (tuning.lease, seat.clone());
    let care =
        Care { clock, telemetry, broker: broker.clone(), health: Arc::clone(&health), seat: seated, lease };
    care.start(raft.clone(), &background);
    let clock = Arc::clone(&env.clock);
    let parts = Parts { clock, listeners, services, broker, seat, raft, data_dir, background };
    let identity = (config.node.id, cluster_id);
    parts.ready(health, identity, &config.store.url, (addresses, begun)).await
}

/// The groups of a node that takes writes.
fn groups(config: &Config, env: &Env, broker: &Broker) -> Option<Groups> {
    let options = || GroupsOptions {
        broker: broker.clone(),
        env: env.clone(),
        node: config.node.id,
        settings: config.groups.clone(),
    };
    broker.takes_writes().then(|| Groups::new(options()))
}

/// Where a node is started.
struct Place<'a> {
    config: &'a Config,
    env: &'a Env,
    tuning: &'a Tuning,
    told: Told,
}

/// What a node is once it has begun.
struct BegunAs {
    broker: Broker,
    cluster_id: ClusterId,
    seat: Seat,
    /// Absent on a reader.
    raft: Option<RaftNode>,
    routing: Routing,
}

/// What agrees with the other nodes, before there is a broker.
struct Core {
    raft: RaftNode,
    log: RaftLog,
    store: Store,
    watermarks: HighWatermarks,
    snapshots: Arc<StoreSnapshots>,
    controller: Controller,
    peers: Peers,
    cluster: Cluster,
    routing: Routing,
}

impl Core {
    /// Starts the metadata log and what leads when this node leads.
    async fn start(place: &Place<'_>, data_dir: &DataDir, store: Store) -> Result<Self, StartError> {
        let Place { config, env, tuning, .. } = *place;
        let (watermarks, time) = (HighWatermarks::new(), AgreedTime::default());
        let waker = Arc::new(Waker::new(watermarks.clone()));
        let snapshots = StoreSnapshots::new(config.node.id, store.clone(), Arc::clone(&env.clock));
        let options = RaftOptions {
            node: config.node.id,
            dir: data_dir.raft(),
            env: env.clone(),
            settings: tuning.raft(config),
            observer: Arc::clone(&waker) as Arc<_>,
            snapshot_sink: Some(Arc::clone(&snapshots) as Arc<_>),
            leader_commands: Some(Arc::new(Ticks::new(Arc::clone(&env.clock), time.clone()))),
        };
        let raft = RaftNode::start(options).await.map_err(StartError::Raft)?;
        let log = RaftLog::new(raft.clone(), Arc::clone(&env.clock), time.clone());
        let controller = Controller::start(ControllerOptions {
            node: config.node.id,
            env: env.clone(),
            log: Arc::new(log.clone()),
            membership: Arc::new(RaftMembers(raft.clone())),
            settings: tuning.lease,
            offset_retention: config.groups.offset_retention,
            time: time.clone(),
            version: waker.version(),
        });
        let controller = match controller.await {
            Ok(controller) => controller,
            Err(reason) => {
                raft.shutdown().await;
                return Err(StartError::Broker(streamhouse_broker::StartError::Actor { reason }));
            }
        };
        let peers = Peers::new(env);
        let cluster = Cluster::new(ClusterOptions {
            node: config.node.id,
            env: env.clone(),
            log: Arc::new(log.clone()),
            raft: raft.clone(),
            controller: controller.clone(),
            peers: peers.clone(),
            feed: waker.feed(),
            time,
        });
        let routing = Routing::new(waker.moved());
        Ok(Self { raft, log, store, watermarks, snapshots, controller, peers, cluster, routing })
    }

    /// Comes to be part of a cluster; what was started is stopped when that fails.
    async fn begin(
        self,
        place: &Place<'_>,
        what: (identity::Past, &identity::Found),
        background: &CancellationToken,
    ) -> Result<BegunAs, StartError> {
        match self.enter(place, what, background).await {
            Ok((broker, cluster_id)) => {
                let Self { raft, cluster, routing, .. } = self;
                Ok(BegunAs { broker, cluster_id, seat: Seat::Member(cluster), raft: Some(raft), routing })
            }
            Err(error) => {
                background.cancel();
                self.controller.stop();
                self.raft.shutdown().await;
                Err(error)
            }
        }
    }

    /// Comes to be part of a cluster, makes sure that everything belongs together, and starts the broker.
    async fn enter(
        &self,
        place: &Place<'_>,
        (past, found): (identity::Past, &identity::Found),
        background: &CancellationToken,
    ) -> Result<(Broker, ClusterId), StartError> {
        let Place { config, env, ref told, .. } = *place;
        let mut door = Door {
            env: env.clone(),
            raft: self.raft.clone(),
            peers: self.peers.clone(),
            applicant: Door::applicant(config.node.id, &self.raft, &told.internal, found),
            seeds: config.cluster.seeds.clone(),
            store: self.store.clone(),
        };
        let begin = if self.raft.has_cluster().await {
            Begin::GoOn
        } else {
            Begin::anew(past, config, &told.internal)
        };
        match begin {
            Begin::Found => {
                identity::may_found(past, found, config)?;
                self.raft.bootstrap_single(&told.internal).await.map_err(StartError::Found)?;
            }
            Begin::Join => {
                let joined = door.join().await.map_err(StartError::Entry)?;
                identity::of_cluster(joined.cluster, found)?;
            }
            Begin::GoOn => {}
        }
        let cluster = identity::agree(&self.log, &self.store, found, env).await?;
        self.raft.set_cluster(cluster);
        door.applicant.cluster = Some(cluster);
        if begin == Begin::Found {
            self.settle_founding(config, &door).await?;
        }
        self.snapshots.belong_to(Layout::new(cluster));
        let announced = door.announce(self.cluster.clone(), background);
        self.log.catch_up_time().await;
        let options = BrokerOptions {
            role: Role::Broker,
            node: config.node.id,
            zone: config.node.zone.clone(),
            addresses: vec![
                ("kafka".to_owned(), told.kafka.clone()),
                (streamhouse_kafka::DIRECT.to_owned(), told.kafka_direct.clone()),
                ("grpc".to_owned(), told.grpc.clone()),
                ("internal".to_owned(), told.internal.clone()),
            ],
            env: env.clone(),
            log: Arc::new(self.log.clone()),
            store: self.store.clone(),
            watermarks: self.watermarks.clone(),
            sweep_gate: Arc::new(ClusterGate(self.cluster.clone())),
            settings: config.broker(),
        };
        // Others see this node while it waits for its registration, which may need a majority that is to come.
        let broker = Broker::begin(options).await.map_err(StartError::Broker)?;
        // It is set here alone.
        drop(announced.set(broker.clone()));
        Ok((broker, cluster))
    }

    /// What the founder of a cluster decides for it.
    async fn settle_founding(&self, config: &Config, door: &Door) -> Result<(), StartError> {
        let admitted = self.cluster.admit_self(&door.applicant).await;
        admitted.map_err(|error| StartError::Entry(error.into()))?;
        let voters =
            VoterCount::try_from(u64::from(config.cluster.voters)).expect("the configuration is checked");
        let command = Command::SetWantedVoters { request: [0; 16], voters };
        if let Err(error) = self.cluster.propose(command).await {
            tracing::warn!(%error, "the wanted number of voters was not set");
        }
        // Nobody else is there who might know less: the first client is to find all that this release has.
        let command = Command::RaiseFeatureLevel { level: crate::FEATURES.max };
        if let Err(error) = self.cluster.propose(command).await {
            tracing::warn!(%error, "the feature level was not raised yet");
        }
        Ok(())
    }
}

impl Parts {
    /// Tells everybody that the node takes requests.
    async fn ready(
        self,
        health: Arc<Health>,
        (node, cluster): (NodeId, ClusterId),
        store_url: &str,
        (addresses, begun): (Addresses, Duration),
    ) -> Result<Running, StartError> {
        if let Err(error) = registered(&self.broker, &*self.clock, &health, self.raft.as_ref()).await {
            stop::stop(health, self).await;
            return Err(error);
        }
        health.started();
        health.ready();
        self.listeners.report(ServingStatus::Serving).await;
        if let Some(Err(error)) = self.data_dir.as_ref().map(|dir| dir.write_endpoints(&addresses)) {
            stop::stop(health, self).await;
            return Err(StartError::Endpoints(error));
        }
        let elapsed = self.clock.now().saturating_sub(begun);
        let data_dir = self.data_dir.as_ref().map(|dir| dir.path().to_owned()).unwrap_or_default();
        let ready = Ready { addresses, data_dir, store_url: store_url.to_owned(), cluster, node, elapsed };
        tracing::info!(%node, %cluster, kafka = %addresses.kafka, grpc = %addresses.grpc, http = %addresses.http, ?elapsed, "node is ready");
        Ok(Running { ready, health, parts: self })
    }
}

/// The addresses that others are told.
struct Told {
    kafka: String,
    /// Where other nodes reach this one's Kafka port, whatever stands before it.
    kafka_direct: String,
    grpc: String,
    internal: String,
}

impl Told {
    fn of(config: &Config, bound: Addresses) -> Self {
        let told = |advertised: &str, bound: SocketAddr| match advertised {
            "" => bound.to_string(),
            advertised => advertised.to_owned(),
        };
        let internal = told(&config.listeners.advertised_internal, bound.internal);
        // What is bound to a wildcard is reached where the node is reached otherwise.
        let kafka_direct = match internal.rsplit_once(':') {
            Some((host, _)) if bound.kafka.ip().is_unspecified() => format!("{host}:{}", bound.kafka.port()),
            _ => bound.kafka.to_string(),
        };
        Self {
            kafka: told(&config.listeners.advertised_kafka, bound.kafka),
            kafka_direct,
            grpc: told(&config.listeners.advertised_grpc, bound.grpc),
            internal,
        }
    }
}
