//! Walking over the batches of an extent: finding their ends, checking them, giving them their offsets. Pure.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use smallvec::SmallVec;
use streamhouse_types::batch::{BatchHeader, HEADER_BYTES, patch_base, patch_log_append_time, read_header};
use streamhouse_types::{Epoch, Offset, Timestamp};

use super::plan::PlannedRead;

/// Where the CRC of a batch begins to count.
const CRC_FROM: usize = 21;
/// What lies in front of everything that is not patched: base offset, length, leader epoch.
const PREFIX: usize = 16;
/// Batches below this size are copied and patched in one piece, larger ones keep their bytes where they are.
const COPY_BELOW: usize = 4 << 10;

/// Bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Rope {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl Rope {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(Bytes::len).sum();
        Self { pieces: pieces.into(), length }
    }

    /// The header of the batch at the front; `None` when there are too few bytes for one.
    fn header(&self) -> Option<[u8; HEADER_BYTES]> {
        if self.length < HEADER_BYTES {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        let mut at = 0;
        for piece in &self.pieces {
            let bytes = piece.len().min(HEADER_BYTES - at);
            header[at..at + bytes].copy_from_slice(&piece[..bytes]);
            at += bytes;
            if at == HEADER_BYTES {
                break;
            }
        }
        Some(header)
    }

    /// Takes `bytes` off the front; there must be as many.
    fn take(&mut self, mut bytes: usize) -> SmallVec<[Bytes; 2]> {
        let mut taken = SmallVec::new();
        self.length -= bytes;
        while bytes > 0 {
            let piece = self.pieces.front_mut().expect("the caller has checked the length");
            if piece.len() > bytes {
                taken.push(piece.split_to(bytes));
                return taken;
            }
            bytes -= piece.len();
            taken.extend(self.pieces.pop_front());
        }
        taken
    }
}

/// A place between two batches of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// In the object.
    pub(crate) position: u64,
    /// Offset of the batch that starts there.
    pub(crate) offset: Offset,
}

impl Cursor {
    /// The start of an extent.
    pub(crate) fn at_start(read: &PlannedRead) -> Self {
        Self { position: read.extent.position, offset: read.extent.base }
    }
}

/// A whole batch, as it is stored.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) base: Offset,
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    pub(crate) pieces: SmallVec<[Bytes; 2]>,
}

impl Walked {
    /// One past its last offset.
    pub(crate) fn end(&self) -> Offset {
        self.base.after(self.header.offset_count())
    }

    /// Its bytes in one piece.
    pub(crate) fn joined(&self) -> BytesMut {
        let mut joined = BytesMut::with_capacity(self.header.length_bytes as usize);
        self.pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined
    }

    fn has_its_crc(&self) -> bool {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut skip = CRC_FROM;
        for piece in &self.pieces {
            let from = skip.min(piece.len());
            digest.update(&piece[from..]);
            skip -= from;
        }
        digest.finalize() == u64::from(self.header.crc)
    }
}

/// Stored bytes that are not what was committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {position}")]
pub(crate) struct Damage {
    pub(crate) what: String,
    pub(crate) position: u64,
}

/// Whether batches are known to be sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They were checked by this process and have not left it.
    Checked,
    /// They come from the store.
    Stored,
}

/// Takes the whole batches off `rope`, which starts at `cursor`. Returns them and how many bytes the batch that was cut
/// short needs; 0 when the extent ends.
pub(crate) fn walk(
    rope: &mut Rope,
    cursor: &mut Cursor,
    read: &PlannedRead,
    trust: Trust,
) -> Result<(Vec<Walked>, usize), Damage> {
    let mut batches = Vec::new();
    loop {
        let left = read.end().saturating_sub(cursor.position);
        let damage = |what: String| Damage { what, position: cursor.position };
        if left == 0 {
            let whole = cursor.offset == read.extent.end;
            let what = || format!("batches end at offset {} instead of {}", cursor.offset, read.extent.end);
            return if whole { Ok((batches, 0)) } else { Err(damage(what())) };
        }
        let Some(bytes) = rope.header() else {
            return Ok((batches, HEADER_BYTES));
        };
        let header = read_header(&bytes).map_err(|error| damage(format!("bad batch header ({error})")))?;
        let length = header.length_bytes as usize;
        if u64::from(header.length_bytes) > left {
            return Err(damage("batch reaches past its extent".to_owned()));
        }
        if rope.length < length {
            return Ok((batches, length));
        }
        let batch =
            Walked { base: cursor.offset, position: cursor.position, header, pieces: rope.take(length) };
        if trust == Trust::Stored && !batch.has_its_crc() {
            return Err(damage("wrong batch checksum".to_owned()));
        }
        let past = cursor.offset.get().saturating_add(u64::from(header.offset_count()));
        if past > read.extent.end.get() {
            return Err(damage("batch has more records than its extent".to_owned()));
        }
        cursor.offset = batch.end();
        cursor.position += u64::from(header.length_bytes);
        batches.push(batch);
    }
}

/// Batches with their final offsets, on the way out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    chunks: Vec<Bytes>,
    /// Small batches side by side, not yet among the chunks.
    small: BytesMut,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
}

impl Output {
    /// Adds a batch under its base offset and epoch, with the append time where the topic asks for it.
    pub(crate) fn push(&mut self, batch: Walked, epoch: Epoch, stamp: Option<Timestamp>) {
        self.bytes += u64::from(batch.header.length_bytes);
        self.records += u64::from(batch.header.offset_count());
        let length = batch.header.length_bytes as usize;
        if stamp.is_some() || length < COPY_BELOW {
            let start = self.small.len();
            batch.pieces.iter().for_each(|piece| self.small.extend_from_slice(piece));
            let copy = &mut self.small[start..];
            patch_base(copy, batch.base, epoch);
            if let Some(time) = stamp {
                patch_log_append_time(copy, time);
            }
            return;
        }
        let mut prefix = [0; PREFIX];
        let mut pieces = batch.pieces;
        let mut at = 0;
        for piece in &mut pieces {
            let bytes = piece.len().min(PREFIX - at);
            prefix[at..at + bytes].copy_from_slice(&piece[..bytes]);
            piece.advance(bytes);
            at += bytes;
        }
        patch_base(&mut prefix, batch.base, epoch);
        self.small.extend_from_slice(&prefix);
        self.end_small();
        self.chunks.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }

    /// Everything in order.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.end_small();
        self.chunks
    }
}
