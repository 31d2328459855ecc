//! The task that carries batches from the accumulator to the server, and answers back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::Env;

use super::Shared;
use super::accumulator::Take;
use super::outbox::{Outbox, Overdue};
use super::session::{Answer, Opened, Opening, Session};
use crate::error::Rejection;
use crate::retry::Backoff;

type OpeningFuture = Pin<Box<dyn Future<Output = Result<(Session, Opened), Rejection>> + Send>>;

/// The connection's state.
enum Link {
    /// None; the next may be tried at this time.
    Down { retry_at: Duration },
    /// On the way.
    Opening(OpeningFuture),
    /// Open.
    Up(Session),
}

/// What happened on the link.
enum Event {
    Opened(Result<(Session, Opened), Rejection>),
    Answer(Answer),
}

impl Link {
    /// The next event; never while the link is down. Cancel-safe.
    async fn event(&mut self) -> Event {
        match self {
            Self::Down { .. } => std::future::pending().await,
            Self::Opening(opening) => Event::Opened(opening.await),
            Self::Up(session) => Event::Answer(session.answer().await),
        }
    }
}

/// The sender of a producer.
pub(super) struct Sender {
    shared: Arc<Shared>,
    opening: Opening,
    outbox: Outbox,
    link: Link,
    backoff: Backoff,
}

impl Drop for Sender {
    /// However it ends, nobody waits for it any longer.
    fn drop(&mut self) {
        self.shared.accumulator.lock().abandon();
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, opening: Opening, outbox: Outbox) -> Self {
        Self {
            shared,
            opening,
            outbox,
            link: Link::Down { retry_at: Duration::ZERO },
            backoff: Backoff::default(),
        }
    }

    /// Starts with a session that is open already.
    pub(super) fn with_session(mut self, session: Session, opened: Opened) -> Self {
        self.up(session, opened);
        self
    }

    fn env(&self) -> &Env {
        &self.shared.env
    }

    /// Runs until the producer is closed and all that it took is decided.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.env().clock.now();
            let wake_at = self.work(now);
            if self.is_done() {
                return;
            }
            let (shared, link) = (&self.shared, &mut self.link);
            let event = tokio::select! {
                event = link.event() => Some(event),
                () = shared.work.notified() => None,
                () = shared.env.clock.sleep_until(wake_at) => None,
            };
            match event {
                Some(Event::Opened(Ok((session, opened)))) => self.up(session, opened),
                Some(Event::Opened(Err(rejection))) => self.not_opened(&rejection),
                Some(Event::Answer(answer)) => self.answered(answer),
                None => {}
            }
        }
    }

    /// Does all that can be done now; returns when there is more to do if nothing happens.
    fn work(&mut self, now: Duration) -> Duration {
        if self.outbox.expire(now) == Overdue::Answer {
            self.lost(&Rejection::connection_lost("no answer within the delivery timeout"));
        }
        let take = self.take_work(now);
        self.send(now);
        if self.outbox.is_session_over() {
            self.lost(&Rejection::connection_lost("the session is over"));
        }
        if matches!(self.link, Link::Down { retry_at } if retry_at <= now) && !self.outbox.is_empty() {
            let opening = Opening { identity: self.outbox.identity(), ..self.opening.clone() };
            self.link = Link::Opening(Box::pin(opening.open()));
        }
        let retry_at = match self.link {
            Link::Down { retry_at } if !self.outbox.is_empty() => Some(retry_at),
            _ => None,
        };
        let due_at = self.shared.accumulator.lock().due_at(take);
        let times = [self.outbox.wake_at(now), retry_at, due_at];
        times.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Moves batches from the accumulator into the outbox. Returns what it goes by next.
    fn take_work(&mut self, now: Duration) -> Take {
        let take = self.what_to_take();
        let batches = self.shared.accumulator.lock().take(take, now);
        batches.into_iter().for_each(|batch| self.outbox.push(batch));
        self.what_to_take()
    }

    fn what_to_take(&self) -> Take {
        let up = matches!(self.link, Link::Up(_));
        if !up || self.outbox.has_backlog() {
            // A first batch brings a lost session back.
            let nothing_waits = matches!(self.link, Link::Down { .. }) && self.outbox.is_empty();
            return if nothing_waits { Take::All } else { Take::Full };
        }
        if self.outbox.is_quiet() { Take::All } else { Take::Lingered }
    }

    fn send(&mut self, now: Duration) {
        let Link::Up(session) = &self.link else { return };
        while let Some(outgoing) = self.outbox.next(now) {
            session.send(outgoing);
        }
    }

    fn up(&mut self, session: Session, opened: Opened) {
        let mut accumulator = self.shared.accumulator.lock();
        accumulator.grow(opened.partitions);
        accumulator.set_batch_bytes_max(opened.max_batch_bytes as usize);
        drop(accumulator);
        self.outbox.opened(opened.identity, opened.credit_bytes);
        self.link = Link::Up(session);
    }

    fn not_opened(&mut self, rejection: &Rejection) {
        self.outbox.not_opened(rejection);
        tracing::debug!(topic = self.opening.topic.name(), %rejection, "append session not opened");
        self.down();
    }

    fn answered(&mut self, answer: Answer) {
        let known = match answer {
            Answer::Ack(sequence, ack) => {
                self.backoff.reset();
                self.outbox.acked(sequence, ack)
            }
            Answer::Nack(sequence, rejection) => {
                self.pause_after(&rejection);
                self.outbox.nacked(sequence, rejection)
            }
            Answer::GoAway => {
                self.outbox.go_away();
                Ok(())
            }
            Answer::Lost(rejection) => {
                self.lost(&rejection);
                Ok(())
            }
        };
        if known.is_err() {
            self.lost(&Rejection::connection_lost("an answer to a batch that was not sent"));
        }
    }

    /// What may work later is tried later. Refusals that come together count as one.
    fn pause_after(&mut self, rejection: &Rejection) {
        let now = self.env().clock.now();
        if rejection.is_retryable() && !self.outbox.is_paused(now) {
            let wait = self.backoff.next(&*self.shared.env.rng);
            self.outbox.pause(now.saturating_add(wait));
        }
    }

    /// The session is over, or gone.
    fn lost(&mut self, rejection: &Rejection) {
        tracing::debug!(topic = self.opening.topic.name(), %rejection, "append session ended");
        self.outbox.session_lost(rejection);
        self.down();
    }

    fn down(&mut self) {
        let wait = self.backoff.next(&*self.shared.env.rng);
        self.link = Link::Down { retry_at: self.env().clock.now().saturating_add(wait) };
    }

    fn is_done(&self) -> bool {
        let accumulator = self.shared.accumulator.lock();
        accumulator.is_shut() && accumulator.is_empty() && self.outbox.is_empty()
    }
}
