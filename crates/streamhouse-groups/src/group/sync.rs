//! The leader assigns, the members learn what they are to do.

use std::time::Duration;

use bytes::Bytes;
use streamhouse_broker::metadata::GROUP_RECORD_BYTES_MAX;

use super::{Answer, Group, Out, Phase, Ticket};
use crate::{GroupError, SyncRequest, Synced};

impl Group {
    pub(super) fn sync(&mut self, now: Duration, ticket: Ticket, request: SyncRequest, out: &mut Out) {
        if let Err(error) = self.check_sync(&request) {
            return out.answer(ticket, Answer::Sync(Err(error)));
        }
        let id = request.member.id.as_str();
        let member = self.member_mut(id);
        member.renew(now);
        if let Some(earlier) = member.syncing.take() {
            out.answer(earlier, Answer::Sync(Err(GroupError::RebalanceInProgress)));
        }
        if self.phase == Phase::Stable {
            self.member_mut(id).synced = true;
            return out.answer(ticket, Answer::Sync(Ok(self.synced(id))));
        }
        if self.leader.as_deref() != Some(id) {
            self.member_mut(id).syncing = Some(ticket);
            return;
        }
        if let Err(error) = self.assign(request.assignments) {
            return out.answer(ticket, Answer::Sync(Err(error)));
        }
        self.phase = Phase::Stable;
        out.store = true;
        self.member_mut(id).syncing = Some(ticket);
        for id in self.ids(|member| member.syncing.is_some()) {
            let synced = self.synced(&id);
            let member = self.member_mut(&id);
            member.synced = true;
            let ticket = member.syncing.take().expect("it waits");
            out.answer(ticket, Answer::Sync(Ok(synced)));
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_generation(&request.member)?;
        let differs = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|said| said != is);
        let protocol = self.protocol.as_deref().unwrap_or_default();
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// Who is not named has nothing to do; who is named and no member is passed over.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>) -> Result<(), GroupError> {
        let assigned = assignments.iter().filter(|(id, _)| self.members.contains_key(id));
        if !self.has_room_for(assigned.map(|(_, bytes)| bytes.len()).sum()) {
            return Err(GroupError::TooLarge { limit: GROUP_RECORD_BYTES_MAX });
        }
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        Ok(())
    }

    /// Whether the group can be stored as it is.
    pub(super) fn is_storable(&self) -> bool {
        self.has_room_for(self.members.values().map(|member| member.assignment.len()).sum())
    }

    /// Whether so many bytes of assignments can be stored beside the members.
    fn has_room_for(&self, assignments: usize) -> bool {
        let members: usize = self.members.iter().map(|(id, member)| member.bytes(id)).sum();
        members + assignments + 4_096 <= GROUP_RECORD_BYTES_MAX
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self.members[id].assignment.clone(),
        }
    }
}
