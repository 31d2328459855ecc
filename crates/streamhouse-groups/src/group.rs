//! The rules of one group: Kafka's classic protocol. Pure: no clock, no randomness, no I/O.
//!
//! What the others must know before a member is answered is stored first: whoever looks after the group next finds it.
//! While it is being stored nothing else is looked at, so answers never tell of something that may be lost.

mod admit;
mod describe;
mod join;
mod leave;
mod member;
mod rebalance;
mod record;
mod sync;
#[cfg(any(test, fuzzing))]
pub(crate) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use streamhouse_broker::metadata::{Committer, GroupRecord};
use streamhouse_types::TopicName;

use crate::admin::GroupStatus;
use crate::{GroupError, GroupSettings, JoinRequest, Joined, Leaver, MemberRef, SyncRequest, Synced};
use member::Member;

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What happens to a group.
#[derive(Debug)]
pub(crate) enum Input {
    /// A member joins; `fresh` is the id it is given when it needs one.
    Join { ticket: Ticket, request: JoinRequest, fresh: String },
    /// A member wants its assignment.
    Sync { ticket: Ticket, request: SyncRequest },
    /// A member is there.
    Heartbeat { ticket: Ticket, member: MemberRef },
    /// Members go.
    Leave { ticket: Ticket, members: Vec<Leaver> },
    /// Somebody wants to commit offsets.
    Commit { ticket: Ticket, member: MemberRef },
    /// Somebody wants offsets of these topics forgotten.
    Forget { ticket: Ticket, topics: Vec<TopicName> },
    /// Somebody wants to see the group.
    Describe { ticket: Ticket },
    /// Those who sent these do not wait for the answer any more.
    Gone(Vec<Ticket>),
    /// What was to be stored is stored.
    Stored,
    /// The deadline has come.
    Time,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Answer a request.
    Answer(Ticket, Answer),
    /// Store this, then say so.
    Store(GroupRecord),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Join(Result<Joined, GroupError>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    Leave(Vec<Result<(), GroupError>>),
    Commit(Result<Committer, GroupError>),
    Forget(Result<Vec<Forget>, NotEmpty>),
    Describe(GroupStatus),
}

/// Whether offsets of a topic may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    May,
    Subscribed,
}

/// The group has members, and what they read cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotEmpty;

/// How far the group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No members.
    Empty,
    /// Members are expected to join until `ends`.
    Preparing { window: Window, ends: Duration },
    /// The generation is known, its assignment is not.
    Completing,
    /// Everybody has an assignment, or can have it.
    Stable,
}

/// What a rebalance waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    /// More members, as the group was empty until `began`.
    First { began: Duration },
    /// All members that are known.
    Members,
}

/// One group as its coordinator has it in memory.
#[derive(Debug)]
pub(crate) struct Group {
    settings: GroupSettings,
    protocol_type: String,
    protocol: Option<String>,
    generation: u32,
    phase: Phase,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids of static members by instance.
    instances: BTreeMap<String, String>,
    /// Ids that were given out and not used yet, with the time at which they are forgotten.
    pending: BTreeMap<String, Duration>,
    /// Until when the members of this generation must have asked for their assignment.
    sync_ends: Option<Duration>,
    /// How many members have come so far.
    arrivals: u64,
    /// Whether what is stored has members.
    stored_members: bool,
    storing: Option<Held>,
}

/// What waits for the store.
#[derive(Debug, Default)]
struct Held {
    answers: Vec<(Ticket, Answer)>,
    inputs: VecDeque<Input>,
}

/// What a step comes to.
#[derive(Debug, Default)]
struct Out {
    answers: Vec<(Ticket, Answer)>,
    store: bool,
}

impl Out {
    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.answers.push((ticket, answer));
    }
}

impl Group {
    /// Takes the next input at `now`, which never goes back.
    pub(crate) fn handle(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        if !matches!(input, Input::Stored) {
            return match &mut self.storing {
                Some(held) => {
                    held.inputs.push_back(input);
                    Vec::new()
                }
                None => self.step(now, input),
            };
        }
        let Some(held) = self.storing.take() else { return Vec::new() };
        // Their time runs from the answers, which leave now.
        self.members.values_mut().for_each(|member| member.renew(now));
        let mut effects: Vec<Effect> =
            held.answers.into_iter().map(|(ticket, answer)| Effect::Answer(ticket, answer)).collect();
        for input in held.inputs {
            effects.extend(self.handle(now, input));
        }
        effects
    }

    /// When [`Input::Time`] is due; `None` while there is nothing to wait for, or something is being stored.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.storing.is_some() {
            return None;
        }
        let ends = match self.phase {
            Phase::Preparing { ends, .. } => Some(ends),
            _ => None,
        };
        let silences = self.members.values().filter_map(Member::expires);
        let late = self.sync_ends.filter(|_| self.members.values().any(Member::owes_sync));
        silences.chain(self.pending.values().copied()).chain(ends).chain(late).min()
    }

    /// Whether it can be forgotten without anybody noticing.
    pub(crate) fn is_idle(&self) -> bool {
        self.storing.is_none() && self.members.is_empty() && self.pending.is_empty()
    }

    fn step(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        let mut out = Out::default();
        match input {
            Input::Join { ticket, request, fresh } => self.join(now, ticket, request, fresh, &mut out),
            Input::Sync { ticket, request } => self.sync(now, ticket, request, &mut out),
            Input::Heartbeat { ticket, member } => {
                out.answer(ticket, Answer::Heartbeat(self.heartbeat(now, &member)));
            }
            Input::Leave { ticket, members } => self.leave(now, ticket, &members, &mut out),
            Input::Commit { ticket, member } => out.answer(ticket, Answer::Commit(self.commit(now, &member))),
            Input::Forget { ticket, topics } => out.answer(ticket, Answer::Forget(self.forget(&topics))),
            Input::Describe { ticket } => out.answer(ticket, Answer::Describe(self.describe())),
            Input::Gone(tickets) => self.gone(now, &tickets),
            Input::Time => self.expire(now, &mut out),
            Input::Stored => unreachable!("it is handled before"),
        }
        self.settle(now, &mut out);
        let answers = out.answers.into_iter();
        if out.store {
            self.stored_members = !self.members.is_empty();
            self.storing = Some(Held { answers: answers.collect(), inputs: VecDeque::new() });
            return vec![Effect::Store(self.record())];
        }
        answers.map(|(ticket, answer)| Effect::Answer(ticket, answer)).collect()
    }

    /// A member is there.
    fn heartbeat(&mut self, now: Duration, who: &MemberRef) -> Result<(), GroupError> {
        self.check_generation(who)?;
        self.member_mut(&who.id).renew(now);
        match self.phase {
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Empty | Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// As whom somebody may commit. Members may until a new generation has begun; in it they first must know what they
    /// are to read.
    fn commit(&mut self, now: Duration, who: &MemberRef) -> Result<Committer, GroupError> {
        let outside = who.id.is_empty() && who.instance.is_none() && who.generation.is_none();
        if outside && self.members.is_empty() {
            return Ok(Committer::Outside);
        }
        self.check_generation(who)?;
        self.member_mut(&who.id).renew(now);
        match self.phase {
            Phase::Completing => Err(GroupError::RebalanceInProgress),
            Phase::Empty | Phase::Preparing { .. } | Phase::Stable => {
                Ok(Committer::Member { generation: self.generation })
            }
        }
    }

    /// Those whose time is over go; what was waited for long enough is not waited for any more.
    fn expire(&mut self, now: Duration, out: &mut Out) {
        self.pending.retain(|_, ends| *ends > now);
        let mut gone = self.ids(|member| member.expires().is_some_and(|expires| expires <= now));
        if self.sync_ends.is_some_and(|ends| ends <= now) {
            self.sync_ends = None;
            gone.extend(self.ids(Member::owes_sync));
        }
        for id in gone {
            self.remove(now, &id, out);
        }
    }

    /// Those who sent these do not wait any more. Who was never told its id cannot come back.
    fn gone(&mut self, now: Duration, tickets: &[Ticket]) {
        for id in self.ids(|member| member.waits_with(tickets)) {
            let member = self.member_mut(&id);
            member.hang_up(tickets);
            member.renew(now);
            if member.is_lost() {
                self.forget_member(&id);
            }
        }
    }

    fn ids(&self, which: impl Fn(&Member) -> bool) -> Vec<String> {
        self.members.iter().filter(|(_, member)| which(member)).map(|(id, _)| id.clone()).collect()
    }

    fn member_mut(&mut self, id: &str) -> &mut Member {
        self.members.get_mut(id).expect("it was looked up before")
    }
}
