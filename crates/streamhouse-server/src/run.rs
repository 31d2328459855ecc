//! The commands that run a node until it is told to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::NotRegistered;
use streamhouse_env::{Env, TcpNetFrom, raise_open_files};
use streamhouse_raft::Failure;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, NodeId};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::assemble::{StartError, code_of, start};
use crate::config::{Config, ConfigError, ConfigSources, Preset, check_config};
use crate::logging::start_logging;

/// What `streamhouse dev` can be told.
#[derive(Debug, Clone, Default)]
pub struct DevOptions {
    /// Where everything is kept; `./.streamhouse` when absent.
    pub data_dir: Option<PathBuf>,
    /// Address for Kafka clients.
    pub kafka_addr: Option<String>,
    /// Address for clients.
    pub grpc_addr: Option<String>,
    /// Address for other nodes.
    pub internal_addr: Option<String>,
    /// Address for metrics and health.
    pub http_addr: Option<String>,
    /// URL of the store; `store/` of the data directory when absent.
    pub store: Option<String>,
    /// Any other setting, as `section.key` and value.
    pub settings: Vec<(String, String)>,
}

impl DevOptions {
    /// The same as sources of a configuration.
    #[must_use]
    pub fn sources(self) -> ConfigSources {
        let mut sources = ConfigSources::of_process(Preset::Dev);
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                sources.flags.push((name.to_owned(), value));
            }
        };
        flag("node.data_dir", self.data_dir.map(|path| path.to_string_lossy().into_owned()));
        flag("listeners.kafka", self.kafka_addr);
        flag("listeners.grpc", self.grpc_addr);
        flag("listeners.internal", self.internal_addr);
        flag("listeners.http", self.http_addr);
        flag("store.url", self.store);
        sources.flags.extend(self.settings);
        sources
    }
}

/// The addresses in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Kafka clients.
    pub kafka: SocketAddr,
    /// Clients.
    pub grpc: SocketAddr,
    /// Other nodes.
    pub internal: SocketAddr,
    /// Metrics and health.
    pub http: SocketAddr,
}

/// What a node says once it takes requests.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The addresses in use.
    pub addresses: Addresses,
    /// Where its identity and its metadata log lie.
    pub data_dir: PathBuf,
    /// Where records are kept, without secrets.
    pub store_url: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// From the start of the command to now.
    pub elapsed: Duration,
}

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that the node needs is not there or not its own.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node cannot go on. Nothing that it acknowledged is lost.
    #[error("the metadata log has failed")]
    Failed(#[source] Failure),
    /// The node was removed from its cluster while it ran. What it acknowledged is kept.
    #[error("the cluster does not want this node any more")]
    Refused(#[source] Arc<NotRegistered>),
    /// A second signal came before everything was stopped.
    #[error("interrupted before everything was stopped")]
    Interrupted,
    /// The process cannot hear signals.
    #[error("signals cannot be heard")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// The code of the error, for `--output json` and the exit code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) => ErrorCode::InvalidSetting,
            Self::Start(error) => error.code(),
            Self::Failed(failure) => code_of(failure),
            Self::Signals(_) => ErrorCode::Internal,
            Self::Refused(_) => ErrorCode::NodeRefused,
            Self::Interrupted => ErrorCode::Cancelled,
        }
    }

    /// What the command exits with: 2 for a wrong configuration, 4 for a conflict with another process or cluster, 6
    /// for what another try may cure, 130 when it was interrupted, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.code().exit_code()
    }
}

/// Runs one node for trying out until SIGINT or SIGTERM, then stops it in order. `on_ready` is called once.
///
/// # Errors
/// When it does not start, or cannot go on.
pub async fn run_dev(options: DevOptions, on_ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    run_server(options.sources(), on_ready).await
}

/// Runs a node until SIGINT or SIGTERM, then stops it in order. `on_ready` is called once.
///
/// # Errors
/// When it does not start, or cannot go on.
pub async fn run_server(sources: ConfigSources, on_ready: impl FnOnce(&Ready)) -> Result<(), RunError> {
    let mut config = check_config(&sources)?;
    start_logging(&config.log);
    fit_open_files(&mut config);
    let mut signals = Signals::listen().map_err(RunError::Signals)?;
    let env = machine(&config);
    let running = tokio::select! {
        started = start(config, env) => started?,
        // Nothing is acknowledged yet: what was begun is found again at the next start.
        _ = signals.next() => return Ok(()),
    };
    on_ready(running.ready());
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "node stops"),
        refusal = running.refused() => {
            tracing::error!(%refusal, "the cluster does not want this node any more, it stops");
            running.shutdown().await;
            return Err(RunError::Refused(refusal));
        }
        failure = running.failed() => {
            tracing::error!(%failure, "metadata log has failed, node stops");
            return Err(RunError::Failed(failure));
        }
    }
    tokio::select! {
        () = running.shutdown() => Ok(()),
        _ = signals.next() => Err(RunError::Interrupted),
    }
}

/// Lets the process have as many open files as it may, and takes no more connections than go with them.
fn fit_open_files(config: &mut Config) {
    let open_files = raise_open_files();
    if config.limits.fit_open_files(open_files) {
        let (grpc, kafka) = (config.limits.connections, config.limits.kafka_connections);
        tracing::warn!(
            open_files,
            grpc,
            kafka,
            "fewer connections are taken than `limits` allows: raise the limit of open files (`ulimit -n`)"
        );
    }
}

/// The real machine, as this node uses it: it speaks to other nodes from the address at which it listens for them.
fn machine(config: &Config) -> Env {
    let mut env = Env::system();
    let listens: Option<IpAddr> = config.listeners.internal.parse().ok().map(|bound: SocketAddr| bound.ip());
    // A wildcard is the address of nobody.
    if let Some(own) = listens.filter(|own| !own.is_unspecified()) {
        env.net = Arc::new(TcpNetFrom::new(own));
    }
    env
}

/// SIGINT and SIGTERM, which no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens to them from now on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one, by name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
