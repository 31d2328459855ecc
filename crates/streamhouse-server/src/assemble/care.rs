//! What is looked after while a node runs.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::{Broker, Contact};
use streamhouse_cluster::{Heart, LeaseSettings};
use streamhouse_env::Clock;
use streamhouse_grpc::Seat;
use streamhouse_raft::RaftNode;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::health::Health;
use crate::metadata_log::{RaftLog, voters};
use crate::telemetry::Telemetry;

/// How often recorded samples are moved into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often cluster time goes on by itself while nothing is written.
const IDLE_TICK: Duration = Duration::from_secs(60);

/// How often a node makes sure that it hears of a majority.
const TOUCH: Duration = Duration::from_secs(1);
/// Without that for so long it sends those away who can go to others: longer than an election takes.
const ADRIFT: Duration = Duration::from_secs(3);

/// What to do while there is no majority.
const MAJORITY: &str = "see that more than half of the voters run, and that they and this node reach each other at the \
                        listeners.advertised_internal of each";

/// How long a start is quiet about a majority that it waits for, and how often it says so then.
const WAIT_QUIETLY: Duration = Duration::from_secs(3);
const WAIT_TOLD: Duration = Duration::from_secs(10);

/// Something that may last, and is told at once and every minute.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Duration>,
    told: Duration,
}

impl Trouble {
    fn is_to_be_told(&mut self, now: Duration) -> bool {
        const AGAIN: Duration = Duration::from_secs(60);
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        let due = first || now.saturating_sub(self.told) >= AGAIN;
        if due {
            self.told = now;
        }
        due
    }

    /// How long it lasted, if there was any.
    fn over(&mut self, now: Duration) -> Option<Duration> {
        self.since.take().map(|since| now.saturating_sub(since))
    }
}

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
        let mut touched = ticked;
        let mut trouble = Trouble::default();
        loop {
            let left = (touched + ADRIFT).saturating_sub(self.clock.now());
            let touch = log.is_in_touch(left.max(TOUCH)).await;
            let now = self.clock.now();
            if touch {
                touched = now;
                if let Some(lasted) = trouble.over(now) {
                    tracing::info!(?lasted, "a majority of the voters answers again");
                }
            } else if self.health.is_started() && trouble.is_to_be_told(now) {
                let voters = log.voters();
                tracing::warn!(
                    voters,
                    fix = MAJORITY,
                    "no majority of the voters answers: nothing can be written or changed"
                );
            }
            self.health.degrade(
                "metadata log",
                (!touch).then(|| format!("no majority of the voters answers; {MAJORITY}")),
            );
            let lost = now.saturating_sub(touched) >= ADRIFT;
            self.broker.set_contact(if lost { Contact::Lost } else { Contact::Kept });
            heart.beat();
            // Without a majority a tick would wait for one, and with it everything else here.
            if touch && now.saturating_sub(ticked) >= IDLE_TICK {
                ticked = self.clock.now();
                log.catch_up_time().await;
            }
            self.clock.sleep(TOUCH).await;
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

/// Waits until the node may write; says so when that takes long.
pub(super) async fn registered(
    broker: &Broker,
    clock: &dyn Clock,
    health: &Health,
    raft: Option<&RaftNode>,
) -> Result<(), StartError> {
    let Some(raft) = raft else { return Ok(()) };
    let (registered, failed) = (broker.registered(), raft.failed());
    tokio::pin!(registered, failed);
    let mut patience = WAIT_QUIETLY;
    loop {
        tokio::select! {
            registered = &mut registered => return registered.map(|_| ()).map_err(StartError::Broker),
            failure = &mut failed => return Err(StartError::Failed(failure)),
            () = clock.sleep(patience) => {}
        }
        patience = WAIT_TOLD;
        let voters = voters(raft);
        health.waits(Some(format!("waits for a majority of the voters ({voters}); {MAJORITY}")));
        tracing::warn!(
            voters,
            fix = MAJORITY,
            "the node is not ready: it waits for a majority of the voters"
        );
    }
}
