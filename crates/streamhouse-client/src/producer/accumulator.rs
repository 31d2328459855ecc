//! Where sends put their records: one open batch per partition, under one short lock.
//!
//! A send costs a lock, a copy of the record into its batch and a reference count. Nothing is handed to a task per
//! record; the sender is woken per batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_env::Env;
use streamhouse_types::batch::{BatchBuilder, Compression, HEADER_BYTES, HEADERS_MAX};
use streamhouse_types::partitioner::partition_for_key;
use streamhouse_types::{PartitionIndex, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::batch::{Batch, Undecided};
use super::ticket::{BatchFate, Ticket};
use crate::error::SendError;
use crate::record::Record;

/// Room is taken in steps, so that few records have to ask for it.
const ROOM_STEP_BYTES: usize = 16 << 10;
/// The first step of a batch: most batches of slow producers stay small.
const ROOM_FIRST_BYTES: usize = 1 << 10;
/// The most records of one batch.
const RECORDS_MAX: u32 = 100_000;

/// What the accumulator goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) compression: Compression,
    /// Where a batch is closed, unless the topic takes less.
    pub(super) batch_bytes: usize,
    /// What the topic takes at most; the server tells.
    pub(super) batch_bytes_max: usize,
    /// All the room there is.
    pub(super) room_bytes: usize,
}

impl Limits {
    /// Milliseconds after which an open batch should have been taken.
    fn nudge_after_ms(&self) -> i64 {
        i64::try_from(self.linger.as_millis()).unwrap_or(i64::MAX).saturating_add(1)
    }
}

/// What became of a push.
#[derive(Debug)]
pub(super) enum Pushed {
    /// It is in. The sender has to be woken when a batch was opened by it.
    Taken { ticket: Ticket, opened: bool },
    /// Its batch is full and closed now, or older than it should be: wake the sender, let it run, push again. A task
    /// that never waits would keep the sender from running.
    LetSenderRun,
    /// So many bytes of room have to be waited for.
    NoRoom(u32),
}

/// Which open batches the sender takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// All: nothing is on its way, so waiting for company would only cost time.
    All,
    /// Those that have lingered.
    Lingered,
    /// Those that are full, and those that have been open for long: nothing can be sent now, so they may as well grow.
    Full,
}

#[derive(Debug)]
struct OpenBatch {
    number: u64,
    builder: BatchBuilder,
    undecided: Undecided,
    room: Option<OwnedSemaphorePermit>,
    opened_at: Duration,
    opened_wall: Timestamp,
    /// The sender was woken because it is older than it should be.
    is_nudged: bool,
}

impl OpenBatch {
    fn into_batch(self, delivery_timeout: Duration) -> Batch {
        let deadline = self.opened_at.saturating_add(delivery_timeout);
        Batch::new(self.builder, self.undecided, self.room, deadline)
    }

    fn room_bytes(&self) -> usize {
        self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn give_room(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
    }
}

/// The open batches of a producer.
#[derive(Debug)]
pub(super) struct Accumulator {
    limits: Limits,
    room: Arc<Semaphore>,
    open: Vec<Option<OpenBatch>>,
    /// Sizes that batches reached, to make room for the next at once.
    size_hints: Vec<usize>,
    /// Open batches in the order of their opening, by number; some are closed since.
    lingering: VecDeque<(u64, PartitionIndex)>,
    closed: VecDeque<OpenBatch>,
    /// Where records without a key go until their batch is closed.
    sticky: u32,
    next_number: u64,
    /// Fates that flush waits for, and asks; some are decided since.
    undecided: VecDeque<Arc<BatchFate>>,
    prune_at: usize,
    flushing: bool,
    shut: bool,
    failure: Option<SendError>,
}

impl Accumulator {
    pub(super) fn new(limits: Limits, room: Arc<Semaphore>, partitions: u32, sticky: u32) -> Self {
        let mut accumulator = Self {
            limits,
            room,
            open: Vec::new(),
            size_hints: Vec::new(),
            lingering: VecDeque::new(),
            closed: VecDeque::new(),
            sticky: sticky % partitions.max(1),
            next_number: 0,
            undecided: VecDeque::new(),
            prune_at: 64,
            flushing: false,
            shut: false,
            failure: None,
        };
        accumulator.grow(partitions);
        accumulator
    }

    /// The topic has this many partitions; they never get fewer.
    pub(super) fn grow(&mut self, partitions: u32) {
        let partitions = (partitions as usize).max(self.open.len());
        self.open.resize_with(partitions, || None);
        self.size_hints.resize(partitions, 0);
    }

    /// The topic takes batches of at most this many bytes.
    pub(super) fn set_batch_bytes_max(&mut self, bytes: usize) {
        self.limits.batch_bytes_max = bytes;
    }

    /// Puts a record into its batch. `hand` is room that was waited for.
    pub(super) fn push(
        &mut self,
        record: &Record,
        hand: &mut Option<OwnedSemaphorePermit>,
        env: &Env,
    ) -> Result<Pushed, SendError> {
        if self.shut {
            return Err(SendError::Closed);
        }
        let partition = self.choose(record)?;
        let slot = partition.get() as usize;
        let cost = record.encoded_len_max();
        let now = env.clock.wall();
        self.refuse(record, cost, now)?;
        if let Some(batch) = &mut self.open[slot] {
            let bytes_max = self.limits.batch_bytes.min(self.limits.batch_bytes_max);
            if batch.builder.len_bytes() + cost > bytes_max || batch.builder.records() == RECORDS_MAX {
                self.close(slot);
                return Ok(Pushed::LetSenderRun);
            }
            if !batch.is_nudged && now > batch.opened_wall.plus_millis(self.limits.nudge_after_ms()) {
                batch.is_nudged = true;
                return Ok(Pushed::LetSenderRun);
            }
        }
        let opened = self.open[slot].is_none();
        if let Some(wanted) = self.find_room(slot, cost, hand) {
            return Ok(Pushed::NoRoom(wanted));
        }
        if opened {
            self.open_batch(partition, env.clock.now(), now);
        }
        let batch = self.open[slot].as_mut().expect("opened when it was not open");
        if let Some(more) = hand.take() {
            batch.give_room(more);
        }
        let index = batch.builder.records();
        batch.builder.push(&record.encode_at(now)).expect("its parts and sizes were checked");
        Ok(Pushed::Taken { ticket: Ticket::new(batch.undecided.fate().clone(), index), opened })
    }

    /// The partition a record goes to.
    fn choose(&self, record: &Record) -> Result<PartitionIndex, SendError> {
        let partitions = u32::try_from(self.open.len()).expect("partitions are counted in 32 bits");
        match (record.partition, &record.key) {
            (Some(partition), _) if partition.get() >= partitions => {
                Err(SendError::NoSuchPartition { partition, partitions })
            }
            (Some(partition), _) => Ok(partition),
            (None, Some(key)) => Ok(partition_for_key(key, partitions)),
            (None, None) => Ok(PartitionIndex::new(self.sticky)),
        }
    }

    /// Refuses what no batch can hold.
    fn refuse(&self, record: &Record, cost: usize, now: Timestamp) -> Result<(), SendError> {
        let limit = self.limits.batch_bytes_max;
        let malformed = record.headers.len() > HEADERS_MAX || now < Timestamp::NONE;
        if HEADER_BYTES + cost <= limit && !malformed {
            return Ok(());
        }
        let mut alone = BatchBuilder::new(Compression::None);
        alone
            .push(&record.encode_at(now))
            .map_err(|error| SendError::Malformed { source: Arc::new(error) })?;
        if alone.len_bytes() > limit {
            return Err(SendError::TooLarge { actual: alone.len_bytes() as u64, limit: limit as u64 });
        }
        Ok(())
    }

    /// Sees that the batch has room for `cost` more, in its permit or in `hand`; else says how much is missing.
    fn find_room(&self, slot: usize, cost: usize, hand: &mut Option<OwnedSemaphorePermit>) -> Option<u32> {
        let (slack, step) = match &self.open[slot] {
            Some(batch) => (batch.room_bytes().saturating_sub(batch.builder.len_bytes()), ROOM_STEP_BYTES),
            None => (0, ROOM_FIRST_BYTES),
        };
        // The header counts always, so that room waited for is enough for a new batch too.
        let need = (cost + HEADER_BYTES).min(self.limits.room_bytes);
        if slack >= need || hand.is_some() {
            return None;
        }
        let permits = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let wanted = permits(need.max(step).min(self.limits.room_bytes));
        match self.room.clone().try_acquire_many_owned(wanted) {
            Ok(room) => {
                *hand = Some(room);
                None
            }
            Err(TryAcquireError::NoPermits) => Some(permits(need)),
            // Closed together with `shut`, under the same lock.
            Err(TryAcquireError::Closed) => Some(permits(need)),
        }
    }

    fn open_batch(&mut self, partition: PartitionIndex, now: Duration, wall: Timestamp) {
        let slot = partition.get() as usize;
        let fate = BatchFate::new(partition);
        self.remember(fate.clone());
        let number = self.next_number;
        self.next_number += 1;
        self.lingering.push_back((number, partition));
        let builder = BatchBuilder::with_capacity(self.limits.compression, self.size_hints[slot]);
        let undecided = Undecided::new(fate);
        self.open[slot] = Some(OpenBatch {
            number,
            builder,
            undecided,
            room: None,
            opened_at: now,
            opened_wall: wall,
            is_nudged: false,
        });
    }

    fn remember(&mut self, fate: Arc<BatchFate>) {
        if self.undecided.len() >= self.prune_at {
            self.forget_decided();
            self.prune_at = (self.undecided.len() * 2).max(64);
        }
        self.undecided.push_back(fate);
    }

    fn close(&mut self, slot: usize) {
        let Some(mut batch) = self.open[slot].take() else { return };
        let len = batch.builder.len_bytes();
        // A little more than the last batch, at most what a batch may have.
        self.size_hints[slot] = (len + len / 8).min(self.limits.batch_bytes.min(self.limits.batch_bytes_max));
        let excess = batch.room_bytes().saturating_sub(len);
        if let Some(room) = &mut batch.room {
            drop(room.split(excess));
        }
        if self.sticky as usize == slot {
            self.sticky = (self.sticky + 1) % u32::try_from(self.open.len()).expect("counted in 32 bits");
        }
        self.closed.push_back(batch);
    }

    /// The closed batches, and of the open ones those that `take` names.
    pub(super) fn take(&mut self, take: Take, now: Duration) -> Vec<Batch> {
        let take = if self.flushing || self.shut { Take::All } else { take };
        self.flushing = false;
        let age = self.age(take);
        while let Some((number, partition)) = self.lingering.front().copied() {
            let slot = partition.get() as usize;
            if let Some(batch) = self.open[slot].as_ref().filter(|batch| batch.number == number) {
                if batch.opened_at.saturating_add(age) > now {
                    break;
                }
                self.close(slot);
            }
            self.lingering.pop_front();
        }
        let timeout = self.limits.delivery_timeout;
        self.closed.drain(..).map(|batch| batch.into_batch(timeout)).collect()
    }

    /// How long a batch has to have been open to be taken.
    fn age(&self, take: Take) -> Duration {
        const PATIENCE: Duration = Duration::from_secs(1);
        let Limits { linger, delivery_timeout, .. } = self.limits;
        match take {
            Take::All => Duration::ZERO,
            Take::Lingered => linger,
            // Taken some time before they time out: only taken batches do.
            Take::Full => PATIENCE.max(linger).min(delivery_timeout / 4),
        }
    }

    /// When the oldest open batch is old enough for `take`.
    pub(super) fn due_at(&self, take: Take) -> Option<Duration> {
        let open = self.lingering.iter().find_map(|(number, partition)| {
            let batch = self.open[partition.get() as usize].as_ref()?;
            (batch.number == *number).then_some(batch.opened_at)
        });
        open.map(|opened_at| opened_at.saturating_add(self.age(take)))
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.due_at(Take::All).is_none()
    }

    /// Forgets the fates that are decided, but the first failure.
    fn forget_decided(&mut self) {
        let failure = &mut self.failure;
        self.undecided.retain(|fate| {
            if let Some(Err(error)) = fate.outcome() {
                failure.get_or_insert_with(|| error.clone());
            }
            fate.outcome().is_none()
        });
    }

    /// Has all open batches sent soon; returns the fates to wait for.
    pub(super) fn flush(&mut self) -> Vec<Arc<BatchFate>> {
        self.flushing = true;
        self.forget_decided();
        self.undecided.iter().cloned().collect()
    }

    /// Takes no more records.
    pub(super) fn shut(&mut self) {
        self.shut = true;
        self.room.close();
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// Gives everything up: nobody will take it.
    pub(super) fn abandon(&mut self) {
        self.shut();
        self.closed.clear();
        self.open.iter_mut().for_each(|batch| *batch = None);
    }

    /// The first failure of a batch since this was last asked.
    pub(super) fn take_failure(&mut self) -> Option<SendError> {
        self.forget_decided();
        self.failure.take()
    }
}
