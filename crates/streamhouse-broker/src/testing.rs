//! A broker over a store and a log that fail when they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_env::Env;
use streamhouse_metadata::{Command, Outcome, State};
use streamhouse_storage::layout::Named;
use streamhouse_storage::{Blob, BlobError, BlobMeta, Key, Layout, Page, Payload, Prefix, Store};
use streamhouse_types::batch::{
    BatchBuilder, BatchLimits, BatchProducer, Compression, RecordBatch, RecordRef,
};
use streamhouse_types::{
    ClusterId, LogIndex, NodeId, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    Timestamp, TopicId,
};
use tokio::sync::watch;

use crate::local_log::LocalLog;
use crate::{
    AppendError, AppendRequest, Appended, Broker, BrokerOptions, BrokerSettings, FetchRequest, Fetched,
    HighWatermarks, MetadataLog, NewTopic, PendingAck, ProposeError, ReadIndexError, Role, Session,
};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// What becomes of a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutFault {
    /// Nothing is written.
    Before,
    /// It is written, and the answer is lost.
    After,
    /// The disk is full.
    Full,
    /// The store refuses.
    Refused,
}

/// A store in memory that fails when it is told to.
#[derive(Debug)]
pub(crate) struct FaultyBlob {
    pub(crate) objects: Mutex<BTreeMap<String, Bytes>>,
    /// Slots whose PUTs fail, how, and how often.
    faults: Mutex<BTreeMap<u64, (PutFault, usize)>>,
    /// PUTs wait while this is `true`.
    held: watch::Sender<bool>,
    /// PUTs of these slots wait in any case.
    held_slots: watch::Sender<BTreeSet<u64>>,
    /// PUTs of first attempts get no answer while this is `true`.
    pub(crate) first_attempts_hang: AtomicBool,
    /// GETs of slots below this one wait.
    held_gets: watch::Sender<u64>,
    /// GETs that give wrong bytes.
    pub(crate) lies: AtomicUsize,
    puts: watch::Sender<usize>,
    pub(crate) gets: AtomicUsize,
    /// Bytes that GETs gave.
    pub(crate) got_bytes: AtomicU64,
    /// How long a GET takes, in milliseconds.
    pub(crate) get_ms: AtomicU64,
    /// How long a PUT takes, in milliseconds: up to so many, by slot, as if at random.
    pub(crate) jitter_ms: AtomicU64,
}

impl FaultyBlob {
    fn new() -> Self {
        Self {
            objects: Mutex::default(),
            faults: Mutex::default(),
            held: watch::Sender::new(false),
            held_slots: watch::Sender::new(BTreeSet::new()),
            first_attempts_hang: AtomicBool::new(false),
            held_gets: watch::Sender::new(0),
            lies: AtomicUsize::new(0),
            puts: watch::Sender::new(0),
            gets: AtomicUsize::new(0),
            got_bytes: AtomicU64::new(0),
            get_ms: AtomicU64::new(0),
            jitter_ms: AtomicU64::new(0),
        }
    }

    /// The next `times` PUTs of a slot fail.
    pub(crate) fn fail_slot(&self, slot: u64, fault: PutFault, times: usize) {
        self.faults.lock().insert(slot, (fault, times));
    }

    /// Keeps all PUTs waiting.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets PUTs go on.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    /// Keeps PUTs of one slot waiting.
    pub(crate) fn hold_slot(&self, slot: u64) {
        self.held_slots.send_if_modified(|slots| slots.insert(slot));
    }

    pub(crate) fn release_slot(&self, slot: u64) {
        self.held_slots.send_if_modified(|slots| slots.remove(&slot));
    }

    /// Keeps GETs of slots below one waiting.
    pub(crate) fn hold_gets_below(&self, slot: u64) {
        self.held_gets.send_replace(slot);
    }

    /// Waits until there were so many PUTs.
    pub(crate) async fn until_puts(&self, count: usize) {
        let mut puts = self.puts.subscribe();
        puts.wait_for(|puts| *puts >= count).await.expect("the sender lives");
    }

    /// The names of the WAL objects.
    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().keys().cloned().collect()
    }

    fn fault_of(&self, slot: u64) -> Option<PutFault> {
        let mut faults = self.faults.lock();
        let (fault, left) = faults.get_mut(&slot)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }
}

/// The slot of a WAL object.
fn slot_of(key: &Key) -> u64 {
    match Layout::new(CLUSTER).parse(key) {
        Some(Named::Wal(object)) => object.slot.sequence.get(),
        _ => 0,
    }
}

#[async_trait]
impl Blob for FaultyBlob {
    async fn put(&self, key: &Key, payload: &Payload) -> Result<(), BlobError> {
        self.puts.send_modify(|puts| *puts += 1);
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.expect("the sender lives");
        let slot = slot_of(key);
        if self.first_attempts_hang.load(Ordering::SeqCst) && key.as_str().ends_with("-0.wal") {
            std::future::pending::<()>().await;
        }
        let mut held_slots = self.held_slots.subscribe();
        held_slots.wait_for(|slots| !slots.contains(&slot)).await.expect("the sender lives");
        let jitter = self.jitter_ms.load(Ordering::SeqCst);
        if jitter > 0 {
            let millis = slot.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            // Slow on purpose: the delay is what the store is told to have.
            Env::system().clock.sleep(Duration::from_millis(millis % jitter)).await;
        }
        let fault = self.fault_of(slot);
        match fault {
            Some(PutFault::Before) => return Err(BlobError::NotHappened("told to".into())),
            Some(PutFault::Full) => return Err(BlobError::NoSpace(None)),
            Some(PutFault::Refused) => return Err(BlobError::Refused("read-only".into())),
            Some(PutFault::After) | None => {}
        }
        let bytes = Bytes::from(payload.pieces().concat());
        if self.objects.lock().insert(key.to_string(), bytes).is_some() {
            return Err(BlobError::AlreadyExists);
        }
        if fault.is_some() { Err(BlobError::Unknown("told to".into())) } else { Ok(()) }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>, _cut: u64) -> Result<Vec<Bytes>, BlobError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.got_bytes.fetch_add(range.end - range.start, Ordering::SeqCst);
        let (mut held_gets, slot) = (self.held_gets.subscribe(), slot_of(key));
        held_gets.wait_for(|held| slot >= *held).await.expect("the sender lives");
        let millis = self.get_ms.load(Ordering::SeqCst);
        if millis > 0 {
            // Slow on purpose: the delay is what the store is told to have.
            Env::system().clock.sleep(Duration::from_millis(millis)).await;
        }
        let object = self.objects.lock().get(key.as_str()).cloned().ok_or(BlobError::NotFound)?;
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        if end > object.len() {
            return Err(BlobError::OutOfRange);
        }
        let mut bytes = object.slice(start..end).to_vec();
        let lies = self.lies.load(Ordering::SeqCst);
        if lies > 0 {
            self.lies.store(lies - 1, Ordering::SeqCst);
            // A byte of the first batch where the range holds one; the end of an object is not read.
            let wrong = 150_usize.checked_sub(start).filter(|wrong| *wrong < bytes.len());
            let wrong = wrong.unwrap_or(bytes.len() - 1);
            bytes[wrong] ^= 1;
        }
        Ok(vec![bytes.into()])
    }

    async fn head(&self, key: &Key) -> Result<BlobMeta, BlobError> {
        let objects = self.objects.lock();
        let object = objects.get(key.as_str()).ok_or(BlobError::NotFound)?;
        Ok(BlobMeta { key: key.clone(), length: object.len() as u64 })
    }

    async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        self.objects.lock().remove(key.as_str());
        Ok(())
    }

    async fn list(&self, prefix: &Prefix, _after: Option<&str>) -> Result<Page, BlobError> {
        let objects = self.objects.lock();
        let inside = objects.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
        let meta = |(key, bytes): (&String, &Bytes)| BlobMeta {
            key: key.parse().expect("a key"),
            length: bytes.len() as u64,
        };
        Ok(Page { objects: inside.map(meta).collect(), next_after: None })
    }
}

/// What becomes of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFault {
    /// It is refused, and not applied.
    Refused,
    /// It is applied, and the answer is lost.
    AnswerLost,
    /// It is not applied, and the answer is lost.
    Lost,
}

/// A log that fails when it is told to.
#[derive(Clone)]
pub(crate) struct FlakyLog {
    pub(crate) inner: LocalLog,
    faults: Arc<Mutex<Option<(LogFault, usize)>>>,
    held: Arc<watch::Sender<bool>>,
    pub(crate) proposals: Arc<Mutex<Vec<Command>>>,
    pub(crate) read_indexes: Arc<AtomicUsize>,
}

impl FlakyLog {
    fn new(watermarks: HighWatermarks) -> Self {
        Self {
            inner: LocalLog::new(watermarks),
            faults: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
            proposals: Arc::default(),
            read_indexes: Arc::default(),
        }
    }

    /// The next `times` commits fail.
    pub(crate) fn fail_commits(&self, fault: LogFault, times: usize) {
        *self.faults.lock() = Some((fault, times));
    }

    /// Keeps commits waiting.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets commits go on.
    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }

    fn fault_of(&self, command: &Command) -> Option<LogFault> {
        if !matches!(command, Command::CommitObject(_)) {
            return None;
        }
        let mut faults = self.faults.lock();
        let (fault, left) = faults.as_mut()?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }
}

#[async_trait]
impl MetadataLog for FlakyLog {
    async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        if commands.iter().any(|command| matches!(command, Command::CommitObject(_))) {
            self.held.subscribe().wait_for(|held| !held).await.expect("the sender lives");
        }
        let mut answers = Vec::new();
        for command in &commands {
            self.proposals.lock().push(command.clone());
            let reason = || "told to".to_owned();
            answers.push(match self.fault_of(command) {
                None => Ok(self.inner.apply(command)),
                Some(LogFault::Refused) => Err(ProposeError::NotHappened { reason: reason() }),
                Some(LogFault::Lost) => Err(ProposeError::Unknown { reason: reason() }),
                Some(LogFault::AnswerLost) => {
                    self.inner.apply(command);
                    Err(ProposeError::Unknown { reason: reason() })
                }
            });
        }
        answers
    }

    fn state(&self) -> State {
        self.inner.state()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) {
        self.inner.read(look);
    }

    async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        self.read_indexes.fetch_add(1, Ordering::SeqCst);
        self.inner.read_index().await
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Duration) -> bool {
        self.inner.wait_applied(index, deadline).await
    }
}

/// A broker with what it stands on.
pub(crate) struct Rig {
    pub(crate) broker: Broker,
    pub(crate) log: FlakyLog,
    pub(crate) blob: Arc<FaultyBlob>,
    pub(crate) topic: TopicId,
}

impl Rig {
    /// A broker with a topic of four partitions.
    pub(crate) async fn start() -> Self {
        Self::with(BrokerSettings::default()).await
    }

    pub(crate) async fn with(settings: BrokerSettings) -> Self {
        Self::founded(Env::system().clock.wall(), settings).await
    }

    /// A broker of a cluster whose time is `now`.
    pub(crate) async fn founded(now: Timestamp, settings: BrokerSettings) -> Self {
        let watermarks = HighWatermarks::new();
        let log = FlakyLog::new(watermarks.clone());
        log.inner.apply(&Command::Bootstrap { cluster: CLUSTER, now });
        Self::over(log, watermarks, Arc::new(FaultyBlob::new()), settings).await
    }

    /// Another broker over the same log and store, as after a restart of the process.
    pub(crate) async fn restarted(&self, settings: BrokerSettings) -> Self {
        Self::over(self.log.clone(), HighWatermarks::new(), Arc::clone(&self.blob), settings).await
    }

    async fn over(
        log: FlakyLog,
        watermarks: HighWatermarks,
        blob: Arc<FaultyBlob>,
        settings: BrokerSettings,
    ) -> Self {
        let env = Env::system();
        let options = BrokerOptions {
            role: Role::Broker,
            sweep_gate: Arc::new(()),
            node: NodeId::new(1),
            zone: String::new(),
            addresses: Vec::new(),
            env: env.clone(),
            log: Arc::new(log.clone()),
            store: Store::new(Arc::clone(&blob) as Arc<dyn Blob>, &env).hedged(),
            watermarks,
            settings,
        };
        let broker = Broker::start(options).await.expect("the broker starts");
        let topic = match broker.topic(&"events".parse().unwrap()).await {
            Ok(topic) => topic.id,
            Err(_) => make_topic(&broker, "events", &[]).await,
        };
        Self { broker, log, blob, topic }
    }

    pub(crate) fn partition(&self, index: u32) -> PartitionId {
        PartitionId::new(self.topic, PartitionIndex::new(index))
    }

    /// Hands a batch over.
    pub(crate) async fn send(&self, session: &Session, index: u32, batch: RecordBatch) -> PendingAck {
        let request = AppendRequest { partition: self.partition(index), batch, permit: None };
        self.broker.append(session, request).await.expect("admitted")
    }

    /// Appends a batch and waits for its answer.
    pub(crate) async fn append(&self, index: u32, batch: RecordBatch) -> Result<Appended, AppendError> {
        self.send(&self.broker.session(0), index, batch).await.await
    }

    pub(crate) fn high_watermark(&self, index: u32) -> u64 {
        self.log.state().partition(self.partition(index)).expect("a partition").high_watermark().get()
    }

    pub(crate) fn request(&self, index: u32, offset: u64) -> FetchRequest {
        FetchRequest {
            partition: self.partition(index),
            offset: Offset::new(offset),
            max_bytes: 1 << 20,
            min_bytes: 0,
            max_wait: Duration::ZERO,
        }
    }

    /// All values of a partition, in order; checks that their offsets have no gaps.
    pub(crate) async fn values(&self, index: u32) -> Vec<String> {
        let (mut values, mut offset) = (Vec::new(), 0);
        loop {
            let fetched = self.broker.fetch(self.request(index, offset)).await.expect("readable");
            if fetched.is_empty() {
                return values;
            }
            for (found, value) in records(&fetched) {
                assert_eq!(found, values.len() as u64, "offsets have no gaps");
                values.push(value);
            }
            offset = fetched.next_offset.get();
        }
    }
}

pub(crate) async fn make_topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) -> TopicId {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let name = name.parse().unwrap();
    let new = NewTopic { name, partitions: 4, settings, request: None, validate_only: false };
    broker.create_topic(new).await.expect("a topic").id
}

fn build(values: &[&str], timestamps: &[i64], producer: Option<BatchProducer>) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(producer) = producer {
        builder.set_producer(producer);
    }
    for (value, timestamp) in values.iter().zip(timestamps) {
        let timestamp = Timestamp::from_millis(*timestamp);
        let record = RecordRef { key: None, value: Some(value.as_bytes()), headers: &[], timestamp };
        builder.push(&record).unwrap();
    }
    let limits = BatchLimits { max_batch_bytes: 64 << 20, max_records: 100_000 };
    RecordBatch::parse(builder.build(), &limits).expect("a good batch")
}

/// A batch of records with these values.
pub(crate) fn batch(values: &[&str]) -> RecordBatch {
    build(values, &vec![1_000; values.len()], None)
}

/// A batch of records with these timestamps; the values are the timestamps.
pub(crate) fn timed(timestamps: &[i64]) -> RecordBatch {
    let values: Vec<String> = timestamps.iter().map(ToString::to_string).collect();
    build(&values.iter().map(String::as_str).collect::<Vec<_>>(), timestamps, None)
}

/// A batch of one record of so many bytes.
pub(crate) fn large(bytes: usize) -> RecordBatch {
    batch(&[&"x".repeat(bytes)])
}

/// A batch of an idempotent producer.
pub(crate) fn produced(producer: ProducerId, sequence: u32, values: &[&str]) -> RecordBatch {
    let producer =
        BatchProducer { id: producer, epoch: ProducerEpoch::new(0), first_sequence: Sequence::new(sequence) };
    build(values, &vec![1_000; values.len()], Some(producer))
}

/// Offsets and values of what was fetched.
pub(crate) fn records(fetched: &Fetched) -> Vec<(u64, String)> {
    let mut bytes = Bytes::from(fetched.bytes.concat());
    let mut records = Vec::new();
    while let Some(batch) = RecordBatch::split_first(&mut bytes, &BatchLimits::MAX).expect("sound batches") {
        let base = u64::try_from(batch.header().base_offset).expect("an offset");
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            records.push((base + u64::from(record.offset_delta), value));
        }
    }
    records
}
