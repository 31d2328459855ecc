//! What the fuzz target `object_footer` does with each input.

use streamhouse_storage::object::{HEADER_BYTES, ObjectFooter, ObjectHeader, TRAILER_BYTES, decode_object};

/// Judges the bytes as an object and as the end of one, and once more with the checksums and lengths put right, so
/// that what lies behind them is reached too.
pub(crate) fn run(data: &[u8]) {
    judge(data);
    if let Some(sealed) = sealed(data) {
        judge(&sealed);
    }
}

fn judge(bytes: &[u8]) {
    let length = bytes.len() as u64;
    if let Ok(header) = ObjectHeader::decode(bytes) {
        assert_eq!(ObjectHeader::decode(&header.encode()).as_ref(), Ok(&header));
    }
    let footer = ObjectFooter::decode(bytes, length);
    if let Ok(footer) = &footer {
        let mut end = HEADER_BYTES;
        for extent in &footer.index.extents {
            assert_eq!(extent.position, end, "extents lie side by side");
            end = extent.end();
        }
        assert_eq!(end, footer.trailer.index_position, "extents fill the body");
    }
    if let Ok((_, whole)) = decode_object(bytes) {
        assert_eq!(footer.as_ref(), Ok(&whole));
    }
}

/// The bytes as an object: the index is as long as its trailer says, as far as there is room, and all else follows.
fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    let (header, trailer) = (usize::try_from(HEADER_BYTES).ok()?, usize::try_from(TRAILER_BYTES).ok()?);
    let room = data.len().checked_sub(header + trailer)?;
    let mut bytes = data.to_vec();
    let end = bytes.len();
    let at = end - trailer;
    let announced = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().ok()?);
    let index_length = usize::try_from(announced).ok()? % (room + 1);
    let index = at - index_length;
    let body_crc = crc_fast::crc32_iscsi(&bytes[header..index]);
    bytes[at..at + 8].copy_from_slice(&(index as u64).to_le_bytes());
    bytes[at + 8..at + 12].copy_from_slice(&u32::try_from(index_length).ok()?.to_le_bytes());
    bytes[at + 12..at + 16].copy_from_slice(&body_crc.to_le_bytes());
    let index_crc = crc_fast::crc32_iscsi(&bytes[index..at + 16]);
    bytes[at + 16..at + 20].copy_from_slice(&index_crc.to_le_bytes());
    bytes[at + 20..].copy_from_slice(b"\x01\0\0\0StrmHEnd");
    bytes[..10].copy_from_slice(b"StrmHObj\x01\0");
    let header_crc = crc_fast::crc32_iscsi(&bytes[..76]);
    bytes[76..80].copy_from_slice(&header_crc.to_le_bytes());
    Some(bytes)
}
