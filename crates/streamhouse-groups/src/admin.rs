//! Groups as people see them, on any node: shown, deleted, set to other offsets.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_broker::Mode;
use streamhouse_broker::ProposeError;
use streamhouse_broker::metadata::{
    Command, GroupEntry, GroupPhase, GroupRecord, GroupRefusal, MemberRecord, Outcome, Refusal, RequestId,
    State,
};
use streamhouse_types::{GroupId, NodeId, Offset, PartitionId};
use tokio::sync::oneshot;

use crate::coordinator::Msg;
use crate::placement::coordinator;
use crate::{GroupAdminError, GroupError, GroupObstacle, Groups};

/// How long a description of the moment is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// It has no members.
    Empty,
    /// Its members are to join. Only the coordinator knows; others see what was before.
    Preparing,
    /// The leader is to assign.
    Completing,
    /// Everybody has an assignment.
    Stable,
}

impl GroupState {
    /// Kafka's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

impl From<GroupPhase> for GroupState {
    fn from(phase: GroupPhase) -> Self {
        match phase {
            GroupPhase::Empty => Self::Empty,
            GroupPhase::Completing => Self::Completing,
            GroupPhase::Stable => Self::Stable,
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub group: GroupId,
    /// What it is for; "" before its first member.
    pub protocol_type: String,
    /// How far it is.
    pub state: GroupState,
    /// How many members its newest generation has.
    pub members: usize,
    /// Who looks after it.
    pub coordinator: Option<NodeId>,
}

/// A group, seen closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group.
    pub group: GroupId,
    /// Who looks after it.
    pub coordinator: Option<NodeId>,
    /// What it is like.
    pub status: GroupStatus,
}

/// What a group is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// How far it is.
    pub state: GroupState,
    /// What it is for; "" before its first member.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// Counts rebalances.
    pub generation: u32,
    /// The member that assigns.
    pub leader: Option<String>,
    /// The members, by id.
    pub members: Vec<MemberDescription>,
}

/// A member, seen closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub id: String,
    /// The name under which it comes back, when it is static.
    pub instance: Option<String>,
    /// How its client calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
    /// What was assigned to it.
    pub assignment: Bytes,
}

impl GroupStatus {
    fn of(record: &GroupRecord) -> Self {
        let protocol = record.protocol.as_deref();
        let member = |member: &MemberRecord| {
            let mut protocols = member.protocols.iter();
            let chosen = protocols.find(|(name, _)| Some(name.as_str()) == protocol);
            MemberDescription {
                id: member.id.clone(),
                instance: member.instance.clone(),
                client: member.client.clone(),
                host: member.host.clone(),
                metadata: chosen.map(|(_, metadata)| metadata.clone().into()).unwrap_or_default(),
                assignment: member.assignment.clone().into(),
            }
        };
        let mut members: Vec<MemberDescription> = record.members.iter().map(member).collect();
        members.sort_by(|one, other| one.id.cmp(&other.id));
        Self {
            state: record.phase.into(),
            protocol_type: record.protocol_type.clone(),
            protocol: record.protocol.clone(),
            generation: record.generation,
            leader: record.leader.clone(),
            members,
        }
    }
}

impl Groups {
    /// Describes a group. At its coordinator the description is that of the moment, elsewhere that of the metadata.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`GroupAdminError::NotFound`] only by metadata known to be current.
    pub async fn describe(&self, group: &GroupId) -> Result<GroupDescription, GroupAdminError> {
        let coordinator = self.coordinator(group);
        let here = if coordinator == Some(self.node()) { self.describe_here(group).await } else { None };
        let status = match here {
            Some(status) => status,
            None => self.find_group(group, |_, entry| GroupStatus::of(entry.record())).await?,
        };
        Ok(GroupDescription { group: group.clone(), coordinator, status })
    }

    /// The description of the moment; `None` when the group is not in memory here, or its coordinator waits for the
    /// metadata log.
    async fn describe_here(&self, group: &GroupId) -> Option<GroupStatus> {
        let (_, inbox) = self.room().at_work(group)?;
        let asked = async {
            let (reply, answer) = oneshot::channel();
            inbox.send(Msg::Describe(reply)).await.ok()?;
            answer.await.ok()?.ok()
        };
        tokio::select! {
            answer = asked => answer,
            () = self.room().env.clock.sleep(PATIENCE) => None,
        }
    }

    /// All groups of the cluster, by id. Cancel-safe.
    ///
    /// # Errors
    /// When this node cannot tell whether it knows all.
    pub async fn list(&self) -> Result<Vec<GroupSummary>, GroupAdminError> {
        self.room().broker.confirm_current().await?;
        let state = self.room().broker.state();
        let here = |group: &GroupId| self.room().at_work(group).map(|(seat, _)| seat.state());
        let summary = |(group, entry): (&GroupId, &GroupEntry)| {
            let record = entry.record();
            let coordinator = coordinator(&state, group);
            let own = (coordinator == Some(self.node())).then(|| here(group)).flatten();
            GroupSummary {
                group: group.clone(),
                protocol_type: record.protocol_type.clone(),
                state: own.unwrap_or(record.phase.into()),
                members: record.members.len(),
                coordinator,
            }
        };
        Ok(state.groups().map(summary).collect())
    }

    /// Deletes a group without members, and how far it has read. The same request id gets its first answer.
    ///
    /// # Errors
    /// See [`GroupAdminError`].
    pub async fn delete(&self, group: &GroupId, request: Option<RequestId>) -> Result<(), GroupAdminError> {
        let request = self.request(request);
        let command = Command::DeleteGroup { request, group: group.clone() };
        match self.change(command).await? {
            Outcome::Done => Ok(()),
            outcome => Err(refused(group, outcome)),
        }
    }

    /// Sets from where a group without members goes on: an offset for a partition, or none. The group is made when it is
    /// not there. The same request id gets its first answer.
    ///
    /// # Errors
    /// See [`GroupAdminError`].
    pub async fn seek(
        &self,
        group: &GroupId,
        offsets: Vec<(PartitionId, Option<Offset>)>,
        request: Option<RequestId>,
        mode: Mode,
    ) -> Result<(), GroupAdminError> {
        let request = self.request(request);
        let validate_only = mode == Mode::ValidateOnly;
        let command = Command::SeekGroup { request, group: group.clone(), offsets, validate_only };
        match self.change(command).await? {
            Outcome::Done => Ok(()),
            outcome => Err(refused(group, outcome)),
        }
    }

    /// Looks at a group, and once more when it is not here but the metadata may be old.
    pub(crate) async fn find_group<T>(
        &self,
        group: &GroupId,
        look: impl Fn(&State, &GroupEntry) -> T,
    ) -> Result<T, GroupAdminError> {
        let find = |state: &State| state.group(group).map(|entry| look(state, entry));
        if let Some(found) = self.room().broker.look(find) {
            return Ok(found);
        }
        self.room().broker.confirm_current().await?;
        self.room().broker.look(find).ok_or_else(|| GroupAdminError::NotFound { group: group.clone() })
    }

    /// Proposes, unless some node may not know groups yet: it would stop at the command.
    async fn change(&self, command: Command) -> Result<Outcome, GroupAdminError> {
        if !self.room().knows_groups() {
            return Err(GroupError::Unavailable { obstacle: GroupObstacle::Feature }.into());
        }
        Ok(self.room().broker.propose(command).await?)
    }

    fn request(&self, given: Option<RequestId>) -> RequestId {
        given.unwrap_or_else(|| self.room().broker.fresh_request_id())
    }
}

fn refused(group: &GroupId, outcome: Outcome) -> GroupAdminError {
    let group = group.clone();
    match outcome {
        Outcome::GroupRefused(GroupRefusal::UnknownGroup) => GroupAdminError::NotFound { group },
        Outcome::GroupRefused(GroupRefusal::HasMembers) => GroupAdminError::NotEmpty { group },
        Outcome::Refused(Refusal::UnknownPartition | Refusal::UnknownTopic) => {
            GroupAdminError::UnknownPartition
        }
        Outcome::Refused(refusal) => GroupAdminError::Refused(refusal),
        _ => {
            let reason = "the metadata log gave the answer to something else".to_owned();
            GroupAdminError::Unknown(ProposeError::Unknown { reason })
        }
    }
}
