//! What is printed about groups.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use streamhouse_client::{
    GroupInfo, GroupMember, GroupPartition, Mode, NodeId, Offset, SoughtPartition, TopicPartition,
};

use crate::failure::Failure;
use crate::output::{millis, table};
use streamhouse_units::{count, counted, span, time};

/// A group in JSON.
#[derive(Debug, Serialize)]
pub(super) struct GroupDocument {
    id: String,
    state: String,
    protocol_type: String,
    coordinator: Option<u64>,
    member_count: u32,
    topic_count: u32,
    lag_records: u64,
    behind_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<MemberDocument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionDocument>>,
}

#[derive(Debug, Serialize)]
struct MemberDocument {
    id: String,
    instance: Option<String>,
    client: String,
    host: String,
    topics: Vec<String>,
    assigned: Vec<PlaceDocument>,
}

#[derive(Debug, Serialize)]
struct PlaceDocument {
    topic: String,
    partition: u32,
}

#[derive(Debug, Serialize)]
struct PartitionDocument {
    topic: String,
    partition: u32,
    committed: Option<u64>,
    metadata: Option<String>,
    committed_at: Option<String>,
    log_start: u64,
    high_watermark: u64,
    lag_records: Option<u64>,
    behind_seconds: Option<f64>,
    member: Option<String>,
}

fn seconds(span: Duration) -> f64 {
    millis(span) / 1e3
}

impl GroupDocument {
    /// A group of a list: without members and partitions.
    pub(super) fn listed(group: &GroupInfo) -> Self {
        Self {
            id: group.id.clone(),
            state: group.state.to_string(),
            protocol_type: group.protocol_type.clone(),
            coordinator: group.coordinator.map(NodeId::get),
            member_count: group.member_count,
            topic_count: group.topic_count,
            lag_records: group.lag_records,
            behind_seconds: seconds(group.behind),
            protocol: None,
            generation: None,
            leader: None,
            members: None,
            partitions: None,
        }
    }

    /// A group with all that is known of it.
    pub(super) fn described(group: &GroupInfo) -> Self {
        Self {
            protocol: Some(group.protocol.clone()),
            generation: Some(group.generation),
            leader: Some(group.leader.clone()),
            members: Some(group.members.iter().map(MemberDocument::of).collect()),
            partitions: Some(group.partitions.iter().map(PartitionDocument::of).collect()),
            ..Self::listed(group)
        }
    }
}

impl MemberDocument {
    fn of(member: &GroupMember) -> Self {
        let place = |place: &TopicPartition| PlaceDocument {
            topic: place.topic.clone(),
            partition: place.partition.get(),
        };
        Self {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            host: member.host.clone(),
            topics: member.topics.clone(),
            assigned: member.assigned.iter().map(place).collect(),
        }
    }
}

impl PartitionDocument {
    fn of(partition: &GroupPartition) -> Self {
        Self {
            topic: partition.topic.clone(),
            partition: partition.partition.get(),
            committed: partition.committed.map(Offset::get),
            metadata: partition.metadata.clone(),
            committed_at: partition.committed_at.and_then(time),
            log_start: partition.log_start.get(),
            high_watermark: partition.high_watermark.get(),
            lag_records: partition.lag_records,
            behind_seconds: partition.behind.map(seconds),
            member: Some(partition.member.clone()).filter(|member| !member.is_empty()),
        }
    }
}

/// A group that could not be served.
#[derive(Debug, Serialize)]
pub(super) struct FailedDocument {
    id: String,
    code: String,
    message: String,
    hint: Option<String>,
    retryable: bool,
    may_have_happened: bool,
}

impl FailedDocument {
    pub(super) fn new(id: &str, failure: &Failure) -> Self {
        Self {
            id: id.to_owned(),
            code: failure.code.clone(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            retryable: failure.retryable,
            may_have_happened: failure.may_have_happened,
        }
    }
}

impl fmt::Display for FailedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}   {}: {}", self.id, self.code, self.message)
    }
}

/// What moved, in JSON.
#[derive(Debug, Serialize)]
pub(super) struct SeekDocument {
    group: String,
    applied: bool,
    partitions: Vec<SoughtDocument>,
}

#[derive(Debug, Serialize)]
struct SoughtDocument {
    topic: String,
    partition: u32,
    from: Option<u64>,
    to: Option<u64>,
    log_start: u64,
    high_watermark: u64,
}

impl SeekDocument {
    pub(super) fn new(group: &str, sought: &[SoughtPartition], mode: Mode) -> Self {
        let row = |sought: &SoughtPartition| SoughtDocument {
            topic: sought.topic.clone(),
            partition: sought.partition.get(),
            from: sought.from.map(Offset::get),
            to: sought.to.map(Offset::get),
            log_start: sought.log_start.get(),
            high_watermark: sought.high_watermark.get(),
        };
        let partitions = sought.iter().map(row).collect();
        Self { group: group.to_owned(), applied: mode == Mode::Apply, partitions }
    }
}

/// Groups, one a line.
pub(super) fn list(groups: &[GroupInfo], out: &mut impl Write) -> io::Result<()> {
    let mut rows = table(&["GROUP", "STATE", "MEMBERS", "TOPICS", "LAG", "BEHIND"]);
    for group in groups {
        rows.add_row([
            group.id.clone(),
            group.state.to_string(),
            group.member_count.to_string(),
            group.topic_count.to_string(),
            count(group.lag_records),
            span(group.behind),
        ]);
    }
    writeln!(out, "{rows}")
}

/// A group, its partitions, its members.
pub(super) fn describe(group: &GroupInfo, out: &mut impl Write) -> io::Result<()> {
    let coordinator = group.coordinator.map_or_else(|| "none".to_owned(), |node| format!("n{node}"));
    let protocol = if group.protocol.is_empty() { "-" } else { &group.protocol };
    writeln!(
        out,
        "{}   {}   {}   coordinator {coordinator}   protocol {protocol}   generation {}",
        group.id,
        group.state,
        counted(u64::from(group.member_count), "member"),
        group.generation
    )?;
    writeln!(out, "lag {}, {} behind", counted(group.lag_records, "record"), span(group.behind))?;
    let dash = || "-".to_owned();
    let mut rows = table(&["TOPIC", "PART", "COMMITTED", "END", "LAG", "BEHIND", "MEMBER"]);
    for partition in &group.partitions {
        rows.add_row([
            partition.topic.clone(),
            partition.partition.to_string(),
            partition.committed.map_or_else(dash, |offset| count(offset.get())),
            count(partition.high_watermark.get()),
            partition.lag_records.map_or_else(dash, count),
            partition.behind.filter(|_| partition.committed.is_some()).map_or_else(dash, span),
            if partition.member.is_empty() { dash() } else { partition.member.clone() },
        ]);
    }
    writeln!(out, "{rows}")?;
    if group.members.is_empty() {
        return Ok(());
    }
    let mut rows = table(&["MEMBER", "CLIENT", "HOST", "PARTITIONS"]);
    for member in &group.members {
        let assigned = member.assigned.len().to_string();
        rows.add_row([member.id.clone(), member.client.clone(), member.host.clone(), assigned]);
    }
    writeln!(out, "{rows}")
}

/// What moves from where to where.
pub(super) fn sought(sought: &[SoughtPartition], out: &mut impl Write) -> io::Result<()> {
    let mut rows = table(&["TOPIC", "PART", "FROM", "TO", "MOVES"]);
    for partition in sought {
        let offset =
            |offset: Option<Offset>| offset.map_or_else(|| "-".to_owned(), |offset| count(offset.get()));
        let moves = match (partition.from, partition.to) {
            (Some(from), Some(to)) if to >= from => format!("+{}", count(to.get() - from.get())),
            (Some(from), Some(to)) => format!("-{}", count(from.get() - to.get())),
            _ => "-".to_owned(),
        };
        rows.add_row([
            partition.topic.clone(),
            partition.partition.to_string(),
            offset(partition.from),
            offset(partition.to),
            moves,
        ]);
    }
    writeln!(out, "{rows}")
}
