//! Reading: functions of metadata and caches, on any node. Nothing here is an actor.

mod hints;
mod offsets;
mod plan;
mod source;
mod walk;

#[cfg(test)]
mod tests;

use futures::{FutureExt as _, StreamExt as _};
use streamhouse_metadata::State;
use streamhouse_storage::GetError;
use streamhouse_types::{Offset, PartitionId};

pub(crate) use hints::Hints;
pub(crate) use source::Source;

use self::plan::{Look, Plan, PlannedRead};
use self::source::{Batches, ReadFault, Via, load_ahead};
use self::walk::{Cursor, Output, Trust};
use crate::broker::Shared;
use crate::pins::Pin;
use crate::watermark::Subscription;
use crate::{Broker, BytePermit, FetchError, FetchRequest, Fetched};

/// How many extents of one fetch are read at once.
const READS_AT_ONCE: usize = 8;
/// How often bytes that are wrong are read again, past the caches, before they are called damaged: what is wrong on the
/// way is wrong another way each time, what is wrong in the store stays so.
const READS_AGAIN: usize = 4;

impl Broker {
    /// Reads whole batches from the one that holds `request.offset` on; waits up to `max_wait` for `min_bytes`, and is
    /// woken by the high watermark. At the end of the log, the answer is empty. Cancel-safe.
    ///
    /// # Errors
    /// [`FetchError::OutOfRange`] and [`FetchError::UnknownPartition`] only by metadata known to be current.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError> {
        let shared = &*self.0;
        let deadline = shared.env.clock.now().saturating_add(request.max_wait);
        let mut subscription: Option<Subscription> = None;
        let (mut current, mut missed) = (false, false);
        loop {
            if shared.watermarks.is_closed() {
                return Err(FetchError::Stopping);
            }
            let (look, pin) = shared.look(&request);
            let plan = match look {
                Look::Found(plan) => plan.within_reach(|read| shared.source.in_tail(read)),
                outside if current => return Err(outside.into_error(&request)),
                Look::UnknownPartition | Look::OutOfRange { .. } => {
                    shared.log.read_index().await?;
                    current = true;
                    continue;
                }
            };
            let enough = plan.available >= u64::from(request.min_bytes) || plan.is_full;
            if enough || shared.env.clock.now() >= deadline {
                match shared.read_plan(&request, &plan).await {
                    Err(FetchError::Store { source: GetError::NotFound { .. }, .. }) if !missed => {
                        // The extents may have moved since. Look again, at what is current.
                        missed = true;
                        shared.log.read_index().await?;
                        continue;
                    }
                    Err(FetchError::Store { source: GetError::NotFound { key }, partition, offset }) => {
                        let what = format!("object `{key}` is gone");
                        tracing::error!(%partition, %offset, what, "referenced object is missing");
                        return Err(FetchError::Corrupt { partition, offset, what });
                    }
                    read => return read,
                }
            }
            drop::<Pin>(pin);
            match &mut subscription {
                // Look once more after subscribing: nothing is missed in between.
                None => subscription = Some(shared.watermarks.subscribe(request.partition)),
                Some(subscription) => {
                    current = false;
                    tokio::select! {
                        () = subscription.changed() => {}
                        () = shared.env.clock.sleep_until(deadline) => {}
                    }
                }
            }
        }
    }
}

impl Look {
    fn into_error(self, request: &FetchRequest) -> FetchError {
        match self {
            Self::OutOfRange { log_start, high_watermark } => {
                FetchError::OutOfRange { offset: request.offset, log_start, high_watermark }
            }
            Self::UnknownPartition | Self::Found(_) => {
                FetchError::UnknownPartition { partition: request.partition }
            }
        }
    }
}

impl ReadFault {
    fn into_error(self, partition: PartitionId, offset: Offset) -> FetchError {
        match self {
            Self::Get(source) => FetchError::Store { partition, offset, source },
            Self::Damage(damage) => {
                let what = damage.to_string();
                tracing::error!(%partition, %offset, what, "stored bytes are damaged");
                FetchError::Corrupt { partition, offset, what }
            }
        }
    }

    /// Whether reading past the caches may help: they may hold wrong bytes, or know a wrong length.
    fn is_damage(&self) -> bool {
        matches!(self, Self::Damage(_) | Self::Get(GetError::OutOfRange { .. }))
    }
}

impl Shared {
    fn look(&self, request: &FetchRequest) -> (Look, Pin) {
        let bytes = u64::from(request.max_bytes.max(request.min_bytes));
        let look = |state: &State| {
            (plan::look(state, request.partition, request.offset, bytes), self.pins.pin(state))
        };
        crate::log::read(&*self.log, look)
    }

    /// Waits until up to `bytes` may be fetched for a plan; `None` when all is in memory. Who reads at the end of the log
    /// waits for nobody who reads further back.
    async fn room(&self, plan: &Plan, bytes: u64) -> Option<BytePermit> {
        if plan.reads.iter().all(|read| self.source.in_tail(read)) {
            return None;
        }
        let budget = if plan.is_recent { &self.reading.fresh } else { &self.reading.cold };
        Some(budget.acquire(bytes.min(plan.bytes())).await)
    }

    async fn read_plan(&self, request: &FetchRequest, plan: &Plan) -> Result<Fetched, FetchError> {
        let begun = self.env.clock.now();
        let mut read = self.read_via(request, plan, Via::Caches).await;
        for _ in 0..READS_AGAIN {
            if !read.as_ref().is_err_and(ReadFault::is_damage) {
                break;
            }
            tracing::warn!(partition = %request.partition, offset = %request.offset, "wrong bytes are read again");
            plan.reads.iter().for_each(|read| self.source.forget(read));
            read = self.read_via(request, plan, Via::Store).await;
        }
        let (output, next_offset, trust) =
            read.map_err(|fault| fault.into_error(request.partition, request.offset))?;
        let meters = match trust {
            Trust::Checked => &self.meters.from_memory,
            Trust::Stored => &self.meters.from_store,
        };
        meters.bytes.increment(output.bytes);
        meters.records.increment(output.records);
        meters.seconds.record(self.env.clock.now().saturating_sub(begun).as_secs_f64());
        Ok(Fetched {
            next_offset,
            high_watermark: plan.high_watermark,
            log_start: plan.log_start,
            records: output.records,
            bytes: output.finish(),
        })
    }

    async fn read_via(
        &self,
        request: &FetchRequest,
        plan: &Plan,
        via: Via,
    ) -> Result<(Output, Offset, Trust), ReadFault> {
        let (mut output, mut trust) = (Output::default(), Trust::Checked);
        let Some(first) = plan.reads.first() else { return Ok((output, request.offset, trust)) };
        let hint = self.hints.find(request.partition, request.offset);
        let _room = self.room(plan, u64::from(request.max_bytes)).await;
        let start = match hint.and_then(|hint| hint.cursor_in(&first.extent.object)) {
            Some(cursor) if cursor.position < first.end() && cursor.position >= first.extent.position => {
                cursor
            }
            _ => self.source.locate(first, request.offset, via).await?,
        };
        let mut next = start;
        let mut object = first.extent.object;
        let windows = windows(plan, start, u64::from(request.max_bytes));
        // Boxed and collected: a stream over the closure itself would not be `Send` for callers that spawn a fetch.
        let read_one = |(read, cursor, want)| {
            async move { (read, self.source.read(read, cursor, want, via).await) }.boxed()
        };
        let reads: Vec<_> = windows.into_iter().map(read_one).collect();
        let mut reads = std::pin::pin!(futures::stream::iter(reads).buffered(READS_AT_ONCE));
        while let Some((read, batches)) = reads.next().await {
            // What was read so far is a good answer; the next fetch meets the fault again.
            let Batches { batches, next: after, trust: from } = match batches {
                Err(_) if output.bytes > 0 => break,
                batches => batches?,
            };
            (next, object) = (after, read.extent.object);
            for batch in batches {
                let bytes = output.bytes + u64::from(batch.header.length_bytes);
                if output.bytes > 0 && bytes > u64::from(request.max_bytes) {
                    next = Cursor { position: batch.position, offset: batch.base };
                    break;
                }
                output.push(batch, read.extent.epoch, read.stamp);
            }
            if from == Trust::Stored {
                trust = Trust::Stored;
            }
            if next.offset < read.extent.end {
                break;
            }
        }
        let ahead = hint.map(|hint| self.read_ahead(request.partition, next, hint.ahead));
        self.hints.leave(request.partition, object, next, ahead.unwrap_or(next.offset));
        Ok((output, next.offset, trust))
    }

    /// Reads ahead of a reader that goes on where it left off, when less than half of what should be ahead of it is.
    /// Returns up to where was read ahead.
    ///
    /// A reader may have as much ahead of it as is free: so several get equal shares of the cache's room, which
    /// together never claim more than there is, and what was read ahead is still there when they come to it.
    fn read_ahead(&self, partition: PartitionId, next: Cursor, ahead: Offset) -> Offset {
        let window = self.settings.read_ahead_bytes.min(self.source.ahead_room());
        let ahead = next.offset.max(ahead);
        if window == 0 {
            return ahead;
        }
        let look = |state: &State| (plan::ahead(state, partition, next.offset, window), self.pins.pin(state));
        let (reads, pin) = crate::log::read(&*self.log, look);
        let (there, missing): (Vec<PlannedRead>, Vec<PlannedRead>) =
            reads.into_iter().partition(|read| read.extent.end <= ahead);
        let there_bytes: u64 = there.iter().map(|read| u64::from(read.extent.length)).sum();
        let in_memory = missing.iter().all(|read| self.source.in_tail(read));
        if there_bytes >= window / 2 || in_memory {
            return ahead;
        }
        // Not waited for: readers that have room may have to wait for the very blocks that are claimed here.
        let bytes = missing.iter().map(|read| u64::from(read.extent.length)).sum::<u64>();
        let Some(room) = self.reading.cold.try_acquire(bytes.min(self.source.ahead_room())) else {
            return ahead;
        };
        let (claimed, end) = self.source.claim_ahead(&missing, next);
        tokio::spawn(async move {
            let _held = (pin, room);
            load_ahead(claimed).await;
        });
        end.unwrap_or(ahead)
    }
}

/// What to read of each extent: about `max_bytes` in all, the first from `start` on.
fn windows(plan: &Plan, start: Cursor, max_bytes: u64) -> Vec<(&PlannedRead, Cursor, u64)> {
    let mut windows = Vec::new();
    let mut left = max_bytes.max(1);
    for (index, read) in plan.reads.iter().enumerate() {
        let cursor = if index == 0 { start } else { Cursor::at_start(read) };
        windows.push((read, cursor, left));
        left = left.saturating_sub(read.end() - cursor.position);
        if left == 0 {
            break;
        }
    }
    windows
}
