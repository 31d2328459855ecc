//! What is looked after while a node runs.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::Broker;
use streamhouse_cluster::{Heart, LeaseSettings};
use streamhouse_env::Clock;
use streamhouse_grpc::Seat;
use streamhouse_raft::RaftNode;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metadata_log::RaftLog;
use crate::telemetry::Telemetry;

/// How often recorded samples are moved into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often cluster time goes on by itself while nothing is written.
const IDLE_TICK: Duration = Duration::from_secs(60);

/// What is looked after while the node runs.
pub(super) struct Care {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: Telemetry,
    pub(super) broker: Broker,
    pub(super) health: Arc<Health>,
    pub(super) seat: Seat,
    pub(super) lease: LeaseSettings,
}

impl Care {
    /// Shows the leader that this node lives, keeps metrics and cluster time going, and watches the loops that must not
    /// stick, until `end`.
    pub(super) fn start(self, raft: Option<RaftNode>, end: &CancellationToken) {
        let care = Arc::new(self);
        let upkeep = Arc::clone(&care);
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { upkeep.keep_up().await }));
        let (Seat::Member(cluster), Some(raft)) = (&care.seat, raft) else { return };
        let heart = Heart::new(cluster.clone(), care.broker.clone(), care.lease);
        let log = RaftLog::new(raft, Arc::clone(&care.clock), cluster.agreed_time());
        let (watch, flush) = (Arc::clone(&care), care);
        tokio::spawn(end.clone().run_until_cancelled_owned(heart.run()));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { watch.watch_raft(&log).await }));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { flush.watch_flush().await }));
    }

    async fn keep_up(&self) {
        let heart = self.health.watch("upkeep");
        loop {
            self.clock.sleep(UPKEEP).await;
            heart.beat();
            self.telemetry.upkeep();
            if let Seat::Reader(log) = &self.seat {
                self.health.degrade("metadata log", log.trouble());
            }
        }
    }

    async fn watch_raft(&self, log: &RaftLog) {
        let heart = self.health.watch("metadata log");
        let mut ticked = self.clock.now();
        loop {
            let no_leader = (!log.has_leader().await).then(|| "no leader is known".to_owned());
            self.health.degrade("metadata log", no_leader);
            heart.beat();
            if self.clock.now().saturating_sub(ticked) >= IDLE_TICK {
                ticked = self.clock.now();
                log.catch_up_time().await;
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
            let failing = self.broker.store_writes().failing;
            let failing = failing.map(|span| format!("writes have failed for {} s", span.as_secs()));
            self.health.degrade("object store", failing);
            self.health.store_access(self.broker.store_access());
            self.clock.sleep(UPKEEP).await;
        }
    }
}
