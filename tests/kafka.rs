//! The Kafka port of the real binary, spoken to by hand: what a Kafka producer was told is durable survives a kill, a
//! batch that it repeats afterwards is recognised, and other protocols read it.

use anyhow::ensure;
use bytes::{Buf as _, Bytes};
use futures::TryStreamExt as _;
use streamhouse_client::{Mode, NewTopic, Position, StreamHouse};
use streamhouse_tests::cluster::Cluster;
use streamhouse_tests::node::Node;
use streamhouse_types::batch::{BatchBuilder, BatchProducer, Compression, RecordRef};
use streamhouse_types::{ProducerEpoch, ProducerId, Sequence, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[path = "kafka/doctor.rs"]
mod doctor;
#[path = "kafka/endpoint.rs"]
mod endpoint;
#[path = "kafka/idle.rs"]
mod idle;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
/// Keys of requests.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;
const JOIN_GROUP: i16 = 11;
const HEARTBEAT: i16 = 12;
const LEAVE_GROUP: i16 = 13;
const SYNC_GROUP: i16 = 14;
const INIT_PRODUCER_ID: i16 = 22;

/// A connection, in versions whose lengths are plain numbers.
struct Kafka(TcpStream);

impl Kafka {
    async fn connect(node: &Node) -> anyhow::Result<Self> {
        Self::to(node.kafka()).await
    }

    async fn to(address: &str) -> anyhow::Result<Self> {
        Ok(Self(TcpStream::connect(address).await?))
    }

    /// Sends a request; returns the body of its answer.
    async fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Bytes> {
        self.send(key, version, body).await?;
        self.receive().await
    }

    async fn send(&mut self, key: i16, version: i16, body: &[u8]) -> anyhow::Result<()> {
        let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &9_i32.to_be_bytes(), &text("test")];
        let frame = [&head.concat(), body].concat();
        self.0.write_i32(i32::try_from(frame.len())?).await?;
        Ok(self.0.write_all(&frame).await?)
    }

    /// The body of the next answer.
    async fn receive(&mut self) -> anyhow::Result<Bytes> {
        let length = usize::try_from(self.0.read_i32().await?)?;
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        ensure!(answer.get_i32() == 9, "the answer to another request");
        Ok(answer)
    }

    /// Asks for the topic, which makes it.
    async fn make_topic(&mut self) -> anyhow::Result<()> {
        let body = [&1_i32.to_be_bytes()[..], &text(TOPIC), &[1]].concat();
        let answer = self.ask(METADATA, 4, &body).await?;
        ensure!(answer.windows(8).any(|window| window == text(TOPIC)), "{answer:?}");
        Ok(())
    }

    /// A producer id.
    async fn producer(&mut self) -> anyhow::Result<ProducerId> {
        let mut answer =
            self.ask(INIT_PRODUCER_ID, 0, &[&(-1_i16).to_be_bytes()[..], &[0; 4]].concat()).await?;
        let (_throttled, error) = (answer.get_i32(), answer.get_i16());
        ensure!(error == 0, "error {error}");
        Ok(ProducerId::new(answer.get_u64()))
    }

    /// Has a batch appended to partition 0; returns its offset.
    async fn produce(&mut self, batch: &Bytes) -> anyhow::Result<i64> {
        self.send_batch(batch).await?;
        self.appended().await
    }

    async fn send_batch(&mut self, batch: &Bytes) -> anyhow::Result<()> {
        let length = i32::try_from(batch.len())?.to_be_bytes();
        let body = [
            &(-1_i16).to_be_bytes()[..],
            &(-1_i16).to_be_bytes(),
            &30_000_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &text(TOPIC),
            &1_i32.to_be_bytes(),
            &0_i32.to_be_bytes(),
            &length,
            batch,
        ];
        self.send(PRODUCE, 3, &body.concat()).await
    }

    /// The offset of a batch that was sent.
    async fn appended(&mut self) -> anyhow::Result<i64> {
        let mut answer = self.receive().await?;
        answer.advance(4 + text(TOPIC).len() + 4 + 4);
        let (error, offset) = (answer.get_i16(), answer.get_i64());
        ensure!(error == 0, "error {error}");
        Ok(offset)
    }

    /// Sends a batch and, before it is answered, asks where partition 0 ends; returns the batch's offset and that end.
    async fn end_behind(&mut self, batch: &Bytes) -> anyhow::Result<(i64, i64)> {
        self.send_batch(batch).await?;
        let one = 1_i32.to_be_bytes();
        let place = [&one[..], &text(TOPIC), &one, &0_i32.to_be_bytes(), &(-1_i64).to_be_bytes()].concat();
        self.send(LIST_OFFSETS, 1, &[&(-1_i32).to_be_bytes()[..], &place].concat()).await?;
        let appended = self.appended().await?;
        let mut answer = self.receive().await?;
        answer.advance(4 + text(TOPIC).len() + 4 + 4);
        let (error, _time, end) = (answer.get_i16(), answer.get_i64(), answer.get_i64());
        ensure!(error == 0, "the end: error {error}");
        Ok((appended, end))
    }

    /// What partition 0 holds from its start on, as it comes.
    async fn fetch(&mut self) -> anyhow::Result<Bytes> {
        let numbers = [-1_i32, 1_000, 1, 1 << 20].map(i32::to_be_bytes).concat();
        let place = [&0_i32.to_be_bytes()[..], &0_i64.to_be_bytes(), &(1_i32 << 20).to_be_bytes()].concat();
        let one = 1_i32.to_be_bytes();
        self.ask(FETCH, 4, &[&numbers[..], &[0], &one, &text(TOPIC), &one, &place].concat()).await
    }
}

/// A member of a group.
struct Member {
    id: String,
    generation: i32,
}

impl Member {
    /// How requests name it.
    fn named(&self) -> Vec<u8> {
        [&text(GROUP)[..], &self.generation.to_be_bytes(), &text(&self.id)].concat()
    }
}

impl Kafka {
    /// Joins as a new member and alone, and assigns to itself what it says.
    async fn join(&mut self, assignment: &[u8]) -> anyhow::Result<Member> {
        let timeouts = [30_000_i32, 60_000].map(i32::to_be_bytes).concat();
        let protocol = [&1_i32.to_be_bytes()[..], &text("range"), &bytes(b"what it reads")].concat();
        let body = [&text(GROUP)[..], &timeouts, &text(""), &text("consumer"), &protocol].concat();
        let mut answer = self.ask(JOIN_GROUP, 2, &body).await?;
        let (_throttled, error, generation) = (answer.get_i32(), answer.get_i16(), answer.get_i32());
        ensure!(error == 0, "joining: error {error}");
        let (protocol, leader, id) = (word(&mut answer), word(&mut answer), word(&mut answer));
        ensure!(protocol == "range" && leader == id, "{protocol} {leader} {id}");
        let member = Member { id, generation };
        let assigned = [&1_i32.to_be_bytes()[..], &text(&member.id), &bytes(assignment)].concat();
        let mut answer = self.ask(SYNC_GROUP, 1, &[member.named(), assigned].concat()).await?;
        let (_throttled, error) = (answer.get_i32(), answer.get_i16());
        ensure!(error == 0 && answer == bytes(assignment), "assigning: error {error}, {answer:?}");
        Ok(member)
    }

    /// The error of saying that the member is there.
    async fn heartbeat(&mut self, member: &Member) -> anyhow::Result<i16> {
        let mut answer = self.ask(HEARTBEAT, 1, &member.named()).await?;
        answer.advance(4);
        Ok(answer.get_i16())
    }

    /// The error of committing an offset of partition 0.
    async fn commit(&mut self, member: &Member, offset: i64) -> anyhow::Result<i16> {
        let one = 1_i32.to_be_bytes();
        let place =
            [&one[..], &text(TOPIC), &one, &0_i32.to_be_bytes(), &offset.to_be_bytes(), &text("so far")];
        let body = [member.named(), (-1_i64).to_be_bytes().to_vec(), place.concat()].concat();
        let mut answer = self.ask(OFFSET_COMMIT, 2, &body).await?;
        answer.advance(4 + text(TOPIC).len() + 4 + 4);
        Ok(answer.get_i16())
    }

    /// Offset and note that the group has committed for partition 0.
    async fn committed(&mut self) -> anyhow::Result<(i64, String)> {
        let one = 1_i32.to_be_bytes();
        let body = [&text(GROUP)[..], &one, &text(TOPIC), &one, &0_i32.to_be_bytes()].concat();
        let mut answer = self.ask(OFFSET_FETCH, 1, &body).await?;
        answer.advance(4 + text(TOPIC).len() + 4 + 4);
        let (offset, note, error) = (answer.get_i64(), word(&mut answer), answer.get_i16());
        ensure!(error == 0, "what is committed: error {error}");
        Ok((offset, note))
    }
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&length[..], bytes].concat()
}

/// Takes a text off the front.
fn word(answer: &mut Bytes) -> String {
    let length = usize::try_from(answer.get_i16()).expect("no null");
    String::from_utf8(answer.split_to(length).to_vec()).expect("text")
}

fn text(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("short").to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

/// A batch with one record.
fn batch(id: ProducerId, first_sequence: u32, value: &str) -> anyhow::Result<Bytes> {
    let mut builder = BatchBuilder::new(Compression::None);
    let timestamp = Timestamp::from_millis(1_700_000_000_000);
    builder.push(&RecordRef { key: None, value: Some(value.as_bytes()), headers: &[], timestamp })?;
    let first_sequence = Sequence::new(first_sequence);
    builder.set_producer(BatchProducer { id, epoch: ProducerEpoch::new(0), first_sequence });
    Ok(builder.build())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kafka_producer_was_told_is_durable_survives_a_kill_and_is_there_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    kafka.make_topic().await?;
    let producer = kafka.producer().await?;
    let (first, second) = (batch(producer, 0, "one of two")?, batch(producer, 1, "two of two")?);
    ensure!(kafka.produce(&first).await? == 0 && kafka.produce(&second).await? == 1);

    node.kill();
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    ensure!(kafka.produce(&second).await? == 1, "a repetition has the offset that it had");
    let fetched = kafka.fetch().await?;
    for value in ["one of two", "two of two"] {
        let times = fetched.windows(value.len()).filter(|window| *window == value.as_bytes()).count();
        ensure!(times == 1, "`{value}` came {times} times");
    }
    let house = StreamHouse::connect(node.grpc()).await?;
    let records = house.topic(TOPIC).read(Position::Start).open().await?.records();
    let values: Vec<_> = records.map_ok(|record| record.value).try_collect().await?;
    let values: Vec<_> = values.iter().flatten().map(|value| &value[..]).collect();
    ensure!(values == [b"one of two", b"two of two"], "{values:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_for_an_answer_still_sees_what_it_has_sent_before() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    kafka.make_topic().await?;
    let producer = kafka.producer().await?;
    for sequence in 0..20 {
        let (appended, end) = kafka.end_behind(&batch(producer, sequence, "a record")?).await?;
        ensure!((appended, end) == (i64::from(sequence), i64::from(sequence) + 1), "{appended} {end}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_files_are_kept_over_a_kill() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    let new = NewTopic::new(TOPIC).setting("segment.jitter.ms", "7");
    house.admin().create_topic(new, Mode::Apply).await?;
    let changes = [("index.interval.bytes".to_owned(), Some("8192".to_owned()))];
    house.admin().alter_topic(TOPIC, changes.into(), Mode::Apply).await?;

    node.kill();
    node.start().await?;
    let house = StreamHouse::connect(node.grpc()).await?;
    let settings = house.admin().describe_topic(TOPIC).await?.settings;
    for (name, value) in [("segment.jitter.ms", "7"), ("index.interval.bytes", "8192")] {
        let found = settings.iter().find(|setting| setting.name == name);
        ensure!(found.is_some_and(|found| found.value == value), "{name}: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_group_and_what_it_committed_survive_a_kill_of_the_node() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    kafka.make_topic().await?;
    let producer = kafka.producer().await?;
    kafka.produce(&batch(producer, 0, "one of two")?).await?;
    kafka.produce(&batch(producer, 1, "two of two")?).await?;
    let member = kafka.join(b"partition 0").await?;
    ensure!(kafka.heartbeat(&member).await? == 0 && kafka.commit(&member, 1).await? == 0);

    node.kill();
    node.start().await?;
    let mut kafka = Kafka::connect(&node).await?;
    ensure!(kafka.heartbeat(&member).await? == 0, "it is a member still, without joining again");
    ensure!(kafka.committed().await? == (1, "so far".to_owned()));
    let zombie = Member { id: member.id.clone(), generation: member.generation - 1 };
    ensure!(kafka.commit(&zombie, 0).await? == 22, "the generation before commits nothing");
    let stranger = Member { id: "stranger".to_owned(), generation: member.generation };
    ensure!(kafka.commit(&stranger, 0).await? == 25, "who is no member commits nothing");
    ensure!(kafka.committed().await?.0 == 1);

    let house = StreamHouse::connect(node.grpc()).await?;
    let group = house.admin().describe_group(GROUP).await?;
    ensure!((group.member_count, group.lag_records) == (1, 1), "{group:?}");
    let body = [text(GROUP), text(&member.id)].concat();
    let mut answer = kafka.ask(LEAVE_GROUP, 1, &body).await?;
    answer.advance(4);
    ensure!(answer.get_i16() == 0 && kafka.heartbeat(&member).await? == 25, "it has left");
    Ok(())
}

/// How a node answers who asks for a topic: the id of its one broker, the error, and the number of partitions.
async fn told(kafka: &mut Kafka, topic: &str, make: u8) -> anyhow::Result<(i32, i16, i32)> {
    let body = [&1_i32.to_be_bytes()[..], &text(topic), &[make]].concat();
    let mut answer = kafka.ask(METADATA, 4, &body).await?;
    let (_throttled, brokers, id) = (answer.get_i32(), answer.get_i32(), answer.get_i32());
    ensure!(brokers == 1, "{brokers} brokers");
    let (_host, _port, _rack) = (word(&mut answer), answer.get_i32(), answer.get_i16());
    let (_cluster, _controller) = (word(&mut answer), answer.get_i32());
    let (topics, error) = (answer.get_i32(), answer.get_i16());
    ensure!(topics == 1 && word(&mut answer) == topic, "{topics} topics");
    let (_internal, partitions) = (answer.get_u8(), answer.get_i32());
    Ok((id, error, partitions))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_asked_for_at_a_reader_is_made_as_at_a_broker() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(1, |node, _| node)?;
    cluster.start().await?;
    let mut reader = Node::new(&cluster.folder().join("reader"))
        .argument("--node.id=9")
        .argument("--node.roles=reader")
        .argument(format!("--cluster.seeds={}", cluster.internal(1)))
        .argument(format!("--store=file://{}", cluster.folder().join("store").display()));
    reader.start().await?;
    let mut kafka = Kafka::connect(&reader).await?;
    let (unknown, none) = (3, 0);
    let found = told(&mut kafka, "missing", 0).await?;
    ensure!(found == (1, unknown, 0), "it was not to be made: {found:?}");
    let found = told(&mut kafka, "fresh", 1).await?;
    ensure!(found == (1, none, 1), "the broker makes it: {found:?}");
    let found = told(&mut Kafka::connect(&cluster.nodes[0]).await?, "fresh", 0).await?;
    ensure!(found == (1, none, 1), "it is there: {found:?}");
    // Without a broker nobody makes one.
    cluster.node(1).kill();
    let (_, error, _) = told(&mut kafka, "never", 1).await?;
    ensure!(error != none, "nobody could make it");
    Ok(())
}
