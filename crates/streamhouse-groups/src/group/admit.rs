//! Who may be a member, and who is one.

use super::Group;
use super::member::{Member, protocol_bytes};
use crate::{GroupError, JoinRequest, MemberRef};
use streamhouse_broker::metadata::GROUP_RECORD_BYTES_MAX;

impl Group {
    /// Whether somebody is the member that it says it is.
    pub(super) fn check_member(&self, who: &MemberRef) -> Result<(), GroupError> {
        self.check_identity(&who.id, who.instance.as_deref())
    }

    pub(super) fn check_identity(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let current = self.instances.get(instance).ok_or(GroupError::UnknownMember)?;
            if current != id {
                return Err(GroupError::Fenced);
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    /// Whether somebody is a member of this generation.
    pub(super) fn check_generation(&self, who: &MemberRef) -> Result<(), GroupError> {
        self.check_member(who)?;
        let current = who.generation == Some(self.generation);
        if current { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Whether a request to join can be met at all. `known` is the member that it comes from.
    pub(super) fn check_join(&self, request: &JoinRequest, known: Option<&str>) -> Result<(), GroupError> {
        let (min, max) = (self.settings.session_timeout_min, self.settings.session_timeout_max);
        if !(min..=max).contains(&request.session_timeout) {
            return Err(GroupError::InvalidSessionTimeout { min, max });
        }
        if request.protocol_type.is_empty() || !self.fits(request, known) {
            return Err(GroupError::InconsistentProtocol);
        }
        self.check_bytes(request, known)
    }

    /// Whether there is room for one member more. Ids that were given out take memory as well, though less.
    pub(super) fn check_room(&self) -> Result<(), GroupError> {
        let limit = self.settings.members_max;
        let full = self.members.len() >= limit || self.pending.len() > limit;
        if full { Err(GroupError::Full { limit }) } else { Ok(()) }
    }

    /// Whether there is a protocol that all members know, this one included, and they are of one kind.
    fn fits(&self, request: &JoinRequest, known: Option<&str>) -> bool {
        let mut others = self.members.iter().filter(|(id, _)| Some(id.as_str()) != known).peekable();
        if others.peek().is_none() {
            return !request.protocols.is_empty();
        }
        let others: Vec<&Member> = others.map(|(_, member)| member).collect();
        let common = |(name, _): &(String, _)| others.iter().all(|member| member.knows(name));
        request.protocol_type == self.protocol_type && request.protocols.iter().any(common)
    }

    /// Half of what is kept is for assignments.
    fn check_bytes(&self, request: &JoinRequest, known: Option<&str>) -> Result<(), GroupError> {
        let limit = GROUP_RECORD_BYTES_MAX / 2;
        let others = self.members.iter().filter(|(id, _)| Some(id.as_str()) != known);
        let texts = request.client.len() * 2
            + request.host.len()
            + request.instance.as_ref().map_or(0, String::len) * 2;
        let own = texts + protocol_bytes(&request.protocols) + 2 * 64;
        let bytes = own + others.map(|(id, member)| member.bytes(id)).sum::<usize>();
        if bytes <= limit { Ok(()) } else { Err(GroupError::TooLarge { limit }) }
    }
}
