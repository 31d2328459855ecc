//! From a line of input to the key and the value of a record.

use std::fmt;

use base64::Engine as _;
use bytes::Bytes;
use clap::ValueEnum;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// What a line of input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LineFormat {
    /// The value, as it is.
    Text,
    /// The value, as it is; a line that is not JSON is refused.
    Json,
    /// The value in base64, for values that are not text.
    Base64,
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// No record has a key.
    None,
    /// Every record has this one.
    Fixed(Bytes),
    /// A field of the JSON object on the line.
    Field(String),
}

/// Why a line gives no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The line was said to be JSON, or its key is in a field.
    #[error("{}", JsonProblem(.0))]
    NotJson(#[from] serde_json::Error),
    /// The line was said to be base64.
    #[error("not valid base64: {0}")]
    NotBase64(#[from] base64::DecodeError),
    /// An object or a list cannot be a key: it can be written in many ways.
    #[error("the field `{field}` is {kind}; a key is a text, a number, true or false")]
    NotAKey {
        /// The field.
        field: String,
        /// What it is instead.
        kind: &'static str,
    },
}

/// What is wrong with a line that should be JSON. The number of the line is the caller's to tell.
struct JsonProblem<'a>(&'a serde_json::Error);

impl fmt::Display for JsonProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.classify() == Category::Data {
            return f.write_str("not a JSON object");
        }
        let text = self.0.to_string();
        let (problem, _) = text.split_once(" at line ").unwrap_or((&text, ""));
        write!(f, "not valid JSON: {problem} at column {}", self.0.column())
    }
}

/// Key and value of a record.
pub(crate) type KeyAndValue = (Option<Bytes>, Bytes);

/// Reads one line.
///
/// # Errors
/// When the line is not what `format` or `keys` demand.
pub(crate) fn read_line(line: Bytes, format: LineFormat, keys: &KeySource) -> Result<KeyAndValue, LineError> {
    let value = match format {
        LineFormat::Text => line,
        LineFormat::Json => {
            if !matches!(keys, KeySource::Field(_)) {
                serde_json::from_slice::<IgnoredAny>(&line)?;
            }
            line
        }
        LineFormat::Base64 => base64::engine::general_purpose::STANDARD.decode(line.trim_ascii())?.into(),
    };
    let key = match keys {
        KeySource::None => None,
        KeySource::Fixed(key) => Some(key.clone()),
        KeySource::Field(field) => field_as_key(&value, field)?,
    };
    Ok((key, value))
}

/// The field of a JSON object as a key; `None` when it is absent or null. A number is the key as it is written: read and
/// printed anew, long ones would become the same key.
fn field_as_key(json: &[u8], field: &str) -> Result<Option<Bytes>, LineError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let found = FieldOf(field).deserialize(&mut reader)?;
    reader.end()?;
    let Some(found) = found else { return Ok(None) };
    let not_a_key = |kind| Err(LineError::NotAKey { field: field.to_owned(), kind });
    match found.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => Ok(Some(serde_json::from_str::<String>(found.get())?.into())),
        Some(b'[') => not_a_key("a list"),
        Some(b'{') => not_a_key("an object"),
        _ => Ok(Some(Bytes::copy_from_slice(found.get().as_bytes()))),
    }
}

/// Picks one field out of an object and skips the others without building them.
struct FieldOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for FieldOf<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldOf<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(NameIs(self.0))? {
            if is_wanted {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a field's name with the wanted one.
struct NameIs<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(line: &'static str, field: &str) -> Result<Option<String>, String> {
        let keys = KeySource::Field(field.to_owned());
        let (key, value) = read_line(Bytes::from_static(line.as_bytes()), LineFormat::Text, &keys)
            .map_err(|error| error.to_string())?;
        assert_eq!(value, line, "the value is the whole line");
        Ok(key.map(|key| String::from_utf8(key.to_vec()).unwrap()))
    }

    #[test]
    fn the_key_is_the_field_and_the_value_stays_the_whole_line() {
        let line = r#"{"flight": 1545, "tailnum": "N14228", "nested": {"tailnum": "no"}, "late": true}"#;
        assert_eq!(key_of(line, "tailnum"), Ok(Some("N14228".to_owned())));
        assert_eq!(key_of(line, "flight"), Ok(Some("1545".to_owned())));
        assert_eq!(key_of(line, "late"), Ok(Some("true".to_owned())));
        assert_eq!(key_of(r#"{"tail\u006eum": "a\"b"}"#, "tailnum"), Ok(Some("a\"b".to_owned())));
    }

    #[test]
    fn a_number_is_the_key_as_it_is_written() {
        for number in [
            "12345678901234567890123",
            "12345678901234567890124",
            "-7",
            "1.50",
            "1e400",
            "0.1234567890123456789",
        ] {
            let line = format!(r#"{{"id": {number}, "more": 1}}"#);
            assert_eq!(key_of(line.leak(), "id"), Ok(Some(number.to_owned())));
        }
    }

    #[test]
    fn a_line_is_told_by_its_column_and_not_as_the_first() {
        assert_eq!(
            key_of(r#"{"k": 1"#, "k"),
            Err("not valid JSON: EOF while parsing an object at column 7".to_owned())
        );
        assert_eq!(key_of("[1]", "k"), Err("not a JSON object".to_owned()));
    }

    #[test]
    fn a_field_that_is_absent_or_null_gives_no_key() {
        assert_eq!(key_of("{}", "tailnum"), Ok(None));
        assert_eq!(key_of(r#"{"tailnum": null}"#, "tailnum"), Ok(None));
    }

    #[test]
    fn a_line_that_is_no_object_or_has_no_usable_field_is_refused() {
        for wrong in ["", "[]", "7", "{\"a\": }", "{} {}", r#"{"k": {}}"#, r#"{"k": []}"#] {
            assert!(key_of(wrong, "k").is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn formats_are_checked() {
        let read = |line: &'static str, format| {
            read_line(Bytes::from_static(line.as_bytes()), format, &KeySource::None).map(|(_, value)| value)
        };
        assert_eq!(read("not json", LineFormat::Text).unwrap(), "not json");
        assert_eq!(read(" [1] ", LineFormat::Json).unwrap(), " [1] ");
        assert!(read("not json", LineFormat::Json).is_err());
        assert_eq!(read("AAEC", LineFormat::Base64).unwrap(), &[0_u8, 1, 2][..]);
        assert!(read("not base64!", LineFormat::Base64).is_err());
    }
}
