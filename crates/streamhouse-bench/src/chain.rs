//! The proof that records come back complete, in order and unchanged.
//!
//! Each record of a chain carries its sequence number and a hash over its own bytes and the hash before it. Whoever
//! reads them computes the same: a record that is lost, repeated, out of order or changed breaks the chain there.

use std::fmt;

/// Bytes of the chain's own fields at the front of a record: the least that a record has.
pub const HEAD_BYTES: usize = 24;

/// FNV-1a, eight bytes at a time: it finds faults, not forgers.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut state = seed ^ 0xcbf2_9ce4_8422_2325;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
        state ^= state >> 29;
    }
    for byte in rest {
        state = (state ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    state ^ (state >> 32)
}

/// Writes the records of one chain.
#[derive(Debug, Clone)]
pub(crate) struct ChainWriter {
    id: u32,
    sequence: u64,
    hash: u64,
}

impl ChainWriter {
    /// A chain with this number.
    pub(crate) fn new(id: u32) -> Self {
        Self { id, sequence: 0, hash: 0 }
    }

    /// Records written so far.
    pub(crate) fn written(&self) -> u64 {
        self.sequence
    }

    /// Seals `record` as the next of the chain, with the time of its sending.
    ///
    /// # Panics
    /// When the record is shorter than [`HEAD_BYTES`].
    pub(crate) fn seal(&mut self, record: &mut [u8], sent_micros: u64) {
        let (head, payload) = record.split_at_mut(HEAD_BYTES);
        // 48 bits of microseconds reach over eight years of one run; the chain's number takes the other 16.
        let place = (u64::from(self.id) << 48) | (sent_micros & ((1 << 48) - 1));
        self.hash = hash(self.hash ^ self.sequence ^ place, payload);
        head[..8].copy_from_slice(&place.to_le_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        head[16..].copy_from_slice(&self.hash.to_le_bytes());
        self.sequence += 1;
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Break {
    /// The record is too short to be one of ours.
    NotOurs,
    /// The next record has another number than it should have.
    Sequence {
        /// The chain.
        chain: u32,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// The record or one before it is not what was written.
    Hash {
        /// The chain.
        chain: u32,
        /// The record.
        sequence: u64,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => f.write_str("a record that no producer of this run has written"),
            Self::Sequence { chain, expected, found } if found < expected => {
                write!(f, "chain {chain}: record {found} came again, {expected} was next")
            }
            Self::Sequence { chain, expected, found } => {
                write!(f, "chain {chain}: records {expected}..{found} are missing")
            }
            Self::Hash { chain, sequence } => {
                write!(f, "chain {chain}: record {sequence} is not what was written")
            }
        }
    }
}

/// Reads and checks the records of one partition, which may hold several chains.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainReader {
    /// Next sequence and hash of each chain, by its number.
    chains: Vec<(u64, u64)>,
}

/// A record of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The chain.
    pub(crate) chain: u32,
    /// When it was sent, in the sender's microseconds.
    pub(crate) sent_micros: u64,
}

impl ChainReader {
    /// Checks the next record.
    ///
    /// # Errors
    /// Where the chain breaks. It goes on after the break, so that one fault is counted once.
    pub(crate) fn check(&mut self, record: &[u8]) -> Result<Link, Break> {
        let Some((head, payload)) = record.split_at_checked(HEAD_BYTES) else { return Err(Break::NotOurs) };
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (place, sequence, claimed) = (word(0), word(8), word(16));
        let chain = u32::try_from(place >> 48).expect("16 bits");
        let index = usize::try_from(chain).expect("16 bits");
        if self.chains.len() <= index {
            self.chains.resize(index + 1, (0, 0));
        }
        let (expected, before) = self.chains[index];
        self.chains[index] = (sequence + 1, claimed);
        if sequence != expected {
            return Err(Break::Sequence { chain, expected, found: sequence });
        }
        if hash(before ^ sequence ^ place, payload) != claimed {
            return Err(Break::Hash { chain, sequence });
        }
        Ok(Link { chain, sent_micros: place & ((1 << 48) - 1) })
    }

    /// Records of the chain that were read, counted by the last one's number.
    pub(crate) fn read(&self, chain: u32) -> u64 {
        let index = usize::try_from(chain).expect("a chain's number has 16 bits");
        self.chains.get(index).map_or(0, |(next, _)| *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u64) -> Vec<Vec<u8>> {
        let mut chain = ChainWriter::new(3);
        (0..count)
            .map(|number| {
                let mut record = vec![u8::try_from(number % 251).unwrap(); 100];
                chain.seal(&mut record, 1_000 + number);
                record
            })
            .collect()
    }

    fn breaks(records: &[Vec<u8>]) -> Vec<Break> {
        let mut reader = ChainReader::default();
        records.iter().filter_map(|record| reader.check(record).err()).collect()
    }

    #[test]
    fn an_untouched_chain_holds_and_tells_when_each_record_was_sent() {
        let mut reader = ChainReader::default();
        for (number, record) in records(50).iter().enumerate() {
            let link = reader.check(record).unwrap();
            assert_eq!(link, Link { chain: 3, sent_micros: 1_000 + number as u64 });
        }
        assert_eq!(reader.read(3), 50);
    }

    #[test]
    fn a_lost_record_breaks_the_chain_once() {
        let mut some = records(10);
        some.remove(4);
        assert_eq!(breaks(&some), [Break::Sequence { chain: 3, expected: 4, found: 5 }]);
    }

    #[test]
    fn a_repeated_record_breaks_the_chain() {
        let mut some = records(10);
        some.insert(5, some[4].clone());
        assert_eq!(breaks(&some)[0], Break::Sequence { chain: 3, expected: 5, found: 4 });
    }

    #[test]
    fn two_records_that_change_places_break_the_chain() {
        let mut some = records(10);
        some.swap(4, 5);
        assert!(!breaks(&some).is_empty());
    }

    #[test]
    fn every_changed_bit_breaks_the_chain() {
        let some = records(4);
        for byte in 0..100 {
            for bit in 0..8 {
                let mut changed = some.clone();
                changed[2][byte] ^= 1 << bit;
                assert!(!breaks(&changed).is_empty(), "byte {byte}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_foreign_record_is_told_apart() {
        assert_eq!(ChainReader::default().check(b"hello"), Err(Break::NotOurs));
    }
}
