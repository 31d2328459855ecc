//! A StreamHouse in memory that speaks the real protocol on loopback and misbehaves on demand. It judges sequences
//! as the metadata does, and keeps every batch it stored.

mod cluster;
mod groups;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use streamhouse_client::{ErrorCode, Offset, RecordBatch, StreamHouse};
use streamhouse_proto::{rpc, v1};
use streamhouse_types::batch::{BatchLimits, patch_base};
use streamhouse_types::{Epoch, Sequence};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use cluster::Cluster;
use v1::append_session_request::Message as FromClient;
pub use v1::append_session_response::Message as ToClient;
use v1::cluster_service_server::ClusterServiceServer;
use v1::group_service_server::GroupServiceServer;
use v1::stream_service_server::StreamServiceServer;
use v1::topic_service_server::TopicServiceServer;

/// What the server does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Stores and acknowledges it.
    Store,
    /// Ends the session without storing it.
    LoseBefore,
    /// Stores it, and ends the session without a word.
    LoseAfter,
    /// Refuses it; nothing is stored.
    Nack(ErrorCode),
    /// Stores it and says that nobody knows.
    StoreAndNack(ErrorCode),
    /// Stores it when the gate is open, and acknowledges it then.
    Gate,
    /// Reads it and never answers.
    Ignore,
    /// Stores it and never answers.
    StoreInSilence,
    /// Stores and acknowledges it, then asks the client to leave.
    StoreAndGoAway,
    /// Stores it and acknowledges another one.
    AckWrong,
}

/// What the server does with a reader's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAct {
    /// Ends it with an error after so many batches.
    LoseAfter(usize),
    /// Ends it without an error after so many batches.
    EndAfter(usize),
    /// Leaves out the batch of this place.
    Skip(usize),
    /// Flips a bit in the batch of this place.
    Damage(usize),
    /// Begins every stream at the start of the log.
    Rewind,
    /// Takes the request and says nothing.
    Silence,
}

#[derive(Debug, Default)]
pub struct Partition {
    pub start: u64,
    pub end: u64,
    pub batches: Vec<(u64, Bytes)>,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: u16,
    next: Option<Sequence>,
    recent: VecDeque<(Sequence, u64)>,
}

/// What the nodes of a cluster agree on.
#[derive(Debug, Default)]
pub struct Log {
    pub partitions: Vec<Partition>,
    producers: BTreeMap<(u64, u32), Producer>,
    pub next_producer: u64,
    /// The ids and epochs under which something was stored.
    pub identities: BTreeSet<(u64, u16)>,
    /// Counts what was stored: the newest read token.
    pub applied: u64,
    /// Where the nodes are and which partitions are at home there. Empty: the nodes know nothing of a cluster.
    pub addresses: BTreeMap<u64, SocketAddr>,
    pub homes: Vec<v1::PartitionHome>,
    /// Batches that are not answered, by partition and node.
    pending: BTreeMap<(u32, u64), usize>,
    /// Batches that came to a node while others of their partition waited at another.
    pub overtakes: usize,
    /// The ids of changes, as they came in, with the node.
    pub requests: Vec<(u64, String)>,
    /// The node that looks after all groups; 0 when none does.
    pub coordinator: u64,
    /// The nodes that were asked as coordinators, in order.
    pub group_calls: Vec<u64>,
}

/// What one node does.
#[derive(Debug)]
pub struct State {
    /// Acts for the batches to come, by arrival over all sessions; then `otherwise`.
    pub acts: VecDeque<Act>,
    pub otherwise: Act,
    pub read_acts: VecDeque<ReadAct>,
    /// Answers for the sessions to come, before they open.
    pub open_refusals: VecDeque<ErrorCode>,
    pub credit_bytes: u64,
    pub max_batch_bytes: u32,
    pub sessions: u64,
    pub reads: u64,
    /// Most bytes and batches that were unanswered at once in one session.
    pub unanswered_max: (u64, usize),
    pub batches_seen: usize,
    /// Batches by partition.
    pub seen_of: BTreeMap<u32, usize>,
    /// How far the node is, when it lags.
    pub stuck_at: Option<u64>,
    /// The read tokens that were presented.
    pub tokens: Vec<u64>,
    /// Whether it says that it is a reader.
    pub is_reader: bool,
    /// Whether it reads no batches at all.
    pub stalled: bool,
    sessions_open: Vec<Answers>,
}

/// A node, shared by its services and its test.
#[derive(Clone)]
pub struct Fake {
    pub id: u64,
    pub log: Arc<Mutex<Log>>,
    pub state: Arc<Mutex<State>>,
    appended: Arc<watch::Sender<u64>>,
    gate: Arc<watch::Sender<bool>>,
    seen: Arc<watch::Sender<usize>>,
    /// How often it was asked for the routing.
    asked: Arc<watch::Sender<usize>>,
    opened: Arc<watch::Sender<u64>>,
}

/// A fake that listens, on a runtime of its own so that stopping it closes its connections.
pub struct Running {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

/// A node that stands still as if by SIGSTOP, until it is dropped: the system takes its connections, nobody answers.
pub struct Frozen(Option<std::sync::mpsc::Sender<()>>);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl Running {
    /// Stops the only thread.
    pub async fn freeze(&self) -> Frozen {
        let (thaw, frozen) = std::sync::mpsc::channel::<()>();
        let (told, stands) = oneshot::channel();
        self.runtime.as_ref().expect("it runs").spawn(async move {
            told.send(()).expect("the test waits");
            let _ = frozen.recv();
        });
        stands.await.expect("it stands");
        Frozen(Some(thaw))
    }

    /// Closes all connections and stops listening.
    pub fn stop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // In a thread, as a runtime may not be waited for inside another; waited for, so that the port is free again.
        let stopping = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
        stopping.join().expect("it stops");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fake {
    /// A node that knows nothing of a cluster.
    pub fn new(partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self::node(1, Log { partitions, next_producer: 1, ..Log::default() })
    }

    fn node(id: u64, log: Log) -> Self {
        Self {
            id,
            log: Arc::new(Mutex::new(log)),
            state: Arc::new(Mutex::new(State::new())),
            appended: Arc::new(watch::channel(0).0),
            gate: Arc::new(watch::channel(false).0),
            seen: Arc::new(watch::channel(0).0),
            asked: Arc::new(watch::channel(0).0),
            opened: Arc::new(watch::channel(0).0),
        }
    }

    /// Another node with the same log.
    fn beside(&self, id: u64) -> Self {
        let new = Self::node(id, Log::default());
        Self { log: self.log.clone(), appended: self.appended.clone(), ..new }
    }

    pub async fn listen(&self) -> Running {
        self.listen_on("127.0.0.1:0".parse().expect("an address")).await
    }

    pub async fn listen_on(&self, address: SocketAddr) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let router = Server::builder()
            .add_service(StreamServiceServer::new(self.clone()).max_decoding_message_size(32 << 20))
            .add_service(TopicServiceServer::new(self.clone()))
            .add_service(GroupServiceServer::new(self.clone()))
            .add_service(ClusterServiceServer::new(self.clone()));
        let (told, listening) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("a free port");
            told.send(listener.local_addr().expect("bound")).expect("the test waits");
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        });
        let address = listening.await.expect("it listens");
        Running { address, runtime: Some(runtime) }
    }

    pub async fn connect(&self, running: &Running) -> StreamHouse {
        StreamHouse::connect(&running.address.to_string()).await.expect("the fake listens")
    }

    /// Waits until so many sessions were opened.
    pub async fn opened(&self, sessions: u64) {
        let mut opened = self.opened.subscribe();
        opened.wait_for(|opened| *opened >= sessions).await.expect("the sender lives in the fake");
    }

    /// Waits until the first so many sessions have ended on this side too.
    pub async fn left(&self, sessions: usize) {
        let first = self.state.lock().sessions_open[..sessions].to_vec();
        futures::future::join_all(first.iter().map(Answers::closed)).await;
    }

    /// Waits until it was asked for the routing so often.
    pub async fn asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| *asked >= times).await.expect("the sender lives in the fake");
    }

    /// Says something in all open sessions.
    pub fn say(&self, message: &ToClient) {
        for session in &self.state.lock().sessions_open {
            let _ = session.try_send(Ok(v1::AppendSessionResponse { message: Some(message.clone()) }));
        }
    }

    /// How far the node is.
    fn applied(&self) -> u64 {
        let stuck_at = self.state.lock().stuck_at;
        stuck_at.unwrap_or(u64::MAX).min(self.log.lock().applied)
    }

    /// Takes a read with its token, if the node is as new.
    fn reach(&self, token: u64) -> Result<(), Status> {
        self.state.lock().tokens.push(token);
        if token > self.applied() { Err(status(ErrorCode::MetadataUnavailable)) } else { Ok(()) }
    }

    /// Nothing waits here any more.
    fn forget_pending(&self) {
        self.log.lock().pending.retain(|(_, node), _| *node != self.id);
    }

    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().acts.extend(acts);
    }

    pub fn otherwise(&self, act: Act) {
        self.state.lock().otherwise = act;
    }

    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// Waits until so many batches have arrived.
    pub async fn saw(&self, batches: usize) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|seen| *seen >= batches).await.expect("the sender lives in the fake");
    }

    /// All values of a partition in order.
    pub fn values(&self, partition: usize) -> Vec<String> {
        let log = self.log.lock();
        let records = log.partitions[partition].batches.iter().flat_map(|(_, bytes)| {
            let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("it was checked");
            batch
                .records()
                .expect("it opens")
                .map(|record| record.expect("it was checked"))
                .collect::<Vec<_>>()
        });
        records
            .map(|record| String::from_utf8(record.value.expect("a value").to_vec()).expect("text"))
            .collect()
    }

    /// Forgets all producers, as after 24 hours of silence.
    pub fn forget_producers(&self) {
        self.log.lock().producers.clear();
    }

    /// Writes a batch without a client.
    pub fn write(&self, partition: usize, values: &[&str]) {
        use streamhouse_types::batch::{BatchBuilder, RecordRef};
        let mut builder = BatchBuilder::new(streamhouse_client::Compression::None);
        for value in values {
            let timestamp = streamhouse_client::Timestamp::from_millis(1_000);
            let record = RecordRef { key: None, value: Some(value.as_bytes()), headers: &[], timestamp };
            builder.push(&record).expect("it fits");
        }
        self.log.lock().store(partition, builder.build());
        self.appended.send_modify(|count| *count += 1);
    }

    /// Drops the batches before an offset.
    pub fn trim(&self, partition: usize, before: u64) {
        let mut log = self.log.lock();
        let partition = &mut log.partitions[partition];
        partition.start = before;
        partition.batches.retain(|(base, _)| *base >= before);
    }
}

impl State {
    fn new() -> Self {
        Self {
            acts: VecDeque::new(),
            otherwise: Act::Store,
            read_acts: VecDeque::new(),
            open_refusals: VecDeque::new(),
            credit_bytes: 16 << 20,
            max_batch_bytes: 1 << 20,
            sessions: 0,
            reads: 0,
            unanswered_max: (0, 0),
            batches_seen: 0,
            seen_of: BTreeMap::new(),
            stuck_at: None,
            tokens: Vec::new(),
            is_reader: false,
            stalled: false,
            sessions_open: Vec::new(),
        }
    }
}

impl Log {
    pub fn routing(&self) -> (Vec<v1::PartitionHome>, Vec<v1::NodeAddress>) {
        let nodes = self.addresses.iter();
        let nodes = nodes.map(|(id, grpc)| v1::NodeAddress { node_id: *id, grpc: grpc.to_string() });
        (self.homes.clone(), nodes.collect())
    }

    fn store(&mut self, partition: usize, bytes: Bytes) -> (u64, u64) {
        let partition = &mut self.partitions[partition];
        let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("a sound batch");
        let mut bytes = BytesMut::from(&bytes[..]);
        patch_base(&mut bytes, Offset::new(partition.end), Epoch::new(0));
        let base = partition.end;
        partition.end += u64::from(batch.header().record_count);
        partition.batches.push((base, bytes.freeze()));
        self.applied += 1;
        (base, partition.end)
    }

    /// Judges and stores a batch as the metadata would: base, end, duplicate.
    fn append(&mut self, partition: u32, bytes: Bytes) -> Result<Appended, ErrorCode> {
        let header = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX)
            .map_err(|_| ErrorCode::CorruptBatch)?
            .header();
        let Some(stamp) = header.producer else {
            let (base, end) = self.store(partition as usize, bytes);
            return Ok((base, end, false));
        };
        let key = (stamp.id.get(), partition);
        let mut producer = self.producers.get(&key).cloned().unwrap_or_default();
        let epoch = stamp.epoch.get();
        if epoch < producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        if epoch > producer.epoch && producer.next.is_some() {
            producer = Producer { next: Some(Sequence::ZERO), ..Producer::default() };
        }
        if let Some((_, base)) = producer.recent.iter().find(|(first, _)| *first == stamp.first_sequence) {
            return Ok((*base, base + u64::from(header.record_count), true));
        }
        match producer.next {
            None if stamp.first_sequence != Sequence::ZERO => return Err(ErrorCode::UnknownProducer),
            Some(next) if next != stamp.first_sequence => return Err(ErrorCode::OutOfOrderSequence),
            _ => {}
        }
        let (base, end) = self.store(partition as usize, bytes);
        self.identities.insert((stamp.id.get(), epoch));
        producer.epoch = epoch;
        producer.next = Some(stamp.first_sequence.after(header.record_count));
        producer.recent.push_back((stamp.first_sequence, base));
        if producer.recent.len() > 64 {
            producer.recent.pop_front();
        }
        self.producers.insert(key, producer);
        Ok((base, end, false))
    }
}

pub fn status(code: ErrorCode) -> Status {
    status_with(code, &[])
}

/// An error as the server tells it, with further facts.
pub fn status_with(code: ErrorCode, more: &[(&str, &str)]) -> Status {
    let facts = [
        ("retryable", code.retryable().to_string()),
        ("may_have_happened", code.may_have_happened().to_string()),
        ("hint", code.hint().to_owned()),
    ];
    let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let facts = facts.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
    let details = ErrorDetails::with_error_info(code.reason(), "streamhouse", facts.collect::<Facts>());
    Status::with_error_details(Code::from_i32(code.grpc_code()), code.meaning(), details)
}

#[expect(clippy::disallowed_types, reason = "the type that tonic-types takes")]
type Facts = std::collections::HashMap<String, String>;

fn nack(session_sequence: u64, code: ErrorCode) -> ToClient {
    let status: rpc::Status = prost::Message::decode(status(code).details()).expect("details are a status");
    ToClient::Nack(v1::AppendNack { session_sequence, status: Some(status) })
}

/// What was appended: base, end, whether it was there already.
type Appended = (u64, u64, bool);

fn ack(session_sequence: u64, (base_offset, end_offset, duplicate): Appended, read_token: u64) -> ToClient {
    ToClient::Ack(v1::AppendAck {
        session_sequence,
        base_offset,
        end_offset,
        duplicate,
        append_time: None,
        read_token,
    })
}

impl Fake {
    /// Judges a batch and says so.
    fn append_batch(&self, sequence: u64, partition: u32, bytes: Bytes) -> ToClient {
        let mut log = self.log.lock();
        match log.append(partition, bytes) {
            Ok(appended) => ack(sequence, appended, log.applied),
            Err(code) => nack(sequence, code),
        }
    }

    fn arrived(&self, partition: u32) {
        let mut log = self.log.lock();
        let others = log.pending.range((partition, 0)..=(partition, u64::MAX));
        let overtakes = others.filter(|((_, node), count)| *node != self.id && **count > 0).count();
        log.overtakes += overtakes;
        *log.pending.entry((partition, self.id)).or_default() += 1;
    }

    fn answered(&self, partition: u32) {
        if let Some(count) = self.log.lock().pending.get_mut(&(partition, self.id)) {
            *count = count.saturating_sub(1);
        }
    }
}

type Answers = mpsc::Sender<Result<v1::AppendSessionResponse, Status>>;

/// Answers that wait, in order: the session's second half.
enum Pending {
    /// Not about a batch.
    Say(ToClient),
    Now(ToClient),
    Gate {
        sequence: u64,
        partition: u32,
        bytes: Bytes,
    },
    End,
    Never,
}

impl Fake {
    async fn session(self, mut batches: Streaming<v1::AppendSessionRequest>, answers: Answers) {
        let (pending, waiting) = mpsc::channel::<(Pending, u32, u64)>(4096);
        let unanswered = Arc::new(Mutex::new((0_u64, 0_usize)));
        if self.state.lock().stalled {
            answers.closed().await;
            return;
        }
        tokio::spawn(self.clone().answer(waiting, answers, unanswered.clone()));
        while let Some(Ok(request)) = batches.next().await {
            let Some(FromClient::Batch(batch)) = request.message else { return };
            let len = batch.record_batch.len() as u64;
            let partition = batch.partition;
            self.arrived(partition);
            {
                let mut unanswered = unanswered.lock();
                *unanswered = (unanswered.0 + len, unanswered.1 + 1);
                let mut state = self.state.lock();
                let max = &mut state.unanswered_max;
                *max = (max.0.max(unanswered.0), max.1.max(unanswered.1));
            }
            let (steps, goes_on) = self.judge(batch);
            for step in steps {
                if pending.send((step, partition, len)).await.is_err() {
                    return;
                }
            }
            if !goes_on {
                return;
            }
        }
    }

    fn judge(&self, batch: v1::AppendBatch) -> (Vec<Pending>, bool) {
        let mut state = self.state.lock();
        let act = state.acts.pop_front().unwrap_or(state.otherwise);
        state.batches_seen += 1;
        *state.seen_of.entry(batch.partition).or_default() += 1;
        self.seen.send_replace(state.batches_seen);
        let (sequence, partition, bytes) = (batch.session_sequence, batch.partition, batch.record_batch);
        let store = || self.append_batch(sequence, partition, bytes.clone());
        let steps = match act {
            Act::Store => vec![Pending::Now(store())],
            Act::LoseBefore => return (vec![Pending::End], false),
            Act::LoseAfter => {
                store();
                return (vec![Pending::End], false);
            }
            Act::Nack(code) => vec![Pending::Now(nack(sequence, code))],
            Act::StoreAndNack(code) => {
                store();
                vec![Pending::Now(nack(sequence, code))]
            }
            Act::Gate => vec![Pending::Gate { sequence, partition, bytes }],
            Act::Ignore => vec![Pending::Never],
            Act::StoreInSilence => {
                store();
                vec![Pending::Never]
            }
            Act::StoreAndGoAway => {
                let (_, nodes) = self.log.lock().routing();
                let nodes = nodes.into_iter().filter(|node| node.node_id != self.id).collect();
                let go_away = ToClient::GoAway(v1::GoAway { reason: "drain".to_owned(), nodes });
                vec![Pending::Now(store()), Pending::Say(go_away)]
            }
            Act::AckWrong => {
                store();
                vec![Pending::Now(ack(sequence + 1_000, (0, 1, false), 0))]
            }
        };
        drop(state);
        self.appended.send_modify(|count| *count += 1);
        (steps, true)
    }

    async fn answer(
        self,
        mut waiting: mpsc::Receiver<(Pending, u32, u64)>,
        answers: Answers,
        unanswered: Arc<Mutex<(u64, usize)>>,
    ) {
        let mut gate = self.gate.subscribe();
        while let Some((step, about, len)) = waiting.recv().await {
            let message = match step {
                Pending::Say(message) => {
                    let _ = answers.send(Ok(v1::AppendSessionResponse { message: Some(message) })).await;
                    continue;
                }
                Pending::Now(message) => message,
                Pending::Gate { sequence, partition, bytes } => {
                    let _ = gate.wait_for(|open| *open).await;
                    self.append_batch(sequence, partition, bytes)
                }
                Pending::End => {
                    self.forget_pending();
                    let _ = answers.send(Err(Status::unavailable("lost"))).await;
                    return;
                }
                Pending::Never => continue,
            };
            {
                let mut unanswered = unanswered.lock();
                *unanswered = (unanswered.0 - len, unanswered.1 - 1);
            }
            self.answered(about);
            if answers.send(Ok(v1::AppendSessionResponse { message: Some(message) })).await.is_err() {
                return;
            }
        }
    }

    async fn serve_read(
        self,
        request: v1::ReadRequest,
        answers: mpsc::Sender<Result<v1::ReadResponse, Status>>,
    ) {
        let act = self.state.lock().read_acts.pop_front();
        if act == Some(ReadAct::Silence) {
            return answers.closed().await;
        }
        let offset = |position: Option<v1::Position>| match position.and_then(|position| position.at) {
            Some(v1::position::At::Offset(offset)) => Some(offset),
            _ => None,
        };
        let mut at: BTreeMap<u32, (u64, Option<u64>, bool)> = BTreeMap::new();
        for read in request.partitions {
            let from = offset(read.from).expect("readers ask by offset");
            let start = self.log.lock().partitions[read.partition as usize].start;
            if from < start {
                let _ = answers.send(Err(status(ErrorCode::OffsetOutOfRange))).await;
                return;
            }
            let from = if act == Some(ReadAct::Rewind) { start } else { from };
            at.insert(read.partition, (from, offset(read.until), false));
        }
        let mut appended = self.appended.subscribe();
        let mut sent = 0;
        loop {
            appended.borrow_and_update();
            while let Some(mut answer) = self.next_answer(&mut at) {
                if !answer.record_batches.is_empty() {
                    match act {
                        Some(ReadAct::LoseAfter(count)) if sent == count => {
                            let _ = answers.send(Err(Status::unavailable("lost"))).await;
                            return;
                        }
                        Some(ReadAct::EndAfter(count)) if sent == count => return,
                        Some(ReadAct::Skip(place)) if sent == place => {
                            sent += 1;
                            continue;
                        }
                        Some(ReadAct::Damage(place)) if sent == place => {
                            let mut bytes = BytesMut::from(&answer.record_batches[..]);
                            *bytes.last_mut().expect("not empty") ^= 1;
                            answer.record_batches = bytes.freeze();
                        }
                        _ => {}
                    }
                    sent += 1;
                }
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            let at_end =
                |(next, until, _): &(u64, Option<u64>, bool)| until.is_some_and(|until| *next >= until);
            if !request.follow || at.values().all(at_end) {
                return;
            }
            if appended.changed().await.is_err() {
                return;
            }
        }
    }

    /// The next batch of any partition, or the mark that a partition has no more.
    fn next_answer(&self, at: &mut BTreeMap<u32, (u64, Option<u64>, bool)>) -> Option<v1::ReadResponse> {
        let log = self.log.lock();
        for (index, (next, until, told)) in at.iter_mut() {
            let partition = &log.partitions[*index as usize];
            let until = until.unwrap_or(u64::MAX);
            let found = partition.batches.iter().find(|(base, bytes)| {
                let count = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX)
                    .expect("checked")
                    .header()
                    .record_count;
                base + u64::from(count) > *next
            });
            let batch = found.filter(|_| *next < until);
            if batch.is_none() && *told {
                continue;
            }
            *told = batch.is_none();
            let record_batches = batch.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
            if let Some((base, bytes)) = batch {
                let header = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("checked").header();
                *next = base + u64::from(header.record_count);
            }
            return Some(v1::ReadResponse {
                partition: *index,
                record_batches,
                next_offset: (*next).min(until),
                high_watermark: partition.end,
                log_start: partition.start,
                caught_up: *told,
                read_token: log.applied,
            });
        }
        None
    }
}

#[tonic::async_trait]
impl v1::stream_service_server::StreamService for Fake {
    type AppendSessionStream = ReceiverStream<Result<v1::AppendSessionResponse, Status>>;
    type ReadStream = ReceiverStream<Result<v1::ReadResponse, Status>>;

    async fn append_session(
        &self,
        request: Request<Streaming<v1::AppendSessionRequest>>,
    ) -> Result<Response<Self::AppendSessionStream>, Status> {
        let mut batches = request.into_inner();
        let first = batches.message().await?.and_then(|request| request.message);
        let Some(FromClient::Open(open)) = first else { return Err(Status::invalid_argument("no open")) };
        let (answers, stream) = mpsc::channel(4096);
        let opened = {
            let mut state = self.state.lock();
            let log = self.log.lock();
            if let Some(code) = state.open_refusals.pop_front() {
                return Err(status(code));
            }
            if open.topic != "t" {
                return Err(status(ErrorCode::TopicNotFound));
            }
            state.sessions += 1;
            state.sessions_open.push(answers.clone());
            let (homes, nodes) = log.routing();
            v1::AppendOpened {
                topic_id: 1,
                partition_count: u32::try_from(log.partitions.len()).expect("few"),
                credit_bytes: state.credit_bytes,
                max_batch_bytes: state.max_batch_bytes,
                homes,
                nodes,
            }
        };
        let opened = v1::AppendSessionResponse { message: Some(ToClient::Opened(opened)) };
        answers.send(Ok(opened)).await.map_err(|_| Status::cancelled("gone"))?;
        self.opened.send_modify(|opened| *opened += 1);
        tokio::spawn(self.clone().session(batches, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        let act = self.state.lock().acts.pop_front();
        if act == Some(Act::Ignore) {
            return std::future::pending().await;
        }
        if let Some(Act::Nack(code)) = act {
            return Err(status(code));
        }
        let partition = request.partition.unwrap_or(0);
        let appended = request.records.iter().map(|record| {
            let value = String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).expect("text");
            let offset = self.log.lock().partitions[partition as usize].end;
            self.write(partition as usize, &[&value]);
            v1::AppendedAt { partition, offset }
        });
        let appended = appended.collect();
        Ok(Response::new(v1::AppendResponse { appended, read_token: self.log.lock().applied }))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut log = self.log.lock();
        let first_id = log.next_producer;
        log.next_producer += 1;
        Ok(Response::new(v1::InitProducerResponse { first_id, count: 1, epoch: 0 }))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let request = request.into_inner();
        self.state.lock().reads += 1;
        self.reach(request.read_token)?;
        tokio::spawn(self.clone().serve_read(request, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        self.reach(request.read_token)?;
        let log = self.log.lock();
        let partition = &log.partitions[request.partition as usize];
        let batch = partition.batches.iter().find(|(base, _)| *base >= request.offset);
        Ok(Response::new(v1::FetchResponse {
            record_batches: batch.map(|(_, bytes)| bytes.clone()).unwrap_or_default(),
            next_offset: partition.end,
            high_watermark: partition.end,
            log_start: partition.start,
            read_token: log.applied,
        }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        use v1::position::At;
        let request = request.into_inner();
        self.reach(request.read_token)?;
        let log = self.log.lock();
        let offsets = request.positions.into_iter().map(|wanted| {
            let partition = log.partitions.get(wanted.partition as usize);
            let partition = partition.ok_or_else(|| status(ErrorCode::PartitionNotFound))?;
            let offset = match wanted.position.and_then(|position| position.at) {
                Some(At::Offset(offset)) => offset,
                Some(At::End(_)) => partition.end,
                Some(At::BeforeEnd(records)) => partition.end.saturating_sub(records).max(partition.start),
                _ => partition.start,
            };
            Ok(v1::PartitionOffset { partition: wanted.partition, offset, timestamp: None })
        });
        Ok(Response::new(v1::ListOffsetsResponse { offsets: offsets.collect::<Result<_, Status>>()? }))
    }
}

fn topic(name: &str, partition_count: u32) -> v1::Topic {
    v1::Topic { name: name.to_owned(), id: 1, partition_count, ..Default::default() }
}

#[tonic::async_trait]
impl v1::topic_service_server::TopicService for Fake {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        self.log.lock().requests.push((self.id, request.request_id.clone()));
        let act = self.state.lock().acts.pop_front();
        if act == Some(Act::Ignore) {
            return std::future::pending().await;
        }
        if let Some(Act::Nack(code)) = act {
            return Err(Status::with_error_details(
                Code::from_i32(code.grpc_code()),
                request.request_id,
                ErrorDetails::with_error_info(code.reason(), "streamhouse", Facts::new()),
            ));
        }
        // The name tells the test which request id came in.
        Ok(Response::new(v1::CreateTopicResponse {
            topic: Some(topic(&request.request_id, request.partitions)),
        }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let first: u32 = request.into_inner().page_token.parse().unwrap_or(0);
        let topics = (first..first + 2).map(|index| topic(&format!("t{index}"), 1)).collect();
        let next_page_token = if first < 4 { (first + 2).to_string() } else { String::new() };
        Ok(Response::new(v1::ListTopicsResponse { topics, next_page_token }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        if name != "t" {
            return Err(status(ErrorCode::TopicNotFound));
        }
        let partitions = u32::try_from(self.log.lock().partitions.len()).expect("few");
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(topic(&name, partitions)) }))
    }

    async fn alter_topic(
        &self,
        _request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn delete_topic(
        &self,
        _request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn add_partitions(
        &self,
        _request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn trim_partition(
        &self,
        _request: Request<v1::TrimPartitionRequest>,
    ) -> Result<Response<v1::TrimPartitionResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
