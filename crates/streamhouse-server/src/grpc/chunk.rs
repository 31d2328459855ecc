//! One answer of a read, encoded without first being joined: the pieces of the batches go straight into the buffer
//! that is sent.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use streamhouse_broker::Fetched;
use streamhouse_proto::v1;
use streamhouse_types::batch::{HEADER_BYTES, read_header};
use streamhouse_types::{Offset, PartitionIndex};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A [`v1::ReadResponse`] whose batches lie in pieces.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) partition: PartitionIndex,
    pub(crate) fetched: Fetched,
    pub(crate) caught_up: bool,
}

impl Chunk {
    /// Drops the batches that begin at or behind `until`.
    pub(super) fn cut(&mut self, until: Offset) {
        if self.fetched.next_offset <= until {
            return;
        }
        let keep = length_before(&self.fetched.bytes, until);
        truncate(&mut self.fetched.bytes, keep);
        self.fetched.next_offset = until;
    }

    /// The same with its batches in one piece.
    pub(super) fn into_response(self) -> v1::ReadResponse {
        let Self { partition, fetched, caught_up } = self;
        v1::ReadResponse {
            partition: partition.get(),
            record_batches: joined(fetched.bytes),
            next_offset: fetched.next_offset.get(),
            high_watermark: fetched.high_watermark.get(),
            log_start: fetched.log_start.get(),
            caught_up,
        }
    }

    /// The fields in the order of their numbers; those of value 0 are left out, as `prost` does.
    fn encode(&self, out: &mut impl BufMut) {
        let number = |tag: u32, value: u64, out: &mut dyn BufMut| {
            if value != 0 {
                let mut out = out;
                encode_key(tag, WireType::Varint, &mut out);
                encode_varint(value, &mut out);
            }
        };
        number(1, self.partition.get().into(), out);
        let length = self.fetched.len();
        if length != 0 {
            encode_key(2, WireType::LengthDelimited, out);
            encode_varint(length as u64, out);
            for piece in &self.fetched.bytes {
                out.put_slice(piece);
            }
        }
        number(3, self.fetched.next_offset.get(), out);
        number(4, self.fetched.high_watermark.get(), out);
        number(5, self.fetched.log_start.get(), out);
        number(6, self.caught_up.into(), out);
    }

    /// Room that [`Self::encode`] needs at most.
    fn encoded_len_max(&self) -> usize {
        const NUMBERS: usize = 5 * (1 + 10);
        let length = self.fetched.len();
        NUMBERS + key_len(2) + encoded_len_varint(length as u64) + length
    }
}

/// The pieces as one; copies only when there are several.
pub(super) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
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

/// Sends [`Chunk`]s, takes what `D` decodes.
#[derive(Debug, Default)]
pub(super) struct ChunkCodec;

impl Codec for ChunkCodec {
    type Encode = Chunk;
    type Decode = v1::ReadRequest;
    type Encoder = ChunkEncoder;
    type Decoder = RequestDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ChunkEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder
    }
}

#[derive(Debug)]
pub(super) struct ChunkEncoder;

impl Encoder for ChunkEncoder {
    type Item = Chunk;
    type Error = Status;

    fn encode(&mut self, chunk: Chunk, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(chunk.encoded_len_max());
        chunk.encode(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // Every chunk is sent by itself; the buffer grows to its size at once.
        BufferSettings::new(64, 32 << 10)
    }
}

#[derive(Debug)]
pub(super) struct RequestDecoder;

impl Decoder for RequestDecoder {
    type Item = v1::ReadRequest;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let decoded = prost::Message::decode(bytes);
        decoded.map(Some).map_err(|error| Status::internal(format!("the request cannot be decoded: {error}")))
    }
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
        Chunk { partition: PartitionIndex::new(3), fetched, caught_up: true }
    }

    /// Two batches at 0 and 10, cut into odd pieces.
    fn two_batches() -> (Vec<Bytes>, usize) {
        let (first, second) = (batch(0, 10), batch(10, 10));
        let whole: Bytes = [first.clone(), second].concat().into();
        let pieces =
            vec![whole.slice(..20), whole.slice(20..first.len() + 7), whole.slice(first.len() + 7..)];
        (pieces, first.len())
    }

    #[test]
    fn a_chunk_in_pieces_reads_as_the_message_of_the_api() {
        let (pieces, _) = two_batches();
        for chunk in [chunk(pieces, 20), chunk(Vec::new(), 0)] {
            let mut bytes = Vec::new();
            chunk.encode(&mut bytes);
            assert!(bytes.len() <= chunk.encoded_len_max());
            assert_eq!(v1::ReadResponse::decode(bytes.as_slice()).expect("a message"), chunk.into_response());
        }
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
