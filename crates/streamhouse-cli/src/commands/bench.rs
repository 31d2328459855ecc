//! `streamhouse bench`: how much, how fast, and whether all of it came back.

mod report;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use streamhouse_bench::{BenchError, HEAD_BYTES, Plan, Progress, Reading, Report, Seams, Stored, rate};
use streamhouse_client::{
    Admin, Compression, Error, Mode, NewTopic, Offset, PartitionIndex, Position, StorageSummary, StreamHouse,
    Topic,
};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, LocalCode, Stop};
use streamhouse_units::{counted, parse_bytes, parse_count, parse_rate, parse_span};

use super::consume::of_read;
use super::topic::of_topic;

/// Largest record: a batch has to hold it.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Durable writes; afterwards everything is read back and checked.
    Produce,
    /// Catching up: records are written first, then read as fast as they come.
    Consume,
    /// Writing and reading at the same time, and the time from one to the other.
    E2e,
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::E2e => "e2e",
        }
    }
}

/// Measure throughput and latency, and prove that every record comes back
///
/// Writes records to a topic of its own, which is deleted afterwards, and reads them back. Each record carries its
/// number and a hash over itself and all before it: a record that is lost, repeated, out of order or changed is found,
/// and the command ends with 9.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  streamhouse bench\n  streamhouse bench e2e --rate 10k --size 1KiB --duration 30s\n  streamhouse bench produce --partitions 16 -o json\n  streamhouse bench produce --unary"
)]
pub(crate) struct BenchArgs {
    /// What to measure: produce, consume or e2e
    #[arg(default_value = "e2e", hide_possible_values = true)]
    subject: Subject,
    /// How long to write
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    duration: Duration,
    /// Write so many records instead of so long
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count)]
    records: Option<u64>,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = parse_record_size)]
    size: u64,
    /// Partitions of the topic
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// Producers that write at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    producers: u16,
    /// Write at most so many records a second, over all producers
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<u64>,
    /// One call and one record at a time instead of a session
    #[arg(long)]
    unary: bool,
    /// Compress batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// Longest a record waits for company; else the client's default
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    linger: Option<Duration>,
    /// Largest batch; else the client's default
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    batch_bytes: Option<u64>,
    /// Use this topic, which must exist, and leave it there
    #[arg(long, value_name = "NAME", conflicts_with = "partitions")]
    topic: Option<String>,
    /// Leave the topic there
    #[arg(long)]
    keep: bool,
}

fn parse_record_size(text: &str) -> Result<u64, String> {
    let least = u64::try_from(HEAD_BYTES).expect("a small number");
    match parse_bytes(text)? {
        size if (least..=RECORD_BYTES_MAX).contains(&size) => Ok(size),
        _ => Err(format!("a record of the benchmark has {least} bytes to 1 MiB")),
    }
}

pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<Exit, Stop> {
    let house = context.connect().await?;
    let topic = open_topic(&args, &house, context).await?;
    let measured = Box::pin(measure(&args, &house, &topic, context)).await;
    if args.topic.is_none() && !args.keep {
        let deleted = house.admin().delete_topic(topic.name(), Mode::Apply).await;
        if let Err(error) = deleted {
            context.output.say(&format!("topic {} could not be deleted: {error}", topic.name()));
        }
    }
    let run = measured?;
    context.output.result(&run, |out| report::print(&run, out))?;
    if !run.integrity.ok {
        let message = run.integrity.breaks.first().cloned().unwrap_or_default();
        return Err(Failure::new(LocalCode::IntegrityMismatch, message)
            .hint(LocalCode::IntegrityMismatch.advice())
            .into());
    }
    Ok(if run.interrupted { Exit::Interrupted } else { Exit::Done })
}

async fn open_topic(args: &BenchArgs, house: &StreamHouse, context: &Context) -> Result<Topic, Stop> {
    if let Some(name) = &args.topic {
        return Ok(house.topic(name));
    }
    let name = format!("bench-{:016x}", context.env.rng.next_u64());
    let wanted = NewTopic::new(&name).partitions(args.partitions);
    context.call(house.admin().create_topic(wanted, Mode::Apply)).await?;
    Ok(house.topic(&name))
}

async fn measure(
    args: &BenchArgs,
    house: &StreamHouse,
    topic: &Topic,
    context: &Context,
) -> Result<Report, Stop> {
    let admin = house.admin();
    let starts = ends_now(&admin, topic, context).await?;
    let stored_before = stored(&admin).await;
    let plan = Plan {
        topic: topic.clone(),
        producers: args.producers,
        size: usize::try_from(args.size).expect("a record fits into memory"),
        records: args.records,
        duration: args.duration,
        rate: args.rate,
        unary: args.unary,
        compression: args.compression,
        linger: args.linger,
        batch_bytes: args.batch_bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
    };
    // End to end both run at the same time; else reading begins when writing is over.
    let reading = if args.subject == Subject::E2e { Reading::WhileWriting } else { Reading::Afterwards };
    let bar = context.output.spinner();
    let seams = Seams {
        env: context.env.clone(),
        interrupt: context.interrupt.signal(),
        progress: Arc::new({
            let bar = bar.clone();
            move |progress| show(&bar, progress)
        }),
    };
    let measured = streamhouse_bench::run(plan.clone(), starts, reading, seams).await.map_err(of_bench)?;
    bar.finish_and_clear();
    let stored_after = stored(&admin).await;
    let stored = stored_before.zip(stored_after).map(|(before, after)| Stored::between(&before, &after));
    Ok(Report::new(args.subject.name(), (&plan, reading), measured, stored))
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_message(match progress {
        Progress::Written(records, elapsed) => {
            let per_second = counted(rate(records, elapsed), "record");
            format!("{} written, {per_second} a second", counted(records, "record"))
        }
        Progress::Read(records) => format!("{} read", counted(records, "record")),
    });
    bar.tick();
}

fn of_bench(error: BenchError) -> Stop {
    match error {
        BenchError::Client(Error::Read(error)) => of_read(&error).into(),
        BenchError::Client(error) => Failure::of_client(&error).into(),
        BenchError::Interrupted => Stop::Said(Exit::Interrupted),
        BenchError::Stopped(error) => Failure::new(LocalCode::Failed, error.to_string()).into(),
    }
}

/// Where each partition ends, so that what lies before is left alone.
async fn ends_now(
    admin: &Admin,
    topic: &Topic,
    context: &Context,
) -> Result<Vec<(PartitionIndex, Offset)>, Stop> {
    let info = match context.or_interrupt(topic.describe()).await? {
        Ok(info) => info,
        Err(error) => return Err(of_topic(admin, topic.name(), Failure::of_client(&error)).await.into()),
    };
    let positions: Vec<_> =
        info.partitions.iter().map(|partition| (partition.index, Position::End)).collect();
    let found = context.call(topic.list_offsets(&positions)).await?;
    Ok(found.iter().map(|found| (found.partition, found.offset)).collect())
}

/// What lies in the store, where the server can tell.
async fn stored(admin: &Admin) -> Option<StorageSummary> {
    admin.storage_summary().await.ok()
}
