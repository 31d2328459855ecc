//! The partition actors: each fixes the order in which the batches of its partition reach the flush actor.
//!
//! An actor is spawned on first use and stopped after a while without work; a partition without one costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorRuntime};
use streamhouse_types::PartitionId;
use tokio::sync::oneshot;

use crate::AppendError;
use crate::error::Obstacle;
use crate::flush::{Entry, FlushHandle};
use crate::restart::Failures;

/// What a partition actor is asked.
pub(crate) enum Msg {
    /// Takes a batch.
    Append(Entry),
    /// Answers when everything before it was handed on.
    Flushed(oneshot::Sender<()>),
    /// Fails, so that its supervision can be tested.
    #[cfg(test)]
    Crash,
}

/// Fixes the order of the batches of one partition.
pub(crate) struct PartitionActor;

/// The state of a partition actor.
pub(crate) struct Order {
    flush: FlushHandle,
    handled: Arc<AtomicU64>,
}

impl Actor for PartitionActor {
    type Msg = Msg;
    type State = Order;
    type Arguments = Order;

    async fn pre_start(&self, _me: ActorRef<Msg>, order: Order) -> Result<Order, ActorProcessingErr> {
        Ok(order)
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        msg: Msg,
        order: &mut Order,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Append(entry) => order.flush.append(entry),
            // Whoever no longer waits has dropped its end.
            Msg::Flushed(port) => {
                let _ = port.send(());
            }
            #[cfg(test)]
            Msg::Crash => panic!("asked to"),
        }
        order.handled.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// The partition actors at work.
pub(crate) struct Directory {
    flush: FlushHandle,
    residents: RwLock<Residents>,
}

#[derive(Default)]
struct Residents {
    closed: bool,
    supervisor: Option<ActorCell>,
    partitions: BTreeMap<PartitionId, Resident>,
    failures: BTreeMap<PartitionId, Failures>,
}

struct Resident {
    actor: ActorRef<Msg>,
    sent: AtomicU64,
    handled: Arc<AtomicU64>,
    last_used_ms: AtomicU64,
}

impl Resident {
    /// Sends a message; when the actor is gone, the message is dropped, which answers its waiter.
    fn send(&self, msg: Msg, now: Duration) -> Result<(), Gone> {
        self.last_used_ms.store(millis(now), Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.actor.cast(msg).map_err(|_| Gone)
    }
}

/// The actor has stopped.
struct Gone;

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Directory {
    /// A partition actor that fails this often within a minute is given up for that minute.
    const FAILURES_MAX: usize = 5;

    pub(crate) fn new(flush: FlushHandle) -> Self {
        Self { flush, residents: RwLock::new(Residents::default()) }
    }

    /// From now on actors can be spawned.
    pub(crate) fn supervised_by(&self, supervisor: ActorCell) {
        self.residents.write().supervisor = Some(supervisor);
    }

    /// Hands a batch to its partition's actor. Calls are kept in their order per partition.
    pub(crate) fn append(&self, partition: PartitionId, entry: Entry, now: Duration) {
        {
            let residents = self.residents.read();
            if residents.closed {
                return entry.waiter.judged(Err(AppendError::Stopping));
            }
            if let Some(resident) = residents.partitions.get(&partition) {
                if resident.send(Msg::Append(entry), now).is_ok() {
                    return;
                }
                drop(residents);
                self.residents.write().partitions.remove(&partition);
                return;
            }
        }
        let mut residents = self.residents.write();
        match residents.resident(partition, &self.flush, now) {
            Ok(resident) => drop(resident.send(Msg::Append(entry), now)),
            Err(error) => entry.waiter.judged(Err(error)),
        }
    }

    /// Hands a unit to the flush actor, which orders across partitions.
    pub(crate) fn append_unit(&self, entry: Entry) {
        let residents = self.residents.read();
        if residents.closed {
            return entry.waiter.judged(Err(AppendError::Stopping));
        }
        self.flush.append(entry);
    }

    /// Refuses what comes from now on, and waits until what came before was handed on.
    pub(crate) async fn close(&self, now: Duration) {
        let flushed: Vec<_> = {
            let mut residents = self.residents.write();
            residents.closed = true;
            let ask = |resident: &Resident| {
                let (port, flushed) = oneshot::channel();
                resident.send(Msg::Flushed(port), now).ok().map(|()| flushed)
            };
            residents.partitions.values().filter_map(ask).collect()
        };
        for flushed in flushed {
            // A lost port is an actor that failed; what it held is answered.
            drop(flushed.await);
        }
    }

    /// Stops the actors that have had no work since `before`.
    pub(crate) fn stop_idle(&self, before: Duration) {
        let before = millis(before);
        let mut residents = self.residents.write();
        // Messages are sent under the read lock, so what is counted as sent is in the mailbox.
        residents.partitions.retain(|_, resident| {
            let handled = resident.handled.load(Ordering::Acquire);
            let busy = resident.sent.load(Ordering::Relaxed) != handled;
            let keep = busy || resident.last_used_ms.load(Ordering::Relaxed) >= before;
            if !keep {
                resident.actor.stop(None);
            }
            keep
        });
    }

    /// An actor failed: the next batch of its partition gets a new one. Answers whether it was one of these.
    pub(crate) fn failed(&self, actor: ActorId, now: Duration) -> Option<PartitionId> {
        let mut residents = self.residents.write();
        let found = residents.partitions.iter().find(|(_, resident)| resident.actor.get_id() == actor);
        let partition = found.map(|(partition, _)| *partition)?;
        residents.partitions.remove(&partition);
        residents.failures.entry(partition).or_default().note(now);
        Some(partition)
    }

    /// How many actors there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.residents.read().partitions.len()
    }

    /// Makes the actor of a partition fail.
    #[cfg(test)]
    pub(crate) fn crash(&self, partition: PartitionId) {
        let residents = self.residents.read();
        if let Some(resident) = residents.partitions.get(&partition) {
            drop(resident.actor.cast(Msg::Crash));
        }
    }
}

impl Residents {
    fn resident(
        &mut self,
        partition: PartitionId,
        flush: &FlushHandle,
        now: Duration,
    ) -> Result<&Resident, AppendError> {
        if self.closed {
            return Err(AppendError::Stopping);
        }
        if let Some(failures) = self.failures.get_mut(&partition) {
            match failures.count(now) {
                0 => drop(self.failures.remove(&partition)),
                Directory::FAILURES_MAX.. => {
                    return Err(AppendError::NotStored { obstacle: Obstacle::Restarted });
                }
                _ => {}
            }
        }
        if !self.partitions.contains_key(&partition) {
            let supervisor = self.supervisor.clone().ok_or(AppendError::Stopping)?;
            let handled = Arc::new(AtomicU64::new(0));
            let order = Order { flush: flush.clone(), handled: Arc::clone(&handled) };
            let (actor, _) = ActorRuntime::spawn_linked_instant(None, PartitionActor, order, supervisor)
                .map_err(|_| AppendError::NotStored { obstacle: Obstacle::Restarted })?;
            let resident = Resident {
                actor,
                sent: AtomicU64::new(0),
                handled,
                last_used_ms: AtomicU64::new(millis(now)),
            };
            self.partitions.insert(partition, resident);
        }
        Ok(&self.partitions[&partition])
    }
}
