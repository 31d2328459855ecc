//! Names that people give.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name in bytes, as Kafka's.
const LEN_MAX: usize = 249;

/// Why a text is not a topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a topic name has at least one character")]
    Empty,
    /// Over 249 bytes.
    #[error("a topic name has at most 249 characters, this one has {actual}")]
    TooLong {
        /// Its length in bytes.
        actual: usize,
    },
    /// `.` and `..` name folders.
    #[error("`{name}` cannot be a topic name")]
    Dots {
        /// The name.
        name: String,
    },
    /// Something else than `a-z A-Z 0-9 . _ -`.
    #[error("topic names consist of a-z, A-Z, 0-9, `.`, `_` and `-`; `{character}` is none of them")]
    Character {
        /// The first character that is not allowed.
        character: char,
    },
}

/// The name of a topic: 1 to 249 of `a-z A-Z 0-9 . _ -`, but not `.` or `..` (Kafka's rule).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TopicName(std::sync::Arc<str>);

impl TopicName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > LEN_MAX {
            return Err(NameError::TooLong { actual: text.len() });
        }
        if text == "." || text == ".." {
            return Err(NameError::Dots { name: text.to_owned() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match text.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(NameError::Character { character }),
            None => Ok(Self(text.into())),
        }
    }
}

impl<'de> Deserialize<'de> for TopicName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest group id in bytes.
const GROUP_ID_LEN_MAX: usize = 1_024;

/// Why a text is not the id of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a group id has 1 to 1,024 bytes, this one has {actual}")]
pub struct GroupIdError {
    /// Its length in bytes.
    pub actual: usize,
}

/// The id of a consumer group: 1 to 1,024 bytes of UTF-8 text, whichever (Kafka's rule, with a bound).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct GroupId(std::sync::Arc<str>);

impl GroupId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupId {
    type Err = GroupIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let actual = text.len();
        if (1..=GROUP_ID_LEN_MAX).contains(&actual) {
            Ok(Self(text.into()))
        } else {
            Err(GroupIdError { actual })
        }
    }
}

impl<'de> Deserialize<'de> for GroupId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str) {
        assert!(text.parse::<TopicName>().is_err(), "{text:?} was accepted");
    }

    #[test]
    fn names_follow_kafkas_rule() {
        assert_eq!(
            "orders.v1_x-Y".parse::<TopicName>().map(|name| name.to_string()),
            Ok("orders.v1_x-Y".into())
        );
        assert!("a".repeat(249).parse::<TopicName>().is_ok());
        refused("");
        refused(".");
        refused("..");
        refused("a/b");
        refused("a b");
        refused("ä");
        refused("a\0");
        refused(&"a".repeat(250));
    }
    #[test]
    fn group_ids_are_any_text_within_their_bound() {
        for text in ["g", "my group / ä", &"a".repeat(1_024)] {
            assert_eq!(text.parse::<GroupId>().map(|id| id.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("".parse::<GroupId>(), Err(GroupIdError { actual: 0 }));
        assert_eq!("ä".repeat(513).parse::<GroupId>(), Err(GroupIdError { actual: 1_026 }));
    }
}
