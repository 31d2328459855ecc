//! The flush actor: moves batches from the buffer into slots, slots to the store, and commits to the log.
//!
//! `handle` changes state, starts work and returns; what the work found comes back as a message.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use streamhouse_metadata::Outcome;
use streamhouse_storage::PutError;
use streamhouse_storage::object::CommitResult;
use streamhouse_types::{Incarnation, SlotSequence};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::buffer::Buffer;
use super::entry::Entry;
use super::group_commit::{Decision, GroupCommit, Slots, Trigger};
use super::lane::{Decided, Expired, Lane, Uploaded};
use super::settle::settle;
use super::{FlushContext, Registration, StoreAccess, work};
use crate::error::{NotRegistered, Obstacle};
use crate::log::ProposeError;

/// What the flush actor is asked and told.
pub(crate) enum Msg {
    /// Takes a batch or unit.
    Append(Entry),
    /// Flushes everything at once and answers when nothing is undecided.
    Drain(oneshot::Sender<()>),
    /// Answers, to show that the loop is alive.
    Ping(oneshot::Sender<()>),
    /// The metadata has closed this incarnation.
    Closed(Incarnation),
    /// The node was registered, or refused for good.
    Registered(Result<Incarnation, Arc<NotRegistered>>),
    /// An upload of this incarnation ended.
    Uploaded(Incarnation, SlotSequence, Result<Uploaded, UploadFailure>),
    /// Proposals of this incarnation were answered.
    Decided(Incarnation, Vec<(SlotSequence, Result<Outcome, ProposeError>)>),
    /// `AdvanceLo` was answered.
    LoAdvanced(Incarnation, Result<Outcome, ProposeError>),
    /// The time that was waited for has come.
    Woken,
    /// Fails, so that its supervision can be tested.
    #[cfg(test)]
    Crash,
}

/// Why an upload failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadFailure(pub(crate) Obstacle);

impl From<&PutError> for UploadFailure {
    fn from(error: &PutError) -> Self {
        match error {
            PutError::DiskFull { .. } => Self(Obstacle::DiskFull),
            PutError::Refused { .. } => Self(Obstacle::Refused),
            PutError::Conflict { .. } | PutError::NotHappened { .. } | PutError::Unknown { .. } => {
                Self(Obstacle::Store)
            }
        }
    }
}

/// Owns the open buffer and the lane.
pub(crate) struct FlushActor;

/// The state of the flush actor.
pub(crate) struct Flusher {
    context: Arc<FlushContext>,
    commit: GroupCommit,
    buffer: Buffer,
    /// `None` while the node is being registered.
    lane: Option<Lane>,
    /// What became of previous objects, for the index of the next one.
    results: Vec<CommitResult>,
    draining: Vec<oneshot::Sender<()>>,
    /// It was told to drain, or its cluster does not want it: nothing new is stored.
    leaving: bool,
    timer: Option<(Duration, JoinHandle<()>)>,
}

impl Actor for FlushActor {
    type Msg = Msg;
    type State = Flusher;
    type Arguments = Arc<FlushContext>;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        context: Arc<FlushContext>,
    ) -> Result<Flusher, ActorProcessingErr> {
        // A fresh actor never uses slots of the one before it: their names may be taken.
        context.incarnation.send_replace(Registration::Pending);
        work::register(&context, me);
        Ok(Flusher {
            commit: GroupCommit::new(&context.settings),
            context,
            buffer: Buffer::default(),
            lane: None,
            results: Vec::new(),
            draining: Vec::new(),
            leaving: false,
            timer: None,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        msg: Msg,
        flusher: &mut Flusher,
    ) -> Result<(), ActorProcessingErr> {
        let now = flusher.context.env.clock.now();
        match msg {
            Msg::Append(entry) => flusher.push(entry, now),
            Msg::Drain(port) => {
                flusher.leaving = true;
                flusher.draining.push(port);
            }
            // Whoever asked may have given up.
            Msg::Ping(port) => drop(port.send(())),
            Msg::Closed(incarnation) if flusher.lane_of(incarnation).is_some() => flusher.closed(&me),
            Msg::Closed(_) => {}
            Msg::Registered(registered) => flusher.registered(registered),
            Msg::Uploaded(incarnation, slot, result) => flusher.uploaded(incarnation, slot, result),
            Msg::Decided(incarnation, answers) => flusher.decided(incarnation, answers, &me, now),
            Msg::LoAdvanced(incarnation, answer) => flusher.lo_advanced(incarnation, &answer, now),
            Msg::Woken => flusher.timer = None,
            #[cfg(test)]
            Msg::Crash => panic!("asked to"),
        }
        flusher.go_on(&me, now);
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<Msg>, flusher: &mut Flusher) -> Result<(), ActorProcessingErr> {
        if let Some((_, timer)) = flusher.timer.take() {
            timer.abort();
        }
        Ok(())
    }
}

impl Flusher {
    /// Slots that are not decided yet, for each that may upload: beyond it nothing is flushed.
    const UNDECIDED_PER_UPLOAD: usize = 4;
    /// Runs of previous objects that one object notes at most.
    const RESULT_RUNS_MAX: usize = 4_096;

    fn push(&mut self, mut entry: Entry, now: Duration) {
        entry.waiter.mark_arrived();
        if entry.waiter.must_fail() {
            return self.not_stored(entry.waiter, Obstacle::Store);
        }
        if *self.context.access.borrow() == StoreAccess::CutOff {
            return self.not_stored(entry.waiter, Obstacle::CutOff);
        }
        if self.leaving && self.lane.is_none() {
            return self.not_stored(entry.waiter, Obstacle::Registration);
        }
        self.commit.push(now, entry.waiter.bytes());
        self.buffer.push(entry);
    }

    fn registered(&mut self, registered: Result<Incarnation, Arc<NotRegistered>>) {
        if matches!(*self.context.incarnation.borrow(), Registration::Refused(_)) {
            return;
        }
        let registration = match registered {
            Ok(incarnation) => {
                tracing::info!(node = %self.context.node, %incarnation, "registered");
                self.lane = Some(Lane::new(self.context.node, incarnation));
                Registration::Open(incarnation)
            }
            Err(error) => {
                tracing::error!(node = %self.context.node, %error, "registration was refused");
                self.leaving = true;
                if self.lane.is_none() {
                    self.fail_buffered(Some(Duration::MAX), Obstacle::Registration);
                }
                Registration::Refused(error)
            }
        };
        self.context.incarnation.send_replace(registration);
    }

    /// The lane that a message is about; work of an incarnation that is closed concerns nobody any more.
    fn lane_of(&mut self, incarnation: Incarnation) -> Option<&mut Lane> {
        self.lane.as_mut().filter(|lane| lane.incarnation() == incarnation)
    }

    fn uploaded(
        &mut self,
        incarnation: Incarnation,
        sequence: SlotSequence,
        result: Result<Uploaded, UploadFailure>,
    ) {
        let Some(lane) = self.lane_of(incarnation) else { return };
        match result {
            Ok(object) => lane.uploaded(sequence, object),
            Err(UploadFailure(obstacle)) => {
                let failed = lane.upload_failed(sequence);
                tracing::warn!(slot = %sequence, batches = failed.len(), %obstacle, "upload failed");
                self.context.meters.failed_slots.increment(1);
                for waiter in failed {
                    self.not_stored(waiter, obstacle);
                }
                self.fail_buffered(None, obstacle);
            }
        }
    }

    fn decided(
        &mut self,
        incarnation: Incarnation,
        answers: Vec<(SlotSequence, Result<Outcome, ProposeError>)>,
        me: &ActorRef<Msg>,
        now: Duration,
    ) {
        for (sequence, answer) in answers {
            let Some(lane) = self.lane_of(incarnation) else { return };
            match lane.answered(sequence, answer, now) {
                Decided::Settled(settled) => {
                    self.context.meters.commit.record(now.saturating_sub(settled.proposed).as_secs_f64());
                    let result = settle(*settled, now, &self.context.meters);
                    self.note_result(result);
                }
                Decided::Open => {}
                Decided::Lost(waiters) => {
                    tracing::error!(slot = %sequence, "slot was refused as too old");
                    for waiter in waiters {
                        waiter.unknown("the slot was given up before its commit was applied");
                    }
                }
                Decided::Closed => {
                    tracing::warn!(node = %self.context.node, "a commit of a closed incarnation was refused");
                    self.closed(me);
                }
            }
        }
    }

    fn note_result(&mut self, result: CommitResult) {
        let runs: usize = self.results.iter().map(|result| result.runs.len()).sum();
        if runs + result.runs.len() <= Self::RESULT_RUNS_MAX {
            self.results.push(result);
        }
    }

    /// The incarnation is closed: what was proposed may have happened, nothing else did. The node registers anew, unless it
    /// stops: then nothing more of it is stored.
    fn closed(&mut self, me: &ActorRef<Msg>) {
        let Some(mut lane) = self.lane.take() else { return };
        let incarnation = lane.incarnation();
        self.context.incarnation.send_if_modified(|now| match now {
            // It stays so, whatever else is heard.
            Registration::Refused(_) => false,
            now => {
                *now = Registration::Pending;
                true
            }
        });
        self.results.clear();
        self.expired(lane.abandon());
        self.fail_buffered(self.leaving.then_some(Duration::MAX), Obstacle::Registration);
        if self.leaving {
            return;
        }
        tracing::warn!(node = %self.context.node, %incarnation, "incarnation closed, node registers anew");
        work::register(&self.context, me.clone());
    }

    fn lo_advanced(
        &mut self,
        incarnation: Incarnation,
        answer: &Result<Outcome, ProposeError>,
        now: Duration,
    ) {
        if let Some(lane) = self.lane_of(incarnation)
            && answer.is_err()
        {
            lane.lo_not_advanced(now);
        }
    }

    /// Everything that follows from the state at hand.
    fn go_on(&mut self, me: &ActorRef<Msg>, now: Duration) {
        if let Some(lane) = &mut self.lane {
            let expired = lane.expire(now);
            self.expired(expired);
        }
        let deadline = self.context.settings.request_deadline;
        if self.buffer.oldest().is_some_and(|oldest| oldest + deadline <= now) {
            self.fail_buffered(now.checked_sub(deadline), Obstacle::Deadline);
        }
        let waited = self.flush_due(me, now);
        self.propose(me, now);
        self.finish_drain();
        self.wake_at(me, waited, now);
        self.context.meters.in_flight.set(gauge(self.context.budget.in_use()));
        self.context.meters.buffer_bytes.set(gauge(self.commit.bytes()));
        let age = self.buffer.oldest().map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest));
        self.context.meters.oldest.set(age.as_secs_f64());
    }

    /// Flushes as long as a flush is due; returns when to look again.
    fn flush_due(&mut self, me: &ActorRef<Msg>, now: Duration) -> Option<Duration> {
        loop {
            let lane = self.lane.as_ref()?;
            let uploading = lane.uploading();
            let limit = self.context.settings.uploads_in_flight;
            self.context.meters.uploads.set(gauge(uploading as u64));
            let slots = Slots { uploading, undecided: lane.undecided() };
            if slots.undecided >= limit.saturating_mul(Self::UNDECIDED_PER_UPLOAD) {
                return None;
            }
            let trigger = match self.commit.decide(now, slots, || self.buffer.windows_full()) {
                Decision::Flush(trigger) => trigger,
                Decision::At(_) if !self.draining.is_empty() => Trigger::Drain,
                Decision::At(time) => return Some(time),
                Decision::Empty | Decision::WhenSlotFree => return None,
            };
            self.flush(trigger, me, now);
        }
    }

    fn flush(&mut self, trigger: Trigger, me: &ActorRef<Msg>, now: Duration) {
        let taken = self.buffer.take(self.context.settings.flush_bytes, Lane::ROWS_AT_ONCE);
        if taken.is_empty() {
            return self.commit.flushed(now, None);
        }
        let bytes: u64 = taken.iter().map(|entry| entry.waiter.bytes()).sum();
        let oldest = taken.first().map_or(now, |entry| entry.waiter.admitted());
        let rest = self.buffer.oldest().map(|opened| (self.commit.bytes().saturating_sub(bytes), opened));
        self.commit.flushed(now, rest);
        self.context.meters.flushed(trigger);
        self.context.meters.buffer.record(now.saturating_sub(oldest).as_secs_f64());
        let sealed = super::seal::seal(taken);
        let Some(lane) = &mut self.lane else { return };
        let deadline = oldest + self.context.settings.request_deadline;
        let sequence = lane.open(sealed.entries, self.context.env.clock.wall(), deadline);
        let upload = work::Upload {
            slot: lane.slot(sequence),
            extents: sealed.extents,
            results: std::mem::take(&mut self.results),
            deadline,
        };
        work::upload(&self.context, upload, me.clone());
    }

    fn propose(&mut self, me: &ActorRef<Msg>, now: Duration) {
        let Some(lane) = &mut self.lane else { return };
        let proposals = lane.propose(now);
        if !proposals.is_empty() {
            work::propose(&self.context, lane.incarnation(), proposals, me.clone());
        }
        if let Some(slot) = lane.idle_lo(now).filter(|_| self.buffer.is_empty()) {
            lane.lo_proposed();
            work::advance_lo(&self.context, slot, me.clone());
        }
    }

    fn finish_drain(&mut self) {
        if self.buffer.is_empty() && self.lane.as_ref().is_none_or(Lane::is_settled) {
            for port in self.draining.drain(..) {
                // Whoever no longer waits has dropped its end.
                let _ = port.send(());
            }
        }
    }

    /// Sets the timer to the next time at which something is due by itself.
    fn wake_at(&mut self, me: &ActorRef<Msg>, flush: Option<Duration>, now: Duration) {
        let deadline = self.context.settings.request_deadline;
        let buffered = self.buffer.oldest().map(|oldest| oldest + deadline);
        let lane = self.lane.as_ref().and_then(Lane::next_wake);
        // A flush tells it too; until then there is nothing to be woken for.
        let lo = self.lane.as_ref().and_then(Lane::lo_due).filter(|_| self.buffer.is_empty());
        let Some(wake) = flush.into_iter().chain(buffered).chain(lane).chain(lo).min() else { return };
        let wake = wake.max(now);
        if let Some((set, timer)) = &self.timer {
            if *set <= wake {
                return;
            }
            timer.abort();
        }
        self.timer = Some((wake, work::wake(&self.context, wake, me.clone())));
    }

    /// Fails what must not stay in the buffer: what is older than `before`, and what fails with another batch.
    fn fail_buffered(&mut self, before: Option<Duration>, obstacle: Obstacle) {
        let failed = self.buffer.take_failed(before);
        let bytes = failed.iter().map(super::Waiter::bytes).sum();
        self.commit.removed(bytes, self.buffer.oldest());
        for waiter in failed {
            self.not_stored(waiter, obstacle);
        }
    }

    fn expired(&mut self, expired: Expired) {
        let cause = "the commit was not answered before the deadline";
        for waiter in expired.unknown {
            self.context.meters.rejected(&crate::AppendError::CommitUnknown { cause });
            waiter.unknown(cause);
        }
        let any = !expired.not_stored.is_empty();
        let obstacle = expired.not_stored.first().map_or(Obstacle::Deadline, |(_, obstacle)| *obstacle);
        for (waiter, obstacle) in expired.not_stored {
            self.not_stored(waiter, obstacle);
        }
        if any {
            self.fail_buffered(None, obstacle);
        }
    }

    fn not_stored(&self, waiter: super::Waiter, obstacle: Obstacle) {
        self.context.meters.rejected(&crate::AppendError::NotStored { obstacle });
        waiter.not_stored(obstacle);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
fn gauge(value: u64) -> f64 {
    value as f64
}
