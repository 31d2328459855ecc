//! Members come, are judged, are drained and go; the fleet agrees on its voters and its feature level.

use std::sync::Arc;

use streamhouse_types::{Incarnation, NodeId};

use super::{DirectoryId, Drain, FeatureLevel, FeatureRange, Liveness, Member, VoterCount};
use crate::nodes::{NODES_MAX, TEXT_BYTES_MAX};
use crate::state::{Changes, State};
use crate::{MemberRefusal, Outcome, Refusal};

impl State {
    pub(crate) fn admit_node(
        &mut self,
        node: NodeId,
        directory: DirectoryId,
        features: FeatureRange,
        version: &str,
        changes: &mut Changes,
    ) -> Outcome {
        if let Some(refusal) = self.refuse_admission(node, directory, features) {
            return Outcome::MemberRefused(refusal);
        }
        if version.len() > TEXT_BYTES_MAX {
            let what = "bytes in a node's version".into();
            return Outcome::Refused(Refusal::Limit { what, limit: TEXT_BYTES_MAX as u64 });
        }
        if let Some(refusal) = self.refuse_another_member(node) {
            return Outcome::Refused(refusal);
        }
        self.change_member(node, changes, |member| {
            member.directory = Some(directory);
            member.features = features;
            version.clone_into(&mut member.version);
        });
        Outcome::Done
    }

    fn refuse_admission(
        &self,
        node: NodeId,
        directory: DirectoryId,
        features: FeatureRange,
    ) -> Option<MemberRefusal> {
        let known = self.member(node);
        if known.is_some_and(Member::is_removed) {
            return Some(MemberRefusal::Removed { node });
        }
        // A member whose directory is not known takes the first that asks.
        if known.and_then(Member::directory).is_some_and(|own| own != directory) {
            return Some(MemberRefusal::OtherDirectory { node });
        }
        let level = self.feature_level();
        (!features.contains(level)).then_some(MemberRefusal::LevelUnknown { node, level, features })
    }

    /// The limit, when `node` would be a member too many.
    pub(crate) fn refuse_another_member(&self, node: NodeId) -> Option<Refusal> {
        let full = self.member(node).is_none() && self.fleet.members.len() >= NODES_MAX;
        full.then(|| Refusal::Limit { what: "nodes".into(), limit: NODES_MAX as u64 })
    }

    /// Why a node may not register: it was removed, or nothing is known of it and the cluster is past the level that
    /// such a node is taken to have.
    pub(crate) fn refuse_registration(&self, node: NodeId) -> Option<MemberRefusal> {
        let (level, features) = (self.feature_level(), FeatureRange::FIRST);
        match self.member(node) {
            Some(member) => member.is_removed().then_some(MemberRefusal::Removed { node }),
            None if features.contains(level) => None,
            None => Some(MemberRefusal::LevelUnknown { node, level, features }),
        }
    }

    /// A node has registered: it is alive, and whatever it was leaving for is over.
    pub(crate) fn member_registered(&mut self, node: NodeId, changes: &mut Changes) {
        self.change_member(node, changes, |member| {
            member.liveness = Liveness::Alive;
            if member.drain == Drain::Leaving {
                member.drain = Drain::None;
            }
        });
    }

    /// A node has no open incarnation any more.
    pub(crate) fn member_closed(&mut self, node: NodeId, changes: &mut Changes) {
        self.change_member(node, changes, |member| member.liveness = Liveness::Dead);
    }

    /// A judgement of another incarnation than the open one came too late, and changes nothing.
    pub(crate) fn judge_node(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        liveness: Liveness,
        changes: &mut Changes,
    ) -> Outcome {
        if self.open_incarnation(node) == Some(incarnation) {
            self.change_member(node, changes, |member| member.liveness = liveness);
        }
        Outcome::Done
    }

    pub(crate) fn set_drain(&mut self, node: NodeId, drain: Drain, changes: &mut Changes) -> Outcome {
        let current = match self.present_member(node) {
            Ok(member) => member.drain,
            Err(refusal) => return Outcome::MemberRefused(refusal),
        };
        // A node that stops must not end what its operator wants of it.
        if (current, drain) != (Drain::Operator, Drain::Leaving) {
            self.change_member(node, changes, |member| member.drain = drain);
        }
        Outcome::Done
    }

    pub(crate) fn remove_node(&mut self, node: NodeId, changes: &mut Changes) -> Outcome {
        match self.present_member(node) {
            Ok(_) => {}
            // What was wanted is so.
            Err(MemberRefusal::Removed { .. }) => return Outcome::Done,
            Err(refusal) => return Outcome::MemberRefused(refusal),
        }
        let partitions = self.partition_count;
        if partitions > 0 && self.eligible_homes().all(|home| home.id() == node) {
            return Outcome::MemberRefused(MemberRefusal::LastHome { node, partitions });
        }
        if let Some(incarnation) = self.open_incarnation(node) {
            self.close_incarnation(node, incarnation, changes);
        }
        self.change_member(node, changes, |member| member.removed = true);
        Outcome::Done
    }

    pub(crate) fn set_wanted_voters(&mut self, voters: VoterCount, changes: &mut Changes) -> Outcome {
        changes.nodes_changed |= self.fleet.wanted_voters != voters;
        self.fleet.wanted_voters = voters;
        Outcome::Done
    }

    pub(crate) fn raise_feature_level(&mut self, level: FeatureLevel, changes: &mut Changes) -> Outcome {
        let current = self.feature_level();
        if level < current {
            return Outcome::MemberRefused(MemberRefusal::LevelGoesDown { current, wanted: level });
        }
        let lacks = |member: &&Member| !member.is_removed() && !member.features.contains(level);
        if let Some(member) = self.members().find(lacks) {
            let (node, features) = (member.id, member.features);
            return Outcome::MemberRefused(MemberRefusal::LevelNotEverywhere { level, node, features });
        }
        changes.nodes_changed |= level != current;
        self.fleet.feature_level = level;
        Outcome::Done
    }

    /// Changes a member, which is new when there was none. Copies nothing and says nothing when nothing changes.
    fn change_member(&mut self, node: NodeId, changes: &mut Changes, change: impl FnOnce(&mut Member)) {
        let known = self.member(node);
        let mut member = known.cloned().unwrap_or_else(|| Member::new(node));
        change(&mut member);
        if known != Some(&member) {
            self.fleet.members.insert(node, Arc::new(member));
            changes.nodes_changed = true;
        }
    }
}
