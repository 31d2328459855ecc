//! The settings of a node under Kafka's names: they can be looked up, and are changed in its configuration only.

use streamhouse_broker::metadata::{OFFSET_METADATA_BYTES_MAX, SettingKind, TopicSettings};
use streamhouse_types::error_code::ErrorCode;

use super::configs::{DEFAULT, Told, of_nodes};
use super::describe::LOG_DIR;
use super::{ENDPOINT, FETCH_BYTES_MAX, Refusal};
use crate::Kafka;
use crate::frame::PRODUCE_BYTES_MAX;

/// A value comes from the node's configuration.
const OF_FILE: i8 = 4;

/// What the configuration of a node sets, under its name there.
const IN_THE_CONFIGURATION: [(&str, &str); 9] = [
    ("advertised.listeners", "listeners.advertised_kafka"),
    ("auto.create.topics.enable", "topics.auto_create"),
    ("broker.rack", "node.zone"),
    ("group.initial.rebalance.delay.ms", "groups.initial_rebalance_delay"),
    ("group.max.session.timeout.ms", "groups.session_timeout_max"),
    ("group.max.size", "groups.members_max"),
    ("group.min.session.timeout.ms", "groups.session_timeout_min"),
    ("num.partitions", "topics.default_partitions"),
    ("offsets.retention.minutes", "groups.offset_retention"),
];

impl Kafka {
    /// The number under which clients know this node. Behind one address all nodes are one, and set alike.
    fn own_id(&self) -> String {
        if self.is_single_endpoint() { ENDPOINT.to_string() } else { self.0.options.node.to_string() }
    }

    /// Refuses a resource that is not this node.
    pub(super) fn check_node(&self, name: &str) -> Result<(), Refusal> {
        let id = self.own_id();
        if name == id {
            return Ok(());
        }
        Err(Refusal::request(format!("this is node {id}: ask each node for its own settings")))
    }

    pub(super) fn node_settings(&self, name: &str) -> Result<Vec<Told>, Refusal> {
        // Values for all nodes at once would be those that were set for them here, and nothing can be.
        if name.is_empty() {
            return Ok(Vec::new());
        }
        self.check_node(name)?;
        let options = &self.0.options;
        let nodes = self.broker().look(|state| self.nodes(state));
        let own = nodes.iter().find(|node| node.id.to_string() == name);
        let address = own.map(|node| match node.host.contains(':') {
            true => format!("PLAINTEXT://[{}]:{}", node.host, node.port),
            false => format!("PLAINTEXT://{}:{}", node.host, node.port),
        });
        let rack = own.and_then(|node| node.rack.clone());
        let (flag, list, number) = (SettingKind::Flag, SettingKind::List, SettingKind::Number);
        let (address, makes) = (address.unwrap_or_default(), options.auto_create_topics.to_string());
        let partitions = options.default_partitions.to_string();
        let set = [
            ("advertised.listeners", address, list, "Where clients are told to reach the node."),
            ("auto.create.topics.enable", makes, flag, "Whether asking for an unknown topic makes it."),
            ("broker.id", name.to_owned(), number, "The number of the node."),
            ("node.id", name.to_owned(), number, "The number of the node."),
            ("num.partitions", partitions, number, "Partitions of a topic that is made without a number."),
        ];
        let rack = rack.map(|rack| ("broker.rack", rack, SettingKind::Text, "The zone that the node is in."));
        let set = set.into_iter().chain(rack).chain(self.group_limits());
        let mut all: Vec<Told> = set.map(|setting| told(setting, OF_FILE)).collect();
        all.extend(fixed(nodes.len()).map(|setting| told(setting, DEFAULT)));
        all.extend(of_topics(options.max_batch_bytes));
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// What is set about groups; nothing where there are none.
    fn group_limits(&self) -> Vec<(&'static str, String, SettingKind, &'static str)> {
        let Some(groups) = &self.0.options.groups else { return Vec::new() };
        let settings = groups.settings();
        let (least, most) = (settings.session_timeout_min, settings.session_timeout_max);
        let delay = settings.initial_rebalance_delay.as_millis();
        let minutes = u128::from(settings.offset_retention.as_secs() / 60);
        [
            ("group.initial.rebalance.delay.ms", delay, "How long an empty group waits for more members."),
            ("group.max.session.timeout.ms", most.as_millis(), "Longest session timeout of a member."),
            ("group.max.size", settings.members_max as u128, "Most members of a group."),
            ("group.min.session.timeout.ms", least.as_millis(), "Shortest session timeout of a member."),
            ("offsets.retention.minutes", minutes, "How long offsets of a group without members are kept."),
        ]
        .map(|(name, value, meaning)| (name, value.to_string(), SettingKind::Number, meaning))
        .into()
    }
}

/// What no node can be set.
fn fixed(nodes: usize) -> [(&'static str, String, SettingKind, &'static str); 6] {
    let (flag, list, number) = (SettingKind::Flag, SettingKind::List, SettingKind::Number);
    let (nodes, noted) = (nodes.max(1).to_string(), OFFSET_METADATA_BYTES_MAX.to_string());
    let (fetched, sent) = (FETCH_BYTES_MAX.to_string(), PRODUCE_BYTES_MAX.to_string());
    [
        ("default.replication.factor", nodes, number, "The object store replicates, for every node alike."),
        ("delete.topic.enable", "true".to_owned(), flag, "Topics can be deleted."),
        ("fetch.max.bytes", fetched, number, "Most bytes of batches in one answer."),
        ("log.dirs", LOG_DIR.to_owned(), list, "Stands for the object store."),
        ("offset.metadata.max.bytes", noted, number, "Longest text beside a committed offset."),
        ("socket.request.max.bytes", sent, number, "Largest request with batches."),
    ]
}

/// What holds for topics that set nothing.
fn of_topics(batch_bytes_max: u32) -> impl Iterator<Item = Told> {
    let limit = TopicSettings::default().max_message_bytes.min(batch_bytes_max);
    TopicSettings::default().list().into_iter().filter_map(move |setting| {
        let value = match setting.name {
            "max.message.bytes" => limit.to_string(),
            _ => setting.value,
        };
        let name = of_nodes(setting.name)?;
        Some(told((&name, value, setting.kind, setting.meaning), DEFAULT))
    })
}

fn told((name, value, kind, meaning): (&str, String, SettingKind, &'static str), source: i8) -> Told {
    let below = (source == DEFAULT).then(|| (name.to_owned(), value.clone()));
    Told { name: name.to_owned(), value, kind, source, read_only: true, meaning, below }
}

/// Says where else a setting of a node is changed.
pub(super) fn refuse_edit(name: &str) -> Refusal {
    let set = IN_THE_CONFIGURATION.iter().find(|(of_kafka, _)| *of_kafka == name);
    let topics = TopicSettings::default().list();
    let of_topic = topics.iter().find(|setting| of_nodes(setting.name).as_deref() == Some(name));
    let advice = match (set, of_topic) {
        (Some((_, ours)), _) => format!("set `{ours}` in its configuration and start it again"),
        (None, Some(setting)) => format!("set `{}` for each topic", setting.name),
        (None, None) => "its configuration sets all that can be set".to_owned(),
    };
    let message = format!("`{name}` of a node cannot be changed from here: {advice}");
    Refusal::new(ErrorCode::InvalidSetting, message)
}
