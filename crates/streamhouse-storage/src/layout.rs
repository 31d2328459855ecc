//! Every key of the store: built and parsed here and nowhere else.
//!
//! ```text
//! {prefix of the URL}/{cluster id}/cluster.json                          identity of the cluster
//! {prefix of the URL}/{cluster id}/wal/{object id}.wal                   WAL objects
//! {prefix of the URL}/{cluster id}/meta/snapshots/{index:020}-{node}.snap  metadata snapshots
//! ```
//!
//! Keys in this crate are relative to the prefix of the store's URL.

use std::fmt;
use std::str::FromStr;

use streamhouse_types::{ClusterId, Lane, LogIndex, NodeId, ObjectId, ParseIdError};

/// Longest key in bytes. S3 allows 1,024 with the prefix.
const KEY_BYTES_MAX: usize = 512;
const MARKER: &str = "cluster.json";
const WAL: &str = "wal/";
const SNAPSHOTS: &str = "meta/snapshots/";

/// The name of an object, relative to the prefix of the store's URL.
///
/// Segments of `[A-Za-z0-9._-]` joined by `/`; no segment is empty or starts with a dot, so a key is also a safe
/// relative path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let segment = |s: &str| !s.is_empty() && !s.starts_with('.') && s.bytes().all(legal);
        if text.len() <= KEY_BYTES_MAX && text.split('/').all(segment) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError { text: text.chars().take(128).collect(), expected: "object key" })
        }
    }
}

/// What a listing is restricted to: whole segments, ending in `/`; empty for everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix(String);

impl Prefix {
    /// Everything under the store's URL.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// The text; ends in `/` unless it is empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The identity of the cluster.
    Marker,
    /// A WAL object.
    Wal(ObjectId),
    /// A snapshot of the metadata.
    Snapshot {
        /// The last command it holds.
        index: LogIndex,
        /// Who wrote it.
        node: NodeId,
    },
}

/// The keys of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    cluster: ClusterId,
}

impl Layout {
    /// The keys of `cluster`.
    #[must_use]
    pub const fn new(cluster: ClusterId) -> Self {
        Self { cluster }
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Where the identity of the cluster is written down.
    #[must_use]
    pub fn marker_key(&self) -> Key {
        self.key(format_args!("{MARKER}"))
    }

    /// The key of an object of the WAL lane.
    ///
    /// # Panics
    /// When the object is of another lane.
    #[must_use]
    pub fn wal_key(&self, object: &ObjectId) -> Key {
        assert_eq!(object.slot.lane, Lane::Wal, "only the wal lane writes wal objects");
        self.key(format_args!("{WAL}{object}.wal"))
    }

    /// The key of a metadata snapshot.
    #[must_use]
    pub fn snapshot_key(&self, index: LogIndex, node: NodeId) -> Key {
        self.key(format_args!("{SNAPSHOTS}{:020}-{node}.snap", index.get()))
    }

    /// Everything of the cluster.
    #[must_use]
    pub fn cluster_prefix(&self) -> Prefix {
        Prefix(format!("{}/", self.cluster))
    }

    /// All WAL objects.
    #[must_use]
    pub fn wal_prefix(&self) -> Prefix {
        Prefix(format!("{}/{WAL}", self.cluster))
    }

    /// All metadata snapshots. Their keys sort by index.
    #[must_use]
    pub fn snapshots_prefix(&self) -> Prefix {
        Prefix(format!("{}/{SNAPSHOTS}", self.cluster))
    }

    /// What a key names; `None` when it is not a key of this cluster, or of none that this version writes.
    #[must_use]
    pub fn parse(&self, key: &Key) -> Option<Named> {
        let (cluster, rest) = split_cluster(key)?;
        if cluster != self.cluster {
            return None;
        }
        let named = if rest == MARKER {
            Named::Marker
        } else if let Some(name) = rest.strip_prefix(WAL) {
            Named::Wal(name.strip_suffix(".wal")?.parse().ok()?)
        } else {
            let (index, node) = rest.strip_prefix(SNAPSHOTS)?.strip_suffix(".snap")?.split_once('-')?;
            Named::Snapshot { index: LogIndex::new(index.parse().ok()?), node: node.parse().ok()? }
        };
        // One key per name: what parses otherwise (other padding, a foreign lane) is not ours.
        (self.build(named)? == *key).then_some(named)
    }

    fn build(&self, named: Named) -> Option<Key> {
        match named {
            Named::Marker => Some(self.marker_key()),
            Named::Wal(object) => (object.slot.lane == Lane::Wal).then(|| self.wal_key(&object)),
            Named::Snapshot { index, node } => Some(self.snapshot_key(index, node)),
        }
    }

    fn key(&self, rest: fmt::Arguments<'_>) -> Key {
        Key(format!("{}/{rest}", self.cluster))
    }
}

/// The cluster that a key belongs to, whatever it names; `None` when its first segment is no cluster id.
#[must_use]
pub fn cluster_of(key: &Key) -> Option<ClusterId> {
    split_cluster(key).map(|(cluster, _)| cluster)
}

/// A bound for listings: all keys of `cluster` sort before it, all keys of later clusters after it.
#[must_use]
pub(crate) fn past_cluster(cluster: ClusterId) -> String {
    // '0' is the character after '/'.
    format!("{cluster}0")
}

fn split_cluster(key: &Key) -> Option<(ClusterId, &str)> {
    let (first, rest) = key.as_str().split_once('/')?;
    let cluster = first.parse::<ClusterId>().ok()?;
    (cluster.to_string() == first).then_some((cluster, rest))
}

#[cfg(test)]
mod tests;
