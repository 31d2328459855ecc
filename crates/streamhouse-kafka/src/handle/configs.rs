//! DescribeConfigs: the settings of topics, of this node and of what has none.

use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{Setting, SettingKind, SettingSource};

use super::{Refusal, answer, text, topic_name};
use crate::Kafka;
use crate::codec::DecodeError;
use crate::connection::Answer;

/// Kinds of resources.
pub(super) const TOPIC: i8 = 2;
pub(super) const NODE: i8 = 4;
/// How much a part of a node logs.
pub(super) const LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;
/// Where a value comes from.
const OF_TOPIC: i8 = 1;
pub(super) const DEFAULT: i8 = 5;

/// What the settings of topics are called at a node, where that is neither the same name nor that behind `log.`.
const OF_NODES: [(&str, &str); 11] = [
    ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    ("flush.messages", "log.flush.interval.messages"),
    ("flush.ms", "log.flush.interval.ms"),
    ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", "message.max.bytes"),
    ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    ("segment.index.bytes", "log.index.size.max.bytes"),
    ("segment.jitter.ms", "log.roll.jitter.ms"),
    ("segment.ms", "log.roll.ms"),
];

/// One setting as it is told.
pub(super) struct Told {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) kind: SettingKind,
    pub(super) source: i8,
    /// It cannot be changed by a request.
    pub(super) read_only: bool,
    pub(super) meaning: &'static str,
    /// The value that holds where nothing is set, under the name it has at nodes.
    pub(super) below: Option<(String, String)>,
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
                kind => self.nothing_set(kind, resource.resource_name.as_str()),
            };
            let mut result = g::DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                ..Default::default()
            };
            match told {
                Ok(told) => {
                    let wanted = |told: &Told| match &resource.configuration_keys {
                        Some(keys) if !keys.is_empty() => {
                            keys.iter().any(|key| key.as_str() == told.name.as_str())
                        }
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
        let name = topic_name(name)?;
        let settings = self.broker().topic(&name).await?.settings;
        Ok(settings.list().into_iter().map(Told::of_topic).collect())
    }

    /// The settings of kinds of resources that have none of their own here.
    fn nothing_set(&self, kind: i8, name: &str) -> Result<Vec<Told>, Refusal> {
        let message = match kind {
            GROUP | CLIENT_METRICS if !name.is_empty() => return Ok(Vec::new()),
            GROUP | CLIENT_METRICS => "the name of the resource is empty".to_owned(),
            LOGGER => {
                self.check_node(name)?;
                "how much a node logs is not told here: its configuration says so in `log.level`".to_owned()
            }
            kind => format!("resources of kind {kind} have no settings here"),
        };
        Err(Refusal::request(message))
    }
}

impl Told {
    fn of_topic(setting: Setting) -> Self {
        let Setting { name, value, source, default, kind, meaning } = setting;
        let below = of_nodes(name).map(|name| (name, default));
        Self {
            name: name.to_owned(),
            value,
            kind,
            source: source_of(source),
            read_only: false,
            meaning,
            below,
        }
    }
}

/// What a setting of topics is called at a node, if it has one of that kind.
pub(super) fn of_nodes(name: &str) -> Option<String> {
    if name.starts_with("remote.") || name.ends_with(".throttled.replicas") {
        return None;
    }
    if name.starts_with("compression.")
        || ["min.insync.replicas", "unclean.leader.election.enable"].contains(&name)
    {
        return Some(name.to_owned());
    }
    let known = OF_NODES.iter().find(|(of_topic, _)| *of_topic == name);
    Some(known.map_or_else(|| format!("log.{name}"), |(_, of_node)| (*of_node).to_owned()))
}

/// Kafka's number for a kind of values.
fn kind_of(kind: SettingKind) -> i8 {
    match kind {
        SettingKind::Flag => 1,
        SettingKind::Text => 2,
        SettingKind::Number => 5,
        SettingKind::Fraction => 6,
        SettingKind::List => 7,
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
            all.push(synonym(&told.name, &told.value, told.source));
        }
        all.extend(told.below.iter().map(|(name, value)| synonym(name, value, DEFAULT)));
    }
    g::DescribeConfigsResourceResult {
        name: text(&told.name),
        value: Some(text(&told.value)),
        read_only: told.read_only,
        config_source: told.source,
        synonyms: all,
        config_type: kind_of(told.kind),
        documentation: documentation.then(|| text(told.meaning)),
        ..Default::default()
    }
}
