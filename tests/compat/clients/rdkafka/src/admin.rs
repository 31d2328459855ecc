//! Administration.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{anyhow, bail};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{config, consumer_config, out};

/// One step of `admin`.
#[derive(Deserialize)]
pub(crate) struct Step {
    #[serde(rename = "do")]
    name: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    partitions: i32,
    #[serde(default)]
    total: usize,
    #[serde(default)]
    before: i64,
    #[serde(default)]
    configs: BTreeMap<String, String>,
}

type Admin = AdminClient<DefaultClientContext>;

pub(crate) async fn admin(bootstrap: &str, steps: Vec<Step>) -> anyhow::Result<()> {
    let admin: Admin = config(bootstrap, &[]).create()?;
    let consumer: BaseConsumer = consumer_config(bootstrap, &[]).create()?;
    for step in steps {
        let mut line = match run(&admin, &consumer, &step).await {
            Ok(line) => line,
            Err(error) => json!({ "refused": format!("{error:#}") }),
        };
        line["did"] = Value::from(step.name);
        out(line);
    }
    Ok(())
}

async fn run(admin: &Admin, consumer: &BaseConsumer, step: &Step) -> anyhow::Result<Value> {
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let limit = Duration::from_secs(30);
    let topic = &step.topic[..];
    match &step.name[..] {
        "create" => {
            let mut wanted = NewTopic::new(topic, step.partitions, TopicReplication::Fixed(1));
            for (name, value) in &step.configs {
                wanted = wanted.set(name, value);
            }
            well(admin.create_topics([&wanted], &options).await?)?;
        }
        "describe" => {
            let found = consumer.fetch_metadata(Some(topic), limit)?;
            return Ok(json!({ "partitions": found.topics()[0].partitions().len() }));
        }
        "configs" => {
            let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await?.remove(0);
            let found = found.map_err(|code| anyhow!("{code}"))?;
            let told: BTreeMap<_, _> = found.entries.into_iter().map(|one| (one.name, one.value)).collect();
            return Ok(json!({ "configs": told }));
        }
        // The old call, which takes back whatever it does not name; rdkafka has no other.
        "alter" => {
            let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
            for (name, value) in &step.configs {
                wanted = wanted.set(name, value);
            }
            if let Err((_, code)) = admin.alter_configs([&wanted], &options).await?.remove(0) {
                bail!("{code}");
            }
        }
        "partitions" => {
            well(admin.create_partitions([&NewPartitions::new(topic, step.total)], &options).await?)?
        }
        "trim" => {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_offset(topic, step.partition, Offset::Offset(step.before))?;
            let told = admin.delete_records(&wanted, &options).await?;
            let place = &told.elements()[0];
            place.error()?;
            return Ok(json!({ "low": place.offset().to_raw() }));
        }
        "ends" => {
            let (first, end) = consumer.fetch_watermarks(topic, step.partition, limit)?;
            return Ok(json!({ "first": first, "end": end }));
        }
        "delete" => well(admin.delete_topics(&[topic], &options).await?)?,
        "cluster" => {
            let found = consumer.fetch_metadata(None, limit)?;
            return Ok(json!({ "nodes": found.brokers().len(), "controller": found.orig_broker_id() >= 0 }));
        }
        name => bail!("unknown: {name}"),
    }
    Ok(json!({}))
}

fn well(results: Vec<rdkafka::admin::TopicResult>) -> anyhow::Result<()> {
    for result in results {
        result.map_err(|(name, code)| anyhow!("{name}: {code}"))?;
    }
    Ok(())
}
