//! `streamhouse consume`.

mod group;
mod line;

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use futures::FutureExt as _;
use serde::Serialize;
use streamhouse_bench::rate;
use streamhouse_client::{ConsumedBatch, Offset, PartitionIndex, Position, ReadError, Reader, StreamHouse};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop};
use crate::output::{Format, SCHEMA, Stdout, millis, stdout};
use crate::records::records;
use streamhouse_units::{bytes, count, counted, parse_count, span};

use super::topic::of_topic;

/// Read the records of a topic, or of several as a member of a consumer group
///
/// Prints the value of each record on a line of its own, partitions as they come, each partition in the order of its
/// offsets. Ends where the topic ends now, unless told to follow.
///
/// With --group it shares the partitions with the other members, which may be Kafka clients, begins where the group left
/// off, and commits what it has printed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  streamhouse consume greetings\n  streamhouse consume orders --from @-15m -o json\n  streamhouse consume orders --from end --follow\n  streamhouse consume orders --from -100 --partition 0 -n 10\n  streamhouse consume orders refunds --group billing --follow"
)]
pub(crate) struct ConsumeArgs {
    /// Name of the topic; several with --group
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Read as a member of this consumer group; --from is then where to begin in what the group has not read yet
    #[arg(short, long, value_name = "GROUP", conflicts_with_all = ["until", "partitions"])]
    group: Option<String>,
    /// Where to begin: start, end, an offset, -100 for the last 100 of each partition, @-15m, @2026-06-01
    #[arg(long, value_name = "POSITION", default_value = "start", allow_hyphen_values = true)]
    from: Position,
    /// Where to end, exclusive: in the same words
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    until: Option<Position>,
    /// Stop after so many records
    #[arg(short = 'n', long = "records", value_name = "N", value_parser = parse_count)]
    records: Option<u64>,
    /// Go on when the end is reached
    #[arg(short, long)]
    follow: bool,
    /// Only this partition; may be repeated
    #[arg(short, long = "partition", value_name = "P")]
    partitions: Vec<u32>,
}

pub(crate) async fn run(args: ConsumeArgs, context: &Context) -> Result<Exit, Stop> {
    let topic = match &args.topics[..] {
        [topic] => topic.clone(),
        topics if args.group.is_some() => topics.join(" "),
        _ => return Err(Failure::usage("several topics are read as a member of a group: add --group").into()),
    };
    let house = context.connect().await?;
    let started = context.env.clock.now();
    let mut printer = Printer {
        out: stdout(),
        format: context.output.format,
        left: args.records.unwrap_or(u64::MAX),
        records: 0,
        bytes: 0,
        trimmed: 0,
        partitions: BTreeSet::new(),
    };
    let ended = match &args.group {
        Some(group) => group::print_all(&args, group, &house, (&mut printer, context)).await,
        None => {
            let reader = open(&args, &house, context).await?;
            print_all(reader, &mut printer, context).await
        }
    };
    let ended = match ended {
        Err(Stop::Failed(failure)) => Err(failure.explained(&house).await.into()),
        ended => ended,
    };
    printer.out.flush()?;
    let elapsed = context.env.clock.now().saturating_sub(started);
    context.output.say(&printer.summary(topic, elapsed));
    ended
}

/// Opens a reader of the one topic.
async fn open(args: &ConsumeArgs, house: &StreamHouse, context: &Context) -> Result<Reader, Stop> {
    let topic = &args.topics[0];
    let mut builder = house.topic(topic).read(args.from).follow(args.follow);
    if let Some(until) = args.until {
        builder = builder.until(until);
    }
    if let Some(timeout) = context.timeout {
        builder = builder.retry_for(timeout);
    }
    builder = builder.partitions(args.partitions.iter().copied().map(PartitionIndex::new));
    match context.or_interrupt(builder.open()).await? {
        Ok(reader) => Ok(reader),
        Err(error) => Err(of_topic(&house.admin(), topic, Failure::of_client(&error)).await.into()),
    }
}

/// What was read. Said on standard error: standard output belongs to the records.
#[derive(Serialize)]
struct Summary {
    schema: &'static str,
    topic: String,
    records: u64,
    bytes: u64,
    trimmed: u64,
    partitions: Vec<u32>,
    seconds: f64,
    records_per_second: u64,
}

async fn print_all(mut reader: Reader, printer: &mut Printer, context: &Context) -> Result<Exit, Stop> {
    let mut interrupt = context.interrupt.clone();
    while printer.left > 0 {
        // While batches are there the output fills; when none is, people and pipes get what there is.
        let next = match reader.next_batch().now_or_never() {
            Some(next) => next,
            None => {
                printer.out.flush()?;
                tokio::select! {
                    next = reader.next_batch() => next,
                    () = interrupt.wanted() => return Err(Stop::Said(Exit::Interrupted)),
                }
            }
        };
        match next {
            Some(Ok(batch)) => {
                printer.print(None, &batch)?;
            }
            Some(Err(error)) => return Err(of_read(&error).into()),
            None => break,
        }
    }
    Ok(Exit::Done)
}

/// A failure of reading; damaged or missing records are a difference, not a bug of the command.
pub(super) fn of_read(error: &ReadError) -> Failure {
    let mut failure = Failure::of_client(error);
    if matches!(error, ReadError::Corrupt { .. } | ReadError::Gap { .. }) {
        failure.code = LocalCode::IntegrityMismatch.name().to_owned();
        failure.exit = LocalCode::IntegrityMismatch.exit();
    }
    failure
}

struct Printer {
    out: Stdout,
    format: Format,
    left: u64,
    records: u64,
    bytes: u64,
    trimmed: u64,
    partitions: BTreeSet<PartitionIndex>,
}

impl Printer {
    /// What to say in the end: in JSON where errors are JSON too, so that whoever reads them reads nothing else.
    fn summary(&self, topic: String, elapsed: Duration) -> String {
        let summary = Summary {
            schema: SCHEMA,
            topic,
            records: self.records,
            bytes: self.bytes,
            trimmed: self.trimmed,
            partitions: self.partitions.iter().map(|partition| partition.get()).collect(),
            seconds: millis(elapsed) / 1e3,
            records_per_second: rate(self.records, elapsed),
        };
        if self.format == Format::Json {
            return serde_json::to_string(&summary).expect("plain data");
        }
        let trimmed = match self.trimmed {
            0 => String::new(),
            trimmed => {
                format!("{} were trimmed away before they could be read\n", counted(trimmed, "record"))
            }
        };
        format!(
            "{trimmed}{}, {}, {} in {} ({} records/s)",
            counted(self.records, "record"),
            counted(u64::try_from(summary.partitions.len()).unwrap_or(u64::MAX), "partition"),
            bytes(self.bytes),
            span(elapsed),
            count(summary.records_per_second),
        )
    }

    /// Prints the records of a batch, with its topic where there may be several. Returns the first record that was not
    /// wanted any more.
    fn print(&mut self, topic: Option<&str>, batch: &ConsumedBatch) -> Result<Option<Offset>, Stop> {
        let partition = batch.partition();
        self.partitions.insert(partition);
        self.trimmed += batch.trimmed_before();
        for record in records(batch)? {
            let (offset, record) = record?;
            if self.left == 0 {
                return Ok(Some(offset));
            }
            self.left -= 1;
            self.records += 1;
            self.bytes += record.value.as_ref().map_or(0, |value| u64::try_from(value.len()).unwrap_or(0));
            if self.format == Format::Json {
                line::write(&mut self.out, (topic, partition, offset), &record)?;
            } else {
                self.out.write_all(record.value.as_deref().unwrap_or_default())?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(None)
    }
}
