//! Reading objects back, in parts or whole.

use super::header::{HEADER_BYTES, ObjectHeader};
use super::index::ObjectIndex;
use super::trailer::{ObjectTrailer, TRAILER_BYTES};
use super::{ObjectError, crc32c};
use crate::error::GetError;
use crate::layout::Key;
use crate::store::{Purpose, Store};

/// How much of the end of an object is read at first: the index of some 1,400 extents.
const TAIL_BYTES: u64 = 64 << 10;
/// How often the end of an object is read before it is called damaged.
const LOOKS: u32 = 3;

/// Trailer and index of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFooter {
    /// The trailer.
    pub trailer: ObjectTrailer,
    /// The index.
    pub index: ObjectIndex,
}

impl ObjectFooter {
    /// Reads the end of an object of `object_length` bytes; `tail` must reach back to the index at least.
    ///
    /// # Errors
    /// When these are not the last bytes of an object of this length, or no longer what was written.
    pub fn decode(tail: &[u8], object_length: u64) -> Result<Self, ObjectError> {
        let trailer = ObjectTrailer::decode(tail, object_length)?;
        let footer_bytes = u64::from(trailer.index_length) + TRAILER_BYTES;
        let short =
            ObjectError::Length { part: "object footer", expected: footer_bytes, actual: tail.len() as u64 };
        let start = usize::try_from(footer_bytes).ok().and_then(|bytes| tail.len().checked_sub(bytes));
        let start = start.ok_or(short)?;
        let index = &tail[start..start + trailer.index_length as usize];
        Ok(Self { trailer, index: ObjectIndex::decode(&trailer, index)? })
    }
}

/// Checks a whole object: header, every extent, body, index, trailer.
///
/// # Errors
/// When a byte is not what was written.
pub fn decode_object(bytes: &[u8]) -> Result<(ObjectHeader, ObjectFooter), ObjectError> {
    let header = ObjectHeader::decode(bytes)?;
    let footer = ObjectFooter::decode(bytes, bytes.len() as u64)?;
    let slice = |start: u64, end: u64| -> &[u8] {
        let (start, end) = (usize::try_from(start), usize::try_from(end));
        start.ok().zip(end.ok()).and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default()
    };
    for extent in &footer.index.extents {
        extent.check(slice(extent.position, extent.end()))?;
    }
    let (expected, actual) =
        (footer.trailer.body_crc, crc32c(slice(HEADER_BYTES, footer.trailer.index_position)));
    if expected != actual {
        return Err(ObjectError::Checksum { part: "object body", expected, actual });
    }
    Ok((header, footer))
}

/// Why a part of an object was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadObjectError {
    /// The bytes did not come.
    #[error(transparent)]
    Get(#[from] GetError),
    /// The bytes are wrong, and were so again when they were read anew.
    #[error("object `{key}` is damaged")]
    Damaged {
        /// The name.
        key: Key,
        /// What is wrong with it.
        #[source]
        source: ObjectError,
    },
}

/// Reads trailer and index of an object of `length` bytes, mostly with one request.
///
/// # Errors
/// When the bytes do not come, or stay wrong when they are read anew.
pub async fn read_footer(
    store: &Store,
    key: &Key,
    length: u64,
    purpose: Purpose,
) -> Result<ObjectFooter, ReadObjectError> {
    let mut start = length.saturating_sub(TAIL_BYTES);
    let mut looks = 0;
    loop {
        let tail = store.get_range(key, start..length, purpose).await?;
        looks += 1;
        match ObjectFooter::decode(&tail, length) {
            Ok(footer) => return Ok(footer),
            Err(source) if looks == LOOKS => {
                return Err(ReadObjectError::Damaged { key: key.clone(), source });
            }
            Err(_) => {}
        }
        // An index that is longer than was read, or bytes that went wrong on their way.
        let trailer = ObjectTrailer::decode(&tail, length);
        start = trailer.map_or(start, |trailer| trailer.index_position.min(start));
    }
}

/// Reads the header of an object.
///
/// # Errors
/// When the bytes do not come, or stay wrong when they are read anew.
pub async fn read_header(
    store: &Store,
    key: &Key,
    purpose: Purpose,
) -> Result<ObjectHeader, ReadObjectError> {
    let first = store.get_range(key, 0..HEADER_BYTES, purpose).await?;
    if let Ok(header) = ObjectHeader::decode(&first) {
        return Ok(header);
    }
    let second = store.get_range(key, 0..HEADER_BYTES, purpose).await?;
    ObjectHeader::decode(&second).map_err(|source| ReadObjectError::Damaged { key: key.clone(), source })
}
