//! What the consensus library runs on: tokio, with randomness that is handed in.

use std::sync::Arc;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use streamhouse_env::{Rng, SystemRng};

type Tokio = openraft::impls::TokioRuntime;

tokio::task_local! {
    static RNG: Arc<dyn Rng>;
}

/// Tokio, but election timeouts are drawn from the node's own [`Rng`].
#[derive(Debug)]
pub(crate) struct Runtime(Tokio);

impl Runtime {
    /// Runs `work`; in it, and in the tasks that it spawns and they spawn, the library draws from `rng`.
    pub(crate) async fn drawing<T>(rng: Arc<dyn Rng>, work: impl Future<Output = T>) -> T {
        RNG.scope(rng, work).await
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match RNG.try_with(Arc::clone) {
            Ok(rng) => Tokio::spawn(RNG.scope(rng, future)),
            Err(_) => Tokio::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }

    fn thread_rng() -> StdRng {
        let seed = RNG.try_with(|rng| rng.next_u64());
        debug_assert!(seed.is_ok(), "the library draws where nobody hands it randomness");
        StdRng::seed_from_u64(seed.unwrap_or_else(|_| SystemRng.next_u64()))
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;
    use streamhouse_env::SeededRng;

    use super::*;

    #[tokio::test]
    async fn what_the_library_draws_follows_the_seed_of_the_node() {
        let drawn = async |seed| {
            let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(seed));
            Runtime::drawing(rng, async {
                [Runtime::thread_rng().next_u64(), Runtime::thread_rng().next_u64()]
            })
            .await
        };
        let first = drawn(1).await;
        assert_eq!(first, drawn(1).await);
        assert_ne!(first, drawn(2).await);
        assert_ne!(first[0], first[1]);
    }

    #[tokio::test]
    async fn spawned_tasks_draw_from_the_same_sequence() {
        let rng: Arc<dyn Rng> = Arc::new(SeededRng::new(1));
        let drawn = Runtime::drawing(rng, async {
            let inner = async { Runtime::spawn(async { Runtime::thread_rng().next_u64() }).await };
            Runtime::spawn(inner).await.expect("no panic").expect("no panic")
        });
        let again: Arc<dyn Rng> = Arc::new(SeededRng::new(1));
        let here = Runtime::drawing(again, async { Runtime::thread_rng().next_u64() });
        assert_eq!(drawn.await, here.await);
    }
}
