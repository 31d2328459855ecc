//! `streamhouse storage …`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use indicatif::ProgressBar;
use serde::Serialize;
use streamhouse_client::{
    ObjectExtent, ObjectInfo, StorageSummary, VerifyDepth, VerifyFault, VerifyProgress,
};

use streamhouse_server::api::VerifyRequest;
use streamhouse_server::{ConfigSources, Offline, OfflineError, Preset, check_config};
use streamhouse_types::error_code::ErrorCode;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Stop, with_causes};
use crate::output::{Measure, table};
use streamhouse_units::{bytes, count, counted, time};

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Count the objects and bytes in the store
    #[command(after_help = "Example:\n  streamhouse storage summary -o json")]
    Summary(Stopped),
    /// Show one object: what it holds, and whether metadata refers to it
    #[command(after_help = "Example:\n  streamhouse storage inspect 1-1-wal-0000000000000007-0")]
    Inspect(InspectArgs),
    /// Check that every object the metadata refers to is there and unharmed; exit 9 if not
    #[command(
        after_help = "Examples:\n  streamhouse storage verify\n  streamhouse storage verify --shallow\n  streamhouse storage verify --data-dir .streamhouse"
    )]
    Verify(VerifyArgs),
    /// Delete now what the sweep may delete: orphans, and garbage whose grace is over
    #[command(after_help = "Example:\n  streamhouse storage sweep")]
    Sweep,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Key or id of the object
    key: String,
    #[command(flatten)]
    stopped: Stopped,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Check presence and length only; else every byte is read and every checksum computed
    #[arg(long)]
    shallow: bool,
    #[command(flatten)]
    stopped: Stopped,
}

/// A cluster whose node is stopped: it is looked at without a server.
#[derive(Debug, Args)]
pub(crate) struct Stopped {
    /// Ask no server: take the metadata from the data directory of a node that is stopped
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// With a stopped node: the store, if it is not in the data directory
    #[arg(long, value_name = "URL", requires = "data_dir")]
    store: Option<String>,
}

impl Stopped {
    /// Opens the stopped cluster; `None` when a server is to be asked.
    async fn open(&self, context: &Context) -> Result<Option<Offline>, Stop> {
        let Some(data_dir) = &self.data_dir else { return Ok(None) };
        // The preset of `dev` knows that the store lies in the data directory when nobody says otherwise.
        let mut sources = ConfigSources::of_process(Preset::Dev);
        sources.flags.push(("node.data_dir".to_owned(), data_dir.display().to_string()));
        sources.flags.extend(self.store.clone().map(|url| ("store.url".to_owned(), url)));
        let config = check_config(&sources)
            .map_err(|error| Failure::of_code(ErrorCode::InvalidSetting, error.to_string()))?;
        let opened = Box::pin(Offline::open(&config, context.env.clone())).await;
        opened.map(Some).map_err(|error| of_offline(&error).into())
    }
}

fn of_offline(error: &OfflineError) -> Failure {
    Failure::of_code(error.code(), with_causes(error))
}

impl StorageCommand {
    /// Whether a server is asked.
    pub(crate) fn connects(&self) -> bool {
        match self {
            Self::Summary(stopped)
            | Self::Inspect(InspectArgs { stopped, .. })
            | Self::Verify(VerifyArgs { stopped, .. }) => stopped.data_dir.is_none(),
            Self::Sweep => true,
        }
    }
}

pub(crate) async fn run(command: StorageCommand, context: &Context) -> Result<Exit, Stop> {
    match command {
        StorageCommand::Summary(stopped) => summary(&stopped, context).await,
        StorageCommand::Inspect(args) => inspect(&args, context).await,
        StorageCommand::Verify(args) => verify(&args, context).await,
        StorageCommand::Sweep => sweep(context).await,
    }
}

#[derive(Serialize)]
struct SummaryDocument {
    url: String,
    cluster_id: String,
    objects: u64,
    bytes: u64,
    garbage_objects: u64,
    classes: Vec<ClassDocument>,
}

#[derive(Serialize)]
struct ClassDocument {
    name: String,
    objects: u64,
    bytes: u64,
}

async fn summary(stopped: &Stopped, context: &Context) -> Result<Exit, Stop> {
    let summary = match stopped.open(context).await? {
        Some(offline) => {
            offline.summary().await.map(StorageSummary::from).map_err(|error| of_offline(&error))?
        }
        None => {
            let house = context.connect().await?;
            context.call(house.admin().storage_summary()).await?
        }
    };
    let class = |class: &streamhouse_client::ObjectClass| ClassDocument {
        name: class.name.clone(),
        objects: class.objects,
        bytes: class.bytes,
    };
    let document = SummaryDocument {
        url: summary.url,
        cluster_id: summary.cluster_id,
        objects: summary.classes.iter().map(|class| class.objects).sum(),
        bytes: summary.classes.iter().map(|class| class.bytes).sum(),
        garbage_objects: summary.garbage_objects,
        classes: summary.classes.iter().map(class).collect(),
    };
    context.output.result(&document, |out| {
        writeln!(out, "store    {}\ncluster  {}", document.url, document.cluster_id)?;
        let mut rows = table(&["CLASS", "OBJECTS", "BYTES"]);
        for class in &document.classes {
            rows.add_row([class.name.clone(), count(class.objects), bytes(class.bytes)]);
        }
        writeln!(out, "{rows}")?;
        writeln!(out, "{} to be deleted after the grace", counted(document.garbage_objects, "object"))
    })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct ObjectDocument {
    key: String,
    object_id: String,
    state: String,
    level: u32,
    length: u64,
    created: Option<String>,
    extents: Vec<ExtentDocument>,
}

#[derive(Serialize)]
struct ExtentDocument {
    topic: Option<String>,
    topic_id: u64,
    partition: u32,
    position: u64,
    length: u64,
    records: u32,
    crc32c: String,
    runs: Vec<RunDocument>,
}

#[derive(Serialize)]
struct RunDocument {
    base_offset: u64,
    end_offset: u64,
    position: u64,
    length: u64,
}

impl ExtentDocument {
    fn of(extent: &ObjectExtent) -> Self {
        let run = |run: &streamhouse_client::CommittedRun| RunDocument {
            base_offset: run.base.get(),
            end_offset: run.end.get(),
            position: run.position,
            length: run.length,
        };
        Self {
            topic: Some(extent.topic.clone()).filter(|name| !name.is_empty()),
            topic_id: extent.topic_id.get(),
            partition: extent.partition.get(),
            position: extent.position,
            length: extent.length,
            records: extent.records,
            crc32c: format!("{:08x}", extent.crc32c),
            runs: extent.runs.iter().map(run).collect(),
        }
    }
}

async fn inspect(args: &InspectArgs, context: &Context) -> Result<Exit, Stop> {
    let object = match args.stopped.open(context).await? {
        Some(offline) => {
            offline.inspect(&args.key).await.map(ObjectInfo::from).map_err(|error| of_offline(&error))?
        }
        None => {
            let house = context.connect().await?;
            context.call(house.admin().inspect_object(&args.key)).await?
        }
    };
    let document = ObjectDocument {
        extents: object.extents.iter().map(ExtentDocument::of).collect(),
        key: object.key,
        object_id: object.object_id,
        state: object.state,
        level: object.level,
        length: object.length,
        created: object.created.and_then(time),
    };
    context.output.result(&document, |out| print_object(&document, out))?;
    Ok(Exit::Done)
}

fn print_object(object: &ObjectDocument, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "key      {}", object.key)?;
    writeln!(out, "state    {}   level {}   {}", object.state, object.level, bytes(object.length))?;
    writeln!(out, "created  {}", object.created.as_deref().unwrap_or("unknown"))?;
    let mut rows = table(&["TOPIC", "PART", "POSITION", "LENGTH", "RECORDS", "CRC-32C", "OFFSETS"]);
    for extent in &object.extents {
        let runs = extent.runs.iter().map(|run| format!("{}..{}", run.base_offset, run.end_offset));
        let runs = runs.collect::<Vec<_>>().join(" ");
        rows.add_row([
            extent.topic.clone().unwrap_or_else(|| format!("(deleted topic {})", extent.topic_id)),
            extent.partition.to_string(),
            extent.position.to_string(),
            bytes(extent.length),
            count(u64::from(extent.records)),
            extent.crc32c.clone(),
            if runs.is_empty() { "not committed".to_owned() } else { runs },
        ]);
    }
    writeln!(out, "{rows}")
}

#[derive(Serialize)]
struct VerifyDocument {
    ok: bool,
    objects_checked: u64,
    records_checked: u64,
    bytes_read: u64,
    orphans: u64,
    garbage: u64,
    faults: Vec<FaultDocument>,
}

#[derive(Serialize)]
struct FaultDocument {
    object_id: String,
    topic: Option<String>,
    partition: u32,
    base_offset: u64,
    end_offset: u64,
    what: String,
}

impl FaultDocument {
    fn of(fault: VerifyFault) -> Self {
        Self {
            object_id: fault.object_id,
            topic: Some(fault.topic).filter(|name| !name.is_empty()),
            partition: fault.partition.get(),
            base_offset: fault.offsets.start.get(),
            end_offset: fault.offsets.end.get(),
            what: fault.what,
        }
    }
}

/// What a verification has told so far.
struct Telling {
    bar: ProgressBar,
    last: VerifyProgress,
    faults: Vec<FaultDocument>,
}

impl Telling {
    fn take(&mut self, mut next: VerifyProgress) {
        self.faults.extend(next.faults.drain(..).map(FaultDocument::of));
        self.bar.set_length(next.objects_total);
        self.bar.set_position(next.objects_checked);
        self.last = next;
    }
}

async fn verify(args: &VerifyArgs, context: &Context) -> Result<Exit, Stop> {
    let bar = context.output.bar(0, Measure::Things);
    let mut telling = Telling { bar, last: VerifyProgress::default(), faults: Vec::new() };
    match args.stopped.open(context).await? {
        Some(offline) => {
            let request = VerifyRequest { deep: !args.shallow };
            let verified = offline.verify(request, |next| telling.take(VerifyProgress::from(next)));
            context.or_interrupt(verified).await?.map_err(|error| of_offline(&error))?;
        }
        None => verify_by_server(args, context, &mut telling).await?,
    }
    let Telling { bar, last, faults } = telling;
    bar.finish_and_clear();
    if !last.done {
        let text = "the verification ended before it was through";
        return Err(Failure::of_code(ErrorCode::Unreachable, text).into());
    }
    let document = VerifyDocument {
        ok: faults.is_empty(),
        objects_checked: last.objects_checked,
        records_checked: last.records_checked,
        bytes_read: last.bytes_read,
        orphans: last.orphans,
        garbage: last.garbage,
        faults,
    };
    context.output.result(&document, |out| print_verdict(&document, out))?;
    Ok(if document.ok { Exit::Done } else { Exit::Differs })
}

async fn verify_by_server(args: &VerifyArgs, context: &Context, telling: &mut Telling) -> Result<(), Stop> {
    let house = context.connect().await?;
    let depth = if args.shallow { VerifyDepth::Shallow } else { VerifyDepth::Deep };
    let mut progress = std::pin::pin!(context.call(house.admin().verify_storage(depth)).await?);
    loop {
        let next = async {
            match context.timeout {
                Some(patience) => tokio::time::timeout(patience, progress.next()).await,
                None => Ok(progress.next().await),
            }
        };
        let late = |_| {
            Failure::of_code(ErrorCode::TimedOut, "the server came no further within --timeout".to_owned())
        };
        match context.or_interrupt(next).await?.map_err(late)? {
            Some(next) => telling.take(next.map_err(|error| Failure::of_client(&error))?),
            None => return Ok(()),
        }
    }
}

fn print_verdict(verdict: &VerifyDocument, out: &mut impl Write) -> io::Result<()> {
    let checked = counted(verdict.objects_checked, "object");
    let records = counted(verdict.records_checked, "record");
    writeln!(out, "{checked}, {records} and {} checked", bytes(verdict.bytes_read))?;
    writeln!(
        out,
        "{} never committed, {} to be deleted",
        counted(verdict.orphans, "orphan"),
        count(verdict.garbage)
    )?;
    if verdict.ok {
        return writeln!(out, "no fault found");
    }
    let mut rows = table(&["OBJECT", "TOPIC", "PART", "OFFSETS", "FAULT"]);
    for fault in &verdict.faults {
        rows.add_row([
            fault.object_id.clone(),
            fault.topic.clone().unwrap_or_default(),
            fault.partition.to_string(),
            format!("{}..{}", fault.base_offset, fault.end_offset),
            fault.what.clone(),
        ]);
    }
    writeln!(out, "{rows}")?;
    let faults = u64::try_from(verdict.faults.len()).unwrap_or(u64::MAX);
    writeln!(out, "{} found", counted(faults, "fault"))
}

#[derive(Serialize)]
struct SweepDocument {
    orphans_deleted: u64,
    garbage_deleted: u64,
    waiting: u64,
}

async fn sweep(context: &Context) -> Result<Exit, Stop> {
    let house = context.connect().await?;
    let swept = context.call(house.admin().sweep_storage()).await?;
    let document = SweepDocument {
        orphans_deleted: swept.orphans_deleted,
        garbage_deleted: swept.garbage_deleted,
        waiting: swept.waiting,
    };
    context.output.result(&document, |out| {
        writeln!(
            out,
            "{} and {} deleted, {} waiting for the grace",
            counted(document.orphans_deleted, "orphan"),
            counted(document.garbage_deleted, "garbage object"),
            count(document.waiting)
        )
    })?;
    Ok(Exit::Done)
}
