//! The outbox against a model of the server, over many seeds: sessions break, answers get lost, what a broken session
//! had taken in is stored later or never, refusals come, producers are forgotten, time runs out. Whatever happens:
//!
//! - no record is in the log twice;
//! - an acknowledged record is in the log, at its offset;
//! - a record whose error says that it did not happen is not in the log, then or ever;
//! - the log has each partition's acknowledged records in the order of sending;
//! - every record is decided in the end.

use std::collections::{BTreeMap, VecDeque};
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

/// The next sequence, and the first sequences and offsets of its batches.
type Producer = (Sequence, Vec<(Sequence, u64)>);

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
                Some((next, recent)) => {
                    duplicate = recent
                        .iter()
                        .find(|(first, _)| *first == stamp.first_sequence)
                        .map(|(_, base)| *base);
                    if duplicate.is_none() && *next != stamp.first_sequence {
                        return Err(ErrorCode::OutOfOrderSequence);
                    }
                }
                None => {}
            }
            if duplicate.is_none() {
                let state = self.producers.entry(key).or_insert((Sequence::ZERO, Vec::new()));
                state.0 = stamp.first_sequence.after(header.record_count);
                state.1.push((stamp.first_sequence, base));
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
        Ok(BatchAck { base, append_time: None, duplicate: duplicate.is_some() })
    }
}

struct World {
    rng: SeededRng,
    outbox: Outbox,
    server: Server,
    /// Taken in by the open session and not answered.
    in_session: VecDeque<Outgoing>,
    /// Batches behind a refused one: the server refuses them too, so nothing overtakes.
    doomed: BTreeSet<u64>,
    /// Taken in by sessions that broke: stored later, or never.
    ghosts: Vec<VecDeque<Outgoing>>,
    fates: Vec<(Arc<BatchFate>, Vec<u64>)>,
    next_record: u64,
    now: Duration,
    is_open: bool,
    faults: bool,
}

impl World {
    fn new(seed: u64, delivery: Delivery) -> Self {
        Self {
            rng: SeededRng::new(seed),
            outbox: Outbox::new(delivery, TIMEOUT),
            server: Server { next_producer: 1, ..Server::default() },
            in_session: VecDeque::new(),
            doomed: BTreeSet::new(),
            ghosts: Vec::new(),
            fates: Vec::new(),
            next_record: 0,
            now: Duration::from_secs(1),
            is_open: false,
            faults: true,
        }
    }

    fn chance(&self, percent: u64) -> bool {
        self.rng.below(100) < percent
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

    fn open(&mut self) {
        if self.faults && self.chance(20) {
            let code = if self.chance(5) { ErrorCode::TopicNotFound } else { ErrorCode::ShuttingDown };
            self.outbox.not_opened(&refusal(code));
            return;
        }
        let identity = match (self.outbox.delivery, self.outbox.identity()) {
            (Delivery::AtMostOnce, _) => None,
            (_, Some(identity)) => Some(identity),
            (_, None) => {
                self.server.next_producer += 1;
                let id = ProducerId::new(self.server.next_producer);
                Some(Identity { id, epoch: ProducerEpoch::new(0) })
            }
        };
        let credit_bytes = 100 + self.rng.below(2_000);
        self.outbox.opened(identity, credit_bytes);
        self.is_open = true;
    }

    fn lose(&mut self) {
        self.is_open = false;
        self.doomed.clear();
        let rest = std::mem::take(&mut self.in_session);
        self.ghosts.push(rest);
        self.outbox.session_lost(&Rejection::connection_lost("lost"));
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

    fn answer(&mut self) {
        let Some(outgoing) = self.in_session.pop_front() else { return };
        let partition = outgoing.partition.get();
        let sequence = outgoing.session_sequence;
        let roll = if self.faults { self.rng.below(100) } else { 0 };
        let refused = match roll {
            _ if self.doomed.remove(&sequence) => Some(ErrorCode::StoreUnavailable),
            0..70 => self.server.append(partition, &outgoing.bytes).err(),
            70..80 => Some(ErrorCode::StoreUnavailable),
            80..85 => {
                let _ = self.server.append(partition, &outgoing.bytes);
                Some(ErrorCode::CommitUnknown)
            }
            85..90 => Some(ErrorCode::CommitUnknown),
            90..92 => Some(ErrorCode::InvalidBatch),
            92..96 => return self.go_away(outgoing),
            _ => {
                self.in_session.push_front(outgoing);
                return self.lose();
            }
        };
        let known = match refused {
            // The ack names where the batch lies, also when it is a repeat.
            None => {
                let ack = self.find(partition, &outgoing.bytes);
                self.outbox.acked(sequence, ack)
            }
            Some(code) => {
                let behind = self.in_session.iter().filter(|other| other.partition == outgoing.partition);
                let plain = self.outbox.delivery == Delivery::AtMostOnce;
                self.doomed.extend(behind.filter(|_| plain).map(|other| other.session_sequence));
                self.outbox.nacked(sequence, refusal(code))
            }
        };
        known.expect("it was sent");
    }

    fn go_away(&mut self, outgoing: Outgoing) {
        self.outbox.go_away();
        self.in_session.push_front(outgoing);
    }

    fn find(&mut self, partition: u32, bytes: &Bytes) -> BatchAck {
        let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("sound");
        let first =
            batch.records().expect("open").next().expect("a record").expect("sound").value.expect("a value");
        let first = u64::from_be_bytes(first[..].try_into().expect("a number"));
        let log = &self.server.logs[&partition];
        let base = log.iter().position(|record| *record == first).expect("it was appended") as u64;
        BatchAck { base: Offset::new(base), append_time: None, duplicate: false }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        if self.outbox.expire(self.now) == Overdue::Answer && self.is_open {
            self.lose();
        }
        match self.rng.below(10) {
            0..3 if self.faults => self.take_batch(),
            3 => self.haunt(),
            4..6 if !self.is_open => self.open(),
            4..6 => {
                if let Some(outgoing) = self.outbox.next(self.now) {
                    self.in_session.push_back(outgoing);
                }
            }
            // Producers are forgotten after a day of silence: nothing is in doubt then.
            6 if self.outbox.is_empty() && self.ghosts.iter().all(VecDeque::is_empty) => {
                self.server.producers.clear()
            }
            6 if self.faults && self.chance(1) => self.now += Duration::from_secs(40 + self.rng.below(60)),
            _ => self.answer(),
        }
        if self.is_open && self.outbox.is_session_over() {
            self.lose();
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
            // What was given up while in doubt may still come late; without sequences that is all that is in doubt.
            let acked = log.iter().filter(|record| !given_up.contains(record));
            assert!(acked.is_sorted(), "seed {seed}: partition {partition} reorders: {log:?}");
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

fn run(seed: u64, delivery: Delivery) -> World {
    let mut world = World::new(seed, delivery);
    for _ in 0..600 {
        world.step();
    }
    world.faults = false;
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

#[test]
fn nothing_is_lost_repeated_reordered_or_lied_about() {
    let (mut stored, mut failed, mut renamed) = (0, 0, 0);
    for seed in 0..400 {
        let world = run(seed, Delivery::ExactlyOnce);
        stored += world.fates.iter().filter(|(fate, _)| matches!(fate.outcome(), Some(Ok(_)))).count();
        failed += world.fates.iter().filter(|(fate, _)| matches!(fate.outcome(), Some(Err(_)))).count();
        renamed += world.server.next_producer;
    }
    // The runs did go through what they are about.
    assert!(
        stored > 20_000 && failed > 1_000 && renamed > 1_000,
        "{stored} stored, {failed} failed, {renamed} ids"
    );
}

#[test]
fn without_sequences_nothing_is_repeated_or_lied_about() {
    for seed in 0..100 {
        run(seed, Delivery::AtMostOnce);
    }
}
