//! The records of a batch that were asked for.

use streamhouse_client::{BatchError, ConsumedBatch, Offset};
use streamhouse_types::batch::Record;

use crate::failure::{Failure, LocalCode, Stop};

/// A record and its offset.
pub(crate) type Placed = (Offset, Record);

/// The records of `batch` that were asked for, in order. Their bytes are slices of the batch, or of what it
/// decompresses to.
///
/// # Errors
/// When the batch cannot be opened; each item when the record is damaged.
pub(crate) fn records(batch: &ConsumedBatch) -> Result<impl Iterator<Item = Result<Placed, Stop>>, Stop> {
    let base = u64::try_from(batch.batch().header().base_offset).unwrap_or(0);
    let wanted = batch.offsets();
    let records = batch.batch().records().map_err(|error| damaged(&error))?;
    let placed = records.map(move |record| {
        let record = record.map_err(|error| damaged(&error))?;
        Ok((Offset::new(base).after(record.offset_delta), record))
    });
    Ok(placed.filter(move |placed: &Result<Placed, Stop>| match placed {
        Ok((offset, _)) => wanted.contains(offset),
        Err(_) => true,
    }))
}

fn damaged(error: &BatchError) -> Stop {
    Failure::new(LocalCode::IntegrityMismatch, error.to_string())
        .hint(LocalCode::IntegrityMismatch.advice())
        .into()
}
