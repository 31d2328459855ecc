//! A producer that remembers what it sent and what it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_check::{Acknowledged, Digest, Happened, OpId, Sending};
use streamhouse_client::{
    Compression, Delivery, ErrorCode, PartitionIndex, Producer, Record, SendError, StreamHouse, Ticket,
};
use tokio::task::JoinSet;

use super::{Client, TOPIC};
use crate::history::written;
use crate::seed::Dice;
use crate::world::Stage;

/// Records of one producer that may wait for their acknowledgement.
const UNACKED: usize = 200;

pub(super) async fn run(client: Client, number: u64) {
    let dice = client.seed.branch(&format!("producer {number}")).rng();
    let delivery = if number == 1 { Delivery::AtMostOnce } else { Delivery::ExactlyOnce };
    for life in 0.. {
        if client.world.stage() > Stage::Faults {
            return;
        }
        let house = client.connect(&dice).await;
        match open(&house, &dice, delivery).await {
            Ok(producer) => {
                let name = format!("producer {number}.{life}");
                let failures = Failures::default();
                Life { client: &client, dice: &dice, producer, delivery, name, failures }.run().await;
            }
            Err(error) => {
                client.world.coverage.error("open", &error);
                client.pause(dice.between(50, 500)).await;
            }
        }
    }
}

async fn open(
    house: &StreamHouse,
    dice: &Dice,
    delivery: Delivery,
) -> Result<Producer, streamhouse_client::CallError> {
    let compression =
        *dice.pick(&[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd]);
    house
        .topic(TOPIC)
        .producer()
        .delivery(delivery)
        .compression(compression)
        .linger(Duration::from_millis(dice.magnitude(1, 20)))
        .batch_bytes(u32::try_from(dice.magnitude(1 << 10, 1 << 18)).expect("small"))
        .delivery_timeout(Duration::from_millis(dice.magnitude(2_000, 60_000)))
        .build()
        .await
}

/// One producer session of the client library, from its beginning to its end.
struct Life<'a> {
    client: &'a Client,
    dice: &'a Dice,
    producer: Producer,
    delivery: Delivery,
    name: String,
    failures: Failures,
}

/// What failed first in one session, by partition.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<BTreeMap<u32, Failure>>>);

/// A record that failed, by its number in the session, and how.
#[derive(Debug, Clone, Copy)]
struct Failure {
    number: u64,
    code: Option<ErrorCode>,
}

impl Failures {
    fn note(&self, place: Place, error: &SendError) {
        let failure = Failure { number: place.number, code: error.code() };
        let mut failures = self.0.lock();
        let first = failures.entry(place.partition).or_insert(failure);
        if failure.number < first.number {
            *first = failure;
        }
    }

    /// A partition whose first failure is that it did not follow what came before it: all that had been taken.
    fn out_of_order(&self) -> Option<(u32, u64)> {
        let failures = self.0.lock();
        let mut wrong =
            failures.iter().filter(|(_, first)| first.code == Some(ErrorCode::OutOfOrderSequence));
        wrong.next().map(|(partition, first)| (*partition, first.number))
    }
}

/// Where a record of a session goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    partition: u32,
    number: u64,
}

impl Life<'_> {
    async fn run(self) {
        let records = self.dice.magnitude(20, 20_000);
        let mut tickets = JoinSet::new();
        for number in 0..records {
            if self.client.world.stage() > Stage::Faults {
                break;
            }
            let sent = tokio::select! {
                biased;
                sent = self.send(number) => sent,
                // There was no room for it for as long as the load went on.
                () = self.client.world.passed(Stage::Faults) => break,
            };
            match sent {
                Some((place, op, ticket)) => {
                    let (client, failures) = (self.client.clone(), self.failures.clone());
                    tickets.spawn(settle(client, failures, place, op, ticket));
                }
                None => break,
            }
            while tickets.len() >= UNACKED {
                drop(tickets.join_next().await);
            }
            self.pace().await;
        }
        // Failures are told by the tickets as well.
        drop(self.producer.close().await);
        while tickets.join_next().await.is_some() {}
        if let Some((partition, number)) = self.failures.out_of_order() {
            let name = &self.name;
            self.client.world.violate(format!(
                "{name} was told that record {number} of partition {partition} does not follow what came before, of which nothing had failed"
            ));
        }
    }

    /// Bursts and lulls around the mean.
    async fn pace(&self) {
        let mean = self.client.world.plan.record_every_ms;
        if !self.dice.one_in(3) {
            self.client.pause(self.dice.below(mean * 3)).await;
        }
    }

    async fn send(&self, number: u64) -> Option<(Place, OpId, Ticket)> {
        let partition =
            u32::try_from(self.dice.below(u64::from(self.client.world.plan.partitions))).expect("small");
        let place = Place { partition, number };
        let length = if self.dice.one_in(50) { self.dice.below(60_000) } else { self.dice.below(500) };
        let mut value = format!("{}/{number}/", self.name).into_bytes();
        let letter = b'a' + u8::try_from(number % 26).expect("a letter");
        value.resize(value.len() + usize::try_from(length).expect("small"), letter);
        let history = &self.client.world.history;
        let op = history.append(&Sending {
            producer: &self.name,
            idempotent: self.delivery == Delivery::ExactlyOnce,
            partition: &super::partition_name(partition),
            sequence: number,
            values: &[Digest::of(&value)],
        });
        match self.producer.send(Record::new(value).partition(PartitionIndex::new(partition))).await {
            Ok(ticket) => Some((place, op, ticket)),
            Err(error) => {
                self.failures.note(place, &error);
                failed(self.client, op, &error);
                None
            }
        }
    }
}

fn failed(client: &Client, op: OpId, error: &SendError) {
    client.world.coverage.error("send", error);
    let happened = if error.may_have_happened() { Happened::Maybe } else { Happened::No };
    client.world.history.failed(op, happened, &crate::node::chain(error));
}

async fn settle(client: Client, failures: Failures, place: Place, op: OpId, ticket: Ticket) {
    match ticket.await {
        Ok(ack) => {
            if ack.duplicate {
                client.world.coverage.count("an acknowledged duplicate");
            }
            let token = written(ack.read_token());
            client.world.history.acked(op, Acknowledged { token, ..Acknowledged::at(ack.offset.get()) });
        }
        Err(error) => {
            failures.note(place, &error);
            failed(&client, op, &error);
        }
    }
}
