//! What a commit costs the metadata: bytes in the log, time to encode, decode and apply, at 1, 100 and 10,000
//! partitions touched; what a snapshot costs the next write; and what it costs to plan and move homes.

use std::cell::RefCell;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use streamhouse_metadata::{
    Command, CommitObject, CreateTopic, HomeMove, Outcome, ProducerWindow, RegisterNode, Row, RowProducer,
    State, TopicSettings, Unit, codec, placement,
};
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, LogIndex, NodeId, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, Slot, SlotSequence, Timestamp, TopicId,
};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const PARTITIONS: u32 = 10_000;

struct Log {
    state: State,
    producer: ProducerId,
}

impl Log {
    /// A topic of 10,000 partitions and a producer.
    fn new() -> Self {
        let mut log = Self { state: State::new(), producer: ProducerId::new(0) };
        log.apply(&Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now: NOW });
        let (node, incarnation) = (NodeId::new(1), Incarnation::new(1));
        let (request, zone, addresses) = ([0; 16], String::new(), Vec::new());
        log.apply(&Command::RegisterNode(RegisterNode { request, node, zone, addresses }));
        let (name, settings) = ("t".parse().expect("a good name"), TopicSettings::default());
        let create = CreateTopic { request, name, partitions: PARTITIONS, settings, validate_only: false };
        log.apply(&Command::CreateTopic(create));
        let grant = Command::GrantProducerIds { node, incarnation, count: 1, window: ProducerWindow::Kafka };
        if let Outcome::ProducerIds { first, .. } = log.apply(&grant) {
            log.producer = first;
        }
        log
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        let index = LogIndex::new(self.state.applied().get() + 1);
        self.state.apply(index, command).outcome
    }

    fn high_watermark(&self) -> u64 {
        let first = PartitionId::new(TopicId::new(1), PartitionIndex::new(0));
        self.state.partition(first).expect("the topic is there").high_watermark().get()
    }

    /// The next commit of a row of ten records for each of `partitions` partitions, from an idempotent producer.
    fn next(&self, partitions: u32) -> Command {
        let (node, incarnation, lane) = (NodeId::new(1), Incarnation::new(1), Lane::Wal);
        let known = self.state.lane(node, incarnation, lane).expect("the node is open");
        let sequence = known.newest().next();
        let sent = u32::try_from(self.high_watermark()).expect("a short log");
        let row = |index: u32| Row {
            partition: PartitionId::new(TopicId::new(1), PartitionIndex::new(index)),
            position: 64 + u64::from(index) * 1_000,
            length: 1_000,
            batches: 1,
            records: 10,
            max_timestamp: NOW.plus_millis(-i64::from(index % 50)),
            producer: Some(RowProducer {
                id: self.producer,
                epoch: ProducerEpoch::new(0),
                first_sequence: Sequence::new(sent),
            }),
        };
        let unit = |index| Unit { preconditions: Vec::new(), rows: vec![row(index)] };
        Command::CommitObject(CommitObject {
            slot: Slot { node, incarnation, lane, sequence },
            attempt: Attempt::new(0),
            prev: known.newest(),
            lo: SlotSequence::new(sequence.get().saturating_sub(8).max(1)),
            length: 64 << 20,
            crc: 0,
            append_time: NOW,
            units: (0..partitions).map(unit).collect(),
        })
    }
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.sample_size(20);
    for partitions in [1, 100, PARTITIONS] {
        let mut log = Log::new();
        log.apply(&log.next(partitions));
        let command = log.next(partitions);
        let bytes = codec::encode_command(&command);
        println!("{partitions} partitions: {} bytes in the log", bytes.len());
        group.throughput(Throughput::Elements(u64::from(partitions)));
        group.bench_function(BenchmarkId::new("encode", partitions), |b| {
            b.iter(|| codec::encode_command(&command))
        });
        group.bench_function(BenchmarkId::new("decode", partitions), |b| {
            b.iter(|| codec::decode_command(&bytes))
        });
        let log = RefCell::new(log);
        group.bench_function(BenchmarkId::new("apply", partitions), |b| {
            let setup = || log.borrow().next(partitions);
            b.iter_batched(setup, |command| log.borrow_mut().apply(&command), BatchSize::PerIteration);
        });
        // While a reader holds a clone, a write copies what it touches.
        group.bench_function(BenchmarkId::new("apply beside a snapshot", partitions), |b| {
            let setup = || (log.borrow().state.clone(), log.borrow().next(partitions));
            let apply = |(snapshot, command): (State, Command)| (snapshot, log.borrow_mut().apply(&command));
            b.iter_batched(setup, apply, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn snapshots(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(10);
    let mut log = Log::new();
    for _ in 0..20 {
        log.apply(&log.next(PARTITIONS));
    }
    let mut bytes = Vec::new();
    codec::encode_snapshot(&log.state, &mut bytes).expect("memory takes all");
    println!("200,000 extents: {} bytes of snapshot", bytes.len());
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |b| {
        b.iter(|| {
            let mut bytes = Vec::new();
            codec::encode_snapshot(&log.state, &mut bytes).expect("memory takes all");
            bytes
        });
    });
    group.bench_function("decode", |b| b.iter(|| codec::decode_snapshot(&bytes)));
    group.bench_function("clone", |b| b.iter(|| log.state.clone()));
    group.finish();
}

/// Five nodes of which one has all homes of `partitions` partitions.
fn lopsided(partitions: u32) -> Log {
    let mut log = Log { state: State::new(), producer: ProducerId::new(0) };
    log.apply(&Command::Bootstrap { cluster: ClusterId::from_bytes([1; 16]), now: NOW });
    let register = |node| {
        let (request, addresses) = ([0; 16], Vec::new());
        let zone = format!("z{}", node % 3);
        Command::RegisterNode(RegisterNode { request, node: NodeId::new(node), zone, addresses })
    };
    log.apply(&register(1));
    let (name, settings) = ("t".parse().expect("a good name"), TopicSettings::default());
    let create = CreateTopic { request: [0; 16], name, partitions, settings, validate_only: false };
    log.apply(&Command::CreateTopic(create));
    for node in 2..=5 {
        log.apply(&register(node));
    }
    // Node 1 goes, so that every home has to move.
    log.apply(&Command::CloseIncarnation { node: NodeId::new(1), incarnation: Incarnation::new(1) });
    log
}

fn homes(c: &mut Criterion) {
    let mut group = c.benchmark_group("homes");
    group.sample_size(20);
    for partitions in [1, 100, PARTITIONS] {
        let log = lopsided(partitions);
        group.throughput(Throughput::Elements(u64::from(partitions)));
        group
            .bench_function(BenchmarkId::new("plan", partitions), |b| b.iter(|| placement::plan(&log.state)));
        let moves: Vec<HomeMove> = placement::plan(&log.state);
        assert_eq!(moves.len() as u64, u64::from(partitions));
        let command = Command::MoveHomes { moves };
        println!("{partitions} moves: {} bytes in the log", codec::encode_command(&command).len());
        // The log keeps its state, as a reader would, so each run copies what it touches.
        group.bench_function(BenchmarkId::new("apply", partitions), |b| {
            let setup = || Log { state: log.state.clone(), producer: log.producer };
            b.iter_batched(setup, |mut log| log.apply(&command), BatchSize::PerIteration);
        });
        let mut settled = Log { state: log.state.clone(), producer: log.producer };
        settled.apply(&command);
        group.bench_function(BenchmarkId::new("plan nothing", partitions), |b| {
            b.iter(|| placement::plan(&settled.state));
        });
    }
    group.finish();
}

criterion_group!(benches, commits, snapshots, homes);
criterion_main!(benches);
