//! Members come, and come again.

use std::time::Duration;

use super::member::Member;
use super::{Answer, Group, Out, Phase, Ticket};
use crate::subscription::{CONSUMER, asks_the_same};
use crate::{GroupError, JoinRequest, Joined, JoinedMember, Newcomers};

impl Group {
    pub(super) fn join(
        &mut self,
        now: Duration,
        ticket: Ticket,
        request: JoinRequest,
        fresh: String,
        out: &mut Out,
    ) {
        if let Err(error) = self.try_join(now, ticket, request, fresh, out) {
            out.answer(ticket, Answer::Join(Err(error)));
        }
    }

    fn try_join(
        &mut self,
        now: Duration,
        ticket: Ticket,
        request: JoinRequest,
        fresh: String,
        out: &mut Out,
    ) -> Result<(), GroupError> {
        let instance = request.instance.clone();
        if !request.member.is_empty() {
            let id = request.member.clone();
            if instance.is_none() && self.pending.contains_key(&id) {
                self.check_join(&request, Some(&id))?;
                self.check_room()?;
                self.pending.remove(&id);
                self.arrive(now, ticket, id, request, out);
                return Ok(());
            }
            self.check_identity(&id, instance.as_deref())?;
            self.check_join(&request, Some(&id))?;
            self.rejoin(now, ticket, &id, request, out);
            return Ok(());
        }
        let replaced = instance.as_ref().and_then(|instance| self.instances.get(instance)).cloned();
        self.check_join(&request, replaced.as_deref())?;
        if replaced.is_some() {
            self.replace(now, ticket, request, fresh, out);
            return Ok(());
        }
        self.check_room()?;
        if instance.is_none() && request.newcomers == Newcomers::MustReturn {
            self.pending.insert(fresh.clone(), now + request.session_timeout);
            return Err(GroupError::MemberIdRequired { member: fresh });
        } else {
            self.arrive(now, ticket, fresh, request, out);
        }
        Ok(())
    }

    /// A new member.
    fn arrive(&mut self, now: Duration, ticket: Ticket, id: String, request: JoinRequest, out: &mut Out) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        if let Some(instance) = &request.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.arrivals += 1;
        let mut member = Member::new(now, request, self.arrivals);
        member.joining = Some(ticket);
        self.members.insert(id, member);
        self.prepare(now, out);
        self.wait_for_more(now);
    }

    /// A member that is known joins again.
    fn rejoin(&mut self, now: Duration, ticket: Ticket, id: &str, request: JoinRequest, out: &mut Out) {
        let leads = self.leader.as_deref() == Some(id);
        let alone = self.members.len() == 1;
        let member = self.member_mut(id);
        let same = member.protocols == request.protocols;
        member.renew(now);
        let missed = match self.phase {
            // Its answer may have been lost.
            Phase::Completing => same,
            // A leader that joins wants to assign anew.
            Phase::Stable => same && !leads,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        if missed {
            let joined = self.joined(id);
            out.answer(ticket, Answer::Join(Ok(joined)));
            return;
        }
        if alone {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        self.member_mut(id).update(request);
        self.prepare(now, out);
        self.park(id, ticket, out);
    }

    /// A static member comes back without its id: it is given another one, and whoever has the old one is fenced.
    fn replace(&mut self, now: Duration, ticket: Ticket, request: JoinRequest, fresh: String, out: &mut Out) {
        let instance = request.instance.clone().expect("a static member");
        let old = self.instances.insert(instance, fresh.clone()).expect("it was found by its name");
        let mut member = self.members.remove(&old).expect("an instance names a member");
        if let Some(waiting) = member.joining.take() {
            out.answer(waiting, Answer::Join(Err(GroupError::Fenced)));
        }
        if let Some(waiting) = member.syncing.take() {
            out.answer(waiting, Answer::Sync(Err(GroupError::Fenced)));
        }
        let consumes = self.protocol_type == CONSUMER && request.protocol_type == CONSUMER;
        let protocol = self.protocol.clone().unwrap_or_default();
        let (metadata, equal) = (member.metadata(&protocol), member.protocols == request.protocols);
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        member.update(request);
        member.told = false;
        member.renew(now);
        self.members.insert(fresh.clone(), member);
        if self.leader.as_deref() == Some(old.as_str()) {
            self.leader = Some(fresh.clone());
        }
        let same = |group: &Self| match consumes {
            true => group.wants_the_same(&fresh, &protocol, &metadata),
            false => equal,
        };
        if self.phase == Phase::Stable && same(self) && self.is_storable() {
            out.store = true;
            self.member_mut(&fresh).told = true;
            let joined = self.joined(&fresh);
            let skip_assignment = joined.leader == fresh;
            out.answer(ticket, Answer::Join(Ok(Joined { skip_assignment, ..joined })));
            return;
        }
        self.prepare(now, out);
        self.park(&fresh, ticket, out);
    }

    /// Whether the vote stands as it is with what a consumer says now, and it asks for the topics that it asked for in its
    /// earlier `metadata`.
    fn wants_the_same(&self, id: &str, protocol: &str, metadata: &[u8]) -> bool {
        let vote = self.leader.as_deref().and_then(|leader| self.vote(leader));
        vote.as_deref() == Some(protocol) && asks_the_same(metadata, &self.members[id].metadata(protocol))
    }

    /// The member waits for the others.
    fn park(&mut self, id: &str, ticket: Ticket, out: &mut Out) {
        if let Some(earlier) = self.member_mut(id).joining.replace(ticket) {
            out.answer(earlier, Answer::Join(Err(GroupError::RebalanceInProgress)));
        }
    }

    /// What a member is told of the generation.
    pub(super) fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == id { self.everybody(&protocol) } else { Vec::new() };
        Joined {
            member: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader,
            skip_assignment: false,
            members,
        }
    }

    fn everybody(&self, protocol: &str) -> Vec<JoinedMember> {
        let seen = |(id, member): (&String, &Member)| JoinedMember {
            id: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(seen).collect()
    }
}
