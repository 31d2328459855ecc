//! What became of each record, in the order of the lines.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_client::{Ack, PartitionIndex, SendError, Ticket};
use streamhouse_env::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::latency::Latencies;

/// Records whose acks are waited for; more wait to be sent.
const TICKETS_MAX: usize = 1 << 20;

/// Hears of each record that is durable, in the order of the lines.
pub trait Listener: Send + 'static {
    /// The record of `line` is durable.
    ///
    /// # Errors
    /// When nobody can be told any more: the waiting ends with it.
    fn acked(&mut self, line: u64, ack: &Ack) -> io::Result<()>;

    /// Nothing more is known for the moment: who gathers lines may let them go.
    ///
    /// # Errors
    /// As [`acked`](Self::acked).
    fn pause(&mut self) -> io::Result<()>;
}

/// Nobody listens.
impl Listener for () {
    fn acked(&mut self, _line: u64, _ack: &Ack) -> io::Result<()> {
        Ok(())
    }

    fn pause(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A record that was taken.
#[derive(Debug)]
struct Sent {
    line: u64,
    at: Duration,
    ticket: Ticket,
}

/// What became of all records.
#[derive(Debug, Default)]
pub struct Acked {
    /// Records that are durable.
    pub records: u64,
    /// Records that are not, as far as is known.
    pub failed: u64,
    /// Of those, records that may be durable all the same.
    pub uncertain: u64,
    /// Records that an earlier try had written already.
    pub duplicates: u64,
    /// Where records went.
    pub partitions: BTreeSet<PartitionIndex>,
    /// From sending to the acknowledgement.
    pub latencies: Latencies,
    /// The first failure and its line.
    pub failure: Option<(u64, SendError)>,
}

/// Takes tickets and waits for them beside the sending.
#[derive(Debug)]
pub struct Acks(mpsc::Sender<Sent>);

/// Room for one ticket.
#[derive(Debug)]
pub struct Room<'a>(mpsc::Permit<'a, Sent>);

impl Room<'_> {
    /// Hands the ticket of a line over; `at` is when its record was sent.
    pub fn take(self, line: u64, at: Duration, ticket: Ticket) {
        self.0.send(Sent { line, at, ticket });
    }
}

impl Acks {
    /// Starts to wait for tickets; the task ends when this is dropped and every ticket is decided.
    pub fn track(clock: Arc<dyn Clock>, listener: impl Listener) -> (Self, JoinHandle<io::Result<Acked>>) {
        let (sender, receiver) = mpsc::channel(TICKETS_MAX);
        (Self(sender), tokio::spawn(wait_for_all(receiver, clock, listener)))
    }

    /// Waits for room; `None` when a record has failed and no more are wanted. Cancel-safe.
    pub async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }
}

async fn wait_for_all(
    mut sent: mpsc::Receiver<Sent>,
    clock: Arc<dyn Clock>,
    mut listener: impl Listener,
) -> io::Result<Acked> {
    let mut acked = Acked::default();
    loop {
        let ready = match sent.try_recv() {
            Ok(record) => Some(record),
            Err(_) => {
                listener.pause()?;
                sent.recv().await
            }
        };
        let Some(Sent { line, at, ticket }) = ready else { return Ok(acked) };
        match ticket.await {
            Ok(ack) => {
                acked.note(&ack, clock.now().saturating_sub(at));
                listener.acked(line, &ack)?;
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
