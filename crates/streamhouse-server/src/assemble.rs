//! Puts a node together: store, metadata log, broker, listeners, in this order; and takes it apart in the other.

mod identity;
mod serve;
mod stop;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::{Broker, BrokerOptions, HighWatermarks};
use streamhouse_env::{Clock, Env};
use streamhouse_raft::{Failure, RaftNode, RaftOptions, RaftSettings, StartError as RaftStartError};
use streamhouse_storage::{Layout, OpenError, Store};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, NodeId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::grpc::{Opening, Services, Shared};
use crate::health::Health;
use crate::http::Pages;
use crate::listen::ListenError;
use crate::metadata_log::{ClusterTime, RaftLog, Waker};
use crate::run::{Addresses, Ready};
use crate::snapshots::StoreSnapshots;
use crate::telemetry::Telemetry;

pub use identity::IdentityError;

/// How often recorded samples are moved into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often cluster time goes on by itself while nothing is written.
const IDLE_TICK: Duration = Duration::from_secs(60);

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
    /// The metadata log has no first leader.
    #[error("the metadata log cannot be founded")]
    Found(#[source] streamhouse_raft::MembershipError),
    /// Data directory, store and configuration do not belong together.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
            Self::Raft(RaftStartError::Corrupt { .. }) => ErrorCode::StorageCorrupt,
            Self::Identity(error) => error.code(),
            Self::Store(_) => ErrorCode::InvalidSetting,
            Self::Broker(_) | Self::Found(_) => ErrorCode::MetadataUnavailable,
            Self::DataDir(DataDirError::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                ErrorCode::DiskFull
            }
            // The directory or the address that the settings name cannot be had: nothing is wrong with the node.
            Self::Listen(_) | Self::DataDir(_) => ErrorCode::InvalidSetting,
            Self::Raft(_) | Self::Endpoints(_) => ErrorCode::Internal,
        }
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
    raft: RaftNode,
    data_dir: DataDir,
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

    /// Its health.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Waits until the node cannot go on: its metadata log has failed. Cancel-safe.
    pub async fn failed(&self) -> Failure {
        self.parts.raft.failed().await
    }

    /// Stops the node in order: no new work, tell the clients, store and answer what is there, end. Each stage is
    /// logged with the time it took.
    pub async fn shutdown(self) {
        stop::stop(self.health, self.parts).await;
    }
}

/// Starts a node; it takes requests when this returns.
///
/// # Errors
/// When anything it needs is not there or not its own. Nothing is left running then.
pub async fn start(config: Config, env: Env) -> Result<Running, StartError> {
    let begun = env.clock.now();
    let data_dir = DataDir::claim(&config.node.data_dir)?;
    data_dir.remove_endpoints();
    let health = Health::new(Arc::clone(&env.clock));
    let telemetry = Telemetry::of_process();
    let sockets = serve::Sockets::bind(&env, &config).await?;
    let addresses = sockets.addresses();
    let pages = Pages { health: Arc::clone(&health), telemetry: telemetry.clone() };
    let plan = serve::Plan { config: &config, env: &env, health: &health };
    // Probes are answered while the node recovers.
    let (http, sockets) = plan.serve_http(sockets, pages);
    let store = streamhouse_storage::open(&config.store, &env).await.map_err(StartError::Store)?;

    let past = identity::Past::of(&data_dir);
    let found = identity::look(&store, &config.store.url).await?;
    identity::may_found(past, &found, &config)?;
    let watermarks = HighWatermarks::new();
    let told = Told::of(&config, addresses);
    let snapshots = StoreSnapshots::new(config.node.id, store.clone(), Arc::clone(&env.clock));
    let watching = Watching { watermarks: watermarks.clone(), snapshots: Arc::clone(&snapshots) };
    let raft = start_raft(&config, &env, &data_dir, &told.internal, watching).await?;
    let core = Core { raft: raft.clone(), store, found, watermarks, told };
    let (broker, log, cluster) = match core.start(&config, &env).await {
        Ok(started) => {
            snapshots.belong_to(Layout::new(started.2));
            started
        }
        Err(error) => {
            raft.shutdown().await;
            return Err(error);
        }
    };
    let services = Services::new(Shared {
        broker: broker.clone(),
        clock: Arc::clone(&env.clock),
        node: config.node.id,
        cluster,
        store_url: config.store.url.clone(),
        max_batch_bytes: config.limits.max_batch_bytes,
        opening: Opening::new(),
        turn: Default::default(),
        drain: CancellationToken::new(),
        stop: CancellationToken::new(),
        sessions: TaskTracker::new(),
    });
    let listeners = plan.serve(http, sockets, &services, &raft);
    let background = CancellationToken::new();
    let clock = Arc::clone(&env.clock);
    Care { clock, telemetry, log, broker: broker.clone(), health: Arc::clone(&health) }.start(&background);
    let clock = Arc::clone(&env.clock);
    let parts = Parts { clock, listeners, services, broker, raft, data_dir, background };
    let identity = (config.node.id, cluster);
    parts.ready(health, identity, &config.store.url, (addresses, begun)).await
}

/// What the broker stands on.
struct Core {
    raft: RaftNode,
    store: Store,
    found: identity::Found,
    watermarks: HighWatermarks,
    told: Told,
}

impl Core {
    /// Agrees on the cluster and starts the broker.
    async fn start(self, config: &Config, env: &Env) -> Result<(Broker, RaftLog, ClusterId), StartError> {
        let Self { raft, store, found, watermarks, told } = self;
        let log = RaftLog::new(raft.clone(), Arc::clone(&env.clock));
        let cluster = identity::agree(&log, &store, &found, env).await?;
        raft.set_cluster(cluster);
        log.catch_up_time().await;
        let options = BrokerOptions {
            node: config.node.id,
            zone: config.node.zone.clone(),
            addresses: vec![("grpc".to_owned(), told.grpc), ("internal".to_owned(), told.internal)],
            env: env.clone(),
            log: Arc::new(log.clone()),
            store,
            watermarks,
            settings: config.broker(),
        };
        let broker = Broker::start(options).await.map_err(StartError::Broker)?;
        Ok((broker, log, cluster))
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
        health.started();
        health.ready();
        self.listeners.report(ServingStatus::Serving).await;
        if let Err(error) = self.data_dir.write_endpoints(&addresses) {
            stop::stop(health, self).await;
            return Err(StartError::Endpoints(error));
        }
        let elapsed = self.clock.now().saturating_sub(begun);
        let data_dir = self.data_dir.path().to_owned();
        let ready = Ready { addresses, data_dir, store_url: store_url.to_owned(), cluster, node, elapsed };
        tracing::info!(%node, %cluster, grpc = %addresses.grpc, http = %addresses.http, ?elapsed, "node is ready");
        Ok(Running { ready, health, parts: self })
    }
}

/// Who is told of what the metadata log does.
struct Watching {
    watermarks: HighWatermarks,
    snapshots: Arc<StoreSnapshots>,
}

async fn start_raft(
    config: &Config,
    env: &Env,
    data_dir: &DataDir,
    internal: &str,
    watching: Watching,
) -> Result<RaftNode, StartError> {
    let options = RaftOptions {
        node: config.node.id,
        dir: data_dir.raft(),
        env: env.clone(),
        // A laptop should not give 64 MiB of disk to an empty log.
        settings: if config.is_local() { RaftSettings::small() } else { RaftSettings::default() },
        observer: Arc::new(Waker(watching.watermarks)),
        snapshot_sink: Some(watching.snapshots),
        leader_commands: Some(Arc::new(ClusterTime::new(Arc::clone(&env.clock)))),
    };
    let raft = RaftNode::start(options).await.map_err(StartError::Raft)?;
    if !raft.has_cluster().await {
        raft.bootstrap_single(internal).await.map_err(StartError::Found)?;
    }
    Ok(raft)
}

/// The addresses that others are told.
struct Told {
    grpc: String,
    internal: String,
}

impl Told {
    fn of(config: &Config, bound: Addresses) -> Self {
        let told = |advertised: &str, bound: SocketAddr| match advertised {
            "" => bound.to_string(),
            advertised => advertised.to_owned(),
        };
        Self {
            grpc: told(&config.listeners.advertised_grpc, bound.grpc),
            internal: told(&config.listeners.advertised_internal, bound.internal),
        }
    }
}

/// What is looked after while the node runs.
struct Care {
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    log: RaftLog,
    broker: Broker,
    health: Arc<Health>,
}

impl Care {
    /// Keeps metrics and cluster time going and watches the loops that must not stick, until `end`.
    fn start(self, end: &CancellationToken) {
        let care = Arc::new(self);
        let (upkeep, raft, flush) = (Arc::clone(&care), Arc::clone(&care), care);
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { upkeep.keep_up().await }));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { raft.watch_raft().await }));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { flush.watch_flush().await }));
    }

    async fn keep_up(&self) {
        let heart = self.health.watch("upkeep");
        loop {
            self.clock.sleep(UPKEEP).await;
            heart.beat();
            self.telemetry.upkeep();
        }
    }

    async fn watch_raft(&self) {
        let heart = self.health.watch("metadata log");
        let mut ticked = self.clock.now();
        loop {
            let no_leader = (!self.log.has_leader().await).then(|| "no leader is known".to_owned());
            self.health.degrade("metadata log", no_leader);
            heart.beat();
            if self.clock.now().saturating_sub(ticked) >= IDLE_TICK {
                ticked = self.clock.now();
                self.log.catch_up_time().await;
            }
            self.clock.sleep(UPKEEP).await;
        }
    }

    async fn watch_flush(&self) {
        let heart = self.health.watch("flush");
        loop {
            if self.broker.ping().await {
                heart.beat();
            }
            self.clock.sleep(UPKEEP).await;
        }
    }
}
