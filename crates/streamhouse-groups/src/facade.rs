//! The facade: everything that a listener can ask about groups.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::Broker;
use streamhouse_broker::metadata::{CommittedOffset, OFFSET_METADATA_BYTES_MAX, OffsetCommit, State};
use streamhouse_env::Env;
use streamhouse_types::{GroupId, NodeId, PartitionId, TopicName};
use tokio::sync::{mpsc, oneshot};

use crate::changes::Changes;
use crate::coordinator::{Commit, Msg, PerOffset, Reply};
use crate::placement::coordinator;
use crate::registry::{AtWork, Room, Seat};
use crate::{
    CommitRequest, GroupAdminError, GroupError, GroupObstacle, GroupSettings, HeartbeatRequest, JoinRequest,
    Joined, LeaveRequest, OffsetRefusal, SyncRequest, Synced, keeper,
};

/// How often a request is made to one coordinator after another of this node.
const TRIES: usize = 4;
/// How long a request waits that is not to wait for other members.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the groups of a node are made of.
pub struct GroupsOptions {
    /// The node's broker, which takes writes.
    pub broker: Broker,
    /// Clock and randomness.
    pub env: Env,
    /// This node.
    pub node: NodeId,
    /// What a person has set.
    pub settings: GroupSettings,
}

/// The groups that a node coordinates, and those of the whole cluster as it knows them. Clones are the same.
#[derive(Clone)]
pub struct Groups(Arc<House>);

/// Ends what is at work when the last clone is gone.
struct House(Arc<Room>);

impl Drop for House {
    fn drop(&mut self) {
        self.0.drain();
        self.0.changes.close();
    }
}

/// Whether a request may make a group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Make,
    /// Nobody can be a member of it.
    Refuse,
}

/// Tells a coordinator when its answer is not waited for any more.
struct Patience(Option<Arc<Seat>>);

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(seat) = self.0.take() {
            seat.hang_up();
        }
    }
}

impl Groups {
    /// Groups over `options`. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(options: GroupsOptions) -> Self {
        let GroupsOptions { broker, env, node, settings } = options;
        let room = Arc::new(Room::new(broker, env, node, settings));
        keeper::start(&room);
        Self(Arc::new(House(room)))
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.0.0
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.room().node
    }

    /// What was set about groups.
    #[must_use]
    pub fn settings(&self) -> &GroupSettings {
        &self.room().settings
    }

    /// The node that looks after a group, by the metadata of this node; `None` while none does.
    #[must_use]
    pub fn coordinator(&self, group: &GroupId) -> Option<NodeId> {
        let found = self.room().broker.look(|state| coordinator(state, group));
        found.filter(|node| *node != self.node() || !self.room().is_draining())
    }

    /// Joins a group, or its next generation. Waits for the other members. Dropping the call tells the group that the
    /// member went away.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, GroupError> {
        let absent = if request.member.is_empty() { Absent::Make } else { Absent::Refuse };
        let group = request.group.clone();
        self.ask(&group, absent, |reply| Msg::Join(request.clone(), reply)).await
    }

    /// Brings the assignments, or waits for them. Dropping the call is as in [`Self::join`].
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn sync(&self, request: SyncRequest) -> Result<Synced, GroupError> {
        let group = request.group.clone();
        self.ask(&group, Absent::Refuse, |reply| Msg::Sync(request.clone(), reply)).await
    }

    /// A member is there. Cancel-safe.
    ///
    /// # Errors
    /// See [`GroupError`]; [`GroupError::RebalanceInProgress`] tells it to join again.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<(), GroupError> {
        let HeartbeatRequest { group, member } = request;
        let beat = self.ask_soon(&group, Absent::Refuse, |reply| Msg::Heartbeat(member.clone(), reply)).await;
        // It changes nothing that could have happened.
        beat.map_err(|error| match error {
            GroupError::Unknown => GroupError::Unavailable { obstacle: GroupObstacle::Metadata },
            error => error,
        })
    }

    /// Members go; one answer for each, in order.
    ///
    /// # Errors
    /// When nobody could go; after [`GroupError::Unknown`] they may have gone. See [`GroupError`].
    pub async fn leave(&self, request: LeaveRequest) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let group = request.group.clone();
        match self.ask_soon(&group, Absent::Refuse, |reply| Msg::Leave(request.clone(), reply)).await {
            // The group is not there: so is none of them.
            Err(GroupError::UnknownMember) => {
                Ok(request.members.iter().map(|_| Err(GroupError::UnknownMember)).collect())
            }
            answer => answer,
        }
    }

    /// Keeps offsets, and forgets others; one answer for each that is kept, in order. What was answered is never
    /// forgotten, nor set back by this call.
    ///
    /// # Errors
    /// When none was kept; after [`GroupError::Unknown`] they may have been. See [`GroupError`].
    pub async fn commit(&self, request: CommitRequest) -> Result<PerOffset, GroupError> {
        let CommitRequest { group, member, offsets, forget } = request;
        let limit = OFFSET_METADATA_BYTES_MAX;
        let fits = |offset: &OffsetCommit| offset.metadata.as_ref().is_none_or(|note| note.len() <= limit);
        let fitting: Vec<OffsetCommit> = offsets.iter().filter(|offset| fits(offset)).cloned().collect();
        let outside = member.generation.is_none() && member.id.is_empty();
        let absent = if outside { Absent::Make } else { Absent::Refuse };
        let make = |reply| {
            Msg::Commit(member.clone(), Commit { offsets: fitting.clone(), forget: forget.clone() }, reply)
        };
        let answers = match self.ask_soon(&group, absent, make).await {
            // There is no group of which this could be a generation.
            Err(GroupError::UnknownMember) if member.generation.is_some() && !self.exists(&group) => {
                return Err(GroupError::IllegalGeneration);
            }
            answers => answers?,
        };
        let mut answers = answers.into_iter();
        let judge = |offset: &OffsetCommit| match fits(offset) {
            true => answers.next().unwrap_or(Ok(())),
            false => Err(OffsetRefusal::MetadataTooLarge { limit }),
        };
        Ok(offsets.iter().map(judge).collect())
    }

    /// How far a group has read these partitions, or all of which that is known. Never older than a commit that was
    /// answered before the call began. A group that is not there has read nothing. Cancel-safe.
    ///
    /// # Errors
    /// [`GroupError::NotCoordinator`] and [`GroupError::Unavailable`].
    pub async fn offsets(
        &self,
        group: &GroupId,
        partitions: Option<Vec<PartitionId>>,
    ) -> Result<Vec<(PartitionId, Option<CommittedOffset>)>, GroupError> {
        self.check_coordinator(group)?;
        let current = self.room().broker.confirm_current().await;
        current.map_err(|_| GroupError::Unavailable { obstacle: GroupObstacle::Metadata })?;
        // What is known now may be that others look after the group.
        self.check_coordinator(group)?;
        Ok(self.room().broker.look(|state| {
            let group = state.group(group);
            match partitions {
                None => {
                    let all = group.into_iter().flat_map(|group| group.offsets());
                    all.map(|(partition, offset)| (partition, Some(offset.clone()))).collect()
                }
                Some(partitions) => {
                    let of = |partition| group.and_then(|group| group.offset(partition)).cloned();
                    partitions.into_iter().map(|partition| (partition, of(partition))).collect()
                }
            }
        }))
    }

    /// Forgets how far a group has read; one answer for each partition, in order. Topics that members read stay.
    ///
    /// # Errors
    /// When nothing was forgotten; after [`GroupError::Unknown`] it may have been. See [`GroupAdminError`].
    pub async fn delete_offsets(
        &self,
        group: &GroupId,
        partitions: Vec<PartitionId>,
    ) -> Result<PerOffset, GroupAdminError> {
        let named = |state: &State| -> Vec<Option<TopicName>> {
            let name = |partition: &PartitionId| {
                state.partition(*partition)?;
                state.topic(partition.topic).map(|topic| topic.name().clone())
            };
            partitions.iter().map(name).collect()
        };
        let names = self.room().broker.look(named);
        let known = partitions.iter().zip(&names).filter_map(|(id, name)| Some((*id, name.clone()?)));
        let known: Vec<(PartitionId, TopicName)> = known.collect();
        let answer = self.ask_soon(group, Absent::Refuse, |reply| Msg::Forget(known.clone(), reply)).await;
        let answers = match answer {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => return Err(GroupAdminError::NotEmpty { group: group.clone() }),
            Err(GroupError::UnknownMember) => {
                return Err(GroupAdminError::NotFound { group: group.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        let mut answers = answers.into_iter();
        let judge = |name: &Option<TopicName>| match name {
            Some(_) => answers.next().unwrap_or(Ok(())),
            None => Err(OffsetRefusal::UnknownPartition),
        };
        Ok(names.iter().map(judge).collect())
    }

    /// The node stops: every group ends here, those who wait and those who ask are sent away, and what was taken before
    /// is stored. None is taken again. Dropping the call gives up what is not stored yet.
    pub async fn drain(&self) {
        /// Also when the caller does not wait to the end.
        struct Closing<'a>(&'a Changes);
        impl Drop for Closing<'_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        self.room().drain();
        let _closing = Closing(&self.room().changes);
        self.room().changes.flushed().await;
    }

    fn check_coordinator(&self, group: &GroupId) -> Result<(), GroupError> {
        match self.coordinator(group) {
            Some(node) if node == self.node() => {}
            None if !self.room().is_draining() => {
                return Err(GroupError::Unavailable { obstacle: GroupObstacle::NoNode });
            }
            coordinator => return Err(GroupError::NotCoordinator { coordinator }),
        }
        // A command that old nodes do not know would stop them.
        if !self.room().knows_groups() {
            return Err(GroupError::Unavailable { obstacle: GroupObstacle::Feature });
        }
        if self.room().is_doubtful() {
            return Err(GroupError::Unavailable { obstacle: GroupObstacle::Metadata });
        }
        Ok(())
    }

    /// Asks the group's coordinator, which is here or there is an error. The question is put again when the group was
    /// taken over while it waited.
    async fn ask<T>(
        &self,
        group: &GroupId,
        absent: Absent,
        message: impl Fn(Reply<T>) -> Msg,
    ) -> Result<T, GroupError> {
        for _ in 0..TRIES {
            self.check_coordinator(group)?;
            let Some((seat, inbox)) = self.find(group, absent).await? else { continue };
            if let Some(answer) = put(&inbox, seat, &message).await {
                return answer;
            }
        }
        Err(GroupError::NotCoordinator { coordinator: self.coordinator(group) })
    }

    /// As [`Self::ask`], for what does not wait for other members: who hears nothing in time does not know whether it
    /// happened.
    async fn ask_soon<T>(
        &self,
        group: &GroupId,
        absent: Absent,
        message: impl Fn(Reply<T>) -> Msg,
    ) -> Result<T, GroupError> {
        tokio::select! {
            answer = self.ask(group, absent, message) => answer,
            () = self.room().env.clock.sleep(PATIENCE) => Err(GroupError::Unknown),
        }
    }

    /// The coordinator at work; `None` when the node stops.
    async fn find(&self, group: &GroupId, absent: Absent) -> Result<Option<AtWork>, GroupError> {
        if let Some(found) = self.room().at_work(group) {
            return Ok(Some(found));
        }
        if absent == Absent::Refuse && !self.exists(group) {
            let current = self.room().broker.confirm_current().await;
            current.map_err(|_| GroupError::Unavailable { obstacle: GroupObstacle::Metadata })?;
            if !self.exists(group) {
                return Err(GroupError::UnknownMember);
            }
        }
        Ok(self.room().open(group))
    }

    fn exists(&self, group: &GroupId) -> bool {
        self.room().broker.look(|state| state.group(group).is_some())
    }
}

/// Puts a question; `None` when it is to be put again.
async fn put<T>(
    inbox: &mpsc::Sender<Msg>,
    seat: Arc<Seat>,
    message: &impl Fn(Reply<T>) -> Msg,
) -> Option<Result<T, GroupError>> {
    let (reply, answer) = oneshot::channel();
    inbox.send(message(reply)).await.ok()?;
    let mut patience = Patience(Some(seat));
    let answer = answer.await;
    patience.0 = None;
    answer.ok()
}
