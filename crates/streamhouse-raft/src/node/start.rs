//! How a node starts on its directory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openraft::Raft;
use openraft::errors::Fatal;
use parking_lot::Mutex;
use streamhouse_env::FileLock;
use tokio::sync::watch;

use super::watch::{Watched, take_due_snapshots, upload_snapshots, watch_metrics};
use super::{Directory, Inner, Leadership, RaftNode, RaftOptions, Running};
use crate::error::StartError;
use crate::identity::Identity;
use crate::log::{self, LogOptions, LogReader};
use crate::machine::{Machine, View};
use crate::network::{Acknowledged, Connector, Forwarder, Network, Part, Room};
use crate::runtime::Runtime;
use crate::snapshot::SnapshotDir;
use crate::types::TypeConfig;

pub(super) async fn start(options: RaftOptions) -> Result<RaftNode, StartError> {
    options.settings.validate().map_err(|problem| StartError::Settings { problem })?;
    let fs = &options.env.fs;
    fs.create_dir(&options.dir).map_err(|source| StartError::Io { path: options.dir.clone(), source })?;
    let lock = lock(&options)?;
    let failure = Arc::new(watch::Sender::new(None));
    let log_options = LogOptions {
        node: options.node,
        dir: options.dir.join("log"),
        env: options.env.clone(),
        segment_bytes: options.settings.segment_bytes,
        cache_bytes: usize::try_from(options.settings.cache_bytes).unwrap_or(usize::MAX),
        failure: failure.clone(),
    };
    let identity = check_identity(&options, &log_options)?;
    let (store, writer) = log::open(&log_options, lock)?;
    let log = store.reader();
    // Only now: an identity says that a log was begun.
    let directory = directory(&options, identity, &log)?;
    let purged = log.purged();
    let (snapshots, file) = SnapshotDir::open(fs.clone(), options.dir.join("snapshots"), purged)?;
    let view = Arc::new(View::new(file.as_ref(), options.settings.snapshot_bytes, failure.clone()));
    let threads = options.env.threads.clone();
    let machine = Machine::new(view.clone(), Arc::new(snapshots), options.observer.clone(), threads, file);
    let config = options.settings.to_openraft().validate();
    let config = Arc::new(config.map_err(|error| StartError::Settings { problem: error.to_string() })?);
    let connector = Connector::new(options.env.net.clone(), options.env.clock.clone());
    let made = Raft::new(options.node.get(), config, network(&options, &connector), store, machine);
    let raft = Runtime::drawing(options.env.rng.clone(), made).await;
    let raft = raft.map_err(|fatal: Fatal<_>| StartError::Raft { problem: fatal.to_string() })?;
    let leadership = Arc::new(watch::Sender::new(Leadership::default()));
    let leaderless = Arc::new(AtomicBool::new(false));
    let watched = Watched {
        node: options.node,
        view: view.clone(),
        failure: failure.clone(),
        leadership: leadership.clone(),
        connector: connector.clone(),
        leaderless: Arc::clone(&leaderless),
    };
    let tasks = spawn_tasks(&options, &raft, watched);
    let inner = Inner {
        node: options.node,
        raft,
        log,
        env: options.env.clone(),
        propose_timeout: options.settings.propose_timeout,
        commit_timeout: options.settings.commit_timeout,
        snapshot_timeout: options.settings.snapshot_timeout,
        silence_max: options.settings.election_max,
        failure,
        leadership,
        leaderless,
        leader_commands: options.leader_commands.clone(),
        cluster: connector.cluster().clone(),
        forwarder: Forwarder::new(connector),
        part: Part::default(),
        room: Room::new(),
        view,
        directory,
        running: Mutex::new(Some(Running { tasks, writer })),
    };
    let node = RaftNode { inner: Arc::new(inner) };
    if let Err(error) = lead_at_once(&node).await {
        node.shutdown().await;
        return Err(error);
    }
    Ok(node)
}

/// What the directory is; one that is new gets an identity, and one that has lost it none.
fn directory(
    options: &RaftOptions,
    identity: Option<Identity>,
    log: &LogReader,
) -> Result<Directory, StartError> {
    if let Some(identity) = identity {
        return Ok(Directory { lineage: identity.lineage, fresh: false });
    }
    if log.standing() != (0, None) {
        return Err(StartError::Identity(Identity::missing(&options.dir)));
    }
    let drawn = Identity::draw(options.node, &*options.env.rng);
    drawn.write(&*options.env.fs, &options.dir).map_err(StartError::Identity)?;
    Ok(Directory { lineage: drawn.lineage, fresh: true })
}

fn network(options: &RaftOptions, connector: &Connector) -> Network {
    let acknowledged = Acknowledged::default();
    Network { connector: connector.clone(), node: options.node.get(), acknowledged }
}

/// Nobody can object to the only voter, so it need not wait for an election timeout.
async fn lead_at_once(node: &RaftNode) -> Result<(), StartError> {
    if !node.sole_voter().await {
        return Ok(());
    }
    let elected = node.inner.raft.trigger().elect(false).await;
    elected.map_err(|error| StartError::Raft { problem: error.to_string() })?;
    if node.wait_leading().await {
        return Ok(());
    }
    let failure = node.inner.failure.borrow().clone();
    let problem = failure
        .map_or_else(|| "the only voter does not come to lead".to_owned(), |failure| failure.to_string());
    Err(StartError::Raft { problem })
}

fn lock(options: &RaftOptions) -> Result<Box<dyn FileLock>, StartError> {
    let path = options.dir.join("lock");
    options.env.fs.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => StartError::InUse { dir: options.dir.clone() },
        _ => StartError::Io { path, source },
    })
}

fn check_identity(options: &RaftOptions, log: &LogOptions) -> Result<Option<Identity>, StartError> {
    let dir: &Path = &options.dir;
    let identity = Identity::read(&*options.env.fs, dir).map_err(StartError::Identity)?;
    if let Some(identity) = identity {
        if identity.node != options.node {
            let (found, expected) = (identity.node, options.node);
            return Err(StartError::OtherNode { dir: dir.to_owned(), found, expected });
        }
        let exists = log::exists(log).map_err(|source| StartError::Io { path: log.dir.clone(), source })?;
        if !exists {
            return Err(StartError::LogMissing { dir: dir.to_owned() });
        }
    }
    Ok(identity)
}

fn spawn_tasks(
    options: &RaftOptions,
    raft: &Raft<TypeConfig, Machine>,
    watched: Watched,
) -> Vec<tokio::task::JoinHandle<()>> {
    let view = watched.view.clone();
    let mut tasks = vec![
        tokio::spawn(watch_metrics(raft.metrics(), watched)),
        tokio::spawn(take_due_snapshots(raft.clone(), view.clone())),
    ];
    if let Some(sink) = &options.snapshot_sink {
        tasks.push(tokio::spawn(upload_snapshots(view.taken.subscribe(), view, sink.clone())));
    }
    tasks
}
