//! From batches to committed WAL objects: one buffer, many slots.

mod actor;
mod buffer;
mod entry;
mod group_commit;
mod lane;
mod seal;
mod settle;
mod work;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::RwLock;
use ractor::ActorRef;
use streamhouse_env::Env;
use streamhouse_storage::{Layout, Store};
use streamhouse_types::{Incarnation, NodeId};
use tokio::sync::{oneshot, watch};

pub(crate) use actor::{FlushActor, Msg};
pub(crate) use entry::{Entry, Load, Reply, Waiter};
pub(crate) use group_commit::Trigger;
pub(crate) use seal::SealedEntry;

use crate::error::NotRegistered;
use crate::metrics::Meters;
use crate::tail::TailCache;
use crate::{BrokerSettings, ByteBudget, MetadataLog};

/// What the flush actor works with; it outlives the actor.
pub(crate) struct FlushContext {
    pub(crate) node: NodeId,
    pub(crate) zone: String,
    pub(crate) addresses: Vec<(String, String)>,
    pub(crate) env: Env,
    pub(crate) settings: BrokerSettings,
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) store: Store,
    pub(crate) layout: Layout,
    pub(crate) tail: Arc<TailCache>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) budget: ByteBudget,
    /// The incarnation under which the node writes; `None` while it has none.
    pub(crate) incarnation: watch::Sender<Registration>,
    /// Whether the node tries to store what it is sent.
    pub(crate) access: watch::Sender<StoreAccess>,
}

/// Whether a node tries to store what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreAccess {
    /// It does, and waits for a store that does not answer.
    #[default]
    Tried,
    /// It does not, as its store does not answer while that of others does: whoever waits is sent there at once.
    CutOff,
}

/// Whether a node hears of a majority of the voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contact {
    /// It does, or did lately.
    #[default]
    Kept,
    /// It has not for so long that others had better be asked.
    Lost,
}

/// How the node stands with the metadata.
#[derive(Debug, Clone, Default)]
pub(crate) enum Registration {
    /// It is being registered.
    #[default]
    Pending,
    /// It is registered.
    Open(Incarnation),
    /// It was refused for good.
    Refused(Arc<NotRegistered>),
}

/// The way to the flush actor, also after it was restarted. Clones are the same way.
#[derive(Clone, Default)]
pub(crate) struct FlushHandle(Arc<RwLock<Option<ActorRef<Msg>>>>);

impl FlushHandle {
    /// Points at the actor that runs now.
    pub(crate) fn set(&self, actor: Option<ActorRef<Msg>>) {
        *self.0.write() = actor;
    }

    pub(crate) fn actor(&self) -> Option<ActorRef<Msg>> {
        self.0.read().clone()
    }

    /// Hands a batch or unit over; calls are kept in their order. When there is no actor, the entry is dropped, which
    /// answers its waiter.
    pub(crate) fn append(&self, entry: Entry) {
        if let Some(actor) = &*self.0.read() {
            // An actor that has stopped gives the message back inside the error, and it is dropped with it.
            drop(actor.cast(Msg::Append(entry)));
        }
    }

    /// Tells the actor that an incarnation is closed.
    pub(crate) fn closed(&self, incarnation: Incarnation) {
        if let Some(actor) = self.actor() {
            drop(actor.cast(Msg::Closed(incarnation)));
        }
    }

    /// Tells the actor under which incarnation it writes, or that it never will.
    pub(crate) fn registered(&self, registered: Result<Incarnation, Arc<NotRegistered>>) {
        if let Some(actor) = self.actor() {
            drop(actor.cast(Msg::Registered(registered)));
        }
    }

    /// Flushes what there is, and waits until every batch is answered.
    pub(crate) async fn drain(&self) {
        let (port, drained) = oneshot::channel();
        if let Some(actor) = self.actor() {
            drop(actor.cast(Msg::Drain(port)));
        }
        // When the port is lost, so is the actor and what it held: there is nothing left to wait for.
        drop(drained.await);
    }

    /// Waits until the loop comes round; `false` when there is none at the moment. Cancel-safe.
    pub(crate) async fn ping(&self) -> bool {
        let (port, answered) = oneshot::channel();
        match self.actor() {
            Some(actor) => actor.cast(Msg::Ping(port)).is_ok() && answered.await.is_ok(),
            None => false,
        }
    }
}
