//! The outbox against a model of the server, over many seeds: sessions break, answers get lost, what a broken session
//! had taken in is stored later or never, refusals come, producers are forgotten, homes move, nodes go down, time runs
//! out. Whatever happens:
//!
//! - no record is in the log twice;
//! - an acknowledged record is in the log, at its offset;
//! - a record whose error says that it did not happen is not in the log, then or ever;
//! - the log has each partition's records in the order of sending: with sequences all of them, without those that were
//!   acknowledged;
//! - every record is decided in the end;
//! - a partition is never on its way to two nodes at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streamhouse_env::{Rng as _, SeededRng};
use streamhouse_proto::rpc;
use streamhouse_types::batch::{BatchBuilder, BatchLimits, Compression, RecordBatch, RecordRef};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::*;
use crate::producer::batch::Undecided;
use crate::producer::ticket::BatchFate;
use streamhouse_api::ReadToken;

const PARTITIONS: u64 = 2;
const TIMEOUT: Duration = Duration::from_secs(120);

fn refusal(code: ErrorCode) -> Rejection {
    let info = tonic_types::pb::ErrorInfo { reason: code.reason().to_owned(), ..Default::default() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: prost::Message::encode_to_vec(&info),
    };
    Rejection::from_rpc(&rpc::Status { code: code.grpc_code(), message: String::new(), details: vec![any] })
}

/// What a partition knows of a producer.
#[derive(Debug, Default)]
struct Producer {
    epoch: ProducerEpoch,
    next: Sequence,
    /// The first sequences and offsets of its batches under this epoch.
    recent: Vec<(Sequence, u64)>,
}

/// What the metadata knows and does.
#[derive(Debug, Default)]
struct Server {
    /// By partition: each record's number.
    logs: BTreeMap<u32, Vec<u64>>,
    producers: BTreeMap<(u64, u32), Producer>,
    next_producer: u64,
}

impl Server {
    fn append(&mut self, partition: u32, bytes: &Bytes) -> Result<BatchAck, ErrorCode> {
        let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("a sound batch");
        let header = batch.header();
        let log = self.logs.entry(partition).or_default();
        let base = log.len() as u64;
        let mut duplicate = None;
        if let Some(stamp) = header.producer {
            let key = (stamp.id.get(), partition);
            match self.producers.get(&key) {
                None if stamp.first_sequence != Sequence::ZERO => return Err(ErrorCode::UnknownProducer),
                Some(known) if stamp.epoch < known.epoch => return Err(ErrorCode::ProducerFenced),
                Some(known) if stamp.epoch > known.epoch => {
                    if stamp.first_sequence != Sequence::ZERO {
                        return Err(ErrorCode::OutOfOrderSequence);
                    }
                    self.producers.remove(&key);
                }
                Some(known) => {
                    let same = known.recent.iter().find(|(first, _)| *first == stamp.first_sequence);
                    duplicate = same.map(|(_, base)| *base);
                    if duplicate.is_none() && known.next != stamp.first_sequence {
                        return Err(ErrorCode::OutOfOrderSequence);
                    }
                }
                None => {}
            }
            if duplicate.is_none() {
                let known = self.producers.entry(key).or_default();
                known.epoch = stamp.epoch;
                known.next = stamp.first_sequence.after(header.record_count);
                known.recent.push((stamp.first_sequence, base));
            }
        }
        if duplicate.is_none() {
            let records = batch.records().expect("not compressed");
            log.extend(records.map(|record| {
                let value = record.expect("sound").value.expect("a value");
                u64::from_be_bytes(value[..].try_into().expect("a number"))
            }));
        }
        let base = Offset::new(duplicate.unwrap_or(base));
        Ok(BatchAck {
            base,
            append_time: None,
            duplicate: duplicate.is_some(),
            read_token: ReadToken::default(),
        })
    }
}

/// What the world does to the producer in a run.
#[derive(Debug, Clone, Copy)]
struct Setting {
    delivery: Delivery,
    nodes: u64,
}

struct World {
    rng: SeededRng,
    setting: Setting,
    outbox: Outbox,
    server: Server,
    /// Sessions that are being opened, with the producer id that they were begun with.
    opening: BTreeMap<NodeId, Option<Identity>>,
    /// By node: what is taken in by the open session and not answered.
    sessions: BTreeMap<NodeId, VecDeque<Outgoing>>,
    /// Batches behind a refused one that are there when it is refused: the server refuses them too.
    doomed: BTreeSet<(NodeId, u64)>,
    /// Taken in by sessions that broke: stored later, or never.
    ghosts: Vec<VecDeque<Outgoing>>,
    /// Nobody is let in there.
    down: BTreeSet<NodeId>,
    /// It is cut off from the others: it takes all and answers nothing.
    cut_off: Option<NodeId>,
    homes: BTreeMap<u32, v1::PartitionHome>,
    fates: Vec<(Arc<BatchFate>, Vec<u64>)>,
    next_record: u64,
    now: Duration,
    faults: bool,
    /// How many batches went home, and how many elsewhere.
    went: (u64, u64),
    forsaken: u64,
}

impl World {
    fn new(seed: u64, setting: Setting) -> Self {
        Self {
            rng: SeededRng::new(seed),
            setting,
            outbox: Outbox::new(setting.delivery, TIMEOUT),
            server: Server { next_producer: 1, ..Server::default() },
            opening: BTreeMap::new(),
            sessions: BTreeMap::new(),
            doomed: BTreeSet::new(),
            ghosts: Vec::new(),
            down: BTreeSet::new(),
            cut_off: None,
            homes: BTreeMap::new(),
            fates: Vec::new(),
            next_record: 0,
            now: Duration::from_secs(1),
            faults: true,
            went: (0, 0),
            forsaken: 0,
        }
    }

    fn chance(&self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn any_node(&self) -> NodeId {
        NodeId::new(1 + self.rng.below(self.setting.nodes))
    }

    fn open_node(&self) -> Option<NodeId> {
        let nodes: Vec<_> = self.sessions.keys().copied().collect();
        let at = self.rng.below(nodes.len().max(1) as u64);
        nodes.get(usize::try_from(at).expect("small")).copied()
    }

    fn take_batch(&mut self) {
        let partition = u32::try_from(self.rng.below(PARTITIONS)).expect("small");
        let mut builder = BatchBuilder::new(Compression::None);
        let mut records = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let value = self.next_record.to_be_bytes();
            let timestamp = Timestamp::from_millis(0);
            builder
                .push(&RecordRef { key: None, value: Some(&value), headers: &[], timestamp })
                .expect("it fits");
            records.push(self.next_record);
            self.next_record += 1;
        }
        let fate = BatchFate::new(PartitionIndex::new(partition));
        self.fates.push((fate.clone(), records));
        self.outbox.push(Batch::new(builder, Undecided::new(fate), None, self.now + TIMEOUT));
    }

    /// Begins to open what the outbox wants, or has another opening done.
    fn open(&mut self) {
        if let Some((node, asked)) = self.opening.pop_first().filter(|_| self.chance(50)) {
            return self.opened(node, asked);
        }
        let mut wanted: Vec<_> = self.outbox.wanted().iter().copied().collect();
        if self.outbox.is_stranded() {
            wanted.push(self.any_node());
        }
        for node in wanted {
            let takes_id = self.setting.delivery == Delivery::ExactlyOnce && self.outbox.identity().is_none();
            let may_open = !takes_id || self.opening.is_empty();
            if may_open && !self.sessions.contains_key(&node) {
                self.opening.insert(node, self.outbox.identity());
            }
        }
    }

    fn opened(&mut self, node: NodeId, asked: Option<Identity>) {
        if self.down.contains(&node) || (self.faults && self.chance(20)) {
            let code = if self.faults && self.chance(5) {
                ErrorCode::TopicNotFound
            } else {
                ErrorCode::ShuttingDown
            };
            self.outbox.not_opened(node, &refusal(code));
            return;
        }
        if asked != self.outbox.identity() {
            return;
        }
        let identity = match (self.setting.delivery, asked) {
            (Delivery::AtMostOnce, _) => None,
            (_, Some(identity)) => Some(identity),
            (_, None) => {
                self.server.next_producer += 1;
                let id = ProducerId::new(self.server.next_producer);
                Some(Identity { id, epoch: ProducerEpoch::new(0) })
            }
        };
        self.outbox.opened(node, identity, 100 + self.rng.below(2_000), self.now);
        self.sessions.insert(node, VecDeque::new());
        self.tell_homes();
    }

    fn tell_homes(&mut self) {
        let homes: Vec<_> = self.homes.values().copied().collect();
        self.outbox.learn(&homes);
    }

    /// A partition moves, and the producer may hear of it.
    fn move_home(&mut self) {
        let partition = u32::try_from(self.rng.below(PARTITIONS)).expect("small");
        let epoch = self.homes.get(&partition).map_or(0, |home| home.epoch) + 1;
        let node_id = self.any_node().get();
        self.homes.insert(partition, v1::PartitionHome { partition, node_id, epoch });
        if self.chance(80) {
            self.tell_homes();
        }
    }

    fn lose(&mut self, node: NodeId) {
        self.doomed.retain(|(doomed, _)| *doomed != node);
        self.ghosts.extend(self.sessions.remove(&node));
        self.outbox.session_lost(node, &Rejection::connection_lost("lost"));
    }

    /// A broken session's next batch reaches the log, or all of them are dropped.
    fn haunt(&mut self) {
        let at = usize::try_from(self.rng.below(self.ghosts.len() as u64 + 1)).expect("small");
        let Some(at) = at.checked_sub(1) else { return };
        if self.chance(20) {
            self.ghosts.swap_remove(at);
        } else if let Some(ghost) = self.ghosts[at].pop_front() {
            let _ = self.server.append(ghost.partition.get(), &ghost.bytes);
        }
    }

    fn send(&mut self) {
        let Some(node) = self.open_node() else { return };
        let Some(outgoing) = self.outbox.next(node, self.now) else { return };
        let partition = outgoing.partition.get();
        let elsewhere = self.sessions.iter().filter(|(other, _)| **other != node);
        let mut elsewhere = elsewhere.flat_map(|(_, session)| session);
        let overtakes = elsewhere.any(|other| other.partition == outgoing.partition);
        assert!(!overtakes, "partition {partition} is on its way to two nodes at once");
        let is_home = self.homes.get(&partition).is_some_and(|home| home.node_id == node.get());
        self.went = (self.went.0 + u64::from(is_home), self.went.1 + u64::from(!is_home));
        self.sessions.get_mut(&node).expect("open").push_back(outgoing);
    }

    fn answer(&mut self) {
        let Some(node) = self.open_node().filter(|node| self.cut_off != Some(*node)) else { return };
        let session = self.sessions.get_mut(&node).expect("open");
        let Some(outgoing) = session.pop_front() else { return };
        let partition = outgoing.partition.get();
        let sequence = outgoing.session_sequence;
        let roll = if self.faults { self.rng.below(100) } else { 0 };
        let refused = match roll {
            _ if self.doomed.remove(&(node, sequence)) => Some(ErrorCode::StoreUnavailable),
            0..70 => self.server.append(partition, &outgoing.bytes).err(),
            70..80 => Some(ErrorCode::StoreUnavailable),
            80..85 => {
                let _ = self.server.append(partition, &outgoing.bytes);
                Some(ErrorCode::CommitUnknown)
            }
            85..90 => Some(ErrorCode::CommitUnknown),
            90..92 => Some(ErrorCode::InvalidBatch),
            92..96 => {
                self.outbox.go_away(node);
                return session.push_front(outgoing);
            }
            _ => {
                session.push_front(outgoing);
                return self.lose(node);
            }
        };
        let known = match refused {
            // The ack names where the batch lies, also when it is a repeat.
            None => {
                let ack = self.find(partition, &outgoing.bytes);
                self.outbox.acked(node, sequence, ack, self.now)
            }
            Some(code) => {
                let behind = session.iter().filter(|other| other.partition == outgoing.partition);
                let plain = self.setting.delivery == Delivery::AtMostOnce;
                // The answer crosses the others, which were not there yet when it left.
                let there = if plain { self.rng.below(4) } else { 0 };
                let there = behind.take(usize::try_from(there).expect("small"));
                self.doomed.extend(there.map(|other| (node, other.session_sequence)));
                if self.setting.nodes > 1 && self.chance(50) {
                    self.outbox.go_away(node);
                }
                self.outbox.nacked(node, sequence, refusal(code), self.now)
            }
        };
        known.expect("it was sent");
    }

    fn find(&mut self, partition: u32, bytes: &Bytes) -> BatchAck {
        let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("sound");
        let first =
            batch.records().expect("open").next().expect("a record").expect("sound").value.expect("a value");
        let first = u64::from_be_bytes(first[..].try_into().expect("a number"));
        let log = &self.server.logs[&partition];
        let base = log.iter().position(|record| *record == first).expect("it was appended") as u64;
        BatchAck {
            base: Offset::new(base),
            append_time: None,
            duplicate: false,
            read_token: ReadToken::default(),
        }
    }

    /// Nodes that have been silent although all has moved away from them.
    fn give_up(&mut self) {
        let silent: Vec<_> =
            self.outbox.silent(self.now.saturating_sub(Duration::from_millis(200))).collect();
        for node in silent {
            if self.outbox.is_forsaken(node) {
                self.forsaken += 1;
                self.lose(node);
            }
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        for node in self.outbox.expire(self.now) {
            self.lose(node);
        }
        match self.rng.below(12) {
            0..3 if self.faults => self.take_batch(),
            3 => self.haunt(),
            4 => self.open(),
            5..7 => self.send(),
            // Producers are forgotten after a day of silence: nothing is in doubt then.
            7 if self.outbox.is_empty() && self.ghosts.iter().all(VecDeque::is_empty) => {
                self.server.producers.clear();
            }
            7 if self.faults && self.chance(1) => self.now += Duration::from_secs(40 + self.rng.below(60)),
            8 if self.faults && self.setting.nodes > 1 && self.chance(30) => self.move_home(),
            8 if self.faults && self.setting.nodes > 1 && self.chance(10) => {
                let node = self.any_node();
                if !self.down.remove(&node) {
                    self.down.insert(node);
                    self.lose(node);
                }
            }
            8 if self.faults && self.setting.nodes > 1 && self.chance(10) => {
                self.cut_off = Some(self.any_node()).filter(|_| self.chance(70));
            }
            8 => self.give_up(),
            _ => self.answer(),
        }
        while let Some(node) = self.outbox.session_over(self.now) {
            let session = self.sessions.remove(&node).expect("open");
            assert!(session.is_empty(), "what is on its way is lost");
            self.outbox.session_closed(node);
        }
    }

    fn check(&self, seed: u64) {
        let given_up: BTreeSet<u64> = self
            .fates
            .iter()
            .filter(|(fate, _)| !matches!(fate.outcome(), Some(Ok(_))))
            .flat_map(|(_, records)| records.iter().copied())
            .collect();
        for (partition, log) in &self.server.logs {
            let mut sorted = log.clone();
            sorted.sort_unstable();
            assert!(sorted.is_sorted_by(|a, b| a < b), "seed {seed}: partition {partition} repeats: {log:?}");
            // What was given up while in doubt may still come late. With sequences it then comes in its place, or not at
            // all; without them only what was acknowledged has one.
            let has_place =
                |record: &&u64| self.setting.delivery == Delivery::ExactlyOnce || !given_up.contains(*record);
            let placed = log.iter().filter(has_place);
            assert!(placed.is_sorted(), "seed {seed}: partition {partition} reorders: {log:?}");
        }
        for (fate, records) in &self.fates {
            let log = self.server.logs.get(&fate.partition().get()).map_or(&[][..], Vec::as_slice);
            match fate.outcome().unwrap_or_else(|| panic!("seed {seed}: {records:?} are not decided")) {
                Ok(ack) => {
                    let base = usize::try_from(ack.base.get()).expect("small");
                    assert_eq!(
                        &log[base..base + records.len()],
                        records,
                        "seed {seed}: not where it was acknowledged"
                    );
                }
                Err(error) if !error.may_have_happened() => {
                    let stored = log.contains(&records[0]);
                    assert!(!stored, "seed {seed}: {records:?} are stored but said {error:?}");
                }
                Err(_) => {}
            }
        }
    }
}

fn run(seed: u64, setting: Setting) -> World {
    let mut world = World::new(seed, setting);
    for _ in 0..600 {
        world.step();
    }
    world.faults = false;
    world.cut_off = None;
    // The others have to do without a node, even if it is home to something.
    world.down.retain(|node| node.get() == 2);
    for _ in 0..20_000 {
        world.step();
        if world.outbox.is_empty() {
            break;
        }
    }
    // What broken sessions still hold may be stored at any time.
    for mut ghosts in std::mem::take(&mut world.ghosts) {
        while let Some(ghost) = ghosts.pop_front() {
            let _ = world.server.append(ghost.partition.get(), &ghost.bytes);
        }
    }
    world.check(seed);
    world
}

fn check_many(seeds: u64, nodes: u64) {
    let (mut stored, mut failed, mut renamed) = (0, 0, 0);
    let (mut home, mut elsewhere, mut forsaken) = (0, 0, 0);
    for seed in 0..seeds {
        let world = run(seed, Setting { delivery: Delivery::ExactlyOnce, nodes });
        stored += world.fates.iter().filter(|(fate, _)| matches!(fate.outcome(), Some(Ok(_)))).count() as u64;
        failed +=
            world.fates.iter().filter(|(fate, _)| matches!(fate.outcome(), Some(Err(_)))).count() as u64;
        let epoch = world.outbox.identity().map_or(0, |identity| identity.epoch.get());
        renamed += world.server.next_producer + u64::from(epoch);
        (home, elsewhere) = (home + world.went.0, elsewhere + world.went.1);
        forsaken += world.forsaken;
    }
    // The runs did go through what they are about.
    assert!(
        stored > seeds * 50 && failed > seeds * 2 && renamed > seeds * 2,
        "{stored} stored, {failed} failed, {renamed} ids and epochs"
    );
    let some = if nodes > 1 { seeds } else { 0 };
    assert!(home >= some * 10 && elsewhere >= some * 10, "{home} went home, {elsewhere} elsewhere");
    assert!(forsaken >= some / 20, "{forsaken} nodes were given up");
}

#[test]
fn nothing_is_lost_repeated_reordered_or_lied_about() {
    check_many(400, 1);
}

#[test]
fn nothing_is_lost_repeated_reordered_or_lied_about_over_several_nodes() {
    check_many(200, 3);
}

#[test]
fn without_sequences_nothing_is_repeated_or_lied_about() {
    for seed in 0..60 {
        run(seed, Setting { delivery: Delivery::AtMostOnce, nodes: 1 });
        run(seed, Setting { delivery: Delivery::AtMostOnce, nodes: 3 });
    }
}

const NOW: Duration = Duration::from_secs(10);
const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

fn home(partition: u32, node: NodeId, epoch: u32) -> v1::PartitionHome {
    v1::PartitionHome { partition, node_id: node.get(), epoch }
}

/// An outbox with a session with each of `nodes`.
fn outbox_with(delivery: Delivery, nodes: &[NodeId]) -> Outbox {
    let mut outbox = Outbox::new(delivery, TIMEOUT);
    let identity = Identity { id: ProducerId::new(7), epoch: ProducerEpoch::new(0) };
    for node in nodes {
        let identity = (delivery == Delivery::ExactlyOnce).then_some(identity);
        outbox.opened(*node, identity, 1 << 20, NOW);
    }
    outbox
}

fn push(outbox: &mut Outbox, partition: u32) {
    let mut builder = BatchBuilder::new(Compression::None);
    let timestamp = Timestamp::from_millis(0);
    builder.push(&RecordRef { key: None, value: None, headers: &[], timestamp }).expect("it fits");
    let fate = BatchFate::new(PartitionIndex::new(partition));
    outbox.push(Batch::new(builder, Undecided::new(fate), None, NOW + TIMEOUT));
}

fn acked(outbox: &mut Outbox, node: NodeId, session_sequence: u64) {
    let base = Offset::ZERO;
    let ack = BatchAck { base, append_time: None, duplicate: false, read_token: ReadToken::default() };
    outbox.acked(node, session_sequence, ack, NOW).expect("it was sent");
}

#[test]
fn a_home_whose_session_is_on_its_way_is_waited_for_and_one_that_fails_is_not() {
    let mut outbox = outbox_with(Delivery::ExactlyOnce, &[ONE]);
    outbox.learn(&[home(0, TWO, 1)]);
    push(&mut outbox, 0);
    assert!(outbox.next(ONE, NOW).is_none());
    assert!(outbox.wanted().contains(&TWO) && !outbox.is_stranded());
    outbox.not_opened(TWO, &refusal(ErrorCode::ShuttingDown));
    assert!(outbox.next(ONE, NOW).is_some(), "any node takes it");
    assert!(outbox.wanted().contains(&TWO), "the home is tried again");
    let identity = outbox.identity();
    outbox.opened(TWO, identity, 1 << 20, NOW);
    acked(&mut outbox, ONE, 0);
    push(&mut outbox, 0);
    assert!(outbox.next(TWO, NOW).is_some(), "it is at home");
    outbox.session_lost(TWO, &Rejection::connection_lost("lost"));
    assert!(outbox.next(ONE, NOW).is_some(), "nobody waits for a home that was lost");
}

#[test]
fn a_partition_goes_on_where_it_is_until_its_new_home_is_open_and_all_is_answered() {
    let mut outbox = outbox_with(Delivery::AtMostOnce, &[ONE]);
    outbox.learn(&[home(0, ONE, 1)]);
    push(&mut outbox, 0);
    assert!(outbox.next(ONE, NOW).is_some());
    outbox.learn(&[home(0, TWO, 2)]);
    push(&mut outbox, 0);
    assert!(outbox.next(ONE, NOW).is_some(), "the new home is not open yet");
    outbox.opened(TWO, None, 1 << 20, NOW);
    push(&mut outbox, 0);
    assert!(outbox.next(ONE, NOW).is_none() && outbox.next(TWO, NOW).is_none());
    acked(&mut outbox, ONE, 0);
    assert!(outbox.next(TWO, NOW).is_none(), "one more is on its way");
    acked(&mut outbox, ONE, 1);
    assert!(outbox.next(TWO, NOW).is_some());
}

#[test]
fn sequences_begin_anew_in_the_next_epoch_and_under_another_id_only_when_this_one_is_refused() {
    let next_epoch = |id| Some(Identity { id: ProducerId::new(id), epoch: ProducerEpoch::new(1) });
    for (code, expected) in [
        (ErrorCode::OutOfOrderSequence, next_epoch(7)),
        (ErrorCode::UnknownProducer, next_epoch(7)),
        (ErrorCode::ProducerFenced, None),
        (ErrorCode::ProducerIdNotGranted, None),
    ] {
        let mut outbox = outbox_with(Delivery::ExactlyOnce, &[ONE]);
        push(&mut outbox, 0);
        let sent = outbox.next(ONE, NOW).expect("it may go");
        outbox.nacked(ONE, sent.session_sequence, refusal(code), NOW).expect("it was sent");
        assert_eq!(outbox.session_over(NOW), Some(ONE), "{code}");
        outbox.session_closed(ONE);
        assert_eq!(outbox.identity(), expected, "{code}");
    }
    let last = Identity { id: ProducerId::new(7), epoch: ProducerEpoch::new(i16::MAX.unsigned_abs()) };
    assert_eq!(last.next(), None);
}

#[test]
fn a_node_keeps_its_session_as_long_as_it_answers_anything_within_the_delivery_timeout() {
    const SECOND: Duration = Duration::from_secs(1);
    let mut outbox = outbox_with(Delivery::ExactlyOnce, &[ONE]);
    let answered_at = NOW + TIMEOUT - SECOND;
    for _ in 0..3 {
        push(&mut outbox, 0);
        assert!(outbox.next(ONE, NOW).is_some());
    }
    let ack = BatchAck {
        base: Offset::ZERO,
        append_time: None,
        duplicate: false,
        read_token: ReadToken::default(),
    };
    outbox.acked(ONE, 0, ack, answered_at).expect("it was sent");
    assert_eq!(outbox.expire(NOW + TIMEOUT), [], "it answered a second ago");
    assert!(outbox.lanes[0].first_deadline().is_none(), "their time is over all the same");
    assert_eq!(outbox.wake_at(NOW + TIMEOUT), Some(answered_at + TIMEOUT));
    assert_eq!(outbox.expire(answered_at + TIMEOUT), [ONE]);
}

#[test]
fn a_silent_node_is_given_up_when_all_that_it_owes_has_moved_from_it() {
    let check = |delivery, first_home, expected| {
        let mut outbox = outbox_with(delivery, &[ONE]);
        outbox.not_opened(TWO, &refusal(ErrorCode::ShuttingDown));
        outbox.learn(&[home(0, first_home, 1), home(1, ONE, 1)]);
        push(&mut outbox, 0);
        assert!(outbox.next(ONE, NOW).is_some());
        assert_eq!(outbox.silent(NOW).collect::<Vec<_>>(), [ONE]);
        outbox.learn(&[home(0, TWO, 2)]);
        assert_eq!(outbox.is_forsaken(ONE), expected);
        push(&mut outbox, 1);
        assert!(outbox.next(ONE, NOW).is_some());
        assert!(!outbox.is_forsaken(ONE), "a partition is still at home there");
    };
    check(Delivery::ExactlyOnce, ONE, true);
    // It was never the home of what it owes: it only helps out, and may be slow.
    check(Delivery::ExactlyOnce, TWO, false);
    // What is in doubt could not be sent again.
    check(Delivery::AtMostOnce, ONE, false);
}

#[test]
fn a_session_that_nobody_needs_is_closed_after_a_while() {
    let mut outbox = outbox_with(Delivery::ExactlyOnce, &[ONE, TWO]);
    outbox.learn(&[home(0, TWO, 1)]);
    assert_eq!(outbox.session_over(NOW + Duration::from_secs(29)), None);
    assert_eq!(outbox.session_over(NOW + Duration::from_secs(31)), Some(ONE));
    outbox.session_closed(ONE);
    assert_eq!(outbox.session_over(NOW + Duration::from_secs(90)), None, "a home is kept open");
}
