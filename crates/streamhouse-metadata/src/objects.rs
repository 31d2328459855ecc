//! Objects that extents refer to, and the garbage list.

use serde::{Deserialize, Serialize};
use streamhouse_types::{LogIndex, Timestamp};

/// An object that at least one extent refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its length in bytes.
    pub length: u64,
    /// CRC-32C of its body.
    pub crc: u32,
    /// How many extents refer to it; at least 1.
    pub extents: u32,
    /// The index of the command that committed it.
    pub committed: LogIndex,
}

/// An object that nothing refers to any more and that the sweep will delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageEntry {
    /// Its length in bytes.
    pub length: u64,
    /// The index of the command that took the last reference away.
    pub died: LogIndex,
    /// Cluster time at that command.
    pub died_at: Timestamp,
}
