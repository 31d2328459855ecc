//! All that a producer has taken and not yet got acknowledged: decides what is sent next and to whom, and what answers
//! mean. Pure: no I/O, and time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use streamhouse_proto::v1;
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{NodeId, PartitionIndex};

use super::batch::{Batch, Identity};
use super::flow::{Flow, UnexpectedAnswer};
use super::homes::Homes;
use super::lane::{Destination, Lane, Passing, Repeats};
use super::ticket::BatchAck;
use crate::producer::Delivery;
use crate::rejection::Rejection;

/// A batch to put on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) session_sequence: u64,
    pub(super) partition: PartitionIndex,
    pub(super) bytes: Bytes,
}

/// What a producer still has to get stored.
#[derive(Debug)]
pub(super) struct Outbox {
    delivery: Delivery,
    delivery_timeout: Duration,
    /// By partition.
    lanes: Vec<Lane>,
    homes: Homes,
    /// The open sessions, at most one with each node.
    flows: BTreeMap<NodeId, Flow>,
    /// The producer id of all open sessions, and those to come.
    identity: Option<Identity>,
    /// The cluster does not take the producer id, in no epoch.
    id_is_refused: bool,
    /// Partitions that stand in the queue of a session.
    is_queued: Vec<bool>,
    /// Homes of partitions with something to get stored, and no session with them.
    wanted: BTreeSet<NodeId>,
    /// Nodes whose last session failed: nobody waits for them.
    unreachable: BTreeSet<NodeId>,
    /// A partition has something to send and nobody to send it to.
    stranded: bool,
    /// At most one deadline for each partition: when to look at it.
    deadlines: BTreeSet<(Duration, u32)>,
    has_deadline: Vec<bool>,
    /// `Uncertain` when a partition cannot go on with its sequences: all is settled, then they begin anew in a new epoch.
    passing: Passing,
    /// Why a session could not be opened, until one can.
    link_failure: Option<Rejection>,
}

impl Outbox {
    pub(super) fn new(delivery: Delivery, delivery_timeout: Duration) -> Self {
        Self {
            delivery,
            delivery_timeout,
            lanes: Vec::new(),
            homes: Homes::default(),
            flows: BTreeMap::new(),
            identity: None,
            id_is_refused: false,
            is_queued: Vec::new(),
            wanted: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            stranded: false,
            deadlines: BTreeSet::new(),
            has_deadline: Vec::new(),
            passing: Passing::All,
            link_failure: None,
        }
    }

    fn lane(&mut self, partition: PartitionIndex) -> &mut Lane {
        let slot = partition.get() as usize;
        if self.lanes.len() <= slot {
            self.lanes.resize_with(slot + 1, Lane::default);
            self.is_queued.resize(slot + 1, false);
            self.has_deadline.resize(slot + 1, false);
        }
        &mut self.lanes[slot]
    }

    /// Takes a batch to be sent.
    pub(super) fn push(&mut self, batch: Batch) {
        let partition = batch.partition();
        self.lane(partition).push(batch);
        self.watch(partition.get());
        self.offer(partition.get());
    }

    fn watch(&mut self, slot: u32) {
        let at = slot as usize;
        if let (false, Some(deadline)) = (self.has_deadline[at], self.lanes[at].first_deadline()) {
            self.has_deadline[at] = true;
            self.deadlines.insert((deadline, slot));
        }
    }

    /// The node that a partition's next batch goes to; `None` when it has to wait. The home is preferred. While it
    /// cannot be reached any other will do: all take all writes.
    fn target(&self, slot: u32) -> Option<NodeId> {
        let is_open = |node: &NodeId| self.flows.get(node).is_some_and(|flow| !flow.going_away);
        let home = self.homes.of(slot);
        if let Some(home) = home.filter(is_open) {
            return Some(home);
        }
        if let Some(at) = self.lanes[slot as usize].at().filter(is_open) {
            return Some(at);
        }
        if self.is_awaited(home) {
            return None;
        }
        let open = || self.flows.keys().copied().filter(is_open);
        let turn = (slot as usize).checked_rem(open().count())?;
        open().nth(turn)
    }

    /// Whether a session with this home is about to be opened.
    fn is_awaited(&self, home: Option<NodeId>) -> bool {
        home.is_some_and(|home| !self.flows.contains_key(&home) && !self.unreachable.contains(&home))
    }

    /// Queues a partition where its next batch may go.
    fn offer(&mut self, slot: u32) {
        let at = slot as usize;
        if self.lanes[at].is_idle() {
            return;
        }
        let home = self.homes.of(slot);
        self.wanted.extend(home.filter(|home| !self.flows.contains_key(home)));
        if self.is_queued[at] || self.lanes[at].next_len(self.passing).is_none() {
            return;
        }
        match self.target(slot) {
            Some(node) if self.lanes[at].may_go_to(node) => {
                self.is_queued[at] = true;
                self.flows.get_mut(&node).expect("the target is open").sendable.push_back(slot);
            }
            // It is offered again when all that is on its way is answered.
            Some(_) => {}
            None => self.stranded |= !self.is_awaited(home),
        }
    }

    /// Queues all partitions anew: homes or sessions have changed.
    fn offer_all(&mut self) {
        self.flows.values_mut().for_each(|flow| flow.sendable.clear());
        self.is_queued.fill(false);
        self.stranded = false;
        for slot in 0..u32::try_from(self.lanes.len()).expect("partitions are counted in 32 bits") {
            self.offer(slot);
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }

    /// Whether something waits to be sent.
    pub(super) fn has_backlog(&self) -> bool {
        self.stranded || self.flows.values().any(|flow| !flow.sendable.is_empty())
    }

    /// Whether no batch is on its way or about to be.
    pub(super) fn is_quiet(&self) -> bool {
        !self.has_backlog() && self.flows.values().all(Flow::is_answered)
    }

    /// The identity to open sessions with; `None`: a new one has to be asked for, or none is needed.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Nodes that sessions should be opened with.
    pub(super) fn wanted(&self) -> &BTreeSet<NodeId> {
        &self.wanted
    }

    /// Whether a session should be opened with just anybody.
    pub(super) fn is_stranded(&self) -> bool {
        self.stranded
    }

    pub(super) fn is_unreachable(&self, node: NodeId) -> bool {
        self.unreachable.contains(&node)
    }

    /// A server told where partitions are at home.
    pub(super) fn learn(&mut self, homes: &[v1::PartitionHome]) {
        if self.homes.learn(homes) {
            self.wanted.clear();
            self.offer_all();
        }
    }

    /// A session with a node is open.
    pub(super) fn opened(
        &mut self,
        node: NodeId,
        identity: Option<Identity>,
        credit_bytes: u64,
        now: Duration,
    ) {
        debug_assert!(
            self.flows.is_empty() || self.identity == identity,
            "all sessions have one producer id"
        );
        self.identity = identity;
        self.link_failure = None;
        self.unreachable.remove(&node);
        self.wanted.remove(&node);
        self.flows.insert(node, Flow::new(credit_bytes, now));
        self.offer_all();
    }

    fn repeats(&self) -> Repeats {
        match (self.delivery, self.identity) {
            (Delivery::ExactlyOnce, Some(identity)) => Repeats::Recognised(identity),
            _ => Repeats::Stored,
        }
    }

    /// The next batch to put on its way to a node, if one may go.
    pub(super) fn next(&mut self, node: NodeId, now: Duration) -> Option<Outgoing> {
        let repeats = self.repeats();
        loop {
            let flow = self.flows.get_mut(&node).filter(|flow| flow.takes_more(now))?;
            let slot = flow.sendable.pop_front()?;
            let at = slot as usize;
            self.is_queued[at] = false;
            let may_go = self.lanes[at].may_go_to(node) && self.target(slot) == Some(node);
            let Some(len) = self.lanes[at].next_len(self.passing).filter(|_| may_go) else {
                self.offer(slot);
                continue;
            };
            let flow = self.flows.get_mut(&node).expect("it was there above");
            if !flow.has_credit(len) {
                flow.sendable.push_front(slot);
                self.is_queued[at] = true;
                return None;
            }
            let session_sequence = flow.next_sequence();
            let partition = PartitionIndex::new(slot);
            let to = Destination { node, home: self.homes.of(slot), session_sequence };
            let bytes = self.lanes[at].send(to, repeats);
            flow.sent(partition, bytes.len() as u64, now);
            self.offer(slot);
            return Some(Outgoing { session_sequence, partition, bytes });
        }
    }

    fn expected(
        &mut self,
        node: NodeId,
        session_sequence: u64,
        now: Duration,
    ) -> Result<PartitionIndex, UnexpectedAnswer> {
        self.flows.get_mut(&node).ok_or(UnexpectedAnswer)?.expected(session_sequence, now)
    }

    fn arrived(&mut self, node: NodeId, partition: PartitionIndex, len: u64) {
        self.flows.get_mut(&node).expect("an answer was expected").arrived(len);
        self.offer(partition.get());
    }

    /// A batch is durable.
    pub(super) fn acked(
        &mut self,
        node: NodeId,
        session_sequence: u64,
        ack: BatchAck,
        now: Duration,
    ) -> Result<(), UnexpectedAnswer> {
        let partition = self.expected(node, session_sequence, now)?;
        let repeats = self.repeats();
        let len = self.lane(partition).acked(session_sequence, ack, repeats).ok_or(UnexpectedAnswer)?;
        self.arrived(node, partition, len);
        Ok(())
    }

    /// Whether nothing is sent to a node because of a refusal.
    pub(super) fn is_paused(&self, node: NodeId, now: Duration) -> bool {
        self.flows.get(&node).is_some_and(|flow| flow.is_paused(now))
    }

    /// Sends nothing to a node before `until`.
    pub(super) fn pause(&mut self, node: NodeId, until: Duration) {
        if let Some(flow) = self.flows.get_mut(&node) {
            flow.paused_until = until;
        }
    }

    /// A batch was refused.
    pub(super) fn nacked(
        &mut self,
        node: NodeId,
        session_sequence: u64,
        rejection: Rejection,
        now: Duration,
    ) -> Result<(), UnexpectedAnswer> {
        let partition = self.expected(node, session_sequence, now)?;
        let repeats = self.repeats();
        // It was not given out here, or somebody else goes on with it.
        self.id_is_refused |=
            matches!(rejection.code(), Some(ErrorCode::ProducerIdNotGranted | ErrorCode::ProducerFenced));
        let lane = self.lane(partition);
        let len = lane.nacked(session_sequence, rejection, repeats).ok_or(UnexpectedAnswer)?;
        self.look_for_breaks();
        self.arrived(node, partition, len);
        Ok(())
    }

    /// A node wants no more: what is on its way there is answered, the rest goes elsewhere.
    pub(super) fn go_away(&mut self, node: NodeId) {
        let Some(flow) = self.flows.get_mut(&node) else { return };
        if !flow.going_away {
            flow.going_away = true;
            self.unreachable.insert(node);
            self.offer_all();
        }
    }

    /// A session that has done what it may: all is answered, and it takes no more, or its epoch is over,
    /// or nobody needs it.
    pub(super) fn session_over(&mut self, now: Duration) -> Option<NodeId> {
        let is_settled = self.is_renaming() && !self.lanes.iter().any(Lane::is_unsettled);
        let is_one_of_several = self.flows.len() > 1;
        for (node, flow) in &mut self.flows {
            let is_idle = is_one_of_several && flow.is_idle(now) && !self.homes.has(*node);
            if flow.is_answered() && (flow.going_away || is_settled || is_idle) {
                return Some(*node);
            }
        }
        None
    }

    /// A session has been closed, with nothing on its way.
    pub(super) fn session_closed(&mut self, node: NodeId) {
        debug_assert!(self.flows.get(&node).is_none_or(Flow::is_answered), "answers are lost");
        self.flows.remove(&node);
        self.rename_if_settled();
        self.offer_all();
    }

    /// A session is gone, with all that was on its way.
    pub(super) fn session_lost(&mut self, node: NodeId, rejection: &Rejection) {
        if self.flows.remove(&node).is_none() {
            return;
        }
        self.unreachable.insert(node);
        let repeats = self.repeats();
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_in_flight_to(node)) {
            lane.session_lost(rejection, repeats);
        }
        self.rename_if_settled();
        self.offer_all();
    }

    /// No session with this node could be opened.
    pub(super) fn not_opened(&mut self, node: NodeId, rejection: &Rejection) {
        self.unreachable.insert(node);
        self.wanted.remove(&node);
        if rejection.is_retryable() || !self.flows.is_empty() {
            self.link_failure = Some(rejection.clone());
        } else {
            self.refuse_all(rejection);
        }
        self.offer_all();
    }

    /// The server refuses the topic or the producer: fails all there is. What is sent later is tried anew.
    fn refuse_all(&mut self, rejection: &Rejection) {
        debug_assert!(self.flows.is_empty(), "only an opening can be refused");
        for lane in &mut self.lanes {
            lane.refuse_all(rejection);
        }
        self.rename();
    }

    fn look_for_breaks(&mut self) {
        let was_renaming = self.is_renaming();
        let is_broken = self.lanes.iter().any(Lane::is_broken);
        self.passing = if is_broken { Passing::Uncertain } else { Passing::All };
        if was_renaming && !is_broken {
            self.offer_all();
        }
    }

    fn is_renaming(&self) -> bool {
        self.passing == Passing::Uncertain
    }

    /// Without any session and with nothing open under it, an epoch that cannot go on is given up.
    fn rename_if_settled(&mut self) {
        self.look_for_breaks();
        if self.flows.is_empty() && self.is_renaming() && !self.lanes.iter().any(Lane::is_unsettled) {
            self.rename();
        }
    }

    fn rename(&mut self) {
        self.identity = self.identity.filter(|_| !self.id_is_refused).and_then(Identity::next);
        self.id_is_refused = false;
        self.lanes.iter_mut().for_each(Lane::renamed);
        self.look_for_breaks();
    }

    /// Fails what is not acknowledged in time. Returns the nodes that owe answers and have given none for as long as
    /// that: they do not work on their sessions any more.
    ///
    /// One that only is slow, as its store is, keeps its session: in another one everything would have to be sent anew,
    /// and that for every batch whose time is over.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<NodeId> {
        while let Some((_, slot)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.pop_first();
            let at = slot as usize;
            self.has_deadline[at] = false;
            self.lanes[at].expire(now, self.delivery_timeout, self.link_failure.as_ref());
            self.watch(slot);
            self.rename_if_settled();
            self.offer(slot);
        }
        now.checked_sub(self.delivery_timeout).map_or_else(Vec::new, |before| self.silent(before).collect())
    }

    /// The nodes that owe answers and have said nothing since `before`.
    pub(super) fn silent(&self, before: Duration) -> impl Iterator<Item = NodeId> + '_ {
        let silent = move |flow: &Flow| flow.silent_since().is_some_and(|since| since <= before);
        self.flows.iter().filter(move |(_, flow)| silent(flow)).map(|(node, _)| *node)
    }

    /// Whether all that is on its way to a node went to its home and is at home elsewhere by now, where it is
    /// recognised: the cluster does not count on the node any more.
    pub(super) fn is_forsaken(&self, node: NodeId) -> bool {
        let mut owed = (0..).zip(&self.lanes).filter(|(_, lane)| lane.is_in_flight_to(node));
        let has_moved = |slot, lane: &Lane| lane.went_home() && self.homes.of(slot) != Some(node);
        self.repeats() != Repeats::Stored && owed.all(|(slot, lane)| has_moved(slot, lane))
    }

    /// When to look again if nothing happens: the next deadline, the end of a pause, or of the patience with a silent node.
    pub(super) fn wake_at(&self, now: Duration) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let pauses = self.flows.values().filter(|flow| flow.is_paused(now)).map(|flow| flow.paused_until);
        let silences = self.flows.values().filter_map(Flow::silent_since);
        let given_up = silences.map(|since| since.saturating_add(self.delivery_timeout));
        deadline.into_iter().chain(pauses).chain(given_up).min()
    }
}

#[cfg(test)]
mod tests;
