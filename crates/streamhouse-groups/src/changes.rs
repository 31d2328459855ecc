//! Changes of groups on their way into the metadata log: one proposal of this node at a time, in the order in which they
//! were handed over.
//!
//! A lone change on a quiet node goes at once; under load what comes within ten milliseconds goes together. A proposal
//! whose answer is lost is proposed again, word for word and under the same number, until it is answered: a copy that
//! comes late is then known by its number, and no offset ever goes back by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_broker::metadata::{
    ChangeGroups, Command, FeatureLevel, GroupChange, GroupVerdict, Outcome, State,
};
use streamhouse_broker::{Broker, ProposeError};
use streamhouse_env::Env;
use streamhouse_types::{Incarnation, NodeId};
use tokio::sync::Notify;

/// Shortest time from one proposal to the next.
const INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of one proposal, roughly; at least one change goes, however large.
const PROPOSAL_BYTES: usize = 1 << 20;
/// Bytes that may wait, roughly. What comes then is refused.
const WAITING_BYTES: usize = 64 << 20;
/// How long to wait before a proposal that has to wait for another one is made again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is said that changes wait.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Why a change has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Too much waits; it did not happen.
    Overloaded,
    /// Not all nodes know groups yet; it did not happen.
    Feature,
    /// The node is not registered now; it did not happen.
    NotRegistered,
    /// It may have happened.
    Unknown,
}

/// What is done with the verdict.
type Done = Box<dyn FnOnce(Result<GroupVerdict, Lost>) + Send>;

/// The way of this node's changes into the log. Clones are the same.
#[derive(Clone)]
pub(crate) struct Changes(Arc<Shared>);

struct Shared {
    broker: Broker,
    env: Env,
    node: NodeId,
    queue: Mutex<Queue>,
    wake: Notify,
    quiet: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// A proposal is under way.
    proposing: bool,
    closed: bool,
}

struct Waiting {
    change: GroupChange,
    bytes: usize,
    done: Done,
}

/// Where this node is in the numbers of its incarnation.
#[derive(Debug, Clone, Copy)]
struct Numbered {
    incarnation: Incarnation,
    last: u64,
}

impl Changes {
    /// Starts the task that proposes; it ends after [`Self::close`].
    pub(crate) fn start(broker: Broker, env: Env, node: NodeId) -> Self {
        let changes = Self(Arc::new(Shared {
            broker,
            env,
            node,
            queue: Mutex::default(),
            wake: Notify::new(),
            quiet: Notify::new(),
        }));
        tokio::spawn(changes.clone().run());
        changes
    }

    /// Hands a change over. `done` hears the verdict, in the order of the calls; it must be brief.
    pub(crate) fn submit(
        &self,
        change: GroupChange,
        done: impl FnOnce(Result<GroupVerdict, Lost>) + Send + 'static,
    ) {
        let bytes = weight(&change);
        let mut queue = self.0.queue.lock();
        let lost = match () {
            () if queue.closed => Some(Lost::NotRegistered),
            () if queue.bytes + bytes > WAITING_BYTES => Some(Lost::Overloaded),
            () => None,
        };
        if let Some(lost) = lost {
            drop(queue);
            return done(Err(lost));
        }
        queue.bytes += bytes;
        queue.waiting.push_back(Waiting { change, bytes, done: Box::new(done) });
        drop(queue);
        self.0.wake.notify_one();
    }

    /// Waits until nothing is under way. Cancel-safe.
    pub(crate) async fn flushed(&self) {
        loop {
            let quiet = self.0.quiet.notified();
            {
                let queue = self.0.queue.lock();
                if queue.waiting.is_empty() && !queue.proposing {
                    return;
                }
            }
            quiet.await;
        }
    }

    /// Takes no more changes; those that wait have not happened.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut queue = self.0.queue.lock();
            queue.closed = true;
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        self.0.wake.notify_one();
        waiting.into_iter().for_each(|waiting| (waiting.done)(Err(Lost::NotRegistered)));
    }

    fn is_closed(&self) -> bool {
        self.0.queue.lock().closed
    }

    async fn run(self) {
        let mut numbered = None;
        let mut next = Duration::ZERO;
        loop {
            while !self.is_waiting() {
                if self.is_closed() {
                    return;
                }
                self.0.wake.notified().await;
            }
            self.0.env.clock.sleep_until(next).await;
            let batch = self.take();
            next = self.0.env.clock.now() + INTERVAL;
            self.carry_out(batch, &mut numbered).await;
            self.0.queue.lock().proposing = false;
            self.0.quiet.notify_waiters();
        }
    }

    fn is_waiting(&self) -> bool {
        !self.0.queue.lock().waiting.is_empty()
    }

    /// What goes into the next proposal.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.0.queue.lock();
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(waiting) = queue.waiting.front() {
            if !batch.is_empty() && bytes + waiting.bytes > PROPOSAL_BYTES {
                break;
            }
            bytes += waiting.bytes;
            batch.extend(queue.waiting.pop_front());
        }
        queue.bytes -= bytes;
        queue.proposing = true;
        batch
    }

    async fn carry_out(&self, batch: Vec<Waiting>, numbered: &mut Option<Numbered>) {
        let (changes, done): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.change, waiting.done)).unzip();
        match self.propose(changes, numbered).await {
            Ok(verdicts) => {
                // Whoever misses one hears that nothing is known.
                let verdicts = verdicts.into_iter().map(Ok).chain(std::iter::repeat(Err(Lost::Unknown)));
                done.into_iter().zip(verdicts).for_each(|(done, verdict)| done(verdict));
            }
            Err(lost) => done.into_iter().for_each(|done| done(Err(lost))),
        }
    }

    /// Proposes under the next number until there is an answer, or can be none.
    async fn propose(
        &self,
        changes: Vec<GroupChange>,
        numbered: &mut Option<Numbered>,
    ) -> Result<Vec<GroupVerdict>, Lost> {
        let Shared { broker, env, node, .. } = &*self.0;
        // A node of the release before stops at such a command, so none may come into the log before all are upgraded.
        if broker.look(State::feature_level) < FeatureLevel::GROUPS {
            return Err(Lost::Feature);
        }
        let incarnation = broker.incarnation().ok_or(Lost::NotRegistered)?;
        let last =
            numbered.filter(|before| before.incarnation == incarnation).map_or(0, |before| before.last);
        let sequence = last + 1;
        let command = ChangeGroups { node: *node, incarnation, sequence, changes };
        let taken = Some(Numbered { incarnation, last: sequence });
        let (mut lost, mut warn_at) = (Lost::NotRegistered, Duration::ZERO);
        loop {
            match broker.propose(Command::ChangeGroups(command.clone())).await {
                Ok(Outcome::GroupsChanged { verdicts }) => {
                    *numbered = taken;
                    return Ok(verdicts);
                }
                Ok(Outcome::NotYet) => env.clock.sleep(PAUSE).await,
                Ok(Outcome::SlotRefused(_)) => {
                    // A node that stops closes its incarnation itself, and wants no other.
                    if !self.is_closed() {
                        broker.incarnation_closed(incarnation);
                    }
                    return Err(Lost::Unknown);
                }
                Ok(outcome) => {
                    tracing::error!(?outcome, "changes of groups got an answer that is none");
                    return Err(Lost::Unknown);
                }
                Err(error) => {
                    if env.clock.now() >= warn_at {
                        warn_at = env.clock.now() + WARN_EVERY;
                        tracing::warn!(%error, "changes of groups wait for the metadata log");
                    }
                    env.clock.sleep(PAUSE).await;
                    if matches!(error, ProposeError::Unknown { .. }) {
                        lost = Lost::Unknown;
                    }
                }
            }
            if self.is_closed() || broker.incarnation() != Some(incarnation) {
                // Nothing may follow under a number that is in doubt, and nothing will: the incarnation is over.
                return Err(lost);
            }
        }
    }
}

/// What a change weighs in the log, roughly.
fn weight(change: &GroupChange) -> usize {
    let own = 64 + change.group().as_str().len();
    own + match change {
        GroupChange::Claim { .. } => 0,
        GroupChange::Store { record, .. } => {
            let member = |member: &streamhouse_broker::metadata::MemberRecord| {
                let protocols = member.protocols.iter().map(|(name, bytes)| name.len() + bytes.len() + 16);
                256 + member.assignment.len() + protocols.sum::<usize>()
            };
            record.members.iter().map(member).sum()
        }
        GroupChange::Commit { offsets, .. } => {
            offsets.iter().map(|offset| 32 + offset.metadata.as_ref().map_or(0, String::len)).sum()
        }
        GroupChange::DeleteOffsets { partitions, .. } => 16 * partitions.len(),
    }
}
