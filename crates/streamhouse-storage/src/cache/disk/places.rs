//! Which blocks lie where on the disk, and which go first. Pure: it says what is to be done to files, and does nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use streamhouse_types::ObjectId;

use super::BlockId;

/// In how many files the blocks lie. The oldest file goes as a whole: 1/64 of what is kept.
const SEGMENTS: u64 = 64;
/// A file takes at most so many times the blocks that fill it when they are whole. Blocks of small objects are smaller,
/// and the list of them would otherwise take more memory than they take disk.
const SMALL_BLOCKS: u64 = 4;

/// Where a block lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<F> {
    pub(super) file: F,
    pub(super) position: u64,
    pub(super) bytes: u64,
    /// Which entry of this block it is.
    pub(super) ticket: u64,
}

/// Where a block may be written to.
#[derive(Debug)]
pub(super) enum Room<F> {
    /// Into the newest file.
    Here { file: F, position: u64 },
    /// Into a new file, once the oldest ones are gone.
    Open,
    /// Nowhere: it is larger than a file may become.
    None,
}

/// A file whose blocks are not found any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) number: u64,
    /// What was written into it, with the ticket of each. The entries are to be dropped, with time for others between.
    pub(super) blocks: Vec<(BlockId, u64)>,
}

#[derive(Debug)]
enum Entry {
    /// It is being written.
    Coming {
        ticket: u64,
    },
    Here {
        segment: u64,
        position: u64,
        bytes: u64,
        ticket: u64,
    },
}

#[derive(Debug)]
struct Segment<F> {
    number: u64,
    file: F,
    bytes: u64,
    /// What was written into it, with the ticket of each.
    blocks: Vec<(BlockId, u64)>,
}

/// The blocks on the disk. They are written one after the other into files of equal size, and go in the order of their
/// coming, a file at a time.
#[derive(Debug)]
pub(super) struct Places<F> {
    segment_bytes: u64,
    /// Most blocks in a file.
    segment_blocks: u64,
    entries: BTreeMap<BlockId, Entry>,
    /// The oldest first.
    segments: VecDeque<Segment<F>>,
    opened: u64,
    tickets: u64,
}

impl<F: Clone> Places<F> {
    /// Nothing, of at most `capacity` bytes in blocks of at most `block_bytes`.
    pub(super) fn new(capacity: u64, block_bytes: u64) -> Self {
        let segment_bytes = capacity / SEGMENTS;
        Self {
            segment_bytes,
            segment_blocks: (segment_bytes / block_bytes).max(1).saturating_mul(SMALL_BLOCKS),
            entries: BTreeMap::new(),
            segments: VecDeque::new(),
            opened: 0,
            tickets: 0,
        }
    }

    /// Bytes in the files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Notes that a block is to be written; returns its ticket, or `None` when it is here or on its way.
    pub(super) fn expect(&mut self, id: BlockId) -> Option<u64> {
        if self.entries.contains_key(&id) {
            return None;
        }
        self.tickets += 1;
        self.entries.insert(id, Entry::Coming { ticket: self.tickets });
        Some(self.tickets)
    }

    /// Whether a block that was to be written is still wanted.
    pub(super) fn is_expected(&self, id: BlockId, ticket: u64) -> bool {
        matches!(self.entries.get(&id), Some(Entry::Coming { ticket: found }) if *found == ticket)
    }

    /// Takes room for so many bytes.
    pub(super) fn room(&mut self, bytes: u64) -> Room<F> {
        if bytes > self.segment_bytes {
            return Room::None;
        }
        match self.segments.back_mut() {
            Some(newest)
                if newest.bytes + bytes <= self.segment_bytes
                    && (newest.blocks.len() as u64) < self.segment_blocks =>
            {
                let position = newest.bytes;
                newest.bytes += bytes;
                Room::Here { file: newest.file.clone(), position }
            }
            _ => Room::Open,
        }
    }

    /// Takes out the oldest file when there is no room for another one.
    pub(super) fn make_room(&mut self) -> Option<Gone> {
        if (self.segments.len() as u64) < SEGMENTS {
            return None;
        }
        let segment = self.segments.pop_front()?;
        Some(Gone { number: segment.number, blocks: segment.blocks })
    }

    /// The number of the next file.
    pub(super) fn next_number(&mut self) -> u64 {
        self.opened += 1;
        self.opened
    }

    /// Goes on in a new file.
    pub(super) fn opened(&mut self, number: u64, file: F) {
        self.segments.push_back(Segment { number, file, bytes: 0, blocks: Vec::new() });
    }

    /// A block was written into the newest file; from now on it is found, unless it was forgotten meanwhile.
    pub(super) fn written(&mut self, id: BlockId, ticket: u64, position: u64, bytes: u64) {
        if self.is_expected(id, ticket)
            && let Some(newest) = self.segments.back_mut()
        {
            let segment = newest.number;
            newest.blocks.push((id, ticket));
            self.entries.insert(id, Entry::Here { segment, position, bytes, ticket });
        }
    }

    /// Where a block lies; `None` when it does not lie anywhere yet, or any more.
    pub(super) fn find(&self, id: BlockId) -> Option<Place<F>> {
        let Entry::Here { segment, position, bytes, ticket } = *self.entries.get(&id)? else { return None };
        let index = self.segments.binary_search_by_key(&segment, |segment| segment.number).ok()?;
        Some(Place { file: self.segments[index].file.clone(), position, bytes, ticket })
    }

    /// Drops one entry of a block; a newer one stays. Returns whether it was still there.
    pub(super) fn drop_entry(&mut self, id: BlockId, ticket: u64) -> bool {
        let ours = |entry: &Entry| match entry {
            Entry::Coming { ticket: found } | Entry::Here { ticket: found, .. } => *found == ticket,
        };
        let is_ours = self.entries.get(&id).is_some_and(ours);
        if is_ours {
            self.entries.remove(&id);
        }
        is_ours
    }

    /// Gives up on a block that was to be written, if that is still so.
    pub(super) fn drop_expected(&mut self, id: BlockId, ticket: u64) {
        if self.is_expected(id, ticket) {
            self.entries.remove(&id);
        }
    }

    /// Drops blocks of an object, also those that are being written.
    pub(super) fn forget(&mut self, object: ObjectId, blocks: Range<u64>) {
        let within = |id: &BlockId| id.0 == object && blocks.contains(&id.1);
        while let Some((id, _)) = self.entries.range((object, blocks.start)..).next()
            && within(id)
        {
            let id = *id;
            self.entries.remove(&id);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.segments.clear();
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

    /// Writes a block of so many bytes, opening files named by their numbers; returns what went.
    fn write(places: &mut Places<u64>, id: BlockId, bytes: u64) -> Option<Gone> {
        let ticket = places.expect(id).expect("not here yet");
        let mut gone = None;
        loop {
            match places.room(bytes) {
                Room::Here { position, .. } => {
                    places.written(id, ticket, position, bytes);
                    return gone;
                }
                Room::Open => {
                    gone = places.make_room();
                    let number = places.next_number();
                    places.opened(number, number);
                }
                Room::None => panic!("too large"),
            }
        }
    }

    #[test]
    fn blocks_lie_one_behind_the_other_and_the_oldest_file_goes_first() {
        let mut places = Places::new(SEGMENTS * 100, 50);
        for block in 0..SEGMENTS * 2 {
            assert_eq!(write(&mut places, (object(1), block), 50), None);
        }
        let place = places.find((object(1), 3)).expect("here");
        assert_eq!((place.file, place.position, place.bytes), (2, 50, 50));
        assert_eq!(places.bytes(), SEGMENTS * 100);
        let gone = write(&mut places, (object(2), 0), 50).expect("there was no room");
        assert_eq!((gone.number, gone.blocks.len()), (1, 2));
        assert_eq!((places.find((object(1), 1)), places.bytes()), (None, SEGMENTS * 100 - 50));
        for (id, ticket) in gone.blocks {
            assert!(places.drop_entry(id, ticket) && !places.drop_entry(id, ticket));
        }
        assert!(places.find((object(1), 2)).is_some() && places.find((object(2), 0)).is_some());
    }

    #[test]
    fn many_small_blocks_do_not_make_the_list_of_them_long() {
        let mut places = Places::new(SEGMENTS * 100, 50);
        for block in 0..10_000 {
            for (id, ticket) in
                write(&mut places, (object(1), block), 1).into_iter().flat_map(|gone| gone.blocks)
            {
                places.drop_entry(id, ticket);
            }
        }
        assert_eq!(places.entries.len() as u64, SEGMENTS * 8);
    }

    #[test]
    fn a_block_that_fits_into_no_file_has_no_room() {
        let mut places = Places::<u64>::new(SEGMENTS * 100 - 1, 50);
        assert!(matches!(places.room(100), Room::None));
        assert!(matches!(places.room(99), Room::Open));
    }

    #[test]
    fn a_block_is_written_once_and_found_only_when_it_was() {
        let mut places = Places::new(SEGMENTS * 100, 50);
        let id = (object(1), 7);
        let ticket = places.expect(id).expect("new");
        assert_eq!((places.expect(id), places.find(id)), (None, None));
        places.opened(1, 1);
        places.written(id, ticket, 0, 50);
        assert_eq!((places.expect(id), places.find(id).map(|place| place.ticket)), (None, Some(ticket)));
    }

    #[test]
    fn what_is_forgotten_while_it_is_written_is_not_found_afterwards() {
        let mut places = Places::new(SEGMENTS * 100, 50);
        places.opened(1, 1);
        let tickets: Vec<_> = (0..4).map(|block| places.expect((object(1), block)).expect("new")).collect();
        places.forget(object(1), 1..3);
        let again = places.expect((object(1), 1)).expect("it was forgotten");
        for (block, ticket) in (0..).zip(tickets) {
            places.written((object(1), block), ticket, block * 20, 20);
        }
        let found: Vec<_> = (0..4).map(|block| places.find((object(1), block)).is_some()).collect();
        assert_eq!(found, [true, false, false, true]);
        places.written((object(1), 1), again, 80, 20);
        assert_eq!(places.find((object(1), 1)).map(|place| place.position), Some(80));
    }

    #[test]
    fn dropping_an_old_entry_leaves_the_newer_one() {
        let mut places = Places::new(SEGMENTS * 100, 50);
        let id = (object(1), 0);
        write(&mut places, id, 50);
        let old = places.find(id).expect("here").ticket;
        places.forget(id.0, 0..1);
        write(&mut places, id, 50);
        places.drop_entry(id, old);
        let new = places.find(id).expect("the newer one");
        places.drop_entry(id, new.ticket);
        assert_eq!(places.find(id), None);
    }
}
