//! The cluster as a whole: its members, what is wanted of them, and the feature level they agreed on.

mod apply;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{NodeId, ParseIdError};

use crate::state::State;
use crate::{MemberRefusal, NodeEntry};

/// The identity of a data directory: random bytes that are written when it is first used. It belongs to one node id
/// for ever.
///
/// Text form: 32 hexadecimal digits, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectoryId([u8; 16]);

impl DirectoryId {
    /// The id whose stored bytes these are; for a new directory, random ones.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for DirectoryId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError { text: text.chars().take(128).collect(), expected: "data directory id" };
        let raw = u128::from_str_radix(text, 16).map_err(|_| bad())?;
        let id = Self(raw.to_be_bytes());
        // One text per id: refuses signs, capitals and missing zeros.
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}

/// What the nodes of a cluster may say to each other and write into the metadata. From 1; never goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// The level of every new cluster.
    pub const FIRST: Self = Self(1);

    /// From here on there are consumer groups.
    pub const GROUPS: Self = Self(2);
    /// From here on topics have [`crate::KeptSettings`].
    pub const KEPT_SETTINGS: Self = Self(2);
    /// From here on there are more of them: those that Kafka has for files, tiers and the compression by brokers.
    pub const MORE_SETTINGS: Self = Self(3);
    /// From here on settings are edited where they are, and it is remembered which were set, be it to their defaults.
    pub const EDITED_SETTINGS: Self = Self(4);
    /// The highest that this release knows.
    pub const NEWEST: Self = Self::EDITED_SETTINGS;

    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The feature levels that a release knows, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRange {
    /// The lowest.
    pub min: FeatureLevel,
    /// The highest.
    pub max: FeatureLevel,
}

impl FeatureRange {
    /// What a node has of which nothing is known: the first level alone.
    pub const FIRST: Self = Self { min: FeatureLevel::FIRST, max: FeatureLevel::FIRST };

    /// Whether a node with these levels can work in a cluster at `level`.
    #[must_use]
    pub fn contains(&self, level: FeatureLevel) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl fmt::Display for FeatureRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// How many nodes are to have a vote in Raft. Odd, so that each node more than the last number bears a loss more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum VoterCount {
    /// One: an explicit choice, as its disk is then the only one that holds the metadata.
    One,
    /// Three: one may be lost.
    #[default]
    Three,
    /// Five: two may be lost.
    Five,
}

impl VoterCount {
    /// All there are, in order.
    pub const ALL: [Self; 3] = [Self::One, Self::Three, Self::Five];

    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }

    /// The greatest that is at most `nodes`; `None` for 0.
    #[must_use]
    pub fn at_most(nodes: usize) -> Option<Self> {
        Self::ALL.into_iter().rev().find(|count| count.get() <= nodes)
    }
}

impl fmt::Display for VoterCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

/// A number of voters that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there cannot be {wanted} voters: name 1, 3 or 5, as an even number bears no loss more than the odd one below it"
)]
pub struct VoterCountError {
    /// What was asked for.
    pub wanted: u64,
}

impl TryFrom<u64> for VoterCount {
    type Error = VoterCountError;

    fn try_from(wanted: u64) -> Result<Self, Self::Error> {
        let found = Self::ALL.into_iter().find(|count| count.get() as u64 == wanted);
        found.ok_or(VoterCountError { wanted })
    }
}

/// What the leader thinks of a node, by its lease. Decides over homes only, never over an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// It has an open incarnation, and beats.
    Alive,
    /// It is silent, or has no open incarnation.
    Dead,
}

/// Whether a node is being emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Drain {
    /// It takes homes.
    #[default]
    None,
    /// An operator wants it empty, also after it starts again.
    Operator,
    /// It is stopping; over when it registers again.
    Leaving,
}

/// A node that is or was part of the cluster. Its id is never given to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    id: NodeId,
    directory: Option<DirectoryId>,
    liveness: Liveness,
    drain: Drain,
    removed: bool,
    features: FeatureRange,
    version: String,
}

impl Member {
    /// A node that has not registered yet, or of which no more is known than that it has.
    fn new(id: NodeId) -> Self {
        Self {
            id,
            directory: None,
            liveness: Liveness::Dead,
            drain: Drain::None,
            removed: false,
            features: FeatureRange::FIRST,
            version: String::new(),
        }
    }

    /// The node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its data directory; `None` until one was named. Never changes after.
    #[must_use]
    pub fn directory(&self) -> Option<DirectoryId> {
        self.directory
    }

    /// The leader's judgement.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// Whether it beats, under an open incarnation.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.liveness == Liveness::Alive
    }

    /// Whether and why it is being emptied.
    #[must_use]
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// Whether it was removed; then it never comes back.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// The feature levels that its release knows.
    #[must_use]
    pub fn features(&self) -> FeatureRange {
        self.features
    }

    /// Its release, as it names itself; empty when it never did.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether partitions may get their home here.
    pub(crate) fn may_be_home(&self) -> bool {
        self.is_alive() && self.drain == Drain::None && !self.removed
    }
}

/// The members of the cluster, and what they agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) members: BTreeMap<NodeId, Arc<Member>>,
    pub(crate) wanted_voters: VoterCount,
    pub(crate) feature_level: FeatureLevel,
}

impl Fleet {
    /// What the registrations of a state from before there was a fleet have made it.
    pub(crate) fn of_nodes(nodes: &BTreeMap<NodeId, Arc<NodeEntry>>) -> Self {
        let mut fleet = Self::default();
        for (id, node) in nodes {
            let mut member = Member::new(*id);
            member.liveness = if node.is_open() { Liveness::Alive } else { Liveness::Dead };
            fleet.members.insert(*id, Arc::new(member));
        }
        fleet
    }
}

impl State {
    /// A member, also one that was removed.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.fleet.members.get(&node).map(|member| &**member)
    }

    /// All members, also removed ones, by id. Each node that ever registered is one.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.fleet.members.values().map(|member| &**member)
    }

    /// The nodes that may be the home of a partition, by id: open incarnation, alive, not drained, not removed.
    pub fn eligible_homes(&self) -> impl Iterator<Item = &NodeEntry> {
        let eligible = |node: &&NodeEntry| self.member(node.id()).is_some_and(Member::may_be_home);
        self.nodes().filter(eligible)
    }

    /// What the nodes may say to each other and write.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.fleet.feature_level
    }

    /// How many voters an operator wants.
    #[must_use]
    pub fn wanted_voters(&self) -> VoterCount {
        self.fleet.wanted_voters
    }

    /// A member that was not removed.
    fn present_member(&self, node: NodeId) -> Result<&Member, MemberRefusal> {
        let member = self.member(node).ok_or(MemberRefusal::Unknown { node })?;
        if member.is_removed() { Err(MemberRefusal::Removed { node }) } else { Ok(member) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_id_has_one_text() {
        let id = DirectoryId::from_bytes([0x0a; 16]);
        assert_eq!(id.to_string(), "0a".repeat(16));
        assert_eq!("0a".repeat(16).parse(), Ok(id));
        for text in ["", "0a", "+a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", &"0A".repeat(16), &"0a".repeat(17)] {
            assert!(text.parse::<DirectoryId>().is_err(), "{text}");
        }
    }

    #[test]
    fn voters_are_one_three_or_five() {
        let counts: Vec<_> = (0..7_u64).map(|wanted| VoterCount::try_from(wanted).ok()).collect();
        let (one, three, five) = (Some(VoterCount::One), Some(VoterCount::Three), Some(VoterCount::Five));
        assert_eq!(counts, [None, one, None, three, None, five, None]);
        let greatest: Vec<_> = (0..7).map(VoterCount::at_most).collect();
        assert_eq!(greatest, [None, one, one, three, three, five, five]);
        let error = VoterCount::try_from(4).expect_err("four is even").to_string();
        assert!(error.contains("name 1, 3 or 5"), "{error}");
    }
}
