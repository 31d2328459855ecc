//! What a member of a consumer group says to its coordinator, one call at a time.
//!
//! This is the protocol and no more: `streamhouse-consumer` speaks it for whoever wants to read as a member.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_api::{TopicPartition, node_id};
use streamhouse_proto::v1;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{NodeId, Offset};
use tonic::{Response, Status};

use crate::call::Repeat;
use crate::connect::StreamHouse;
use crate::error::CallError;
use crate::nodes::GIVEN;
use crate::rejection::Rejection;
use crate::ways::Way;

/// A consumer group of a cluster. Cloning is cheap; clones share what they know of its coordinator.
///
/// Calls find the coordinator, and find it anew when it moves. Refusals that tell a member what to do next, such as to
/// join again, come back at once as [`CallError::Rejected`]; [`ErrorCode`] says which.
#[derive(Debug, Clone)]
pub struct Group {
    house: StreamHouse,
    id: Arc<str>,
    coordinator: Arc<Mutex<Option<NodeId>>>,
}

/// A wish to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroup {
    /// The id that it was given; empty for a new member.
    pub member: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// How the client calls itself.
    pub client: String,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// How long it may take to join again.
    pub rebalance_timeout: Duration,
    /// What the group is for, `consumer` mostly.
    pub protocol_type: String,
    /// The protocols it knows, most wanted first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
}

/// A generation has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinedGroup {
    /// The member's id.
    pub member: String,
    /// The generation, from 1.
    pub generation: u32,
    /// The protocol that all members know.
    pub protocol: String,
    /// Whether this member has to assign.
    pub assigns: bool,
    /// Everybody's id and metadata, for the one who assigns.
    pub members: Vec<(String, Bytes)>,
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The member's id.
    pub member: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// The generation that it is of.
    pub generation: u32,
}

impl Membership {
    fn message(&self) -> v1::GroupMemberRef {
        v1::GroupMemberRef {
            id: self.member.clone(),
            instance_id: self.instance.clone(),
            generation: self.generation,
        }
    }
}

impl Group {
    pub(crate) fn new(house: StreamHouse, id: &str) -> Self {
        Self { house, id: id.into(), coordinator: Arc::default() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cluster that it belongs to.
    #[must_use]
    pub fn house(&self) -> &StreamHouse {
        &self.house
    }

    /// Joins, and waits until all members have. When the call is cancelled the member may be there all the same, until it
    /// leaves or has been silent for too long.
    ///
    /// # Errors
    /// `MEMBER_ID_REQUIRED`: a new member joins again with the id in the rejection's detail `member_id`.
    /// `UNKNOWN_MEMBER`: join as a new one. `INSTANCE_FENCED`, `INCONSISTENT_GROUP_PROTOCOL`, `GROUP_FULL`: hopeless.
    pub async fn join(&self, join: JoinGroup) -> Result<JoinedGroup, CallError> {
        let wait = join.rebalance_timeout.max(join.session_timeout);
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        let protocol = |(name, metadata)| v1::GroupProtocol { name, metadata };
        let request = v1::JoinGroupRequest {
            group_id: self.id.to_string(),
            member_id: join.member,
            instance_id: join.instance,
            client_id: join.client,
            session_timeout_ms: millis(join.session_timeout),
            rebalance_timeout_ms: millis(join.rebalance_timeout),
            protocol_type: join.protocol_type,
            protocols: join.protocols.into_iter().map(protocol).collect(),
        };
        let call = |way: Way, request| async move { way.groups().join_group(request).await };
        let joined = self.call(wait, request, call).await?;
        let member = |member: v1::JoinedMember| (member.id, member.metadata);
        Ok(JoinedGroup {
            assigns: joined.leader_id == joined.member_id && !joined.skip_assignment,
            member: joined.member_id,
            generation: joined.generation,
            protocol: joined.protocol,
            members: joined.members.into_iter().map(member).collect(),
        })
    }

    /// Gets this member's assignment; the leader brings everybody's. Waits for the leader, at most `patience` longer than
    /// any call. Cancel-safe.
    ///
    /// # Errors
    /// `REBALANCE_IN_PROGRESS`, `ILLEGAL_GENERATION`: join again. `UNKNOWN_MEMBER`: join as a new one.
    pub async fn sync(
        &self,
        who: &Membership,
        assignments: Vec<(String, Bytes)>,
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        let assignment = |(member_id, assignment)| v1::GroupAssignment { member_id, assignment };
        let request = v1::SyncGroupRequest {
            group_id: self.id.to_string(),
            member: Some(who.message()),
            protocol_type: None,
            protocol: None,
            assignments: assignments.into_iter().map(assignment).collect(),
        };
        let call = |way: Way, request| async move { way.groups().sync_group(request).await };
        Ok(self.call(patience, request, call).await?.assignment)
    }

    /// Says that a member is there. Cancel-safe.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub async fn heartbeat(&self, who: &Membership) -> Result<(), CallError> {
        let request = v1::HeartbeatRequest { group_id: self.id.to_string(), member: Some(who.message()) };
        let call = |way: Way, request| async move { way.groups().heartbeat(request).await };
        self.call(Duration::ZERO, request, call).await.map(|_| ())
    }

    /// Takes a member out. One that is not there is no error.
    ///
    /// # Errors
    /// When no coordinator answers: the others then wait until the member has been silent for too long.
    pub async fn leave(&self, who: &Membership) -> Result<(), CallError> {
        let leaving = v1::LeavingMember { id: who.member.clone(), instance_id: who.instance.clone() };
        let request = v1::LeaveGroupRequest { group_id: self.id.to_string(), members: vec![leaving] };
        let call = |way: Way, request| async move { way.groups().leave_group(request).await };
        self.call(Duration::ZERO, request, call).await.map(|_| ())
    }

    /// Notes how far a member has read; without one, how far somebody outside the group has, which is refused while it has
    /// members. Cancelling leaves open whether it was noted.
    ///
    /// # Errors
    /// The first offset that was refused; the others may be noted. `REBALANCE_IN_PROGRESS`, `ILLEGAL_GENERATION`,
    /// `UNKNOWN_MEMBER`: somebody else may read the partitions by now.
    pub async fn commit(
        &self,
        who: Option<&Membership>,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), CallError> {
        let offset = |(place, offset): &(TopicPartition, Offset)| v1::OffsetToCommit {
            topic: place.topic.clone(),
            partition: place.partition.get(),
            offset: offset.get(),
            epoch: None,
            metadata: None,
        };
        let request = v1::CommitOffsetsRequest {
            group_id: self.id.to_string(),
            member: who.map(Membership::message),
            offsets: offsets.iter().map(offset).collect(),
        };
        let call = |way: Way, request| async move { way.groups().commit_offsets(request).await };
        let answer = self.call(Duration::ZERO, request, call).await?;
        if answer.results.len() != offsets.len() {
            return Err(CallError::BadAnswer { what: "not one result for each offset" });
        }
        match answer.results.iter().find(|result| result.code != 0) {
            Some(refused) => Err(CallError::Rejected(Rejection::from_rpc(refused))),
            None => Ok(()),
        }
    }

    /// How far the group has read these partitions, in their order: never older than a commit that was answered.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When a topic does not exist.
    pub async fn offsets(&self, places: &[TopicPartition]) -> Result<Vec<Option<Offset>>, CallError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let place = |place: &TopicPartition| v1::TopicPartition {
            topic: place.topic.clone(),
            partition: place.partition.get(),
        };
        let request = v1::FetchOffsetsRequest {
            group_id: self.id.to_string(),
            partitions: places.iter().map(place).collect(),
        };
        let call = |way: Way, request| async move { way.groups().fetch_offsets(request).await };
        let found = self.call(Duration::ZERO, request, call).await?.offsets;
        let matches = found.len() == places.len()
            && found
                .iter()
                .zip(places)
                .all(|(found, place)| found.topic == place.topic && found.partition == place.partition.get());
        if !matches {
            return Err(CallError::BadAnswer { what: "offsets of other partitions" });
        }
        Ok(found.into_iter().map(|found| found.offset.map(Offset::new)).collect())
    }

    /// Makes a call at the coordinator, with `more` time than others have.
    async fn call<R, T, F, Fut>(&self, more: Duration, request: R, call: F) -> Result<T, CallError>
    where
        R: Clone,
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = |way: Way| {
            let (request, call) = (request.clone(), &call);
            async move {
                match self.answer(way, request.clone(), call).await {
                    Err(rejection) if moved(&rejection) => match self.redirected(&rejection).await {
                        Some(way) => self.answer(way, request, call).await,
                        None => Err(rejection),
                    },
                    answer => answer,
                }
            }
        };
        let caller = self.house.caller().with_more_time(more);
        // Calls name their member and generation, and a commit its offsets: twice is once.
        let answer = caller.attempt(Repeat::Harmless, || self.way(), attempt).await?;
        answer.map_err(CallError::Rejected)
    }

    /// One answer. What tells the member what to do is an answer too, and not worth another try.
    async fn answer<R, T, F, Fut>(
        &self,
        way: Way,
        request: R,
        call: &F,
    ) -> Result<Result<T, Rejection>, Rejection>
    where
        F: Fn(Way, R) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let rejection = match call(way, request).await {
            Ok(answer) => return Ok(Ok(answer.into_inner())),
            Err(status) => Rejection::from_status(&status),
        };
        if tells_what_to_do(&rejection) {
            return Ok(Err(rejection));
        }
        // Whoever was asked does not look after the group, or cannot say: the next try begins anywhere.
        *self.coordinator.lock() = None;
        Err(rejection)
    }

    /// Where to call: the coordinator, or any node until it is known.
    fn way(&self) -> Way {
        let known = *self.coordinator.lock();
        let way = known.and_then(|node| self.house.way_to(node).ok());
        way.unwrap_or_else(|| self.house.way())
    }

    /// The way to the coordinator that a node named.
    async fn redirected(&self, rejection: &Rejection) -> Option<Way> {
        let told = rejection.details().get("coordinator_id")?;
        let node = node_id(told.parse().ok()?)?;
        let mut way = self.house.way_to(node);
        if way.is_err() {
            self.house.routing("", GIVEN).await;
            way = self.house.way_to(node);
        }
        let way = way.ok()?;
        *self.coordinator.lock() = Some(node);
        Some(way)
    }
}

fn moved(rejection: &Rejection) -> bool {
    rejection.code() == Some(ErrorCode::NotCoordinator)
}

/// Whether the coordinator has answered, and the same call will be answered the same.
fn tells_what_to_do(rejection: &Rejection) -> bool {
    let answers = [
        ErrorCode::MemberIdRequired,
        ErrorCode::RebalanceInProgress,
        ErrorCode::UnknownMember,
        ErrorCode::IllegalGeneration,
        ErrorCode::InstanceFenced,
    ];
    rejection.code().is_some_and(|code| answers.contains(&code))
}
