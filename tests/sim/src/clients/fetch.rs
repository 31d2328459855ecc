//! A reader of single answers from single nodes: at offsets that are there, that are not there yet, and that never were.

use std::time::Duration;

use streamhouse_check::{Digest, Micros, OutOfRange, Poll};
use streamhouse_client::{
    CallError, ErrorCode, FetchOptions, Fetched, Offset, PartitionIndex, ReadToken, RecordBatch, StreamHouse,
};
use streamhouse_types::NodeId;
use streamhouse_types::batch::BatchLimits;

use super::{Client, TOPIC, partition_name};
use crate::history::written;
use crate::seed::Dice;
use crate::world::Stage;

pub(super) async fn run(client: Client, number: u64) {
    let dice = client.seed.branch(&format!("fetcher {number}")).rng();
    let mut fetcher =
        Fetcher { client: &client, dice: &dice, name: format!("fetcher {number}"), newest: Vec::new() };
    fetcher.newest.resize(usize::try_from(client.world.plan.partitions).expect("few"), Offset::ZERO);
    while client.world.stage() <= Stage::Faults {
        let site = dice.pick(&client.world.nodes);
        let address = format!("{}:9094", site.name);
        if let Some(house) = client.connect_only_to(&dice, &address).await {
            for _ in 0..dice.magnitude(1, 50) {
                if client.world.stage() > Stage::Faults {
                    return;
                }
                fetcher.fetch(&house, site.id).await;
                client.pause(dice.magnitude(1, 500)).await;
            }
        }
    }
}

struct Fetcher<'a> {
    client: &'a Client,
    dice: &'a Dice,
    name: String,
    /// The first offset that was not readable, by partition, as any node said.
    newest: Vec<Offset>,
}

/// One question.
struct Question {
    node: NodeId,
    partition: u32,
    offset: Offset,
    begin: Micros,
    token: ReadToken,
}

impl Fetcher<'_> {
    async fn fetch(&mut self, house: &StreamHouse, node: NodeId) {
        let partition =
            u32::try_from(self.dice.below(u64::from(self.client.world.plan.partitions))).expect("few");
        let known = self.newest[usize::try_from(partition).expect("few")].get();
        let offset = match self.dice.below(4) {
            0 => known,
            1 => known + self.dice.magnitude(1, 100_000),
            _ => self.dice.below(known + 1),
        };
        let options = FetchOptions {
            max_bytes: u32::try_from(self.dice.magnitude(1, 1 << 20)).expect("small"),
            min_bytes: u32::try_from(self.dice.below(2)).expect("small"),
            max_wait: Duration::from_millis(self.dice.below(2_000)),
        };
        // Each answer stands for itself.
        self.client.world.history.restart(&self.name);
        let history = &self.client.world.history;
        let token = if self.dice.one_in(2) { history.newest_token() } else { ReadToken::default() };
        let question = Question { node, partition, offset: Offset::new(offset), begin: history.now(), token };
        let topic = house.topic(TOPIC).at_least(token);
        match topic.fetch(PartitionIndex::new(partition), question.offset, options).await {
            Ok(fetched) => self.answered(&question, fetched),
            Err(error) => self.refused(&question, &error),
        }
    }

    fn answered(&mut self, question: &Question, mut fetched: Fetched) {
        let history = &self.client.world.history;
        let mut records = Vec::new();
        loop {
            let batch = match RecordBatch::split_first(&mut fetched.record_batches, &BatchLimits::MAX) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => {
                    return self.client.world.violate(format!("{} was given nonsense: {error}", self.name));
                }
            };
            let Ok(base) = u64::try_from(batch.header().base_offset).map(Offset::new) else {
                return self.client.world.violate(format!("{} was given an offset below 0", self.name));
            };
            let Ok(opened) = batch.records() else {
                return self
                    .client
                    .world
                    .violate(format!("{} was given a batch that cannot be opened", self.name));
            };
            for record in opened {
                let Ok(record) = record else {
                    return self.client.world.violate(format!("{} was given a torn batch", self.name));
                };
                let offset = base.after(record.offset_delta);
                if offset >= question.offset {
                    records.push((offset, Digest::of(record.value.as_deref().unwrap_or_default())));
                }
            }
        }
        if question.offset >= self.newest[usize::try_from(question.partition).expect("few")]
            && !records.is_empty()
        {
            self.client.world.coverage.count("a fetch waited for records that were not there");
        }
        let newest = &mut self.newest[usize::try_from(question.partition).expect("few")];
        if *newest > fetched.high_watermark {
            self.client.world.coverage.count("a node that is behind answered");
        }
        *newest = fetched.high_watermark.max(*newest);
        let partition = partition_name(question.partition);
        history.poll(Poll {
            node: Some(question.node),
            from: Some(question.offset),
            records,
            high_watermark: Some(fetched.high_watermark),
            log_start: Some(fetched.log_start),
            token: written(question.token),
            ..Poll::empty(&self.name, &partition, question.begin, history.now())
        });
    }

    fn refused(&self, question: &Question, error: &CallError) {
        self.client.world.coverage.error("fetch", error);
        let CallError::Rejected(rejection) = error else { return };
        if rejection.code() != Some(ErrorCode::OffsetOutOfRange) {
            if !error.is_retryable() {
                self.client.world.violate(format!("{}: {}", self.name, crate::node::chain(error)));
            }
            return;
        }
        let history = &self.client.world.history;
        let fact =
            |name: &str| rejection.details().get(name).and_then(|text| text.parse().ok()).map(Offset::new);
        let (Some(log_start), Some(high_watermark)) = (fact("log_start"), fact("high_watermark")) else {
            return self.client.world.violate(format!("{} was not told what there is: {error}", self.name));
        };
        history.out_of_range(OutOfRange {
            consumer: (&*self.name).into(),
            partition: partition_name(question.partition).into(),
            begin: question.begin,
            end: history.now(),
            node: Some(question.node),
            position: question.offset,
            high_watermark,
            log_start,
            token: written(question.token),
        });
    }
}
