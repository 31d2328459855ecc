//! Groups are claimed, changed, moved to other offsets, deleted, and expire.

use std::collections::BTreeMap;
use std::sync::Arc;

use streamhouse_types::{GroupId, Incarnation, NodeId, Offset, PartitionId, SlotSequence, Timestamp};

use super::{
    ChangeGroups, CommittedOffset, Committer, GROUP_RECORD_BYTES_MAX, GROUPS_BYTES_MAX, GroupChange,
    GroupEntry, GroupRecord, GroupVerdict, Groups, OFFSET_METADATA_BYTES_MAX, OffsetCommit, Writer,
    group_bytes, offset_bytes,
};
use crate::state::State;
use crate::topics::Intent;
use crate::{GroupRefusal, Outcome, Refusal, SlotRefusal};

/// What the memory for all groups is called when there is no more.
const GROUPS_LIMIT: &str = "bytes of consumer groups";

type Judged = Result<GroupVerdict, GroupVerdict>;

fn over(what: &str, limit: usize) -> GroupVerdict {
    GroupVerdict::Limit { what: what.to_owned(), limit: limit as u64 }
}

impl Groups {
    /// Fails when `after` bytes in place of `before` would be too many. What shrinks always fits.
    fn judge_growth(&self, before: u64, after: u64) -> Result<(), GroupVerdict> {
        let fits = after <= before || self.bytes + after <= GROUPS_BYTES_MAX + before;
        let limit = || GroupVerdict::Limit { what: GROUPS_LIMIT.to_owned(), limit: GROUPS_BYTES_MAX };
        fits.then_some(()).ok_or_else(limit)
    }

    /// The entry of a group, which is new when there was none.
    fn entry_or_new(&mut self, group: &GroupId, now: Timestamp) -> &mut GroupEntry {
        if !self.by_id.contains_key(group) {
            self.bytes += group_bytes(group);
            Arc::make_mut(&mut self.by_id).insert(group.clone(), Arc::new(GroupEntry::new(now)));
        }
        self.entry_mut(group)
    }

    fn entry_mut(&mut self, group: &GroupId) -> &mut GroupEntry {
        let entry = Arc::make_mut(&mut self.by_id).get_mut(group);
        entry.map(Arc::make_mut).expect("the group was found")
    }

    fn remove(&mut self, group: &GroupId) {
        if let Some(entry) = Arc::make_mut(&mut self.by_id).remove(group) {
            self.bytes -= group_bytes(group) + entry.bytes();
        }
    }

    /// Notes offsets of a group that is there.
    fn put_offsets(
        &mut self,
        group: &GroupId,
        offsets: impl Iterator<Item = (PartitionId, CommittedOffset)>,
    ) {
        let mut bytes = self.bytes;
        let known = Arc::make_mut(&mut self.entry_mut(group).offsets);
        for (partition, offset) in offsets {
            bytes += offset.bytes();
            bytes -= known.insert(partition, offset).map_or(0, |old| old.bytes());
        }
        self.bytes = bytes;
    }

    /// Forgets offsets of a group that is there.
    fn drop_offsets(&mut self, group: &GroupId, partitions: impl Iterator<Item = PartitionId>) {
        let mut bytes = self.bytes;
        let known = Arc::make_mut(&mut self.entry_mut(group).offsets);
        for partition in partitions {
            bytes -= known.remove(&partition).map_or(0, |old| old.bytes());
        }
        self.bytes = bytes;
    }
}

impl State {
    pub(crate) fn change_groups(&mut self, command: &ChangeGroups) -> Outcome {
        let ChangeGroups { node, incarnation, sequence, .. } = *command;
        if let Some(outcome) = self.answer_writer(node, incarnation, sequence) {
            return outcome;
        }
        let mut verdicts = Vec::with_capacity(command.changes.len());
        for change in &command.changes {
            let (Ok(verdict) | Err(verdict)) = self.change_group((node, incarnation), change);
            verdicts.push(verdict);
        }
        let writer = Writer { incarnation, sequence, verdicts: verdicts.clone().into() };
        self.groups.writers.insert(node, writer);
        Outcome::GroupsChanged { verdicts }
    }

    /// The answer when these are not the next changes of an open incarnation.
    fn answer_writer(&self, node: NodeId, incarnation: Incarnation, sequence: u64) -> Option<Outcome> {
        let current = self.open_incarnation(node);
        if current != Some(incarnation) {
            return Some(Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current }));
        }
        let writer = self.groups.writers.get(&node);
        let next = writer.map_or(1, |writer| writer.sequence + 1);
        match writer.filter(|writer| writer.sequence == sequence) {
            Some(writer) => Some(Outcome::GroupsChanged { verdicts: writer.verdicts.to_vec() }),
            None if sequence == next => None,
            None if sequence > next => Some(Outcome::NotYet),
            None => Some(Outcome::SlotRefused(SlotRefusal::BelowLo { lo: SlotSequence::new(next) })),
        }
    }

    fn change_group(&mut self, proposer: (NodeId, Incarnation), change: &GroupChange) -> Judged {
        match change {
            GroupChange::Claim { group } => self.claim_group(proposer, group),
            GroupChange::Store { group, record } => {
                self.owned_group(proposer, group)?;
                self.store_group(group, record)
            }
            GroupChange::Commit { group, by, offsets } => {
                judge_committer(self.owned_group(proposer, group)?, *by)?;
                self.commit_offsets(group, offsets)
            }
            GroupChange::DeleteOffsets { group, partitions } => {
                self.owned_group(proposer, group)?;
                self.groups.drop_offsets(group, partitions.iter().copied());
                Ok(GroupVerdict::Done)
            }
        }
    }

    fn owned_group(
        &self,
        proposer: (NodeId, Incarnation),
        group: &GroupId,
    ) -> Result<&GroupEntry, GroupVerdict> {
        let entry = self.group(group).ok_or(GroupVerdict::UnknownGroup)?;
        if entry.owner == Some(proposer) { Ok(entry) } else { Err(GroupVerdict::NotOwner) }
    }

    fn claim_group(&mut self, proposer: (NodeId, Incarnation), group: &GroupId) -> Judged {
        if self.group(group).is_none() {
            self.groups.judge_growth(0, group_bytes(group))?;
        }
        let now = self.cluster_time();
        self.groups.entry_or_new(group, now).owner = Some(proposer);
        Ok(GroupVerdict::Done)
    }

    fn store_group(&mut self, group: &GroupId, record: &GroupRecord) -> Judged {
        let now = self.cluster_time();
        let entry = self.group(group).ok_or(GroupVerdict::UnknownGroup)?;
        if record.generation < entry.record.generation {
            return Err(GroupVerdict::StaleGeneration);
        }
        if !record.is_whole() {
            return Err(GroupVerdict::Malformed);
        }
        if record.encoded_bytes() > GROUP_RECORD_BYTES_MAX {
            return Err(over("bytes of a group's members", GROUP_RECORD_BYTES_MAX));
        }
        let (before, after) = (entry.record.bytes(), record.bytes());
        self.groups.judge_growth(before, after)?;
        self.groups.bytes = self.groups.bytes - before + after;
        let entry = self.groups.entry_mut(group);
        if entry.has_members() && record.members.is_empty() {
            entry.since = now;
        }
        entry.record = Arc::new(record.clone());
        Ok(GroupVerdict::Done)
    }

    /// Commits wholly, but for partitions that do not exist, or not at all. Of several offsets of a partition the last
    /// counts.
    fn commit_offsets(&mut self, group: &GroupId, offsets: &[OffsetCommit]) -> Judged {
        let noted = offsets.iter().filter_map(|offset| offset.metadata.as_deref());
        if noted.map(str::len).max() > Some(OFFSET_METADATA_BYTES_MAX) {
            return Err(over("bytes in the note of an offset", OFFSET_METADATA_BYTES_MAX));
        }
        let exists = |offset: &&OffsetCommit| self.partition(offset.partition).is_some();
        let (known, unknown): (Vec<_>, Vec<_>) = offsets.iter().partition(exists);
        let known: BTreeMap<PartitionId, &OffsetCommit> =
            known.into_iter().map(|commit| (commit.partition, commit)).collect();
        let entry = self.group(group).ok_or(GroupVerdict::UnknownGroup)?;
        let before = |partition: &PartitionId| entry.offset(*partition).map_or(0, CommittedOffset::bytes);
        let after = |commit: &&OffsetCommit| offset_bytes(commit.metadata.as_deref());
        self.groups.judge_growth(known.keys().map(before).sum(), known.values().map(after).sum())?;
        let committed = self.cluster_time();
        let put = known.into_iter().map(|(partition, commit)| {
            let OffsetCommit { offset, epoch, ref metadata, .. } = *commit;
            (partition, CommittedOffset { offset, epoch, metadata: metadata.clone(), committed })
        });
        self.groups.put_offsets(group, put);
        let unknown = unknown.into_iter().map(|offset| offset.partition).collect();
        Ok(GroupVerdict::Committed { unknown })
    }

    pub(crate) fn delete_group(&mut self, group: &GroupId) -> Outcome {
        match self.group(group) {
            None => return Outcome::GroupRefused(GroupRefusal::UnknownGroup),
            Some(entry) if entry.has_members() => return Outcome::GroupRefused(GroupRefusal::HasMembers),
            Some(_) => {}
        }
        self.groups.remove(group);
        Outcome::Done
    }

    pub(crate) fn seek_group(
        &mut self,
        group: &GroupId,
        offsets: &[(PartitionId, Option<Offset>)],
        intent: Intent,
    ) -> Outcome {
        if self.group(group).is_some_and(GroupEntry::has_members) {
            return Outcome::GroupRefused(GroupRefusal::HasMembers);
        }
        if let Err(refusal) = self.judge_seek(group, offsets) {
            return Outcome::Refused(refusal);
        }
        if intent == Intent::Check {
            return Outcome::Done;
        }
        let committed = self.cluster_time();
        self.groups.entry_or_new(group, committed);
        for (partition, offset) in offsets {
            match *offset {
                Some(offset) => {
                    let sought = CommittedOffset { offset, epoch: None, metadata: None, committed };
                    self.groups.put_offsets(group, std::iter::once((*partition, sought)));
                }
                None => self.groups.drop_offsets(group, std::iter::once(*partition)),
            }
        }
        Outcome::Done
    }

    fn judge_seek(&self, group: &GroupId, offsets: &[(PartitionId, Option<Offset>)]) -> Result<(), Refusal> {
        if offsets.iter().any(|(partition, _)| self.partition(*partition).is_none()) {
            return Err(Refusal::UnknownPartition);
        }
        let entry = self.group(group);
        let new = if entry.is_none() { group_bytes(group) } else { 0 };
        let kept = |partition: &PartitionId| entry.and_then(|entry| entry.offset(*partition));
        let before = offsets.iter().filter_map(|(partition, _)| kept(partition)).map(CommittedOffset::bytes);
        let after = offsets.iter().filter(|(_, offset)| offset.is_some()).count() as u64 * offset_bytes(None);
        let room = self.groups.judge_growth(before.sum(), new + after);
        room.map_err(|_| Refusal::Limit { what: GROUPS_LIMIT.to_owned(), limit: GROUPS_BYTES_MAX })
    }

    pub(crate) fn expire_groups(&mut self, cutoff: Timestamp) -> Outcome {
        let expired = |entry: &GroupEntry| entry.has_expired(cutoff);
        self.groups
            .change_where(expired, |entry| entry.forget_offsets(|_, offset| offset.committed < cutoff));
        let gone: Vec<GroupId> =
            self.groups().filter(|(_, entry)| entry.has_expired(cutoff)).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|group| self.groups.remove(group));
        Outcome::Done
    }
}

/// Fails unless somebody like `by` may commit now.
fn judge_committer(entry: &GroupEntry, by: Committer) -> Result<(), GroupVerdict> {
    let current = entry.has_members().then_some(entry.record.generation);
    match by {
        Committer::Member { generation } if current != Some(generation) => Err(GroupVerdict::StaleGeneration),
        Committer::Outside if current.is_some() => Err(GroupVerdict::HasMembers),
        Committer::Member { .. } | Committer::Outside => Ok(()),
    }
}
