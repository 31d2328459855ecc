//! Consumer groups: who is a member, and which node looks after whom.

use std::time::Duration;

use bytes::Bytes;
use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use streamhouse_groups::{
    GroupError, Groups, HeartbeatRequest, JoinRequest, Joined, LeaveRequest, Leaver, MemberRef, Newcomers,
    SyncRequest, Synced,
};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{GroupId, NodeId};

use super::{Caller, ENDPOINT, answer, text};
use crate::codec::{DecodeError, NodeEndpoint};
use crate::connection::Answer;
use crate::{Code, Kafka};

/// Kinds of coordinators.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

impl Kafka {
    /// The groups of the cluster, as far as this node has to do with them.
    pub(super) fn groups(&self) -> Result<&Groups, Code> {
        if self.is_adrift() {
            return Err(ErrorCode::NotCoordinator.into());
        }
        self.0.options.groups.as_ref().ok_or(Code::from(ErrorCode::CoordinatorUnavailable))
    }

    /// Waits for other members as long as this node does not lose the other nodes: one of them looks after the group then.
    async fn gathered<T, E: From<Code> + From<GroupError>>(
        &self,
        waiting: impl Future<Output = Result<T, GroupError>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            gathered = waiting => Ok(gathered?),
            () = self.adrift() => Err(Code::from(ErrorCode::NotCoordinator).into()),
        }
    }

    pub(super) fn find_coordinator(
        &self,
        version: i16,
        query: &g::FindCoordinatorRequestData,
    ) -> Result<Answer, DecodeError> {
        let find = |key: &KafkaString| {
            let mut found = g::Coordinator { key: key.clone(), node_id: -1, port: -1, ..Default::default() };
            let node = match query.key_type {
                GROUP => self.coordinator(key.as_str()),
                TRANSACTION => Err(Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
                _ => Err(Code::INVALID_REQUEST),
            };
            match &node {
                Ok(node) => (found.node_id, found.host, found.port) = (node.id, text(&node.host), node.port),
                Err(code) => {
                    found.error_code = code.get();
                    let why = match *code {
                        Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "transactions are not supported yet",
                        Code::INVALID_REQUEST => "there are no coordinators of this kind",
                        code if code == ErrorCode::InvalidGroupId.into() => ErrorCode::InvalidGroupId.hint(),
                        _ => "no node takes requests",
                    };
                    found.error_message = Some(text(why));
                }
            }
            (found, node.err())
        };
        let (mut message, mut codes) = (g::FindCoordinatorResponseData::default(), Vec::new());
        if version >= 4 {
            for (found, code) in query.coordinator_keys.iter().map(find) {
                message.coordinators.push(found);
                codes.extend(code);
            }
        } else {
            let (found, code) = find(&query.key);
            message.error_code = found.error_code;
            message.error_message = found.error_message;
            (message.node_id, message.host, message.port) = (found.node_id, found.host, found.port);
            codes.extend(code);
        }
        answer(&message, version, codes)
    }

    /// The node that looks after a group, as far as is known here.
    pub(super) fn keeper(&self, group: &GroupId) -> Option<NodeId> {
        match &self.0.options.groups {
            Some(groups) => groups.coordinator(group),
            None => self.broker().look(|state| streamhouse_groups::coordinator(state, group)),
        }
    }

    fn coordinator(&self, group: &str) -> Result<NodeEndpoint, Code> {
        let group = parse_group(group)?;
        let coordinator = self.keeper(&group);
        let of_node = |node: NodeId| i32::try_from(node.get()).ok();
        let id = coordinator
            .and_then(|node| if self.is_single_endpoint() { Some(ENDPOINT) } else { of_node(node) });
        let nodes = self.broker().look(|state| self.nodes(state));
        let found = nodes.into_iter().find(|node| Some(node.id) == id);
        found.ok_or(Code::from(ErrorCode::CoordinatorUnavailable))
    }

    pub(super) async fn join_group(
        &self,
        version: i16,
        query: g::JoinGroupRequestData,
        caller: Caller,
    ) -> Result<Answer, DecodeError> {
        let member_id = query.member_id.clone();
        let (code, message) = match self.join(version, query, caller).await {
            Ok(joined) => (Code::NONE, joined_answer(joined)),
            Err(refused) => {
                let Refused { code, member } = refused;
                let refused = g::JoinGroupResponseData {
                    error_code: code.get(),
                    generation_id: -1,
                    // Old versions have no null.
                    protocol_name: (version < 7).then(KafkaString::default),
                    member_id: member.as_deref().map_or(member_id, text),
                    ..Default::default()
                };
                (code, refused)
            }
        };
        answer(&message, version, [code])
    }

    /// Joins; waits as long as the group takes to gather.
    async fn join(
        &self,
        version: i16,
        query: g::JoinGroupRequestData,
        caller: Caller,
    ) -> Result<Joined, Refused> {
        let session_timeout = millis(query.session_timeout_ms);
        let rebalance_timeout = match query.rebalance_timeout_ms {
            given if version >= 1 && given >= 0 => millis(given),
            _ => session_timeout,
        };
        let instance = owned(query.group_instance_id);
        let must_return = version >= 4 && instance.is_none();
        let protocols = query.protocols.into_iter();
        let request = JoinRequest {
            group: parse_group(query.group_id.as_str())?,
            member: query.member_id.to_string(),
            instance,
            client: caller.client,
            host: caller.host.to_string(),
            session_timeout,
            rebalance_timeout,
            protocol_type: query.protocol_type.to_string(),
            protocols: protocols
                .map(|protocol| (protocol.name.to_string(), compact(&protocol.metadata)))
                .collect(),
            newcomers: if must_return { Newcomers::MustReturn } else { Newcomers::AtOnce },
        };
        let joined = self.gathered::<Joined, Refused>(self.groups()?.join(request)).await?;
        Ok(if version >= 9 { joined } else { joined.without_skip() })
    }

    pub(super) async fn sync_group(
        &self,
        version: i16,
        query: g::SyncGroupRequestData,
    ) -> Result<Answer, DecodeError> {
        let (code, message) = match self.sync(query).await {
            Ok(Synced { protocol_type, protocol, assignment }) => {
                let (protocol_type, protocol_name) = (Some(text(&protocol_type)), Some(text(&protocol)));
                let message = g::SyncGroupResponseData {
                    protocol_type,
                    protocol_name,
                    assignment,
                    ..Default::default()
                };
                (Code::NONE, message)
            }
            Err(code) => {
                let message = g::SyncGroupResponseData { error_code: code.get(), ..Default::default() };
                (code, message)
            }
        };
        answer(&message, version, [code])
    }

    async fn sync(&self, query: g::SyncGroupRequestData) -> Result<Synced, Code> {
        let assignments = query.assignments.into_iter();
        let request = SyncRequest {
            group: parse_group(query.group_id.as_str())?,
            member: member(&query.member_id, query.group_instance_id, query.generation_id),
            protocol_type: owned(query.protocol_type),
            protocol: owned(query.protocol_name),
            assignments: assignments
                .map(|given| (given.member_id.to_string(), compact(&given.assignment)))
                .collect(),
        };
        self.gathered(self.groups()?.sync(request)).await
    }

    pub(super) async fn heartbeat(
        &self,
        version: i16,
        query: g::HeartbeatRequestData,
    ) -> Result<Answer, DecodeError> {
        let beat = async {
            let member = member(&query.member_id, query.group_instance_id, query.generation_id);
            let group = parse_group(query.group_id.as_str())?;
            Ok(self.groups()?.heartbeat(HeartbeatRequest { group, member }).await?)
        };
        let code = code_of(beat.await);
        let message = g::HeartbeatResponseData { error_code: code.get(), ..Default::default() };
        answer(&message, version, [code])
    }

    pub(super) async fn leave_group(
        &self,
        version: i16,
        query: g::LeaveGroupRequestData,
    ) -> Result<Answer, DecodeError> {
        let single = g::MemberIdentity { member_id: query.member_id, ..Default::default() };
        let leavers = if version >= 3 { query.members } else { vec![single] };
        let leave = async {
            let group = parse_group(query.group_id.as_str())?;
            let leaver = |leaver: &g::MemberIdentity| Leaver {
                id: leaver.member_id.to_string(),
                instance: owned(leaver.group_instance_id.clone()),
            };
            let members = leavers.iter().map(leaver).collect();
            Ok(self.groups()?.leave(LeaveRequest { group, members }).await?)
        };
        let left = leave.await;
        left_answer(version, leavers, left)
    }
}

/// The answer to members who go: what became of each, or of all.
pub(super) fn left_answer(
    version: i16,
    leavers: Vec<g::MemberIdentity>,
    left: Result<Vec<Result<(), GroupError>>, Code>,
) -> Result<Answer, DecodeError> {
    let mut message = g::LeaveGroupResponseData::default();
    let mut codes: Vec<Code> = Vec::new();
    match left {
        Ok(left) => codes.extend(left.into_iter().map(|left| code_of(left.map_err(Code::from)))),
        Err(code) => {
            message.error_code = code.get();
            codes.push(code);
        }
    }
    if version < 3 {
        message.error_code = codes.first().map_or(0, |code| code.get());
    } else if message.error_code == 0 {
        let left = leavers.into_iter().zip(&codes).map(|(leaver, code)| g::MemberResponse {
            member_id: leaver.member_id,
            group_instance_id: leaver.group_instance_id,
            error_code: code.get(),
            ..Default::default()
        });
        message.members = left.collect();
    }
    answer(&message, version, codes)
}

/// Why a member is not let in; the id that it may come back with.
struct Refused {
    code: Code,
    member: Option<String>,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self { code, member: None }
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        let code = Code::from(error.code());
        match error {
            GroupError::MemberIdRequired { member } => Self { code, member: Some(member) },
            _ => Self { code, member: None },
        }
    }
}

impl From<GroupError> for Code {
    fn from(error: GroupError) -> Self {
        error.code().into()
    }
}

fn joined_answer(joined: Joined) -> g::JoinGroupResponseData {
    let members = joined.members.into_iter().map(|member| g::JoinGroupResponseMember {
        member_id: text(&member.id),
        group_instance_id: member.instance.as_deref().map(text),
        metadata: member.metadata,
        ..Default::default()
    });
    g::JoinGroupResponseData {
        generation_id: i32::try_from(joined.generation).unwrap_or(i32::MAX),
        protocol_type: Some(text(&joined.protocol_type)),
        protocol_name: Some(text(&joined.protocol)),
        leader: text(&joined.leader),
        skip_assignment: joined.skip_assignment,
        member_id: text(&joined.member),
        members: members.collect(),
        ..Default::default()
    }
}

pub(super) fn parse_group(name: &str) -> Result<GroupId, Code> {
    name.parse().map_err(|_| Code::from(ErrorCode::InvalidGroupId))
}

/// Who speaks, as the wire has it: a negative generation is none.
pub(super) fn member(id: &KafkaString, instance: Option<KafkaString>, generation: i32) -> MemberRef {
    MemberRef { id: id.to_string(), instance: owned(instance), generation: u32::try_from(generation).ok() }
}

pub(super) fn owned(text: Option<KafkaString>) -> Option<String> {
    text.map(|text| text.to_string())
}

pub(super) fn code_of(done: Result<(), Code>) -> Code {
    done.err().unwrap_or(Code::NONE)
}

/// A copy: what stays does not keep the whole request.
fn compact(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
