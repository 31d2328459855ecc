//! All that a producer has taken and not yet got acknowledged: decides what is sent next, and what answers mean.
//! Pure: no I/O, and time is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use streamhouse_types::PartitionIndex;

use super::batch::{Batch, Identity};
use super::lane::{Lane, Passing, Repeats};
use super::ticket::BatchAck;
use crate::error::Rejection;
use crate::producer::Delivery;

/// Most batches on their way in one session.
pub(super) const BATCHES_IN_FLIGHT_MAX: usize = 1024;

/// A batch to put on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) session_sequence: u64,
    pub(super) partition: PartitionIndex,
    pub(super) bytes: Bytes,
}

/// An answer that belongs to no batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnexpectedAnswer;

/// What turned out to be late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nothing that the server owes.
    Nothing,
    /// An answer to a batch that was sent: the server does not work on this session any more.
    Answer,
}

/// The open session.
#[derive(Debug)]
struct Session {
    repeats: Repeats,
    credit_bytes: u64,
    in_flight_bytes: u64,
    next_sequence: u64,
    /// The partitions of the batches on their way, in the order of sending; `None` when answered out of order.
    expected: VecDeque<Option<PartitionIndex>>,
    /// The server wants no more.
    going_away: bool,
}

/// What a producer still has to get stored.
#[derive(Debug)]
pub(super) struct Outbox {
    delivery: Delivery,
    delivery_timeout: Duration,
    /// By partition.
    lanes: Vec<Lane>,
    session: Option<Session>,
    identity: Option<Identity>,
    /// Partitions that may have something to send, each once.
    sendable: VecDeque<u32>,
    is_sendable: Vec<bool>,
    /// At most one deadline for each partition: when to look at it.
    deadlines: BTreeSet<(Duration, u32)>,
    has_deadline: Vec<bool>,
    /// `Uncertain` when a partition cannot go on under this producer id: all is settled, then a new one is taken.
    passing: Passing,
    /// Why there is no session.
    link_failure: Option<Rejection>,
    /// After a refusal nothing is sent before this.
    paused_until: Duration,
}

impl Outbox {
    pub(super) fn new(delivery: Delivery, delivery_timeout: Duration) -> Self {
        Self {
            delivery,
            delivery_timeout,
            lanes: Vec::new(),
            session: None,
            identity: None,
            sendable: VecDeque::new(),
            is_sendable: Vec::new(),
            deadlines: BTreeSet::new(),
            has_deadline: Vec::new(),
            passing: Passing::All,
            link_failure: None,
            paused_until: Duration::ZERO,
        }
    }

    fn lane(&mut self, partition: PartitionIndex) -> &mut Lane {
        let slot = partition.get() as usize;
        if self.lanes.len() <= slot {
            self.lanes.resize_with(slot + 1, Lane::default);
            self.is_sendable.resize(slot + 1, false);
            self.has_deadline.resize(slot + 1, false);
        }
        &mut self.lanes[slot]
    }

    /// Takes a batch to be sent.
    pub(super) fn push(&mut self, batch: Batch) {
        let partition = batch.partition();
        self.lane(partition).push(batch);
        self.watch(partition.get());
        self.offer(partition.get());
    }

    fn watch(&mut self, slot: u32) {
        let at = slot as usize;
        if let (false, Some(deadline)) = (self.has_deadline[at], self.lanes[at].first_deadline()) {
            self.has_deadline[at] = true;
            self.deadlines.insert((deadline, slot));
        }
    }

    fn offer(&mut self, slot: u32) {
        let passing = self.passing;
        let at = slot as usize;
        if !self.is_sendable[at] && self.lanes[at].next_len(passing).is_some() {
            self.is_sendable[at] = true;
            self.sendable.push_back(slot);
        }
    }

    fn offer_all(&mut self) {
        for slot in 0..u32::try_from(self.lanes.len()).expect("partitions are counted in 32 bits") {
            self.offer(slot);
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }

    /// Whether something waits to be sent.
    pub(super) fn has_backlog(&self) -> bool {
        !self.sendable.is_empty()
    }

    /// Whether no batch is on its way or about to be.
    pub(super) fn is_quiet(&self) -> bool {
        let on_the_way = self.session.as_ref().is_some_and(|session| !session.expected.is_empty());
        !on_the_way && self.sendable.is_empty()
    }

    /// The identity to open the next session with; `None`: a new one has to be asked for, or none is needed.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// A session is open.
    pub(super) fn opened(&mut self, identity: Option<Identity>, credit_bytes: u64) {
        self.identity = identity;
        self.link_failure = None;
        let repeats = match (self.delivery, identity) {
            (Delivery::ExactlyOnce, Some(identity)) => Repeats::Recognised(identity),
            _ => Repeats::Stored,
        };
        self.session = Some(Session {
            repeats,
            credit_bytes,
            in_flight_bytes: 0,
            next_sequence: 0,
            expected: VecDeque::new(),
            going_away: false,
        });
        self.offer_all();
    }

    /// The next batch to put on its way, if one may go.
    pub(super) fn next(&mut self, now: Duration) -> Option<Outgoing> {
        if self.is_paused(now) {
            return None;
        }
        let passing = self.passing;
        let session = self.session.as_mut().filter(|session| !session.going_away)?;
        if session.expected.len() >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        while let Some(slot) = self.sendable.pop_front() {
            let at = slot as usize;
            let Some(len) = self.lanes[at].next_len(passing) else {
                self.is_sendable[at] = false;
                continue;
            };
            if session.in_flight_bytes > 0 && session.in_flight_bytes + len > session.credit_bytes {
                self.sendable.push_front(slot);
                return None;
            }
            let session_sequence = session.next_sequence;
            let bytes = self.lanes[at].send(session_sequence, session.repeats);
            let partition = PartitionIndex::new(slot);
            session.next_sequence += 1;
            session.in_flight_bytes += bytes.len() as u64;
            session.expected.push_back(Some(partition));
            if self.lanes[at].next_len(passing).is_some() {
                self.sendable.push_back(slot);
            } else {
                self.is_sendable[at] = false;
            }
            return Some(Outgoing { session_sequence, partition, bytes });
        }
        None
    }

    /// The partition that an answer belongs to.
    fn expected(&mut self, session_sequence: u64) -> Result<PartitionIndex, UnexpectedAnswer> {
        let session = self.session.as_mut().ok_or(UnexpectedAnswer)?;
        let oldest = session.next_sequence - session.expected.len() as u64;
        let at = session_sequence.checked_sub(oldest).and_then(|at| usize::try_from(at).ok());
        let place = at.and_then(|at| session.expected.get_mut(at)).ok_or(UnexpectedAnswer)?;
        let partition = place.take().ok_or(UnexpectedAnswer)?;
        while session.expected.front().is_some_and(Option::is_none) {
            session.expected.pop_front();
        }
        Ok(partition)
    }

    fn arrived(&mut self, partition: PartitionIndex, len: u64) {
        let session = self.session.as_mut().expect("an answer was expected");
        session.in_flight_bytes -= len;
        self.offer(partition.get());
    }

    /// A batch is durable.
    pub(super) fn acked(&mut self, session_sequence: u64, ack: BatchAck) -> Result<(), UnexpectedAnswer> {
        let partition = self.expected(session_sequence)?;
        let len = self.lane(partition).acked(session_sequence, ack).ok_or(UnexpectedAnswer)?;
        self.arrived(partition, len);
        Ok(())
    }

    /// Whether nothing is sent because of a refusal.
    pub(super) fn is_paused(&self, now: Duration) -> bool {
        now < self.paused_until
    }

    /// Sends nothing before `until`.
    pub(super) fn pause(&mut self, until: Duration) {
        self.paused_until = until;
    }

    /// A batch was refused.
    pub(super) fn nacked(
        &mut self,
        session_sequence: u64,
        rejection: Rejection,
    ) -> Result<(), UnexpectedAnswer> {
        let partition = self.expected(session_sequence)?;
        let repeats = self.session.as_ref().map_or(Repeats::Stored, |session| session.repeats);
        let lane = self.lane(partition);
        let len = lane.nacked(session_sequence, rejection, repeats).ok_or(UnexpectedAnswer)?;
        self.look_for_breaks();
        self.arrived(partition, len);
        Ok(())
    }

    /// The server wants no more in this session.
    pub(super) fn go_away(&mut self) {
        if let Some(session) = &mut self.session {
            session.going_away = true;
        }
    }

    /// Whether the session has done what it may: all is answered, and it takes no more, or is to have another
    /// producer id.
    pub(super) fn is_session_over(&self) -> bool {
        let Some(session) = &self.session else { return false };
        let answered = session.expected.is_empty();
        answered && (session.going_away || (self.is_renaming() && !self.lanes.iter().any(Lane::is_unsettled)))
    }

    /// The session is gone, with all that was on its way.
    pub(super) fn session_lost(&mut self, rejection: &Rejection) {
        let Some(session) = self.session.take() else { return };
        for lane in &mut self.lanes {
            lane.session_lost(rejection, session.repeats);
        }
        self.rename_if_settled();
        self.offer_all();
    }

    /// No session could be opened.
    pub(super) fn not_opened(&mut self, rejection: &Rejection) {
        if rejection.is_retryable() {
            self.link_failure = Some(rejection.clone());
        } else {
            self.refuse_all(rejection);
        }
    }

    /// The server refuses the topic or the producer: fails all there is. What is sent later is tried anew.
    fn refuse_all(&mut self, rejection: &Rejection) {
        debug_assert!(self.session.is_none(), "only an opening can be refused");
        for lane in &mut self.lanes {
            lane.refuse_all(rejection);
        }
        self.rename();
    }

    fn look_for_breaks(&mut self) {
        let was_renaming = self.is_renaming();
        let is_broken = self.lanes.iter().any(Lane::is_broken);
        self.passing = if is_broken { Passing::Uncertain } else { Passing::All };
        if was_renaming && !is_broken {
            self.offer_all();
        }
    }

    fn is_renaming(&self) -> bool {
        self.passing == Passing::Uncertain
    }

    /// Without a session and with nothing open under it, a producer id that cannot go on is given up.
    fn rename_if_settled(&mut self) {
        self.look_for_breaks();
        if self.session.is_none() && self.is_renaming() && !self.lanes.iter().any(Lane::is_unsettled) {
            self.rename();
        }
    }

    fn rename(&mut self) {
        self.identity = None;
        self.lanes.iter_mut().for_each(Lane::renamed);
        self.look_for_breaks();
    }

    /// Fails what is not acknowledged in time.
    pub(super) fn expire(&mut self, now: Duration) -> Overdue {
        let mut overdue = Overdue::Nothing;
        while let Some((_, slot)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.pop_first();
            let at = slot as usize;
            self.has_deadline[at] = false;
            if self.lanes[at].is_answer_overdue(now) {
                overdue = Overdue::Answer;
            }
            self.lanes[at].expire(now, self.delivery_timeout, self.link_failure.as_ref());
            self.watch(slot);
            self.rename_if_settled();
            self.offer(slot);
        }
        overdue
    }

    /// When to look again if nothing happens: the next deadline or the end of a pause.
    pub(super) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let pause = (self.paused_until > now).then_some(self.paused_until);
        deadline.into_iter().chain(pause).min()
    }
}

#[cfg(test)]
mod tests;
