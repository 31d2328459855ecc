use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use streamhouse_env::{Env, LogFs, LongWork, Threads};
use streamhouse_types::NodeId;
use tokio::sync::watch;

use super::*;
use crate::machine::{Machine, View};
use crate::snapshot::SnapshotDir;
use crate::types::{Entry, LogId, LoggedCommand, TypeConfig, Vote, log_id};
use streamhouse_faults::{MemoryFs, Unsynced};

const DIR: &str = "/data/log";
const SEGMENT: u64 = 1_024;

fn options(fs: &MemoryFs) -> LogOptions {
    let fs: Arc<dyn LogFs> = Arc::new(fs.clone());
    LogOptions {
        node: NodeId::new(1),
        dir: PathBuf::from(DIR),
        env: Env { fs, ..Env::system() },
        segment_bytes: SEGMENT,
        cache_bytes: 1 << 20,
        failure: Arc::new(watch::Sender::new(None)),
    }
}

/// Opens the log with the lock of its disk.
fn open(options: &LogOptions) -> Result<(LogStore, LongRun), StartError> {
    super::open(options, options.env.fs.lock(Path::new("/data/lock")).expect("one log at a time"))
}

fn entry(term: u64, index: u64) -> Entry {
    let bytes =
        format!("command {index} of term {term} {}", "x".repeat(usize::try_from(index % 40).expect("small")));
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(LoggedCommand::from_bytes(bytes.into())),
    }
}

/// What a log holds, to compare.
#[derive(Debug, Clone, PartialEq, Default)]
struct Content {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    entries: Vec<Entry>,
}

/// Something done to a log.
#[derive(Debug, Clone)]
enum Step {
    Append(u64, std::ops::Range<u64>),
    Vote(u64),
    Truncate(LogId),
    Purge(LogId),
}

impl Content {
    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Append(term, indexes) => {
                next.entries.extend(indexes.clone().map(|index| entry(*term, index)));
                next.last = next.entries.last().map(|entry| entry.log_id);
            }
            Step::Vote(term) => next.vote = Some(Vote::new(*term, 1)),
            Step::Truncate(last) => {
                next.entries.retain(|entry| entry.log_id.index() <= last.index());
                next.last = Some(*last);
            }
            Step::Purge(upto) => {
                next.entries.retain(|entry| entry.log_id.index() > upto.index());
                next.purged = Some(*upto);
                next.last = next.last.max(Some(*upto));
            }
        }
        next
    }
}

async fn content(store: &mut LogStore) -> Content {
    let state = store.get_log_state().await.expect("in memory");
    let mut reader = store.get_log_reader().await;
    Content {
        vote: reader.read_vote().await.expect("in memory"),
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: reader.try_get_log_entries(..).await.expect("readable"),
    }
}

async fn perform(store: &mut LogStore, step: &Step) -> io::Result<()> {
    match step {
        Step::Append(term, indexes) => {
            let (told, done) = TypeConfig::oneshot();
            store.append(indexes.clone().map(|index| entry(*term, index)), IOFlushed::signal(told)).await?;
            done.await.expect("every write is answered")
        }
        Step::Vote(term) => store.save_vote(&Vote::new(*term, 1)).await,
        Step::Truncate(last) => store.truncate_after(Some(*last)).await,
        Step::Purge(upto) => store.purge(*upto).await,
    }
}

fn script() -> Vec<Step> {
    vec![
        Step::Vote(1),
        Step::Append(1, 0..1),
        Step::Append(1, 1..6),
        Step::Vote(2),
        Step::Append(1, 6..20),
        Step::Truncate(log_id(1, 11)),
        Step::Append(2, 12..30),
        Step::Purge(log_id(2, 15)),
        Step::Append(2, 30..40),
        Step::Vote(3),
        Step::Purge(log_id(3, 60)),
        Step::Append(3, 61..70),
    ]
}

/// A log on which all of the script was done, cleanly closed.
async fn written() -> (MemoryFs, Vec<Content>) {
    written_with(&script()).await
}

async fn written_with(script: &[Step]) -> (MemoryFs, Vec<Content>) {
    let fs = MemoryFs::default();
    let (mut store, thread) = open(&options(&fs)).expect("an empty disk");
    let mut contents = vec![Content::default()];
    for step in script {
        perform(&mut store, step).await.expect("a healthy disk");
        contents.push(contents.last().expect("one").after(step));
    }
    assert_eq!(content(&mut store).await, *contents.last().expect("one"));
    drop(store);
    thread.ended().await;
    (fs, contents)
}

fn segment(number: u64) -> PathBuf {
    recovery::segment_path(Path::new(DIR), number)
}

fn newest_segment(fs: &MemoryFs) -> PathBuf {
    fs.content().into_keys().next_back().expect("a segment")
}

#[tokio::test]
async fn a_reopened_log_holds_what_was_written() {
    let (fs, contents) = written().await;
    assert!(newest_segment(&fs) > segment(1), "the script fills several segments");
    let (mut store, _thread) = open(&options(&fs)).expect("readable");
    assert_eq!(content(&mut store).await, *contents.last().expect("one"));
}

/// Does the script until the power goes after `changes` changes, and checks what is found on the disk afterwards.
async fn crash_after(changes: u64, unsynced: Unsynced) {
    let fs = MemoryFs::default();
    fs.cut_power_after(changes);
    let mut possible = vec![Content::default()];
    let mut durable = 0;
    if let Ok((mut store, thread)) = open(&options(&fs)) {
        for step in script() {
            possible.push(possible.last().expect("one").after(&step));
            if perform(&mut store, &step).await.is_err() {
                break;
            }
            // A purge is not waited for.
            if !matches!(step, Step::Purge(_)) {
                durable = possible.len() - 1;
            }
        }
        drop(store);
        thread.ended().await;
    }
    let fs = fs.crashed(unsynced);
    let (mut store, thread) =
        open(&options(&fs)).unwrap_or_else(|error| panic!("{changes} {unsynced:?}: {error}"));
    let found = content(&mut store).await;
    assert!(
        possible[durable..].contains(&found),
        "after {changes} changes, {unsynced:?}: lost or invented: {found:?}"
    );
    // It goes on from there, also over another restart.
    let next = found.last.map_or(0, |last| last.index() + 1);
    perform(&mut store, &Step::Append(9, next..next + 3)).await.expect("a healthy disk");
    let grown = content(&mut store).await;
    drop(store);
    thread.ended().await;
    let (mut store, _thread) = open(&options(&fs)).expect("readable");
    assert_eq!(content(&mut store).await, grown);
}

#[tokio::test]
async fn a_power_cut_at_any_change_loses_nothing_that_was_acknowledged() {
    let (fs, _) = written().await;
    let total = fs.changes();
    assert!(total > 40, "{total}");
    for changes in 0..=total {
        crash_after(changes, Unsynced::Lost).await;
        crash_after(changes, Unsynced::Kept).await;
        for seed in 0..6 {
            crash_after(changes, Unsynced::Mixed(changes * 100 + seed)).await;
        }
    }
}

#[tokio::test]
async fn a_newest_file_cut_anywhere_recovers_to_whole_groups() {
    let (fs, contents) = written().await;
    let newest = newest_segment(&fs);
    for length in 0..usize::try_from(SEGMENT).expect("small") {
        let fs = fs.copied();
        fs.damage(&newest, |bytes| bytes.truncate(length));
        match open(&options(&fs)) {
            Ok((mut store, _thread)) => {
                let found = content(&mut store).await;
                assert!(contents.contains(&found), "cut at {length}: {found:?}");
            }
            // Its first records let older files go, so without them the rest is no log.
            Err(StartError::Corrupt { problem, .. }) => {
                assert!(problem.contains("missing"), "{length}: {problem}")
            }
            Err(error) => panic!("cut at {length}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_is_refused_or_cut_and_never_believed() {
    // Up to before the purge that lets all but the newest file go.
    let (fs, contents) = written_with(&script()[..10]).await;
    assert!(fs.content().len() > 2, "several files");
    let newest = newest_segment(&fs);
    let (mut refused, mut cut) = (0, 0);
    for (path, bytes) in fs.content() {
        for position in 0..bytes.len() {
            let fs = fs.copied();
            fs.damage(&path, |bytes| bytes[position] ^= 0x41);
            let before = fs.content();
            match open(&options(&fs)) {
                Ok((mut store, _thread)) => {
                    cut += 1;
                    assert_eq!(path, newest, "byte {position} of a closed file was believed or cut");
                    let found = content(&mut store).await;
                    assert!(contents.contains(&found), "byte {position}: {found:?}");
                }
                Err(StartError::Corrupt { file, fix, .. }) => {
                    refused += 1;
                    assert!(file.starts_with(DIR) && fix.contains("remove this node"), "{file:?}");
                    assert!(fs.content() == before, "byte {position}: damage is shown, not cleaned up");
                }
                Err(error) => panic!("byte {position}: {error}"),
            }
        }
    }
    assert!(refused > 50 && cut > 50, "{refused} refused, {cut} cut");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let fs = MemoryFs::default();
    let (mut store, thread) = open(&options(&fs)).expect("an empty disk");
    for index in 0..60 {
        perform(&mut store, &Step::Append(1, index..index + 1)).await.expect("a healthy disk");
    }
    drop(store);
    thread.ended().await;
    let missing = segment(2);
    fs.remove(&missing).expect("it is there");
    let error = open(&options(&fs)).map(|_| ()).expect_err("a hole");
    assert!(
        error.to_string().contains("0000000000000002.log is damaged at byte 0: the file is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn the_log_of_another_node_is_refused() {
    let (fs, _) = written().await;
    let other = LogOptions { node: NodeId::new(2), ..options(&fs) };
    let error = open(&other).map(|_| ()).expect_err("not ours");
    assert!(error.to_string().contains("it belongs to node 1, not to node 2"), "{error}");
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_keeps_what_was_acknowledged() {
    let fs = MemoryFs::default();
    let options = options(&fs);
    let (mut store, thread) = open(&options).expect("an empty disk");
    perform(&mut store, &Step::Append(1, 0..3)).await.expect("there is room");
    fs.limit(Some(fs.used()));
    let mut acknowledged = 3;
    let error = loop {
        match perform(&mut store, &Step::Append(1, acknowledged..acknowledged + 1)).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(&*options.failure.borrow(), Some(Failure::DiskFull { .. })));
    fs.limit(None);
    let again = perform(&mut store, &Step::Vote(7)).await;
    assert!(again.is_err(), "after a failure nothing is acknowledged any more");
    drop(store);
    thread.ended().await;
    let (mut store, _thread) = open(&self::options(&fs.crashed(Unsynced::Lost))).expect("readable");
    let found = content(&mut store).await;
    assert_eq!(found.last, Some(log_id(1, acknowledged - 1)));
    assert_eq!(found.vote, None);
}

#[tokio::test]
async fn entries_out_of_memory_are_read_from_disk() {
    let fs = MemoryFs::default();
    let small = LogOptions { cache_bytes: 0, ..options(&fs) };
    let (mut store, thread) = open(&small).expect("an empty disk");
    for index in (0..50).step_by(5) {
        perform(&mut store, &Step::Append(1, index..index + 5)).await.expect("a healthy disk");
    }
    let expected: Vec<_> = (0..50).map(|index| entry(1, index)).collect();
    assert_eq!(content(&mut store).await.entries, expected);
    drop(store);
    thread.ended().await;
    let (mut store, _thread) = open(&small).expect("readable");
    assert_eq!(content(&mut store).await.entries, expected);
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(7..=9).await.expect("readable"), expected[7..10]);
}

#[tokio::test]
async fn purged_files_go_and_the_others_stay() {
    let fs = MemoryFs::default();
    let (mut store, thread) = open(&options(&fs)).expect("an empty disk");
    perform(&mut store, &Step::Vote(4)).await.expect("a healthy disk");
    for index in 0..100 {
        perform(&mut store, &Step::Append(1, index..index + 1)).await.expect("a healthy disk");
    }
    let before = fs.content().len();
    perform(&mut store, &Step::Purge(log_id(1, 80))).await.expect("a healthy disk");
    perform(&mut store, &Step::Append(1, 100..101)).await.expect("a healthy disk");
    drop(store);
    thread.ended().await;
    assert!(fs.content().len() * 2 < before, "{} of {before} files are left", fs.content().len());
    let (mut store, _thread) = open(&options(&fs)).expect("readable");
    let found = content(&mut store).await;
    assert_eq!((found.vote, found.purged), (Some(Vote::new(4, 1)), Some(log_id(1, 80))));
    assert_eq!(found.entries, (81..101).map(|index| entry(1, index)).collect::<Vec<_>>());
}

/// Long work goes on only while the test waits, so that what the test does in between is always ahead of it.
#[derive(Debug)]
struct InTurn;

impl Threads for InTurn {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn dedicate(&self, _name: &'static str, work: LongWork) {
        drop(tokio::spawn(work));
    }
}

#[tokio::test]
async fn writes_that_wait_together_share_one_sync() {
    let fs = MemoryFs::default();
    let mut large = LogOptions { segment_bytes: 1 << 20, ..options(&fs) };
    large.env.threads = Arc::new(InTurn);
    let (mut store, thread) = open(&large).expect("an empty disk");
    let before = fs.changes();
    let mut waiting = Vec::new();
    for index in 0..500 {
        let (told, done) = TypeConfig::oneshot();
        store.append([entry(1, index)], IOFlushed::signal(told)).await.expect("queued");
        waiting.push(done);
    }
    for done in waiting {
        done.await.expect("answered").expect("a healthy disk");
    }
    drop(store);
    thread.ended().await;
    let changes = fs.changes() - before;
    assert!(changes < 50, "{changes} writes and syncs for 500 entries");
}

#[tokio::test]
async fn a_committed_entry_that_never_reached_the_disk_is_not_claimed() {
    let fs = MemoryFs::default();
    let (mut store, thread) = open(&options(&fs)).expect("an empty disk");
    perform(&mut store, &Step::Append(1, 0..3)).await.expect("a healthy disk");
    store.save_committed(Some(log_id(1, 9))).await.expect("noted");
    drop(store);
    thread.ended().await;
    let (mut store, _thread) = open(&options(&fs)).expect("readable");
    assert_eq!(store.read_committed().await.expect("in memory"), Some(log_id(1, 2)));
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, ()> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), openraft::StorageError<TypeConfig>> {
        let fs = MemoryFs::default();
        let options = options(&fs);
        let (store, _thread) = open(&options).expect("an empty disk");
        let dir = PathBuf::from("/data/snapshots");
        let (snapshots, file) = SnapshotDir::open(options.env.fs.clone(), dir, None).expect("an empty disk");
        let view = Arc::new(View::new(file.as_ref(), u64::MAX, options.failure.clone()));
        Ok(((), store, Machine::new(view, Arc::new(snapshots), Arc::new(()), Env::system().threads, file)))
    }
}

#[tokio::test]
async fn the_stores_pass_the_suite_of_the_consensus_library() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

#[test]
fn a_command_of_any_bytes_survives_the_log() {
    let bytes: Bytes = (0..=255).collect::<Vec<u8>>().into();
    let command = LoggedCommand::from_bytes(bytes);
    let entry = Entry { log_id: log_id(1, 0), payload: EntryPayload::Normal(command) };
    let mut buffer = Vec::new();
    frame::begin(&mut buffer);
    frame::Record::Entry(entry.clone()).put(&mut buffer);
    frame::finish(&mut buffer, 1);
    let records = frame::decode(&buffer.into()).expect("valid").records().expect("valid");
    assert_eq!(records[0].1, frame::Record::Entry(entry));
}
