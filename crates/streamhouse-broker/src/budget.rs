//! The node's budget of bytes that are on their way to the store. Waiting for a share of it is the back-pressure.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of batches that this node may hold unacknowledged. Clones share the budget.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    total: u32,
}

/// A share of the budget; dropping it gives the bytes back.
#[derive(Debug)]
pub struct BytePermit {
    permit: Option<OwnedSemaphorePermit>,
    bytes: u32,
}

/// Bytes that readers may be fetching from the store at once.
#[derive(Debug)]
pub(crate) struct ReadBudgets {
    /// All readers, with what is read ahead.
    pub(crate) cold: ByteBudget,
    /// Readers of the newest records, besides: they wait for nobody further back.
    pub(crate) fresh: ByteBudget,
}

impl ReadBudgets {
    /// Least of each, whatever the cache is.
    const LEAST: u64 = 16 << 20;

    /// Budgets beside a block cache of `bytes`: what was fetched should be there still when it is sent.
    pub(crate) fn for_cache_of(bytes: u64) -> Self {
        Self {
            cold: ByteBudget::new(bytes.max(Self::LEAST)),
            fresh: ByteBudget::new((bytes / 4).max(Self::LEAST)),
        }
    }
}

impl ByteBudget {
    /// A budget of `bytes`, at least 1 and at most `u32::MAX`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for `bytes` of the budget. Fair: in the order of asking. A wish for more than the whole budget waits for
    /// the whole. Cancel-safe.
    pub async fn acquire(&self, bytes: u64) -> BytePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_many_owned(bytes).await.ok();
        BytePermit { permit, bytes }
    }

    /// Takes `bytes` of the budget if they are free now and nobody waits for them.
    pub fn try_acquire(&self, bytes: u64) -> Option<BytePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        let permit = Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()?;
        Some(BytePermit { permit: Some(permit), bytes })
    }

    /// The whole budget in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        u64::from(self.total)
    }

    /// Bytes that are given out now.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        u64::from(self.total).saturating_sub(self.free.available_permits() as u64)
    }
}

impl BytePermit {
    /// How many bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// Takes `bytes` of this share as a share of their own, or all that is left of it.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes);
        self.bytes -= bytes;
        Self { permit: self.permit.as_mut().and_then(|permit| permit.split(bytes as usize)), bytes }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_wish_beyond_the_budget_waits_until_bytes_come_back() {
        let budget = ByteBudget::new(100);
        let first = budget.acquire(60).await;
        assert!(budget.acquire(60).now_or_never().is_none());
        assert_eq!(budget.in_use(), 60);
        drop(first);
        assert_eq!(budget.acquire(60).await.bytes(), 60);
    }

    #[tokio::test]
    async fn a_wish_for_more_than_there_is_gets_the_whole_budget() {
        let budget = ByteBudget::new(100);
        assert_eq!(budget.acquire(1_000).await.bytes(), 100);
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn who_does_not_wait_gets_only_what_nobody_waits_for() {
        let budget = ByteBudget::new(100);
        let held = budget.try_acquire(60).expect("free");
        assert!(budget.try_acquire(41).is_none());
        assert_eq!(budget.try_acquire(40).expect("free").bytes(), 40);
        let mut waiting = Box::pin(budget.acquire(50));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(budget.try_acquire(1).is_none());
        drop(held);
        assert_eq!(waiting.await.bytes(), 50);
    }

    #[tokio::test]
    async fn a_share_is_split_and_each_part_gives_back_its_own() {
        let budget = ByteBudget::new(100);
        let mut whole = budget.acquire(80).await;
        let part = whole.split(30);
        assert_eq!((whole.bytes(), part.bytes(), budget.in_use()), (50, 30, 80));
        drop(part);
        assert_eq!(budget.in_use(), 50);
        let rest = whole.split(1_000);
        assert_eq!((whole.bytes(), rest.bytes()), (0, 50));
        drop((whole, rest));
        assert_eq!(budget.in_use(), 0);
    }

    #[tokio::test]
    async fn who_asked_first_is_served_first_and_who_gives_up_takes_nothing() {
        let budget = ByteBudget::new(100);
        let held = budget.acquire(100).await;
        let mut large = Box::pin(budget.acquire(90));
        let mut small = Box::pin(budget.acquire(10));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none());
        let mut late = Box::pin(budget.acquire(20));
        assert!((&mut late).now_or_never().is_none());
        drop(held);
        // 90 and 10 are given out; the last one waits until the first gives up.
        assert!((&mut late).now_or_never().is_none());
        let small = small.await;
        drop(large);
        assert_eq!(late.await.bytes(), 20);
        drop(small);
        assert_eq!(budget.in_use(), 0);
    }
}
