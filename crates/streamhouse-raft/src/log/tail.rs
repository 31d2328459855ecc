//! What the log holds, in memory: where each entry lies, and the newest entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use streamhouse_env::LogFile;

use crate::codec::entry_size;
use crate::types::{Entry, LogId, Vote, log_id};

/// Where an entry lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the file.
    pub(crate) segment: u64,
    /// Where its frame begins in the file.
    pub(crate) frame: u64,
    /// Length of the frame.
    pub(crate) frame_length: usize,
    /// Where the entry begins in the frame.
    pub(crate) offset: usize,
    /// Length of the entry.
    pub(crate) length: usize,
}

#[derive(Debug)]
struct Slot {
    term: u64,
    /// `None` until it is written.
    place: Option<Place>,
    /// `None` when it was put out of memory.
    entry: Option<Entry>,
}

/// A file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn LogFile>,
    /// The greatest index of an entry that was ever written to it.
    pub(crate) last_index: Option<u64>,
    /// Bytes written.
    pub(crate) bytes: u64,
}

/// An entry as the tail knows it.
#[derive(Debug)]
pub(crate) enum Known {
    Entry(Entry),
    OnDisk(Place, Arc<dyn LogFile>),
}

/// The log's content.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The last entry, purged or not.
    last: Option<LogId>,
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// All slots before this index are out of memory.
    cached_from: u64,
    cached_bytes: usize,
    cache_limit: usize,
    pub(crate) segments: BTreeMap<u64, Segment>,
}

impl Tail {
    pub(crate) fn new(cache_limit: usize) -> Self {
        Self { cache_limit, ..Self::default() }
    }

    /// Begins at what a segment header says, before anything was replayed.
    pub(crate) fn begin_after(&mut self, last: Option<LogId>) {
        self.last = last;
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The index that the next entry must have.
    pub(crate) fn next_index(&self) -> u64 {
        self.last.map_or(0, |last| last.index() + 1)
    }

    /// The index of the first entry that is there (or would be).
    pub(crate) fn first_index(&self) -> u64 {
        if self.slots.is_empty() { self.next_index() } else { self.first }
    }

    /// Appends an entry whose index is [`next_index`](Self::next_index); the first entry ever may have any.
    pub(crate) fn append(&mut self, entry: Entry, place: Option<Place>) {
        let index = entry.log_id.index();
        assert!(self.last.is_none() || index == self.next_index(), "entry {index} leaves a hole in the log");
        if self.slots.is_empty() {
            self.first = index;
            self.cached_from = index;
        }
        self.last = Some(entry.log_id);
        self.cached_bytes += entry_size(&entry);
        let term = entry.log_id.committed_leader_id().term;
        self.slots.push_back(Slot { term, place, entry: Some(entry) });
        self.evict();
    }

    /// Notes where an entry was written; nothing when the entry was truncated or purged meanwhile.
    pub(crate) fn placed(&mut self, id: LogId, place: Place) {
        let Some(slot) = self.slot_mut(id.index()) else { return };
        if slot.term == id.committed_leader_id().term {
            slot.place = Some(place);
        }
    }

    /// Puts old entries out of memory, never one that is not on disk.
    pub(crate) fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit {
            let from = self.cached_from;
            let Some(slot) = self.slot_mut(from).filter(|slot| slot.place.is_some()) else { return };
            let freed = slot.entry.take().map_or(0, |entry| entry_size(&entry));
            self.cached_bytes -= freed;
            self.cached_from = from + 1;
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(position)
    }

    fn forget(&mut self, slot: Option<Slot>) {
        if let Some(entry) = slot.and_then(|slot| slot.entry) {
            self.cached_bytes -= entry_size(&entry);
        }
    }

    /// The log ends after `last`.
    pub(crate) fn truncate(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |last| last.index() + 1);
        while !self.slots.is_empty() && self.next_index() > end {
            let slot = self.slots.pop_back();
            self.forget(slot);
            let next = self.next_index() - 1;
            // The term is set right below; only the index counts here.
            self.last = next.checked_sub(1).map(|index| log_id(0, index));
        }
        self.last = last;
        self.cached_from = self.cached_from.min(end);
    }

    /// Entries up to `upto` are gone.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while !self.slots.is_empty() && self.first <= upto.index() {
            let slot = self.slots.pop_front();
            self.forget(slot);
            self.first += 1;
        }
        if self.purged.is_none_or(|purged| purged < upto) {
            self.purged = Some(upto);
        }
        if self.next_index() <= upto.index() {
            self.last = Some(upto);
        }
        self.cached_from = self.cached_from.max(self.first);
    }

    /// The entries of `range` that are there, in order; after the first one only as many as fit `bytes`.
    pub(crate) fn read(&self, range: Range<u64>, bytes: usize) -> Vec<Known> {
        let start = range.start.max(self.first_index());
        let end = range.end.min(self.next_index());
        let mut found = Vec::new();
        let mut room = bytes;
        for index in start..end {
            let position = usize::try_from(index - self.first).expect("slots are in memory");
            let slot = &self.slots[position];
            let (known, size) = match (&slot.entry, slot.place) {
                (Some(entry), _) => (Known::Entry(entry.clone()), entry_size(entry)),
                (None, Some(place)) => {
                    let file = self.segments.get(&place.segment).expect("a segment outlives its entries");
                    (Known::OnDisk(place, file.file.clone()), place.length)
                }
                (None, None) => unreachable!("an entry leaves memory only once it is on disk"),
            };
            if size > room && !found.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            found.push(known);
        }
        found
    }

    /// Bytes written to files that still exist.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Files that hold nothing but purged entries, oldest first; never the newest file. Nothing behind a file that is
    /// still needed goes, so that the files stay a row.
    pub(crate) fn droppable(&self) -> Vec<u64> {
        let Some(purged) = self.purged else { return Vec::new() };
        let newest = self.segments.keys().next_back().copied();
        let done = |segment: &Segment| segment.last_index.is_none_or(|last| last <= purged.index());
        self.segments
            .iter()
            .take_while(|(number, segment)| Some(**number) != newest && done(segment))
            .map(|(number, _)| *number)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
    }

    fn filled(count: u64) -> Tail {
        let mut tail = Tail::new(usize::MAX);
        (0..count).for_each(|index| tail.append(entry(1, index), None));
        tail
    }

    fn indexes(tail: &Tail) -> Vec<u64> {
        let index = |known: &Known| match known {
            Known::Entry(entry) => entry.log_id.index(),
            Known::OnDisk(..) => panic!("all in memory"),
        };
        tail.read(0..u64::MAX, usize::MAX).iter().map(index).collect()
    }

    #[test]
    fn a_truncated_log_goes_on_where_it_was_cut() {
        let mut tail = filled(5);
        tail.truncate(Some(log_id(1, 2)));
        assert_eq!((tail.last(), indexes(&tail)), (Some(log_id(1, 2)), vec![0, 1, 2]));
        tail.append(entry(2, 3), None);
        assert_eq!(tail.last(), Some(log_id(2, 3)));
        tail.truncate(None);
        assert_eq!((tail.last(), indexes(&tail), tail.cached_bytes), (None, vec![], 0));
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_log() {
        let mut tail = filled(5);
        tail.purge(log_id(1, 2));
        assert_eq!((tail.first_index(), indexes(&tail)), (3, vec![3, 4]));
        tail.purge(log_id(4, 9));
        assert_eq!((tail.last(), tail.first_index(), tail.cached_bytes), (Some(log_id(4, 9)), 10, 0));
        tail.append(entry(4, 10), None);
        assert_eq!(indexes(&tail), [10]);
    }

    #[test]
    fn entries_leave_memory_only_once_they_are_on_disk() {
        let mut tail = Tail::new(0);
        (0..3).for_each(|index| tail.append(entry(1, index), None));
        assert_eq!(indexes(&tail), [0, 1, 2]);
        let place = Place { segment: 1, frame: 0, frame_length: 0, offset: 0, length: 17 };
        tail.placed(log_id(1, 0), place);
        tail.placed(log_id(7, 1), place);
        tail.evict();
        assert!(tail.slots[0].entry.is_none(), "written");
        assert!(tail.slots[1].entry.is_some(), "what was written had another term");
    }
}
