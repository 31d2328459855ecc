//! A load of idempotent producers that remember every acknowledgement, and the judge of what is read back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use streamhouse_check::{Acknowledged, Digest, Event, FinalRead, Happened, OpId, Recorder, Sending};
use streamhouse_client::{
    Offset, PartitionIndex, Position, Producer, ReadToken, Record, SendError, StreamHouse, Ticket,
    VerifyDepth, VerifyProgress,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::reading::{Reading, written};

/// How many records of one producer may wait for their acknowledgement.
const UNACKED_RECORDS: usize = 4096;

/// What is sent, and how much of it at once.
#[derive(Debug, Clone)]
pub struct Load {
    /// The topic.
    pub topic: String,
    /// Its partitions; each producer writes to all of them in turn.
    pub partitions: u32,
    /// How many producers run side by side.
    pub producers: u32,
    /// Size of a record's value in bytes, at least 24.
    pub value_bytes: usize,
    /// The number of the first producer, when several loads write to one topic.
    pub first_producer: u32,
    /// How many bytes of values each producer offers a second; `None`: as many as are taken.
    pub bytes_per_second: Option<u64>,
    /// Where everything that is sent, acknowledged and read is written down.
    pub recorder: Recorder,
}

/// Who reads everything back.
const JUDGE: &str = "judge";

/// How often a paced producer sends.
const PACE: Duration = Duration::from_millis(10);

/// One acknowledged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Acked {
    producer: u32,
    number: u64,
    partition: PartitionIndex,
    offset: Offset,
    read_token: ReadToken,
}

/// A load that runs until it is told to finish.
#[derive(Debug)]
pub struct Running {
    load: Load,
    stop: Arc<AtomicBool>,
    acked: watch::Receiver<u64>,
    producers: Vec<JoinHandle<anyhow::Result<u64>>>,
    acks: JoinHandle<anyhow::Result<Vec<Acked>>>,
}

/// What was sent and acknowledged.
#[derive(Debug)]
pub struct Sent {
    load: Load,
    acked: Vec<Acked>,
    /// How many records were handed to the producers.
    pub records: u64,
}

/// What reading everything back showed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Records that were acknowledged.
    pub acked: u64,
    /// Records that were read.
    pub read: u64,
    /// Acknowledged, but not at their offset with their value.
    pub lost: u64,
    /// Read more than once.
    pub duplicated: u64,
    /// Offsets that no record has.
    pub gaps: u64,
    /// Behind a later record of the same producer in the same partition.
    pub reordered: u64,
    /// Read, but never sent, or with other bytes.
    pub foreign: u64,
}

impl Judgement {
    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.gaps + self.reordered + self.foreign == 0 && self.acked > 0
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, read, lost, duplicated, gaps, reordered, foreign } = self;
        write!(
            f,
            "{acked} acked, {read} read, {lost} lost, {duplicated} duplicated, {gaps} gaps, {reordered} reordered, \
             {foreign} foreign"
        )
    }
}

impl Load {
    fn value(&self, producer: u32, number: u64) -> String {
        let head = format!("{producer:04}-{number:012}-");
        let fill = self.value_bytes.saturating_sub(head.len());
        // The filler depends on the number, so that a value with another's filler is seen.
        let letter = char::from(b'a' + u8::try_from(number % 26).expect("less than 26"));
        head + &String::from(letter).repeat(fill)
    }

    fn parse(&self, value: &[u8]) -> Option<(u32, u64)> {
        let text = std::str::from_utf8(value).ok()?;
        let (producer, rest) = text.split_once('-')?;
        let (number, _) = rest.split_once('-')?;
        let parsed = (producer.parse().ok()?, number.parse().ok()?);
        (self.value(parsed.0, parsed.1) == text).then_some(parsed)
    }

    fn partition(&self, index: PartitionIndex) -> String {
        format!("{}/{index}", self.topic)
    }

    /// Writes down that a record is about to be sent.
    fn sending(&self, producer: u32, number: u64, partition: PartitionIndex) -> OpId {
        self.recorder.append(&Sending {
            producer: &format!("producer-{producer}"),
            idempotent: true,
            partition: &self.partition(partition),
            sequence: number,
            values: &[Digest::of(self.value(producer, number).as_bytes())],
        })
    }

    /// Writes down that it has failed.
    fn failed(&self, op: OpId, error: &SendError) {
        let happened = if error.may_have_happened() { Happened::Maybe } else { Happened::No };
        self.recorder.failed(op, happened, &error.to_string());
    }

    /// Starts the producers.
    ///
    /// # Errors
    /// When a producer cannot be made.
    pub async fn start(self, house: &StreamHouse) -> anyhow::Result<Running> {
        let stop = Arc::new(AtomicBool::new(false));
        let (count, acked) = watch::channel(0);
        let (tickets, waiting) = mpsc::channel(UNACKED_RECORDS * self.producers as usize);
        let mut producers = Vec::new();
        for id in self.first_producer..self.first_producer + self.producers {
            let producer = house.topic(&self.topic).producer().build().await?;
            let (load, stop, tickets) = (self.clone(), stop.clone(), tickets.clone());
            producers.push(tokio::spawn(produce(load, id, producer, stop, tickets)));
        }
        let acks = tokio::spawn(collect(self.clone(), waiting, count));
        Ok(Running { load: self, stop, acked, producers, acks })
    }
}

/// A record that is not acknowledged yet.
struct Waiting {
    producer: u32,
    number: u64,
    op: OpId,
    ticket: Ticket,
}

async fn produce(
    load: Load,
    id: u32,
    producer: Producer,
    stop: Arc<AtomicBool>,
    tickets: mpsc::Sender<Waiting>,
) -> anyhow::Result<u64> {
    let mut number = 0;
    let mut ticks = tokio::time::interval(PACE);
    // What was not taken is not offered on top later.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let per_tick = load.bytes_per_second.map(|bytes| (bytes / 100 / load.value_bytes as u64).max(1));
    while !stop.load(Ordering::Relaxed) {
        if per_tick.is_some_and(|records| number % records == 0) {
            ticks.tick().await;
        }
        let partition = u32::try_from(number % u64::from(load.partitions)).expect("less than the partitions");
        let partition = PartitionIndex::new(partition);
        let record = Record::new(load.value(id, number)).partition(partition);
        let op = load.sending(id, number, partition);
        let ticket = producer.send(record).await.inspect_err(|error| load.failed(op, error))?;
        // Waits when too many are unacknowledged.
        if tickets.send(Waiting { producer: id, number, op, ticket }).await.is_err() {
            break;
        }
        number += 1;
    }
    producer.close().await?;
    Ok(number)
}

async fn collect(
    load: Load,
    mut waiting: mpsc::Receiver<Waiting>,
    count: watch::Sender<u64>,
) -> anyhow::Result<Vec<Acked>> {
    let mut acked = Vec::new();
    while let Some(Waiting { producer, number, op, ticket }) = waiting.recv().await {
        let ack = ticket.await.map_err(|error| {
            load.failed(op, &error);
            let unsure = error.may_have_happened();
            anyhow::anyhow!("producer {producer}, record {number}: {error} (may have happened: {unsure})")
        })?;
        let acknowledged =
            Acknowledged { token: written(ack.read_token()), ..Acknowledged::at(ack.offset.get()) };
        load.recorder.acked(op, acknowledged);
        let read_token = ack.read_token();
        acked.push(Acked { producer, number, partition: ack.partition, offset: ack.offset, read_token });
        count.send_replace(acked.len() as u64);
    }
    Ok(acked)
}

impl Running {
    /// How many records are acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        *self.acked.borrow()
    }

    /// Waits until at least so many records are acknowledged.
    ///
    /// # Errors
    /// When a record failed.
    pub async fn wait_for(&mut self, records: u64) -> anyhow::Result<()> {
        if self.acked.wait_for(|acked| *acked >= records).await.is_ok() {
            return Ok(());
        }
        let error = (&mut self.acks).await?.err();
        bail!("the load ended early: {error:?}")
    }

    /// Tells the producers to take nothing more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the load: every record that was taken is acknowledged before this returns.
    ///
    /// # Errors
    /// When a record failed.
    pub async fn finish(self) -> anyhow::Result<Sent> {
        self.stop();
        let mut records = 0;
        let mut failure = None;
        for producer in self.producers {
            match producer.await? {
                Ok(sent) => records += sent,
                Err(error) => failure = Some(error),
            }
        }
        let acked = self.acks.await?.context("an acknowledgement")?;
        match failure {
            Some(error) => Err(error),
            None => Ok(Sent { load: self.load, acked, records }),
        }
    }
}

impl Sent {
    /// Reads the whole topic back, at least as new as the newest acknowledgement, and judges it. Where several loads wrote
    /// to the topic, each judges its own records.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn judge(&self, house: &StreamHouse) -> anyhow::Result<Judgement> {
        let own = self.load.first_producer..self.load.first_producer + self.load.producers;
        let mut judgement = Judgement { acked: self.acked.len() as u64, ..Judgement::default() };
        let mut found: BTreeMap<(u32, u64), (PartitionIndex, Offset)> = BTreeMap::new();
        let mut next: BTreeMap<PartitionIndex, u64> = BTreeMap::new();
        let mut newest: BTreeMap<(u32, PartitionIndex), u64> = BTreeMap::new();
        let newest_ack = self.acked.iter().map(|acked| acked.read_token).max().unwrap_or_default();
        let mut reading = Reading::begin(&self.load.recorder, JUDGE, &self.load.topic, newest_ack);
        self.load.recorder.record(&Event::FinalRead(FinalRead { at: self.load.recorder.now() }));
        let topic = house.topic(&self.load.topic);
        let mut records = topic.read(Position::Start).at_least(newest_ack).open().await?.records();
        while let Some(record) = records.next().await {
            let record = record?;
            reading.take(&record, records.progress());
            judgement.read += 1;
            let expected = next.entry(record.partition).or_default();
            judgement.gaps += record.offset.get().abs_diff(*expected);
            *expected = record.offset.get() + 1;
            let Some((producer, number)) = record.value.as_deref().and_then(|value| self.load.parse(value))
            else {
                judgement.foreign += 1;
                continue;
            };
            if !own.contains(&producer) {
                continue;
            }
            if found.insert((producer, number), (record.partition, record.offset)).is_some() {
                judgement.duplicated += 1;
            }
            let before = newest.insert((producer, record.partition), number);
            judgement.reordered += u64::from(before.is_some_and(|before| before >= number));
        }
        reading.write_all();
        let there = |acked: &&Acked| {
            found.get(&(acked.producer, acked.number)) != Some(&(acked.partition, acked.offset))
        };
        judgement.lost = self.acked.iter().filter(there).count() as u64;
        Ok(judgement)
    }
}

/// Has every object checked against the metadata, byte by byte; the answer holds all faults.
///
/// # Errors
/// When the check itself cannot be made.
pub async fn verify_deep(house: &StreamHouse) -> anyhow::Result<VerifyProgress> {
    let mut steps = Box::pin(house.admin().verify_storage(VerifyDepth::Deep).await?);
    let mut faults = Vec::new();
    let mut last = None;
    while let Some(step) = steps.next().await {
        let mut step = step?;
        faults.append(&mut step.faults);
        last = Some(step);
    }
    let mut last = last.filter(|step| step.done).context("the check ended early")?;
    last.faults = faults;
    Ok(last)
}
