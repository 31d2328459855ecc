//! Reads the log back at start.
//!
//! A group is synced before the next one is written, so a crash can leave at most one frame unfinished: the last one of
//! the newest file. That tail was never acknowledged and is cut. Anything else that does not read back is damage: the
//! node stops and changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use streamhouse_env::{LogFile, LogFs};

use super::LogOptions;
use super::frame::{self, Frame, Record, SegmentHeader, Standing};
use super::tail::{Place, Segment, Tail};
use super::writer::{Active, WriterState};
use crate::error::{RESTORE_OR_REPLACE, StartError};
use crate::types::Entry;

const ENDING: &str = ".log";
/// How far the sequences of frames behind a torn one may run ahead: far more frames than a file can hold.
const SEQUENCES_AHEAD: u64 = 1 << 32;

/// A log that was read back.
pub(super) struct Recovered {
    pub(super) tail: Tail,
    pub(super) writer: WriterState,
}

/// The number in a segment's file name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let number = digits.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

fn segment_name(number: u64) -> String {
    format!("{number:016}{ENDING}")
}

/// The path of a segment.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(segment_name(number))
}

/// Makes a segment and writes its header, durably.
pub(super) fn begin_segment(
    fs: &dyn LogFs,
    dir: &Path,
    segment_bytes: u64,
    header: SegmentHeader,
    sequence: u64,
) -> io::Result<Active> {
    let number = header.number;
    let file: Arc<dyn LogFile> = fs.create(&segment_path(dir, number))?.into();
    file.preallocate(segment_bytes)?;
    let mut buffer = Vec::new();
    frame::begin(&mut buffer);
    Record::Segment(header).put(&mut buffer);
    frame::finish(&mut buffer, sequence);
    file.write_at(0, &buffer)?;
    file.sync_data()?;
    fs.sync_dir(dir)?;
    Ok(Active { number, file, position: buffer.len() as u64 })
}

/// Reads the log of a directory back, or begins one.
pub(super) fn recover(options: &LogOptions) -> Result<Recovered, StartError> {
    let fs = &*options.env.fs;
    let on_dir = |source| StartError::Io { path: options.dir.clone(), source };
    fs.create_dir(&options.dir).map_err(on_dir)?;
    let files = fs.list(&options.dir).map_err(on_dir)?;
    let numbers: Vec<u64> = files.iter().filter_map(|file| segment_number(&file.name)).collect();
    let mut replay = Replay::new(options, numbers.last().copied());
    for (position, number) in numbers.iter().enumerate() {
        if position > 0 && numbers[position - 1] + 1 != *number {
            let missing = segment_path(&options.dir, numbers[position - 1] + 1);
            return Err(corrupt(&missing, 0, "the file is missing"));
        }
        replay.segment(*number)?;
    }
    replay.finish()
}

/// Puts a log together, frame by frame.
struct Replay<'a> {
    options: &'a LogOptions,
    /// The number of the newest file.
    newest: Option<u64>,
    tail: Tail,
    standing: Standing,
    next_sequence: Option<u64>,
    active: Option<Active>,
    /// The newest file, when it ends in a group that was not finished.
    torn: Option<PathBuf>,
    /// The newest file, when it was not even begun.
    unbegun: Option<PathBuf>,
}

impl<'a> Replay<'a> {
    fn new(options: &'a LogOptions, newest: Option<u64>) -> Self {
        let tail = Tail::new(options.cache_bytes);
        let standing = Standing::default();
        Self { options, newest, tail, standing, next_sequence: None, active: None, torn: None, unbegun: None }
    }

    fn segment(&mut self, number: u64) -> Result<(), StartError> {
        let path = segment_path(&self.options.dir, number);
        let on_file = |source| StartError::Io { path: path.clone(), source };
        let bytes = self.options.env.fs.read(&path).map_err(on_file)?;
        let file: Arc<dyn LogFile> = self.options.env.fs.open(&path).map_err(on_file)?.into();
        self.tail.segments.insert(number, Segment { file: file.clone(), last_index: None, bytes: 0 });
        let mut position = 0;
        while let Some(frame) = self.next_frame(&bytes.slice(position..)) {
            self.frame(&frame, number, position).map_err(|problem| corrupt(&path, position, &problem))?;
            position += frame.length();
        }
        if bytes[position..].iter().any(|byte| *byte != 0) {
            if self.newest != Some(number) {
                return Err(corrupt(&path, position, "a synced record does not read back"));
            }
            if let Some(later) = self.frame_after(&bytes.slice(position..)) {
                let problem = format!(
                    "a synced record does not read back (a later one follows at {})",
                    position + later
                );
                return Err(corrupt(&path, position, &problem));
            }
            self.torn = Some(path.clone());
        }
        if position == 0 {
            return self.unbegun(number, &path);
        }
        self.tail.segments.get_mut(&number).expect("inserted above").bytes = position as u64;
        self.active = Some(Active { number, file, position: position as u64 });
        Ok(())
    }

    /// The frame at the start of `bytes`, when it is the next one.
    fn next_frame(&self, bytes: &Bytes) -> Option<Frame> {
        frame::decode(bytes).filter(|frame| self.next_sequence.is_none_or(|next| frame.sequence == next))
    }

    /// Where in `bytes`, behind its start, a frame lies that was written after the one that should be at the start.
    fn frame_after(&self, bytes: &Bytes) -> Option<usize> {
        let next = self.next_sequence.unwrap_or(0);
        let later = next.saturating_add(1)..next.saturating_add(SEQUENCES_AHEAD);
        (1..bytes.len()).find(|start| {
            let claimed = frame::claimed_sequence(&bytes[*start..]);
            claimed.is_some_and(|sequence| later.contains(&sequence))
                && frame::decode(&bytes.slice(*start..)).is_some()
        })
    }

    /// A file without a whole header: the crash came while it was made, so nothing was ever acknowledged from it.
    fn unbegun(&mut self, number: u64, path: &Path) -> Result<(), StartError> {
        if self.newest != Some(number) || (self.active.is_none() && number > 1) {
            return Err(corrupt(path, 0, "the header is missing"));
        }
        self.tail.segments.remove(&number);
        self.torn = None;
        self.unbegun = Some(path.to_owned());
        Ok(())
    }

    /// Takes away what a crash left unfinished. Only now, when everything else was found whole.
    fn tidy_up(&self) -> Result<(), StartError> {
        let fs = &*self.options.env.fs;
        if let Some(path) = &self.unbegun {
            let removed = fs.remove(path).and_then(|()| fs.sync_dir(&self.options.dir));
            removed.map_err(|source| StartError::Io { path: path.clone(), source })?;
        }
        if let (Some(path), Some(active)) = (&self.torn, &self.active) {
            tracing::warn!(file = %path.display(), active.position, "cut the unfinished end of the metadata log");
            let cut = active.file.set_length(active.position);
            let cut =
                cut.and_then(|()| active.file.preallocate(self.options.segment_bytes.max(active.position)));
            cut.and_then(|()| active.file.sync_data())
                .map_err(|source| StartError::Io { path: path.clone(), source })?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame, segment: u64, position: usize) -> Result<(), String> {
        let records = frame.records().map_err(|error| error.to_string())?;
        for (offset, record) in records {
            self.standing.note(&record);
            match record {
                Record::Segment(header) if position == 0 => self.header(header, segment)?,
                Record::Segment(_) => return Err("a header lies in the middle".to_owned()),
                _ if self.next_sequence.is_none() => return Err("the header is missing".to_owned()),
                Record::Entry(entry) => {
                    let length = crate::codec::entry_length(&entry);
                    let frame_length = frame.length();
                    let place = Place { segment, frame: position as u64, frame_length, offset, length };
                    self.entry(entry, place)?;
                }
                Record::Vote(vote) => self.tail.vote = Some(vote),
                Record::Truncate(last) => {
                    if last > self.tail.last() {
                        return Err("the log is cut where it does not reach".to_owned());
                    }
                    self.tail.truncate(last);
                }
                Record::Purge(upto) => self.tail.purge(upto),
                Record::Committed(id) => self.tail.committed = Some(id),
            }
        }
        let next = frame.sequence.checked_add(1).ok_or("its frame numbers are exhausted")?;
        self.next_sequence = Some(next);
        Ok(())
    }

    fn header(&mut self, header: SegmentHeader, number: u64) -> Result<(), String> {
        if header.node != self.options.node.get() {
            return Err(format!("it belongs to node {}, not to node {}", header.node, self.options.node));
        }
        if header.number != number {
            return Err(format!("it is segment {}, not segment {number}", header.number));
        }
        if self.next_sequence.is_none() {
            self.standing = header.standing;
            self.tail.begin_after(header.standing.last);
            self.tail.purged = header.standing.purged;
            self.tail.committed = header.standing.committed;
            self.tail.vote = header.standing.vote;
        } else if header.standing != self.standing {
            return Err("it does not go on where the file before it ends".to_owned());
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, place: Place) -> Result<(), String> {
        let (id, last) = (entry.log_id, self.tail.last());
        if id.index() != self.tail.next_index() || Some(id) <= last {
            return Err(format!("entry {id} does not follow entry {last:?}"));
        }
        let file = self.tail.segments.get_mut(&place.segment).expect("the segment is being read");
        file.last_index = file.last_index.max(Some(id.index()));
        // The bytes of the file are let go after it was read.
        self.tail.append(crate::codec::unshared(entry), Some(place));
        Ok(())
    }

    /// The first file of a new log.
    fn begin(mut self) -> Result<Recovered, StartError> {
        self.tidy_up()?;
        let dir = &self.options.dir;
        let standing = Standing::default();
        let header = SegmentHeader { node: self.options.node.get(), number: 1, standing };
        let active = begin_segment(&*self.options.env.fs, dir, self.options.segment_bytes, header, 1)
            .map_err(|source| StartError::Io { path: segment_path(dir, 1), source })?;
        let segment = Segment { file: active.file.clone(), last_index: None, bytes: active.position };
        self.tail.segments.insert(1, segment);
        Ok(Recovered { tail: self.tail, writer: WriterState { active, next_sequence: 2, standing } })
    }

    fn finish(mut self) -> Result<Recovered, StartError> {
        let dir = &self.options.dir;
        if self.active.is_none() {
            return self.begin();
        }
        let kept_from = self.tail.purged.map_or(0, |purged| purged.index() + 1);
        let begins = self.tail.first_index();
        if begins != kept_from {
            let first = self.tail.segments.keys().next().copied().unwrap_or(1);
            let problem = format!("entries {kept_from} to {} are missing", begins.saturating_sub(1));
            return Err(corrupt(&segment_path(dir, first), 0, &problem));
        }
        self.tidy_up()?;
        let active = self.active.take().expect("checked above");
        // A leader may note a commit that its followers made durable before its own disk did.
        self.tail.committed = self.tail.committed.min(self.tail.last());
        let next_sequence = self.next_sequence.expect("an active segment has a header");
        let writer = WriterState { active, next_sequence, standing: self.standing };
        Ok(Recovered { tail: self.tail, writer })
    }
}

fn corrupt(file: &Path, position: usize, problem: &str) -> StartError {
    let (file, problem) = (file.to_owned(), problem.to_owned());
    StartError::Corrupt { file, position: position as u64, problem, fix: RESTORE_OR_REPLACE }
}
