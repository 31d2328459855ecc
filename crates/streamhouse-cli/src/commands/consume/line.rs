//! A whole record as one line of JSON.

use std::io::{self, Write};

use base64::Engine as _;
use serde::{Serialize, Serializer};
use streamhouse_client::{Offset, PartitionIndex, RecordHeader};
use streamhouse_types::batch::Record;

use streamhouse_units::time;

/// Bytes as JSON: as they are when they are text, else in base64 with a word about it.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(self.0)),
        }
    }
}

/// `"base64"` for bytes that are not text.
fn encoding(bytes: Option<&[u8]>) -> Option<&'static str> {
    bytes.filter(|bytes| std::str::from_utf8(bytes).is_err()).map(|_| "base64")
}

#[derive(Serialize)]
struct RecordLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    partition: u32,
    offset: u64,
    timestamp: Option<String>,
    key: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    value: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
    headers: Vec<HeaderLine<'a>>,
}

#[derive(Serialize)]
struct HeaderLine<'a> {
    key: Text<'a>,
    value: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
}

/// Writes a record, with its topic where there may be several, and with all that belongs to it.
///
/// # Errors
/// When `out` cannot be written.
pub(super) fn write(
    out: &mut impl Write,
    (topic, partition, offset): (Option<&str>, PartitionIndex, Offset),
    record: &Record,
) -> io::Result<()> {
    fn header(header: &RecordHeader) -> HeaderLine<'_> {
        let value = header.value.as_deref();
        HeaderLine { key: Text(&header.key), value: value.map(Text), value_encoding: encoding(value) }
    }
    let line = RecordLine {
        topic,
        partition: partition.get(),
        offset: offset.get(),
        timestamp: time(record.timestamp),
        key: record.key.as_deref().map(Text),
        key_encoding: encoding(record.key.as_deref()),
        value: record.value.as_deref().map(Text),
        value_encoding: encoding(record.value.as_deref()),
        headers: record.headers.iter().map(header).collect(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use streamhouse_types::Timestamp;

    use super::*;

    fn written(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> serde_json::Value {
        let record = Record {
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![RecordHeader { key: Bytes::from_static(b"source"), value: None }],
            timestamp: Timestamp::from_millis(1_780_315_200_123),
            offset_delta: 0,
        };
        let mut out = Vec::new();
        write(&mut out, (None, PartitionIndex::new(2), Offset::new(41)), &record).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_record_is_printed_with_all_that_belongs_to_it() {
        let line = written(Some(b"order-7"), Some(b"{\"total\": 12}"));
        assert_eq!(line["partition"], 2);
        assert_eq!(line["offset"], 41);
        assert_eq!(line["timestamp"], "2026-06-01T12:00:00.123Z");
        assert_eq!(line["key"], "order-7");
        assert_eq!(line["value"], "{\"total\": 12}");
        assert_eq!(line["headers"][0]["key"], "source");
        assert!(line.get("value_encoding").is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_marked_and_a_tombstone_is_null() {
        let line = written(Some(&[0xff, 0x00]), None);
        assert_eq!(line["key"], "/wA=");
        assert_eq!(line["key_encoding"], "base64");
        assert_eq!(line["value"], serde_json::Value::Null);
    }
}
