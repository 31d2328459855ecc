//! A single call with its retries and its deadline.

use std::future::Future;
use std::time::Duration;

use tonic::{Response, Status};

use crate::connect::StreamHouse;
use crate::error::CallError;
use crate::rejection::Rejection;
use crate::ways::{Tries, Way};

/// How long a first try may take at most where another node may do better, as when the first can no longer agree with the
/// others: longer than a node without a leader takes to say that nothing happened. Each further try may take twice as
/// long as the one before.
const FIRST_TRY: Duration = Duration::from_secs(6);

/// With less time left no further try is made: a node takes half of it to say that it knows no leader.
const WORTH_A_TRY: Duration = Duration::from_secs(1);

/// Whether a call may be made again when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads: twice is once, and whatever comes of it, nothing has been changed.
    ChangesNothing,
    /// It carries a request id or the like: twice is once.
    Harmless,
    /// Only when the first try certainly did nothing.
    OnlyIfNothingHappened,
}

impl Repeat {
    /// What a refusal means for such a call.
    fn means(self, rejection: Rejection) -> Rejection {
        if self == Self::ChangesNothing { rejection.of_a_read() } else { rejection }
    }
}

/// Makes calls until they work, are refused, or the deadline comes. Each try goes to the node that is most likely to
/// answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    house: &'a StreamHouse,
    timeout: Duration,
    /// How long the server may wait in addition.
    waits: Duration,
    /// Whether a node that gives no answer for a while is left for another one.
    brisk: bool,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(house: &'a StreamHouse, timeout: Duration) -> Self {
        Self { house, timeout, waits: Duration::ZERO, brisk: false }
    }

    /// This caller for what takes a healthy node no time, as it touches nothing but the metadata.
    pub(crate) fn briskly(self) -> Self {
        Self { brisk: true, ..self }
    }

    /// This caller with `more` time, for calls that wait at the server.
    pub(crate) fn with_more_time(self, more: Duration) -> Self {
        Self { waits: self.waits.saturating_add(more), ..self }
    }

    /// Makes `attempt`s with `request` until one works. Cancelling leaves the outcome of a write unknown.
    pub(crate) async fn call<R, T, F, Fut>(
        self,
        repeat: Repeat,
        request: R,
        attempt: F,
    ) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = |way| {
            let answer = attempt(way, request.clone());
            async {
                let answer = answer.await.map_err(|status| Rejection::from_status(&status))?;
                Ok(answer.into_inner())
            }
        };
        self.attempt(repeat, || self.house.way(), attempt).await
    }

    /// Makes `attempt`s at the nodes that `choose` names until one works.
    pub(crate) async fn attempt<T, F, Fut>(
        self,
        repeat: Repeat,
        choose: impl Fn() -> Way,
        attempt: F,
    ) -> Result<T, CallError>
    where
        F: Fn(Way) -> Fut,
        Fut: Future<Output = Result<T, Rejection>>,
    {
        let env = &self.house.0.env;
        let after = self.timeout.saturating_add(self.waits);
        let deadline = env.clock.now().saturating_add(after);
        let mut tries = Tries::default();
        let mut last: Option<Rejection> = None;
        let mut uncertain = false;
        let mut patience = FIRST_TRY;
        loop {
            let way = choose();
            let mut give_up = deadline;
            if self.brisk && repeat != Repeat::OnlyIfNothingHappened && !self.house.is_alone() {
                give_up = give_up.min(env.clock.now().saturating_add(patience));
            }
            let answer = tokio::select! {
                answer = attempt(way.clone()) => answer,
                () = env.clock.sleep_until(give_up) => {
                    if give_up == deadline {
                        let silent = repeat.means(Rejection::silent());
                        let may_have_happened = uncertain || silent.may_have_happened();
                        let last = Some(Rejection::more_telling(last, silent));
                        return Err(CallError::TimedOut { after, last, may_have_happened });
                    }
                    patience = patience.saturating_mul(2);
                    Err(Rejection::silent())
                }
            };
            let rejection = match answer {
                Ok(answer) => {
                    self.house.works(&way);
                    return Ok(answer);
                }
                Err(rejection) => repeat.means(rejection),
            };
            self.house.failed(&way, &rejection);
            uncertain |= rejection.may_have_happened();
            let again = rejection.is_retryable()
                && (repeat != Repeat::OnlyIfNothingHappened || !rejection.may_have_happened());
            if !again {
                return Err(CallError::Rejected(rejection));
            }
            let wait_until = env.clock.now().saturating_add(self.house.pause(&mut tries, &rejection));
            last = Some(Rejection::more_telling(last, rejection));
            // Of a try that is cut short nobody would know what came of it.
            if wait_until.saturating_add(WORTH_A_TRY.min(after / 4)) >= deadline {
                return Err(CallError::TimedOut { after, last, may_have_happened: uncertain });
            }
            env.clock.sleep_until(wait_until).await;
        }
    }
}
