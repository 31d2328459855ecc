//! Invariants of one partition: its log and its producers.

use streamhouse_types::{Epoch, Offset, PartitionId, ProducerId, Sequence};

use super::{Check, ensure};
use crate::commit::APPEND_AHEAD_MS;
use crate::{Extent, Partition, ProducerEntry, ProducerWindow, State};

pub(super) fn check(state: &State, partition: &Partition) -> Check {
    let id = partition.id();
    let (start, end) = (partition.log_start(), partition.high_watermark());
    ensure(start <= end && end <= Offset::MAX, "I3", || format!("{id}: the log runs from {start} to {end}"))?;
    ensure(state.node(partition.home()).is_some(), "I8", || format!("{id}: its home never registered"))?;
    let latest = state.cluster_time().plus_millis(APPEND_AHEAD_MS);
    let in_time = partition.last_append() <= latest;
    ensure(in_time, "I8", || format!("{id}: appended at {}", partition.last_append()))?;
    check_epochs(partition)?;
    check_extents(state, partition)?;
    check_producers(state, partition)
}

fn check_epochs(partition: &Partition) -> Check {
    let id = partition.id();
    let rows = partition.epochs();
    let rising = rows.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start);
    ensure(rising, "I2", || format!("{id}: the epoch table does not rise"))?;
    let within = rows
        .last()
        .is_none_or(|last| last.epoch <= partition.epoch() && last.start < partition.high_watermark());
    ensure(within, "I2", || format!("{id}: the epoch table names what is not there"))?;
    ensure(i32::try_from(partition.epoch().get()).is_ok(), "I2", || format!("{id}: epoch out of range"))?;
    let covers = rows
        .first()
        .map_or(partition.high_watermark() == Offset::ZERO, |first| first.start <= partition.log_start());
    ensure(covers, "I2", || format!("{id}: the epoch table starts too late"))
}

/// The epoch under which `offset` was appended.
fn epoch_of(partition: &Partition, offset: Offset) -> Option<Epoch> {
    partition.epochs().iter().rev().find(|row| row.start <= offset).map(|row| row.epoch)
}

fn check_extents(state: &State, partition: &Partition) -> Check {
    let id = partition.id();
    let (mut next, mut bytes, mut last_time): (Option<Offset>, u64, Option<_>) = (None, 0, None);
    for extent in partition.extents_from(Offset::ZERO) {
        let Extent { base, end, .. } = extent;
        let follows = next.map_or(base <= partition.log_start(), |next| base == next);
        ensure(follows && base < end, "I2", || format!("{id}: gap or overlap before {base}"))?;
        ensure(end > partition.log_start(), "I7", || {
            format!("{id}: the extent at {base} is trimmed but kept")
        })?;
        let counted = extent.batches > 0 && u64::from(extent.batches) <= end.since(base) && extent.length > 0;
        ensure(counted, "I6", || format!("{id}: the extent at {base} counts wrongly"))?;
        ensure(last_time <= Some(extent.append_time), "I8", || format!("{id}: time goes back at {base}"))?;
        let last = Offset::new(end.get() - 1);
        let epochs = (epoch_of(partition, base), epoch_of(partition, last));
        let one_epoch = epochs == (Some(extent.epoch), Some(extent.epoch));
        ensure(one_epoch, "I2", || format!("{id}: the extent at {base} is not of one epoch"))?;
        let object = state.object(&extent.object);
        let inside = object.is_some_and(|object| {
            extent.position.checked_add(u64::from(extent.length)).is_some_and(|end| end <= object.length)
        });
        ensure(inside, "I7", || format!("{id}: the extent at {base} lies outside {}", extent.object))?;
        bytes += u64::from(extent.length);
        next = Some(end);
        last_time = Some(extent.append_time);
    }
    let end = next.unwrap_or(partition.log_start());
    ensure(end == partition.high_watermark(), "I2", || format!("{id}: the extents end at {end}"))?;
    ensure(bytes == partition.stored_bytes(), "I8", || format!("{id}: holds {bytes} bytes"))?;
    let newest = last_time.is_none_or(|last| last == partition.last_append());
    ensure(newest, "I8", || format!("{id}: the last append time is not that of the last extent"))
}

fn check_producers(state: &State, partition: &Partition) -> Check {
    let mut bytes = 0;
    for (producer, entry) in partition.producers() {
        let granted = state.grants.contain(producer);
        ensure(granted, "I4", || format!("{}: producer {producer} was never granted", partition.id()))?;
        check_producer(state, partition, producer, entry)?;
        bytes += entry.bytes();
    }
    let counted = bytes == partition.producer_table().bytes();
    ensure(counted, "I10", || format!("{}: {bytes} bytes of producers", partition.id()))
}

fn check_producer(
    state: &State,
    partition: &Partition,
    producer: ProducerId,
    entry: &ProducerEntry,
) -> Check {
    let id: PartitionId = partition.id();
    let batches = entry.batches();
    let window = ProducerWindow::of(producer).batches();
    let held = !batches.is_empty() && batches.len() <= window;
    ensure(held, "I4", || format!("{id}: {} batches of producer {producer}", batches.len()))?;
    let whole =
        batches.iter().all(|batch| batch.records > 0 && batch.first == Sequence::new(batch.first.get()));
    ensure(whole, "I4", || format!("{id}: a batch of producer {producer} has no records"))?;
    let in_order = batches.windows(2).all(|pair| {
        let end = pair[0].base.get().checked_add(u64::from(pair[0].records));
        pair[0].first.after(pair[0].records) == pair[1].first
            && end.is_some_and(|end| end <= pair[1].base.get())
    });
    ensure(in_order, "I4", || format!("{id}: the batches of producer {producer} are out of order"))?;
    let last_end = batches.last().and_then(|last| last.base.get().checked_add(u64::from(last.records)));
    let appended = last_end.is_some_and(|end| end <= partition.high_watermark().get());
    ensure(appended, "I4", || format!("{id}: a batch of producer {producer} is not in the log"))?;
    let past = entry.stamp() < state.append_next && entry.last_append() <= partition.last_append();
    ensure(past, "I4", || format!("{id}: producer {producer} appends in the future"))
}
