//! The bytes of an object on their way out.

use std::sync::Arc;

use bytes::Bytes;

/// The bytes of an object as a list of pieces, so that nothing is copied on the way to the store. Clones are cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload(Arc<[Bytes]>);

impl Payload {
    /// The pieces in order; empty pieces are left out.
    #[must_use]
    pub fn new(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        Self(pieces.into())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pieces in order; none is empty.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// Whether `bytes` are exactly these bytes.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for piece in &*self.0 {
            match rest.strip_prefix(&piece[..]) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self::new(pieces)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_matches_its_own_bytes_only() {
        let payload = Payload::new(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
        assert_eq!((payload.len(), payload.pieces().len()), (3, 2));
        assert!(payload.matches(b"abc"));
        for other in [&b""[..], b"ab", b"abcd", b"abd"] {
            assert!(!payload.matches(other), "{other:?}");
        }
    }
}
