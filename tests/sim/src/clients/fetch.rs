//! A reader of single answers from single nodes: at offsets that are there, that are not there yet, and that never were.

use std::time::Duration;

use parking_lot::Mutex;
use streamhouse_check::{Digest, Micros, OutOfRange, Poll};
use streamhouse_client::{
    CallError, ErrorCode, FetchOptions, Fetched, Offset, PartitionIndex, ReadToken, RecordBatch, StreamHouse,
};
use streamhouse_types::NodeId;
use streamhouse_types::batch::BatchLimits;

use super::{Client, TOPIC, partition_name};
use crate::history::written;
use crate::seed::Dice;
use crate::world::{Site, Stage};

pub(super) async fn run(client: Client, number: u64) {
    let partitions = usize::try_from(client.world.plan.partitions).expect("few");
    let newest = Mutex::new(vec![Offset::ZERO; partitions]);
    // All nodes side by side: what one says is held against what another one, which may be behind, says meanwhile.
    let mut asking = Vec::new();
    for site in &client.world.nodes {
        for asks in [Asks::Anything, Asks::WhatIsThere] {
            let name = format!("fetcher {number}.{} {asks:?}", site.place);
            let dice = client.seed.branch(&name).rng();
            let fetcher = Fetcher { client: &client, site, dice, name, asks, newest: &newest };
            asking.push(async move { fetcher.run().await });
        }
    }
    futures::future::join_all(asking).await;
}

/// What a fetcher asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Also for what is not there yet, and never will be: a node that is cut off takes its time to answer that.
    Anything,
    /// For what some node has shown: a node that is cut off answers at once, from what it knows.
    WhatIsThere,
}

/// Asks the node in one place and no other.
struct Fetcher<'a> {
    client: &'a Client,
    site: &'a Site,
    dice: Dice,
    name: String,
    asks: Asks,
    /// The first offset that was not readable, by partition, as any node said.
    newest: &'a Mutex<Vec<Offset>>,
}

/// One question.
struct Question {
    node: NodeId,
    partition: u32,
    offset: Offset,
    begin: Micros,
    token: ReadToken,
    /// What was known when it was asked.
    newest: Offset,
}

impl Fetcher<'_> {
    async fn run(&self) {
        let address = format!("{}:9094", self.site.name);
        while self.client.world.stage() <= Stage::Faults {
            if let Some(house) = self.client.connect_only_to(&self.dice, &address).await {
                for _ in 0..self.dice.magnitude(1, 50) {
                    if self.client.world.stage() > Stage::Faults {
                        return;
                    }
                    self.fetch(&house).await;
                    self.client.pause(self.dice.magnitude(1, 1_500)).await;
                }
            }
        }
    }

    async fn fetch(&self, house: &StreamHouse) {
        let partition =
            u32::try_from(self.dice.below(u64::from(self.client.world.plan.partitions))).expect("few");
        let known = self.newest.lock()[usize::try_from(partition).expect("few")].get();
        let offset = match (self.asks, self.dice.below(4)) {
            (Asks::WhatIsThere, _) => self.dice.below(known.max(2) / 2),
            (_, 0) => known,
            (_, 1) => known + self.dice.magnitude(1, 100_000),
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
        let presents = self.asks == Asks::Anything && self.dice.one_in(2);
        let token = if presents { history.newest_token() } else { ReadToken::default() };
        let (offset, newest) = (Offset::new(offset), Offset::new(known));
        let node = self.site.id();
        let question = Question { node, partition, offset, begin: history.now(), token, newest };
        let topic = house.topic(TOPIC).at_least(token);
        match topic.fetch(PartitionIndex::new(partition), question.offset, options).await {
            Ok(fetched) => self.answered(&question, fetched),
            Err(error) => self.refused(&question, &error),
        }
    }

    fn answered(&self, question: &Question, mut fetched: Fetched) {
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
        let mut newest = self.newest.lock();
        let newest = &mut newest[usize::try_from(question.partition).expect("few")];
        if question.offset >= question.newest && !records.is_empty() {
            self.client.world.coverage.count("a fetch waited for records that were not there");
        }
        if question.newest > fetched.high_watermark {
            self.client.world.coverage.count("a node that is behind answered");
        }
        *newest = fetched.high_watermark.max(*newest);
        let partition = partition_name(question.partition);
        history.poll(Poll {
            node: self.who_answered(question),
            from: Some(question.offset),
            records,
            high_watermark: Some(fetched.high_watermark),
            log_start: Some(fetched.log_start),
            token: written(question.token),
            ..Poll::empty(&self.name, &partition, question.begin, history.now())
        });
    }

    /// A place may have got another node since it was asked; then nobody knows which of them it was.
    fn who_answered(&self, question: &Question) -> Option<NodeId> {
        Some(question.node).filter(|node| *node == self.site.id())
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
            node: self.who_answered(question),
            position: question.offset,
            high_watermark,
            log_start,
            token: written(question.token),
        });
    }
}
