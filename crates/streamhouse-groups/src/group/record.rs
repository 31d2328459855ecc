//! What of a group is stored, and how a coordinator goes on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use streamhouse_broker::metadata::{GroupPhase, GroupRecord, MemberRecord};

use super::member::Member;
use super::{Group, Phase};
use crate::GroupSettings;

impl Group {
    /// Goes on with what is stored. Every member has its whole session again; in a generation whose assignment is not
    /// known all are waited for.
    pub(crate) fn load(now: Duration, record: &GroupRecord, settings: GroupSettings) -> Self {
        let stored =
            |(place, record): (u64, &MemberRecord)| (record.id.clone(), Member::stored(now, record, place));
        let members: BTreeMap<String, Member> = (1..).zip(&record.members).map(stored).collect();
        let instances =
            members.iter().filter_map(|(id, member)| Some((member.instance.clone()?, id.clone())));
        let phase = match record.phase {
            GroupPhase::Empty => Phase::Empty,
            GroupPhase::Completing => Phase::Completing,
            GroupPhase::Stable => Phase::Stable,
        };
        let patience = members.values().map(|member| member.rebalance_timeout).max();
        Self {
            settings,
            protocol_type: record.protocol_type.clone(),
            protocol: record.protocol.clone(),
            generation: record.generation,
            phase,
            leader: record.leader.clone(),
            instances: instances.collect(),
            pending: BTreeMap::new(),
            sync_ends: patience.filter(|_| phase == Phase::Completing).map(|patience| now + patience),
            arrivals: members.len() as u64,
            stored_members: !members.is_empty(),
            members,
            storing: None,
        }
    }

    /// What is stored, members in the order in which they came.
    pub(super) fn record(&self) -> GroupRecord {
        let mut members: Vec<(&String, &Member)> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.arrival);
        GroupRecord {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            phase: match self.phase {
                Phase::Empty => GroupPhase::Empty,
                Phase::Preparing { .. } | Phase::Completing => GroupPhase::Completing,
                Phase::Stable => GroupPhase::Stable,
            },
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.into_iter().map(|(id, member)| member.record(id)).collect(),
        }
    }
}
