//! Groups as people are told of them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use streamhouse_broker::metadata::{CommittedOffset, Partition, State};
use streamhouse_groups::{
    GroupDescription, GroupState, GroupSummary, MemberDescription, PartitionLag, subscription,
};
use streamhouse_proto::v1;
use streamhouse_types::{NodeId, PartitionId, PartitionIndex, TopicName};

use crate::convert::{duration, timestamp};

/// The protocol type whose bytes can be read.
const CONSUMER: &str = "consumer";

/// A group in a list.
pub(super) fn summary(group: &GroupSummary, lag: &[PartitionLag]) -> v1::Group {
    v1::Group {
        id: group.group.to_string(),
        state: state_of(group.state).into(),
        protocol_type: group.protocol_type.clone(),
        coordinator_id: group.coordinator.map_or(0, NodeId::get),
        member_count: count(group.members),
        ..sums(lag)
    }
}

/// A group with all that belongs to it.
pub(super) fn group(state: &State, group: &GroupDescription, lag: &[PartitionLag]) -> v1::Group {
    let status = &group.status;
    let told = |found| member(found, &status.protocol_type);
    let members: Vec<v1::GroupMember> = status.members.iter().map(told).collect();
    let mut partitions: BTreeMap<(String, u32), v1::GroupPartition> = BTreeMap::new();
    for lag in lag {
        let Some(topic) = state.topic(lag.partition.topic) else { continue };
        let place = (topic.name().to_string(), lag.partition.index.get());
        partitions.insert(place.clone(), committed(place, lag));
    }
    for member in &members {
        for read in &member.assigned {
            let place = (read.topic.clone(), read.partition);
            let Some(found) = partition_of(state, read) else { continue };
            let row = partitions.entry(place).or_insert_with_key(|(topic, index)| v1::GroupPartition {
                topic: topic.clone(),
                partition: *index,
                log_start: found.log_start().get(),
                high_watermark: found.high_watermark().get(),
                ..v1::GroupPartition::default()
            });
            row.member_id.clone_from(&member.id);
        }
    }
    v1::Group {
        id: group.group.to_string(),
        state: state_of(status.state).into(),
        protocol_type: status.protocol_type.clone(),
        protocol: status.protocol.clone().unwrap_or_default(),
        generation: status.generation,
        coordinator_id: group.coordinator.map_or(0, NodeId::get),
        leader_id: status.leader.clone().unwrap_or_default(),
        member_count: count(members.len()),
        members,
        partitions: partitions.into_values().collect(),
        ..sums(lag)
    }
}

/// What is committed, by the names of topics; those of topics that are gone are left out.
pub(super) fn offsets(
    state: &State,
    found: Vec<(PartitionId, Option<CommittedOffset>)>,
) -> Vec<v1::FetchedOffset> {
    let told = |(partition, committed): (PartitionId, Option<CommittedOffset>)| {
        let topic = state.topic(partition.topic)?.name().to_string();
        let (offset, epoch, metadata) = match committed {
            Some(found) => (Some(found.offset.get()), epoch_of(&found), found.metadata),
            None => (None, None, None),
        };
        Some(v1::FetchedOffset { topic, partition: partition.index.get(), offset, epoch, metadata })
    };
    found.into_iter().filter_map(told).collect()
}

/// The epoch that a client has named; one beyond Kafka's numbers stands for an offset that has none.
fn epoch_of(committed: &CommittedOffset) -> Option<u32> {
    committed.epoch.map(|epoch| epoch.get()).filter(|epoch| i32::try_from(*epoch).is_ok())
}

fn sums(lag: &[PartitionLag]) -> v1::Group {
    let topics: BTreeSet<_> = lag.iter().map(|lag| lag.partition.topic).collect();
    let behind = lag.iter().map(|lag| lag.behind).max().unwrap_or(Duration::ZERO);
    v1::Group {
        topic_count: count(topics.len()),
        lag_records: lag.iter().map(|lag| lag.records).sum(),
        behind: Some(duration(behind)),
        ..v1::Group::default()
    }
}

fn committed((topic, partition): (String, u32), lag: &PartitionLag) -> v1::GroupPartition {
    v1::GroupPartition {
        topic,
        partition,
        committed_offset: Some(lag.committed.offset.get()),
        metadata: lag.committed.metadata.clone(),
        committed_at: Some(timestamp(lag.committed.committed)),
        log_start: lag.log_start.get(),
        high_watermark: lag.high_watermark.get(),
        lag_records: Some(lag.records),
        behind: Some(duration(lag.behind)),
        member_id: String::new(),
    }
}

/// What members of other kinds of groups say is their own affair.
fn member(member: &MemberDescription, protocol_type: &str) -> v1::GroupMember {
    let (topics, assigned) = if protocol_type == CONSUMER {
        let topics = subscription::subscribed_topics(&member.metadata).unwrap_or_default();
        let assigned = subscription::assigned_partitions(&member.assignment).unwrap_or_default();
        (topics, assigned)
    } else {
        (Vec::new(), Vec::new())
    };
    let assigned = assigned.into_iter().flat_map(|(topic, partitions)| {
        let partitions = partitions.into_iter().filter_map(|partition| u32::try_from(partition).ok());
        partitions.map(move |partition| v1::TopicPartition { topic: topic.clone(), partition })
    });
    v1::GroupMember {
        id: member.id.clone(),
        instance_id: member.instance.clone(),
        client_id: member.client.clone(),
        host: member.host.clone(),
        topics,
        assigned: assigned.collect(),
    }
}

fn partition_of<'a>(state: &'a State, read: &v1::TopicPartition) -> Option<&'a Partition> {
    let name = read.topic.parse::<TopicName>().ok()?;
    state.topic_by_name(&name)?.partition(PartitionIndex::new(read.partition))
}

fn state_of(state: GroupState) -> v1::GroupState {
    match state {
        GroupState::Empty => v1::GroupState::Empty,
        GroupState::Preparing => v1::GroupState::Preparing,
        GroupState::Completing => v1::GroupState::Completing,
        GroupState::Stable => v1::GroupState::Stable,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
