//! Starts nodes, and the few calls that every test makes.

use std::path::Path;

use bytes::Bytes;
use streamhouse_env::Env;
use streamhouse_proto::v1;
use streamhouse_proto::v1::append_session_request::Message as In;
use streamhouse_proto::v1::append_session_response::Message as Out;
use streamhouse_proto::v1::position::At;
use streamhouse_proto::v1::stream_service_client::StreamServiceClient;
use streamhouse_proto::v1::topic_service_client::TopicServiceClient;
use streamhouse_server::{Config, ConfigSources, Preset, Running, StartError, check_config, start};
use streamhouse_types::Timestamp;
use streamhouse_types::batch::{BatchBuilder, BatchLimits, Compression, RecordBatch, RecordRef};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// A configuration on free ports, with these settings on top.
pub(crate) fn config(dir: &Path, settings: &[(&str, &str)]) -> Config {
    let mut flags = vec![
        ("node.data_dir".to_owned(), dir.display().to_string()),
        ("listeners.kafka".to_owned(), "127.0.0.1:0".to_owned()),
        ("listeners.grpc".to_owned(), "127.0.0.1:0".to_owned()),
        ("listeners.internal".to_owned(), "127.0.0.1:0".to_owned()),
        ("listeners.http".to_owned(), "127.0.0.1:0".to_owned()),
    ];
    flags.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let sources = ConfigSources { preset: Preset::Dev, flags, ..ConfigSources::default() };
    check_config(&sources).expect("a usable configuration")
}

/// A node with its clients.
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) topics: TopicServiceClient<Channel>,
    pub(crate) streams: StreamServiceClient<Channel>,
}

impl Node {
    /// A node on `dir` with its objects in the same place.
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::with(config(dir, &[])).await.expect("started")
    }

    /// A node whose objects are gone when it stops.
    pub(crate) async fn in_memory(dir: &Path) -> Self {
        Self::with(config(dir, &[("store.url", "memory:///")])).await.expect("started")
    }

    pub(crate) async fn with(config: Config) -> Result<Self, StartError> {
        let running = start(config, Env::system()).await?;
        let address = format!("http://{}", running.addresses().grpc);
        let channel = Channel::from_shared(address).expect("an address").connect().await.expect("connected");
        let streams = StreamServiceClient::new(channel.clone()).max_decoding_message_size(16 << 20);
        Ok(Self { running, topics: TopicServiceClient::new(channel), streams })
    }

    pub(crate) async fn create(&mut self, name: &str, partitions: u32) {
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, ..Default::default() };
        self.topics.create_topic(request).await.expect("created");
    }

    pub(crate) async fn stop(self) {
        let Self { running, topics, streams } = self;
        drop((topics, streams));
        running.shutdown().await;
    }

    /// Everything that a partition holds from an offset on, as text.
    pub(crate) async fn values(&mut self, topic: &str, partition: u32, from: u64) -> Vec<String> {
        let mut answers = self.read(topic, &[(partition, At::Offset(from))], Follow::No).await;
        let mut values = Vec::new();
        while let Some(answer) = answers.message().await.expect("an answer") {
            values.extend(
                records(answer.record_batches).into_iter().filter(|(o, _)| *o >= from).map(|(_, v)| v),
            );
        }
        values
    }

    pub(crate) async fn read(
        &mut self,
        topic: &str,
        partitions: &[(u32, At)],
        follow: Follow,
    ) -> Streaming<v1::ReadResponse> {
        let read = |(partition, at): &(u32, At)| v1::PartitionRead {
            partition: *partition,
            from: Some(v1::Position { at: Some(*at) }),
            until: None,
        };
        let request = v1::ReadRequest {
            topic: topic.to_owned(),
            partitions: partitions.iter().map(read).collect(),
            follow: follow == Follow::Yes,
            max_bytes: 0,
            read_token: 0,
            patience_ms: 0,
        };
        self.streams.read(request).await.expect("a stream").into_inner()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    Yes,
    No,
}

/// Offsets and values of the records of some batches.
pub(crate) fn records(mut batches: Bytes) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    while let Some(batch) = RecordBatch::split_first(&mut batches, &BatchLimits::MAX).expect("sound batches")
    {
        let base = u64::try_from(batch.header().base_offset).expect("a final offset");
        for record in batch.records().expect("records") {
            let record = record.expect("a record");
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            found.push((base + u64::from(record.offset_delta), value));
        }
    }
    found
}

/// A batch of these values.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        let timestamp = Timestamp::from_millis(1_700_000_000_000);
        let record = RecordRef { key: None, value: Some(value.as_bytes()), headers: &[], timestamp };
        builder.push(&record).expect("room");
    }
    builder.build()
}

/// An open append session.
pub(crate) struct Session {
    requests: mpsc::Sender<v1::AppendSessionRequest>,
    answers: Streaming<v1::AppendSessionResponse>,
    next: u64,
}

impl Session {
    pub(crate) async fn open(node: &mut Node, topic: &str) -> (Self, v1::AppendOpened) {
        let mut session = Self::connect(node, topic).await;
        match session.answer().await {
            Out::Opened(opened) => (session, opened),
            other => panic!("{other:?} instead of opened"),
        }
    }

    pub(crate) async fn connect(node: &mut Node, topic: &str) -> Self {
        let (requests, queue) = mpsc::channel(16);
        let open = v1::OpenAppend { topic: topic.to_owned(), producer: None, want_credit_bytes: 0 };
        requests.send(v1::AppendSessionRequest { message: Some(In::Open(open)) }).await.expect("room");
        let answers = node.streams.append_session(ReceiverStream::new(queue)).await.expect("a session");
        Self { requests, answers: answers.into_inner(), next: 0 }
    }

    /// Sends a batch; returns its number.
    pub(crate) async fn send(&mut self, partition: u32, record_batch: Bytes) -> u64 {
        let session_sequence = self.next;
        self.next += 1;
        self.send_as(session_sequence, partition, record_batch).await;
        session_sequence
    }

    pub(crate) async fn send_as(&mut self, session_sequence: u64, partition: u32, record_batch: Bytes) {
        let batch = v1::AppendBatch { partition, session_sequence, record_batch };
        let request = v1::AppendSessionRequest { message: Some(In::Batch(batch)) };
        self.requests.send(request).await.expect("the session is open");
    }

    /// The next answer; news of where partitions are at home may come in between.
    pub(crate) async fn answer(&mut self) -> Out {
        loop {
            match self.answered().await.expect("no error").expect("an answer") {
                Out::Redirect(_) => {}
                answer => return answer,
            }
        }
    }

    pub(crate) async fn answered(&mut self) -> Result<Option<Out>, tonic::Status> {
        Ok(self.answers.message().await?.map(|answer| answer.message.expect("a message")))
    }

    pub(crate) async fn acked(&mut self) -> v1::AppendAck {
        match self.answer().await {
            Out::Ack(ack) => ack,
            other => panic!("{other:?} instead of an ack"),
        }
    }

    pub(crate) async fn refused(&mut self) -> v1::AppendNack {
        match self.answer().await {
            Out::Nack(nack) => nack,
            other => panic!("{other:?} instead of a nack"),
        }
    }

    /// Sends nothing more; the answers still come.
    pub(crate) fn finish(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.requests = closed;
    }
}

/// The reason of an error, as its details have it.
pub(crate) fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().expect("error info").reason
}
