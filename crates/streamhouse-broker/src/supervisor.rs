//! Who starts the actors again when they fail. ractor's own answer would be to stop everything.
//!
//! | child fails | we | because |
//! |---|---|---|
//! | partition actor | drop it, and spawn another at the next batch; after 5 failures in a minute give it up for that minute | it holds no state of its own |
//! | flush actor | its waiters are answered as they are dropped; start another, with a pause that grows, under a new incarnation | an upload without a commit is an orphan, and names are never reused |
//! | sweep actor | start another, with a pause that grows | nobody waits |

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinHandle;

use crate::flush::{FlushActor, FlushContext, FlushHandle};
use crate::metrics::ACTOR_RESTARTS;
use crate::partition::Directory;
use crate::restart::Failures;
use crate::sweep::{SweepActor, SweepContext, SweepHandle};

/// What the supervisor looks after.
pub(crate) struct Household {
    pub(crate) flush_context: Arc<FlushContext>,
    pub(crate) flush: FlushHandle,
    pub(crate) directory: Arc<Directory>,
    pub(crate) sweep_context: Arc<SweepContext>,
    pub(crate) sweep: SweepHandle,
}

/// What the supervisor is told.
pub(crate) enum Msg {
    /// Start the flush actor.
    StartFlush,
    /// Start the sweep actor.
    StartSweep,
    /// Look for partition actors without work.
    StopIdle,
}

/// Starts the other actors, and starts them again.
pub(crate) struct Supervisor;

/// The state of the supervisor.
pub(crate) struct Children {
    household: Arc<Household>,
    flush: Option<ActorId>,
    flush_failures: Failures,
    sweep: Option<ActorId>,
    sweep_failures: Failures,
    idle_timer: JoinHandle<()>,
}

impl Actor for Supervisor {
    type Msg = Msg;
    type State = Children;
    type Arguments = Arc<Household>;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        household: Arc<Household>,
    ) -> Result<Children, ActorProcessingErr> {
        household.directory.supervised_by(me.get_cell());
        let idle_timer = look_for_idle(&household, me.clone());
        let mut children = Children {
            household,
            flush: None,
            flush_failures: Failures::default(),
            sweep: None,
            sweep_failures: Failures::default(),
            idle_timer,
        };
        children.start_flush(me.get_cell()).await?;
        children.start_sweep(me.get_cell()).await?;
        Ok(children)
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        msg: Msg,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::StartFlush => children.start_flush(me.get_cell()).await?,
            Msg::StartSweep => children.start_sweep(me.get_cell()).await?,
            Msg::StopIdle => {
                let context = &children.household.flush_context;
                let now = context.env.clock.now();
                let before = now.saturating_sub(context.settings.partition_idle);
                children.household.directory.stop_idle(before);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<Msg>,
        event: SupervisionEvent,
        children: &mut Children,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            children.failed(&me, cell.get_id(), &error);
        }
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<Msg>, children: &mut Children) -> Result<(), ActorProcessingErr> {
        children.idle_timer.abort();
        Ok(())
    }
}

impl Children {
    async fn start_flush(&mut self, supervisor: ActorCell) -> Result<(), ActorProcessingErr> {
        let context = Arc::clone(&self.household.flush_context);
        let (actor, _) = Actor::spawn_linked(None, FlushActor, context, supervisor).await?;
        self.flush = Some(actor.get_id());
        self.household.flush.set(Some(actor));
        Ok(())
    }

    async fn start_sweep(&mut self, supervisor: ActorCell) -> Result<(), ActorProcessingErr> {
        let context = Arc::clone(&self.household.sweep_context);
        let (actor, _) = Actor::spawn_linked(None, SweepActor, context, supervisor).await?;
        self.sweep = Some(actor.get_id());
        self.household.sweep.set(Some(actor));
        Ok(())
    }

    fn failed(&mut self, me: &ActorRef<Msg>, actor: ActorId, error: &ActorProcessingErr) {
        let now = self.household.flush_context.env.clock.now();
        if self.flush == Some(actor) {
            self.flush = None;
            self.household.flush.set(None);
            let pause = self.flush_failures.note(now);
            tracing::error!(%error, ?pause, "flush actor failed, a new one starts under a new incarnation");
            counter!(ACTOR_RESTARTS, "actor" => "flush").increment(1);
            self.after(pause, me, Msg::StartFlush);
        } else if self.sweep == Some(actor) {
            self.sweep = None;
            self.household.sweep.set(None);
            let pause = self.sweep_failures.note(now);
            tracing::error!(%error, ?pause, "sweep actor failed, a new one starts");
            counter!(ACTOR_RESTARTS, "actor" => "sweep").increment(1);
            self.after(pause, me, Msg::StartSweep);
        } else if let Some(partition) = self.household.directory.failed(actor, now) {
            tracing::error!(%error, %partition, "partition actor failed, the next batch gets a new one");
            counter!(ACTOR_RESTARTS, "actor" => "partition").increment(1);
        }
    }

    fn after(&self, pause: Duration, me: &ActorRef<Msg>, msg: Msg) {
        let (me, clock) = (me.clone(), Arc::clone(&self.household.flush_context.env.clock));
        tokio::spawn(async move {
            clock.sleep(pause).await;
            // A supervisor that has stopped starts nothing.
            drop(me.cast(msg));
        });
    }
}

fn look_for_idle(household: &Household, me: ActorRef<Msg>) -> JoinHandle<()> {
    let clock = Arc::clone(&household.flush_context.env.clock);
    let pause = household.flush_context.settings.partition_idle / 4;
    tokio::spawn(async move {
        loop {
            clock.sleep(pause.max(Duration::from_millis(10))).await;
            if me.cast(Msg::StopIdle).is_err() {
                return;
            }
        }
    })
}
