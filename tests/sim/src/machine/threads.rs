//! Threads of a simulated node: tasks, as a simulation has one thread only.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use streamhouse_env::{LongWork, Threads};
use tokio::time::Sleep;

use crate::seed::Dice;

/// How long blocking work takes, as the disk or the scheduler has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// Usually up to so many microseconds.
    pub(crate) usual_us: Arc<AtomicU64>,
    /// Now and then up to so many microseconds.
    pub(crate) stall_us: Arc<AtomicU64>,
}

impl Pace {
    fn draw(&self, dice: &Dice) -> Duration {
        let stall = self.stall_us.load(Ordering::Relaxed);
        let most = if stall > 0 && dice.one_in(100) { stall } else { self.usual_us.load(Ordering::Relaxed) };
        Duration::from_micros(dice.below(most + 1))
    }
}

/// Runs blocking work on the node's one thread, after the time that it takes.
#[derive(Debug)]
pub(crate) struct SimThreads {
    pace: Pace,
    dice: Dice,
}

impl SimThreads {
    pub(crate) fn new(pace: Pace, dice: Dice) -> Self {
        Self { pace, dice }
    }
}

impl Threads for SimThreads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let takes = self.pace.draw(&self.dice);
        tokio::spawn(async move {
            pause(takes).await;
            work();
        });
    }

    fn dedicate(&self, _name: &'static str, work: LongWork) {
        tokio::spawn(Slow { work, wait: None, pace: self.pace.clone(), dice: self.dice.clone() });
    }
}

fn pause(duration: Duration) -> Sleep {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    tokio::time::sleep(duration)
}

/// Work that gets on each time only after a while, as if the disk took that long.
struct Slow {
    work: LongWork,
    wait: Option<Pin<Box<Sleep>>>,
    pace: Pace,
    dice: Dice,
}

impl Future for Slow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let takes = this.wait.get_or_insert_with(|| Box::pin(pause(this.pace.draw(&this.dice))));
        ready!(takes.as_mut().poll(cx));
        this.wait = None;
        this.work.as_mut().poll(cx)
    }
}
