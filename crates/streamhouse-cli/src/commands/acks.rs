//! What became of each record, in the order of the lines.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use streamhouse_client::{Ack, PartitionIndex, SendError, Ticket};
use streamhouse_env::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::Stop;
use crate::latency::Latencies;
use crate::output::{Stdout, stdout};

/// Records whose acks are waited for; more wait to be sent.
const TICKETS_MAX: usize = 1 << 20;

/// Whether acks are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcksOut {
    Nowhere,
    Stdout,
}

/// A record that was taken.
struct Sent {
    line: u64,
    at: Duration,
    ticket: Ticket,
}

/// What became of all records.
pub(crate) struct Acked {
    /// Records that are durable.
    pub(crate) records: u64,
    /// Records that are not, as far as is known.
    pub(crate) failed: u64,
    /// Of those, records that may be durable all the same.
    pub(crate) uncertain: u64,
    /// Records that an earlier try had written already.
    pub(crate) duplicates: u64,
    pub(crate) partitions: BTreeSet<PartitionIndex>,
    pub(crate) latencies: Latencies,
    /// The first failure and its line.
    pub(crate) failure: Option<(u64, SendError)>,
}

/// Takes tickets and waits for them beside the sending.
pub(crate) struct Acks(mpsc::Sender<Sent>);

/// Room for one ticket.
pub(crate) struct Room<'a>(mpsc::Permit<'a, Sent>);

impl Room<'_> {
    /// Hands the ticket of a line over; `at` is when its record was sent.
    pub(crate) fn take(self, line: u64, at: Duration, ticket: Ticket) {
        self.0.send(Sent { line, at, ticket });
    }
}

impl Acks {
    /// Starts to wait for tickets; the task ends when this is dropped and every ticket is decided.
    pub(crate) fn track(clock: Arc<dyn Clock>, out: AcksOut) -> (Self, JoinHandle<Result<Acked, Stop>>) {
        let (sender, receiver) = mpsc::channel(TICKETS_MAX);
        (Self(sender), tokio::spawn(wait_for_all(receiver, clock, out)))
    }

    /// Waits for room; `None` when a record has failed and no more are wanted. Cancel-safe.
    pub(crate) async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }
}

#[derive(Serialize)]
struct AckLine {
    line: u64,
    partition: u32,
    offset: u64,
}

async fn wait_for_all(
    mut sent: mpsc::Receiver<Sent>,
    clock: Arc<dyn Clock>,
    out: AcksOut,
) -> Result<Acked, Stop> {
    let mut acked = Acked {
        records: 0,
        failed: 0,
        uncertain: 0,
        duplicates: 0,
        partitions: BTreeSet::new(),
        latencies: Latencies::new(),
        failure: None,
    };
    let mut lines = Vec::new();
    while let Some(Sent { line, at, ticket }) = next(&mut sent, &mut lines, out).await? {
        match ticket.await {
            Ok(ack) => {
                acked.note(&ack, clock.now().saturating_sub(at));
                if out == AcksOut::Stdout {
                    let ack = AckLine { line, partition: ack.partition.get(), offset: ack.offset.get() };
                    serde_json::to_writer(&mut lines, &ack).map_err(std::io::Error::from)?;
                    lines.push(b'\n');
                }
            }
            Err(error) => {
                // No more are taken; those that were are still decided one by one.
                sent.close();
                acked.failed += 1;
                acked.uncertain += u64::from(error.may_have_happened());
                acked.failure.get_or_insert((line, error));
            }
        }
    }
    Ok(acked)
}

/// The next record. Lines are printed when there is none at once, or when they are many.
async fn next(
    sent: &mut mpsc::Receiver<Sent>,
    lines: &mut Vec<u8>,
    out: AcksOut,
) -> Result<Option<Sent>, Stop> {
    const LINES_BYTES: usize = 256 << 10;
    let ready = sent.try_recv().ok();
    if out == AcksOut::Stdout && !lines.is_empty() && (ready.is_none() || lines.len() >= LINES_BYTES) {
        let mut stdout: Stdout = stdout();
        stdout.write_all(lines)?;
        stdout.flush()?;
        lines.clear();
    }
    match ready {
        Some(record) => Ok(Some(record)),
        None => Ok(sent.recv().await),
    }
}

impl Acked {
    fn note(&mut self, ack: &Ack, latency: Duration) {
        self.records += 1;
        self.duplicates += u64::from(ack.duplicate);
        self.latencies.add(latency, 1);
        if !self.partitions.contains(&ack.partition) {
            self.partitions.insert(ack.partition);
        }
    }
}
