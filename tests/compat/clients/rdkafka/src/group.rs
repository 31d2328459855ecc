//! Groups.

use std::time::Duration;

use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
};
use serde_json::json;

use crate::{Offsets, Request, consumer_config, out, over};

/// Tells of assignments.
struct Told;

impl ClientContext for Told {}

impl ConsumerContext for Told {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let numbers = |places: &TopicPartitionList| -> Vec<i32> {
            places.elements().iter().map(|place| place.partition()).collect()
        };
        match rebalance {
            Rebalance::Assign(places) => out(json!({ "assigned": numbers(places) })),
            Rebalance::Revoke(places) => out(json!({ "revoked": numbers(places) })),
            Rebalance::Error(error) => eprintln!("{error}"),
        }
    }
}

pub(crate) fn group(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let assignor = if asked.mode == "cooperative" { "cooperative-sticky" } else { "range" };
    let mut config = consumer_config(
        bootstrap,
        &[
            ("group.id", &asked.group),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", assignor),
        ],
    );
    if let Some(instance) = &asked.instance {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer<Told> = config.create_with_context(Told)?;
    consumer.subscribe(&[&asked.topic])?;
    while !over() {
        let mut done = Offsets::new();
        let mut wait = Duration::from_millis(200);
        while let Some(message) = consumer.poll(wait) {
            match message {
                Ok(message) => {
                    let value = message.payload().map(hex::encode);
                    out(
                        json!({ "partition": message.partition(), "offset": message.offset(), "value": value }),
                    );
                    done.insert(message.partition(), message.offset() + 1);
                }
                Err(error) => eprintln!("{error}"),
            }
            wait = Duration::ZERO;
            if done.len() >= 100 || over() {
                break;
            }
        }
        if !done.is_empty() {
            commit(&consumer, &asked.topic, &done)?;
        }
    }
    drop(consumer);
    out(json!({ "closed": true }));
    Ok(())
}

fn commit(consumer: &BaseConsumer<Told>, topic: &str, done: &Offsets) -> anyhow::Result<()> {
    let mut places = TopicPartitionList::new();
    for (partition, offset) in done {
        places.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    match consumer.commit(&places, CommitMode::Sync) {
        Ok(()) => out(json!({ "committed": done })),
        Err(error) => out(json!({ "uncommitted": error.to_string() })),
    }
    Ok(())
}

pub(crate) fn committed(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let consumer: BaseConsumer = consumer_config(bootstrap, &[("group.id", &asked.group)]).create()?;
    let mut places = TopicPartitionList::new();
    places.add_partition_range(&asked.topic, 0, asked.partitions - 1);
    let found = consumer.committed_offsets(places, Duration::from_secs(60))?;
    for partition in 0..asked.partitions {
        let offset = found.find_partition(&asked.topic, partition).map(|place| place.offset());
        let offset = if let Some(Offset::Offset(offset)) = offset { offset } else { -1 };
        out(json!({ "offset": offset }));
    }
    Ok(())
}
