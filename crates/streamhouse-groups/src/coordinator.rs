//! The coordinator of one group: a task that owns it in memory, woken by requests, by the metadata log and by its deadline.
//!
//! It claims the group before it answers anything, and ends when it learns that the group has another owner, or when it had
//! nothing to do for a minute. Whoever waits then is not answered: the facade asks again, here or elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::metadata::{Committer, GroupChange, GroupRecord, GroupVerdict, OffsetCommit};
use streamhouse_types::{GroupId, PartitionId, TopicName};
use tokio::sync::{mpsc, oneshot};

use crate::admin::GroupStatus;
use crate::changes::Lost;
use crate::group::{Answer, Effect, Forget, Group, Input, NotEmpty, Ticket};
use crate::registry::{Room, Seat};
use crate::{
    GroupError, GroupObstacle, JoinRequest, Joined, LeaveRequest, MemberRef, OffsetRefusal, SyncRequest,
    Synced, metrics,
};

/// How long a group without members stays in memory.
const IDLE: Duration = Duration::from_secs(60);
/// How long a claim may take before those who wait are told to come again.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// Where an answer goes. Dropped without one, the request is to be made again.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, GroupError>>;
/// The verdict on each offset of a request.
pub(crate) type PerOffset = Vec<Result<(), OffsetRefusal>>;

/// What is kept and what is forgotten on one word.
pub(crate) struct Commit {
    pub(crate) offsets: Vec<OffsetCommit>,
    pub(crate) forget: Vec<PartitionId>,
}

/// What a coordinator is asked.
pub(crate) enum Msg {
    Join(JoinRequest, Reply<Joined>),
    Sync(SyncRequest, Reply<Synced>),
    Heartbeat(MemberRef, Reply<()>),
    Leave(LeaveRequest, Reply<Vec<Result<(), GroupError>>>),
    Commit(MemberRef, Commit, Reply<PerOffset>),
    Forget(Vec<(PartitionId, TopicName)>, Reply<Result<PerOffset, NotEmpty>>),
    Describe(Reply<GroupStatus>),
}

/// A request that was not answered yet.
enum Waiting {
    Join(Reply<Joined>),
    Sync(Reply<Synced>),
    Heartbeat(Reply<()>),
    Leave(Reply<Vec<Result<(), GroupError>>>),
    Commit(Commit, Reply<PerOffset>),
    Forget(Vec<PartitionId>, Reply<Result<PerOffset, NotEmpty>>),
    Describe(Reply<GroupStatus>),
}

impl Waiting {
    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool {
        match self {
            Self::Join(reply) => reply.is_closed(),
            Self::Sync(reply) => reply.is_closed(),
            _ => false,
        }
    }
}

impl Msg {
    /// Answers it with an error.
    fn refuse(self, error: GroupError) {
        // Who has gone needs no answer.
        match self {
            Self::Join(_, reply) => drop(reply.send(Err(error))),
            Self::Sync(_, reply) => drop(reply.send(Err(error))),
            Self::Heartbeat(_, reply) => drop(reply.send(Err(error))),
            Self::Leave(_, reply) => drop(reply.send(Err(error))),
            Self::Commit(_, _, reply) => drop(reply.send(Err(error))),
            Self::Forget(_, reply) => drop(reply.send(Err(error))),
            Self::Describe(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// What a group is coordinated with.
pub(crate) struct Coordinator {
    id: GroupId,
    room: Arc<Room>,
    seat: Arc<Seat>,
    inbox: mpsc::Receiver<Msg>,
}

/// A group that this node owns.
struct Owned {
    id: GroupId,
    room: Arc<Room>,
    seat: Arc<Seat>,
    group: Group,
    waiting: BTreeMap<Ticket, Waiting>,
    tickets: u64,
    storing: Option<oneshot::Receiver<Result<GroupVerdict, Lost>>>,
    busy: Duration,
}

impl Coordinator {
    pub(crate) fn new(id: GroupId, room: Arc<Room>, seat: Arc<Seat>, inbox: mpsc::Receiver<Msg>) -> Self {
        Self { id, room, seat, inbox }
    }

    /// Coordinates the group until it is lost or idle.
    pub(crate) async fn run(mut self) {
        let end = match self.claim().await {
            Ok(group) => self.coordinate(group).await,
            Err(error) => error,
        };
        self.room.leave(&self.id, &self.seat);
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            if let Some(error) = &end {
                message.refuse(error.clone());
            }
        }
    }

    /// Becomes the owner, and goes on with what is stored; otherwise says what those who wait are told.
    async fn claim(&self) -> Result<Group, Option<GroupError>> {
        let unavailable = |obstacle| Some(GroupError::Unavailable { obstacle });
        let (done, claimed) = oneshot::channel();
        let claim = GroupChange::Claim { group: self.id.clone() };
        self.room.changes.submit(claim, move |verdict| drop(done.send(verdict)));
        let verdict = tokio::select! {
            claimed = claimed => claimed.unwrap_or(Err(Lost::Unknown)),
            () = self.seat.lost() => return Err(None),
            () = self.room.env.clock.sleep(CLAIM_PATIENCE) => {
                return Err(unavailable(GroupObstacle::Loading));
            }
        };
        match verdict {
            Ok(GroupVerdict::Done) => {}
            Ok(GroupVerdict::Limit { .. }) | Err(Lost::Overloaded) => {
                return Err(unavailable(GroupObstacle::Overloaded));
            }
            Err(Lost::Feature) => return Err(unavailable(GroupObstacle::Feature)),
            Ok(_) | Err(Lost::NotRegistered | Lost::Unknown) => {
                return Err(unavailable(GroupObstacle::Loading));
            }
        }
        let owner = self.room.owner();
        let look = |state: &streamhouse_broker::metadata::State| {
            let found = state.group(&self.id).filter(|group| owner.is_some() && group.owner() == owner);
            found.map(|group| Arc::clone(group.record()))
        };
        // Somebody else may have claimed it since.
        let record: Arc<GroupRecord> = self.room.broker.look(look).ok_or(None)?;
        self.seat.claimed();
        tracing::debug!(group = %self.id, generation = record.generation, "group is coordinated here");
        Ok(Group::load(self.room.env.clock.now(), &record, self.room.settings.clone()))
    }

    /// Carries requests to the group and its effects to where they belong.
    async fn coordinate(&mut self, group: Group) -> Option<GroupError> {
        let clock = Arc::clone(&self.room.env.clock);
        let mut owned = Owned {
            id: self.id.clone(),
            room: Arc::clone(&self.room),
            seat: Arc::clone(&self.seat),
            group,
            waiting: BTreeMap::new(),
            tickets: 0,
            storing: None,
            busy: clock.now(),
        };
        loop {
            self.seat.show(owned.group.state());
            let deadline = owned.deadline();
            tokio::select! {
                biased;
                () = self.seat.lost() => return None,
                // Before requests: who has gone has gone before those who ask now.
                () = self.seat.hung_up() => owned.hang_up(),
                stored = async { owned.storing.as_mut().expect("it is looked at").await }, if owned.storing.is_some() => {
                    owned.storing = None;
                    match stored.unwrap_or(Err(Lost::Unknown)) {
                        Ok(GroupVerdict::Done) => owned.handle(Input::Stored),
                        verdict => {
                            tracing::info!(group = %self.id, ?verdict, "group is given up, its members were not stored");
                            return None;
                        }
                    }
                }
                // Before the clock: who has spoken in time is not late because others were heard first.
                message = self.inbox.recv() => match message {
                    Some(message) => owned.take(message),
                    None => return None,
                },
                () = clock.sleep_until(deadline) => {
                    if owned.is_idle() && clock.now() >= owned.busy + IDLE {
                        return None;
                    }
                    owned.handle(Input::Time);
                }
            }
        }
    }
}

impl Owned {
    fn is_idle(&self) -> bool {
        self.group.is_idle() && self.waiting.is_empty()
    }

    fn deadline(&self) -> Duration {
        let idle = self.is_idle().then_some(self.busy + IDLE);
        self.group.deadline().into_iter().chain(idle).min().unwrap_or(Duration::MAX)
    }

    /// Takes a request in.
    fn take(&mut self, message: Msg) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let (input, waiting) = match message {
            Msg::Join(request, reply) => {
                let fresh = self.room.fresh_member_id(&request);
                (Input::Join { ticket, request, fresh }, Waiting::Join(reply))
            }
            Msg::Sync(request, reply) => (Input::Sync { ticket, request }, Waiting::Sync(reply)),
            Msg::Heartbeat(member, reply) => (Input::Heartbeat { ticket, member }, Waiting::Heartbeat(reply)),
            Msg::Leave(request, reply) => {
                (Input::Leave { ticket, members: request.members }, Waiting::Leave(reply))
            }
            Msg::Commit(member, commit, reply) => {
                (Input::Commit { ticket, member }, Waiting::Commit(commit, reply))
            }
            Msg::Forget(offsets, reply) => {
                let (partitions, topics) = offsets.into_iter().unzip();
                (Input::Forget { ticket, topics }, Waiting::Forget(partitions, reply))
            }
            Msg::Describe(reply) => (Input::Describe { ticket }, Waiting::Describe(reply)),
        };
        self.waiting.insert(ticket, waiting);
        self.handle(input);
    }

    /// Some of those who wait for a join or sync do not any more.
    fn hang_up(&mut self) {
        let gone = self.waiting.iter().filter(|(_, waiting)| waiting.is_gone());
        let gone: Vec<Ticket> = gone.map(|(ticket, _)| *ticket).collect();
        if gone.is_empty() {
            return;
        }
        for ticket in &gone {
            self.waiting.remove(ticket);
        }
        self.handle(Input::Gone(gone));
    }

    fn handle(&mut self, input: Input) {
        let now = self.room.env.clock.now();
        self.busy = now;
        for effect in self.group.handle(now, input) {
            match effect {
                Effect::Store(record) => self.store(record),
                Effect::Answer(ticket, answer) => self.answer(ticket, answer),
            }
        }
    }

    fn store(&mut self, record: GroupRecord) {
        metrics::stored(&self.id, &record);
        let (done, stored) = oneshot::channel();
        self.storing = Some(stored);
        let change = GroupChange::Store { group: self.id.clone(), record };
        self.room.changes.submit(change, move |verdict| drop(done.send(verdict)));
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        // Those who hung up are not here any more.
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        match (waiting, answer) {
            (Waiting::Join(reply), Answer::Join(answer)) => drop(reply.send(answer)),
            (Waiting::Sync(reply), Answer::Sync(answer)) => drop(reply.send(answer)),
            (Waiting::Heartbeat(reply), Answer::Heartbeat(answer)) => drop(reply.send(answer)),
            (Waiting::Leave(reply), Answer::Leave(answer)) => drop(reply.send(Ok(answer))),
            (Waiting::Describe(reply), Answer::Describe(status)) => drop(reply.send(Ok(status))),
            (Waiting::Commit(commit, reply), Answer::Commit(answer)) => match answer {
                Ok(by) => self.commit(by, commit, reply),
                Err(error) => drop(reply.send(Err(error))),
            },
            (Waiting::Forget(partitions, reply), Answer::Forget(answer)) => match answer {
                Ok(may) => self.forget(partitions, may, reply),
                Err(not_empty) => drop(reply.send(Ok(Err(not_empty)))),
            },
            _ => unreachable!("an answer is of the kind of its request"),
        }
    }

    /// Keeps offsets and forgets others. Both are handed over at once: what somebody else commits later for the same
    /// partition must not be forgotten with it.
    fn commit(&self, by: Committer, Commit { offsets, forget }: Commit, reply: Reply<PerOffset>) {
        let partitions: Vec<PartitionId> = offsets.iter().map(|offset| offset.partition).collect();
        let change = GroupChange::Commit { group: self.id.clone(), by, offsets };
        let seat = Arc::clone(&self.seat);
        if forget.is_empty() {
            return self.room.changes.submit(change, move |verdict| match kept(verdict, &partitions) {
                Some(answer) => drop(reply.send(answer)),
                None => seat.lose(),
            });
        }
        let (port, mut first) = oneshot::channel();
        self.room.changes.submit(change, move |verdict| drop(port.send(kept(verdict, &partitions))));
        let change = GroupChange::DeleteOffsets { group: self.id.clone(), partitions: forget };
        // Verdicts come in the order of the changes: the first is there.
        self.room.changes.submit(change, move |verdict| match (first.try_recv().ok().flatten(), verdict) {
            (None, _) => seat.lose(),
            (Some(Ok(answer)), Ok(GroupVerdict::Done)) => drop(reply.send(Ok(answer))),
            // One of the two may have been done.
            (Some(_), _) => drop(reply.send(Err(GroupError::Unknown))),
        });
    }

    fn forget(
        &self,
        partitions: Vec<PartitionId>,
        may: Vec<Forget>,
        reply: Reply<Result<PerOffset, NotEmpty>>,
    ) {
        let judge = |may: &Forget| match may {
            Forget::May => Ok(()),
            Forget::Subscribed => Err(OffsetRefusal::Subscribed),
        };
        let answer: PerOffset = may.iter().map(judge).collect();
        let partitions = partitions.into_iter().zip(&answer).filter(|(_, may)| may.is_ok());
        let partitions: Vec<PartitionId> = partitions.map(|(partition, _)| partition).collect();
        if partitions.is_empty() {
            return drop(reply.send(Ok(Ok(answer))));
        }
        let change = GroupChange::DeleteOffsets { group: self.id.clone(), partitions };
        let seat = Arc::clone(&self.seat);
        self.room.changes.submit(change, move |verdict| match verdict {
            Ok(GroupVerdict::Done) => drop(reply.send(Ok(Ok(answer)))),
            verdict => match unanswered(verdict) {
                Some(error) => drop(reply.send(Err(error))),
                None => seat.lose(),
            },
        });
    }
}

/// What is told to who commits; `None` when the group is somebody else's now, or was deleted.
fn kept(
    verdict: Result<GroupVerdict, Lost>,
    partitions: &[PartitionId],
) -> Option<Result<PerOffset, GroupError>> {
    Some(match verdict {
        Ok(GroupVerdict::Committed { unknown }) => Ok(per_offset(partitions, &unknown)),
        Ok(GroupVerdict::Done) => Ok(vec![Ok(()); partitions.len()]),
        Ok(GroupVerdict::StaleGeneration) => Err(GroupError::IllegalGeneration),
        Ok(GroupVerdict::HasMembers) => Err(GroupError::UnknownMember),
        verdict => Err(unanswered(verdict)?),
    })
}

/// What is told to somebody whose change was not made; `None` when the group is somebody else's now, or was deleted.
fn unanswered(verdict: Result<GroupVerdict, Lost>) -> Option<GroupError> {
    let unavailable = |obstacle| Some(GroupError::Unavailable { obstacle });
    match verdict {
        Ok(GroupVerdict::Limit { .. }) | Err(Lost::Overloaded) => unavailable(GroupObstacle::Overloaded),
        Err(Lost::Feature) => unavailable(GroupObstacle::Feature),
        Err(Lost::Unknown) => Some(GroupError::Unknown),
        Ok(_) | Err(Lost::NotRegistered) => None,
    }
}

/// One answer for each offset, in order.
fn per_offset(partitions: &[PartitionId], unknown: &[PartitionId]) -> PerOffset {
    let judge = |partition: &PartitionId| {
        if unknown.contains(partition) { Err(OffsetRefusal::UnknownPartition) } else { Ok(()) }
    };
    partitions.iter().map(judge).collect()
}
