//! Threads, for work that blocks.

use std::fmt;
use std::pin::Pin;

use tokio::sync::oneshot;

/// Work for a thread of its own.
pub type LongWork = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs what must not hold up the tasks.
pub trait Threads: fmt::Debug + Send + Sync + 'static {
    /// Runs `work` once, soon, where it may block. A panic in it stays there.
    fn run(&self, work: Box<dyn FnOnce() + Send>);

    /// Runs `work`, which blocks between its awaits and lives long, on a thread of that name.
    fn dedicate(&self, name: &'static str, work: LongWork);
}

/// The work ended without a result: it panicked, or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work on another thread ended without a result")]
pub struct NoResult;

impl dyn Threads {
    /// Runs `work` where it may block and waits for its result. Cancel-safe: the work goes on, its result is dropped.
    ///
    /// # Errors
    /// When the work panicked.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoResult> {
        let (told, result) = oneshot::channel();
        self.run(Box::new(move || drop(told.send(work()))));
        result.await.map_err(|_| NoResult)
    }

    /// Starts long work on a thread of that name.
    pub fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> LongRun {
        let (ended, end) = oneshot::channel::<()>();
        self.dedicate(
            name,
            Box::pin(async move {
                work.await;
                drop(ended);
            }),
        );
        LongRun(end)
    }
}

/// Long work that was started.
#[derive(Debug)]
pub struct LongRun(oneshot::Receiver<()>);

impl LongRun {
    /// Waits until the work has ended and what it held is dropped.
    pub async fn ended(self) {
        // Nothing is ever sent: the end of the sender is the news.
        let _ = self.0.await;
    }
}

/// The threads of the machine: tokio's pool for short work, a thread each for long work.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemThreads;

impl Threads for SystemThreads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }

    fn dedicate(&self, name: &'static str, work: LongWork) {
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(|| futures::executor::block_on(work));
        drop(thread.expect("the operating system gives one thread"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn system() -> Arc<dyn Threads> {
        Arc::new(SystemThreads)
    }

    #[tokio::test]
    async fn a_result_comes_back_and_a_panic_is_told() {
        let threads = system();
        assert_eq!(threads.blocking(|| 7).await, Ok(7));
        assert_eq!(threads.blocking(|| -> u8 { panic!("as it should") }).await, Err(NoResult));
    }

    #[tokio::test]
    async fn the_end_of_long_work_is_told_when_what_it_held_is_gone() {
        struct Held(Arc<AtomicBool>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let gone = Arc::new(AtomicBool::new(false));
        let held = Held(gone.clone());
        let run = system().start("test", async move {
            tokio::task::yield_now().await;
            drop(held);
        });
        run.ended().await;
        assert!(gone.load(Ordering::Acquire));
    }
}
