//! An idempotent producer: up to five batches of a partition on their way at a time, sent again until they are answered.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use kacrab_protocol::generated as g;
use streamhouse_check::{Acknowledged, Digest, Happened, OpId, Sending};
use streamhouse_types::batch::{BatchBuilder, BatchProducer, Compression, RecordRef};
use streamhouse_types::{ProducerEpoch, ProducerId, Sequence};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Line, Place, text};
use crate::{Witness, code};

/// Requests on their way to a partition. A broker knows so many batches of a producer again, the newest ones, so no
/// batch is made while one that is older by so many is not acknowledged, even when those between them are.
const IN_FLIGHT: u64 = 5;
/// How long the node, and how long the client waits for an answer.
const TIMEOUT_MS: i32 = 8_000;
const PATIENCE: Duration = Duration::from_secs(10);
/// One answer of so many is lost with its connection.
const LOST_ANSWER: u64 = 100;
const PRODUCE: i16 = 12;
const INIT_PRODUCER_ID: i16 = 4;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Most records that one producer id sends to one partition.
    pub records_max: u64,
    /// Longest pause between two batches.
    pub pause_ms_max: u64,
    /// When a batch that is not answered is given up, and the producer begins anew.
    pub delivery_timeout: Duration,
}

/// A producer that begins anew under another id when something was given up, until it is to stop.
#[derive(Debug)]
pub struct Producer<W> {
    /// Where it is.
    pub place: Place,
    /// What it saw.
    pub witness: W,
    /// What the history calls it.
    pub name: String,
    /// How much it sends.
    pub load: Load,
}

impl<W: Witness> Producer<W> {
    /// Runs until it is to stop and everything is answered or given up.
    pub async fn run(self) {
        let mut life = 0;
        while !self.place.stop.is_cancelled() {
            match self.begin().await {
                Ok((partitions, batches)) => {
                    let name = format!("{}.{life}", self.name);
                    let over = self.place.stop.child_token();
                    let lanes =
                        partitions.into_iter().map(|partition| self.lane(&name, partition, batches, &over));
                    futures::future::join_all(lanes.map(Lane::run)).await;
                    life += 1;
                }
                Err(error) => {
                    tracing::debug!(producer = self.name, %error, "kafka producer has not begun");
                    self.place.pause(500).await;
                }
            }
        }
    }

    /// Learns the partitions, and gets an id.
    async fn begin(&self) -> io::Result<(Vec<i32>, BatchProducer)> {
        let mut cluster = Cluster::new(self.place.clone());
        cluster.refresh().await?;
        let mut line = cluster.any().await?;
        let request = g::InitProducerIdRequestData {
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let granted = cluster.ask(&mut line, &request, INIT_PRODUCER_ID).await?;
        let id = u64::try_from(granted.producer_id).ok().filter(|_| granted.error_code == code::NONE);
        let id =
            id.ok_or_else(|| io::Error::other(format!("no producer id: error {}", granted.error_code)))?;
        let epoch = u16::try_from(granted.producer_epoch).map_err(io::Error::other)?;
        let first_sequence = Sequence::new(0);
        let (id, epoch) = (ProducerId::new(id), ProducerEpoch::new(epoch));
        Ok((cluster.partitions(), BatchProducer { id, epoch, first_sequence }))
    }

    fn lane<'a>(
        &'a self,
        name: &'a str,
        partition: i32,
        producer: BatchProducer,
        over: &CancellationToken,
    ) -> Lane<'a, W> {
        Lane {
            name,
            partition,
            producer,
            witness: &self.witness,
            load: self.load,
            cluster: Cluster::new(self.place.clone()),
            over: over.clone(),
            batches: 0,
            made: 0,
            records: self.place.between(1, self.load.records_max),
            pending: VecDeque::new(),
        }
    }
}

/// A batch that is not answered for good.
#[derive(Debug)]
struct Batch {
    op: OpId,
    /// How many batches were made before it.
    place: u64,
    bytes: Bytes,
    made: Duration,
    sent: u32,
    /// Attempts of which nobody has said that they did not happen.
    open: u32,
    /// What an answer said that was lost.
    lost: Option<i64>,
}

/// What one producer sends to one partition.
struct Lane<'a, W> {
    name: &'a str,
    partition: i32,
    producer: BatchProducer,
    witness: &'a W,
    load: Load,
    cluster: Cluster,
    /// Nothing new is sent any more.
    over: CancellationToken,
    /// How many batches were made.
    batches: u64,
    /// How many records were made.
    made: u64,
    /// How many are to be.
    records: u64,
    pending: VecDeque<Batch>,
}

/// Why a lane does not go on as it is.
enum Break {
    /// What is pending is sent again, perhaps elsewhere.
    Again(String),
    /// It never comes in.
    Ended(String),
}

impl From<io::Error> for Break {
    fn from(error: io::Error) -> Self {
        Self::Again(error.to_string())
    }
}

impl<W: Witness> Lane<'_, W> {
    async fn run(mut self) {
        while let Err(reason) = self.talk().await {
            match reason {
                Break::Again(reason) if !self.is_late() => {
                    tracing::debug!(
                        producer = self.name,
                        partition = self.partition,
                        reason,
                        "kafka batches are sent again"
                    );
                    self.pause_for_retry().await;
                }
                Break::Again(reason) | Break::Ended(reason) => return self.give_up(&reason),
            }
        }
    }

    /// Not cut short when the client is to end: what was sent is to be answered first.
    async fn pause_for_retry(&self) {
        let pause = Duration::from_millis(self.cluster.place.between(10, 300));
        self.cluster.place.env.clock.sleep(pause).await;
    }

    fn is_late(&self) -> bool {
        let now = self.cluster.place.env.clock.now();
        self.pending.front().is_some_and(|batch| now.saturating_sub(batch.made) > self.load.delivery_timeout)
    }

    fn give_up(&mut self, reason: &str) {
        self.over.cancel();
        for batch in self.pending.drain(..) {
            let happened = if batch.open == 0 { Happened::No } else { Happened::Maybe };
            self.witness.failed(batch.op, happened, reason);
        }
    }

    fn wants_more(&self) -> bool {
        let oldest = self.pending.front().map_or(self.batches, |batch| batch.place);
        self.made < self.records && self.batches - oldest < IN_FLIGHT && !self.over.is_cancelled()
    }

    /// Sends on one connection until all is sent and answered.
    async fn talk(&mut self) -> Result<(), Break> {
        if self.pending.is_empty() && !self.wants_more() {
            return Ok(());
        }
        self.cluster.refresh().await?;
        let led = self.cluster.led(self.partition);
        let led = led.ok_or_else(|| Break::Again("the partition is not known".to_owned()))?;
        let mut line = self.cluster.node(led.leader).await?;
        for place in 0..self.pending.len() {
            self.send(&mut line, place).await?;
        }
        // How many of the pending ones were refused; they are the first.
        let mut refused = 0;
        loop {
            while refused == 0 && self.wants_more() {
                self.make();
                self.send(&mut line, self.pending.len() - 1).await?;
                if self.cluster.place.one_in(3) {
                    break;
                }
            }
            if line.waiting() == 0 {
                let again = || Err(Break::Again("a batch was refused".to_owned()));
                return if refused > 0 { again() } else { Ok(()) };
            }
            self.receive(&mut line, &mut refused).await?;
            self.cluster.place.pause(self.load.pause_ms_max).await;
        }
    }

    fn make(&mut self) {
        let place = &self.cluster.place;
        let count = place.between(1, 10).min(self.records - self.made);
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd]
            [usize::from(place.one_in(4)) + usize::from(place.one_in(8))];
        let mut builder = BatchBuilder::new(compression);
        let first_sequence = Sequence::new(u32::try_from(self.made).expect("few records"));
        builder.set_producer(BatchProducer { first_sequence, ..self.producer });
        let mut values = Vec::new();
        for number in self.made..self.made + count {
            let mut value = format!("{}/{}/{number}/", self.name, self.partition).into_bytes();
            value.resize(value.len() + usize::try_from(place.between(0, 300)).expect("short"), b'k');
            values.push(Digest::of(&value));
            let timestamp = place.env.clock.wall();
            let record = RecordRef { key: None, value: Some(&value), headers: &[], timestamp };
            builder.push(&record).expect("it fits");
        }
        let op = self.witness.append(&Sending {
            producer: self.name,
            idempotent: true,
            partition: &place.partition_name(self.partition),
            sequence: self.made,
            values: &values,
        });
        self.made += count;
        let made = place.env.clock.now();
        let (place, bytes) = (self.batches, builder.build());
        self.batches += 1;
        self.pending.push_back(Batch { op, place, bytes, made, sent: 0, open: 0, lost: None });
    }

    async fn send(&mut self, line: &mut Line, place: usize) -> io::Result<()> {
        let batch = &mut self.pending[place];
        (batch.sent, batch.open) = (batch.sent + 1, batch.open + 1);
        let partition = g::PartitionProduceData {
            index: self.partition,
            records: Some(batch.bytes.clone()),
            ..Default::default()
        };
        let topic = g::TopicProduceData {
            name: text(&self.cluster.place.topic),
            partition_data: vec![partition],
            ..Default::default()
        };
        let request = g::ProduceRequestData {
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![topic],
            ..Default::default()
        };
        self.cluster.place.within(PATIENCE, line.send(&request, PRODUCE)).await?;
        Ok(())
    }

    /// Takes the answer to the oldest batch that is neither answered nor refused.
    async fn receive(&mut self, line: &mut Line, refused: &mut usize) -> Result<(), Break> {
        let waiting = line.waiting();
        let answer = line.receive::<g::ProduceRequestData>(PRODUCE);
        let (_, answer) = self.cluster.place.within(PATIENCE, answer).await?;
        if line.waiting() + 1 != waiting {
            return Err(Break::Again("an answer to another request".to_owned()));
        }
        let told = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let told = told.ok_or_else(|| Break::Again("an answer without the partition".to_owned()))?;
        if told.error_code == code::NONE {
            if self.cluster.place.one_in(LOST_ANSWER) {
                self.pending[*refused].lost = Some(told.base_offset);
                return Err(Break::Again("the answer was lost".to_owned()));
            }
            let batch = self.pending.remove(*refused).expect("an answer belongs to a batch");
            self.acked(&batch, told.base_offset);
            return Ok(());
        }
        self.witness.met(&format!("kafka: produce {}", told.error_code));
        if !matches!(told.error_code, code::REQUEST_TIMED_OUT | code::NETWORK_EXCEPTION | code::UNKNOWN) {
            self.pending[*refused].open -= 1;
        }
        if told.error_code == code::OUT_OF_ORDER_SEQUENCE && *refused == 0 {
            let text = format!(
                "{} was told that a batch of partition {} does not follow what came before, of which nothing had failed",
                self.name, self.partition
            );
            self.witness.wrong(text);
        }
        if told.error_code == code::NOT_LEADER {
            self.witness.met("kafka: a client was sent on");
        }
        let reason = format!("error {}: {}", told.error_code, told.error_message.clone().unwrap_or_default());
        if !is_worth_another_try(told.error_code)
            || (told.error_code == code::OUT_OF_ORDER_SEQUENCE && *refused == 0)
        {
            return Err(Break::Ended(reason));
        }
        *refused += 1;
        Ok(())
    }

    fn acked(&self, batch: &Batch, base: i64) {
        let Ok(offset) = u64::try_from(base) else {
            return self.witness.wrong(format!("{} was acknowledged at offset {base}", self.name));
        };
        if let Some(lost) = batch.lost {
            self.witness.met("kafka: a duplicate was acknowledged");
            if lost != base {
                self.witness
                    .wrong(format!("{}: a repeated batch lies at {base}, and lay at {lost}", self.name));
            }
        }
        self.witness.acked(batch.op, Acknowledged { retried: batch.sent > 1, ..Acknowledged::at(offset) });
    }
}

/// The topic or its leader may not be known yet; the store or the node may be in trouble; what came before was refused.
fn is_worth_another_try(error: i16) -> bool {
    const AGAIN: [i16; 9] = [code::UNKNOWN, 3, 5, code::NOT_LEADER, code::REQUEST_TIMED_OUT, 13, 45, 56, 89];
    AGAIN.contains(&error)
}
