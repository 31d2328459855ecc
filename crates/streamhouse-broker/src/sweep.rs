//! The sweep: deletes what was uploaded and never committed, and what nothing refers to any more.
//!
//! Metadata alone decides. An orphan is an object that is neither referenced nor on the garbage list, and whose slot
//! can never be committed any more: that stays true for ever, so the order of listing and looking does not matter for
//! safety; listing first merely finds more. Garbage goes after the grace and after the readers that may follow it.
//! The metadata forgets garbage only after it is deleted; in between it cannot be taken for anything else.

mod plan;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use metrics::counter;
use parking_lot::RwLock;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use streamhouse_env::Env;
use streamhouse_metadata::{Command, ForgetObjects, State};
use streamhouse_storage::layout::Named;
use streamhouse_storage::{Layout, Purpose, Store};
use streamhouse_types::{LogIndex, ObjectId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::MetadataLog;
use crate::error::StorageError;
use crate::metrics::SWEEP_DELETED;
use crate::pins::Pins;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Objects that were never committed and are gone now.
    pub orphans_deleted: u64,
    /// Objects that nothing referred to any more and that are gone now.
    pub garbage_deleted: u64,
    /// Objects that will go, but not yet: garbage within its grace or still read, uploads that are not decided.
    pub waiting: u64,
}

/// Says which node sweeps, and how far: the readers of other nodes follow metadata too.
#[async_trait]
pub trait SweepGate: Send + Sync + 'static {
    /// Whether this node is the one that sweeps by itself.
    fn is_ours(&self) -> bool;

    /// Up to which index what died is read by no other node; `None` while that is not known, so that no garbage may be
    /// deleted. Cancel-safe.
    async fn floor(&self) -> Option<LogIndex>;
}

/// The gate of a node that is alone.
#[async_trait]
impl SweepGate for () {
    fn is_ours(&self) -> bool {
        true
    }

    async fn floor(&self) -> Option<LogIndex> {
        Some(LogIndex::new(u64::MAX))
    }
}

/// What the sweep works with; it outlives the actor.
pub(crate) struct SweepContext {
    pub(crate) env: Env,
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) store: Store,
    pub(crate) layout: Layout,
    pub(crate) pins: Pins,
    pub(crate) gate: Arc<dyn SweepGate>,
    pub(crate) interval: Duration,
    pub(crate) grace: Duration,
}

type Reply = oneshot::Sender<Result<SweepReport, StorageError>>;

/// The way to the sweep actor, also after it was restarted.
#[derive(Clone, Default)]
pub(crate) struct SweepHandle(Arc<RwLock<Option<ActorRef<Msg>>>>);

impl SweepHandle {
    /// Points at the actor that runs now.
    pub(crate) fn set(&self, actor: Option<ActorRef<Msg>>) {
        *self.0.write() = actor;
    }

    /// Sweeps now, or as soon as the sweep that runs has ended.
    pub(crate) async fn sweep(&self) -> Result<SweepReport, StorageError> {
        let (port, report) = oneshot::channel();
        let actor = self.0.read().clone().ok_or(StorageError::Stopping)?;
        actor.cast(Msg::Sweep(port)).map_err(|_| StorageError::Stopping)?;
        report.await.unwrap_or(Err(StorageError::Stopping))
    }
}

/// When the first sweep begins, at the latest.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(10);

/// What the sweep actor is asked and told.
pub(crate) enum Msg {
    /// Sweeps and answers.
    Sweep(Reply),
    /// The interval has passed.
    Due,
    /// A sweep has ended.
    Swept,
}

/// Sweeps from time to time and on demand, one sweep at a time.
pub(crate) struct SweepActor;

/// The state of the sweep actor.
pub(crate) struct Sweeper {
    context: Arc<SweepContext>,
    running: Option<JoinHandle<()>>,
    /// Those who want a sweep that begins after they asked.
    waiting: Vec<Reply>,
    timer: JoinHandle<()>,
}

impl Actor for SweepActor {
    type Msg = Msg;
    type State = Sweeper;
    type Arguments = Arc<SweepContext>;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        context: Arc<SweepContext>,
    ) -> Result<Sweeper, ActorProcessingErr> {
        let (clock, interval) = (Arc::clone(&context.env.clock), context.interval);
        let timer = tokio::spawn(async move {
            // What a killed process left behind goes soon after the start.
            clock.sleep(interval.min(FIRST_SWEEP_AFTER)).await;
            while me.cast(Msg::Due).is_ok() {
                clock.sleep(interval).await;
            }
        });
        Ok(Sweeper { context, running: None, waiting: Vec::new(), timer })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        msg: Msg,
        sweeper: &mut Sweeper,
    ) -> Result<(), ActorProcessingErr> {
        let due = match msg {
            Msg::Sweep(port) => {
                sweeper.waiting.push(port);
                true
            }
            Msg::Due => sweeper.context.gate.is_ours(),
            Msg::Swept => {
                sweeper.running = None;
                !sweeper.waiting.is_empty()
            }
        };
        if due && sweeper.running.is_none() {
            sweeper.start(me);
        }
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<Msg>, sweeper: &mut Sweeper) -> Result<(), ActorProcessingErr> {
        sweeper.timer.abort();
        if let Some(running) = sweeper.running.take() {
            running.abort();
        }
        Ok(())
    }
}

impl Sweeper {
    fn start(&mut self, me: ActorRef<Msg>) {
        let context = Arc::clone(&self.context);
        let replies = std::mem::take(&mut self.waiting);
        let ended = Ended(me);
        self.running = Some(tokio::spawn(async move {
            let _ended = ended;
            let mut swept = sweep(&context).await;
            match &swept {
                Ok(report) => tracing::debug!(?report, "swept"),
                Err(error) => tracing::warn!(error = error as &dyn std::error::Error, "sweep ended early"),
            }
            for port in replies {
                let answer = match &mut swept {
                    Ok(report) => Ok(*report),
                    // One error cannot be told twice; whoever comes second asks again.
                    error => std::mem::replace(error, Err(StorageError::Stopping)),
                };
                drop(port.send(answer));
            }
        }));
    }
}

/// Tells the actor that a sweep has ended, also when it panicked.
struct Ended(ActorRef<Msg>);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.cast(Msg::Swept));
    }
}

/// How many objects are deleted at once.
const DELETES_AT_ONCE: usize = 8;
/// How many objects one command makes the metadata forget.
const FORGET_AT_ONCE: usize = 1_000;

/// Sweeps once.
pub(crate) async fn sweep(context: &SweepContext) -> Result<SweepReport, StorageError> {
    let listed = list(context).await?;
    context.log.read_index().await?;
    let mut state = context.log.state();
    if state.garbage().next().is_some() {
        // Cluster time stands still on an idle cluster; any command lets the leader move it.
        nudge(context).await?;
        state = context.log.state();
    }
    // Asked before the state is judged: what dies later is not in it.
    let floor = context.gate.floor().await;
    let held = |died| context.pins.hold(died) || floor.is_none_or(|floor| died > floor);
    let plan = plan::plan(&state, &listed, context.grace, held);
    let orphans = delete(context, &state, plan.orphans).await;
    let garbage = delete(context, &state, plan.garbage).await;
    counter!(SWEEP_DELETED, "class" => "orphan").increment(orphans.len() as u64);
    counter!(SWEEP_DELETED, "class" => "garbage").increment(garbage.len() as u64);
    for objects in garbage.chunks(FORGET_AT_ONCE) {
        propose(context, Command::ForgetObjects(ForgetObjects { objects: objects.to_vec() })).await?;
    }
    Ok(SweepReport {
        orphans_deleted: orphans.len() as u64,
        garbage_deleted: garbage.len() as u64,
        waiting: plan.waiting,
    })
}

async fn list(context: &SweepContext) -> Result<Vec<ObjectId>, StorageError> {
    let named = |meta: streamhouse_storage::BlobMeta| match context.layout.parse(&meta.key) {
        Some(Named::Wal(object)) => Some(object),
        _ => None,
    };
    let listing = context.store.list(&context.layout.wal_prefix(), Purpose::Sweep);
    Ok(listing.try_filter_map(|meta| futures::future::ready(Ok(named(meta)))).try_collect().await?)
}

async fn nudge(context: &SweepContext) -> Result<(), StorageError> {
    propose(context, Command::ForgetObjects(ForgetObjects { objects: Vec::new() })).await
}

async fn propose(context: &SweepContext, command: Command) -> Result<(), StorageError> {
    match context.log.propose(vec![command]).await.pop() {
        Some(Err(error)) => Err(StorageError::Propose(error)),
        _ => Ok(()),
    }
}

/// Deletes objects, and returns those that are gone.
async fn delete(context: &SweepContext, state: &State, objects: Vec<ObjectId>) -> Vec<ObjectId> {
    let deletions = objects.into_iter().map(|object| async move {
        // The last look before bytes are destroyed: metadata that refers to an object always wins.
        assert!(state.object(&object).is_none(), "the sweep chose {object}, which metadata refers to");
        let key = context.layout.wal_key(&object);
        match context.store.delete(&key, Purpose::Sweep).await {
            Ok(()) => Some(object),
            Err(error) => {
                tracing::warn!(%object, error = &error as &dyn std::error::Error, "object was not deleted");
                None
            }
        }
    });
    let deletions = futures::stream::iter(deletions).buffer_unordered(DELETES_AT_ONCE);
    deletions.filter_map(futures::future::ready).collect().await
}
