//! What the fuzz target `snapshot` does with each input.

use streamhouse_metadata::codec::{decode_snapshot, encode_snapshot};

/// Judges the bytes as a snapshot, and once more as the body of one of each version whose header is right, so that
/// what lies behind the checksum is reached too.
pub(crate) fn run(data: &[u8]) {
    judge(data);
    let body = data.get(24..).unwrap_or(data);
    (1..=3).for_each(|version| judge(&sealed(version, body)));
}

fn sealed(version: u8, body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(body.len() + 24);
    sealed.extend_from_slice(b"SHMETA\r\n");
    sealed.extend_from_slice(&[version, 0, 0, 0]);
    sealed.extend_from_slice(&(body.len() as u64).to_le_bytes());
    sealed.extend_from_slice(&crc_fast::crc32_iscsi(body).to_le_bytes());
    sealed.extend_from_slice(body);
    sealed
}

fn judge(bytes: &[u8]) {
    if let Ok(state) = decode_snapshot(bytes) {
        let mut again = Vec::new();
        encode_snapshot(&state, &mut again).expect("memory takes all");
        assert_eq!(decode_snapshot(&again).as_ref(), Ok(&state));
    }
}
