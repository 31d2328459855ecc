//! Puts a node together: store, metadata log, broker, listeners, in this order; and takes it apart in the other.

mod identity;
mod serve;
mod stop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::{Broker, BrokerOptions, HighWatermarks};
use streamhouse_env::{Clock, Env};
use streamhouse_raft::{Failure, RaftNode, RaftOptions, RaftSettings, StartError as RaftStartError};
use streamhouse_storage::OpenError;
use streamhouse_types::error_code::ErrorCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::grpc::{Services, Shared};
use crate::health::Health;
use crate::http::Pages;
use crate::listen::ListenError;
use crate::metadata_log::{RaftLog, Waker};
use crate::run::{Addresses, Ready};
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
            Self::Listen(_) | Self::DataDir(_) | Self::Raft(_) | Self::Endpoints(_) => ErrorCode::Internal,
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
    let store = streamhouse_storage::open(&config.store, &env).await.map_err(StartError::Store)?;

    let past = identity::Past::of(&data_dir);
    let found = identity::look(&store, &config.store.url).await?;
    identity::may_found(past, &found, &config)?;
    let watermarks = HighWatermarks::new();
    let told = Told::of(&config, addresses);
    let raft = start_raft(&config, &env, &data_dir, &told.internal, watermarks.clone()).await?;
    let log = RaftLog::new(raft.clone(), Arc::clone(&env.clock));
    let cluster = identity::agree(&log, &store, &found, &env).await?;
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
    let services = Services::new(Shared {
        broker: broker.clone(),
        clock: Arc::clone(&env.clock),
        node: config.node.id,
        cluster,
        store_url: config.store.url.clone(),
        max_batch_bytes: config.limits.max_batch_bytes,
        turn: Default::default(),
        drain: CancellationToken::new(),
        stop: CancellationToken::new(),
        sessions: TaskTracker::new(),
    });
    let pages = Pages { health: Arc::clone(&health), telemetry: telemetry.clone() };
    let plan = serve::Plan { config: &config, env: &env, health: &health, pages };
    let listeners = plan.serve(sockets, &services, &raft);
    health.started();
    health.ready();
    listeners.report(ServingStatus::Serving).await;
    data_dir.write_endpoints(&addresses).map_err(StartError::Endpoints)?;
    let background = CancellationToken::new();
    look_after(&env, telemetry, log, &health, background.clone());

    let elapsed = env.clock.now().saturating_sub(begun);
    let ready = Ready {
        addresses,
        data_dir: data_dir.path().to_owned(),
        store_url: config.store.url.clone(),
        cluster,
        node: config.node.id,
        elapsed,
    };
    tracing::info!(node = %ready.node, %cluster, grpc = %addresses.grpc, http = %addresses.http, ?elapsed, "node is ready");
    let clock = Arc::clone(&env.clock);
    let parts = Parts { clock, listeners, services, broker, raft, data_dir, background };
    Ok(Running { ready, health, parts })
}

async fn start_raft(
    config: &Config,
    env: &Env,
    data_dir: &DataDir,
    internal: &str,
    watermarks: HighWatermarks,
) -> Result<RaftNode, StartError> {
    let options = RaftOptions {
        node: config.node.id,
        dir: data_dir.raft(),
        env: env.clone(),
        // A laptop should not give 64 MiB of disk to an empty log.
        settings: if config.is_local() { RaftSettings::small() } else { RaftSettings::default() },
        observer: Arc::new(Waker(watermarks)),
        snapshot_sink: None,
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

/// Keeps metrics and cluster time going until the node stops.
fn look_after(env: &Env, telemetry: Telemetry, log: RaftLog, health: &Health, background: CancellationToken) {
    let clock = Arc::clone(&env.clock);
    let heart = health.watch("upkeep");
    tokio::spawn(background.run_until_cancelled_owned(async move {
        let mut ticked = clock.now();
        loop {
            clock.sleep(UPKEEP).await;
            heart.beat();
            telemetry.upkeep();
            if clock.now().saturating_sub(ticked) >= IDLE_TICK {
                ticked = clock.now();
                log.catch_up_time().await;
            }
        }
    }));
}
