//! Time.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use streamhouse_types::Timestamp;
use tokio::time::Instant;

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since an arbitrary start; never goes back.
    fn now(&self) -> Duration;

    /// The calendar's time. May jump; decides nothing but what people read and what the leader proposes as time.
    fn wall(&self) -> Timestamp;

    /// Waits until [`now`](Clock::now) has reached `deadline`. Cancel-safe.
    async fn sleep_until(&self, deadline: Duration);

    /// Waits for `duration`. Cancel-safe.
    async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().saturating_add(duration)).await;
    }
}

/// The machine's clock. It runs on tokio's time, so a test that pauses tokio's time pauses it too.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// Before the start of every clock of this process, paused ones included.
fn start() -> Instant {
    const MARGIN: Duration = Duration::from_secs(1);
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(MARGIN).unwrap_or(now)
    })
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let start = start();
        Instant::now().saturating_duration_since(start)
    }

    fn wall(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        let now = SystemTime::now();
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, deadline: Duration) {
        match start().checked_add(deadline) {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_at_its_deadline_and_not_before() {
        let clock = SystemClock;
        let deadline = clock.now() + Duration::from_millis(5);
        clock.sleep_until(deadline).await;
        assert!(clock.now() >= deadline);
        clock.sleep_until(Duration::ZERO).await;
        assert!(clock.now() >= deadline);
    }

    #[test]
    fn the_wall_clock_is_in_this_century() {
        let wall = SystemClock.wall();
        assert!(wall > Timestamp::from_millis(1_700_000_000_000), "{wall}");
    }
}
