//! What a member of a consumer group and its coordinator say to each other.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kacrab_protocol::generated as g;

use crate::cluster::{ANSWER, Cluster, Line, text};
use crate::code;
use crate::wire::Call;

const JOIN: i16 = 7;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 7;
const LEAVE: i16 = 4;
/// The version of what members say of themselves and are assigned.
const CONSUMER_PROTOCOL: i16 = 0;
/// Longest a rebalance waits for members.
const REBALANCE: Duration = Duration::from_secs(8);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The answer says so.
    #[error("error {0}")]
    Code(i16),
    /// There was no answer.
    #[error("no answer")]
    Lost(#[from] io::Error),
}

/// An answer's error code as a result.
pub(crate) fn done(code: i16) -> Result<(), Refused> {
    if code == code::NONE { Ok(()) } else { Err(Refused::Code(code)) }
}

/// Membership of a group.
pub(crate) struct Membership {
    pub(crate) cluster: Cluster,
    pub(crate) group: String,
    pub(crate) session_timeout: Duration,
    /// Empty before the coordinator has given one.
    pub(crate) id: String,
    pub(crate) generation: i32,
    /// The coordinator, and the connection to it.
    pub(crate) coordinator: Option<i32>,
    pub(crate) line: Option<Line>,
}

/// What a join tells.
pub(crate) struct Joined {
    /// All members, when this one leads the group.
    pub(crate) members: Option<Vec<String>>,
}

impl Membership {
    /// Finds the coordinator; says whether it is another one than before.
    pub(crate) async fn find(&mut self) -> Result<bool, Refused> {
        let (node, address) = self.cluster.coordinator(&self.group).await?;
        self.line = Some(self.cluster.connect(&address).await?);
        Ok(self.coordinator.replace(node).is_some_and(|before| before != node))
    }

    async fn ask<C: Call>(
        &mut self,
        patience: Duration,
        request: &C,
        version: i16,
    ) -> Result<C::Answer, Refused> {
        let line = self.line.as_mut().ok_or(io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(self.cluster.place.within(patience, line.call(request, version)).await?)
    }

    /// Joins; a member that is new is told its id first.
    pub(crate) async fn join(&mut self) -> Result<Joined, Refused> {
        let mut subscription = BytesMut::new();
        subscription.put_i16(CONSUMER_PROTOCOL);
        let topics = vec![text(&self.cluster.place.topic)];
        let said = g::ConsumerProtocolSubscriptionData { topics, ..Default::default() };
        said.write(&mut subscription, CONSUMER_PROTOCOL).expect("the first version has these fields");
        let metadata = subscription.freeze();
        let protocol = g::JoinGroupRequestProtocol { name: text("range"), metadata, ..Default::default() };
        let mut request = g::JoinGroupRequestData {
            group_id: text(&self.group),
            session_timeout_ms: millis(self.session_timeout),
            rebalance_timeout_ms: millis(REBALANCE),
            member_id: text(&self.id),
            protocol_type: text("consumer"),
            protocols: vec![protocol],
            ..Default::default()
        };
        let mut answer = self.ask(REBALANCE + ANSWER, &request, JOIN).await?;
        if answer.error_code == code::MEMBER_ID_REQUIRED {
            self.id = answer.member_id.to_string();
            request.member_id = answer.member_id;
            answer = self.ask(REBALANCE + ANSWER, &request, JOIN).await?;
        }
        done(answer.error_code)?;
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        let leads = answer.leader == answer.member_id;
        let members = answer.members.into_iter().map(|member| member.member_id.to_string());
        Ok(Joined { members: leads.then(|| members.collect()) })
    }

    /// Tells what everybody is to read, when this member leads; returns what it is to read itself.
    pub(crate) async fn sync(&mut self, shares: BTreeMap<String, Vec<i32>>) -> Result<Vec<i32>, Refused> {
        let assignments = shares.into_iter().map(|(member, partitions)| g::SyncGroupRequestAssignment {
            member_id: text(&member),
            assignment: assignment(&self.cluster.place.topic, partitions),
            ..Default::default()
        });
        let request = g::SyncGroupRequestData {
            group_id: text(&self.group),
            generation_id: self.generation,
            member_id: text(&self.id),
            protocol_type: Some(text("consumer")),
            protocol_name: Some(text("range")),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let answer = self.ask(REBALANCE + ANSWER, &request, SYNC).await?;
        done(answer.error_code)?;
        assigned(answer.assignment).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error).into())
    }

    /// Says that it is there.
    pub(crate) async fn heartbeat(&mut self) -> Result<(), Refused> {
        let request = g::HeartbeatRequestData {
            group_id: text(&self.group),
            generation_id: self.generation,
            member_id: text(&self.id),
            ..Default::default()
        };
        done(self.ask(ANSWER, &request, HEARTBEAT).await?.error_code)
    }

    /// Commits offsets as a member of this generation; the error code of each partition.
    pub(crate) async fn commit(
        &mut self,
        generation: i32,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<BTreeMap<i32, i16>, Refused> {
        let partitions = offsets.iter().map(|(partition, offset)| g::OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(text("")),
            ..Default::default()
        });
        let topic = g::OffsetCommitRequestTopic {
            name: text(&self.cluster.place.topic),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let request = g::OffsetCommitRequestData {
            group_id: text(&self.group),
            generation_id_or_member_epoch: generation,
            member_id: text(&self.id),
            topics: vec![topic],
            ..Default::default()
        };
        let answer = self.ask(ANSWER, &request, COMMIT).await?;
        let told = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        Ok(told.map(|partition| (partition.partition_index, partition.error_code)).collect())
    }

    /// Asks what is committed; nothing for partitions of which nothing is.
    pub(crate) async fn committed(
        &mut self,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<i64>>, Refused> {
        let topic = g::OffsetFetchRequestTopic {
            name: text(&self.cluster.place.topic),
            partition_indexes: partitions.to_vec(),
            ..Default::default()
        };
        let request = g::OffsetFetchRequestData {
            group_id: text(&self.group),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let answer = self.ask(ANSWER, &request, OFFSET_FETCH).await?;
        done(answer.error_code)?;
        let mut found = BTreeMap::new();
        for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            done(partition.error_code)?;
            let offset = Some(partition.committed_offset).filter(|offset| *offset >= 0);
            found.insert(partition.partition_index, offset);
        }
        Ok(found)
    }

    /// Leaves the group. Whatever comes of it, this member is none any more.
    pub(crate) async fn leave(&mut self) {
        let member = g::MemberIdentity { member_id: text(&self.id), ..Default::default() };
        let request = g::LeaveGroupRequestData {
            group_id: text(&self.group),
            members: vec![member],
            ..Default::default()
        };
        if let Err(error) = self.ask(ANSWER, &request, LEAVE).await {
            tracing::debug!(group = self.group, %error, "kafka member may not have left");
            self.line = None;
        }
        (self.id, self.generation) = (String::new(), -1);
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).expect("short")
}

fn assignment(topic: &str, partitions: Vec<i32>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(CONSUMER_PROTOCOL);
    let topic = g::consumer_protocol_assignment::TopicPartition {
        topic: text(topic),
        partitions,
        ..Default::default()
    };
    let assignment =
        g::ConsumerProtocolAssignmentData { assigned_partitions: vec![topic], ..Default::default() };
    assignment.write(&mut bytes, CONSUMER_PROTOCOL).expect("the first version has these fields");
    bytes.freeze()
}

/// The partitions of an assignment; none when it is empty, as it is for a member that the leader did not know.
fn assigned(mut bytes: Bytes) -> Result<Vec<i32>, kacrab_protocol::error::ProtocolError> {
    if bytes.len() < size_of::<i16>() {
        return Ok(Vec::new());
    }
    let version = bytes.get_i16();
    let read = g::ConsumerProtocolAssignmentData::read(&mut bytes, version)?;
    Ok(read.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect())
}
