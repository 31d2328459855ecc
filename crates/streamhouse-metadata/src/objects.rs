//! Objects that extents refer to, and the garbage list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use streamhouse_types::{Attempt, Incarnation, Lane, LogIndex, NodeId, ObjectId, SlotSequence, Timestamp};

/// How many slots of a lane share one allocation. A write after a snapshot copies at most this many.
const CHUNK_SLOTS: u64 = 512;

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

/// When something happened: the command's index and cluster time at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) index: LogIndex,
    pub(crate) time: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ChunkId {
    node: NodeId,
    incarnation: Incarnation,
    lane: Lane,
    number: u64,
}

impl ChunkId {
    fn of(id: &ObjectId) -> Self {
        let slot = id.slot;
        let number = slot.sequence.get() / CHUNK_SLOTS;
        Self { node: slot.node, incarnation: slot.incarnation, lane: slot.lane, number }
    }
}

/// The objects of one stretch of slots. None is empty.
type Chunk = BTreeMap<(SlotSequence, Attempt), (ObjectId, ObjectEntry)>;

/// The objects that extents refer to, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Live {
    chunks: Arc<BTreeMap<ChunkId, Arc<Chunk>>>,
}

impl Live {
    fn get(&self, id: &ObjectId) -> Option<&ObjectEntry> {
        let chunk = self.chunks.get(&ChunkId::of(id))?;
        chunk.get(&(id.slot.sequence, id.attempt)).map(|(_, entry)| entry)
    }

    fn iter(&self) -> impl Iterator<Item = (ObjectId, &ObjectEntry)> {
        self.chunks.values().flat_map(|chunk| chunk.values().map(|(id, entry)| (*id, entry)))
    }

    fn insert(&mut self, id: ObjectId, entry: ObjectEntry) {
        let chunk = Arc::make_mut(&mut self.chunks).entry(ChunkId::of(&id)).or_default();
        Arc::make_mut(chunk).insert((id.slot.sequence, id.attempt), (id, entry));
    }

    /// Takes one reference away. Returns the object when it was the last.
    fn release(&mut self, id: &ObjectId) -> Option<ObjectEntry> {
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk_id = ChunkId::of(id);
        let chunk = Arc::make_mut(chunks.get_mut(&chunk_id).expect("an extent refers to a live object"));
        let key = (id.slot.sequence, id.attempt);
        let (_, entry) = chunk.get_mut(&key).expect("an extent refers to a live object");
        entry.extents =
            entry.extents.checked_sub(1).expect("an object is referenced as often as it is released");
        if entry.extents > 0 {
            return None;
        }
        let dead = chunk.remove(&key).map(|(_, entry)| entry);
        if chunk.is_empty() {
            chunks.remove(&chunk_id);
        }
        dead
    }
}

impl Serialize for Live {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (id, entry) in self.iter() {
            map.serialize_entry(&id, entry)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Live {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flat;
        impl<'de> Visitor<'de> for Flat {
            type Value = Live;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Live, A::Error> {
                let mut live = Live::default();
                while let Some((id, entry)) = map.next_entry()? {
                    live.insert(id, entry);
                }
                Ok(live)
            }
        }
        deserializer.deserialize_map(Flat)
    }
}

/// All committed objects: those in use and those to be deleted. None is in both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Objects {
    live: Live,
    garbage: Arc<BTreeMap<ObjectId, GarbageEntry>>,
}

impl Objects {
    pub(crate) fn live(&self, id: &ObjectId) -> Option<&ObjectEntry> {
        self.live.get(id)
    }

    pub(crate) fn iter_live(&self) -> impl Iterator<Item = (ObjectId, &ObjectEntry)> {
        self.live.iter()
    }

    pub(crate) fn is_garbage(&self, id: &ObjectId) -> bool {
        self.garbage.contains_key(id)
    }

    pub(crate) fn iter_garbage(&self) -> impl Iterator<Item = (ObjectId, &GarbageEntry)> {
        self.garbage.iter().map(|(id, entry)| (*id, entry))
    }

    /// Takes a committed object in. One that no extent refers to is garbage at once. Returns whether it is.
    pub(crate) fn commit(&mut self, id: ObjectId, entry: ObjectEntry, at: Moment) -> bool {
        if entry.extents == 0 {
            self.bury(id, entry.length, at);
            return true;
        }
        self.live.insert(id, entry);
        false
    }

    /// Takes one reference away. Returns whether it was the last, which makes the object garbage.
    pub(crate) fn release(&mut self, id: &ObjectId, at: Moment) -> bool {
        let Some(dead) = self.live.release(id) else {
            return false;
        };
        self.bury(*id, dead.length, at);
        true
    }

    fn bury(&mut self, id: ObjectId, length: u64, at: Moment) {
        let entry = GarbageEntry { length, died: at.index, died_at: at.time };
        Arc::make_mut(&mut self.garbage).insert(id, entry);
    }

    /// Takes objects that the sweep has deleted off the garbage list; others are passed over.
    pub(crate) fn forget(&mut self, ids: &[ObjectId]) {
        let garbage = Arc::make_mut(&mut self.garbage);
        for id in ids {
            garbage.remove(id);
        }
    }
}
