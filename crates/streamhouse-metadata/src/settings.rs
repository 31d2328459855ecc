//! Settings of a topic, under Kafka's names. A setting that is accepted is obeyed, or kept for what will obey it, as
//! its meaning says; any other is refused by name.

mod edits;
mod kept;

use serde::{Deserialize, Serialize};

pub use edits::{OtherSettings, SettingEdits, SettingStep};
pub use kept::KeptSettings;

use crate::FeatureLevel;

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
    /// The others. They are written apart, so that the bytes of what is above are as they were before there were any.
    #[serde(skip)]
    pub kept: KeptSettings,
}

impl Default for TopicSettings {
    fn default() -> Self {
        let (timestamp_type, kept) = (TimestampType::default(), KeptSettings::default());
        Self { max_message_bytes: 1_048_588, timestamp_type, kept }
    }
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// It is the default.
    Default,
    /// It was set for this topic, be it to the default. What was set to the default before feature level 4 is not
    /// remembered.
    Topic,
}

/// What the values of a setting are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// `true` or `false`.
    Flag,
    /// A word.
    Text,
    /// A whole number.
    Number,
    /// A number with a fraction.
    Fraction,
    /// Words with commas between.
    List,
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
    /// The value it has when nobody sets it.
    pub default: String,
    /// What its values are.
    pub kind: SettingKind,
    /// What it does, in Markdown.
    pub meaning: &'static str,
}

impl TopicSettings {
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
        self.set_at(FeatureLevel::NEWEST, name, value)
    }

    /// The same, judged as by a release that knows this feature level and no higher one: settings that came later are not
    /// supported, whatever the value.
    ///
    /// # Errors
    /// When the setting is not supported or cannot have this value; then nothing is changed.
    pub fn set_at(
        &mut self,
        level: FeatureLevel,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), SettingError> {
        if Self::level(name) > level {
            return Err(SettingError::Unsupported { name: quoted(name) });
        }
        match kept::find(name) {
            Some(row) => self.kept.set(level, row, value)?,
            // Space around a value counted here before, and nowhere else.
            None if level < FeatureLevel::EDITED_SETTINGS => self.set_own(name, value)?,
            None => self.set_own(name, value.map(str::trim))?,
        }
        // Before, nobody remembered what was set to its default.
        let shows = kept::find(name).is_some_and(|row| self.kept.get(row) != row.default);
        if level < FeatureLevel::EDITED_SETTINGS && !shows {
            self.kept.forget(name);
        }
        Ok(())
    }

    /// Changes a setting that has a place of its own.
    fn set_own(&mut self, name: &str, value: Option<&str>) -> Result<(), SettingError> {
        let defaults = Self::default();
        match name {
            MAX_MESSAGE_BYTES => {
                self.max_message_bytes =
                    value.map_or(Ok(defaults.max_message_bytes), parse_max_message_bytes)?;
            }
            MESSAGE_TIMESTAMP_TYPE => {
                self.timestamp_type = value.map_or(Ok(defaults.timestamp_type), parse_timestamp_type)?;
            }
            _ => return Err(SettingError::Unsupported { name: quoted(name) }),
        }
        // Its place shows that it was set, unless that was to the default.
        for ((own, now, ..), (_, default, ..)) in self.own().into_iter().zip(defaults.own()) {
            match value {
                _ if own != name => {}
                Some(_) if now == default => self.kept.put(own, now),
                _ => self.kept.forget(own),
            }
        }
        Ok(())
    }

    /// The feature level from which on topics have the setting of this name; the first where there is no such setting,
    /// as every release refuses it in the same words.
    #[must_use]
    pub fn level(name: &str) -> FeatureLevel {
        kept::find(name).map_or(FeatureLevel::FIRST, |row| row.level)
    }

    /// Whether records may go by their age, or on request (`cleanup.policy` has `delete`).
    #[must_use]
    pub fn deletes(&self) -> bool {
        let policy = kept::find(kept::CLEANUP_POLICY).map_or(kept::DELETE, |row| self.kept.get(row));
        policy.split(',').any(|word| word == kept::DELETE)
    }

    /// Whether only the newest record of each key is wanted (`cleanup.policy` has `compact`): each record needs one.
    #[must_use]
    pub fn compacts(&self) -> bool {
        let policy = kept::find(kept::CLEANUP_POLICY).map_or(kept::DELETE, |row| self.kept.get(row));
        policy.split(',').any(|word| word == kept::COMPACT)
    }

    /// All settings with their values and where they come from, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Setting> {
        let own = self.own().into_iter().zip(Self::default().own());
        let own = own.map(|((name, value, kind, meaning), (_, default, ..))| {
            let source = match value == default && !self.kept.has(name) {
                true => SettingSource::Default,
                false => SettingSource::Topic,
            };
            Setting { name, value, source, default, kind, meaning }
        });
        let kept = kept::ROWS.iter().map(|row| Setting {
            name: row.name,
            value: self.kept.get(row).to_owned(),
            source: if self.kept.has(row.name) { SettingSource::Topic } else { SettingSource::Default },
            default: row.default.to_owned(),
            kind: row.kind(),
            meaning: row.meaning,
        });
        let mut all: Vec<Setting> = own.chain(kept).collect();
        all.sort_unstable_by_key(|setting| setting.name);
        all
    }

    fn own(&self) -> [(&'static str, String, SettingKind, &'static str); 2] {
        [
            (
                MAX_MESSAGE_BYTES,
                self.max_message_bytes.to_string(),
                SettingKind::Number,
                "Largest batch in bytes, 1024 to `limits.max_batch_bytes`.",
            ),
            (
                MESSAGE_TIMESTAMP_TYPE,
                self.timestamp_type.as_str().to_owned(),
                SettingKind::Text,
                "`CreateTime` keeps the producer's times, `LogAppendTime` sets the time of the append.",
            ),
        ]
    }

    /// Checks that every value is one that can be set.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), SettingError> {
        parse_max_message_bytes(&self.max_message_bytes.to_string())?;
        self.kept.iter().try_for_each(|(name, value)| Self::default().set(name, Some(value)))
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
    /// Words were to be added to it, or taken from it.
    #[error("`{name}` is no list of values: set it as a whole")]
    NotAList {
        /// The setting.
        name: String,
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
        let expected = TopicSettings {
            max_message_bytes: 1_024,
            timestamp_type: TimestampType::LogAppend,
            ..TopicSettings::default()
        };
        assert_eq!(TopicSettings::parse(given), Ok(expected));
        let unknown = SettingError::Unsupported { name: "retention.mss".to_owned() };
        assert_eq!(TopicSettings::parse([("retention.mss", "1")]), Err(unknown));
        check_refused("max.message.bytes", "1023");
        check_refused("max.message.bytes", "8388609");
        check_refused("max.message.bytes", "-1");
        check_refused("max.message.bytes", "1 MiB");
        check_refused("message.timestamp.type", "logappendtime");
    }

    fn set_for_the_topic(settings: &TopicSettings) -> Vec<(&'static str, String)> {
        let set = settings.list().into_iter().filter(|setting| setting.source == SettingSource::Topic);
        set.map(|setting| (setting.name, setting.value)).collect()
    }

    #[test]
    fn a_listing_says_what_was_set_for_the_topic() {
        let given = [("max.message.bytes", "8388608"), ("retention.ms", "60000")];
        let mut settings = TopicSettings::parse(given).unwrap();
        assert_eq!(set_for_the_topic(&settings), given.map(|(name, value)| (name, value.to_owned())));
        settings.set("max.message.bytes", None).unwrap();
        settings.set("retention.ms", None).unwrap();
        assert_eq!(set_for_the_topic(&settings), []);
        assert_eq!(settings, TopicSettings::default());
        let names: Vec<_> = settings.list().iter().map(|setting| setting.name).collect();
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn what_was_set_to_its_default_is_told_as_set() {
        let given = [("max.message.bytes", "1048588"), ("retention.ms", "-1")];
        let mut settings = TopicSettings::parse(given).unwrap();
        assert_eq!(set_for_the_topic(&settings), given.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(settings.check(), Ok(()));
        for (name, value) in given {
            settings.set_at(FeatureLevel::MORE_SETTINGS, name, Some(value)).unwrap();
        }
        assert_eq!(settings, TopicSettings::default(), "releases before did not remember it");
        for (name, value) in given {
            settings.set(name, Some(value)).unwrap();
            settings.set(name, None).unwrap();
        }
        assert_eq!(settings, TopicSettings::default());
    }

    #[track_caller]
    fn check_kept(name: &str, value: &str, expected: &str) {
        let settings = TopicSettings::parse([(name, value)]).unwrap();
        assert_eq!(settings.check(), Ok(()));
        let found = settings.list().into_iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(found.value, expected);
    }

    #[test]
    fn settings_are_kept_within_their_bounds() {
        check_kept("cleanup.policy", "compact", "compact");
        check_kept("cleanup.policy", " compact , delete", "compact,delete");
        check_kept("cleanup.policy", "", "");
        check_kept("cleanup.policy", "  ", "");
        check_kept("preallocate", " FALSE", "false");
        check_kept("message.timestamp.type", " LogAppendTime ", "LogAppendTime");
        check_kept("max.message.bytes", " 2000 ", "2000");
        check_kept("retention.ms", "0060", "60");
        check_kept("min.cleanable.dirty.ratio", "1", "1");
        check_kept("compression.type", "producer", "producer");
        check_kept("min.insync.replicas", "3", "3");
        for (name, value) in [
            ("cleanup.policy", ","),
            ("cleanup.policy", "compact,"),
            ("cleanup.policy", "compact,compact"),
            ("cleanup.policy", "compact, ,delete"),
            ("cleanup.policy", "Delete"),
            ("preallocate", "no"),
            ("message.timestamp.type", ""),
            ("cleanup.policy", "forever"),
            ("retention.ms", "-2"),
            ("retention.ms", "1h"),
            ("retention.bytes", "9223372036854775808"),
            ("min.insync.replicas", "0"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("compression.type", "zstd"),
            ("unclean.leader.election.enable", "true"),
        ] {
            check_refused(name, value);
        }
    }

    #[test]
    fn only_a_policy_with_delete_deletes() {
        let policy = |value| TopicSettings::parse([("cleanup.policy", value)]).unwrap().deletes();
        assert!(TopicSettings::default().deletes() && policy("compact,delete") && policy("delete"));
        assert!(!policy("compact") && !policy(""));
        let compacts = |value| TopicSettings::parse([("cleanup.policy", value)]).unwrap().compacts();
        assert!(compacts("compact") && compacts("delete,compact") && !compacts("delete") && !compacts(""));
    }

    #[test]
    fn a_release_before_refuses_what_it_always_has_in_its_own_words() {
        let mut settings = TopicSettings::default();
        let mut refused = |name, value| settings.set_at(FeatureLevel::MORE_SETTINGS, name, Some(value));
        for (name, value) in [
            ("preallocate", "FALSE"),
            ("message.timestamp.type", " CreateTime"),
            ("max.message.bytes", " 2000"),
        ] {
            assert!(refused(name, value).is_err(), "{name}={value}");
        }
        let Err(SettingError::Value { expected, .. }) = refused("cleanup.policy", "") else {
            panic!("it was accepted");
        };
        assert_eq!(expected, "one or more of compact, delete");
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
