//! From verdicts to answers. Pure but for the sending of the answers.

use std::time::Duration;

use streamhouse_metadata::{UnitRefusal, Verdict};
use streamhouse_storage::object::{CommitResult, PlacedRun};
use streamhouse_types::{Offset, PartitionId, Timestamp};

use super::lane::Settled;
use super::seal::SealedEntry;
use crate::Appended;
use crate::error::{AppendError, UnitFault};
use crate::metrics::Meters;

/// Tells everyone who waited for a slot what became of it, and returns the note of it for the next object.
pub(crate) fn settle(settled: Settled, now: Duration, meters: &Meters) -> CommitResult {
    let mut result = CommitResult { sequence: settled.sequence, attempt: settled.attempt, runs: Vec::new() };
    let mut entries = settled.entries.into_iter();
    for (unit, owners) in settled.units.owners.iter().enumerate() {
        let verdict = settled.verdicts.get(unit);
        if let Some(Verdict::Appended { bases }) = verdict {
            let rows = &settled.units.units[unit].rows;
            result.runs.extend(rows.iter().zip(bases).map(|(row, base)| PlacedRun {
                position: row.position,
                length: row.length,
                records: row.records,
                base: *base,
            }));
        }
        let mut shared = SharedRow::new(verdict);
        // Nobody is left when they were told *unknown* at their deadline.
        for entry in entries.by_ref().take(owners.len()) {
            let judged = shared.judge(&entry, settled.append_time);
            meters.answered(&entry, &judged, now);
            entry.waiter.judged(judged);
        }
    }
    result.runs.sort_unstable_by_key(|run| run.position);
    result
}

/// The verdict on a unit, given out to the batches that share its row one after the other.
struct SharedRow<'a> {
    verdict: Option<&'a Verdict>,
    /// Records of the batches before in the same row.
    before: u32,
}

impl<'a> SharedRow<'a> {
    fn new(verdict: Option<&'a Verdict>) -> Self {
        Self { verdict, before: 0 }
    }

    fn judge(&mut self, entry: &SealedEntry, append_time: Timestamp) -> Result<Vec<Appended>, AppendError> {
        let (bases, duplicate) = match self.verdict {
            Some(Verdict::Appended { bases }) => (bases, Duplicate::No),
            Some(Verdict::Duplicate { bases }) => (bases, Duplicate::Yes),
            Some(Verdict::Refused(refusal)) => return Err(refused(refusal, entry)),
            None => return Err(AppendError::CommitUnknown { cause: "the commit gave too few verdicts" }),
        };
        let place = |(base, records): (&Offset, u32)| {
            let base = base.after(self.before);
            let duplicate = duplicate == Duplicate::Yes;
            Appended { base, end: base.after(records), append_time, duplicate }
        };
        let records = entry.batches.iter().map(super::seal::PlacedBatch::records);
        let appended: Vec<_> = bases.iter().zip(records).map(place).collect();
        if appended.len() != entry.batches.len() {
            return Err(AppendError::CommitUnknown { cause: "the commit named too few offsets" });
        }
        self.before += entry.batches.first().map_or(0, super::seal::PlacedBatch::records);
        Ok(appended)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Duplicate {
    No,
    Yes,
}

fn refused(refusal: &UnitRefusal, entry: &SealedEntry) -> AppendError {
    let partition = || -> PartitionId { entry.batches.first().expect("an entry has a batch").partition() };
    match refusal {
        UnitRefusal::UnknownPartition => AppendError::UnknownPartition { partition: partition() },
        UnitRefusal::OutOfOrderSequence { expected } => {
            AppendError::OutOfOrderSequence { expected: *expected }
        }
        UnitRefusal::UnknownProducer => AppendError::UnknownProducer { partition: partition() },
        UnitRefusal::ProducerFenced { current } => AppendError::ProducerFenced { current: *current },
        UnitRefusal::ProducerIdNotGranted => AppendError::ProducerNotGranted,
        UnitRefusal::PreconditionFailed { actual } => AppendError::PreconditionFailed { actual: *actual },
        UnitRefusal::PartlyDuplicate => AppendError::BadUnit { fault: UnitFault::PartlyDuplicate },
        UnitRefusal::Malformed => AppendError::BadUnit { fault: UnitFault::Malformed },
    }
}
