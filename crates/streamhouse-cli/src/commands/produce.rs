//! `streamhouse produce`.

mod acks;
mod input;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use streamhouse_bench::{Acked, Acks, Percentiles, rate};
use streamhouse_client::{Compression, PartitionIndex, Producer, Record, SendError};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop};
use crate::keys::{KeySource, LineFormat};
use crate::latency::brief;
use crate::output::{Format, Measure, SCHEMA};
use streamhouse_units::{bytes, count, counted, parse_rate, span};

use super::topic::of_topic;
use acks::AckLines;
use input::{Input, Source};

/// Write lines to a topic
///
/// Each line of standard input or of a file becomes one record whose value is the line, byte for byte, without its
/// newline. The command ends when every record is durable; a summary goes to standard error.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  echo hello | streamhouse produce greetings\n  streamhouse produce flights --file flights.ndjson --key-field tailnum\n  streamhouse produce orders --key order-7 --compression zstd < orders.txt"
)]
pub(crate) struct ProduceArgs {
    /// Name of the topic
    topic: String,
    /// Read lines from this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What a line is: text, json (checked), or base64
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    format: LineFormat,
    /// Give every record this key
    #[arg(short, long, conflicts_with = "key_field")]
    key: Option<String>,
    /// Take the key from this field of the JSON object on each line; the value stays the whole line
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Add a header to every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Write to this partition, whatever the key
    #[arg(short, long, value_name = "P")]
    partition: Option<u32>,
    /// Compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// Send at most so many records a second
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Print where each record was stored, one JSON object a line
    #[arg(long)]
    acks_out: bool,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// How sending ended.
enum Ended {
    /// The input is at its end.
    Through,
    /// The user wants no more.
    Interrupted,
    /// A line or a record cannot be sent, or records were refused.
    Failed(Failure),
}

pub(crate) async fn run(args: ProduceArgs, context: &Context) -> Result<Exit, Stop> {
    let (source, size) = open(&args)?;
    let house = context.connect().await?;
    let mut builder = house.topic(&args.topic).producer().compression(args.compression);
    if let Some(timeout) = context.timeout {
        builder = builder.delivery_timeout(timeout);
    }
    let producer = match context.or_interrupt(builder.build()).await? {
        Ok(producer) => producer,
        Err(error) => {
            return Err(of_topic(&house.admin(), &args.topic, Failure::of_client(&error)).await.into());
        }
    };
    let bar = match size {
        Some(size) => context.output.bar(size, Measure::Bytes),
        // Someone who types sees what is typed.
        None if args.file.is_none() && io::stdin().is_terminal() => ProgressBar::hidden(),
        None => context.output.spinner(),
    };
    let started = context.env.clock.now();
    let acks_out = if args.acks_out { AckLines::Stdout(Vec::new()) } else { AckLines::Nowhere };
    let (acks, tracking) = Acks::track(context.env.clock.clone(), acks_out);
    let input = Input::read(source, args.format, key_source(&args));
    let mut sender =
        Sender { args: &args, context, producer, acks, bar, sent: 0, bytes: 0, keyless: 0, started };
    let ended = sender.send_all(input).await;
    sender.bar.finish_and_clear();
    let Sender { producer, acks, bytes, keyless, .. } = sender;
    drop(acks);
    // What was taken is waited for in any case; failures of single records come with their tickets.
    let _closed = producer.close().await;
    let acked = tracking.await.map_err(|error| Failure::new(LocalCode::Failed, error.to_string()))??;
    let elapsed = context.env.clock.now().saturating_sub(started);
    report(&args, context, &Totals { bytes, keyless, elapsed }, &acked)?;
    match conclude(ended, &acked) {
        Err(Stop::Failed(failure)) => Err(failure.explained(&house).await.into()),
        ended => ended,
    }
}

fn open(args: &ProduceArgs) -> Result<(Source, Option<u64>), Failure> {
    let Some(path) = &args.file else {
        return Ok((Source::Stdin, None));
    };
    let failed = |error: io::Error| {
        let mut failure = Failure::new(LocalCode::Io, format!("{} cannot be read: {error}", path.display()));
        if error.kind() == io::ErrorKind::NotFound {
            failure.exit = Exit::NotFound;
        }
        failure
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::usage(format!("{} is a directory", path.display())));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Source::File(file), size))
}

fn key_source(args: &ProduceArgs) -> KeySource {
    match (&args.key, &args.key_field) {
        (Some(key), _) => KeySource::Fixed(Bytes::from(key.clone())),
        (None, Some(field)) => KeySource::Field(field.clone()),
        (None, None) => KeySource::None,
    }
}

struct Sender<'a> {
    args: &'a ProduceArgs,
    context: &'a Context,
    producer: Producer,
    acks: Acks,
    bar: ProgressBar,
    sent: u64,
    bytes: u64,
    keyless: u64,
    started: Duration,
}

impl Sender<'_> {
    async fn send_all(&mut self, mut input: Input) -> Ended {
        if self.args.file.is_none() && io::stdin().is_terminal() {
            self.context.output.say("one record a line; Ctrl-D ends the input");
        }
        let mut interrupt = self.context.interrupt.clone();
        loop {
            let step = async {
                let Some(chunk) = input.next().await else { return Some(Ended::Through) };
                match chunk {
                    Ok(chunk) => {
                        let position = chunk.position;
                        let ended = self.send_chunk(chunk).await;
                        self.bar.set_position(position);
                        self.bar.set_message(counted(self.sent, "record"));
                        ended
                    }
                    Err(error) => Some(Ended::Failed(error)),
                }
            };
            tokio::select! {
                ended = step => if let Some(ended) = ended { return ended },
                () = interrupt.wanted() => return Ended::Interrupted,
            }
        }
    }

    /// Sends the records of a chunk; tells why it stops when it does.
    async fn send_chunk(&mut self, chunk: input::Chunk) -> Option<Ended> {
        for (number, (key, value)) in (chunk.first_line..).zip(chunk.records) {
            self.pace().await;
            // Room for the ticket is taken first: then nothing lies between sending and counting.
            let Some(room) = self.acks.room().await else { return Some(Ended::Through) };
            let size = value.len() + key.as_ref().map_or(0, Bytes::len);
            self.keyless += u64::from(key.is_none());
            let mut record = Record::new(value);
            if let Some(key) = key {
                record = record.key(key);
            }
            if let Some(partition) = self.args.partition {
                record = record.partition(PartitionIndex::new(partition));
            }
            for (name, value) in &self.args.headers {
                record = record.header(name.clone(), value.clone());
            }
            let at = self.context.env.clock.now();
            match self.producer.send(record).await {
                Ok(ticket) => room.take(number, at, ticket),
                Err(error) => return Some(Ended::Failed(of_line(number, &error))),
            }
            self.sent += 1;
            self.bytes += u64::try_from(size).unwrap_or(u64::MAX);
        }
        None
    }

    async fn pace(&self) {
        if let Some(rate) = self.args.rate {
            let nanos = u128::from(self.sent) * 1_000_000_000 / u128::from(rate);
            let due = self.started + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.context.env.clock.sleep_until(due).await;
        }
    }
}

/// A record that was refused, by the number of its line.
fn of_line(number: u64, error: &SendError) -> Failure {
    let mut failure = Failure::of_client(error);
    failure.message = format!("line {number}: {}", failure.message);
    if matches!(error, SendError::TooLarge { .. }) {
        failure.code = streamhouse_client::ErrorCode::BatchTooLarge.reason().to_owned();
        failure.exit = Exit::Usage;
    }
    failure
}

fn conclude(ended: Ended, acked: &Acked) -> Result<Exit, Stop> {
    if let Some((number, error)) = &acked.failure {
        let mut failure = of_line(*number, error);
        failure.may_have_happened |= acked.uncertain > 0;
        if acked.failed > 1 {
            failure.message = format!("{} (and {} more)", failure.message, count(acked.failed - 1));
        }
        return Err(failure.into());
    }
    match ended {
        Ended::Through => Ok(Exit::Done),
        Ended::Interrupted => Err(Stop::Said(Exit::Interrupted)),
        Ended::Failed(failure) => Err(failure.into()),
    }
}

struct Totals {
    bytes: u64,
    keyless: u64,
    elapsed: Duration,
}

#[derive(Serialize)]
struct Summary {
    topic: String,
    records: u64,
    failed: u64,
    bytes: u64,
    records_without_key: u64,
    duplicates: u64,
    partitions: Vec<u32>,
    seconds: f64,
    records_per_second: u64,
    ack: Option<Percentiles>,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    schema: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

fn report(args: &ProduceArgs, context: &Context, totals: &Totals, acked: &Acked) -> Result<(), Stop> {
    let summary = Summary {
        topic: args.topic.clone(),
        records: acked.records,
        failed: acked.failed,
        bytes: totals.bytes,
        records_without_key: totals.keyless,
        duplicates: acked.duplicates,
        partitions: acked.partitions.iter().map(|partition| partition.get()).collect(),
        seconds: crate::output::millis(totals.elapsed) / 1e3,
        records_per_second: rate(acked.records, totals.elapsed),
        ack: acked.latencies.percentiles(),
    };
    if context.output.format == Format::Json {
        if !args.acks_out {
            context.output.result(&summary, |_| Ok(()))?;
        } else if let Ok(line) = serde_json::to_string(&SummaryLine { schema: SCHEMA, summary: &summary }) {
            // Standard output belongs to the acks.
            let _gone = writeln!(io::stderr(), "{line}");
        }
        return Ok(());
    }
    if let (Some(field), 1..) = (&args.key_field, totals.keyless) {
        let without = counted(totals.keyless, "record");
        context.output.say(&format!("{without} without a field `{field}` went without a key"));
    }
    let partitions = counted(u64::try_from(summary.partitions.len()).unwrap_or(u64::MAX), "partition");
    let ack = if acked.records == 0 { String::new() } else { format!(", ack {}", brief(&acked.latencies)) };
    let failed = if acked.failed == 0 { String::new() } else { format!(", {} failed", count(acked.failed)) };
    context.output.say(&format!(
        "{}{failed}, {partitions}{ack}, {} in {} ({} records/s)",
        counted(acked.records, "record"),
        bytes(totals.bytes),
        span(totals.elapsed),
        count(summary.records_per_second),
    ));
    Ok(())
}
