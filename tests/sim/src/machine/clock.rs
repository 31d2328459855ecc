//! A node's clock: the simulation's time, faster or slower, with a calendar that is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use streamhouse_env::Clock;
use streamhouse_types::Timestamp;
use tokio::time::Instant;

/// The calendar's time at the start of every run.
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;
const MILLION: u64 = 1_000_000;

/// How a node's clock differs from the simulation's.
#[derive(Debug, Clone)]
pub(crate) struct Skew {
    /// How fast it runs, in parts of a million.
    pub(crate) rate_ppm: u64,
    /// How far its calendar is off, in milliseconds.
    pub(crate) offset_ms: Arc<AtomicI64>,
}

impl Default for Skew {
    fn default() -> Self {
        Self { rate_ppm: MILLION, offset_ms: Arc::default() }
    }
}

/// The clock of one boot of one host.
#[derive(Debug)]
pub(crate) struct SimClock {
    /// The simulation's time when this host began, and tokio's.
    begun: (Duration, Instant),
    skew: Skew,
    /// The last answer, in nanoseconds, for who asks while the host is being torn down.
    told: AtomicU64,
}

impl SimClock {
    /// To be called on the host.
    pub(crate) fn new(skew: Skew) -> Self {
        let now = turmoil::sim_elapsed().expect("on a host");
        Self { begun: (now, Instant::now()), skew, told: AtomicU64::new(0) }
    }

    fn scaled(&self, real: Duration) -> Duration {
        let nanos = real.as_nanos() * u128::from(self.skew.rate_ppm) / u128::from(MILLION);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Duration {
        // Outside the host's runtime tokio would answer with the machine's time.
        if tokio::runtime::Handle::try_current().is_err() || !turmoil::in_simulation() {
            return Duration::from_nanos(self.told.load(Ordering::Relaxed));
        }
        let now = self.scaled(self.begun.0 + self.begun.1.elapsed());
        self.told.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        now
    }

    fn wall(&self) -> Timestamp {
        let millis = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(EPOCH_MS + millis + self.skew.offset_ms.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, deadline: Duration) {
        loop {
            let left = deadline.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            let nanos = left.as_nanos() * u128::from(MILLION) / u128::from(self.skew.rate_ppm);
            let real = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            #[expect(clippy::disallowed_methods, reason = "this is the seam")]
            tokio::time::sleep(real.min(Duration::from_secs(86_400))).await;
        }
    }
}
