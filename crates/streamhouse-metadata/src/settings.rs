//! Settings of a topic, under Kafka's names. A setting that is accepted is obeyed; any other is refused by name.

use serde::{Deserialize, Serialize};

/// Where the timestamp of a record comes from (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum TimestampType {
    /// The producer's (`CreateTime`).
    #[default]
    Create,
    /// The append time of the log (`LogAppendTime`).
    LogAppend,
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
