//! What was seen at each offset of one partition.

use std::collections::BTreeMap;

use super::appends::AppendNo;

/// What lies at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing was seen there.
    Empty,
    /// A value that nobody sent.
    Foreign,
    /// This record.
    Of(AppendNo),
}

const EMPTY: u32 = u32::MAX;
const FOREIGN: u32 = u32::MAX - 1;

impl Value {
    fn of(raw: u32) -> Self {
        match raw {
            EMPTY => Self::Empty,
            FOREIGN => Self::Foreign,
            append => Self::Of(AppendNo::new(append)),
        }
    }

    fn raw(self) -> u32 {
        match self {
            Self::Empty => EMPTY,
            Self::Foreign => FOREIGN,
            Self::Of(append) => append.get(),
        }
    }
}

const SLOTS: usize = 128;

/// 128 neighbouring offsets: a little more than four bytes each. Small, so that offsets that lie far apart, as a
/// damaged history may have them, cost no more than their lines.
#[derive(Debug)]
struct Chunk {
    values: [u32; SLOTS],
    acked: u128,
    read: u128,
}

/// One partition, from whatever offset is seen first.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// By the number of the chunk, its place in `chunks`.
    places: BTreeMap<u64, u32>,
    #[expect(
        clippy::vec_box,
        reason = "a longer list must not copy its chunks, nor reserve room for as many again"
    )]
    chunks: Vec<Box<Chunk>>,
    /// The chunk that was used last; the next offset is most often in the same.
    last: Option<(u64, u32)>,
}

/// An offset at which something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) value: Value,
    /// Acknowledged there.
    pub(super) acked: bool,
    /// Seen by the final read.
    pub(super) read: bool,
}

impl Log {
    pub(super) fn value(&mut self, offset: u64) -> Value {
        let (chunk, slot) = self.chunk(offset);
        Value::of(chunk.values[slot])
    }

    pub(super) fn set(&mut self, offset: u64, value: Value) {
        let (chunk, slot) = self.chunk(offset);
        chunk.values[slot] = value.raw();
    }

    /// The record at this offset is acknowledged.
    pub(super) fn set_acked(&mut self, offset: u64) {
        let (chunk, slot) = self.chunk(offset);
        chunk.acked |= 1 << slot;
    }

    /// The final read has seen this offset.
    pub(super) fn set_read(&mut self, offset: u64) {
        let (chunk, slot) = self.chunk(offset);
        chunk.read |= 1 << slot;
    }

    /// A new final read begins.
    pub(super) fn clear_read(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.read = 0);
    }

    /// All offsets at which something was seen, rising.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.places.iter().flat_map(|(number, place)| {
            let chunk = &self.chunks[*place as usize];
            let slots = chunk.values.iter().zip(0_u64..);
            slots.filter(|(raw, _)| **raw != EMPTY).map(move |(raw, slot)| Entry {
                offset: number * SLOTS as u64 + slot,
                value: Value::of(*raw),
                acked: chunk.acked >> slot & 1 == 1,
                read: chunk.read >> slot & 1 == 1,
            })
        })
    }

    /// Bytes of memory that are held, but for the tree over the chunks.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * size_of::<Chunk>() + self.chunks.capacity() * size_of::<Box<Chunk>>()
    }

    fn chunk(&mut self, offset: u64) -> (&mut Chunk, usize) {
        let number = offset / SLOTS as u64;
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => *self.places.entry(number).or_insert_with(|| {
                let chunk = Chunk { values: [EMPTY; SLOTS], acked: 0, read: 0 };
                self.chunks.push(Box::new(chunk));
                u32::try_from(self.chunks.len() - 1).expect("2^32 chunks do not fit into memory")
            }),
        };
        self.last = Some((number, place));
        (&mut self.chunks[place as usize], usize::try_from(offset % SLOTS as u64).expect("less than 128"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_kept_wherever_they_lie() {
        let mut log = Log::default();
        let offsets = [5, 0, 127, 128, 1 << 40, (1 << 63) - 1, 129];
        for (number, offset) in (0..).zip(offsets) {
            assert_eq!(log.value(offset), Value::Empty);
            log.set(offset, Value::Of(AppendNo::new(number)));
        }
        log.set_acked(128);
        log.set_read(129);
        log.set(127, Value::Foreign);
        let entries: Vec<Entry> = log.entries().collect();
        let mut sorted = offsets;
        sorted.sort_unstable();
        assert_eq!(entries.iter().map(|entry| entry.offset).collect::<Vec<_>>(), sorted);
        let at = |offset| entries.iter().find(|entry| entry.offset == offset).expect("it is there");
        assert_eq!(at(127).value, Value::Foreign);
        assert_eq!((at(128).acked, at(128).read, at(129).acked, at(129).read), (true, false, false, true));
        log.clear_read();
        assert!(log.entries().all(|entry| !entry.read));
    }
}
