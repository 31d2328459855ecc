//! A single call with its retries and its deadline.

use std::future::Future;
use std::time::Duration;

use streamhouse_env::Env;
use tonic::{Response, Status};

use crate::error::{CallError, Rejection};
use crate::retry::Backoff;

/// Whether a call may be made again when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, or carries a request id: twice is once.
    Harmless,
    /// Only when the first try certainly did nothing.
    OnlyIfNothingHappened,
}

/// Makes calls until they work, are refused, or the deadline comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    env: &'a Env,
    timeout: Duration,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(env: &'a Env, timeout: Duration) -> Self {
        Self { env, timeout }
    }

    /// This caller with `more` time, for calls that wait at the server.
    pub(crate) fn with_more_time(self, more: Duration) -> Self {
        Self { timeout: self.timeout.saturating_add(more), ..self }
    }

    /// Calls `attempt` until it works. Cancelling leaves the outcome of a write unknown.
    pub(crate) async fn call<T, F, Fut>(self, repeat: Repeat, attempt: F) -> Result<T, CallError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self.env.clock.now().saturating_add(self.timeout);
        let mut backoff = Backoff::default();
        let mut last: Option<Rejection> = None;
        let mut uncertain = false;
        loop {
            let answer = tokio::select! {
                answer = attempt() => answer,
                () = self.env.clock.sleep_until(deadline) => {
                    return Err(CallError::TimedOut { after: self.timeout, last, may_have_happened: true });
                }
            };
            let rejection = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => Rejection::from_status(&status),
            };
            uncertain |= rejection.may_have_happened();
            let again =
                rejection.is_retryable() && (repeat == Repeat::Harmless || !rejection.may_have_happened());
            let wait_until = self.env.clock.now().saturating_add(backoff.next(&*self.env.rng));
            if !again {
                return Err(CallError::Rejected(rejection));
            }
            if wait_until >= deadline {
                let last = Some(rejection);
                return Err(CallError::TimedOut { after: self.timeout, last, may_have_happened: uncertain });
            }
            last = Some(rejection);
            self.env.clock.sleep_until(wait_until).await;
        }
    }
}
