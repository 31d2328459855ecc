//! Settings of a topic, under Kafka's names. A setting that is accepted is obeyed; any other is refused by name.

use serde::{Deserialize, Serialize};

/// The name of [`TopicSettings::max_message_bytes`].
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// The name of [`TopicSettings::timestamp_type`].
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";

const MAX_MESSAGE_BYTES_LEAST: u32 = 1 << 10;
const MAX_MESSAGE_BYTES_MOST: u32 = 8 << 20;
/// Longest part of a refused name or value that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 128;

/// Where the timestamp of a record comes from (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum TimestampType {
    /// The producer's (`CreateTime`).
    #[default]
    Create,
    /// The append time of the log (`LogAppendTime`).
    LogAppend,
}

impl TimestampType {
    /// Kafka's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CreateTime",
            Self::LogAppend => "LogAppendTime",
        }
    }
}

/// The settings of one topic, all resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// Largest batch in bytes (`max.message.bytes`), 1 KiB to 8 MiB; 1 MiB + 12 bytes by default, as Kafka's.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { max_message_bytes: 1_048_588, timestamp_type: TimestampType::default() }
    }
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// It is the default.
    Default,
    /// It was set for this topic, to something else than the default.
    Topic,
}

/// One setting with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value, as it is written.
    pub value: String,
    /// Where it comes from.
    pub source: SettingSource,
}

impl TopicSettings {
    /// The names of all settings there are, in order.
    pub const NAMES: [&str; 2] = [MAX_MESSAGE_BYTES, MESSAGE_TIMESTAMP_TYPE];

    /// The defaults with these settings changed.
    ///
    /// # Errors
    /// The first setting that is not supported or cannot have its value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SettingError> {
        let mut settings = Self::default();
        for (name, value) in pairs {
            settings.set(name, Some(value))?;
        }
        Ok(settings)
    }

    /// Changes one setting; `None` puts it back to its default.
    ///
    /// # Errors
    /// When the setting is not supported or cannot have this value; then nothing is changed.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), SettingError> {
        match name {
            MAX_MESSAGE_BYTES => {
                self.max_message_bytes =
                    value.map_or(Ok(Self::default().max_message_bytes), parse_max_message_bytes)?;
            }
            MESSAGE_TIMESTAMP_TYPE => {
                self.timestamp_type = value.map_or(Ok(TimestampType::default()), parse_timestamp_type)?;
            }
            _ => return Err(SettingError::Unsupported { name: quoted(name) }),
        }
        Ok(())
    }

    /// All settings with their values and where they come from, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Setting> {
        Self::NAMES.iter().map(|name| self.describe(name)).collect()
    }

    fn describe(&self, name: &'static str) -> Setting {
        let text = |settings: &Self| match name {
            MAX_MESSAGE_BYTES => settings.max_message_bytes.to_string(),
            _ => settings.timestamp_type.as_str().to_owned(),
        };
        let value = text(self);
        let is_default = value == text(&Self::default());
        let source = if is_default { SettingSource::Default } else { SettingSource::Topic };
        Setting { name, value, source }
    }

    /// Checks that every value is one that can be set.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), SettingError> {
        parse_max_message_bytes(&self.max_message_bytes.to_string()).map(|_| ())
    }
}

fn parse_max_message_bytes(text: &str) -> Result<u32, SettingError> {
    let range = MAX_MESSAGE_BYTES_LEAST..=MAX_MESSAGE_BYTES_MOST;
    text.parse().ok().filter(|bytes| range.contains(bytes)).ok_or_else(|| SettingError::Value {
        name: MAX_MESSAGE_BYTES.to_owned(),
        value: quoted(text),
        expected: format!("a number of bytes from {MAX_MESSAGE_BYTES_LEAST} to {MAX_MESSAGE_BYTES_MOST}"),
    })
}

fn parse_timestamp_type(text: &str) -> Result<TimestampType, SettingError> {
    let all = [TimestampType::Create, TimestampType::LogAppend];
    all.into_iter().find(|known| known.as_str() == text).ok_or_else(|| SettingError::Value {
        name: MESSAGE_TIMESTAMP_TYPE.to_owned(),
        value: quoted(text),
        expected: "CreateTime or LogAppendTime".to_owned(),
    })
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SettingError {
    /// No setting of this name is supported.
    #[error("the topic setting `{name}` is not supported")]
    Unsupported {
        /// The name.
        name: String,
    },
    /// The value cannot be used.
    #[error("`{value}` is no value for `{name}`: {expected}")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is possible.
        expected: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(name: &str, value: &str) {
        let mut settings = TopicSettings::default();
        assert!(settings.set(name, Some(value)).is_err(), "{name}={value}");
        assert_eq!(settings, TopicSettings::default());
    }

    #[test]
    fn settings_are_read_under_kafkas_names_and_refused_by_name() {
        let given = [("max.message.bytes", "1024"), ("message.timestamp.type", "LogAppendTime")];
        let expected = TopicSettings { max_message_bytes: 1_024, timestamp_type: TimestampType::LogAppend };
        assert_eq!(TopicSettings::parse(given), Ok(expected));
        let unknown = SettingError::Unsupported { name: "retention.mss".to_owned() };
        assert_eq!(TopicSettings::parse([("retention.mss", "1")]), Err(unknown));
        check_refused("max.message.bytes", "1023");
        check_refused("max.message.bytes", "8388609");
        check_refused("max.message.bytes", "-1");
        check_refused("max.message.bytes", "1 MiB");
        check_refused("message.timestamp.type", "logappendtime");
    }

    #[test]
    fn a_listing_says_what_was_set_for_the_topic() {
        let mut settings = TopicSettings::parse([("max.message.bytes", "8388608")]).unwrap();
        let sources = |settings: &TopicSettings| settings.list().iter().map(|s| s.source).collect::<Vec<_>>();
        assert_eq!(sources(&settings), [SettingSource::Topic, SettingSource::Default]);
        assert_eq!(settings.list()[0].value, "8388608");
        settings.set("max.message.bytes", None).unwrap();
        assert_eq!(sources(&settings), [SettingSource::Default, SettingSource::Default]);
    }

    #[test]
    fn every_name_can_be_set_to_what_is_listed_for_it() {
        for setting in TopicSettings::default().list() {
            assert_eq!(TopicSettings::default().set(setting.name, Some(&setting.value)), Ok(()));
        }
    }

    #[test]
    fn an_error_repeats_only_the_start_of_a_long_name() {
        let Err(SettingError::Unsupported { name }) =
            TopicSettings::parse([("x".repeat(9_999).as_str(), "")])
        else {
            panic!("it was accepted");
        };
        assert_eq!(name.len(), 128);
    }
}
