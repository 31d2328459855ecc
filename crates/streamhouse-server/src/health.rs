//! Is the process alive, has it started, may it be sent work?
//!
//! Liveness depends on nothing but this process: a lost leader or a slow store never restarts a node. Readiness is
//! sticky: once true it is false again only while the node drains, or alone cannot reach the object store, since taking
//! every endpoint away at once helps nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use streamhouse_broker::StoreAccess;
use streamhouse_env::Clock;
use tokio::sync::watch;

/// A loop that has not beaten for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The health of one node. Shared by everything that has a say in it.
#[derive(Debug)]
pub struct Health {
    clock: Arc<dyn Clock>,
    started: AtomicBool,
    ready: watch::Sender<bool>,
    /// What it waits for before it is ready.
    waits: Mutex<Option<String>>,
    draining: AtomicBool,
    /// It can store nothing, others can.
    cut_off: AtomicBool,
    /// Why the node serves worse than it should, by the part that says so.
    degraded: Mutex<Vec<(&'static str, String)>>,
    hearts: Mutex<Vec<Heart>>,
}

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// More about it, may be empty.
    pub detail: String,
}

impl Health {
    /// A node that has not started.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            started: AtomicBool::new(false),
            ready: watch::Sender::new(false),
            waits: Mutex::default(),
            draining: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            degraded: Mutex::default(),
            hearts: Mutex::default(),
        })
    }

    /// Watches a loop from now on: it must beat at least every 30 seconds.
    #[must_use]
    pub fn watch(&self, name: &'static str) -> Heart {
        let heart = Heart { name, clock: Arc::clone(&self.clock), last_ms: Arc::new(AtomicU64::new(0)) };
        heart.beat();
        self.hearts.lock().push(heart.clone());
        heart
    }

    /// Local state is recovered and the listeners are bound.
    pub fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// The node may be sent work.
    pub fn ready(&self) {
        self.waits(None);
        self.ready.send_replace(true);
    }

    /// What the node waits for before it is ready; `None` for nothing in particular.
    pub fn waits(&self, why: Option<String>) {
        *self.waits.lock() = why;
    }

    /// Whether [`ready`](Self::ready) was called, as it changes: requests before that come too early.
    #[must_use]
    pub fn opened(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The node stops: no new work.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The node can store nothing while others can, so that work is better sent there; or (`Tried`) it can again.
    pub fn store_access(&self, access: StoreAccess) {
        self.cut_off.store(access == StoreAccess::CutOff, Ordering::Release);
    }

    /// A part serves worse than it should, or (`None`) as it should again. Changes no probe.
    pub fn degrade(&self, part: &'static str, why: Option<String>) {
        let mut degraded = self.degraded.lock();
        degraded.retain(|(known, _)| *known != part);
        degraded.extend(why.map(|why| (part, why)));
    }

    /// Whether the node has started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Whether the node may be sent work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let away = self.draining.load(Ordering::Acquire) || self.cut_off.load(Ordering::Acquire);
        *self.ready.borrow() && !away
    }

    /// Whether every watched loop is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.hearts().iter().all(|check| check.ok)
    }

    /// The watched loops.
    #[must_use]
    pub fn hearts(&self) -> Vec<Check> {
        let check = |heart: &Heart| {
            let silent = heart.silent();
            Check {
                name: heart.name,
                ok: silent < STUCK_AFTER,
                detail: format!("beat {}s ago", silent.as_secs()),
            }
        };
        self.hearts.lock().iter().map(check).collect()
    }

    /// What readiness is made of, and what is degraded.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let plain = |name, ok| Check { name, ok, detail: String::new() };
        let mut checks = vec![
            plain("started", self.is_started()),
            Check {
                name: "metadata recovered",
                ok: *self.ready.borrow(),
                detail: self.waits.lock().clone().unwrap_or_default(),
            },
            plain("not draining", !self.draining.load(Ordering::Acquire)),
            plain("not cut off from the object store", !self.cut_off.load(Ordering::Acquire)),
        ];
        checks.extend(self.degraded.lock().iter().map(|(part, why)| Check {
            name: part,
            ok: true,
            detail: format!("degraded: {why}"),
        }));
        checks
    }

    /// `starting`, `ready`, `cut-off` or `draining`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.draining.load(Ordering::Acquire) {
            "draining"
        } else if self.is_ready() {
            "ready"
        } else if self.cut_off.load(Ordering::Acquire) {
            "cut-off"
        } else {
            "starting"
        }
    }

    /// Seconds since each watched loop last beat, for the metrics.
    pub(crate) fn silences(&self) -> Vec<(&'static str, f64)> {
        self.hearts.lock().iter().map(|heart| (heart.name, heart.silent().as_secs_f64())).collect()
    }
}

/// Shows that a loop is alive.
#[derive(Debug, Clone)]
pub struct Heart {
    name: &'static str,
    clock: Arc<dyn Clock>,
    last_ms: Arc<AtomicU64>,
}

impl Heart {
    /// The loop has come round.
    pub fn beat(&self) {
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Release);
    }

    fn silent(&self) -> Duration {
        self.clock.now().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_env::SystemClock;
    use streamhouse_types::Timestamp;

    use super::*;

    /// Stands still until it is moved.
    #[derive(Debug, Default)]
    struct StillClock(AtomicU64);

    #[async_trait::async_trait]
    impl Clock for StillClock {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> Timestamp {
            Timestamp::NONE
        }

        async fn sleep_until(&self, _: Duration) {
            std::future::pending().await
        }
    }

    #[test]
    fn a_loop_that_is_stuck_for_thirty_seconds_ends_liveness() {
        let clock = Arc::new(StillClock::default());
        let health = Health::new(clock.clone());
        let heart = health.watch("flush");
        clock.0.store(29, Ordering::Relaxed);
        assert!(health.is_alive());
        clock.0.store(31, Ordering::Relaxed);
        assert!(!health.is_alive());
        heart.beat();
        assert!(health.is_alive());
    }

    #[test]
    fn readiness_is_sticky_until_the_node_drains_or_alone_cannot_write() {
        let health = Health::new(Arc::new(SystemClock));
        assert!(!health.is_ready());
        health.ready();
        health.degrade("store", Some("slow".into()));
        assert!(health.is_ready());
        assert!(health.checks().iter().any(|check| check.detail == "degraded: slow"));
        health.store_access(StoreAccess::CutOff);
        assert!(!health.is_ready());
        assert_eq!(health.state(), "cut-off");
        health.store_access(StoreAccess::Tried);
        assert!(health.is_ready());
        health.drain();
        assert!(!health.is_ready());
        assert_eq!(health.state(), "draining");
    }
}
