//! `streamhouse topic …`.

mod print;

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use streamhouse_client::{Admin, CallError, Mode, NewTopic, Offset, PartitionIndex, TopicInfo};

use crate::consent::Consent;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::table;
use streamhouse_units::{count, parse_count};

use print::{ItemDocument, TopicDocument};

/// Topics looked at for a suggestion.
const SUGGESTION_TOPICS_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// List the topics
    #[command(after_help = "Examples:\n  streamhouse topic list\n  streamhouse topic list orders. -o json")]
    List(ListArgs),
    /// Make topics
    #[command(
        after_help = "Examples:\n  streamhouse topic create orders --partitions 6\n  streamhouse topic create orders --set max.message.bytes=2097152 --dry-run"
    )]
    Create(CreateArgs),
    /// Show partitions and settings of topics
    #[command(
        after_help = "Examples:\n  streamhouse topic describe orders\n  streamhouse topic describe orders -o json"
    )]
    Describe(NamesArgs),
    /// Change the settings of a topic
    #[command(
        after_help = "Examples:\n  streamhouse topic alter orders --set max.message.bytes=2097152\n  streamhouse topic alter orders --unset max.message.bytes"
    )]
    Alter(AlterArgs),
    /// Delete topics and all that they hold
    #[command(
        after_help = "Examples:\n  streamhouse topic delete orders\n  streamhouse topic delete orders billing --yes"
    )]
    Delete(DeleteArgs),
    /// Raise the number of partitions of a topic
    #[command(after_help = "Example:\n  streamhouse topic add-partitions orders --total 12")]
    AddPartitions(AddPartitionsArgs),
    /// Drop the records of a partition before an offset
    #[command(after_help = "Example:\n  streamhouse topic trim orders --partition 0 --before 120000 --yes")]
    Trim(TrimArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only topics whose name starts with this
    #[arg(default_value = "")]
    prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
    /// How many partitions, 1 to 10,000; else what the server is set to
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// A setting by Kafka's name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the topic
    name: String,
    /// A setting by Kafka's name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting, required_unless_present = "unset")]
    settings: Vec<(String, String)>,
    /// Puts a setting back to its default; may be repeated
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of the topics
    #[arg(required = true)]
    names: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct AddPartitionsArgs {
    /// Name of the topic
    name: String,
    /// How many partitions there shall be in all
    #[arg(long, value_name = "N")]
    total: u32,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrimArgs {
    /// Name of the topic
    name: String,
    /// The partition
    #[arg(short, long, value_name = "P")]
    partition: u32,
    /// The first offset to keep
    #[arg(long, value_name = "OFFSET", value_parser = parse_count)]
    before: u64,
    #[command(flatten)]
    consent: Consent,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as max.message.bytes=2097152".to_owned()),
    }
}

fn mode(dry_run: &impl DryRun) -> Mode {
    if dry_run.wanted() { Mode::ValidateOnly } else { Mode::Apply }
}

/// Arguments with `--dry-run`.
trait DryRun {
    fn wanted(&self) -> bool;
}

macro_rules! dry_run {
    ($($args:ty),*) => {$( impl DryRun for $args { fn wanted(&self) -> bool { self.dry_run } } )*};
}

dry_run!(CreateArgs, AlterArgs, DeleteArgs, AddPartitionsArgs);

pub(crate) async fn run(command: TopicCommand, context: &Context) -> Result<Exit, Stop> {
    match command {
        TopicCommand::List(args) => list(args, context).await,
        TopicCommand::Create(args) => create(args, context).await,
        TopicCommand::Describe(args) => describe(args, context).await,
        TopicCommand::Alter(args) => alter(args, context).await,
        TopicCommand::Delete(args) => delete(args, context).await,
        TopicCommand::AddPartitions(args) => add_partitions(args, context).await,
        TopicCommand::Trim(args) => trim(args, context).await,
    }
}

/// A failure that concerns a topic, with the name that was probably meant.
pub(super) async fn of_topic(admin: &Admin, name: &str, mut failure: Failure) -> Failure {
    if failure.code == streamhouse_client::ErrorCode::TopicNotFound.reason() {
        let topics = admin.list_topics("").take(SUGGESTION_TOPICS_MAX);
        let names: Result<Vec<String>, CallError> = topics.map_ok(|topic| topic.name).try_collect().await;
        failure = failure.suggest(name, names.unwrap_or_default().iter().map(String::as_str));
        failure.hint = Some(format!("to make it: streamhouse topic create {name}"));
    }
    failure
}

#[derive(Serialize)]
struct ListDocument {
    topics: Vec<TopicDocument>,
}

async fn list(args: ListArgs, context: &Context) -> Result<Exit, Stop> {
    let house = context.connect().await?;
    let topics: Vec<TopicInfo> = context.call(house.admin().list_topics(&args.prefix).try_collect()).await?;
    let document = ListDocument { topics: topics.iter().map(TopicDocument::listed).collect() };
    context.output.result(&document, |out| print::list(&topics, out))?;
    Ok(Exit::Done)
}

/// What became of each of several topics.
#[derive(Serialize)]
struct ItemsDocument {
    topics: Vec<ItemDocument>,
}

/// Tells what became of each topic. One that failed alone is a failure of the command.
fn conclude(context: &Context, items: Vec<(String, Result<ItemDocument, Failure>)>) -> Result<Exit, Stop> {
    let single = items.len() == 1;
    let mut first_failure = None;
    let mut done = 0;
    let mut rows = Vec::new();
    for (name, item) in items {
        match item {
            Ok(item) => {
                done += 1;
                rows.push(item);
            }
            Err(failure) if single => return Err(failure.into()),
            Err(failure) => {
                rows.push(ItemDocument::failed(&name, &failure));
                first_failure.get_or_insert(failure.exit);
            }
        }
    }
    let document = ItemsDocument { topics: rows };
    context.output.result(&document, |out| {
        let mut rows = table(&["TOPIC", "STATUS"]);
        for item in &document.topics {
            rows.add_row([item.name(), &item.status()]);
        }
        writeln!(out, "{rows}")
    })?;
    Ok(match first_failure {
        None => Exit::Done,
        Some(_) if done > 0 => Exit::Partial,
        Some(exit) => exit,
    })
}

async fn create(args: CreateArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let mode = mode(&args);
    let mut items = Vec::new();
    for name in args.names {
        let mut topic = NewTopic::new(&name);
        topic.partitions = args.partitions;
        topic.settings = args.settings.iter().cloned().collect();
        let made = context.or_interrupt(admin.create_topic(topic, mode)).await?;
        let word = if mode == Mode::Apply { "created" } else { "would be created" };
        let item = match made {
            Ok(topic) => Ok(ItemDocument::done(&name, word, Some(TopicDocument::described(&topic)))),
            Err(error) => Err(Failure::of_client(&error)),
        };
        items.push((name, item));
    }
    conclude(context, items)
}

/// What is known of each of several topics.
#[derive(Serialize)]
struct DescribeDocument {
    topics: Vec<TopicDocument>,
    /// Those of which nothing could be learnt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<ItemDocument>,
}

async fn describe(args: NamesArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let (mut found, mut failed, mut first_failure) = (Vec::new(), Vec::new(), None);
    for name in &args.names {
        match context.or_interrupt(admin.describe_topic(name)).await? {
            Ok(topic) => found.push(topic),
            Err(error) => {
                let failure = of_topic(&admin, name, Failure::of_client(&error)).await;
                if args.names.len() == 1 {
                    return Err(failure.into());
                }
                failed.push(ItemDocument::failed(name, &failure));
                first_failure.get_or_insert(failure.exit);
            }
        }
    }
    let document = DescribeDocument { topics: found.iter().map(TopicDocument::described).collect(), failed };
    let now = context.env.clock.wall();
    context.output.result(&document, |out| {
        found.iter().try_for_each(|topic| print::describe(topic, now, out))?;
        document.failed.iter().try_for_each(|item| writeln!(out, "{}   {}", item.name(), item.status()))
    })?;
    Ok(match first_failure {
        None => Exit::Done,
        Some(_) if !found.is_empty() => Exit::Partial,
        Some(exit) => exit,
    })
}

async fn alter(args: AlterArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let mode = mode(&args);
    let set = args.settings.into_iter().map(|(name, value)| (name, Some(value)));
    let changes: BTreeMap<String, Option<String>> =
        set.chain(args.unset.into_iter().map(|name| (name, None))).collect();
    let altered = context.or_interrupt(admin.alter_topic(&args.name, changes, mode)).await?;
    changed(context, &admin, &args.name, altered, mode).await
}

async fn add_partitions(args: AddPartitionsArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let mode = mode(&args);
    let altered = context.or_interrupt(admin.add_partitions(&args.name, args.total, mode)).await?;
    changed(context, &admin, &args.name, altered, mode).await
}

async fn changed(
    context: &Context,
    admin: &Admin,
    name: &str,
    altered: Result<TopicInfo, CallError>,
    mode: Mode,
) -> Result<Exit, Stop> {
    let word = if mode == Mode::Apply { "changed" } else { "would be changed" };
    let item = match altered {
        Ok(topic) => Ok(ItemDocument::done(name, word, Some(TopicDocument::described(&topic)))),
        Err(error) => Err(of_topic(admin, name, Failure::of_client(&error)).await),
    };
    conclude(context, vec![(name.to_owned(), item)])
}

async fn delete(args: DeleteArgs, context: &Context) -> Result<Exit, Stop> {
    let mode = mode(&args);
    if mode == Mode::Apply {
        for name in &args.names {
            args.consent.to(&format!("deleting topic {name} and all that it holds"), name)?;
        }
    }
    let admin = context.connect().await?.admin();
    let word = if mode == Mode::Apply { "deleted" } else { "would be deleted" };
    let mut items = Vec::new();
    for name in args.names {
        let item = match context.or_interrupt(admin.delete_topic(&name, mode)).await? {
            Ok(()) => Ok(ItemDocument::done(&name, word, None)),
            Err(error) => Err(of_topic(&admin, &name, Failure::of_client(&error)).await),
        };
        items.push((name, item));
    }
    conclude(context, items)
}

#[derive(Serialize)]
struct TrimDocument {
    topic: String,
    partition: u32,
    log_start: u64,
}

async fn trim(args: TrimArgs, context: &Context) -> Result<Exit, Stop> {
    let what = format!("dropping the records of {}/{} before {}", args.name, args.partition, args.before);
    args.consent.to(&what, &args.name)?;
    let admin = context.connect().await?.admin();
    let trim = admin.trim(&args.name, PartitionIndex::new(args.partition), Offset::new(args.before));
    let log_start = match context.or_interrupt(trim).await? {
        Ok(offset) => offset.get(),
        Err(error) => return Err(of_topic(&admin, &args.name, Failure::of_client(&error)).await.into()),
    };
    let document = TrimDocument { topic: args.name, partition: args.partition, log_start };
    context.output.result(&document, |out| {
        writeln!(out, "{}/{} starts at {}", document.topic, document.partition, count(log_start))
    })?;
    Ok(Exit::Done)
}
