//! The rules of the classic protocol written down once more, as plainly as possible: everything is looked at anew after
//! each event, nothing is stored, and time is asked for every second.

use std::collections::BTreeSet;

use super::*;
use crate::JoinedMember;
use crate::subscription::subscribed_topics;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Empty,
    /// The group was empty; it waits for more until `ends`.
    First {
        began: u64,
        ends: u64,
    },
    /// Everybody is to join until then.
    Joining {
        ends: u64,
    },
    Assigning,
    Stable,
}

#[derive(Debug, Clone)]
struct One {
    id: String,
    request: JoinRequest,
    assignment: Bytes,
    /// When it was heard of last.
    heard: u64,
    joins: Option<Ticket>,
    syncs: Option<Ticket>,
    asked: bool,
    told: bool,
}

/// The reference. Times are in seconds. Members stand in the order in which they came.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) stage: Stage,
    pub(super) generation: u32,
    pub(super) leader: Option<String>,
    ones: Vec<One>,
    given: Vec<(String, u64)>,
    kind: String,
    protocol: Option<String>,
    /// Until when members must have asked for their assignment.
    ask_by: Option<u64>,
    /// Whether the last generation had members.
    peopled: bool,
    said: Vec<(Ticket, Answer)>,
}

/// The topics that a consumer wants by its metadata for a protocol, in any order; those bytes where they are something
/// else.
fn wants(request: &JoinRequest, protocol: &str) -> Result<BTreeSet<String>, Bytes> {
    let found = request.protocols.iter().find(|(name, _)| name == protocol).expect("everybody knows it");
    subscribed_topics(&found.1).map(BTreeSet::from_iter).ok_or(found.1.clone())
}

const DELAY: u64 = 3;
const MOST: usize = 4;

impl Reference {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Empty,
            generation: 0,
            leader: None,
            ones: Vec::new(),
            given: Vec::new(),
            kind: String::new(),
            protocol: None,
            ask_by: None,
            peopled: false,
            said: Vec::new(),
        }
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.ones.iter().map(|one| one.id.clone()).collect()
    }

    /// What is answered since the last call.
    pub(super) fn take(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.said)
    }

    fn say(&mut self, ticket: Ticket, answer: Answer) {
        self.said.push((ticket, answer));
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.ones.iter().position(|one| one.id == id)
    }

    fn longest(&self) -> u64 {
        self.ones.iter().map(|one| one.request.rebalance_timeout.as_secs()).max().unwrap_or(0)
    }

    /// 25, 82: is this the member it says it is?
    fn is_member(&self, id: &str, instance: Option<&str>) -> Result<usize, GroupError> {
        if let Some(instance) = instance {
            match self.ones.iter().find(|one| one.request.instance.as_deref() == Some(instance)) {
                None => return Err(GroupError::UnknownMember),
                Some(one) if one.id != id => return Err(GroupError::Fenced),
                Some(_) => {}
            }
        }
        self.place(id).ok_or(GroupError::UnknownMember)
    }

    /// 22 as well.
    fn is_current(&self, who: &MemberRef) -> Result<usize, GroupError> {
        let place = self.is_member(&who.id, who.instance.as_deref())?;
        if who.generation == Some(self.generation) { Ok(place) } else { Err(GroupError::IllegalGeneration) }
    }

    pub(super) fn heartbeat(&mut self, now: u64, ticket: Ticket, who: &MemberRef) {
        let answer = self.is_current(who).and_then(|place| {
            self.ones[place].heard = now;
            // 3: while the members are to join, they are told so.
            match self.stage {
                Stage::First { .. } | Stage::Joining { .. } => Err(GroupError::RebalanceInProgress),
                _ => Ok(()),
            }
        });
        self.say(ticket, Answer::Heartbeat(answer));
    }

    pub(super) fn commit(&mut self, now: u64, ticket: Ticket, who: &MemberRef) {
        let answer = if self.ones.is_empty() && *who == MemberRef::default() {
            Ok(Committer::Outside)
        } else {
            self.is_current(who)
                .and_then(|place| {
                    self.ones[place].heard = now;
                    // 3: commits of the previous generation are allowed until the next has begun.
                    if self.stage == Stage::Assigning { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
                })
                .map(|()| Committer::Member { generation: self.generation })
        };
        self.say(ticket, Answer::Commit(answer));
    }

    pub(super) fn leave(&mut self, now: u64, ticket: Ticket, who: &[Leaver]) {
        let mut answers = Vec::new();
        for leaver in who {
            let named =
                |one: &&One| one.request.instance.is_some() && one.request.instance == leaver.instance;
            let id = match self.ones.iter().find(named) {
                Some(one) if leaver.id.is_empty() => one.id.clone(),
                _ => leaver.id.clone(),
            };
            if leaver.instance.is_none() && self.given.iter().any(|(given, _)| *given == id) {
                self.given.retain(|(given, _)| *given != id);
                answers.push(Ok(()));
                continue;
            }
            answers
                .push(self.is_member(&id, leaver.instance.as_deref()).map(|place| self.drop_one(now, place)));
        }
        self.say(ticket, Answer::Leave(answers));
        self.look(now);
    }

    fn drop_one(&mut self, now: u64, place: usize) {
        let one = self.ones.remove(place);
        if let Some(ticket) = one.joins {
            self.say(ticket, Answer::Join(Err(GroupError::UnknownMember)));
        }
        if let Some(ticket) = one.syncs {
            self.say(ticket, Answer::Sync(Err(GroupError::UnknownMember)));
        }
        self.begin(now);
    }

    /// A rebalance begins, unless one is under way.
    fn begin(&mut self, now: u64) {
        if matches!(self.stage, Stage::First { .. } | Stage::Joining { .. }) {
            return;
        }
        let ends = now + self.longest();
        self.stage = match self.stage {
            Stage::Empty => Stage::First { began: now, ends },
            _ => Stage::Joining { ends },
        };
        self.ask_by = None;
        for place in 0..self.ones.len() {
            if let Some(ticket) = self.ones[place].syncs.take() {
                self.ones[place].heard = now;
                self.say(ticket, Answer::Sync(Err(GroupError::RebalanceInProgress)));
            }
        }
    }

    pub(super) fn gone(&mut self, now: u64, ticket: Ticket) {
        for one in &mut self.ones {
            if one.joins == Some(ticket) || one.syncs == Some(ticket) {
                one.joins = one.joins.filter(|joins| *joins != ticket);
                one.syncs = one.syncs.filter(|syncs| *syncs != ticket);
                one.heard = now;
            }
        }
        // Who does not know its id and does not wait for it cannot come back.
        self.ones.retain(|one| one.told || one.request.instance.is_some() || one.joins.is_some());
        self.look(now);
    }

    pub(super) fn join(&mut self, now: u64, ticket: Ticket, request: &JoinRequest, fresh: &str) {
        if let Err(error) = self.try_join(now, ticket, request, fresh) {
            self.say(ticket, Answer::Join(Err(error)));
        }
        self.look(now);
    }

    fn try_join(
        &mut self,
        now: u64,
        ticket: Ticket,
        request: &JoinRequest,
        fresh: &str,
    ) -> Result<(), GroupError> {
        let instance = request.instance.as_deref();
        let given = instance.is_none() && self.given.iter().any(|(given, _)| *given == request.member);
        let own = match () {
            () if given => None,
            () if !request.member.is_empty() => Some(self.is_member(&request.member, instance)?),
            () => instance.and_then(|name| {
                self.ones.iter().position(|one| one.request.instance.as_deref() == Some(name))
            }),
        };
        // 5: one protocol that all know.
        let others =
            || self.ones.iter().enumerate().filter(|(place, _)| Some(*place) != own).map(|(_, one)| one);
        let all_know =
            |name: &str| others().all(|one| one.request.protocols.iter().any(|(known, _)| known == name));
        let common = request.protocols.iter().any(|(name, _)| all_know(name));
        let kin = others().next().is_none() || self.kind == request.protocol_type;
        if !common || !kin {
            return Err(GroupError::InconsistentProtocol);
        }
        if own.is_none() && (self.ones.len() >= MOST || self.given.len() > MOST) {
            return Err(GroupError::Full { limit: MOST });
        }
        match own {
            Some(place) if request.member.is_empty() => self.come_back(now, ticket, place, request, fresh),
            Some(place) => self.join_again(now, ticket, place, request),
            // 1: an id first.
            None if !given && instance.is_none() && request.newcomers == Newcomers::MustReturn => {
                self.given.push((fresh.to_owned(), now + request.session_timeout.as_secs()));
                return Err(GroupError::MemberIdRequired { member: fresh.to_owned() });
            }
            None => {
                self.given.retain(|(id, _)| *id != request.member);
                let id = if given { request.member.clone() } else { fresh.to_owned() };
                self.come(now, ticket, id, request);
            }
        }
        Ok(())
    }

    fn come(&mut self, now: u64, ticket: Ticket, id: String, request: &JoinRequest) {
        if self.ones.is_empty() {
            self.kind.clone_from(&request.protocol_type);
        }
        let told = !request.member.is_empty();
        let (request, joins) = (request.clone(), Some(ticket));
        let assignment = Bytes::new();
        self.ones.push(One { id, request, assignment, heard: now, joins, syncs: None, asked: false, told });
        self.begin(now);
        // 2: each new joiner extends the first wait up to the rebalance timeout.
        if let Stage::First { began, .. } = self.stage {
            self.stage = Stage::First { began, ends: (now + DELAY).min(began + self.longest()) };
        }
    }

    fn join_again(&mut self, now: u64, ticket: Ticket, place: usize, request: &JoinRequest) {
        let same = self.ones[place].request.protocols == request.protocols;
        let leads = self.leader.as_ref() == Some(&self.ones[place].id);
        self.ones[place].heard = now;
        if same && (self.stage == Stage::Assigning || (self.stage == Stage::Stable && !leads)) {
            let told = self.told(place);
            return self.say(ticket, Answer::Join(Ok(told)));
        }
        if self.ones.len() == 1 {
            self.kind.clone_from(&request.protocol_type);
        }
        let instance = self.ones[place].request.instance.clone();
        self.ones[place].request = JoinRequest { instance, ..request.clone() };
        self.begin(now);
        if let Some(earlier) = self.ones[place].joins.replace(ticket) {
            self.say(earlier, Answer::Join(Err(GroupError::RebalanceInProgress)));
        }
    }

    /// 4: a static member comes back under a new id; the old one is fenced.
    fn come_back(&mut self, now: u64, ticket: Ticket, place: usize, request: &JoinRequest, fresh: &str) {
        let one = &mut self.ones[place];
        let (old, before) = (one.id.clone(), one.request.clone());
        one.id = fresh.to_owned();
        one.request = request.clone();
        one.heard = now;
        one.told = false;
        let (joins, syncs) = (one.joins.take(), one.syncs.take());
        joins.into_iter().for_each(|ticket| self.say(ticket, Answer::Join(Err(GroupError::Fenced))));
        syncs.into_iter().for_each(|ticket| self.say(ticket, Answer::Sync(Err(GroupError::Fenced))));
        if self.ones.len() == 1 {
            self.kind.clone_from(&request.protocol_type);
        }
        let led = self.leader.as_ref() == Some(&old);
        if led {
            self.leader = Some(fresh.to_owned());
        }
        if self.stage == Stage::Stable && self.is_as_it_was(&before, request) {
            self.ones[place].told = true;
            // What is stored gives everybody a new session.
            self.ones.iter_mut().for_each(|one| one.heard = now);
            let told = Joined { skip_assignment: led, ..self.told(place) };
            return self.say(ticket, Answer::Join(Ok(told)));
        }
        self.begin(now);
        self.ones[place].joins = Some(ticket);
    }

    /// Whether nobody else needs to hear of a static member that is back: the vote stands, and it wants the same topics.
    /// What groups of other kinds say is opaque.
    fn is_as_it_was(&self, before: &JoinRequest, now: &JoinRequest) -> bool {
        if before.protocol_type != "consumer" || now.protocol_type != "consumer" {
            return before.protocols == now.protocols;
        }
        let leader = self.ones.iter().find(|one| Some(&one.id) == self.leader.as_ref()).expect("a leader");
        let protocol = self.protocol.clone().expect("a protocol");
        self.elect(leader) == protocol && wants(before, &protocol) == wants(now, &protocol)
    }

    fn told(&self, place: usize) -> Joined {
        let protocol = self.protocol.clone().expect("a generation has a protocol");
        let leader = self.leader.clone().expect("a generation has a leader");
        let mut members: Vec<JoinedMember> = Vec::new();
        if leader == self.ones[place].id {
            members.extend(
                self.ones.iter().map(|one| JoinedMember {
                    id: one.id.clone(),
                    instance: one.request.instance.clone(),
                    metadata: one
                        .request
                        .protocols
                        .iter()
                        .find(|(name, _)| *name == protocol)
                        .expect("known")
                        .1
                        .clone(),
                }),
            );
            members.sort_by(|one, other| one.id.cmp(&other.id));
        }
        Joined {
            member: self.ones[place].id.clone(),
            generation: self.generation,
            protocol_type: self.kind.clone(),
            protocol,
            leader,
            skip_assignment: false,
            members,
        }
    }

    pub(super) fn sync(
        &mut self,
        now: u64,
        ticket: Ticket,
        who: &MemberRef,
        assignments: &[(String, Bytes)],
    ) {
        let place = match self.is_current(who) {
            Ok(place) => place,
            Err(error) => return self.say(ticket, Answer::Sync(Err(error))),
        };
        // 3: while the members are to join, they are told so.
        if matches!(self.stage, Stage::First { .. } | Stage::Joining { .. }) {
            return self.say(ticket, Answer::Sync(Err(GroupError::RebalanceInProgress)));
        }
        self.ones[place].heard = now;
        if let Some(earlier) = self.ones[place].syncs.replace(ticket) {
            self.say(earlier, Answer::Sync(Err(GroupError::RebalanceInProgress)));
        }
        if self.stage == Stage::Assigning && self.leader.as_ref() == Some(&who.id) {
            for (id, bytes) in assignments {
                if let Some(place) = self.place(id) {
                    self.ones[place].assignment = bytes.clone();
                }
            }
            self.stage = Stage::Stable;
            self.ones.iter_mut().for_each(|one| one.heard = now);
        }
        if self.stage == Stage::Stable {
            for place in 0..self.ones.len() {
                let Some(ticket) = self.ones[place].syncs.take() else { continue };
                self.ones[place].asked = true;
                let synced = Synced {
                    protocol_type: self.kind.clone(),
                    protocol: self.protocol.clone().expect("a generation has a protocol"),
                    assignment: self.ones[place].assignment.clone(),
                };
                self.say(ticket, Answer::Sync(Ok(synced)));
            }
        }
    }

    /// A second has passed.
    pub(super) fn second(&mut self, now: u64) {
        self.given.retain(|(_, ends)| *ends > now);
        // 7: whoever is blocked in a request is not expired.
        let silent = |one: &One| {
            one.joins.is_none()
                && one.syncs.is_none()
                && one.heard + one.request.session_timeout.as_secs() <= now
        };
        let late = self.ask_by.is_some_and(|ends| ends <= now);
        if late {
            self.ask_by = None;
        }
        let gone = |one: &&One| silent(one) || (late && !one.asked && one.syncs.is_none());
        let gone: Vec<String> = self.ones.iter().filter(gone).map(|one| one.id.clone()).collect();
        for id in gone {
            let place = self.place(&id).expect("it was there");
            self.drop_one(now, place);
        }
        self.look(now);
    }

    /// 4: a rebalance ends when all known members have joined, or at its time; the missing are dropped.
    fn look(&mut self, now: u64) {
        let over = match self.stage {
            Stage::First { ends, .. } => now >= ends || self.ones.is_empty(),
            Stage::Joining { ends } => {
                let all = self.ones.iter().all(|one| one.joins.is_some()) && self.given.is_empty();
                now >= ends || self.ones.is_empty() || all
            }
            _ => false,
        };
        if !over {
            return;
        }
        self.ones.retain(|one| one.joins.is_some() || one.request.instance.is_some());
        if self.ones.is_empty() {
            (self.stage, self.leader, self.protocol, self.ask_by) = (Stage::Empty, None, None, None);
            self.generation += u32::from(std::mem::take(&mut self.peopled));
            return;
        }
        let joined = |one: &&One| one.joins.is_some();
        let kept = self.ones.iter().filter(joined).find(|one| Some(&one.id) == self.leader.as_ref());
        let Some(leader) = kept.or_else(|| self.ones.iter().find(joined)).cloned() else {
            let ends = now + self.longest().max(1);
            self.stage = match self.stage {
                Stage::First { began, .. } => Stage::First { began, ends },
                _ => Stage::Joining { ends },
            };
            self.leader = None;
            return;
        };
        self.protocol = Some(self.elect(&leader));
        self.leader = Some(leader.id);
        // 10: the first is 1.
        self.generation += 1;
        self.peopled = true;
        self.stage = Stage::Assigning;
        self.ask_by = Some(now + self.longest());
        for one in &mut self.ones {
            (one.asked, one.heard, one.assignment) = (false, now, Bytes::new());
        }
        for place in 0..self.ones.len() {
            if let Some(ticket) = self.ones[place].joins.take() {
                self.ones[place].told = true;
                let told = self.told(place);
                self.say(ticket, Answer::Join(Ok(told)));
            }
        }
    }

    /// 5: by vote; between equals what the leader likes best.
    fn elect(&self, leader: &One) -> String {
        let knows = |one: &One, name: &str| one.request.protocols.iter().any(|(known, _)| known == name);
        let common: Vec<&String> = leader.request.protocols.iter().map(|(name, _)| name).collect();
        let common: Vec<&String> =
            common.into_iter().filter(|name| self.ones.iter().all(|one| knows(one, name))).collect();
        let mut best = (0, None);
        for name in &common {
            let likes = |one: &&One| {
                one.request.protocols.iter().map(|(name, _)| name).find(|known| common.contains(known))
                    == Some(*name)
            };
            let votes = self.ones.iter().filter(likes).count();
            if votes > best.0 {
                best = (votes, Some((*name).clone()));
            }
        }
        best.1.expect("members have a protocol in common")
    }
}
