//! Writing and reading.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{
        BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer as _, ProducerContext,
        ThreadedProducer,
    },
};
use serde_json::{Value, json};

use crate::{Request, bytes, config, consumer_config, out, over, paced};

pub(crate) async fn produce(bootstrap: &str, asked: Request) -> anyhow::Result<()> {
    let idempotent = asked.idempotent.to_string();
    let settings = [
        ("compression.type", &asked.compression[..]),
        ("enable.idempotence", &idempotent),
        ("linger.ms", "20"),
    ];
    let producer: FutureProducer = config(bootstrap, &settings).create()?;
    let mut answers = Vec::new();
    for record in &asked.records {
        let (key, value) = (bytes(record.key.as_ref())?, bytes(record.value.as_ref())?);
        let mut headers = OwnedHeaders::new();
        for (name, content) in &record.headers {
            let content = bytes(content.as_ref())?;
            headers = headers.insert(Header { key: name, value: content.as_ref() });
        }
        let mut sent = FutureRecord::to(&asked.topic).partition(record.partition).headers(headers);
        sent.key = key.as_ref();
        sent.payload = value.as_ref();
        sent.timestamp = record.timestamp;
        answers.push(producer.send_result(sent).map_err(|(error, _)| error)?);
    }
    for answer in answers {
        let told = answer.await?.map_err(|(error, _)| error)?;
        out(json!({ "partition": told.partition, "offset": told.offset }));
    }
    Ok(())
}

fn shown(message: &BorrowedMessage<'_>) -> Value {
    let headers: Vec<_> = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key.to_owned(), header.value.map(hex::encode)))
        .collect();
    json!({
        "partition": message.partition(), "offset": message.offset(), "timestamp": message.timestamp().to_millis(),
        "key": message.key().map(hex::encode), "value": message.payload().map(hex::encode), "headers": headers,
    })
}

fn from(bootstrap: &str, topic: &str, partition: i32, offset: i64) -> anyhow::Result<BaseConsumer> {
    let consumer: BaseConsumer = consumer_config(bootstrap, &[]).create()?;
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    consumer.assign(&places)?;
    Ok(consumer)
}

pub(crate) fn read(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let consumer = from(bootstrap, &asked.topic, asked.partition, asked.from)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut missing = asked.count;
    while missing > 0 {
        ensure!(Instant::now() < deadline, "{missing} records are missing");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) {
            out(shown(&message));
            missing -= 1;
        }
    }
    Ok(())
}

pub(crate) fn seek(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let consumer: BaseConsumer = consumer_config(bootstrap, &[]).create()?;
    for moment in &asked.times {
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(&asked.topic, asked.partition, Offset::Offset(*moment))?;
        let ask = || consumer.offsets_for_times(places.clone(), Duration::from_secs(30));
        // librdkafka does not repeat this when it drops the broker that it asked.
        let found = ask().or_else(|error| {
            eprintln!("again: {error}");
            ask()
        })?;
        let offset = match found.elements()[0].offset() {
            Offset::Offset(offset) => offset,
            // librdkafka says the end where there is no such record.
            Offset::End => -1,
            other => bail!("{other:?}"),
        };
        out(json!({ "offset": offset }));
    }
    Ok(())
}

pub(crate) fn follow(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let consumer = from(bootstrap, &asked.topic, asked.partition, 0)?;
    while !over() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => out(shown(&message)),
            Some(Err(error)) => eprintln!("{error}"),
            None => {}
        }
    }
    Ok(())
}

/// Tells what became of each record.
struct Told;

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = Box<u32>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u32>) {
        out(match result {
            Ok(told) => json!({ "number": number, "partition": told.partition(), "offset": told.offset() }),
            Err((error, _)) => json!({ "number": number, "failed": error.to_string() }),
        });
    }
}

pub(crate) fn stream(bootstrap: &str, asked: &Request) -> anyhow::Result<()> {
    let settings = [("enable.idempotence", "true"), ("linger.ms", "5"), ("message.timeout.ms", "300000")];
    let producer: ThreadedProducer<Told> = config(bootstrap, &settings).create_with_context(Told)?;
    paced(asked.per_second, |number| {
        let value = number.to_string();
        let partition = i32::try_from(number)? % asked.partitions;
        let record = BaseRecord::<(), _, _>::with_opaque_to(&asked.topic, Box::new(number))
            .partition(partition)
            .payload(&value);
        producer.send(record).map_err(|(error, _)| error.into())
    })?;
    Ok(producer.flush(Duration::from_secs(240))?)
}
