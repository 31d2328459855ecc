//! A group as it is shown.

use streamhouse_types::TopicName;

use super::member::Member;
use super::{Forget, Group, NotEmpty, Phase};
use crate::admin::{GroupState, GroupStatus, MemberDescription};
use crate::subscription::{CONSUMER, subscribed_topics};

impl Group {
    pub(crate) fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::Preparing,
            Phase::Completing => GroupState::Completing,
            Phase::Stable => GroupState::Stable,
        }
    }

    pub(crate) fn describe(&self) -> GroupStatus {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&String, &Member)| MemberDescription {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            host: member.host.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        GroupStatus {
            state: self.state(),
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            generation: self.generation,
            leader: self.leader.clone(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Of which topics offsets may be forgotten: those that no member reads. Groups whose members do not say what they
    /// read must be empty.
    pub(super) fn forget(&self, topics: &[TopicName]) -> Result<Vec<Forget>, NotEmpty> {
        if self.members.is_empty() {
            return Ok(vec![Forget::May; topics.len()]);
        }
        if self.protocol_type != CONSUMER {
            return Err(NotEmpty);
        }
        let of = |(_, metadata): &(String, bytes::Bytes)| subscribed_topics(metadata).ok_or(NotEmpty);
        let protocols = self.members.values().flat_map(|member| &member.protocols);
        let read: Vec<Vec<String>> = protocols.map(of).collect::<Result<_, _>>()?;
        let subscribed = |topic: &TopicName| read.iter().flatten().any(|read| read == topic.as_str());
        let judge = |topic: &TopicName| if subscribed(topic) { Forget::Subscribed } else { Forget::May };
        Ok(topics.iter().map(judge).collect())
    }
}
