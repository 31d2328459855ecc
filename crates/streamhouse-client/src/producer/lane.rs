//! One partition of a producer: what is ready, what is on its way, and what a refusal means for those behind it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{NodeId, Sequence};

use super::batch::{Batch, Identity};
use super::ticket::BatchAck;
use crate::error::{Rejected, SendError};
use crate::rejection::Rejection;

/// Most batches of one partition on their way: the producer table remembers as many.
const BATCHES_IN_FLIGHT_MAX: usize = 64;
/// Most bytes of one partition on their way.
const BYTES_IN_FLIGHT_MAX: u64 = 16 << 20;

/// What the server makes of a batch that it gets twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// It knows it by this producer and its sequence: a batch may always be sent again as it was.
    Recognised(Identity),
    /// It stores it twice: only what certainly did not happen may be sent again.
    Stored,
}

impl Repeats {
    pub(super) fn identity(self) -> Option<Identity> {
        match self {
            Self::Recognised(identity) => Some(identity),
            Self::Stored => None,
        }
    }
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// Whatever is ready.
    All,
    /// A new epoch is about to begin: only what has to be settled in the old one.
    Uncertain,
}

/// Where a batch goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    pub(super) node: NodeId,
    /// The partition's home now.
    pub(super) home: Option<NodeId>,
    pub(super) session_sequence: u64,
}

/// A batch on its way.
#[derive(Debug)]
struct Sent {
    session_sequence: u64,
    batch: Batch,
}

/// One partition's batches, in order.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Refused, to be sent again before those that are ready. Waits until all that are on their way are answered.
    again: VecDeque<Sent>,
    ready: VecDeque<Batch>,
    in_flight: VecDeque<Sent>,
    in_flight_bytes: u64,
    /// Where its last batch was sent, and so where all that are on their way were: it goes elsewhere only when they are
    /// answered, so that nothing overtakes.
    at: Option<NodeId>,
    /// The partition's home when that was sent.
    home_then: Option<NodeId>,
    /// Sequence of the next batch that has none yet.
    next_sequence: Sequence,
    /// A batch was refused: what follows it on the way is going to be refused too, so nothing more is sent.
    draining: bool,
    /// A sequence will never come: what has no outcome yet may only go on in a new epoch.
    broken: bool,
}

impl Lane {
    pub(super) fn push(&mut self, batch: Batch) {
        self.ready.push_back(batch);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.again.is_empty() && self.ready.is_empty() && self.in_flight.is_empty()
    }

    /// When the first of its batches fails.
    pub(super) fn first_deadline(&self) -> Option<Duration> {
        let on_the_way = self.in_flight.iter().map(|sent| &sent.batch).find(|batch| !batch.is_gone());
        let first = on_the_way.into_iter().chain(self.first_again()).chain(self.ready.front());
        first.map(Batch::deadline).min()
    }

    fn first_again(&self) -> Option<&Batch> {
        self.again.front().map(|sent| &sent.batch)
    }

    /// Where its last batch was sent.
    pub(super) fn at(&self) -> Option<NodeId> {
        self.at
    }

    /// Whether something of it is on its way to a node.
    pub(super) fn is_in_flight_to(&self, node: NodeId) -> bool {
        !self.in_flight.is_empty() && self.at == Some(node)
    }

    /// Whether what is on its way went to the partition's home.
    pub(super) fn went_home(&self) -> bool {
        self.at == self.home_then
    }

    /// Whether its next batch may go to a node.
    pub(super) fn may_go_to(&self, node: NodeId) -> bool {
        self.in_flight.is_empty() || self.at == Some(node)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether something has to be settled under the present producer id before it can be given up.
    pub(super) fn is_unsettled(&self) -> bool {
        let first = self.first_again().or(self.ready.front());
        !self.in_flight.is_empty() || first.is_some_and(Batch::is_uncertain)
    }

    /// The length of the next batch, if it may be sent now.
    pub(super) fn next_len(&self, passing: Passing) -> Option<u64> {
        if self.draining || self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        let batch = self.ready.front()?;
        let len = batch.len_bytes();
        let fits = self.in_flight.is_empty() || self.in_flight_bytes + len <= BYTES_IN_FLIGHT_MAX;
        let allowed = batch.is_uncertain() || (passing == Passing::All && !self.broken);
        (fits && allowed).then_some(len)
    }

    /// Puts the next batch on its way. Call only when [`next_len`](Self::next_len) gives one and it
    /// [`may_go_to`](Self::may_go_to) there.
    pub(super) fn send(&mut self, to: Destination, repeats: Repeats) -> Bytes {
        debug_assert!(self.may_go_to(to.node), "it would overtake what is on its way elsewhere");
        (self.at, self.home_then) = (Some(to.node), to.home);
        let mut batch = self.ready.pop_front().expect("next_len gave a batch");
        let bytes = batch.seal(repeats.identity(), &mut self.next_sequence);
        self.in_flight_bytes += batch.len_bytes();
        self.in_flight.push_back(Sent { session_sequence: to.session_sequence, batch });
        bytes
    }

    /// Takes a batch off the way; its length, and the batch.
    fn answered(&mut self, session_sequence: u64) -> Option<(u64, Batch)> {
        let at = self.in_flight.iter().position(|sent| sent.session_sequence == session_sequence)?;
        let Sent { batch, .. } = self.in_flight.remove(at)?;
        let len = batch.len_bytes();
        self.in_flight_bytes -= len;
        Some((len, batch))
    }

    /// A batch is durable. Returns its length.
    pub(super) fn acked(&mut self, session_sequence: u64, ack: BatchAck, repeats: Repeats) -> Option<u64> {
        let (len, batch) = self.answered(session_sequence)?;
        // A refusal may cross what is sent behind it. Without sequences nothing else keeps that from overtaking.
        while repeats == Repeats::Stored
            && let Some(overtaken) = self.again.pop_front_if(|sent| sent.session_sequence < session_sequence)
        {
            overtaken.batch.overtaken();
        }
        if !batch.is_gone() {
            batch.acknowledge(ack);
        }
        self.settle_drain();
        Some(len)
    }

    /// A batch was refused. Returns its length.
    pub(super) fn nacked(
        &mut self,
        session_sequence: u64,
        rejection: Rejection,
        repeats: Repeats,
    ) -> Option<u64> {
        let (len, mut batch) = self.answered(session_sequence)?;
        if batch.is_gone() {
            self.broken |= repeats != Repeats::Stored;
        } else {
            let again = match repeats {
                Repeats::Stored => {
                    rejection.is_retryable() && !rejection.may_have_happened() && !batch.is_uncertain()
                }
                Repeats::Recognised(_) => self.try_again(&batch, &rejection),
            };
            if again {
                batch.note(rejection);
                self.again.push_back(Sent { session_sequence, batch });
            } else {
                self.broken |= repeats != Repeats::Stored;
                let may_have_happened = batch.is_uncertain() || rejection.may_have_happened();
                batch.fail(SendError::Rejected(Rejected { rejection, may_have_happened }));
            }
        }
        self.draining = true;
        self.settle_drain();
        Some(len)
    }

    /// Whether a refused batch with a sequence is sent again, in this epoch or the next.
    fn try_again(&mut self, batch: &Batch, rejection: &Rejection) -> bool {
        let sequence_refused =
            matches!(rejection.code(), Some(ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer));
        if !sequence_refused {
            return rejection.is_retryable();
        }
        if self.draining && !self.broken {
            // It only follows one that is going to be sent again.
            return true;
        }
        // The server does not know what came before. If this batch certainly did not happen it can be sent under a
        // new epoch; else nobody can tell any more.
        self.broken = true;
        !batch.is_uncertain()
    }

    /// When all answers are in, what is to be sent again goes back to the front.
    fn settle_drain(&mut self) {
        if self.draining && self.in_flight.is_empty() {
            self.draining = false;
            self.requeue();
        }
    }

    fn requeue(&mut self) {
        while let Some(sent) = self.again.pop_back() {
            self.ready.push_front(sent.batch);
        }
    }

    /// The session is lost: what was on its way may have happened.
    pub(super) fn session_lost(&mut self, rejection: &Rejection, repeats: Repeats) {
        self.in_flight_bytes = 0;
        for Sent { session_sequence, mut batch } in self.in_flight.drain(..) {
            if batch.is_gone() {
                self.broken |= repeats != Repeats::Stored;
                continue;
            }
            batch.unanswered(rejection.clone());
            match repeats {
                Repeats::Recognised(_) => self.again.push_back(Sent { session_sequence, batch }),
                Repeats::Stored => {
                    let rejection = rejection.clone();
                    let error = SendError::Rejected(Rejected { rejection, may_have_happened: true });
                    batch.fail(error);
                }
            }
        }
        self.draining = false;
        self.requeue();
    }

    /// Fails everything that is not on its way.
    pub(super) fn refuse_all(&mut self, rejection: &Rejection) {
        self.requeue();
        for batch in self.ready.drain(..) {
            let may_have_happened = batch.is_uncertain();
            let error = SendError::Rejected(Rejected { rejection: rejection.clone(), may_have_happened });
            batch.fail(error);
        }
    }

    /// Fails the batches whose time is over. `link` is what is wrong with the connection.
    pub(super) fn expire(&mut self, now: Duration, after: Duration, link: Option<&Rejection>) {
        for sent in &mut self.in_flight {
            if sent.batch.deadline() <= now && !sent.batch.is_gone() {
                sent.batch.expire_in_place(after, link);
            }
        }
        let is_due = |batch: &Batch| batch.deadline() <= now;
        let mut first = || {
            let again = self.again.pop_front_if(|sent| is_due(&sent.batch)).map(|sent| sent.batch);
            again.or_else(|| self.ready.pop_front_if(|batch| is_due(batch)))
        };
        while let Some(batch) = first() {
            self.broken |= batch.is_stamped();
            let error = batch.timed_out(after, link);
            batch.fail(error);
        }
    }

    /// A new epoch or producer id: sequences begin anew, whatever happened before.
    pub(super) fn renamed(&mut self) {
        debug_assert!(!self.is_unsettled(), "nothing may be open in the old epoch");
        // The first is certainly not in the log and will never be, so nothing behind it can: its sequence is missing.
        self.ready.iter_mut().for_each(Batch::made_certain);
        self.next_sequence = Sequence::ZERO;
        self.broken = false;
    }
}
