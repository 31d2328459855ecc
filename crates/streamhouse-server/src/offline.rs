//! Looking at the store of a cluster that is stopped, with the metadata of its data directory.
//!
//! The answers are the same messages that a running node gives over the API.

use std::sync::Arc;

use streamhouse_broker::metadata::State;
use streamhouse_broker::{StorageError, objects};
use streamhouse_env::Env;
use streamhouse_grpc::storage_report;
use streamhouse_proto::v1;
use streamhouse_raft::{Identity, IdentityError, RaftNode, RaftOptions, RaftSettings, StartError};
use streamhouse_storage::{Layout, OpenError, Store};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_verify::{Depth, verify};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};

/// Messages of progress that wait to be read.
const PROGRESS_AHEAD: usize = 16;

/// Why a stopped cluster cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The data directory is in use or cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its identity cannot be read.
    #[error("the identity of the data directory cannot be read")]
    Identity(#[source] IdentityError),
    /// There is no metadata log.
    #[error("the data directory {path} holds no cluster; name the one of the stopped node in node.data_dir")]
    NoCluster {
        /// The directory.
        path: String,
    },
    /// The metadata log cannot be read.
    #[error("the metadata log cannot be read")]
    Raft(#[source] StartError),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[source] OpenError),
    /// The store does not answer, or not as it should.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl OfflineError {
    /// The code under which the outside hears of it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::DataDir(DataDirError::InUse { .. }) => ErrorCode::DataDirInUse,
            Self::NoCluster { .. } => ErrorCode::ClusterMismatch,
            Self::Identity(_) | Self::Raft(_) => ErrorCode::StorageCorrupt,
            Self::Store(_) => ErrorCode::InvalidSetting,
            Self::DataDir(DataDirError::Io { .. }) => ErrorCode::InvalidArgument,
            Self::Storage(error) => error.code(),
        }
    }
}

/// A stopped cluster: its metadata as they were last, and its store.
///
/// The data directory stays locked while this lives, so that no node starts meanwhile.
pub struct Offline {
    state: State,
    store: Store,
    layout: Layout,
    url: String,
    _data_dir: DataDir,
}

impl Offline {
    /// Reads the metadata log of `config.node.data_dir` and opens the store of `config.store`. Nothing is written into
    /// the store.
    ///
    /// # Errors
    /// When a node runs on the directory, or either of them cannot be read.
    pub async fn open(config: &Config, env: Env) -> Result<Self, OfflineError> {
        let data_dir = DataDir::claim_existing(&env.fs, &config.node.data_dir)?;
        let no_cluster = || OfflineError::NoCluster { path: data_dir.path().display().to_string() };
        let identity = Identity::read(&*env.fs, &data_dir.raft()).map_err(OfflineError::Identity)?;
        let identity = identity.ok_or_else(no_cluster)?;
        let options = RaftOptions {
            node: identity.node,
            dir: data_dir.raft(),
            env: env.clone(),
            settings: RaftSettings::small(),
            observer: Arc::new(()),
            snapshot_sink: None,
            leader_commands: None,
        };
        let raft = RaftNode::start(options).await.map_err(OfflineError::Raft)?;
        let state = raft.snapshot();
        raft.shutdown().await;
        let cluster = state.cluster().ok_or_else(no_cluster)?;
        let store = streamhouse_storage::open(&config.store, &env).await.map_err(OfflineError::Store)?;
        let (layout, url) = (Layout::new(cluster), config.store.url.clone());
        Ok(Self { state, store, layout, url, _data_dir: data_dir })
    }

    /// Sums over what lies in the store.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn summary(&self) -> Result<v1::StorageSummaryResponse, OfflineError> {
        let found = objects::summary(&self.state, &self.store, self.layout).await?;
        Ok(storage_report::summary(found, &self.url))
    }

    /// One object in detail, by its key or its id.
    ///
    /// # Errors
    /// When there is no such object, or it is damaged.
    pub async fn inspect(&self, name: &str) -> Result<v1::InspectObjectResponse, OfflineError> {
        let report = objects::inspect(&self.state, &self.store, self.layout, name).await?;
        Ok(storage_report::object(report, &self.state))
    }

    /// Checks the store against the metadata: every byte when `request.deep`, else presence and length. Calls
    /// `progress` as it goes on; the last message has `done` set.
    ///
    /// # Errors
    /// When the store cannot be listed. An object that cannot be read is a fault, not an error.
    pub async fn verify(
        &self,
        request: v1::VerifyRequest,
        mut progress: impl FnMut(v1::VerifyResponse),
    ) -> Result<(), OfflineError> {
        let depth = if request.deep { Depth::Bytes } else { Depth::Presence };
        let (port, mut found) = mpsc::channel(PROGRESS_AHEAD);
        let checking = async {
            let checked = verify::<StorageError>(&self.state, &self.store, self.layout, depth, &port).await;
            drop(port);
            checked
        };
        let telling = async {
            while let Some(found) = found.recv().await {
                match found {
                    Ok(found) => progress(storage_report::progress(found, &self.state)),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let (checked, told) = tokio::join!(checking, telling);
        checked.map_err(StorageError::from)?;
        told?;
        Ok(())
    }
}
