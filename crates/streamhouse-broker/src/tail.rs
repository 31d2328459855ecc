//! The bytes of the newest objects, kept for readers at the tail.
//!
//! Bytes are put in when their object is durable and before it is committed, so that a reader who is woken by the
//! commit finds them. Nobody sees them earlier: readers only follow extents of committed metadata.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use metrics::Gauge;
use parking_lot::RwLock;
use streamhouse_types::ObjectId;

/// The newest objects of this node, at most so many bytes of them.
#[derive(Debug)]
pub(crate) struct TailCache {
    limit: u64,
    gauge: Gauge,
    objects: RwLock<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    by_id: BTreeMap<ObjectId, Arc<Pieces>>,
    /// In the order of their coming.
    order: VecDeque<ObjectId>,
    bytes: u64,
}

/// The body of an object in pieces that hold whole batches.
#[derive(Debug)]
struct Pieces {
    /// Position in the object and bytes, without gaps.
    pieces: Vec<(u64, Bytes)>,
    bytes: u64,
}

impl TailCache {
    pub(crate) fn new(limit: u64, gauge: Gauge) -> Self {
        Self { limit, gauge, objects: RwLock::new(Objects::default()) }
    }

    /// Keeps the body of an object; the oldest go when there are too many bytes.
    pub(crate) fn insert(&self, object: ObjectId, start: u64, pieces: impl IntoIterator<Item = Bytes>) {
        let mut end = start;
        let place = |piece: Bytes| {
            let position = end;
            end += piece.len() as u64;
            (position, piece)
        };
        let pieces: Vec<_> = pieces.into_iter().map(place).collect();
        let bytes = end - start;
        if bytes > self.limit {
            return;
        }
        let mut objects = self.objects.write();
        if objects.by_id.insert(object, Arc::new(Pieces { pieces, bytes })).is_some() {
            return;
        }
        objects.order.push_back(object);
        objects.bytes += bytes;
        while objects.bytes > self.limit
            && let Some(oldest) = objects.order.pop_front()
        {
            let gone = objects.by_id.remove(&oldest).map_or(0, |pieces| pieces.bytes);
            objects.bytes -= gone;
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.gauge.set(objects.bytes as f64);
    }

    /// The bytes of a range of an object, in pieces that are cut at the range's ends and otherwise hold whole batches;
    /// `None` when they are not here.
    pub(crate) fn read(&self, object: &ObjectId, range: Range<u64>) -> Option<Vec<Bytes>> {
        let pieces = Arc::clone(self.objects.read().by_id.get(object)?);
        let first =
            pieces.pieces.partition_point(|(position, piece)| position + piece.len() as u64 <= range.start);
        let mut found = Vec::new();
        let mut at = range.start;
        for (position, piece) in &pieces.pieces[first..] {
            if at >= range.end || *position > at {
                break;
            }
            let from = usize::try_from(at - position).ok()?;
            let to = usize::try_from(range.end - position).ok()?.min(piece.len());
            found.push(piece.slice(from..to));
            at = position + to as u64;
        }
        (at >= range.end).then_some(found)
    }

    /// Whether anything of the object is here.
    pub(crate) fn holds(&self, object: &ObjectId) -> bool {
        self.objects.read().by_id.contains_key(object)
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_types::{Attempt, Incarnation, Lane, NodeId, Slot, SlotSequence};

    use super::*;

    fn object(sequence: u64) -> ObjectId {
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
        let slot = Slot { node, incarnation, lane: Lane::Wal, sequence: SlotSequence::new(sequence) };
        ObjectId { slot, attempt: Attempt::new(0) }
    }

    fn joined(pieces: Option<Vec<Bytes>>) -> Option<Vec<u8>> {
        pieces.map(|pieces| pieces.concat())
    }

    #[test]
    fn any_range_of_what_was_put_in_comes_out() {
        let cache = TailCache::new(100, Gauge::noop());
        cache.insert(object(1), 80, [Bytes::from_static(b"abc"), Bytes::from_static(b"defg")]);
        assert_eq!(joined(cache.read(&object(1), 80..87)), Some(b"abcdefg".to_vec()));
        assert_eq!(joined(cache.read(&object(1), 82..84)), Some(b"cd".to_vec()));
        assert_eq!(joined(cache.read(&object(1), 83..87)), Some(b"defg".to_vec()));
        assert_eq!(cache.read(&object(1), 79..82), None);
        assert_eq!(cache.read(&object(1), 86..88), None);
        assert_eq!(cache.read(&object(2), 80..81), None);
    }

    #[test]
    fn the_oldest_objects_go_when_there_are_too_many_bytes() {
        let cache = TailCache::new(10, Gauge::noop());
        for sequence in 1..=3 {
            cache.insert(object(sequence), 80, [Bytes::from_static(b"four")]);
        }
        assert!(!cache.holds(&object(1)) && cache.holds(&object(2)) && cache.holds(&object(3)));
        cache.insert(object(4), 80, [Bytes::from_static(b"more than ten")]);
        assert!(!cache.holds(&object(4)) && cache.holds(&object(3)));
    }
}
