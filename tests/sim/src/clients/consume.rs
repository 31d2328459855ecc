//! A consumer that follows the topic, and begins anew now and then.

use std::collections::BTreeMap;

use streamhouse_check::{Digest, Micros, Poll};
use streamhouse_client::{ConsumedBatch, Offset, PartitionIndex, Position, ReadError, ReadToken, Reader};

use super::{Client, TOPIC};
use crate::history::{History, written};
use crate::seed::Dice;
use crate::world::Stage;

pub(super) async fn run(client: Client, number: u64) {
    let dice = client.seed.branch(&format!("consumer {number}")).rng();
    let name = format!("consumer {number}");
    let mut resume: BTreeMap<PartitionIndex, Offset> = BTreeMap::new();
    while client.world.stage() <= Stage::Faults {
        if dice.one_in(4) {
            resume.clear();
            client.world.history.restart(&name);
        }
        let house = client.connect(&dice).await;
        let token = if dice.one_in(2) { client.world.history.newest_token() } else { ReadToken::default() };
        let mut wish = house.topic(TOPIC).read(Position::Start).follow(true).at_least(token);
        for (partition, offset) in &resume {
            wish = wish.resume(*partition, *offset);
        }
        match wish.open().await {
            Ok(reader) => {
                let batches = dice.magnitude(5, 5_000);
                let session = Session { client: &client, reading: Reading { name: &name, token }, batches };
                session.follow(reader, &mut resume).await;
            }
            Err(error) => refused(&client, &name, &error),
        }
        pause(&client, &dice).await;
    }
}

async fn pause(client: &Client, dice: &Dice) {
    tokio::select! {
        biased;
        () = client.world.passed(Stage::Faults) => {}
        () = client.pause(dice.magnitude(1, 2_000)) => {}
    }
}

/// One reader of the client library.
struct Session<'a> {
    client: &'a Client,
    reading: Reading<'a>,
    batches: u64,
}

/// Who reads, and the token that is presented.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) name: &'a str,
    pub(super) token: ReadToken,
}

impl Session<'_> {
    async fn follow(&self, mut reader: Reader, resume: &mut BTreeMap<PartitionIndex, Offset>) {
        let mut begin = self.client.world.history.now();
        for _ in 0..self.batches {
            let batch = tokio::select! {
                biased;
                batch = reader.next_batch() => batch,
                () = self.client.world.passed(Stage::Faults) => return,
            };
            match batch {
                Some(Ok(batch)) => {
                    if let Err(error) = note(&self.client.world.history, self.reading, begin, &batch) {
                        refused(self.client, self.reading.name, &error);
                        return;
                    }
                    resume.insert(batch.partition(), batch.offsets().end);
                    begin = self.client.world.history.now();
                }
                Some(Err(error)) => return refused(self.client, self.reading.name, &error),
                None => {
                    return self
                        .client
                        .world
                        .violate(format!("{} was told that a log ends", self.reading.name));
                }
            }
        }
    }
}

/// Writes a batch into the history.
pub(super) fn note(
    history: &History,
    reading: Reading<'_>,
    begin: Micros,
    batch: &ConsumedBatch,
) -> Result<(), ReadError> {
    let mut records = Vec::new();
    for record in batch.records()? {
        let record = record?;
        records.push((record.offset, Digest::of(record.value.as_deref().unwrap_or_default())));
    }
    let partition = super::partition_name(batch.partition().get());
    let token = written(reading.token);
    history.poll(Poll { records, token, ..Poll::empty(reading.name, &partition, begin, history.now()) });
    Ok(())
}

/// Reading may fail for a while; what is read is never wrong, and no position is said not to exist.
fn refused(client: &Client, name: &str, error: &ReadError) {
    client.world.coverage.error("read", error);
    if !error.is_retryable() && !matches!(error, ReadError::TimedOut { .. }) {
        client.world.violate(format!("{name}: {}", crate::node::chain(error)));
    }
}
