//! One membership: joins, assigns where it has to, says that it is there, joins again, and leaves. A task beside the
//! reading, so that a consumer that is busy with a batch stays a member.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_client::{CallError, ErrorCode, Group, JoinGroup, JoinedGroup, Membership, TopicPartition};
use streamhouse_env::Env;
use tokio::sync::{mpsc, oneshot, watch};

use crate::assign::{Assignor, Subscriber};
use crate::protocol;

/// What clients of Kafka call the kind of group that this is.
const PROTOCOL_TYPE: &str = "consumer";
/// A leader looks whether topics have grown once in so many heartbeats.
const HEARTBEATS_PER_LOOK: u32 = 10;
/// A member says that it is there so many times in the time that it may be silent.
const HEARTBEATS_PER_SESSION: u32 = 3;
/// How long to wait before joining again when the cluster could not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What a member wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) topics: Vec<String>,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) assignors: Vec<Assignor>,
}

/// What happens to a member, in order.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is to read these.
    Assigned { who: Membership, places: Vec<TopicPartition> },
    /// Others may read them soon: to be answered when what was read is committed.
    Revoked { done: oneshot::Sender<()> },
    /// Others read them by now.
    Lost,
    /// It is no member any more, and cannot be one.
    Failed(CallError),
}

/// How a generation ended for this member.
enum Ended {
    /// There is a new one to join.
    Rejoin,
    /// The coordinator does not know this member any more.
    Forgotten,
    /// The cluster did not answer.
    Unanswered,
    /// It cannot be a member.
    Hopeless(CallError),
}

impl Ended {
    /// What a refusal or a silence means.
    fn by(error: CallError) -> Self {
        match error.code() {
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => Self::Rejoin,
            Some(ErrorCode::UnknownMember) => Self::Forgotten,
            _ if error.is_retryable() => Self::Unanswered,
            _ => Self::Hopeless(error),
        }
    }
}

/// The task of one member.
pub(crate) struct Member {
    pub(crate) group: Group,
    pub(crate) env: Env,
    pub(crate) wish: Wish,
    pub(crate) events: mpsc::Sender<Event>,
    /// Turns true, or loses its sender, when the member is to leave.
    pub(crate) closing: watch::Receiver<bool>,
    /// The id that it was given; empty for a new member.
    pub(crate) id: String,
}

impl Member {
    /// Is a member until it is told to leave, or cannot be one.
    pub(crate) async fn run(mut self) {
        let mut closing = self.closing.clone();
        let failed = tokio::select! {
            error = self.stay() => Some(error),
            _ = closing.wait_for(|closing| *closing) => None,
        };
        match failed {
            // Whoever listens may be gone; then nobody wants to know.
            Some(error) => drop(self.events.send(Event::Failed(error)).await),
            None if !self.id.is_empty() && self.wish.instance.is_none() => {
                let who = self.membership(0);
                if let Err(error) = self.group.leave(&who).await {
                    tracing::debug!(group = self.group.id(), %error, "leaving a group got no answer");
                }
            }
            // A static member comes back; the others wait for it as long as it may be silent.
            None => {}
        }
    }

    /// Joins again and again; ends when that is hopeless.
    async fn stay(&mut self) -> CallError {
        // What is no topic's name is told before the group hears of it. One that is not there yet may come.
        for topic in &self.wish.topics {
            match self.group.house().topic(topic).describe().await {
                Err(error) if error.code() != Some(ErrorCode::TopicNotFound) => return error,
                _ => {}
            }
        }
        loop {
            match self.generation().await {
                Ended::Rejoin => {}
                Ended::Forgotten => self.id.clear(),
                Ended::Unanswered => self.env.clock.sleep(PAUSE).await,
                Ended::Hopeless(error) => return error,
            }
        }
    }

    fn membership(&self, generation: u32) -> Membership {
        Membership { member: self.id.clone(), instance: self.wish.instance.clone(), generation }
    }

    /// One generation, from joining until there is another.
    async fn generation(&mut self) -> Ended {
        let joined = match self.group.join(self.join()).await {
            Ok(joined) => joined,
            Err(error) => return self.not_joined(error),
        };
        self.id.clone_from(&joined.member);
        let who = self.membership(joined.generation);
        let counts = match self.counts(&joined).await {
            Ok(counts) => joined.assigns.then_some(counts),
            Err(error) => return Ended::by(error),
        };
        let plan = counts.as_ref().map_or_else(Vec::new, |counts| assign(&joined, counts));
        let told = self.group.sync(&who, plan, self.wish.rebalance_timeout).await;
        let places = told.map(|bytes| protocol::assigned(&bytes));
        let places = match places {
            Ok(Some(places)) => places,
            Ok(None) => {
                return Ended::Hopeless(CallError::BadAnswer { what: "an assignment that cannot be read" });
            }
            Err(error) => return Ended::by(error),
        };
        if self.events.send(Event::Assigned { who: who.clone(), places }).await.is_err() {
            return nobody_listens().await;
        }
        let ended = self.beat(&who, &joined, counts).await;
        self.give_up(&who, &ended).await;
        ended
    }

    fn join(&self) -> JoinGroup {
        let metadata = protocol::subscription(&self.wish.topics);
        let protocol = |assignor: &Assignor| (assignor.name().to_owned(), metadata.clone());
        JoinGroup {
            member: self.id.clone(),
            instance: self.wish.instance.clone(),
            client: self.wish.client.clone(),
            session_timeout: self.wish.session_timeout,
            rebalance_timeout: self.wish.rebalance_timeout,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: self.wish.assignors.iter().map(protocol).collect(),
        }
    }

    fn not_joined(&mut self, error: CallError) -> Ended {
        if let CallError::Rejected(rejection) = &error
            && rejection.code() == Some(ErrorCode::MemberIdRequired)
            && let Some(id) = rejection.details().get("member_id")
        {
            self.id.clone_from(id);
            return Ended::Rejoin;
        }
        Ended::by(error)
    }

    /// How many partitions there are of each topic that somebody wants to read. One that does not exist has none.
    async fn counts(&self, joined: &JoinedGroup) -> Result<BTreeMap<String, u32>, CallError> {
        let mut counts = BTreeMap::new();
        for topic in subscribers(joined).into_iter().flat_map(|subscriber| subscriber.topics) {
            if counts.contains_key(&topic) {
                continue;
            }
            let count = match self.group.house().topic(&topic).describe().await {
                Ok(found) => found.partition_count,
                Err(error) if error.code() == Some(ErrorCode::TopicNotFound) => 0,
                Err(error) => return Err(error),
            };
            counts.insert(topic, count);
        }
        Ok(counts)
    }

    /// Says that the member is there until there is a reason to stop.
    async fn beat(
        &self,
        who: &Membership,
        joined: &JoinedGroup,
        counts: Option<BTreeMap<String, u32>>,
    ) -> Ended {
        let mut beats = 0_u32;
        loop {
            self.env.clock.sleep(self.wish.session_timeout / HEARTBEATS_PER_SESSION).await;
            if let Err(error) = self.heartbeat(who).await {
                return Ended::by(error);
            }
            beats += 1;
            if let Some(counts) = counts.as_ref().filter(|_| beats.is_multiple_of(HEARTBEATS_PER_LOOK))
                // A look that fails is made again.
                && self.counts(joined).await.is_ok_and(|now| now != *counts)
            {
                return Ended::Rejoin;
            }
        }
    }

    /// Says that the member is there; one that is not heard for as long as it may be silent is forgotten by now.
    async fn heartbeat(&self, who: &Membership) -> Result<(), CallError> {
        tokio::select! {
            answer = self.group.heartbeat(who) => answer,
            () = self.env.clock.sleep(self.wish.session_timeout) => {
                Err(CallError::TimedOut { after: self.wish.session_timeout, last: None, may_have_happened: false })
            }
        }
    }

    /// Has the reader stop. As long as the group waits for this member, what was read may still be committed.
    async fn give_up(&self, who: &Membership, ended: &Ended) {
        if !matches!(ended, Ended::Rejoin) {
            drop(self.events.send(Event::Lost).await);
            return;
        }
        let (done, mut given_up) = oneshot::channel();
        if self.events.send(Event::Revoked { done }).await.is_err() {
            return;
        }
        let clock = &self.env.clock;
        let until = clock.now() + self.wish.rebalance_timeout;
        loop {
            let pause = self.wish.session_timeout / HEARTBEATS_PER_SESSION;
            tokio::select! {
                _ = &mut given_up => return,
                () = clock.sleep_until(until) => return,
                () = clock.sleep(pause) => {}
            }
            // It tells what is known: that the group rebalances. What counts is that the member is heard.
            drop(self.heartbeat(who).await);
        }
    }
}

/// The reader is gone, so the membership will be told to end.
async fn nobody_listens() -> Ended {
    std::future::pending().await
}

/// Who wants to read what; a member whose words cannot be read gets nothing.
fn subscribers(joined: &JoinedGroup) -> Vec<Subscriber> {
    let subscriber = |(member, metadata): &(String, Bytes)| Subscriber {
        member: member.clone(),
        topics: protocol::subscribed(metadata).unwrap_or_default(),
    };
    joined.members.iter().map(subscriber).collect()
}

/// What each member is told.
fn assign(joined: &JoinedGroup, counts: &BTreeMap<String, u32>) -> Vec<(String, Bytes)> {
    // The group chose one of those that every member knows, so this one does.
    let assignor = Assignor::named(&joined.protocol).unwrap_or(Assignor::Range);
    let plan = assignor.assign(subscribers(joined), counts);
    plan.into_iter().map(|(member, partitions)| (member, protocol::assignment(&partitions))).collect()
}
