//! What is printed about topics.

use std::io::{self, Write};

use serde::Serialize;
use streamhouse_client::{PartitionInfo, Setting, SettingSource, Timestamp, TopicInfo};

use crate::failure::Failure;
use crate::output::table;
use streamhouse_units::{ago, bytes, count, counted, time};

/// A topic in JSON.
#[derive(Debug, Serialize)]
pub(super) struct TopicDocument {
    name: String,
    id: u64,
    partition_count: u32,
    created: Option<String>,
    records: u64,
    stored_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Vec<SettingDocument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionDocument>>,
}

#[derive(Debug, Serialize)]
struct SettingDocument {
    name: String,
    value: String,
    source: &'static str,
}

#[derive(Debug, Serialize)]
struct PartitionDocument {
    partition: u32,
    home: Option<u64>,
    epoch: u32,
    log_start: u64,
    high_watermark: u64,
    stored_bytes: u64,
    extents: u64,
    last_append: Option<String>,
}

impl TopicDocument {
    /// A topic of a list: without settings and partitions.
    pub(super) fn listed(topic: &TopicInfo) -> Self {
        Self {
            name: topic.name.clone(),
            id: topic.id.get(),
            partition_count: topic.partition_count,
            created: topic.created.and_then(time),
            records: topic.records,
            stored_bytes: topic.stored_bytes,
            settings: None,
            partitions: None,
        }
    }

    /// A topic with all that is known of it.
    pub(super) fn described(topic: &TopicInfo) -> Self {
        Self {
            settings: Some(topic.settings.iter().map(SettingDocument::of).collect()),
            partitions: Some(topic.partitions.iter().map(PartitionDocument::of).collect()),
            ..Self::listed(topic)
        }
    }
}

impl SettingDocument {
    fn of(setting: &Setting) -> Self {
        Self { name: setting.name.clone(), value: setting.value.clone(), source: source(setting) }
    }
}

fn source(setting: &Setting) -> &'static str {
    match setting.source {
        SettingSource::Default => "default",
        SettingSource::Topic => "topic",
        _ => "unknown",
    }
}

impl PartitionDocument {
    fn of(partition: &PartitionInfo) -> Self {
        Self {
            partition: partition.index.get(),
            home: partition.home.map(|node| node.get()),
            epoch: partition.epoch.get(),
            log_start: partition.log_start.get(),
            high_watermark: partition.high_watermark.get(),
            stored_bytes: partition.stored_bytes,
            extents: partition.extents,
            last_append: partition.last_append.and_then(time),
        }
    }
}

/// What became of one topic.
#[derive(Debug, Serialize)]
pub(super) struct ItemDocument {
    name: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<TopicDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

#[derive(Debug, Serialize)]
struct ItemError {
    code: String,
    message: String,
    hint: Option<String>,
    retryable: bool,
    may_have_happened: bool,
}

impl ItemDocument {
    pub(super) fn done(name: &str, status: &'static str, topic: Option<TopicDocument>) -> Self {
        Self { name: name.to_owned(), status, topic, error: None }
    }

    pub(super) fn failed(name: &str, failure: &Failure) -> Self {
        let error = ItemError {
            code: failure.code.clone(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            retryable: failure.retryable,
            may_have_happened: failure.may_have_happened,
        };
        Self { name: name.to_owned(), status: "failed", topic: None, error: Some(error) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One line for people.
    pub(super) fn status(&self) -> String {
        match (&self.error, &self.topic) {
            (Some(error), _) => format!("{}: {}", error.code, error.message),
            (None, Some(topic)) => {
                format!("{} ({})", self.status, counted(u64::from(topic.partition_count), "partition"))
            }
            (None, None) => self.status.to_owned(),
        }
    }
}

pub(super) fn list(topics: &[TopicInfo], out: &mut impl Write) -> io::Result<()> {
    let mut rows = table(&["NAME", "PARTITIONS", "RECORDS", "STORED"]);
    for topic in topics {
        rows.add_row([
            topic.name.clone(),
            count(u64::from(topic.partition_count)),
            count(topic.records),
            bytes(topic.stored_bytes),
        ]);
    }
    writeln!(out, "{rows}")?;
    let records = topics.iter().map(|topic| topic.records).sum();
    let stored = topics.iter().map(|topic| topic.stored_bytes).sum();
    let topics = u64::try_from(topics.len()).unwrap_or(u64::MAX);
    writeln!(out, "{}, {}, {}", counted(topics, "topic"), counted(records, "record"), bytes(stored))
}

pub(super) fn describe(topic: &TopicInfo, now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let created = topic.created.and_then(time).map(|time| format!("   created {time}")).unwrap_or_default();
    let partitions = counted(u64::from(topic.partition_count), "partition");
    writeln!(out, "{}   {partitions}{created}", topic.name)?;
    writeln!(out, "records {}   stored {}", count(topic.records), bytes(topic.stored_bytes))?;
    let mut rows = table(&["PART", "HOME", "START", "END", "STORED", "EXTENTS", "LAST APPEND"]);
    for partition in &topic.partitions {
        rows.add_row([
            partition.index.to_string(),
            partition.home.map(|node| format!("n{node}")).unwrap_or_default(),
            count(partition.log_start.get()),
            count(partition.high_watermark.get()),
            bytes(partition.stored_bytes),
            count(partition.extents),
            partition.last_append.map(|at| ago(at, now)).unwrap_or_default(),
        ]);
    }
    writeln!(out, "{rows}")?;
    let mut rows = table(&["SETTING", "VALUE", "SET BY"]);
    for setting in &topic.settings {
        rows.add_row([&setting.name, &setting.value, source(setting)]);
    }
    writeln!(out, "{rows}")
}
