//! `streamhouse group …`.

mod print;

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use streamhouse_client::{
    Admin, CallError, ErrorCode, GroupInfo, GroupSeek, Mode, PartitionIndex, Position, SeekTo,
    SoughtPartition,
};

use crate::consent::Consent;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::table;
use streamhouse_units::{count, parse_count, parse_span, span};

use super::topic::of_topic;
use print::{FailedDocument, GroupDocument, SeekDocument};

/// Groups looked at for a suggestion.
const SUGGESTION_GROUPS_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the consumer groups and how far they are behind
    #[command(after_help = "Examples:\n  streamhouse group list\n  streamhouse group list billing. -o json")]
    List(ListArgs),
    /// Show the members of groups, and how far they are in each partition
    #[command(
        after_help = "Examples:\n  streamhouse group describe billing\n  streamhouse group describe billing --max-lag 10k\n  streamhouse group describe billing --max-lag 30s -o json"
    )]
    Describe(DescribeArgs),
    /// Move what a group has committed
    ///
    /// Shows what would move where, and asks. Refused while the group has members; a group that is not there is made.
    #[command(
        after_help = "Examples:\n  streamhouse group seek billing --to start --dry-run\n  streamhouse group seek billing --to @-1h --topic orders --yes\n  streamhouse group seek billing --to 120000 --topic orders --partition 0 --yes\n  streamhouse group seek billing --by=-100 --yes"
    )]
    Seek(SeekArgs),
    /// Delete groups and what they have committed
    #[command(
        after_help = "Examples:\n  streamhouse group delete billing\n  streamhouse group delete billing search --yes"
    )]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only groups whose id starts with this
    #[arg(default_value = "")]
    prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Ids of the groups
    #[arg(required = true, value_name = "GROUP")]
    names: Vec<String>,
    /// End with 7 when a group is further behind: in records such as 10k, or in time such as 30s
    #[arg(long, value_name = "LAG", value_parser = parse_lag)]
    max_lag: Option<MaxLag>,
}

/// How far behind is too far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxLag {
    Records(u64),
    Behind(Duration),
}

impl MaxLag {
    fn is_exceeded_by(self, group: &GroupInfo) -> bool {
        match self {
            Self::Records(records) => group.lag_records > records,
            Self::Behind(behind) => group.behind > behind,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SeekArgs {
    /// Id of the group
    #[arg(value_name = "GROUP")]
    name: String,
    #[command(flatten)]
    target: Target,
    /// Only this topic; may be repeated. Else every topic of which the group has committed something
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition of the topic; may be repeated
    #[arg(short, long = "partition", value_name = "P", requires = "topics")]
    partitions: Vec<u32>,
    /// Show what would move, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// Where to: start, end, an offset, -100 for the last 100 of each partition, @-15m, @2026-06-01
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    to: Option<Position>,
    /// So many records on from what is committed, or back
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    by: Option<i64>,
    /// Forget what is committed
    #[arg(long)]
    forget: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Ids of the groups
    #[arg(required = true, value_name = "GROUP")]
    names: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

fn parse_lag(text: &str) -> Result<MaxLag, String> {
    let records = parse_count(text).map(MaxLag::Records);
    let lag = records.or_else(|_| parse_span(text).map(MaxLag::Behind));
    lag.map_err(|_| "expected a number of records such as 10k, or a time span such as 30s".to_owned())
}

pub(crate) async fn run(command: GroupCommand, context: &Context) -> Result<Exit, Stop> {
    match command {
        GroupCommand::List(args) => list(args, context).await,
        GroupCommand::Describe(args) => describe(args, context).await,
        GroupCommand::Seek(args) => seek(args, context).await,
        GroupCommand::Delete(args) => delete(args, context).await,
    }
}

/// A failure that concerns a group, with the id that was probably meant.
async fn of_group(admin: &Admin, name: &str, failure: Failure) -> Failure {
    if failure.code != ErrorCode::GroupNotFound.reason() {
        return failure;
    }
    let groups = admin.list_groups("").take(SUGGESTION_GROUPS_MAX);
    let names: Result<Vec<String>, CallError> = groups.map_ok(|group| group.id).try_collect().await;
    failure.suggest(name, names.unwrap_or_default().iter().map(String::as_str))
}

/// What became of several groups. One that failed alone is a failure of the command.
struct Tally {
    count: usize,
    failed: Vec<FailedDocument>,
    first_failure: Option<Exit>,
}

impl Tally {
    fn of(names: &[String]) -> Self {
        Self { count: names.len(), failed: Vec::new(), first_failure: None }
    }

    async fn take<T>(
        &mut self,
        admin: &Admin,
        name: &str,
        answer: Result<T, CallError>,
    ) -> Result<Option<T>, Stop> {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        let failure = of_group(admin, name, Failure::of_client(&error)).await;
        if self.count == 1 {
            return Err(failure.into());
        }
        self.first_failure.get_or_insert(failure.exit);
        self.failed.push(FailedDocument::new(name, &failure));
        Ok(None)
    }

    fn exit(&self) -> Exit {
        match self.first_failure {
            None => Exit::Done,
            Some(_) if self.failed.len() < self.count => Exit::Partial,
            Some(exit) => exit,
        }
    }
}

#[derive(Serialize)]
struct GroupsDocument {
    groups: Vec<GroupDocument>,
    /// Those that could not be served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedDocument>,
}

async fn list(args: ListArgs, context: &Context) -> Result<Exit, Stop> {
    let house = context.connect().await?;
    let groups: Vec<GroupInfo> = context.call(house.admin().list_groups(&args.prefix).try_collect()).await?;
    let listed = groups.iter().map(GroupDocument::listed).collect();
    let document = GroupsDocument { groups: listed, failed: Vec::new() };
    context.output.result(&document, |out| print::list(&groups, out))?;
    Ok(Exit::Done)
}

async fn describe(args: DescribeArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let (mut found, mut tally) = (Vec::new(), Tally::of(&args.names));
    for name in &args.names {
        let described = context.or_interrupt(admin.describe_group(name)).await?;
        found.extend(tally.take(&admin, name, described).await?);
    }
    let mut exit = tally.exit();
    let groups = found.iter().map(GroupDocument::described).collect();
    let document = GroupsDocument { groups, failed: tally.failed };
    context.output.result(&document, |out| {
        found.iter().try_for_each(|group| print::describe(group, out))?;
        document.failed.iter().try_for_each(|failed| writeln!(out, "{failed}"))
    })?;
    for group in found.iter().filter(|group| args.max_lag.is_some_and(|max| max.is_exceeded_by(group))) {
        let (records, behind) = (count(group.lag_records), span(group.behind));
        context.output.say(&format!("group {} is too far behind: {records} records, {behind}", group.id));
        exit = Exit::CheckFailed;
    }
    Ok(exit)
}

async fn seek(args: SeekArgs, context: &Context) -> Result<Exit, Stop> {
    let admin = context.connect().await?.admin();
    let seeks = wanted(&args, &admin, context).await?;
    let plan = sought(&args, &admin, context, (seeks.clone(), Mode::ValidateOnly)).await?;
    if args.dry_run {
        return moved(&args, context, &plan, Mode::ValidateOnly);
    }
    if !args.consent.is_given() {
        let mut text = Vec::new();
        print::sought(&plan, &mut text)?;
        context.output.say(String::from_utf8_lossy(&text).trim_end());
        args.consent.to(&format!("moving what group {} has committed", args.name), &args.name)?;
    }
    let done = sought(&args, &admin, context, (seeks, Mode::Apply)).await?;
    moved(&args, context, &done, Mode::Apply)
}

/// What is to move, by the arguments and, where they name no topic, by what is committed.
async fn wanted(args: &SeekArgs, admin: &Admin, context: &Context) -> Result<Vec<GroupSeek>, Stop> {
    let to = match (&args.target.to, args.target.by) {
        (Some(position), _) => SeekTo::Position(*position),
        (None, Some(records)) => SeekTo::By(records),
        (None, None) => SeekTo::Forget,
    };
    if args.topics.len() > 1 && !args.partitions.is_empty() {
        return Err(Failure::usage("--partition needs exactly one --topic").into());
    }
    if args.topics.is_empty() {
        let group = match context.or_interrupt(admin.describe_group(&args.name)).await? {
            Ok(group) => group,
            Err(error) => return Err(of_group(admin, &args.name, Failure::of_client(&error)).await.into()),
        };
        let committed = group.partitions.into_iter().filter(|partition| partition.committed.is_some());
        let seek = |(topic, partition)| GroupSeek { topic, partition: Some(partition), to };
        return Ok(committed.map(|found| (found.topic, found.partition)).map(seek).collect());
    }
    let places: BTreeSet<(&String, Option<u32>)> = if args.partitions.is_empty() {
        args.topics.iter().map(|topic| (topic, None)).collect()
    } else {
        args.partitions.iter().map(|partition| (&args.topics[0], Some(*partition))).collect()
    };
    let seek = |(topic, partition): (&String, Option<u32>)| GroupSeek {
        topic: topic.clone(),
        partition: partition.map(PartitionIndex::new),
        to,
    };
    Ok(places.into_iter().map(seek).collect())
}

async fn sought(
    args: &SeekArgs,
    admin: &Admin,
    context: &Context,
    (seeks, mode): (Vec<GroupSeek>, Mode),
) -> Result<Vec<SoughtPartition>, Stop> {
    match context.or_interrupt(admin.seek_group(&args.name, seeks, mode)).await? {
        Ok(sought) => Ok(sought),
        Err(error) => {
            let failure = Failure::of_client(&error);
            let topic = args.topics.first().map_or("", String::as_str);
            Err(of_topic(admin, topic, failure).await.into())
        }
    }
}

fn moved(args: &SeekArgs, context: &Context, sought: &[SoughtPartition], mode: Mode) -> Result<Exit, Stop> {
    let document = SeekDocument::new(&args.name, sought, mode);
    context.output.result(&document, |out| print::sought(sought, out))?;
    Ok(Exit::Done)
}

/// What became of each of several groups.
#[derive(Serialize)]
struct ItemsDocument {
    groups: Vec<ItemDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedDocument>,
}

#[derive(Serialize)]
struct ItemDocument {
    id: String,
    status: &'static str,
}

async fn delete(args: DeleteArgs, context: &Context) -> Result<Exit, Stop> {
    let (mode, status) =
        if args.dry_run { (Mode::ValidateOnly, "would be deleted") } else { (Mode::Apply, "deleted") };
    if mode == Mode::Apply {
        for name in &args.names {
            args.consent.to(&format!("deleting group {name} and what it has committed"), name)?;
        }
    }
    let admin = context.connect().await?.admin();
    let (mut groups, mut tally) = (Vec::new(), Tally::of(&args.names));
    for name in &args.names {
        let deleted = context.or_interrupt(admin.delete_group(name, mode)).await?;
        let deleted = tally.take(&admin, name, deleted).await?;
        groups.extend(deleted.map(|()| ItemDocument { id: name.clone(), status }));
    }
    let exit = tally.exit();
    let document = ItemsDocument { groups, failed: tally.failed };
    context.output.result(&document, |out| {
        let mut rows = table(&["GROUP", "STATUS"]);
        document.groups.iter().for_each(|group| rows.add_row([&group.id, group.status]));
        writeln!(out, "{rows}")?;
        document.failed.iter().try_for_each(|failed| writeln!(out, "{failed}"))
    })?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_a_number_of_records_or_a_time_span() {
        assert_eq!(parse_lag("10k"), Ok(MaxLag::Records(10_000)));
        assert_eq!(parse_lag("0"), Ok(MaxLag::Records(0)));
        assert_eq!(parse_lag("30s"), Ok(MaxLag::Behind(Duration::from_secs(30))));
        for wrong in ["", "-1", "far", "10 records"] {
            assert!(parse_lag(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
