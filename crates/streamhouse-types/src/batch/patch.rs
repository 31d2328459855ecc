//! The few fields that are written after a batch is sealed.

use bytes::Bytes;

use super::header::{Attributes, HEADER_BYTES, at};
use crate::{Epoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Writes the base offset and the leader epoch, which lie outside the CRC. Nothing else is touched, so the first 16
/// bytes of a batch are enough.
///
/// # Panics
/// When `batch` is shorter than 16 bytes.
pub fn patch_base(batch: &mut [u8], base: Offset, epoch: Epoch) {
    put(batch, at::BASE_OFFSET, base.get().to_be_bytes());
    put(batch, at::LEADER_EPOCH, epoch.get().to_be_bytes());
}

/// Gives every record of a batch the append time of the log: attribute bit 3, max timestamp, CRC. The base timestamp
/// stays, as the records' deltas stand on it.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn patch_log_append_time(batch: &mut [u8], time: Timestamp) {
    assert!(batch.len() >= HEADER_BYTES, "a whole batch is patched");
    let bits = u16::from_be_bytes([batch[at::ATTRIBUTES], batch[at::ATTRIBUTES + 1]]);
    put(batch, at::ATTRIBUTES, (bits | Attributes::LOG_APPEND_TIME).to_be_bytes());
    put(batch, at::MAX_TIMESTAMP, time.as_millis().to_be_bytes());
    seal(batch);
}

/// Writes who sends a batch and where it stands in what they send; then seals it anew.
///
/// # Panics
/// When `batch` is shorter than a header.
pub fn stamp_producer(batch: &mut [u8], id: ProducerId, epoch: ProducerEpoch, first_sequence: Sequence) {
    assert!(batch.len() >= HEADER_BYTES, "a whole batch is stamped");
    put(batch, at::PRODUCER_ID, id.get().to_be_bytes());
    put(batch, at::PRODUCER_EPOCH, epoch.get().to_be_bytes());
    put(batch, at::BASE_SEQUENCE, first_sequence.get().to_be_bytes());
    seal(batch);
}

/// Writes the CRC that the bytes have.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = checksum(batch);
    put(batch, at::CRC, crc.to_be_bytes());
}

/// The CRC-32C of what it covers: everything from the attributes to the end.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[at::ATTRIBUTES..])
}

pub(super) fn put<const N: usize>(batch: &mut [u8], start: usize, value: [u8; N]) {
    batch[start..start + N].copy_from_slice(&value);
}

/// A copy of a batch with another max timestamp, sealed anew.
pub(super) fn with_max_timestamp(batch: &[u8], time: Timestamp) -> Bytes {
    let mut copy = batch.to_vec();
    put(&mut copy, at::MAX_TIMESTAMP, time.as_millis().to_be_bytes());
    seal(&mut copy);
    Bytes::from(copy)
}
