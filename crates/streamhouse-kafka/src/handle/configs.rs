//! DescribeConfigs: the settings of topics and of this node.

use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{
    MAX_MESSAGE_BYTES, MESSAGE_TIMESTAMP_TYPE, Setting, SettingSource, TopicSettings,
};
use streamhouse_types::error_code::ErrorCode;

use super::{Refusal, answer, parse_name, text};
use crate::codec::DecodeError;
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Kinds of resources.
pub(super) const TOPIC: i8 = 2;
pub(super) const NODE: i8 = 4;
/// Where a value comes from.
const OF_TOPIC: i8 = 1;
const OF_FILE: i8 = 4;
const DEFAULT: i8 = 5;
/// Kinds of values.
const FLAG: i8 = 1;
const TEXT: i8 = 2;
const NUMBER: i8 = 3;

/// One setting as it is told.
struct Told {
    name: &'static str,
    value: String,
    kind: i8,
    source: i8,
    meaning: &'static str,
    /// The values that would hold if the one above were not set, the nearest first, with where they come from.
    below: Vec<(&'static str, String, i8)>,
}

impl Kafka {
    pub(super) async fn describe_configs(
        &self,
        version: i16,
        query: g::DescribeConfigsRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut results = Vec::with_capacity(query.resources.len());
        let mut codes = Vec::new();
        for resource in query.resources {
            let told = match resource.resource_type {
                TOPIC => self.topic_settings(resource.resource_name.as_str()).await,
                NODE => self.node_settings(resource.resource_name.as_str()),
                kind => {
                    let message = format!("resources of kind {kind} have no settings here");
                    Err(Refusal::new(Code::INVALID_REQUEST, message))
                }
            };
            let mut result = g::DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                ..Default::default()
            };
            match told {
                Ok(told) => {
                    let wanted = |told: &Told| match &resource.configuration_keys {
                        Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == told.name),
                        _ => true,
                    };
                    let with = (query.include_synonyms, query.include_documentation);
                    result.configs = told.into_iter().filter(wanted).map(|told| config(told, with)).collect();
                }
                Err(Refusal { code, message }) => {
                    codes.push(code);
                    result.error_code = code.get();
                    result.error_message = Some(text(&message));
                }
            }
            results.push(result);
        }
        let message = g::DescribeConfigsResponseData { results, ..Default::default() };
        answer(&message, version, codes)
    }

    async fn topic_settings(&self, name: &str) -> Result<Vec<Told>, Refusal> {
        let name = parse_name(name).map_err(|code| Refusal::new(code, ErrorCode::InvalidName.hint()))?;
        let settings = self.broker().topic(&name).await?.settings;
        Ok(settings.list().into_iter().map(Told::of_topic).collect())
    }

    fn node_settings(&self, name: &str) -> Result<Vec<Told>, Refusal> {
        let options = &self.0.options;
        if !name.is_empty() && name != options.node.get().to_string() {
            let message = format!("this is node {}: ask each node for its own settings", options.node);
            return Err(Refusal::new(Code::INVALID_REQUEST, message));
        }
        let limit = TopicSettings::default().max_message_bytes.min(options.max_batch_bytes);
        let told = |name, value, kind, meaning| Told {
            name,
            value,
            kind,
            source: OF_FILE,
            meaning,
            below: Vec::new(),
        };
        let created = options.auto_create_topics.to_string();
        let partitions = options.default_partitions.to_string();
        Ok(vec![
            told("auto.create.topics.enable", created, FLAG, "Whether asking for an unknown topic makes it."),
            told("default.replication.factor", "1".to_owned(), NUMBER, "The object store replicates."),
            told(
                "message.max.bytes",
                limit.to_string(),
                NUMBER,
                "Largest batch of a topic that sets nothing else.",
            ),
            told(
                "num.partitions",
                partitions,
                NUMBER,
                "Partitions of a topic that is made without a number.",
            ),
        ])
    }
}

impl Told {
    fn of_topic(setting: Setting) -> Self {
        let Setting { name, value, source } = setting;
        let defaults = TopicSettings::default().list();
        let default = defaults.into_iter().find(|default| default.name == name).map(|default| default.value);
        let (kind, broker_name, meaning) = match name {
            MAX_MESSAGE_BYTES => (NUMBER, "message.max.bytes", "Largest batch in bytes."),
            MESSAGE_TIMESTAMP_TYPE => (
                TEXT,
                "log.message.timestamp.type",
                "Whether a record has its producer's time (CreateTime) or the log's (LogAppendTime).",
            ),
            name => (TEXT, name, ""),
        };
        let below = default.map(|value| (broker_name, value, DEFAULT)).into_iter().collect();
        Self { name, value, kind, source: source_of(source), meaning, below }
    }
}

/// Kafka's number for where a value comes from.
pub(super) fn source_of(source: SettingSource) -> i8 {
    match source {
        SettingSource::Default => DEFAULT,
        SettingSource::Topic => OF_TOPIC,
    }
}

fn config(told: Told, (synonyms, documentation): (bool, bool)) -> g::DescribeConfigsResourceResult {
    let synonym = |name: &str, value: &str, source| g::DescribeConfigsSynonym {
        name: text(name),
        value: Some(text(value)),
        source,
        ..Default::default()
    };
    let mut all = Vec::new();
    if synonyms {
        if told.source != DEFAULT {
            all.push(synonym(told.name, &told.value, told.source));
        }
        all.extend(told.below.iter().map(|(name, value, source)| synonym(name, value, *source)));
    }
    g::DescribeConfigsResourceResult {
        name: text(told.name),
        value: Some(text(&told.value)),
        read_only: told.source == OF_FILE,
        config_source: told.source,
        synonyms: all,
        config_type: told.kind,
        documentation: documentation.then(|| text(told.meaning)),
        ..Default::default()
    }
}
