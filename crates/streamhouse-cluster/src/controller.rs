//! The actor that leads while this node leads: it hears the beats, and does one duty after the other.
//!
//! On every other node it sleeps. `handle` awaits nothing: work is started, and comes back as a message.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use streamhouse_broker::MetadataLog;
use streamhouse_env::Env;
use streamhouse_metadata::{Command, Liveness, Outcome};
use streamhouse_types::{LogIndex, NodeId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clocks::{AgreedTime, Calendar, Known, is_near, is_open, middle};
use crate::duties::{Duty, duties, expiry};
use crate::lease::Leases;
use crate::membership::{Membership, MembershipFault};
use crate::{Beat, BeatAnswer, LeaseSettings, metrics};

/// After a duty that failed, or whose effect comes later, nothing is tried for so long.
const PAUSE: Duration = Duration::from_millis(500);

/// How often producers and consumer groups are looked for that have been silent for long.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// How long joining nodes wait for a majority to show its clocks.
const CLOCKS_WAIT: Duration = Duration::from_secs(10);

/// What a controller works with.
pub struct ControllerOptions {
    /// This node.
    pub node: NodeId,
    /// Clock.
    pub env: Env,
    /// The metadata log.
    pub log: Arc<dyn MetadataLog>,
    /// Its members.
    pub membership: Arc<dyn Membership>,
    /// How long silence is borne.
    pub settings: LeaseSettings,
    /// How long offsets of a consumer group are kept after its last member has gone.
    pub offset_retention: Duration,
    /// What time it is, as this node finds out while it leads.
    pub time: AgreedTime,
    /// Counts the changes of nodes, topics and homes: duties are looked for when it has moved.
    pub version: Arc<AtomicU64>,
}

/// What the leader knows of a node beside the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberContact {
    /// Since it was heard of last.
    pub silent: Duration,
    /// Its newest beat.
    pub beat: Beat,
}

/// The way to the controller of this node. Clones lead to the same.
#[derive(Clone)]
pub struct Controller {
    actor: ActorRef<Msg>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

/// The controller has stopped, or this node does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node does not lead")]
pub struct NotLeading;

impl Controller {
    /// Starts the controller. It runs until [`stop`](Self::stop).
    ///
    /// # Errors
    /// When the actor cannot be started.
    pub async fn start(options: ControllerOptions) -> Result<Self, String> {
        let started = Supervised::spawn(None, Supervised, Arc::new(options)).await;
        let (actor, _) = started.map_err(|error| error.to_string())?;
        Ok(Self { actor })
    }

    /// A node shows that it lives. Cancel-safe.
    ///
    /// # Errors
    /// When this node does not lead.
    pub async fn beat(&self, beat: Beat) -> Result<BeatAnswer, NotLeading> {
        self.ask(|port| Msg::Beat(beat, port)).await
    }

    /// What the leader knows of each node. Cancel-safe.
    ///
    /// # Errors
    /// When this node does not lead.
    pub async fn contacts(&self) -> Result<Vec<(NodeId, MemberContact)>, NotLeading> {
        self.ask(Msg::Contacts).await
    }

    /// Up to which index what died may be deleted, as far as the other nodes go; `None` while one of them has not said
    /// what it reads. Cancel-safe.
    ///
    /// # Errors
    /// When this node does not lead.
    pub async fn pin_floor(&self) -> Result<Option<LogIndex>, NotLeading> {
        self.ask(Msg::PinFloor).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Msg) -> Result<T, NotLeading> {
        let (port, answer) = oneshot::channel();
        self.actor.cast(ask(port)).map_err(|_| NotLeading)?;
        answer.await.unwrap_or(Err(NotLeading))
    }

    /// Stops it. A duty under way goes on to its end.
    pub fn stop(&self) {
        self.actor.stop(None);
    }
}

type Reply<T> = oneshot::Sender<Result<T, NotLeading>>;

/// What the controller is asked and told.
pub(crate) enum Msg {
    Look,
    Beat(Beat, Reply<BeatAnswer>),
    Contacts(Reply<Vec<(NodeId, MemberContact)>>),
    PinFloor(Reply<Option<LogIndex>>),
    /// A duty has ended.
    Done(Ended),
}

/// How a duty ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// It was asked for, and shows later whether it comes to be.
    Asked,
    Badly,
}

struct Supervised;

/// The state of the controller.
struct Leading {
    options: Arc<ControllerOptions>,
    /// The term that this node leads in.
    term: Option<u64>,
    leases: Leases,
    /// When its term began.
    led_since: Duration,
    /// Nodes whose calendar is far from those of most.
    astray: BTreeSet<NodeId>,
    /// Duties were looked for at this version and none was found.
    settled: Option<u64>,
    busy: bool,
    rest_until: Duration,
    expire_at: Duration,
    timer: JoinHandle<()>,
}

impl Actor for Supervised {
    type Msg = Msg;
    type State = Leading;
    type Arguments = Arc<ControllerOptions>;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        options: Arc<ControllerOptions>,
    ) -> Result<Leading, ActorProcessingErr> {
        let (clock, look) = (Arc::clone(&options.env.clock), options.settings.look);
        let timer = tokio::spawn(async move {
            while me.cast(Msg::Look).is_ok() {
                clock.sleep(look).await;
            }
        });
        let leases = Leases::new(options.settings);
        let rest_until = Duration::ZERO;
        let expire_at = options.env.clock.now() + EXPIRE_EVERY;
        Ok(Leading {
            options,
            term: None,
            leases,
            led_since: Duration::ZERO,
            astray: BTreeSet::new(),
            settled: None,
            busy: false,
            rest_until,
            expire_at,
            timer,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Msg>,
        msg: Msg,
        leading: &mut Leading,
    ) -> Result<(), ActorProcessingErr> {
        let now = leading.options.env.clock.now();
        leading.follow_leadership(now);
        match msg {
            Msg::Look => leading.look(now, &me),
            // Whoever asked may have given up.
            Msg::Beat(beat, port) => drop(port.send(leading.beat(beat, now))),
            Msg::Contacts(port) => drop(port.send(leading.contacts(now))),
            Msg::PinFloor(port) => drop(port.send(leading.pin_floor())),
            Msg::Done(ended) => {
                leading.busy = false;
                if ended == Ended::Well {
                    leading.look(now, &me);
                } else {
                    leading.settled = None;
                    leading.rest_until = now + PAUSE;
                }
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _me: ActorRef<Msg>, leading: &mut Leading) -> Result<(), ActorProcessingErr> {
        leading.timer.abort();
        Ok(())
    }
}

impl Leading {
    /// Begins anew whenever this node comes to lead.
    fn follow_leadership(&mut self, now: Duration) {
        let leadership = self.options.membership.leadership();
        let term = leadership.leads.then_some(leadership.term);
        if term == self.term {
            return;
        }
        self.term = term;
        self.settled = None;
        self.leases.begin(now);
        self.astray.clear();
        self.options.time.set(Known::Nothing);
        self.led_since = now;
        metrics::show(None);
        if let Some(term) = term {
            tracing::info!(node = %self.options.node, term, "this node leads the cluster");
        }
    }

    fn beat(&mut self, beat: Beat, now: Duration) -> Result<BeatAnswer, NotLeading> {
        self.term.ok_or(NotLeading)?;
        let state = self.options.log.state();
        Ok(self.leases.beat(beat, now, &state))
    }

    fn contacts(&self, now: Duration) -> Result<Vec<(NodeId, MemberContact)>, NotLeading> {
        self.term.ok_or(NotLeading)?;
        let state = self.options.log.state();
        let contact =
            |id| self.leases.contact(id, now).map(|(silent, beat)| (id, MemberContact { silent, beat }));
        Ok(state.nodes().filter_map(|node| contact(node.id())).collect())
    }

    fn pin_floor(&self) -> Result<Option<LogIndex>, NotLeading> {
        self.term.ok_or(NotLeading)?;
        Ok(self.leases.pin_floor(&self.options.log.state(), self.options.node))
    }

    /// Finds out what time it is by the calendars of most nodes, once a majority of the voters has shown theirs.
    fn look_at_clocks(&mut self, now: Duration) {
        let own = Calendar::of(self.options.env.clock.wall(), now);
        let mut calendars = self.leases.calendars(now, own);
        calendars.retain(|(id, _)| *id != self.options.node);
        calendars.push((self.options.node, own));
        let members = self.options.membership.members();
        let voters: Vec<NodeId> =
            members.iter().filter(|member| member.voter).map(|member| member.node).collect();
        let shown = calendars.iter().filter(|(id, _)| voters.contains(id)).count();
        let agreed = middle(calendars.iter().map(|(_, calendar)| *calendar).collect());
        let time = &self.options.time;
        time.set(match agreed {
            Some(agreed) if shown * 2 > voters.len() => {
                let all = calendars.iter().map(|(_, calendar)| *calendar).collect();
                if is_open(all) { Known::Unsure(Some(agreed)) } else { Known::Sure(agreed) }
            }
            // Whoever cannot beat here may still be right about everything else.
            _ if now.saturating_sub(self.led_since) > CLOCKS_WAIT => Known::Unsure(None),
            _ => Known::Nothing,
        });
        let ahead = calendars.iter().filter_map(|(id, calendar)| Some((*id, time.ahead(*calendar)?)));
        let astray: Vec<(NodeId, i64)> = ahead.filter(|(_, ahead)| !is_near(*ahead)).collect();
        for (node, ahead_ms) in astray.iter().filter(|(node, _)| !self.astray.contains(node)) {
            let seconds_ahead = ahead_ms / 1_000;
            tracing::warn!(%node, seconds_ahead, "the clock of a node is far from those of most; set it, such as by NTP");
        }
        self.astray = astray.into_iter().map(|(node, _)| node).collect();
    }

    /// Judges the leases, then looks for other duties when something has changed.
    fn look(&mut self, now: Duration, me: &ActorRef<Msg>) {
        if self.term.is_some() {
            self.look_at_clocks(now);
        }
        if self.term.is_none() || self.busy || now < self.rest_until {
            return;
        }
        let state = self.options.log.state();
        let judged = self.leases.judge(now, &state, self.options.node);
        if !judged.is_empty() {
            for node in judged.iter().filter_map(died) {
                if self.leases.is_cut_off(node) {
                    tracing::warn!(%node, "node alone cannot write to the object store, its homes go to others");
                } else {
                    tracing::warn!(%node, "node is silent, its homes go to others");
                }
            }
            return self.start(vec![Duty::Propose(judged)], me);
        }
        if now >= self.expire_at {
            self.expire_at = now + EXPIRE_EVERY;
            let commands = expiry(&state, self.options.offset_retention);
            if !commands.is_empty() {
                return self.start(vec![Duty::Propose(commands)], me);
            }
        }
        // Members catch up without a change of the metadata, so their number counts as well.
        let version = self.options.version.load(Ordering::Acquire);
        let members = self.options.membership.members();
        let unready = members.iter().any(|member| !member.voter && !member.caught_up);
        if self.settled == Some(version) {
            return;
        }
        let unfinished = self.options.membership.unfinished();
        let duties = duties(&state, &members, unfinished, self.options.node);
        metrics::show(Some(&state));
        if duties.is_empty() {
            self.settled = (!unready).then_some(version);
            return;
        }
        self.start(duties, me);
    }

    fn start(&mut self, duties: Vec<Duty>, me: &ActorRef<Msg>) {
        self.busy = true;
        self.settled = None;
        let options = Arc::clone(&self.options);
        let done = Done(me.clone(), Ended::Badly);
        tokio::spawn(async move {
            let mut done = done;
            for duty in duties {
                let ended = options.carry_out(duty).await;
                if ended != Ended::Well {
                    done.1 = ended;
                    return;
                }
            }
            done.1 = Ended::Well;
        });
    }
}

/// Tells the controller that a duty has ended, also when it panicked.
struct Done(ActorRef<Msg>, Ended);

impl Drop for Done {
    fn drop(&mut self) {
        drop(self.0.cast(Msg::Done(self.1)));
    }
}

impl ControllerOptions {
    async fn carry_out(&self, duty: Duty) -> Ended {
        match duty {
            Duty::Propose(commands) => self.propose(commands).await,
            Duty::SetVoters(voters) => {
                tracing::info!(?voters, "the voters change");
                told(self.membership.set_voters(voters).await)
            }
            Duty::PassOn(node) => {
                tracing::info!(to = %node, "leadership is passed on");
                match told(self.membership.pass_on(node).await) {
                    Ended::Well => Ended::Asked,
                    otherwise => otherwise,
                }
            }
            Duty::Remove(node) => {
                tracing::info!(%node, "a removed node leaves the metadata log");
                told(self.membership.remove(node).await)
            }
        }
    }

    async fn propose(&self, commands: Vec<Command>) -> Ended {
        commands.iter().for_each(announce);
        let outcomes = self.log.propose(commands).await;
        let mut ended = Ended::Well;
        for outcome in outcomes {
            match outcome {
                Ok(Outcome::HomesMoved { moved }) => metrics::moved(moved),
                Ok(Outcome::Refused(refusal)) => ended = refused(&refusal),
                Ok(Outcome::MemberRefused(refusal)) => ended = refused(&refusal),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a command of the leader was not answered");
                    ended = Ended::Badly;
                }
            }
        }
        ended
    }
}

/// The node that a command calls dead.
fn died(command: &Command) -> Option<NodeId> {
    match command {
        Command::JudgeNode { node, liveness: Liveness::Dead, .. } => Some(*node),
        _ => None,
    }
}

fn announce(command: &Command) {
    match command {
        Command::JudgeNode { liveness: Liveness::Dead, .. } => metrics::lost(),
        Command::JudgeNode { node, liveness: Liveness::Alive, .. } => tracing::info!(%node, "node is back"),
        Command::CloseIncarnation { node, incarnation } => {
            tracing::warn!(%node, %incarnation, "node was silent for long, its incarnation is closed");
        }
        Command::MoveHomes { moves } => tracing::info!(homes = moves.len(), "homes move"),
        _ => {}
    }
}

/// A command that was refused would be refused again at once.
fn refused(refusal: &dyn std::fmt::Display) -> Ended {
    tracing::warn!(error = %refusal, "a command of the leader was refused");
    Ended::Badly
}

fn told(changed: Result<(), MembershipFault>) -> Ended {
    match changed {
        Ok(()) => Ended::Well,
        Err(error) => {
            tracing::warn!(%error, "the members were not changed");
            Ended::Badly
        }
    }
}

#[cfg(test)]
mod tests;
