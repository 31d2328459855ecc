//! Who and which: clusters, nodes, topics, partitions, slots and objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {expected}")]
pub struct ParseIdError {
    /// What was read.
    pub text: String,
    /// What it should have been, such as "object id".
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(128).collect(), expected }
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a raw number.
            #[must_use]
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number, for codecs.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The id that follows this one.
            ///
            /// # Panics
            /// When the numbers are exhausted, which no running system reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect(concat!($expected, " numbers exhausted")))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| ParseIdError::new(text, $expected))
            }
        }
    };
}

number_id! {
    /// A node. Given once, never reused, also after the node is removed. Node ids start at 1.
    NodeId(u64), "node id"
}
number_id! {
    /// Counts the registrations of a node: a node that starts again is a new incarnation.
    Incarnation(u64), "incarnation"
}
number_id! {
    /// A topic. Given in apply by counting, so a deleted and recreated name is a new topic. Starts at 1.
    TopicId(u64), "topic id"
}
number_id! {
    /// The place of a partition in its topic, from 0.
    PartitionIndex(u32), "partition"
}
number_id! {
    /// The number of a slot in a node's lane. The first slot of an incarnation is 1; 0 stands for "none".
    SlotSequence(u64), "slot"
}
number_id! {
    /// Which try at a slot: the first attempt is 0. Each attempt has an object name of its own.
    Attempt(u32), "attempt"
}

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The place in the topic.
    pub index: PartitionIndex,
}

impl PartitionId {
    /// Names a partition.
    #[must_use]
    pub const fn new(topic: TopicId, index: PartitionIndex) -> Self {
        Self { topic, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

/// Which stream of slots of a node an object belongs to. Each lane has its own slots and its own `lo`, so a slow
/// merge holds back nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// WAL objects, one per flush.
    Wal,
    /// Segments written by merging.
    Merge,
    /// Segments written by bulk loads.
    Load,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Wal, Self::Merge, Self::Load];

    /// The word that stands in object names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Merge => "merge",
            Self::Load => "load",
        }
    }

    /// The number that stands in stored formats.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Wal => 0,
            Self::Merge => 1,
            Self::Load => 2,
        }
    }

    /// The lane of a stored number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Wal),
            1 => Some(Self::Merge),
            2 => Some(Self::Load),
            _ => None,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One slot of one lane of one incarnation of a node: what a flush fills and one commit decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The node that fills it.
    pub node: NodeId,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The lane.
    pub lane: Lane,
    /// The number in the lane.
    pub sequence: SlotSequence,
}

/// The name of an object: a slot and the attempt at it. A name is bound to one byte string for ever.
///
/// Text form: `{node}-{incarnation}-{lane}-{sequence:016}-{attempt}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// The slot.
    pub slot: Slot,
    /// Which try at it.
    pub attempt: Attempt,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slot { node, incarnation, lane, sequence } = self.slot;
        write!(f, "{node}-{incarnation}-{lane}-{:016}-{}", sequence.get(), self.attempt)
    }
}

impl FromStr for ObjectId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError::new(text, "object id");
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or_else(bad);
        let node = part()?.parse().map_err(|_| bad())?;
        let incarnation = part()?.parse().map_err(|_| bad())?;
        let word = part()?;
        let lane = Lane::ALL.into_iter().find(|lane| lane.as_str() == word).ok_or_else(bad)?;
        let sequence = part()?.parse().map_err(|_| bad())?;
        let attempt = part()?.parse().map_err(|_| bad())?;
        let id = Self { slot: Slot { node, incarnation, lane, sequence }, attempt };
        // One text per id: refuses signs, missing zeros and trailing parts.
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}

/// The identity of a cluster: a random UUID given when it is bootstrapped; it stands in every object key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(Uuid);

impl ClusterId {
    /// Makes an id from 16 random bytes (the version bits of a v4 UUID are set).
    #[must_use]
    pub fn from_random_bytes(random: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(random).into_uuid())
    }

    /// The id whose stored bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl FromStr for ClusterId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError::new(text, "cluster id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(sequence: u64) -> ObjectId {
        ObjectId {
            slot: Slot {
                node: NodeId::new(3),
                incarnation: Incarnation::new(7),
                lane: Lane::Wal,
                sequence: SlotSequence::new(sequence),
            },
            attempt: Attempt::new(1),
        }
    }

    #[test]
    fn an_object_id_reads_back_what_it_wrote() {
        assert_eq!(object(42).to_string(), "3-7-wal-0000000000000042-1");
        assert_eq!("3-7-wal-0000000000000042-1".parse(), Ok(object(42)));
    }

    #[test]
    fn an_object_id_has_one_text_only() {
        for text in
            ["", "3-7-wal-42-1", "3-7-wal-0000000000000042-1-0", "+3-7-wal-0000000000000042-1", "3-7-x-0-1"]
        {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
    }
}
