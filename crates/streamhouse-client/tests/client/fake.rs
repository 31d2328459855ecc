//! A StreamHouse in memory that speaks the real protocol on loopback and misbehaves on demand. It judges sequences
//! as the metadata does, and keeps every batch it stored.

use std::collections::{BTreeMap, VecDeque};
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

use v1::append_session_request::Message as FromClient;
use v1::append_session_response::Message as ToClient;
use v1::cluster_service_server::ClusterServiceServer;
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
}

#[derive(Debug, Default)]
pub struct Partition {
    pub start: u64,
    pub end: u64,
    pub batches: Vec<(u64, Bytes)>,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    next: Option<Sequence>,
    recent: VecDeque<(Sequence, u64)>,
}

#[derive(Debug)]
pub struct State {
    pub partitions: Vec<Partition>,
    producers: BTreeMap<(u64, u32), Producer>,
    pub next_producer: u64,
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
}

/// The fake, shared by its services and its test.
#[derive(Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    appended: Arc<watch::Sender<u64>>,
    gate: Arc<watch::Sender<bool>>,
    seen: Arc<watch::Sender<usize>>,
}

/// A fake that listens, on a runtime of its own so that stopping it closes its connections.
pub struct Running {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Running {
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
    pub fn new(partitions: usize) -> Self {
        let state = State {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            producers: BTreeMap::new(),
            next_producer: 1,
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
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            appended: Arc::new(watch::channel(0).0),
            gate: Arc::new(watch::channel(false).0),
            seen: Arc::new(watch::channel(0).0),
        }
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
        let state = self.state.lock();
        let records = state.partitions[partition].batches.iter().flat_map(|(_, bytes)| {
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
        self.state.lock().producers.clear();
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
        self.state.lock().store(partition, builder.build());
        self.appended.send_modify(|count| *count += 1);
    }

    /// Drops the batches before an offset.
    pub fn trim(&self, partition: usize, before: u64) {
        let mut state = self.state.lock();
        let partition = &mut state.partitions[partition];
        partition.start = before;
        partition.batches.retain(|(base, _)| *base >= before);
    }
}

impl State {
    fn store(&mut self, partition: usize, bytes: Bytes) -> (u64, u64) {
        let partition = &mut self.partitions[partition];
        let batch = RecordBatch::parse(bytes.clone(), &BatchLimits::MAX).expect("a sound batch");
        let mut bytes = BytesMut::from(&bytes[..]);
        patch_base(&mut bytes, Offset::new(partition.end), Epoch::new(0));
        let base = partition.end;
        partition.end += u64::from(batch.header().record_count);
        partition.batches.push((base, bytes.freeze()));
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
        let producer = self.producers.get(&key).cloned().unwrap_or_default();
        if let Some((_, base)) = producer.recent.iter().find(|(first, _)| *first == stamp.first_sequence) {
            return Ok((*base, base + u64::from(header.record_count), true));
        }
        match producer.next {
            None if stamp.first_sequence != Sequence::ZERO => return Err(ErrorCode::UnknownProducer),
            Some(next) if next != stamp.first_sequence => return Err(ErrorCode::OutOfOrderSequence),
            _ => {}
        }
        let (base, end) = self.store(partition as usize, bytes);
        let producer = self.producers.entry(key).or_default();
        producer.next = Some(stamp.first_sequence.after(header.record_count));
        producer.recent.push_back((stamp.first_sequence, base));
        if producer.recent.len() > 64 {
            producer.recent.pop_front();
        }
        Ok((base, end, false))
    }
}

pub fn status(code: ErrorCode) -> Status {
    let facts = [
        ("retryable", code.retryable().to_string()),
        ("may_have_happened", code.may_have_happened().to_string()),
        ("hint", code.hint().to_owned()),
    ];
    let facts = facts
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>();
    let details =
        ErrorDetails::with_error_info(code.reason(), "streamhouse", facts.into_iter().collect::<Facts>());
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

fn ack(session_sequence: u64, (base_offset, end_offset, duplicate): Appended) -> ToClient {
    ToClient::Ack(v1::AppendAck { session_sequence, base_offset, end_offset, append_time: None, duplicate })
}

type Answers = mpsc::Sender<Result<v1::AppendSessionResponse, Status>>;

/// Answers that wait, in order: the session's second half.
enum Pending {
    Now(ToClient),
    Gate { sequence: u64, partition: u32, bytes: Bytes },
    End,
    Never,
}

impl Fake {
    async fn session(self, mut batches: Streaming<v1::AppendSessionRequest>, answers: Answers) {
        let (pending, waiting) = mpsc::channel::<(Pending, u64)>(4096);
        let unanswered = Arc::new(Mutex::new((0_u64, 0_usize)));
        tokio::spawn(self.clone().answer(waiting, answers, unanswered.clone()));
        while let Some(Ok(request)) = batches.next().await {
            let Some(FromClient::Batch(batch)) = request.message else { return };
            let len = batch.record_batch.len() as u64;
            {
                let mut unanswered = unanswered.lock();
                *unanswered = (unanswered.0 + len, unanswered.1 + 1);
                let mut state = self.state.lock();
                let max = &mut state.unanswered_max;
                *max = (max.0.max(unanswered.0), max.1.max(unanswered.1));
            }
            let (steps, goes_on) = self.judge(batch);
            for step in steps {
                if pending.send((step, len)).await.is_err() {
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
        self.seen.send_replace(state.batches_seen);
        let (sequence, partition, bytes) = (batch.session_sequence, batch.partition, batch.record_batch);
        let store = |state: &mut State| match state.append(partition, bytes.clone()) {
            Ok(appended) => ack(sequence, appended),
            Err(code) => nack(sequence, code),
        };
        let steps = match act {
            Act::Store => vec![Pending::Now(store(&mut state))],
            Act::LoseBefore => return (vec![Pending::End], false),
            Act::LoseAfter => {
                store(&mut state);
                return (vec![Pending::End], false);
            }
            Act::Nack(code) => vec![Pending::Now(nack(sequence, code))],
            Act::StoreAndNack(code) => {
                store(&mut state);
                vec![Pending::Now(nack(sequence, code))]
            }
            Act::Gate => vec![Pending::Gate { sequence, partition, bytes }],
            Act::Ignore => vec![Pending::Never],
            Act::StoreAndGoAway => {
                let go_away = ToClient::GoAway(v1::GoAway { reason: "drain".to_owned() });
                vec![Pending::Now(store(&mut state)), Pending::Now(go_away)]
            }
            Act::AckWrong => {
                store(&mut state);
                vec![Pending::Now(ack(sequence + 1_000, (0, 1, false)))]
            }
        };
        drop(state);
        self.appended.send_modify(|count| *count += 1);
        (steps, true)
    }

    async fn answer(
        self,
        mut waiting: mpsc::Receiver<(Pending, u64)>,
        answers: Answers,
        unanswered: Arc<Mutex<(u64, usize)>>,
    ) {
        let mut gate = self.gate.subscribe();
        while let Some((step, len)) = waiting.recv().await {
            let message = match step {
                Pending::Now(message) => message,
                Pending::Gate { sequence, partition, bytes } => {
                    let _ = gate.wait_for(|open| *open).await;
                    match self.state.lock().append(partition, bytes) {
                        Ok(appended) => ack(sequence, appended),
                        Err(code) => nack(sequence, code),
                    }
                }
                Pending::End => {
                    let _ = answers.send(Err(Status::unavailable("lost"))).await;
                    return;
                }
                Pending::Never => continue,
            };
            if !matches!(message, ToClient::GoAway(_)) {
                let mut unanswered = unanswered.lock();
                *unanswered = (unanswered.0 - len, unanswered.1 - 1);
            }
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
        let act = {
            let mut state = self.state.lock();
            state.reads += 1;
            state.read_acts.pop_front()
        };
        let offset = |position: Option<v1::Position>| match position.and_then(|position| position.at) {
            Some(v1::position::At::Offset(offset)) => Some(offset),
            _ => None,
        };
        let mut at: BTreeMap<u32, (u64, Option<u64>, bool)> = BTreeMap::new();
        for read in request.partitions {
            let from = offset(read.from).expect("readers ask by offset");
            let start = self.state.lock().partitions[read.partition as usize].start;
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
        let state = self.state.lock();
        for (index, (next, until, told)) in at.iter_mut() {
            let partition = &state.partitions[*index as usize];
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
        let opened = {
            let mut state = self.state.lock();
            if let Some(code) = state.open_refusals.pop_front() {
                return Err(status(code));
            }
            if open.topic != "t" {
                return Err(status(ErrorCode::TopicNotFound));
            }
            state.sessions += 1;
            v1::AppendOpened {
                topic_id: 1,
                partition_count: u32::try_from(state.partitions.len()).expect("few"),
                credit_bytes: state.credit_bytes,
                max_batch_bytes: state.max_batch_bytes,
            }
        };
        let (answers, stream) = mpsc::channel(4096);
        let opened = v1::AppendSessionResponse { message: Some(ToClient::Opened(opened)) };
        answers.send(Ok(opened)).await.map_err(|_| Status::cancelled("gone"))?;
        tokio::spawn(self.clone().session(batches, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        if let Some(Act::Nack(code)) = self.state.lock().acts.pop_front() {
            return Err(status(code));
        }
        let partition = request.partition.unwrap_or(0);
        let appended = request.records.iter().map(|record| {
            let value = String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).expect("text");
            let offset = self.state.lock().partitions[partition as usize].end;
            self.write(partition as usize, &[&value]);
            v1::AppendedAt { partition, offset }
        });
        Ok(Response::new(v1::AppendResponse { appended: appended.collect() }))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = self.state.lock();
        let first_id = state.next_producer;
        state.next_producer += 1;
        Ok(Response::new(v1::InitProducerResponse { first_id, count: 1, epoch: 0 }))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().serve_read(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        let state = self.state.lock();
        let partition = &state.partitions[request.partition as usize];
        let batch = partition.batches.iter().find(|(base, _)| *base >= request.offset);
        Ok(Response::new(v1::FetchResponse {
            record_batches: batch.map(|(_, bytes)| bytes.clone()).unwrap_or_default(),
            next_offset: partition.end,
            high_watermark: partition.end,
            log_start: partition.start,
        }))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        use v1::position::At;
        let state = self.state.lock();
        let offsets = request.into_inner().positions.into_iter().map(|wanted| {
            let partition = state.partitions.get(wanted.partition as usize);
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

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Fake {
    async fn get_info(
        &self,
        _request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(v1::GetInfoResponse {
            version: "fake".to_owned(),
            node_id: 1,
            ..Default::default()
        }))
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
        if let Some(Act::Nack(code)) = self.state.lock().acts.pop_front() {
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
        let partitions = u32::try_from(self.state.lock().partitions.len()).expect("few");
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
