//! The task that carries batches from the accumulator to the nodes, and answers back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use streamhouse_env::{Backoff, Env};
use streamhouse_proto::v1;
use streamhouse_types::NodeId;

use super::accumulator::Take;
use super::flow::UnexpectedAnswer;
use super::outbox::Outbox;
use super::session::{Answer, Opened, Opening, Routing, Session};
use super::{Delivery, Shared};
use crate::connect::StreamHouse;
use crate::rejection::Rejection;
use crate::ways::Way;

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;
type OpenedSession = Result<(Session, Opened), Rejection>;

/// When a node owes answers for so long, another one is asked whether the cluster still counts on it. The store may be
/// slow, and then it does.
const SILENCE: Duration = Duration::from_secs(2);

/// What there is between the producer and one node.
struct Link {
    state: LinkState,
    backoff: Backoff,
}

enum LinkState {
    /// Nothing; the next session may be tried at this time.
    Down { retry_at: Duration },
    /// A session is on the way.
    Opening(Way, Future<OpenedSession>),
    /// A session is open.
    Up(Session),
}

/// What happened on a link.
enum Event {
    Opened(Way, Box<OpenedSession>),
    Answer(Answer),
}

impl Link {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.state {
            LinkState::Down { .. } => Poll::Pending,
            LinkState::Opening(way, opening) => {
                opening.as_mut().poll(cx).map(|opened| Event::Opened(way.clone(), Box::new(opened)))
            }
            LinkState::Up(session) => session.poll_answer(cx).map(Event::Answer),
        }
    }

    fn retry_at(&self) -> Option<Duration> {
        match self.state {
            LinkState::Down { retry_at } => Some(retry_at),
            _ => None,
        }
    }
}

/// Asks other nodes about a silent one.
enum Inquiry {
    /// Nobody is asked before this.
    NotBefore(Duration),
    Asking(Future<Option<v1::GetRoutingResponse>>),
}

impl Inquiry {
    async fn answer(&mut self) -> Option<v1::GetRoutingResponse> {
        match self {
            Self::NotBefore(_) => std::future::pending().await,
            Self::Asking(asking) => asking.await,
        }
    }
}

/// The sender of a producer.
pub(super) struct Sender {
    shared: Arc<Shared>,
    opening: Opening,
    outbox: Outbox,
    links: BTreeMap<NodeId, Link>,
    /// Whose turn was last: a busy link must not keep the others from being heard.
    last_heard: NodeId,
    inquiry: Inquiry,
}

impl Drop for Sender {
    /// However it ends, nobody waits for it any longer.
    fn drop(&mut self) {
        self.shared.accumulator.lock().abandon();
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, opening: Opening, outbox: Outbox) -> Self {
        Self {
            shared,
            opening,
            outbox,
            links: BTreeMap::new(),
            last_heard: NodeId::new(0),
            inquiry: Inquiry::NotBefore(Duration::ZERO),
        }
    }

    /// Starts with a session that is open already.
    pub(super) fn with_session(mut self, session: Session, opened: Opened) -> Self {
        self.up(session.way.node, session, opened);
        self
    }

    fn env(&self) -> &Env {
        &self.shared.env
    }

    fn house(&self) -> &StreamHouse {
        &self.opening.topic.house
    }

    /// Runs until the producer is closed and all that it took is decided.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.env().clock.now();
            let wake_at = self.work(now);
            if self.is_done() {
                return;
            }
            let (shared, links, last_heard) = (&self.shared, &mut self.links, self.last_heard);
            tokio::select! {
                (node, event) = std::future::poll_fn(|cx| poll_links(links, last_heard, cx)) => {
                    self.last_heard = node;
                    self.heard(node, event);
                }
                routing = self.inquiry.answer() => self.inquired(routing),
                () = shared.work.notified() => {}
                () = shared.env.clock.sleep_until(wake_at) => {}
            }
        }
    }

    /// Does all that can be done now; returns when there is more to do if nothing happens.
    fn work(&mut self, now: Duration) -> Duration {
        for node in self.outbox.expire(now) {
            self.lost(node, &Rejection::connection_lost("no answer within the delivery timeout"));
        }
        let take = self.take_work(now);
        self.send(now);
        while let Some(node) = self.outbox.session_over(now) {
            tracing::debug!(topic = self.opening.topic.name(), %node, "append session is over");
            self.outbox.session_closed(node);
            self.down(node);
        }
        self.open_sessions(now);
        let asks_at = self.inquire(now);
        let needs_link = self.outbox.is_stranded() || !self.outbox.wanted().is_empty();
        let retries = self.links.values().filter(|_| needs_link).filter_map(Link::retry_at);
        let retry_at = retries.filter(|at| *at > now).min();
        let due_at = self.shared.accumulator.lock().due_at(take);
        let times = [self.outbox.wake_at(now), retry_at, due_at, asks_at];
        times.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Moves batches from the accumulator into the outbox. Returns what it goes by next.
    fn take_work(&mut self, now: Duration) -> Take {
        let take = self.what_to_take();
        let batches = self.shared.accumulator.lock().take(take, now);
        batches.into_iter().for_each(|batch| self.outbox.push(batch));
        self.what_to_take()
    }

    fn what_to_take(&self) -> Take {
        let is_up = self.links.values().any(|link| matches!(link.state, LinkState::Up(_)));
        if !is_up || self.outbox.has_backlog() {
            // A first batch brings a lost session back.
            let is_down = self.links.values().all(|link| link.retry_at().is_some());
            return if is_down && self.outbox.is_empty() { Take::All } else { Take::Full };
        }
        if self.outbox.is_quiet() { Take::All } else { Take::Lingered }
    }

    fn send(&mut self, now: Duration) {
        for (node, link) in &self.links {
            let LinkState::Up(session) = &link.state else { continue };
            while let Some(outgoing) = self.outbox.next(*node, now) {
                session.send(outgoing);
            }
        }
    }

    fn open_sessions(&mut self, now: Duration) {
        let mut nodes: Vec<_> = self.outbox.wanted().iter().copied().collect();
        if self.outbox.is_stranded() && !self.is_hopeful() {
            nodes.extend(self.anybody(now));
        }
        for node in nodes {
            let may_try =
                self.links.get(&node).is_none_or(|link| link.retry_at().is_some_and(|at| at <= now));
            // A producer id is asked for once.
            let takes_id = self.opening.delivery == Delivery::ExactlyOnce && self.outbox.identity().is_none();
            if may_try && !(takes_id && self.is_opening(|_| true)) {
                self.open(node);
            }
        }
    }

    fn is_opening(&self, which: impl Fn(NodeId) -> bool) -> bool {
        self.links.iter().any(|(node, link)| matches!(link.state, LinkState::Opening(..)) && which(*node))
    }

    /// Whether a session is about to open with a node that is not known to fail.
    fn is_hopeful(&self) -> bool {
        self.is_opening(|node| !self.outbox.is_unreachable(node))
    }

    /// The node that is most likely to take what nobody takes now.
    fn anybody(&self, now: Duration) -> Option<NodeId> {
        let mut nodes = self.house().candidates();
        nodes.retain(|node| {
            self.links.get(node).is_none_or(|link| link.retry_at().is_some_and(|at| at <= now))
        });
        nodes.iter().find(|node| !self.outbox.is_unreachable(**node)).or(nodes.first()).copied()
    }

    fn open(&mut self, node: NodeId) {
        let opening = Opening { identity: self.outbox.identity(), ..self.opening.clone() };
        match self.house().way_to(node) {
            Ok(way) => {
                let session = Box::pin(opening.open(way.clone()));
                self.link(node).state = LinkState::Opening(way, session);
            }
            Err(rejection) => self.not_opened(node, &rejection),
        }
    }

    fn link(&mut self, node: NodeId) -> &mut Link {
        let new =
            || Link { state: LinkState::Down { retry_at: Duration::ZERO }, backoff: Backoff::default() };
        self.links.entry(node).or_insert_with(new)
    }

    fn heard(&mut self, node: NodeId, event: Event) {
        match event {
            Event::Opened(way, opened) => match *opened {
                Ok((session, opened)) => self.up(node, session, opened),
                Err(rejection) => {
                    self.house().failed(&way, &rejection);
                    self.not_opened(node, &rejection);
                }
            },
            Event::Answer(answer) => self.answered(node, answer),
        }
    }

    fn up(&mut self, node: NodeId, session: Session, opened: Opened) {
        if opened.asked != self.outbox.identity() {
            // Another epoch has begun since.
            self.link(node).state = LinkState::Down { retry_at: Duration::ZERO };
            return;
        }
        let mut accumulator = self.shared.accumulator.lock();
        accumulator.grow(opened.partitions);
        accumulator.set_batch_bytes_max(opened.max_batch_bytes as usize);
        drop(accumulator);
        self.house().works(&session.way);
        let now = self.env().clock.now();
        self.outbox.opened(node, opened.identity, opened.credit_bytes, now);
        self.link(node).state = LinkState::Up(session);
        self.learn(&opened.routing);
    }

    /// A node told who there is, and who is home to what.
    fn learn(&mut self, routing: &Routing) {
        self.house().learn(&routing.nodes);
        // A single node is home to everything.
        if !self.house().is_alone() {
            self.outbox.learn(&routing.homes);
        }
    }

    fn not_opened(&mut self, node: NodeId, rejection: &Rejection) {
        tracing::debug!(topic = self.opening.topic.name(), %node, %rejection, "append session not opened");
        self.outbox.not_opened(node, rejection);
        self.down(node);
    }

    fn answered(&mut self, node: NodeId, answer: Answer) {
        let now = self.env().clock.now();
        let known = match answer {
            Answer::Ack(sequence, ack) => {
                self.link(node).backoff.reset();
                self.house().saw(ack.read_token);
                self.outbox.acked(node, sequence, ack, now)
            }
            Answer::Nack(sequence, rejection) => {
                self.refused(node, &rejection, now);
                self.outbox.nacked(node, sequence, rejection, now)
            }
            Answer::GoAway(routing) => {
                self.learn(&routing);
                self.outbox.go_away(node);
                Ok(())
            }
            Answer::Redirect(routing) => {
                self.learn(&routing);
                Ok(())
            }
            Answer::Lost(rejection) => {
                self.lost(node, &rejection);
                Ok(())
            }
        };
        if known == Err(UnexpectedAnswer) {
            self.lost(node, &Rejection::connection_lost("an answer to a batch that was not sent"));
        }
    }

    /// What may work later is tried later, or with another node. Refusals that come together count as one.
    fn refused(&mut self, node: NodeId, rejection: &Rejection, now: Duration) {
        if rejection.is_of_the_node() && !self.house().is_alone() {
            self.outbox.go_away(node);
        } else if rejection.is_retryable() && !self.outbox.is_paused(node, now) {
            let rng = self.env().rng.clone();
            let wait = self.link(node).backoff.next(&*rng);
            self.outbox.pause(node, now.saturating_add(wait));
        }
    }

    /// A session is gone.
    fn lost(&mut self, node: NodeId, rejection: &Rejection) {
        tracing::debug!(topic = self.opening.topic.name(), %node, %rejection, "append session lost");
        if let LinkState::Up(session) = &self.link(node).state {
            let way = session.way.clone();
            self.house().failed(&way, rejection);
        }
        self.outbox.session_lost(node, rejection);
        self.down(node);
    }

    fn down(&mut self, node: NodeId) {
        let rng = self.env().rng.clone();
        let now = self.env().clock.now();
        let link = self.link(node);
        let wait = link.backoff.next(&*rng);
        link.state = LinkState::Down { retry_at: now.saturating_add(wait) };
    }

    /// Asks about a node that owes answers. Returns when to look again.
    fn inquire(&mut self, now: Duration) -> Option<Duration> {
        let Inquiry::NotBefore(at) = self.inquiry else { return None };
        if self.house().is_alone() || self.outbox.is_quiet() {
            return None;
        }
        let node = self.outbox.silent(now.saturating_sub(SILENCE)).next();
        match node {
            Some(node) if at <= now => {
                let (house, topic) = (self.house().clone(), self.opening.topic.name().to_owned());
                let asking = Box::pin(async move { house.routing(&topic, node).await });
                self.inquiry = Inquiry::Asking(asking);
                None
            }
            _ => Some(at.max(now.saturating_add(SILENCE / 4))),
        }
    }

    /// Others told about the silent. A node from which everything has moved is given up by the cluster, and so by the
    /// producer: what it owes is recognised at the new homes.
    fn inquired(&mut self, routing: Option<v1::GetRoutingResponse>) {
        let now = self.env().clock.now();
        self.inquiry = Inquiry::NotBefore(now.saturating_add(SILENCE / 2));
        let Some(routing) = routing else { return };
        self.outbox.learn(&routing.homes);
        let silent: Vec<_> = self.outbox.silent(now.saturating_sub(SILENCE)).collect();
        for node in silent {
            if self.outbox.is_forsaken(node) {
                self.lost(node, &Rejection::connection_lost("no answer, and its partitions have moved"));
            }
        }
    }

    fn is_done(&self) -> bool {
        let accumulator = self.shared.accumulator.lock();
        accumulator.is_shut() && accumulator.is_empty() && self.outbox.is_empty()
    }
}

/// The next event of any link, in turn. Cancel-safe.
fn poll_links(
    links: &mut BTreeMap<NodeId, Link>,
    last_heard: NodeId,
    cx: &mut Context<'_>,
) -> Poll<(NodeId, Event)> {
    let first_half = (Bound::Excluded(last_heard), Bound::Unbounded);
    let second_half = (Bound::Unbounded, Bound::Included(last_heard));
    for half in [first_half, second_half] {
        for (node, link) in links.range_mut(half) {
            if let Poll::Ready(event) = link.poll_event(cx) {
                return Poll::Ready((*node, event));
            }
        }
    }
    Poll::Pending
}
