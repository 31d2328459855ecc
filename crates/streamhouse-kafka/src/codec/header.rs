//! The headers of requests and answers.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::DecodeError;
use super::wire::{Form, Reader};
use crate::Api;

/// What a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) version: i16,
    /// Comes back with the answer.
    pub(crate) correlation: i32,
    /// The client's name for itself.
    pub(crate) client: Option<String>,
}

impl RequestHeader {
    /// Reads what follows key and version, and returns it with the body.
    pub(crate) fn decode(api: Api, version: i16, bytes: Bytes) -> Result<(Self, Bytes), DecodeError> {
        // The client's name keeps the plain form in all versions: this is read before the form is known.
        let mut reader = Reader::new(bytes, Form::Plain);
        let correlation = reader.i32()?;
        if api == Api::ApiVersions && !api.serves(version) {
            // What else a newer version has in its header is not known; the answer needs none of it.
            return Ok((Self { version, correlation, client: None }, Bytes::new()));
        }
        let client = reader.nullable_string()?;
        let mut reader = Reader::new(reader.rest(), Form::of(api, version));
        reader.tags()?;
        Ok((Self { version, correlation, client }, reader.rest()))
    }
}

/// What stands before the body of an answer: length and header.
pub(crate) fn answer_head(api: Api, header: &RequestHeader, body_bytes: usize) -> Bytes {
    let tags = api.answer_header_has_tags(header.version);
    let length = 4 + usize::from(tags) + body_bytes;
    let mut head = BytesMut::with_capacity(9);
    head.put_i32(i32::try_from(length).expect("an answer is shorter than 2 GiB"));
    head.put_i32(header.correlation);
    if tags {
        head.put_u8(0);
    }
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_in_both_forms_and_leaves_the_body() {
        let plain = b"\x00\x00\x00\x07\x00\x02meBODY";
        let (header, body) = RequestHeader::decode(Api::Metadata, 8, Bytes::from_static(plain)).unwrap();
        assert_eq!((header.correlation, header.client.as_deref()), (7, Some("me")));
        assert_eq!(&body[..], b"BODY");
        let tagged = b"\x00\x00\x00\x07\xff\xff\x01\x05\x02hiBODY";
        let (header, body) = RequestHeader::decode(Api::Metadata, 9, Bytes::from_static(tagged)).unwrap();
        assert_eq!((header.client, &body[..]), (None, &b"BODY"[..]));
        let newer = b"\x00\x00\x00\x07anything";
        let (header, _) = RequestHeader::decode(Api::ApiVersions, 9, Bytes::from_static(newer)).unwrap();
        assert_eq!((header.correlation, header.version), (7, 9));
    }

    #[test]
    fn the_answer_to_api_versions_has_a_header_without_tags() {
        let header = |version| RequestHeader { version, correlation: 5, client: None };
        assert_eq!(&answer_head(Api::ApiVersions, &header(3), 2)[..], b"\x00\x00\x00\x06\x00\x00\x00\x05");
        assert_eq!(&answer_head(Api::Metadata, &header(9), 2)[..], b"\x00\x00\x00\x07\x00\x00\x00\x05\x00");
        assert_eq!(&answer_head(Api::Metadata, &header(8), 2)[..], b"\x00\x00\x00\x06\x00\x00\x00\x05");
    }
}
