//! A member that reads what it is assigned, from where the group left off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream, SelectAll};
use streamhouse_client::{
    CallError, ConsumedBatch, Error, Group, Membership, Offset, PartitionIndex, Position, ReadError,
    ReadEvent, Reader, StreamHouse, TopicPartition,
};
use streamhouse_env::Env;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::assign::Assignor;
use crate::membership::{Event, Member, Wish};

/// How often what was read is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How to read as a member. Made by [`GroupConsumer::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct GroupConsumerBuilder {
    group: Group,
    from: Position,
    commit_interval: Option<Duration>,
    retry_for: Option<Duration>,
    wish: Wish,
}

impl GroupConsumerBuilder {
    /// The topics to read.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.wish.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// Where to begin in a partition of which the group has committed nothing; the start by default.
    pub fn from(mut self, from: Position) -> Self {
        self.from = from;
        self
    }

    /// How often what was given is committed while more is asked for; 1 s by default. `None`: only by
    /// [`GroupConsumer::commit`].
    pub fn commit_interval(mut self, interval: Option<Duration>) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How long the member goes without an answer to its reading that is due before it fails; as long as any reader does
    /// by default.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = Some(time);
        self
    }

    /// How long the member may be silent before the others take over; 10 s by default. The server bounds it.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.wish.session_timeout = timeout;
        self
    }

    /// How long the member may take to come for more when the group rebalances; 5 min by default.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.wish.rebalance_timeout = timeout;
        self
    }

    /// Makes it a static member: whoever comes back under this name within the session timeout goes on as the same
    /// member. It does not leave when it is closed.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.wish.instance = Some(name.into());
        self
    }

    /// How the client calls itself in descriptions of the group.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.wish.client = id.into();
        self
    }

    /// Begins to join; the first events tell how that went.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn join(self) -> GroupConsumer {
        let (sender, events) = mpsc::channel(4);
        let (closing, closed) = watch::channel(false);
        let env = self.group.house().env().clone();
        let member = Member {
            group: self.group.clone(),
            env: env.clone(),
            wish: self.wish,
            events: sender,
            closing: closed,
            id: String::new(),
        };
        GroupConsumer {
            group: self.group,
            from: self.from,
            commit_interval: self.commit_interval,
            retry_for: self.retry_for,
            commit_at: env.clock.now(),
            env,
            events,
            closing,
            member: tokio::spawn(member.run()),
            who: None,
            todo: None,
            reading: SelectAll::new(),
            places: Vec::new(),
            read: BTreeMap::new(),
            behind: BTreeSet::new(),
        }
    }
}

/// What happens to a member.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum GroupEvent {
    /// It reads these from now on, and nothing else.
    Assigned(Vec<TopicPartition>),
    /// It does not read these any more; what was given of them is committed, unless somebody else reads them by now or
    /// nothing is committed by itself.
    Revoked(Vec<TopicPartition>),
    /// Records.
    Batch {
        /// Of this topic.
        topic: Arc<str>,
        /// With their partition.
        batch: ConsumedBatch,
    },
    /// Everything that was readable in the assigned partitions has been given. Once in each assignment.
    CaughtUp,
}

/// What is to be done before anything else.
enum Todo {
    Open(Membership, Vec<TopicPartition>),
    GiveUp(oneshot::Sender<()>),
    Forget,
    SayCaughtUp,
}

type Events = BoxStream<'static, (Arc<str>, Result<ReadEvent, ReadError>)>;

/// Reads topics as a member of a group. Every record is given to some member at least once, in the order of its
/// partition; after a failure those that were given and not committed are given again.
///
/// What was given counts as done when the next is asked for. Dropping it leaves the group without committing.
pub struct GroupConsumer {
    group: Group,
    from: Position,
    commit_interval: Option<Duration>,
    retry_for: Option<Duration>,
    commit_at: Duration,
    env: Env,
    events: mpsc::Receiver<Event>,
    closing: watch::Sender<bool>,
    member: JoinHandle<()>,
    who: Option<Membership>,
    todo: Option<Todo>,
    reading: SelectAll<Events>,
    places: Vec<TopicPartition>,
    /// Where to go on in partitions of which that is not committed.
    read: BTreeMap<TopicPartition, Offset>,
    /// Partitions whose end has not come yet.
    behind: BTreeSet<TopicPartition>,
}

impl GroupConsumer {
    /// A member of the group of this id.
    pub fn builder(house: &StreamHouse, group: &str) -> GroupConsumerBuilder {
        GroupConsumerBuilder {
            group: house.group(group),
            from: Position::Start,
            commit_interval: Some(COMMIT_INTERVAL),
            retry_for: None,
            wish: Wish {
                topics: Vec::new(),
                instance: None,
                client: "streamhouse".to_owned(),
                session_timeout: Duration::from_secs(10),
                rebalance_timeout: Duration::from_secs(5 * 60),
                assignors: Assignor::ALL.to_vec(),
            },
        }
    }

    /// What it reads now.
    #[must_use]
    pub fn assigned(&self) -> &[TopicPartition] {
        &self.places
    }

    /// The next event. To be asked for again within the rebalance timeout, else the others go on without this member.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When it cannot be a member or its partitions cannot be read.
    pub async fn next(&mut self) -> Result<GroupEvent, Error> {
        loop {
            if self.todo.is_some() {
                return self.work_off().await;
            }
            if self.commit_is_due() {
                self.commit_if_possible().await;
            }
            let due = if self.read.is_empty() { None } else { self.commit_interval.map(|_| self.commit_at) };
            let clock = self.env.clock.clone();
            let due = async move {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = self.events.recv() => self.note(event)?,
                Some((topic, event)) = self.reading.next() => {
                    if let Some(event) = self.given(topic, event?) {
                        return Ok(event);
                    }
                }
                () = due => {}
            }
        }
    }

    /// Commits all that was given. Cancelling leaves open whether it was.
    ///
    /// # Errors
    /// When the coordinator does not answer, or the group has gone on without this member: then what was given since the
    /// last commit is given to others too.
    pub async fn commit(&mut self) -> Result<(), CallError> {
        let Some(who) = self.who.clone().filter(|_| !self.read.is_empty()) else { return Ok(()) };
        let offsets: Vec<_> = self.read.iter().map(|(place, offset)| (place.clone(), *offset)).collect();
        self.group.commit(Some(&who), &offsets).await?;
        // Nothing was given meanwhile.
        self.read.clear();
        Ok(())
    }

    /// Says that of the batch given last no more was done than up to `next`, the first record that is still to do.
    pub fn done_up_to(&mut self, topic: &str, partition: PartitionIndex, next: Offset) {
        let place = TopicPartition { topic: topic.to_owned(), partition };
        if self.places.contains(&place) {
            self.read.insert(place, next);
        }
    }

    /// Commits what was given, unless nothing is committed by itself, and leaves the group.
    ///
    /// # Errors
    /// When what was given could not be committed; it has left all the same.
    pub async fn close(mut self) -> Result<(), CallError> {
        let committed = match self.commit_interval {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        self.closing.send_replace(true);
        // A member that waits to be heard waits no more.
        self.events.close();
        self.todo = None;
        if let Err(error) = (&mut self.member).await {
            tracing::warn!(%error, "the task of a member has failed");
        }
        committed
    }

    fn commit_is_due(&self) -> bool {
        let due = self.env.clock.now() >= self.commit_at;
        due && !self.read.is_empty() && self.commit_interval.is_some()
    }

    /// Commits; what cannot be committed now is tried again, or given to others.
    async fn commit_if_possible(&mut self) {
        if let Err(error) = self.commit().await {
            tracing::debug!(group = self.group.id(), %error, "what was read is not committed");
        }
        self.commit_at = self.env.clock.now() + self.commit_interval.unwrap_or(COMMIT_INTERVAL);
    }

    fn note(&mut self, event: Option<Event>) -> Result<(), Error> {
        self.todo = Some(match event {
            Some(Event::Assigned { who, places }) => Todo::Open(who, places),
            Some(Event::Revoked { done }) => Todo::GiveUp(done),
            Some(Event::Lost) => Todo::Forget,
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(CallError::BadAnswer { what: "the membership has ended" }.into()),
        });
        Ok(())
    }

    /// Does what is to be done; it stays to be done when this is cancelled or fails.
    async fn work_off(&mut self) -> Result<GroupEvent, Error> {
        match &self.todo {
            Some(Todo::Open(who, places)) => {
                let (who, places) = (who.clone(), places.clone());
                let readers = self.open(&places).await?;
                self.begin(who, places, readers);
                self.todo = self.places.is_empty().then_some(Todo::SayCaughtUp);
                Ok(GroupEvent::Assigned(self.places.clone()))
            }
            Some(Todo::GiveUp(_)) => {
                if self.commit_interval.is_some() {
                    self.commit_if_possible().await;
                }
                let revoked = self.end();
                if let Some(Todo::GiveUp(done)) = self.todo.take() {
                    // The membership may have waited long enough.
                    let _late = done.send(());
                }
                Ok(GroupEvent::Revoked(revoked))
            }
            Some(Todo::SayCaughtUp) => {
                self.todo = None;
                Ok(GroupEvent::CaughtUp)
            }
            Some(Todo::Forget) | None => {
                self.todo = None;
                Ok(GroupEvent::Revoked(self.end()))
            }
        }
    }

    /// Opens a reader for each topic, where the group left off.
    async fn open(
        &self,
        places: &[TopicPartition],
    ) -> Result<Vec<(String, Reader, BTreeSet<PartitionIndex>)>, Error> {
        let committed = self.group.offsets(places).await?;
        let mut topics: BTreeMap<String, Vec<(PartitionIndex, Option<Offset>)>> = BTreeMap::new();
        for (place, committed) in places.iter().zip(committed) {
            topics.entry(place.topic.clone()).or_default().push((place.partition, committed));
        }
        let mut readers = Vec::new();
        for (name, partitions) in topics {
            let topic = self.group.house().topic(&name);
            let wanted: Vec<_> =
                partitions.iter().map(|(partition, _)| (*partition, Position::Start)).collect();
            let starts = topic.list_offsets(&wanted).await?;
            let mut builder = topic.read(self.from).follow(true);
            if let Some(time) = self.retry_for {
                builder = builder.retry_for(time);
            }
            let mut new = BTreeSet::new();
            for ((partition, committed), start) in partitions.into_iter().zip(starts) {
                builder = builder.partitions([partition]);
                match committed {
                    // What was trimmed meanwhile is passed over.
                    Some(offset) => builder = builder.resume(partition, offset.max(start.offset)),
                    None => drop(new.insert(partition)),
                }
            }
            readers.push((name, builder.open().await?, new));
        }
        Ok(readers)
    }

    fn begin(
        &mut self,
        who: Membership,
        places: Vec<TopicPartition>,
        readers: Vec<(String, Reader, BTreeSet<PartitionIndex>)>,
    ) {
        self.who = Some(who);
        self.read.clear();
        for (topic, reader, new) in readers {
            // Where a partition was begun is committed too: else a record that comes before the first commit could be
            // passed over by the next who begins at the end.
            for partition in new {
                let begun = reader.progress().get(&partition).map(|at| at.next_offset);
                let place = TopicPartition { topic: topic.clone(), partition };
                self.read.extend(begun.map(|begun| (place, begun)));
            }
            let topic: Arc<str> = topic.into();
            self.reading.push(events(topic, reader));
        }
        self.behind = places.iter().cloned().collect();
        self.places = places;
    }

    /// Reads nothing any more; what it has read so far.
    fn end(&mut self) -> Vec<TopicPartition> {
        self.reading.clear();
        self.read.clear();
        self.behind.clear();
        self.who = None;
        std::mem::take(&mut self.places)
    }

    fn given(&mut self, topic: Arc<str>, event: ReadEvent) -> Option<GroupEvent> {
        match event {
            ReadEvent::Batch(batch) => {
                let place = TopicPartition { topic: topic.to_string(), partition: batch.partition() };
                self.read.insert(place, batch.offsets().end);
                Some(GroupEvent::Batch { topic, batch })
            }
            ReadEvent::CaughtUp { partition, .. } => {
                let place = TopicPartition { topic: topic.to_string(), partition };
                let last = self.behind.remove(&place) && self.behind.is_empty();
                last.then_some(GroupEvent::CaughtUp)
            }
            _ => None,
        }
    }
}

impl std::fmt::Debug for GroupConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupConsumer")
            .field("group", &self.group.id())
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// The events of a reader, each with its topic.
fn events(topic: Arc<str>, reader: Reader) -> Events {
    let next = |(topic, mut reader): (Arc<str>, Reader)| async move {
        let event = reader.next_event().await?;
        Some(((Arc::clone(&topic), event), (topic, reader)))
    };
    stream::unfold((topic, reader), next).boxed()
}
