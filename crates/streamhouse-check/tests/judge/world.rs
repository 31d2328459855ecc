//! A small world that keeps every promise, and the history that its clients write: several nodes that lag, producers
//! with and without idempotence, lost answers, late writes, trims, consumers that restart.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use streamhouse_check::{
    Acked, Append, Audit, Digest, Event, Failed, FinalRead, Happened, Micros, Observed, OpId, OutOfRange,
    Poll, Restart, Trim,
};
use streamhouse_types::{LogIndex, NodeId, Offset};

use crate::members;

const PARTITIONS: usize = 3;
const NODES: usize = 3;

/// The history of a run that this seed decides.
pub(crate) fn history(seed: u64) -> Vec<Event<'static>> {
    let mut world = World::new(seed);
    for _ in 0..900 {
        world.step();
    }
    let members = members::lines(seed, world.now);
    world.lines.extend(members);
    world.close()
}

pub(crate) fn partition_name(partition: usize) -> String {
    format!("t/{partition}")
}

/// How far a partition is: high watermark and log start.
#[derive(Clone, Copy, Default)]
struct Marks {
    end: usize,
    start: usize,
}

struct Op {
    id: OpId,
    partition: usize,
    values: Vec<Digest>,
}

struct Producer {
    name: String,
    idempotent: bool,
    sequences: [u64; PARTITIONS],
    sent: VecDeque<Op>,
}

struct Consumer {
    name: String,
    next: [Option<usize>; PARTITIONS],
    busy_until: u64,
}

#[derive(Default)]
struct Node {
    applied: usize,
    marks: [Marks; PARTITIONS],
}

struct World {
    rng: StdRng,
    now: u64,
    next_op: u64,
    born: usize,
    lines: Vec<(u64, Event<'static>)>,
    logs: [Vec<Digest>; PARTITIONS],
    starts: [usize; PARTITIONS],
    /// What was committed; the place in it is the read token.
    commits: Vec<(usize, Marks)>,
    nodes: [Node; NODES],
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    /// Unanswered writes that are still under way.
    late: Vec<Op>,
    /// Answered tokens and when.
    tokens: Vec<(u64, usize)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 1_000,
            next_op: 0,
            born: 0,
            lines: Vec::new(),
            logs: Default::default(),
            starts: Default::default(),
            commits: Vec::new(),
            nodes: Default::default(),
            producers: Vec::new(),
            consumers: Vec::new(),
            late: Vec::new(),
            tokens: Vec::new(),
        };
        for place in 0..4 {
            let producer = world.idempotent_producer();
            world.producers.push(Producer { idempotent: place < 3, ..producer });
        }
        for place in 0..3 {
            world.consumers.push(Consumer {
                name: format!("c{place}"),
                next: Default::default(),
                busy_until: 0,
            });
        }
        world
    }

    fn idempotent_producer(&mut self) -> Producer {
        self.born += 1;
        let name = format!("p{}", self.born);
        Producer { name, idempotent: true, sequences: Default::default(), sent: VecDeque::new() }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn soon(&mut self) -> u64 {
        self.now + self.rng.random_range(1..300)
    }

    fn line(&mut self, at: u64, event: Event<'static>) {
        self.lines.push((at, event));
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(5..40);
        match self.below(100) {
            0..30 => self.send(),
            30..55 => self.decide(),
            55..57 => self.commit_late(),
            57..69 => self.apply(),
            69..92 => self.poll(),
            92..97 => self.observe(),
            97..98 => self.trim(),
            _ => self.restart(),
        }
    }

    fn send(&mut self) {
        let (place, partition) = (self.below(self.producers.len()), self.below(PARTITIONS));
        let records = if self.below(3) == 0 { 3 } else { 1 };
        let producer = &mut self.producers[place];
        let sequence = producer.sequences[partition];
        producer.sequences[partition] += records + u64::from(sequence % 7 == 3);
        let value = |number: u64| Digest::of(format!("{}-{partition}-{number}", producer.name).as_bytes());
        let values: Vec<Digest> = (sequence..sequence + records).map(value).collect();
        let id = OpId::new(self.next_op);
        self.next_op += 1;
        let event = Event::Append(Append {
            client: "w".into(),
            op: id,
            at: Micros::new(self.now),
            producer: producer.name.clone().into(),
            idempotent: producer.idempotent,
            partition: partition_name(partition).into(),
            sequence,
            values: values.clone(),
        });
        producer.sent.push_back(Op { id, partition, values });
        self.line(self.now, event);
    }

    /// The oldest write of some producer meets its fate.
    fn decide(&mut self) {
        let place = self.below(self.producers.len());
        let Some(op) = self.producers[place].sent.pop_front() else { return };
        match (self.below(100), self.producers[place].idempotent) {
            (0..80, _) => {
                let offset = self.commit(&op);
                let ack = self.ack(&op, offset);
                self.line(ack.at.get(), Event::Acked(ack));
            }
            (80..86, _) => self.fail(&op, Happened::No),
            (86..94, false) => {
                let first = self.commit(&op);
                let second = self.commit(&op);
                let offset = if self.below(2) == 0 { first } else { second };
                let ack = self.ack(&op, offset);
                self.line(ack.at.get(), Event::Acked(Acked { retried: true, ..ack }));
            }
            _ => self.lose_answer(place, op),
        }
    }

    fn lose_answer(&mut self, place: usize, op: Op) {
        let idempotent = self.producers[place].idempotent;
        if self.below(3) > 0 {
            self.fail(&op, Happened::Maybe);
        }
        match self.below(3) {
            0 => {}
            1 => {
                self.commit(&op);
                if !idempotent {
                    self.late.push(op);
                }
            }
            _ => self.late.push(op),
        }
        if idempotent {
            // It starts over under a new id; what it still had under way is given up.
            let new = self.idempotent_producer();
            let old = std::mem::replace(&mut self.producers[place], new);
            old.sent.iter().for_each(|op| self.fail(op, Happened::Maybe));
        }
    }

    fn commit(&mut self, op: &Op) -> usize {
        let log = &mut self.logs[op.partition];
        let offset = log.len();
        log.extend(&op.values);
        let marks = Marks { end: log.len(), start: self.starts[op.partition] };
        self.commits.push((op.partition, marks));
        self.now += 1;
        offset
    }

    fn commit_late(&mut self) {
        if !self.late.is_empty() {
            let place = self.below(self.late.len());
            let op = self.late.remove(place);
            self.commit(&op);
        }
    }

    fn ack(&mut self, op: &Op, offset: usize) -> Acked<'static> {
        let (at, token, node) = (self.soon(), self.commits.len(), self.below(NODES));
        self.tokens.push((at, token));
        Acked {
            client: "w".into(),
            op: op.id,
            at: Micros::new(at),
            offset: Offset::new(offset as u64),
            token: Some(LogIndex::new(token as u64)),
            node: Some(NodeId::new(node as u64)),
            retried: false,
        }
    }

    fn fail(&mut self, op: &Op, happened: Happened) {
        let at = self.soon();
        let (client, error) = ("w".into(), Some("no answer".into()));
        self.line(at, Event::Failed(Failed { client, op: op.id, at: Micros::new(at), happened, error }));
    }

    fn apply(&mut self) {
        let (node, commits) = (self.below(NODES), self.below(8));
        self.apply_until(node, self.nodes[node].applied + commits);
    }

    fn apply_until(&mut self, node: usize, index: usize) {
        let node = &mut self.nodes[node];
        while node.applied < index.min(self.commits.len()) {
            let (partition, marks) = self.commits[node.applied];
            node.marks[partition] = marks;
            node.applied += 1;
        }
    }

    fn poll(&mut self) {
        let (consumer, partition) = (self.below(self.consumers.len()), self.below(PARTITIONS));
        if self.consumers[consumer].busy_until >= self.now {
            return;
        }
        let node = self.below(NODES);
        let begin = (self.now - self.rng.random_range(0..300)).max(self.consumers[consumer].busy_until);
        let mut token = None;
        if self.below(2) == 0 {
            token = self.tokens.iter().filter(|(at, _)| *at < begin).map(|(_, token)| *token).max();
            self.apply_until(node, token.unwrap_or(0));
        }
        let marks = self.nodes[node].marks[partition];
        let anywhere = marks.start + self.below(marks.end - marks.start + 1);
        let known = self.consumers[consumer].next[partition];
        let next = known.unwrap_or(anywhere);
        if next < marks.start {
            return self.out_of_range(consumer, partition, (node, begin, next));
        }
        let end = marks.end.min(next + 1 + self.below(20)).max(next);
        let event = self.answer(consumer, partition, (node, begin), next..end);
        let Event::Poll(mut poll) = event else { return };
        poll.token = token.map(|token| LogIndex::new(token as u64));
        if self.below(5) == 0 && known.is_some() {
            poll.from = None;
        }
        self.consumers[consumer].next[partition] = Some(end);
        let at = poll.end.get();
        self.line(at, Event::Poll(poll));
    }

    /// What a node gives out of its log, which may be behind.
    fn answer(
        &mut self,
        consumer: usize,
        partition: usize,
        node: (usize, u64),
        offsets: std::ops::Range<usize>,
    ) -> Event<'static> {
        let (node, begin) = node;
        let end = self.soon();
        let marks = self.nodes[node].marks[partition];
        let consumer = &mut self.consumers[consumer];
        consumer.busy_until = end;
        let from = Some(Offset::new(offsets.start as u64));
        let record = |offset: usize| (Offset::new(offset as u64), self.logs[partition][offset]);
        Event::Poll(Poll {
            consumer: consumer.name.clone().into(),
            partition: partition_name(partition).into(),
            begin: Micros::new(begin),
            end: Micros::new(end),
            node: Some(NodeId::new(node as u64)),
            from,
            records: offsets.map(record).collect(),
            high_watermark: Some(Offset::new(marks.end as u64)),
            log_start: Some(Offset::new(marks.start as u64)),
            token: None,
        })
    }

    fn out_of_range(&mut self, consumer: usize, partition: usize, asked: (usize, u64, usize)) {
        let (node, begin, position) = asked;
        let end = self.soon();
        let marks = self.nodes[node].marks[partition];
        let name = self.consumers[consumer].name.clone();
        let event = Event::OutOfRange(OutOfRange {
            consumer: name.clone().into(),
            partition: partition_name(partition).into(),
            begin: Micros::new(begin),
            end: Micros::new(end),
            node: Some(NodeId::new(node as u64)),
            position: Offset::new(position as u64),
            high_watermark: Offset::new(marks.end as u64),
            log_start: Offset::new(marks.start as u64),
            token: None,
        });
        self.line(end, event);
        self.consumers[consumer].busy_until = end + 1;
        self.consumers[consumer].next = Default::default();
        self.line(end + 1, Event::Restart(Restart { consumer: name.into(), at: Micros::new(end + 1) }));
    }

    fn observe(&mut self) {
        let (node, partition) = (self.below(NODES), self.below(PARTITIONS));
        let (begin, end) = (self.now - self.rng.random_range(0..200), self.soon());
        let marks = self.nodes[node].marks[partition];
        let event = Event::Observed(Observed {
            node: NodeId::new(node as u64),
            partition: partition_name(partition).into(),
            begin: Micros::new(begin),
            end: Micros::new(end),
            high_watermark: Offset::new(marks.end as u64),
            log_start: Offset::new(marks.start as u64),
        });
        self.line(end, event);
    }

    fn trim(&mut self) {
        let partition = self.below(PARTITIONS);
        let (start, end) = (self.starts[partition], self.logs[partition].len());
        let before = start + self.below(end - start + 1) / 3;
        let event = Event::Trim(Trim {
            partition: partition_name(partition).into(),
            before: Offset::new(before as u64),
            at: Micros::new(self.now),
        });
        self.line(self.now, event);
        self.now += 1;
        self.starts[partition] = before;
        self.commits.push((partition, Marks { end, start: before }));
    }

    fn restart(&mut self) {
        let consumer = self.below(self.consumers.len());
        let consumer = &mut self.consumers[consumer];
        if consumer.busy_until < self.now {
            consumer.next = Default::default();
            let event = Restart { consumer: consumer.name.clone().into(), at: Micros::new(self.now) };
            self.line(self.now, Event::Restart(event));
        }
    }

    /// Some writes that nobody answered land; then everything is read.
    fn close(mut self) -> Vec<Event<'static>> {
        for place in 0..self.producers.len() {
            while self.below(4) > 0
                && let Some(op) = self.producers[place].sent.pop_front()
            {
                self.commit(&op);
            }
        }
        self.now += 1_000;
        self.line(self.now, Event::FinalRead(FinalRead { at: Micros::new(self.now) }));
        self.consumers.push(Consumer {
            name: "final".into(),
            next: Default::default(),
            busy_until: self.now,
        });
        let (reader, node) = (self.consumers.len() - 1, self.below(NODES));
        self.apply_until(node, self.commits.len());
        for partition in 0..PARTITIONS {
            let mut next = self.starts[partition];
            while next < self.logs[partition].len() {
                self.now += 400;
                let end = self.logs[partition].len().min(next + 50);
                let event = self.answer(reader, partition, (node, self.now - 1), next..end);
                let Event::Poll(poll) = &event else { continue };
                self.line(poll.end.get(), event);
                next = end;
            }
        }
        self.now += 1_000;
        let audit =
            Audit { at: Micros::new(self.now), referenced: 7, present: 7, intact: 7, ..Audit::default() };
        self.line(self.now, Event::Audit(audit));
        self.lines.sort_by_key(|(at, _)| *at);
        self.lines.into_iter().map(|(_, event)| event).collect()
    }
}
