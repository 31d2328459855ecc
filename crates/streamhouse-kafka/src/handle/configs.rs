//! DescribeConfigs: the settings of topics and of this node.

use kacrab_protocol::generated as g;
use streamhouse_broker::metadata::{Setting, SettingKind, SettingSource, TopicSettings};
use streamhouse_types::error_code::ErrorCode;

use super::{ENDPOINT, Refusal, answer, parse_name, text};
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

/// What the settings of topics are called at a node, where that is not `log.` with the same name.
const OF_NODES: [(&str, &str); 19] = [
    ("compression.gzip.level", "compression.gzip.level"),
    ("compression.lz4.level", "compression.lz4.level"),
    ("compression.type", "compression.type"),
    ("compression.zstd.level", "compression.zstd.level"),
    ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    ("flush.messages", "log.flush.interval.messages"),
    ("flush.ms", "log.flush.interval.ms"),
    ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", "message.max.bytes"),
    ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("segment.bytes", "log.segment.bytes"),
    ("segment.index.bytes", "log.index.size.max.bytes"),
    ("segment.jitter.ms", "log.roll.jitter.ms"),
    ("segment.ms", "log.roll.ms"),
    ("unclean.leader.election.enable", "unclean.leader.election.enable"),
    ("preallocate", "log.preallocate"),
];

/// One setting as it is told.
struct Told {
    name: String,
    value: String,
    kind: SettingKind,
    source: i8,
    meaning: &'static str,
    /// The value that would hold if it were not set for the topic, under the name it has at nodes.
    below: Option<(String, String)>,
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
        let name = parse_name(name).map_err(|code| Refusal::new(code, ErrorCode::InvalidName.hint()))?;
        let settings = self.broker().topic(&name).await?.settings;
        Ok(settings.list().into_iter().map(Told::of_topic).collect())
    }

    fn node_settings(&self, name: &str) -> Result<Vec<Told>, Refusal> {
        let options = &self.0.options;
        // Behind one address all nodes are one, and set alike.
        let id = if self.is_single_endpoint() { ENDPOINT.to_string() } else { options.node.to_string() };
        if !name.is_empty() && name != id {
            let message = format!("this is node {id}: ask each node for its own settings");
            return Err(Refusal::new(Code::INVALID_REQUEST, message));
        }
        let limit = TopicSettings::default().max_message_bytes.min(options.max_batch_bytes);
        let told = |name: &str, value: String, kind, meaning| Told {
            name: name.to_owned(),
            value,
            kind,
            source: OF_FILE,
            meaning,
            below: None,
        };
        let nodes = self.broker().look(|state| self.nodes(state));
        let own = nodes.iter().find(|node| node.id.to_string() == id);
        let own = own.map(|node| match node.host.contains(':') {
            true => format!("PLAINTEXT://[{}]:{}", node.host, node.port),
            false => format!("PLAINTEXT://{}:{}", node.host, node.port),
        });
        let rack = nodes.iter().find(|node| node.id.to_string() == id).and_then(|node| node.rack.clone());
        let nodes = nodes.len().max(1);
        let (flag, number) = (SettingKind::Flag, SettingKind::Number);
        let mut all = vec![
            told(
                "advertised.listeners",
                own.unwrap_or_default(),
                SettingKind::List,
                "Where clients are told to reach the node.",
            ),
            told(
                "auto.create.topics.enable",
                options.auto_create_topics.to_string(),
                flag,
                "Whether asking for an unknown topic makes it.",
            ),
            told("broker.id", id, number, "The number of the node."),
            told(
                "default.replication.factor",
                nodes.to_string(),
                number,
                "Every node has every topic, and the object store replicates.",
            ),
            told("delete.topic.enable", "true".to_owned(), flag, "Topics can be deleted."),
            told(
                "num.partitions",
                options.default_partitions.to_string(),
                number,
                "Partitions of a topic that is made without a number.",
            ),
        ];
        all.extend(
            rack.map(|rack| told("broker.rack", rack, SettingKind::Text, "The zone that the node is in.")),
        );
        // What holds for topics that set nothing.
        all.extend(TopicSettings::default().list().into_iter().filter_map(|setting| {
            let value = match setting.name {
                "max.message.bytes" => limit.to_string(),
                _ => setting.value,
            };
            Some(told(&of_nodes(setting.name)?, value, setting.kind, setting.meaning))
        }));
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

impl Told {
    fn of_topic(setting: Setting) -> Self {
        let Setting { name, value, source, default, kind, meaning } = setting;
        let below = of_nodes(name).map(|name| (name, default));
        Self { name: name.to_owned(), value, kind, source: source_of(source), meaning, below }
    }
}

/// What a setting of topics is called at a node, if it has one of that kind.
fn of_nodes(name: &str) -> Option<String> {
    if name.starts_with("remote.") || name.ends_with(".throttled.replicas") {
        return None;
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
        read_only: told.source == OF_FILE,
        config_source: told.source,
        synonyms: all,
        config_type: kind_of(told.kind),
        documentation: documentation.then(|| text(told.meaning)),
        ..Default::default()
    }
}
