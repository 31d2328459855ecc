//! Frames and the records in them.
//!
//! A frame is what was written and synced at once: `length u32, crc32c u32, sequence u64, body`, all little-endian.
//! The length is the body's; the checksum covers length, sequence and body. A body is a run of records:
//! `kind u8, length u32, payload`.

use bytes::Bytes;

use crate::checksum::crc32c_of;
use crate::codec::{
    Malformed, Reader, put_entry, put_log_id, put_optional_log_id, put_optional_vote, put_vote, read_entry,
};
use crate::types::{Entry, LogId, Vote};

/// Bytes before a frame's body.
pub(crate) const FRAME_HEADER: usize = 16;
/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER: usize = 5;

const KIND_SEGMENT: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_VOTE: u8 = 3;
const KIND_TRUNCATE: u8 = 4;
const KIND_PURGE: u8 = 5;
const KIND_COMMITTED: u8 = 6;

const SEGMENT_MAGIC: &[u8; 8] = b"SHRAFTLG";
const SEGMENT_VERSION: u8 = 1;

/// First record of each file: what held when the file was begun, so that the files before it can go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SegmentHeader {
    /// The node that writes the log.
    pub(crate) node: u64,
    /// The number of the file.
    pub(crate) number: u64,
    pub(crate) standing: Standing,
}

/// What the log on disk says, apart from its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The last entry, purged or not.
    pub(crate) last: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) vote: Option<Vote>,
}

impl Standing {
    /// Takes in a record that was written.
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Segment(_) => {}
            Record::Entry(entry) => self.last = Some(entry.log_id),
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Truncate(last) => self.last = *last,
            Record::Purge(upto) => {
                self.purged = self.purged.max(Some(*upto));
                if self.last.is_none_or(|last| last.index() <= upto.index()) {
                    self.last = Some(*upto);
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
        }
    }
}

/// One fact of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Segment(SegmentHeader),
    Entry(Entry),
    Vote(Vote),
    /// The log ends after this entry; `None` for an empty log.
    Truncate(Option<LogId>),
    /// Entries up to this one are in a snapshot and may go.
    Purge(LogId),
    /// Entries up to this one are committed.
    Committed(LogId),
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Self::Segment(_) => KIND_SEGMENT,
            Self::Entry(_) => KIND_ENTRY,
            Self::Vote(_) => KIND_VOTE,
            Self::Truncate(_) => KIND_TRUNCATE,
            Self::Purge(_) => KIND_PURGE,
            Self::Committed(_) => KIND_COMMITTED,
        }
    }

    /// Appends the record to a body.
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        put_framed(to, self.kind(), |to| match self {
            Self::Segment(header) => {
                to.extend_from_slice(SEGMENT_MAGIC);
                to.push(SEGMENT_VERSION);
                to.extend_from_slice(&header.node.to_le_bytes());
                to.extend_from_slice(&header.number.to_le_bytes());
                put_optional_log_id(to, header.standing.last.as_ref());
                put_optional_log_id(to, header.standing.purged.as_ref());
                put_optional_log_id(to, header.standing.committed.as_ref());
                put_optional_vote(to, header.standing.vote.as_ref());
            }
            Self::Entry(entry) => put_entry(to, entry),
            Self::Vote(vote) => put_vote(to, vote),
            Self::Truncate(last) => put_optional_log_id(to, last.as_ref()),
            Self::Purge(id) | Self::Committed(id) => put_log_id(to, id),
        });
    }

    fn decode(kind: u8, payload: Bytes) -> Result<Self, Malformed> {
        if kind == KIND_ENTRY {
            return read_entry(payload).map(Self::Entry);
        }
        let mut reader = Reader::new(payload, "log record");
        let record = match kind {
            KIND_SEGMENT => Self::Segment(read_segment_header(&mut reader)?),
            KIND_VOTE => Self::Vote(reader.vote()?),
            KIND_TRUNCATE => Self::Truncate(reader.optional_log_id()?),
            KIND_PURGE => Self::Purge(reader.log_id()?),
            KIND_COMMITTED => Self::Committed(reader.log_id()?),
            _ => return Err(Malformed("record of a known kind")),
        };
        reader.finish()?;
        Ok(record)
    }
}

/// Appends an entry's record without taking the entry; returns where in `to` its payload begins.
pub(crate) fn put_entry_record(to: &mut Vec<u8>, entry: &Entry) -> usize {
    let start = to.len() + RECORD_HEADER;
    put_framed(to, KIND_ENTRY, |to| put_entry(to, entry));
    start
}

fn put_framed(to: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    to.push(kind);
    let length_at = to.len();
    to.extend_from_slice(&[0; 4]);
    payload(to);
    let length = u32::try_from(to.len() - length_at - 4).expect("a record is below 4 GiB");
    to[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn read_segment_header(reader: &mut Reader) -> Result<SegmentHeader, Malformed> {
    if reader.take(SEGMENT_MAGIC.len())?.as_ref() != SEGMENT_MAGIC {
        return Err(Malformed("segment header"));
    }
    if reader.u8()? != SEGMENT_VERSION {
        return Err(Malformed("segment header of a version that this release knows"));
    }
    Ok(SegmentHeader {
        node: reader.u64()?,
        number: reader.u64()?,
        standing: Standing {
            last: reader.optional_log_id()?,
            purged: reader.optional_log_id()?,
            committed: reader.optional_log_id()?,
            vote: reader.optional_vote()?,
        },
    })
}

/// Begins a frame in `buffer`, which is emptied: room for the header, the body follows.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER, 0);
}

/// Completes the frame in `buffer`.
pub(crate) fn finish(buffer: &mut [u8], sequence: u64) {
    let (header, body) = buffer.split_at_mut(FRAME_HEADER);
    let length = u32::try_from(body.len()).expect("a frame is below 4 GiB").to_le_bytes();
    let sequence = sequence.to_le_bytes();
    let crc = crc32c_of(&[&length, &sequence, body]).to_le_bytes();
    header[..4].copy_from_slice(&length);
    header[4..8].copy_from_slice(&crc);
    header[8..].copy_from_slice(&sequence);
}

/// A frame whose checksum holds.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) sequence: u64,
    pub(crate) body: Bytes,
}

impl Frame {
    /// Length on disk.
    pub(crate) fn length(&self) -> usize {
        FRAME_HEADER + self.body.len()
    }

    /// The records, each with the position of its payload counted from the start of the frame.
    pub(crate) fn records(&self) -> Result<Vec<(usize, Record)>, Malformed> {
        let mut records = Vec::new();
        let mut reader = Reader::new(self.body.clone(), "run of records");
        let mut position = FRAME_HEADER;
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let length = usize::try_from(reader.u32()?).map_err(|_| reader.malformed())?;
            let payload = reader.take(length)?;
            position += RECORD_HEADER;
            records.push((position, Record::decode(kind, payload)?));
            position += length;
        }
        Ok(records)
    }
}

/// The sequence that the frame at the start of `bytes` claims; `None` when there cannot be one.
pub(crate) fn claimed_sequence(bytes: &[u8]) -> Option<u64> {
    let header: &[u8; FRAME_HEADER] = bytes.get(..FRAME_HEADER)?.try_into().ok()?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?);
    let fits = length > 0 && usize::try_from(length).is_ok_and(|length| length <= bytes.len() - FRAME_HEADER);
    fits.then(|| u64::from_le_bytes(header[8..].try_into().expect("eight bytes")))
}

/// The frame at the start of `bytes`; `None` when there is none whose checksum holds. Never panics.
pub(crate) fn decode(bytes: &Bytes) -> Option<Frame> {
    let sequence = claimed_sequence(bytes)?;
    let length = usize::try_from(u32::from_le_bytes(bytes[..4].try_into().ok()?)).ok()?;
    let body = bytes.slice(FRAME_HEADER..FRAME_HEADER + length);
    let crc = crc32c_of(&[&bytes[..4], &bytes[8..FRAME_HEADER], &body]);
    (crc.to_le_bytes() == bytes[4..8]).then_some(Frame { sequence, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    fn frame(records: &[Record], sequence: u64) -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        records.iter().for_each(|record| record.put(&mut buffer));
        finish(&mut buffer, sequence);
        buffer
    }

    fn all() -> Vec<Record> {
        let standing = Standing {
            last: Some(log_id(3, 4)),
            purged: None,
            committed: Some(log_id(3, 3)),
            vote: Some(Vote::new_committed(3, 1)),
        };
        let header = SegmentHeader { node: 1, number: 2, standing };
        vec![
            Record::Segment(header),
            Record::Entry(Entry { log_id: log_id(3, 5), payload: openraft::EntryPayload::Blank }),
            Record::Vote(Vote::new(4, 2)),
            Record::Truncate(None),
            Record::Purge(log_id(3, 4)),
            Record::Committed(log_id(3, 5)),
        ]
    }

    #[test]
    fn a_frame_reads_back_its_records_and_where_they_lie() {
        let bytes = Bytes::from(frame(&all(), 9));
        let decoded = decode(&bytes).expect("valid");
        assert_eq!((decoded.sequence, decoded.length()), (9, bytes.len()));
        let records = decoded.records().expect("valid");
        assert_eq!(records.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), all());
        let (position, _) = records[1];
        let entry = read_entry(bytes.slice(position..position + 17)).expect("an entry lies there");
        assert_eq!(entry.log_id, log_id(3, 5));
    }

    #[test]
    fn any_flipped_bit_breaks_the_frame() {
        let bytes = frame(&all(), 9);
        for position in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[position / 8] ^= 1 << (position % 8);
            assert!(decode(&damaged.into()).is_none(), "bit {position}");
        }
    }

    #[test]
    fn the_bytes_of_a_frame_stay_what_they_are() {
        let bytes = frame(&[Record::Committed(log_id(1, 2))], 3);
        let expected = [
            &[21, 0, 0, 0][..],
            &bytes[4..8],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[6, 16, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(bytes[4..8], [221, 129, 98, 52]);
    }
}
