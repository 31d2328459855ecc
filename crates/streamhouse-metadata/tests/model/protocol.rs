//! The protocol around the metadata: nodes, uploads, proposals, clients, readers and the sweep, as small as they can
//! be and still go wrong. `docs/design.md`, sections 4 to 6.
//!
//! Answers arrive at once or never: one that is late does what a lost one does, as a node may crash, give up or propose
//! again at any time, and a repeated proposal brings the same answer. A slot holds one batch.

use std::collections::{BTreeMap, BTreeSet};

use streamhouse_types::{Lane, ObjectId, SlotSequence};

use crate::meta::{Answer, Meta, PARTITION, object, slot};

/// One guard of the protocol taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mutant {
    /// The sweep deletes whatever is unreferenced.
    SweepUnreferenced,
    /// The sweep takes what is on the garbage list for an orphan.
    SweepIgnoresGarbageList,
    /// The sweep deletes garbage that a reader has pinned.
    SweepIgnoresPins,
    /// Apply takes commits of closed incarnations.
    NoIncarnationCheck,
    /// Apply takes slots below `lo`.
    NoLoCheck,
    /// Apply recognises no batch.
    NoProducerDedupe,
    /// Apply does not wait for the slot proposed before.
    IgnorePrev,
    /// Apply takes a repeated proposal for a new one.
    RepeatIsNew,
    /// The node proposes before an upload is confirmed.
    ProposeBeforePut,
    /// The node acks when the upload is confirmed.
    AckBeforeCommit,
    /// A restarted node goes on under its old incarnation, from the first slot.
    RestartKeepsIncarnation,
    /// A lost answer is told as *did not happen*.
    LostAnswerIsDenied,
    /// A failed slot does not take the later slots of its connection along.
    FailedSlotIsOvertaken,
}

/// What the clients send, one record a batch, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Batches {
    /// One connection of a plain producer, which sends again only what did not happen.
    Plain(u8),
    /// An idempotent producer, which sends again through either node whatever is not acked.
    Idempotent(u8),
}

impl Batches {
    fn count(self) -> u8 {
        match self {
            Self::Plain(count) | Self::Idempotent(count) => count,
        }
    }

    pub(crate) fn are_idempotent(self) -> bool {
        matches!(self, Self::Idempotent(_))
    }
}

/// How often each kind of mishap may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// A batch is sent again.
    pub(crate) resends: u8,
    /// A slot gets a second attempt.
    pub(crate) hedges: u8,
    /// A slot fails before it is proposed.
    pub(crate) failures: u8,
    /// A slot is given up after it was proposed.
    pub(crate) gives_up: u8,
    /// A slot is proposed again.
    pub(crate) reproposals: u8,
    /// A proposal is delivered and stays on its way.
    pub(crate) duplicates: u8,
    /// A node loses its memory.
    pub(crate) crashes: u8,
    /// An incarnation is closed under a living node.
    pub(crate) closes: u8,
    /// An idle node moves its `lo`.
    pub(crate) advances: u8,
    /// The whole log is trimmed.
    pub(crate) trims: u8,
    /// A reader plans a read.
    pub(crate) readers: u8,
}

/// A search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) batches: Batches,
    /// Odd batches go through the merge lane.
    pub(crate) two_lanes: bool,
    pub(crate) budget: Budget,
    pub(crate) mutant: Option<Mutant>,
}

/// A proposal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Proposal {
    pub(crate) object: ObjectId,
    pub(crate) prev: u64,
    pub(crate) lo: u64,
    pub(crate) batch: u8,
}

/// What a node knows of one of its undecided slots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Open {
    sequence: u64,
    batch: u8,
    attempts: u32,
    /// The first attempt that the store confirmed.
    confirmed: Option<u32>,
    /// `prev` of its proposal, once proposed.
    proposed: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct LaneState {
    next: u64,
    /// The last slot proposed.
    last: u64,
    open: Vec<Open>,
}

impl LaneState {
    fn lo(&self) -> u64 {
        self.open.first().map_or(self.next, |first| first.sequence)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Node {
    up: bool,
    incarnation: u64,
    lanes: [LaneState; 2],
}

impl Node {
    fn start(incarnation: u64) -> Self {
        let lane = LaneState { next: 1, ..LaneState::default() };
        Self { up: true, incarnation, lanes: [lane.clone(), lane] }
    }
}

/// What the client was told last of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    Unsent,
    Nothing,
    Denied,
    Acked(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reader {
    pin: u64,
    plan: Vec<(ObjectId, u8)>,
}

/// One state of the whole system.
#[derive(Debug, Clone, Hash)]
pub(crate) struct World {
    pub(crate) meta: Meta,
    batches: Batches,
    budget: Budget,
    /// What each name holds.
    store: BTreeMap<ObjectId, u8>,
    /// Uploads on their way; they outlive the node.
    uploads: BTreeMap<ObjectId, u8>,
    proposals: BTreeSet<Proposal>,
    nodes: [Node; 2],
    told: Vec<Told>,
    reader: Option<Reader>,
    /// What each offset got, trimmed or not.
    log: Vec<(u8, ObjectId)>,
    /// Slots whose batch was told not to have happened.
    denied: BTreeSet<(u64, u64, Lane, u64)>,
    /// A name was given to two byte strings.
    reused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Arrives,
    IsLost,
}

/// One step. Nodes and lanes are told by their index, slots by their sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Send { batch: u8, node: usize },
    Hedge { node: usize, lane: usize, sequence: u64 },
    Land { object: ObjectId, reply: Reply },
    Propose { node: usize, lane: usize, sequence: u64 },
    Repropose { node: usize, lane: usize, sequence: u64 },
    Fail { node: usize, lane: usize, sequence: u64 },
    GiveUp { node: usize, lane: usize, sequence: u64 },
    Deliver { proposal: Proposal, reply: Reply },
    DeliverAndKeep { proposal: Proposal, reply: Reply },
    Crash { node: usize },
    Restart { node: usize },
    Close { node: usize },
    AdvanceLo { node: usize, lane: usize },
    Trim,
    SweepOrphan { object: ObjectId },
    SweepGarbage { object: ObjectId },
    StartRead,
    EndRead,
}

const LANES: [Lane; 2] = [Lane::Wal, Lane::Merge];

/// Nodes are numbered from 1 in the metadata.
fn number(node: usize) -> u64 {
    node as u64 + 1
}

/// Spends one of a budget; `false` when none is left.
fn spend(left: &mut u8) -> bool {
    match left.checked_sub(1) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            meta: Meta::new(),
            batches: config.batches,
            budget: config.budget,
            store: BTreeMap::new(),
            uploads: BTreeMap::new(),
            proposals: BTreeSet::new(),
            nodes: [Node::start(1), Node::start(1)],
            told: vec![Told::Unsent; usize::from(config.batches.count())],
            reader: None,
            log: Vec::new(),
            denied: BTreeSet::new(),
            reused: false,
        }
    }

    /// Every step that might be possible; [`Self::step`] knows which are.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for node in 0..2 {
            let batches = (0..).zip(&self.told).map(|(batch, _)| Action::Send { batch, node });
            actions.extend(batches);
            for (lane, state) in self.nodes[node].lanes.iter().enumerate() {
                for open in &state.open {
                    let sequence = open.sequence;
                    actions.push(Action::Hedge { node, lane, sequence });
                    actions.push(Action::Propose { node, lane, sequence });
                    actions.push(Action::Repropose { node, lane, sequence });
                    actions.push(Action::Fail { node, lane, sequence });
                    actions.push(Action::GiveUp { node, lane, sequence });
                }
                actions.push(Action::AdvanceLo { node, lane });
            }
            actions.extend([Action::Crash { node }, Action::Restart { node }, Action::Close { node }]);
        }
        for reply in [Reply::Arrives, Reply::IsLost] {
            actions.extend(self.uploads.keys().map(|object| Action::Land { object: *object, reply }));
            for proposal in self.proposals.iter().copied() {
                actions.push(Action::Deliver { proposal, reply });
                actions.push(Action::DeliverAndKeep { proposal, reply });
            }
        }
        actions.extend([Action::Trim, Action::StartRead, Action::EndRead]);
        actions.extend(self.store.keys().map(|object| Action::SweepOrphan { object: *object }));
        actions.extend(self.meta.state.garbage().map(|(object, _)| Action::SweepGarbage { object }));
        actions
    }

    /// The state after a step; `None` when the step is not possible.
    pub(crate) fn step(&self, action: Action, config: &Config) -> Option<Self> {
        let mut next = self.clone();
        let done = match action {
            Action::Send { batch, node } => next.send(batch, node, config),
            Action::Hedge { node, lane, sequence } => next.hedge(node, lane, sequence),
            Action::Land { object, reply } => next.land(object, reply, config),
            Action::Propose { node, lane, sequence } => next.propose(node, lane, sequence, config),
            Action::Repropose { node, lane, sequence } => next.repropose(node, lane, sequence),
            Action::Fail { node, lane, sequence } => next.fail(node, lane, sequence, config),
            Action::GiveUp { node, lane, sequence } => next.give_up(node, lane, sequence, config),
            Action::Deliver { proposal, reply } => next.deliver(&proposal, reply, config),
            Action::DeliverAndKeep { proposal, reply } => {
                let spent = spend(&mut next.budget.duplicates);
                spent && next.deliver(&proposal, reply, config) && next.proposals.insert(proposal)
            }
            Action::Crash { node } => {
                next.nodes[node].up && spend(&mut next.budget.crashes) && next.crash(node)
            }
            Action::Restart { node } => next.restart(node, config),
            Action::Close { node } => {
                next.nodes[node].up && spend(&mut next.budget.closes) && next.close(node)
            }
            Action::AdvanceLo { node, lane } => next.advance_lo(node, lane),
            Action::Trim => {
                let trimmed = self.meta.high_watermark() > 0 && spend(&mut next.budget.trims);
                trimmed && {
                    next.meta.trim();
                    true
                }
            }
            Action::SweepOrphan { object } => next.sweep_orphan(object, config),
            Action::SweepGarbage { object } => next.sweep_garbage(object, config),
            Action::StartRead => next.start_read(),
            Action::EndRead => next.reader.take().is_some(),
        };
        done.then_some(next)
    }

    /// A batch comes to a node and takes the next slot of a lane. The upload starts.
    fn send(&mut self, batch: u8, node: usize, config: &Config) -> bool {
        let told = self.told[usize::from(batch)];
        let again = match told {
            Told::Unsent => false,
            Told::Nothing => {
                if !config.batches.are_idempotent() {
                    return false;
                }
                true
            }
            Told::Denied => true,
            Told::Acked(_) => return false,
        };
        // A client sends in order, and what did not happen before what follows it. Plain ones go to the first node.
        let earlier = &self.told[..usize::from(batch)];
        let in_order = earlier.iter().all(|told| !matches!(told, Told::Unsent | Told::Denied));
        let reachable = config.batches.are_idempotent() || node == 0;
        if !in_order || !reachable || !self.nodes[node].up || (again && !spend(&mut self.budget.resends)) {
            return false;
        }
        self.told[usize::from(batch)] = Told::Nothing;
        let lane = usize::from(config.two_lanes && batch % 2 == 1);
        let incarnation = self.nodes[node].incarnation;
        let state = &mut self.nodes[node].lanes[lane];
        let sequence = state.next;
        state.next += 1;
        state.open.push(Open { sequence, batch, attempts: 1, confirmed: None, proposed: None });
        self.uploads.insert(object(slot(number(node), incarnation, LANES[lane], sequence), 0), batch);
        true
    }

    fn open_mut(&mut self, node: usize, lane: usize, sequence: u64) -> Option<&mut Open> {
        let state = &mut self.nodes[node].lanes[lane];
        state.open.iter_mut().find(|open| open.sequence == sequence)
    }

    /// The same bytes go up once more, under another name.
    fn hedge(&mut self, node: usize, lane: usize, sequence: u64) -> bool {
        let Some(open) =
            self.open_mut(node, lane, sequence).filter(|o| o.proposed.is_none() && o.attempts == 1)
        else {
            return false;
        };
        open.attempts = 2;
        let batch = open.batch;
        let slot = slot(number(node), self.nodes[node].incarnation, LANES[lane], sequence);
        self.uploads.insert(object(slot, 1), batch);
        spend(&mut self.budget.hedges)
    }

    /// The store has the bytes. The node may not come to know.
    fn land(&mut self, id: ObjectId, reply: Reply, config: &Config) -> bool {
        let batch = self.uploads.remove(&id).expect("the upload is on its way");
        self.reused |= self.store.insert(id, batch).is_some_and(|before| before != batch);
        if reply == Reply::IsLost {
            return true;
        }
        let Some((node, lane)) = self.owner(&id) else {
            return false;
        };
        let Some(open) = self.open_mut(node, lane, id.slot.sequence.get()) else {
            return false;
        };
        if open.confirmed.is_some() {
            return false;
        }
        open.confirmed = Some(id.attempt.get());
        if config.mutant == Some(Mutant::AckBeforeCommit) {
            self.told[usize::from(batch)] = Told::Acked(self.meta.high_watermark());
        }
        true
    }

    /// The living node that the slot belongs to, and the lane.
    fn owner(&self, id: &ObjectId) -> Option<(usize, usize)> {
        let node = usize::try_from(id.slot.node.get() - 1).expect("two nodes");
        let lane = LANES.iter().position(|lane| *lane == id.slot.lane).expect("two lanes");
        let found = &self.nodes[node];
        (found.up && found.incarnation == id.slot.incarnation.get()).then_some((node, lane))
    }

    /// The lowest slot that was not proposed yet is proposed.
    fn propose(&mut self, node: usize, lane: usize, sequence: u64, config: &Config) -> bool {
        let state = &mut self.nodes[node].lanes[lane];
        let last = state.last;
        let Some(open) = state.open.iter_mut().find(|open| open.proposed.is_none()) else {
            return false;
        };
        let ready = open.confirmed.is_some() || config.mutant == Some(Mutant::ProposeBeforePut);
        if open.sequence != sequence || !ready {
            return false;
        }
        open.proposed = Some(last);
        state.last = sequence;
        self.put_on_its_way(node, lane, sequence)
    }

    fn repropose(&mut self, node: usize, lane: usize, sequence: u64) -> bool {
        let open = self.open_mut(node, lane, sequence).expect("the slot is open");
        open.proposed.is_some()
            && spend(&mut self.budget.reproposals)
            && self.put_on_its_way(node, lane, sequence)
    }

    /// `false` when the same proposal is on its way already.
    fn put_on_its_way(&mut self, node: usize, lane: usize, sequence: u64) -> bool {
        let incarnation = self.nodes[node].incarnation;
        let lo = self.nodes[node].lanes[lane].lo();
        let open = self.open_mut(node, lane, sequence).expect("the slot is open");
        let object =
            object(slot(number(node), incarnation, LANES[lane], sequence), open.confirmed.unwrap_or(0));
        let proposal =
            Proposal { object, prev: open.proposed.expect("it was proposed"), lo, batch: open.batch };
        self.proposals.insert(proposal)
    }

    /// A slot that was not proposed fails: its batch did not happen, nor did the later ones of its connection.
    fn fail(&mut self, node: usize, lane: usize, sequence: u64, config: &Config) -> bool {
        let open = self.open_mut(node, lane, sequence).expect("the slot is open");
        if open.proposed.is_some() || !spend(&mut self.budget.failures) {
            return false;
        }
        let overtaken = config.mutant == Some(Mutant::FailedSlotIsOvertaken);
        let fails = |open: &Open| open.sequence == sequence || (open.sequence > sequence && !overtaken);
        let open = &self.nodes[node].lanes[lane].open;
        let failed: Vec<u64> = open.iter().filter(|open| fails(open)).map(|open| open.sequence).collect();
        for sequence in failed {
            self.deny(node, lane, sequence);
        }
        true
    }

    fn take(&mut self, node: usize, lane: usize, sequence: u64) -> Option<Open> {
        let open = &mut self.nodes[node].lanes[lane].open;
        let at = open.iter().position(|open| open.sequence == sequence)?;
        Some(open.remove(at))
    }

    /// The batch of a slot is told not to have happened.
    fn deny(&mut self, node: usize, lane: usize, sequence: u64) {
        let open = self.take(node, lane, sequence).expect("the slot is open");
        self.denied.insert((number(node), self.nodes[node].incarnation, LANES[lane], sequence));
        self.tell(open.batch, Told::Denied);
    }

    fn tell(&mut self, batch: u8, told: Told) {
        let known = &mut self.told[usize::from(batch)];
        // An ack stands, whatever a second try is told.
        if !matches!(known, Told::Acked(_)) {
            *known = told;
        }
    }

    /// No answer came: what became of the slot stays unknown, and `lo` will pass it.
    fn give_up(&mut self, node: usize, lane: usize, sequence: u64, config: &Config) -> bool {
        let open = self.open_mut(node, lane, sequence).expect("the slot is open");
        if open.proposed.is_none() || !spend(&mut self.budget.gives_up) {
            return false;
        }
        if config.mutant == Some(Mutant::LostAnswerIsDenied) {
            self.deny(node, lane, sequence);
        } else {
            self.take(node, lane, sequence);
        }
        true
    }

    /// A proposal is applied.
    fn deliver(&mut self, proposal: &Proposal, reply: Reply, config: &Config) -> bool {
        let before = self.meta.high_watermark();
        let answer = self.meta.commit(proposal, config.batches, config.mutant);
        if answer == Answer::NotYet {
            // The node proposes it again as it was, so it stays on its way.
            return false;
        }
        self.proposals.remove(proposal);
        if self.meta.high_watermark() > before {
            self.log.push((proposal.batch, proposal.object));
        }
        if reply == Reply::IsLost {
            return true;
        }
        let Some((node, lane)) = self.owner(&proposal.object) else {
            return false;
        };
        let sequence = proposal.object.slot.sequence.get();
        if self.open_mut(node, lane, sequence).is_none() {
            return false;
        }
        match answer {
            Answer::At(offset) => {
                self.take(node, lane, sequence);
                self.tell(proposal.batch, Told::Acked(offset));
            }
            Answer::UnitRefused => self.deny(node, lane, sequence),
            Answer::BelowLo => {
                self.take(node, lane, sequence);
            }
            Answer::Closed => {
                self.crash(node);
            }
            Answer::NotYet => unreachable!("looked at above"),
        }
        true
    }

    fn crash(&mut self, node: usize) -> bool {
        let incarnation = self.nodes[node].incarnation;
        self.nodes[node] = Node { up: false, ..Node::start(incarnation) };
        true
    }

    fn restart(&mut self, node: usize, config: &Config) -> bool {
        if self.nodes[node].up {
            return false;
        }
        let kept = config.mutant == Some(Mutant::RestartKeepsIncarnation);
        let incarnation = if kept { self.nodes[node].incarnation } else { self.meta.register(number(node)) };
        self.nodes[node] = Node::start(incarnation);
        true
    }

    fn close(&mut self, node: usize) -> bool {
        self.meta.close(number(node), self.nodes[node].incarnation);
        true
    }

    /// A node without open slots tells that it has none.
    fn advance_lo(&mut self, node: usize, lane: usize) -> bool {
        let Node { up, incarnation, lanes } = &self.nodes[node];
        let slot = slot(number(node), *incarnation, LANES[lane], lanes[lane].next);
        let known = self.meta.state.lane(slot.node, slot.incarnation, slot.lane);
        let behind = known.is_some_and(|known| known.lo() < SlotSequence::new(lanes[lane].next));
        if !up || !lanes[lane].open.is_empty() || !behind || !spend(&mut self.budget.advances) {
            return false;
        }
        self.meta.advance_lo(slot);
        true
    }

    fn sweep_orphan(&mut self, object: ObjectId, config: &Config) -> bool {
        let state = &self.meta.state;
        let orphan = match config.mutant {
            Some(Mutant::SweepUnreferenced) => state.object(&object).is_none(),
            Some(Mutant::SweepIgnoresGarbageList) => {
                let garbage = state.garbage().any(|(id, _)| id == object);
                let lane = state.lane(object.slot.node, object.slot.incarnation, object.slot.lane);
                let passed = lane.is_none_or(|lane| object.slot.sequence < lane.lo());
                state.is_orphan(&object) || (garbage && passed)
            }
            _ => state.is_orphan(&object),
        };
        orphan && self.store.remove(&object).is_some()
    }

    fn sweep_garbage(&mut self, object: ObjectId, config: &Config) -> bool {
        let died = self.meta.state.garbage().find(|(id, _)| *id == object).map(|(_, entry)| entry.died.get());
        let Some(died) = died else {
            return false;
        };
        let pinned = self.reader.as_ref().is_some_and(|reader| reader.pin < died);
        if pinned && config.mutant != Some(Mutant::SweepIgnoresPins) {
            return false;
        }
        self.store.remove(&object);
        self.meta.forget(object);
        true
    }

    /// A reader looks up where everything lies; it will read at any later moment.
    fn start_read(&mut self) -> bool {
        let partition = self.meta.state.partition(PARTITION).expect("the topic is there");
        let extents = partition.extents_from(partition.log_start());
        let batch = |base: u64| self.log[usize::try_from(base).expect("a short log")].0;
        let plan: Vec<_> = extents.map(|extent| (extent.object, batch(extent.base.get()))).collect();
        if plan.is_empty() || self.reader.is_some() || !spend(&mut self.budget.readers) {
            return false;
        }
        self.reader = Some(Reader { pin: self.meta.state.applied().get(), plan });
        true
    }

    /// What is wrong with this state, if anything.
    pub(crate) fn violation(&self) -> Option<Violation> {
        if self.reused {
            return Some(Violation::NameReused);
        }
        let partition = self.meta.state.partition(PARTITION).expect("the topic is there");
        let high_watermark = self.meta.high_watermark();
        if high_watermark != self.log.len() as u64 {
            return Some(Violation::Gap);
        }
        for extent in partition.extents_from(partition.log_start()) {
            for base in extent.base.get()..extent.end.get() {
                let (batch, _) = self.log[usize::try_from(base).expect("a short log")];
                if self.store.get(&extent.object) != Some(&batch) {
                    return Some(Violation::Unreadable);
                }
            }
        }
        let holds = |(object, batch): &(ObjectId, u8)| self.store.get(object) == Some(batch);
        if self.reader.as_ref().is_some_and(|reader| !reader.plan.iter().all(holds)) {
            return Some(Violation::ReaderFindsNothing);
        }
        let misplaced = |(batch, told): (u8, &Told)| match told {
            Told::Acked(offset) => {
                let found = usize::try_from(*offset).ok().and_then(|at| self.log.get(at));
                found.map(|(batch, _)| *batch) != Some(batch)
            }
            _ => false,
        };
        if (0..).zip(&self.told).any(misplaced) {
            return Some(Violation::AckedIsNotThere);
        }
        self.log_violation()
    }

    fn log_violation(&self) -> Option<Violation> {
        for (at, (batch, object)) in self.log.iter().enumerate() {
            let slot = object.slot;
            let key = (slot.node.get(), slot.incarnation.get(), slot.lane, slot.sequence.get());
            if self.denied.contains(&key) {
                return Some(Violation::DeniedHappened);
            }
            for (later, later_object) in &self.log[at + 1..] {
                if later == batch {
                    return Some(Violation::Duplicate);
                }
                let other = later_object.slot;
                let same_lane =
                    (other.node, other.incarnation, other.lane) == (slot.node, slot.incarnation, slot.lane);
                if same_lane && other.sequence < slot.sequence {
                    return Some(Violation::OutOfOrder);
                }
            }
        }
        let batches = || self.log.iter().map(|(batch, _)| usize::from(*batch));
        let in_order = match self.batches {
            // What the producer skipped may be missing, but nothing overtakes.
            Batches::Plain(_) => batches().is_sorted(),
            Batches::Idempotent(_) => batches().eq(0..self.log.len()),
        };
        (!in_order).then_some(Violation::OutOfOrder)
    }

    /// Objects that stay in the store though nothing needs them and nothing will.
    pub(crate) fn leaked(&self) -> Option<ObjectId> {
        let state = &self.meta.state;
        let may_commit = |object: &ObjectId| {
            let slot = object.slot;
            let lane = state.lane(slot.node, slot.incarnation, slot.lane);
            lane.is_some_and(|lane| !lane.is_decided(slot.sequence))
        };
        let known = |object: &ObjectId| {
            state.object(object).is_some()
                || state.is_orphan(object)
                || state.garbage().any(|(garbage, _)| garbage == *object)
        };
        self.store.keys().find(|object| !known(object) && !may_commit(object)).copied()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// What the metadata refers to is not in the store.
    Unreadable,
    /// A pinned reader's object is gone.
    ReaderFindsNothing,
    /// An acked batch is not at its offset.
    AckedIsNotThere,
    /// A batch is in the log twice.
    Duplicate,
    /// A lane's slots are in the log in another order, or a producer's batches are.
    OutOfOrder,
    /// What was told not to have happened did.
    DeniedHappened,
    /// One name for two byte strings.
    NameReused,
    /// The high watermark is not the number of records.
    Gap,
    /// An object that nothing needs would stay for ever.
    Leak,
    /// The metadata breaks an invariant of its own.
    Metadata,
}
