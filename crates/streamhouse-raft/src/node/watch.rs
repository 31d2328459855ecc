//! What runs beside a node: its gauges, its due snapshots, their copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::alias::WatchReceiverOf;
use openraft::errors::Fatal;
use openraft::type_config::async_runtime::watch::WatchReceiver as _;
use openraft::{Raft, RaftMetrics};
use streamhouse_types::NodeId;
use tokio::sync::watch;

use super::status::{Leadership, members_of};
use crate::error::Failure;
use crate::log::report;
use crate::machine::{Machine, View};
use crate::metrics::{self, as_f64};
use crate::network::Connector;
use crate::observer::{SnapshotInfo, SnapshotSink};
use crate::types::TypeConfig;

/// What is told of a node while it runs.
pub(super) struct Watched {
    pub(super) node: NodeId,
    pub(super) view: Arc<View>,
    pub(super) failure: Arc<watch::Sender<Option<Failure>>>,
    pub(super) leadership: Arc<watch::Sender<Leadership>>,
    pub(super) connector: Connector,
    /// Nobody has found a leader lately.
    pub(super) leaderless: Arc<AtomicBool>,
}

/// Shows what the consensus library says of itself, until it stops; says when it stopped by itself.
pub(super) async fn watch_metrics(
    mut source: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    watched: Watched,
) {
    let Watched { node, view, failure, leadership, connector, leaderless } = watched;
    let (mut leader, mut membership) = (None, None);
    loop {
        {
            let now = source.borrow_and_update();
            show(&now, &view);
            if membership.as_ref() != Some(&now.membership_config) {
                connector.note_addresses(members_of(&now).map(|member| (member.node.get(), member.address)));
                membership = Some(now.membership_config.clone());
            }
            leadership.send_if_modified(|known| {
                let new = Leadership::of(node, &now);
                let changed = *known != new;
                if changed && new.leader.is_some() {
                    leaderless.store(false, Ordering::Relaxed);
                }
                *known = new;
                changed
            });
            if now.current_leader.is_some() && now.current_leader != leader {
                leader = now.current_leader;
                ::metrics::counter!(metrics::LEADER_CHANGES).increment(1);
                tracing::info!(leader, term = now.current_term, "metadata log has a leader");
            }
            match &now.running_state {
                Ok(()) | Err(Fatal::Stopped) => {}
                Err(fatal) => report(&failure, Failure::Raft { problem: fatal.to_string() }),
            }
        }
        if source.changed().await.is_err() {
            break;
        }
    }
    // Who is told to stop says so before; a panic says nothing.
    if source.borrow_and_update().running_state.is_ok() {
        report(&failure, Failure::Raft { problem: "it ended by itself".to_owned() });
    }
}

fn show(now: &RaftMetrics<TypeConfig>, view: &View) {
    let applied = now.last_applied.map_or(0, |id| id.index());
    let lag = now.last_log_index.unwrap_or(0).saturating_sub(applied);
    let age = applied.saturating_sub(view.snapshot_index.load(Ordering::Relaxed));
    ::metrics::gauge!(metrics::IS_LEADER).set(if now.state.is_leader() { 1.0 } else { 0.0 });
    ::metrics::gauge!(metrics::TERM).set(as_f64(now.current_term));
    ::metrics::gauge!(metrics::APPLY_LAG).set(as_f64(lag));
    ::metrics::gauge!(metrics::SNAPSHOT_AGE).set(as_f64(age));
}

/// Takes a snapshot whenever enough bytes were applied.
pub(super) async fn take_due_snapshots(raft: Raft<TypeConfig, Machine>, view: Arc<View>) {
    loop {
        view.snapshot_due.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Hands each snapshot to the sink; while the sink works, only the newest one waits.
pub(super) async fn upload_snapshots(
    mut taken: watch::Receiver<Option<(SnapshotInfo, Bytes)>>,
    view: Arc<View>,
    sink: Arc<dyn SnapshotSink>,
) {
    while taken.changed().await.is_ok() {
        let mut newest = None;
        // Taken out, so that the bytes do not stay in memory; this is no news to anybody.
        view.taken.send_if_modified(|slot| {
            newest = slot.take();
            false
        });
        if let Some((info, bytes)) = newest {
            sink.put(info, bytes).await;
        }
    }
}
