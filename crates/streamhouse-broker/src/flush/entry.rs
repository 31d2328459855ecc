//! A batch or unit on its way, and the promise that whoever waits for it gets a true answer.

use std::time::Duration;

use streamhouse_types::batch::RecordBatch;
use streamhouse_types::{Offset, PartitionId, ProducerId};
use tokio::sync::oneshot;

use crate::error::{AppendError, Obstacle};
use crate::{Appended, BytePermit, Session};

/// Where an answer goes.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To someone who sent one batch.
    Batch(oneshot::Sender<Result<Appended, AppendError>>),
    /// To someone who sent a unit.
    Unit(oneshot::Sender<Result<Vec<Appended>, AppendError>>),
}

impl Reply {
    fn send(self, answer: Result<Vec<Appended>, AppendError>) {
        // Whoever no longer waits has dropped its end.
        match self {
            Self::Batch(port) => {
                let lost = AppendError::CommitUnknown { cause: "the commit named no offset" };
                drop(port.send(answer.and_then(|appended| appended.first().copied().ok_or(lost))));
            }
            Self::Unit(port) => drop(port.send(answer)),
        }
    }
}

/// Who waits for a batch or unit, with its share of the in-flight budget.
///
/// However it goes away, it answers first: when it is dropped without an answer (a part of the node failed), with
/// *did not happen* before it was proposed, and with *unknown* after.
#[derive(Debug)]
pub(crate) struct Waiter {
    reply: Option<Reply>,
    session: Session,
    number: u64,
    partitions: Vec<PartitionId>,
    bytes: u64,
    admitted: Duration,
    /// It did not reach the buffer yet.
    on_the_way: bool,
    proposed: bool,
    _permit: BytePermit,
}

impl Waiter {
    /// The share of the budget is given back when the answer has left.
    pub(crate) fn new(
        session: &Session,
        permit: BytePermit,
        reply: Reply,
        load: &Load,
        now: Duration,
    ) -> Self {
        let bytes = load.bytes();
        Self {
            reply: Some(reply),
            session: session.clone(),
            number: session.hand_over(bytes),
            partitions: load.batches.iter().map(|(partition, _)| *partition).collect(),
            bytes,
            admitted: now,
            on_the_way: true,
            proposed: false,
            _permit: permit,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it was handed over.
    pub(crate) fn admitted(&self) -> Duration {
        self.admitted
    }

    /// It has reached the buffer.
    pub(crate) fn mark_arrived(&mut self) {
        if std::mem::take(&mut self.on_the_way) {
            self.session.arrived();
        }
    }

    /// From now on the commit that carries it may be in the log.
    pub(crate) fn mark_proposed(&mut self) {
        self.proposed = true;
    }

    /// Whether a batch before it failed in one of its partitions, so that it must not overtake.
    pub(crate) fn must_fail(&self) -> bool {
        self.partitions.iter().any(|partition| self.session.fails(*partition, self.number))
    }

    /// It was judged.
    pub(crate) fn judged(mut self, verdict: Result<Vec<Appended>, AppendError>) {
        self.answer(verdict);
    }

    /// It did not happen, and with it fails what the session sent to its partitions behind it.
    pub(crate) fn not_stored(mut self, obstacle: Obstacle) {
        self.fail(obstacle);
    }

    /// It may have happened.
    pub(crate) fn unknown(mut self, cause: &'static str) {
        self.answer(Err(AppendError::CommitUnknown { cause }));
    }

    fn fail(&mut self, obstacle: Obstacle) {
        for partition in &self.partitions {
            self.session.fail(*partition);
        }
        self.answer(Err(AppendError::NotStored { obstacle }));
    }

    fn answer(&mut self, answer: Result<Vec<Appended>, AppendError>) {
        if let Some(reply) = self.reply.take() {
            self.mark_arrived();
            self.session.answered(self.bytes);
            reply.send(answer);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.reply.is_none() {
            return;
        }
        if self.proposed {
            let cause = "a part of the node failed before the commit was answered";
            self.answer(Err(AppendError::CommitUnknown { cause }));
        } else {
            self.fail(Obstacle::Restarted);
        }
    }
}

/// What is to be appended wholly or not at all.
#[derive(Debug)]
pub(crate) struct Load {
    /// In order.
    pub(crate) batches: Vec<(PartitionId, RecordBatch)>,
    /// High watermarks that must hold.
    pub(crate) expected: Vec<(PartitionId, Offset)>,
}

impl Load {
    pub(crate) fn bytes(&self) -> u64 {
        self.batches.iter().map(|(_, batch)| batch.bytes().len() as u64).sum()
    }
}

/// A batch or unit that waits in the open buffer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) load: Load,
    pub(crate) waiter: Waiter,
}

/// Whose batches must not overtake each other in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sender {
    Producer(ProducerId),
    Session(u64),
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use streamhouse_types::{PartitionIndex, TopicId};

    use super::*;
    use crate::ByteBudget;

    fn partition() -> PartitionId {
        PartitionId::new(TopicId::new(1), PartitionIndex::new(0))
    }

    async fn waiter(session: &Session) -> (Waiter, oneshot::Receiver<Result<Appended, AppendError>>) {
        let (port, answer) = oneshot::channel();
        let load = Load { batches: Vec::new(), expected: Vec::new() };
        let permit = ByteBudget::new(10).acquire(1).await;
        let mut waiter = Waiter::new(session, permit, Reply::Batch(port), &load, Duration::ZERO);
        waiter.partitions.push(partition());
        (waiter, answer)
    }

    #[tokio::test]
    async fn a_waiter_lost_before_its_proposal_did_not_happen_and_takes_those_behind_it_along() {
        let session = Session::new(1, 100);
        let (first, answer) = waiter(&session).await;
        let (second, _answer) = waiter(&session).await;
        drop(first);
        let error = answer.await.expect("answered").expect_err("failed");
        assert!(!error.may_have_happened(), "{error}");
        assert!(second.must_fail());
        assert!(!waiter(&session).await.0.must_fail());
    }

    #[tokio::test]
    async fn a_waiter_lost_after_its_proposal_may_have_happened() {
        let session = Session::new(1, 100);
        let (mut lost, answer) = waiter(&session).await;
        lost.mark_proposed();
        drop(lost);
        let error = answer.now_or_never().expect("at once").expect("answered").expect_err("failed");
        assert!(error.may_have_happened(), "{error}");
        assert_eq!(session.outstanding(), 0);
    }
}
