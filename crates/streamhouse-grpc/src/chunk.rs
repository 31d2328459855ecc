//! One answer of a read, sent without being joined: the bytes of batches go to the socket from where they lie.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use streamhouse_broker::Fetched;
use streamhouse_proto::v1;
use streamhouse_types::batch::{HEADER_BYTES, read_header};
use streamhouse_types::{LogIndex, Offset, PartitionIndex};

/// Pieces below this are copied together: a frame of its own costs as much as copying about so many bytes.
const JOINED_MAX: usize = 16 << 10;
/// In front of a message: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// A [`v1::ReadResponse`] whose batches lie in pieces.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) partition: PartitionIndex,
    pub(crate) fetched: Fetched,
    pub(crate) caught_up: bool,
    /// How new the node was when it fetched.
    pub(crate) read_token: LogIndex,
}

impl Chunk {
    /// Drops the batches that begin at or behind `until`.
    pub(crate) fn cut(&mut self, until: Offset) {
        if self.fetched.next_offset <= until {
            return;
        }
        let keep = length_before(&self.fetched.bytes, until);
        truncate(&mut self.fetched.bytes, keep);
        self.fetched.next_offset = until;
    }

    /// The same with its batches in one piece.
    pub(crate) fn into_response(self) -> v1::ReadResponse {
        let Self { partition, fetched, caught_up, read_token } = self;
        v1::ReadResponse {
            partition: partition.get(),
            record_batches: joined(fetched.bytes),
            next_offset: fetched.next_offset.get(),
            high_watermark: fetched.high_watermark.get(),
            log_start: fetched.log_start.get(),
            caught_up,
            read_token: read_token.get(),
        }
    }

    /// The message as gRPC sends it, its length in front, in frames: large pieces as they are, small ones together.
    ///
    /// The fields come in the order of their numbers; those of value 0 are left out, as `prost` does.
    pub(crate) fn frames(self, out: &mut VecDeque<Bytes>) {
        let batches = self.fetched.len();
        let (mut head, mut tail) = (BytesMut::new(), BytesMut::new());
        number(1, self.partition.get().into(), &mut head);
        if batches != 0 {
            encode_key(2, WireType::LengthDelimited, &mut head);
            encode_varint(batches as u64, &mut head);
        }
        number(3, self.fetched.next_offset.get(), &mut tail);
        number(4, self.fetched.high_watermark.get(), &mut tail);
        number(5, self.fetched.log_start.get(), &mut tail);
        number(6, self.caught_up.into(), &mut tail);
        number(7, self.read_token.get(), &mut tail);
        let length = u32::try_from(head.len() + batches + tail.len()).expect("chunks are a few MiB");

        let mut small = BytesMut::with_capacity(GRPC_PREFIX + head.len() + tail.len() + 64);
        small.put_u8(0);
        small.put_u32(length);
        small.extend_from_slice(&head);
        for piece in self.fetched.bytes {
            if piece.len() < JOINED_MAX {
                small.extend_from_slice(&piece);
                continue;
            }
            if !small.is_empty() {
                out.push_back(small.split().freeze());
            }
            out.push_back(piece);
        }
        small.extend_from_slice(&tail);
        if !small.is_empty() {
            out.push_back(small.freeze());
        }
    }
}

fn number(tag: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// The pieces as one; copies only when there are several.
pub(crate) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut whole = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    whole.into()
}

/// Length of the batches that begin before `until`. Bytes that are no batch are kept: the reader will judge them.
fn length_before(pieces: &[Bytes], until: Offset) -> usize {
    let whole: usize = pieces.iter().map(Bytes::len).sum();
    let mut rest: VecDeque<Bytes> = pieces.iter().cloned().collect();
    let mut passed = 0;
    while passed < whole {
        let mut header = [0_u8; HEADER_BYTES];
        let mut filled = 0;
        for piece in &rest {
            let take = piece.len().min(HEADER_BYTES - filled);
            header[filled..filled + take].copy_from_slice(&piece[..take]);
            filled += take;
            if filled == HEADER_BYTES {
                break;
            }
        }
        let Ok(header) = read_header(&header[..filled]) else { return whole };
        if u64::try_from(header.base_offset).is_ok_and(|base| base >= until.get()) {
            return passed;
        }
        let length = header.length_bytes as usize;
        passed += length;
        skip(&mut rest, length);
    }
    whole
}

fn skip(pieces: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(first) = pieces.front_mut() {
        if first.len() > bytes {
            return first.advance(bytes);
        }
        bytes -= first.len();
        pieces.pop_front();
    }
}

fn truncate(pieces: &mut Vec<Bytes>, mut keep: usize) {
    pieces.retain_mut(|piece| {
        piece.truncate(keep);
        keep -= piece.len();
        !piece.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use streamhouse_types::batch::{BatchBuilder, Compression, RecordRef, patch_base};
    use streamhouse_types::{Epoch, Timestamp};

    use super::*;

    fn batch(base: u64, records: u32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            let timestamp = Timestamp::from_millis(1);
            let record = RecordRef { key: None, value: Some(b"value"), headers: &[], timestamp };
            builder.push(&record).expect("room");
        }
        let mut bytes = builder.build().to_vec();
        patch_base(&mut bytes, Offset::new(base), Epoch::new(0));
        bytes
    }

    fn chunk(pieces: Vec<Bytes>, next: u64) -> Chunk {
        let fetched = Fetched {
            bytes: pieces,
            next_offset: Offset::new(next),
            high_watermark: Offset::new(100),
            log_start: Offset::ZERO,
            records: 0,
        };
        Chunk { partition: PartitionIndex::new(3), fetched, caught_up: true, read_token: LogIndex::new(9) }
    }

    /// Two batches at 0 and 10, cut into odd pieces.
    fn two_batches() -> (Vec<Bytes>, usize) {
        let (first, second) = (batch(0, 10), batch(10, 10));
        let whole: Bytes = [first.clone(), second].concat().into();
        let pieces =
            vec![whole.slice(..20), whole.slice(20..first.len() + 7), whole.slice(first.len() + 7..)];
        (pieces, first.len())
    }

    #[track_caller]
    fn frames_read_as_the_message(chunk: Chunk, expected_frames: usize) {
        let mut frames = VecDeque::new();
        chunk.clone().frames(&mut frames);
        assert_eq!(frames.len(), expected_frames);
        let mut sent: Bytes = frames.into_iter().flatten().collect();
        assert_eq!(sent.get_u8(), 0);
        assert_eq!(sent.get_u32() as usize, sent.len());
        assert_eq!(v1::ReadResponse::decode(sent).expect("a message"), chunk.into_response());
    }

    #[test]
    fn the_frames_of_a_chunk_are_the_message_of_the_api() {
        let (pieces, _) = two_batches();
        frames_read_as_the_message(chunk(pieces.clone(), 20), 1);
        frames_read_as_the_message(chunk(Vec::new(), 0), 1);
        let large = Bytes::from(vec![7; JOINED_MAX]);
        let mixed = vec![pieces[0].clone(), large.clone(), large, pieces[1].clone()];
        frames_read_as_the_message(chunk(mixed, 20), 4);
    }

    #[test]
    fn large_pieces_are_sent_from_where_they_lie() {
        let large = Bytes::from(vec![7; JOINED_MAX]);
        let mut frames = VecDeque::new();
        chunk(vec![large.clone()], 20).frames(&mut frames);
        assert_eq!(frames[1].as_ptr(), large.as_ptr());
    }

    #[track_caller]
    fn cut_at(until: u64, expected: usize) {
        let (pieces, _) = two_batches();
        let mut chunk = chunk(pieces, 20);
        chunk.cut(Offset::new(until));
        assert_eq!(chunk.fetched.len(), expected, "cut at {until}");
        assert_eq!(chunk.fetched.next_offset.get(), until.min(20));
    }

    #[test]
    fn batches_behind_the_end_are_cut_off_whole() {
        let (pieces, first) = two_batches();
        let whole: usize = pieces.iter().map(Bytes::len).sum();
        cut_at(20, whole);
        cut_at(30, whole);
        cut_at(11, whole);
        cut_at(10, first);
        cut_at(1, first);
        cut_at(0, 0);
    }
}
