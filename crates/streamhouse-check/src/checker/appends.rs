//! What was sent: one row for each record, found by its value.

use crate::event::Digest;
use crate::history::Refusal;

/// Number of an appended record, in the order of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AppendNo(u32);

impl AppendNo {
    /// The first numbers that stand for nothing: [`super::log`] keeps two for itself.
    pub(super) const MAX: u32 = u32::MAX - 2;

    pub(super) fn new(raw: u32) -> Self {
        Self(raw)
    }

    pub(super) fn get(self) -> u32 {
        self.0
    }

    /// The record `records` behind this one in the same append.
    pub(super) fn after(self, records: u32) -> Self {
        Self(self.0 + records)
    }
}

/// A value in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    /// Odd, so that no two partitions get the same.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(super) fn new(partition: u32, digest: Digest) -> Self {
        Self(digest.get() ^ u64::from(partition).wrapping_mul(Self::SPREAD))
    }

    pub(super) fn digest(self, partition: u32) -> Digest {
        Digest::new(Self::new(partition, Digest::new(self.0)).0)
    }
}

/// What is known of an appended record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Its producer is idempotent.
    Idempotent,
    /// It is acknowledged.
    Acked,
    /// It surely did not happen.
    Failed,
    /// It may be there more than once.
    MayRepeat,
    /// It was seen at two offsets.
    Twice,
}

/// 24 bytes for each record.
#[derive(Debug, Clone, Copy)]
struct Row {
    key: Key,
    /// Where it was seen first, or [`NOWHERE`].
    place: u64,
    line: u32,
    /// The producer in the lower 27 bits, the marks above.
    producer: u32,
}

const NOWHERE: u64 = u64::MAX;
const PRODUCER_BITS: u32 = 27;

impl Mark {
    const fn bit(self) -> u32 {
        1 << (PRODUCER_BITS + self as u32)
    }
}

/// A record that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewAppend {
    pub(super) partition: u32,
    pub(super) digest: Digest,
    pub(super) producer: u32,
    pub(super) idempotent: bool,
    pub(super) line: u32,
}

/// All that were sent. Rows lie in segments, so that growing copies nothing; `index` is an open hash table of row
/// numbers, which is several times smaller than a map that holds the keys as well.
#[derive(Debug, Default)]
pub(super) struct Appends {
    segments: Vec<Vec<Row>>,
    rows: u32,
    /// Row number plus one; 0 is free. A power of two long, at most three quarters full.
    index: Vec<u32>,
    used: usize,
}

const SEGMENT: usize = 4096;
const INDEX_MIN: usize = 1024;

impl Appends {
    /// Takes a record.
    ///
    /// # Errors
    /// When the same value was sent to the partition before, and did not surely fail; or there are too many.
    pub(super) fn add(&mut self, new: NewAppend) -> Result<AppendNo, Refused> {
        if self.rows >= AppendNo::MAX {
            return Err(Refused::TooMany);
        }
        let key = Key::new(new.partition, new.digest);
        self.make_room();
        let slot = self.slot(key);
        if let Some(known) = self.index[slot].checked_sub(1).map(AppendNo) {
            // What surely did not happen may be sent again as it is.
            if !self.is(known, Mark::Failed) || self.place(known).is_some() {
                return Err(Refused::Repeated { line: self.line(known) });
            }
        } else {
            self.used += 1;
        }
        let marks = if new.idempotent { Mark::Idempotent.bit() } else { 0 };
        self.push(Row { key, place: NOWHERE, line: new.line, producer: new.producer | marks });
        self.index[slot] = self.rows;
        Ok(AppendNo(self.rows - 1))
    }

    /// The record with this value.
    pub(super) fn find(&self, key: Key) -> Option<AppendNo> {
        if self.index.is_empty() {
            return None;
        }
        self.index[self.slot(key)].checked_sub(1).map(AppendNo)
    }

    pub(super) fn key(&self, append: AppendNo) -> Key {
        self.row(append).key
    }

    /// The line on which it was sent.
    pub(super) fn line(&self, append: AppendNo) -> u32 {
        self.row(append).line
    }

    pub(super) fn producer(&self, append: AppendNo) -> u32 {
        self.row(append).producer & ((1 << PRODUCER_BITS) - 1)
    }

    /// Where it was seen first.
    pub(super) fn place(&self, append: AppendNo) -> Option<u64> {
        Some(self.row(append).place).filter(|place| *place != NOWHERE)
    }

    pub(super) fn set_place(&mut self, append: AppendNo, offset: u64) {
        self.row_mut(append).place = offset;
    }

    pub(super) fn is(&self, append: AppendNo, mark: Mark) -> bool {
        self.row(append).producer & mark.bit() != 0
    }

    pub(super) fn mark(&mut self, append: AppendNo, mark: Mark) {
        self.row_mut(append).producer |= mark.bit();
    }

    /// Bytes of memory that are held.
    pub(super) fn bytes(&self) -> usize {
        self.segments.len() * SEGMENT * size_of::<Row>() + self.index.capacity() * size_of::<u32>()
    }

    fn row(&self, append: AppendNo) -> &Row {
        let at = append.0 as usize;
        &self.segments[at / SEGMENT][at % SEGMENT]
    }

    fn row_mut(&mut self, append: AppendNo) -> &mut Row {
        let at = append.0 as usize;
        &mut self.segments[at / SEGMENT][at % SEGMENT]
    }

    fn push(&mut self, row: Row) {
        if (self.rows as usize).is_multiple_of(SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        self.segments.last_mut().expect("one was pushed").push(row);
        self.rows += 1;
    }

    /// The slot of this key, or the free slot where it belongs.
    fn slot(&self, key: Key) -> usize {
        let bits = self.index.len().trailing_zeros();
        let mixed = key.0.wrapping_mul(Key::SPREAD) >> (64 - bits);
        let mut slot = usize::try_from(mixed).expect("less than the length");
        while let Some(known) = self.index[slot].checked_sub(1) {
            if self.row(AppendNo(known)).key == key {
                break;
            }
            slot = (slot + 1) % self.index.len();
        }
        slot
    }

    fn make_room(&mut self) {
        if self.used < self.index.len() / 4 * 3 {
            return;
        }
        let length = (self.index.len() * 2).max(INDEX_MIN);
        let old = std::mem::replace(&mut self.index, vec![0; length]);
        for known in old.into_iter().filter(|known| *known != 0) {
            let slot = self.slot(self.key(AppendNo(known - 1)));
            self.index[slot] = known;
        }
    }
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The value was sent before.
    Repeated {
        /// Where.
        line: u32,
    },
    /// No number is left.
    TooMany,
}

impl Refused {
    pub(super) fn into_refusal(self, digest: Digest, partition: &str) -> Refusal {
        match self {
            Self::TooMany => Refusal::TooMany { what: "records" },
            Self::Repeated { line } => {
                Refusal::RepeatedValue { digest, partition: partition.to_owned(), line: u64::from(line) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(digest: u64, line: u32) -> NewAppend {
        NewAppend { partition: 3, digest: Digest::new(digest), producer: 77, idempotent: true, line }
    }

    #[test]
    fn records_are_found_by_value_and_partition() {
        let mut appends = Appends::default();
        assert_eq!(appends.find(Key::new(0, Digest::new(0))), None);
        for digest in 0..20_000 {
            let append = appends.add(new(digest, 5)).unwrap();
            assert_eq!(u64::from(append.get()), digest);
        }
        for digest in 0..20_000 {
            let key = Key::new(3, Digest::new(digest));
            let append = appends.find(key).expect("it was added");
            assert_eq!((u64::from(append.get()), appends.key(append)), (digest, key));
            assert_eq!((key.digest(3), appends.producer(append)), (Digest::new(digest), 77));
            assert_eq!(appends.find(Key::new(2, Digest::new(digest))), None);
        }
    }

    #[test]
    fn a_value_is_taken_again_only_when_it_surely_failed() {
        let mut appends = Appends::default();
        let first = appends.add(new(9, 5)).unwrap();
        assert_eq!(appends.add(new(9, 6)), Err(Refused::Repeated { line: 5 }));
        appends.mark(first, Mark::Failed);
        let second = appends.add(new(9, 7)).unwrap();
        assert_eq!(appends.find(Key::new(3, Digest::new(9))), Some(second));
        assert!(appends.is(second, Mark::Idempotent) && !appends.is(second, Mark::Failed));
        appends.set_place(second, 4);
        assert_eq!((appends.place(first), appends.place(second)), (None, Some(4)));
    }
}
