//! Where in a log: offsets, epochs, producer sequences, Raft indexes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ParseIdError;

/// Position of a record in one partition. The first record is at 0; no offset is reused.
/// Ranges of offsets are half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);
    /// The greatest offset: Kafka's offsets are signed 64-bit numbers.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset just past `records` records that start here.
    ///
    /// # Panics
    /// When the offsets of the partition are exhausted.
    #[must_use]
    pub fn after(self, records: u32) -> Self {
        let next = self.0.checked_add(u64::from(records)).filter(|next| *next <= Self::MAX.0);
        Self(next.expect("partition offsets exhausted"))
    }

    /// How many offsets lie in `earlier..self`; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The offset `records` records before this one, at least 0.
    #[must_use]
    pub const fn before(self, records: u64) -> Self {
        Self(self.0.saturating_sub(records))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Offset {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let raw = text.parse::<u64>().ok().filter(|raw| *raw <= Self::MAX.0);
        raw.map(Self)
            .ok_or_else(|| ParseIdError { text: text.chars().take(128).collect(), expected: "offset" })
    }
}

/// Counts the home changes of a partition (Kafka's leader epoch), from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(u32);

impl Epoch {
    /// Wraps a raw number; Kafka's epochs are signed, so at most `i32::MAX`.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch after the next home change.
    ///
    /// # Panics
    /// When 2³¹ changes have happened.
    #[must_use]
    pub fn next(self) -> Self {
        let next = self.0.checked_add(1).filter(|next| i32::try_from(*next).is_ok());
        Self(next.expect("leader epochs exhausted"))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An idempotent producer. Given in blocks by the cluster, from 1; at most `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerId(u64);

impl ProducerId {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The life of a producer id, from 0 to `i16::MAX`; a higher epoch fences the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ProducerEpoch(u16);

impl ProducerEpoch {
    /// Wraps a raw number, at most `i16::MAX`.
    #[must_use]
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a record in what one producer sends to one partition: 0 to `i32::MAX`, then 0 again (as Kafka's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(u32);

impl Sequence {
    /// The first sequence of a producer.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw number; the top bit is dropped.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw & (i32::MAX as u32))
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The sequence `records` further on; 2³¹−1 is followed by 0.
    #[must_use]
    pub const fn after(self, records: u32) -> Self {
        Self(self.0.wrapping_add(records) & (i32::MAX as u32))
    }

    /// How far this sequence lies ahead of `earlier` on the ring of 2³¹ numbers, as a signed distance in
    /// `-2³⁰..2³⁰`: negative when it lies behind.
    #[must_use]
    pub fn distance_from(self, earlier: Self) -> i64 {
        const RING: i64 = 1 << 31;
        let ahead = (i64::from(self.0) - i64::from(earlier.0)).rem_euclid(RING);
        if ahead >= RING / 2 { ahead - RING } else { ahead }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Position of a command in the metadata log. 0 stands for "nothing applied yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LogIndex(u64);

impl LogIndex {
    /// Nothing applied yet.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number, for codecs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_as_kafkas_does() {
        let last = Sequence::new(i32::MAX as u32);
        assert_eq!(last.after(1), Sequence::ZERO);
        assert_eq!(Sequence::new(2).distance_from(last), 3);
        assert_eq!(last.distance_from(Sequence::new(2)), -3);
    }

    #[test]
    #[should_panic(expected = "partition offsets exhausted")]
    fn offsets_never_pass_what_kafka_can_say() {
        let _ = Offset::MAX.after(1);
    }
}
