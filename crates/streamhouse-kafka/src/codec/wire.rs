//! Kafka's primitives: numbers in network order, and lengths in two forms.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::DecodeError;
use crate::Api;

/// A topic's id as Kafka shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct TopicUuid(pub(crate) [u8; 16]);

/// How lengths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As fixed numbers, and there are no tags.
    Plain,
    /// As variable-length numbers that are one too great, and structures end with tags.
    Compact,
}

impl Form {
    pub(crate) fn of(api: Api, version: i16) -> Self {
        if api.is_flexible(version) { Self::Compact } else { Self::Plain }
    }
}

/// The body of an answer: pieces that are written one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Body(pub(crate) Vec<Bytes>);

impl Body {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// All in one piece.
    pub(crate) fn joined(&self) -> Bytes {
        self.0.concat().into()
    }
}

/// Takes fields off the bytes of a request.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    form: Form,
    /// How many more elements of arrays are taken.
    elements: usize,
}

/// Most elements in all arrays of a request together: twice as many as a cluster can have partitions. An element may
/// take many times its bytes in memory.
const ELEMENTS_MAX: usize = 200_000;

impl Reader {
    pub(crate) fn new(bytes: Bytes, form: Form) -> Self {
        Self { bytes, form, elements: ELEMENTS_MAX }
    }

    /// What is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes
    }

    fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        if self.bytes.len() < bytes { Err(DecodeError::CutShort) } else { Ok(()) }
    }

    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_i8())
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_i16())
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_i32())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_i64())
    }

    pub(crate) fn uuid(&mut self) -> Result<TopicUuid, DecodeError> {
        self.need(16)?;
        let mut id = [0; 16];
        self.bytes.copy_to_slice(&mut id);
        Ok(TopicUuid(id))
    }

    fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            self.need(1)?;
            let byte = self.bytes.get_u8();
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if shift == 28 && byte > 0x0f { Err(bad_length(-1)) } else { Ok(value) };
            }
        }
        Err(bad_length(-1))
    }

    /// A length; `None` for null. `short` is the width of a plain one.
    fn length(&mut self, short: Width) -> Result<Option<usize>, DecodeError> {
        let length = match (self.form, short) {
            (Form::Compact, _) => i64::from(self.unsigned_varint()?) - 1,
            (Form::Plain, Width::Two) => i64::from(self.i16()?),
            (Form::Plain, Width::Four) => i64::from(self.i32()?),
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| bad_length(length)),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    /// Bytes as a slice of the request; `None` for null.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        self.length(Width::Four)?.map(|length| self.take(length)).transpose()
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<String>, DecodeError> {
        let Some(length) = self.length(Width::Two)? else { return Ok(None) };
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::Text)?;
        Ok(Some(text.to_owned()))
    }

    pub(crate) fn string(&mut self) -> Result<String, DecodeError> {
        self.nullable_string()?.ok_or(DecodeError::Null)
    }

    /// An array whose elements have at least `element_bytes_min` bytes each, so that a length that lies is found out
    /// before anything is allocated.
    pub(crate) fn array<T>(
        &mut self,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let length = self.length(Width::Four)?.ok_or(DecodeError::Null)?;
        let most = self.elements.min(self.bytes.len() / element_bytes_min.max(1));
        if length > most {
            return Err(bad_length(i64::try_from(length).unwrap_or(i64::MAX)));
        }
        self.elements -= length;
        let mut all = Vec::with_capacity(length);
        for _ in 0..length {
            all.push(element(self)?);
        }
        Ok(all)
    }

    /// Passes over the tags at the end of a structure, where the form has them.
    pub(crate) fn tags(&mut self) -> Result<(), DecodeError> {
        if self.form == Form::Plain {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let _tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }
}

/// How wide a plain length is.
#[derive(Debug, Clone, Copy)]
enum Width {
    Two,
    Four,
}

fn bad_length(length: i64) -> DecodeError {
    DecodeError::Length { length }
}

/// Puts an answer together. Records are not copied: they stand between the pieces that are written here.
#[derive(Debug)]
pub(crate) struct Writer {
    done: Vec<Bytes>,
    open: BytesMut,
    form: Form,
}

impl Writer {
    pub(crate) fn new(form: Form) -> Self {
        Self { done: Vec::new(), open: BytesMut::with_capacity(256), form }
    }

    pub(crate) fn finish(mut self) -> Body {
        self.seal();
        Body(self.done)
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.done.push(self.open.split().freeze());
        }
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.open.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.open.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.open.put_i64(value);
    }

    pub(crate) fn uuid(&mut self, id: TopicUuid) {
        self.open.put_slice(&id.0);
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.open.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.open.put_u8((value & 0x7f) as u8);
    }

    fn length(&mut self, width: Width, length: Option<usize>) {
        let length = length.map(|length| i32::try_from(length).expect("an answer is shorter than 2 GiB"));
        match (self.form, width) {
            (Form::Compact, _) => {
                let raised = length.map_or(0, |length| length.cast_unsigned() + 1);
                self.unsigned_varint(raised);
            }
            (Form::Plain, Width::Two) => {
                let length = length.map_or(-1, |length| i16::try_from(length).expect("texts were cut"));
                self.i16(length);
            }
            (Form::Plain, Width::Four) => self.i32(length.unwrap_or(-1)),
        }
    }

    /// A text, cut to what every form can hold.
    pub(crate) fn nullable_string(&mut self, text: Option<&str>) {
        const LONGEST: usize = 32_000;
        let text = text.map(|text| &text[..text.floor_char_boundary(LONGEST)]);
        self.length(Width::Two, text.map(str::len));
        self.open.put_slice(text.unwrap_or_default().as_bytes());
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// Bytes in pieces, none of which is copied.
    pub(crate) fn pieces(&mut self, pieces: Vec<Bytes>) {
        self.length(Width::Four, Some(pieces.iter().map(Bytes::len).sum()));
        self.seal();
        self.done.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
    }

    pub(crate) fn array<T>(
        &mut self,
        all: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.length(Width::Four, Some(all.len()));
        all.for_each(|element| each(self, element));
    }

    /// The null array.
    pub(crate) fn no_array(&mut self) {
        self.length(Width::Four, None);
    }

    /// The end of a structure without tags.
    pub(crate) fn no_tags(&mut self) {
        if self.form == Form::Compact {
            self.unsigned_varint(0);
        }
    }

    /// The end of a structure with one tag. Only forms that have tags may call it.
    pub(crate) fn one_tag(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::new(self.form);
        content(&mut inner);
        let content = inner.open;
        self.unsigned_varint(1);
        self.unsigned_varint(tag);
        self.unsigned_varint(u32::try_from(content.len()).expect("a tag is short"));
        self.open.put_slice(&content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_in_both_forms() {
        for form in [Form::Plain, Form::Compact] {
            let mut writer = Writer::new(form);
            writer.string("häuser");
            writer.nullable_string(None);
            writer.pieces(vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")]);
            writer.array([1_i64, -2].into_iter(), Writer::i64);
            writer.no_tags();
            let body = writer.finish();
            let mut reader = Reader::new(body.joined(), form);
            assert_eq!(reader.string(), Ok("häuser".to_owned()));
            assert_eq!(reader.nullable_string(), Ok(None));
            assert_eq!(reader.nullable_bytes(), Ok(Some(Bytes::from_static(b"abc"))));
            assert_eq!(reader.array(8, Reader::i64), Ok(vec![1, -2]));
            assert_eq!(reader.tags(), Ok(()));
            assert_eq!(reader.rest(), Bytes::new());
        }
    }

    #[test]
    fn an_array_that_claims_more_than_there_is_is_refused() {
        for length in [i32::MAX, 3, -2] {
            let bytes = [&length.to_be_bytes()[..], &[0; 20]].concat();
            let read = Reader::new(bytes.into(), Form::Plain).array(8, Reader::i64);
            assert!(matches!(read, Err(DecodeError::Length { .. })), "{length}: {read:?}");
        }
        let bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert!(Reader::new(bytes, Form::Compact).array(1, Reader::i8).is_err());
        let endless = Bytes::from_static(&[0xff; 9]);
        assert!(Reader::new(endless, Form::Compact).nullable_bytes().is_err());
    }
}
