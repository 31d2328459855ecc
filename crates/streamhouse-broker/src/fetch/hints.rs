//! Where readers left off: a reader that goes on need not look for its place in the extent again.

use parking_lot::Mutex;
use streamhouse_types::{ObjectId, Offset, PartitionId};

use super::walk::Cursor;

/// How many places are remembered; newer ones push out older ones.
const PLACES: usize = 1_024;

/// Where the readers of this node left off. A hint may be missing, and is never wrong: objects do not change.
pub(crate) struct Hints(Mutex<Vec<Option<Hint>>>);

/// One place where a reader left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    partition: PartitionId,
    /// Where the reader goes on.
    pub(crate) cursor: Cursor,
    /// The object that the cursor's position is in; the cursor may stand at the end of an extent.
    object: ObjectId,
    /// Up to where was read ahead.
    pub(crate) ahead: Offset,
}

impl Default for Hints {
    fn default() -> Self {
        Self(Mutex::new(vec![None; PLACES]))
    }
}

impl Hints {
    /// Remembers where a reader left off.
    pub(crate) fn leave(&self, partition: PartitionId, object: ObjectId, cursor: Cursor, ahead: Offset) {
        self.0.lock()[place(partition, cursor.offset)] = Some(Hint { partition, cursor, object, ahead });
    }

    /// What is remembered of a reader that left off at `offset`.
    pub(crate) fn find(&self, partition: PartitionId, offset: Offset) -> Option<Hint> {
        self.0.lock()[place(partition, offset)]
            .filter(|hint| hint.partition == partition && hint.cursor.offset == offset)
    }
}

impl Hint {
    /// The cursor, when it stands in this object.
    pub(crate) fn cursor_in(&self, object: &ObjectId) -> Option<Cursor> {
        (self.object == *object).then_some(self.cursor)
    }
}

fn place(partition: PartitionId, offset: Offset) -> usize {
    let words = [partition.topic.get(), u64::from(partition.index.get()), offset.get()];
    let mixed = words
        .iter()
        .fold(0_u64, |mixed, word| (mixed.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    usize::try_from(mixed >> 40).expect("24 bits") % PLACES
}
