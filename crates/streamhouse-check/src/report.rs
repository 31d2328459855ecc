//! What the checks found.

use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

/// Something that must not be in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// One offset, two records.
    InconsistentOffset,
    /// An offset below the end that no record has.
    Gap,
    /// Acknowledged, and not there at the end.
    Unseen,
    /// Acknowledged, and not there although later ones are.
    LostWrite,
    /// Read, and never sent.
    Phantom,
    /// Read, though its error had said that it did not happen.
    FailedWriteSeen,
    /// One record at two offsets.
    Duplicate,
    /// A producer's later record before its earlier one.
    ProducerOrder,
    /// A consumer was given an offset that it was past.
    NonmonotonicPoll,
    /// A consumer was led past offsets that are there.
    PollSkip,
    /// A consumer was told that an offset does not exist that does.
    FalseOutOfRange,
    /// A node's high watermark went back.
    HighWatermarkBack,
    /// A node's log start went back, or lies beyond its high watermark.
    LogStartBack,
    /// A log start moved though nobody asked for it.
    LogStartUnasked,
    /// A read that presented a token did not see what the token stands for.
    StaleTokenRead,
    /// An append that began after another had ended has the smaller offset.
    RealTimeOrder,
    /// A committed offset of a group went back by itself.
    CommitBack,
    /// A member of an older generation committed.
    FencedCommit,
    /// Another value at the offset than the one that was written there.
    AlteredValue,
    /// The object store does not hold what the metadata says.
    BucketAudit,
}

impl Anomaly {
    /// All of them, in the order of the checks.
    pub const ALL: [Self; 20] = [
        Self::InconsistentOffset,
        Self::Gap,
        Self::Unseen,
        Self::LostWrite,
        Self::Phantom,
        Self::FailedWriteSeen,
        Self::Duplicate,
        Self::ProducerOrder,
        Self::NonmonotonicPoll,
        Self::PollSkip,
        Self::FalseOutOfRange,
        Self::HighWatermarkBack,
        Self::LogStartBack,
        Self::LogStartUnasked,
        Self::StaleTokenRead,
        Self::RealTimeOrder,
        Self::CommitBack,
        Self::FencedCommit,
        Self::AlteredValue,
        Self::BucketAudit,
    ];

    /// The check that finds it; one check may find several kinds.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "C1",
            Self::Gap => "C2",
            Self::Unseen => "C3",
            Self::LostWrite => "C4",
            Self::Phantom | Self::FailedWriteSeen => "C5",
            Self::Duplicate => "C6",
            Self::ProducerOrder => "C7",
            Self::NonmonotonicPoll | Self::PollSkip | Self::FalseOutOfRange => "C8",
            Self::HighWatermarkBack | Self::LogStartBack | Self::LogStartUnasked => "C9",
            Self::StaleTokenRead => "C10",
            Self::RealTimeOrder => "C11",
            Self::CommitBack | Self::FencedCommit => "C12",
            Self::AlteredValue => "C14",
            Self::BucketAudit => "C15",
        }
    }

    /// Its name in reports. Never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "inconsistent-offset",
            Self::Gap => "gap",
            Self::Unseen => "unseen",
            Self::LostWrite => "lost-write",
            Self::Phantom => "phantom",
            Self::FailedWriteSeen => "failed-write-seen",
            Self::Duplicate => "duplicate",
            Self::ProducerOrder => "producer-order",
            Self::NonmonotonicPoll => "nonmonotonic-poll",
            Self::PollSkip => "poll-skip",
            Self::FalseOutOfRange => "false-out-of-range",
            Self::HighWatermarkBack => "high-watermark-back",
            Self::LogStartBack => "log-start-back",
            Self::LogStartUnasked => "log-start-unasked",
            Self::StaleTokenRead => "stale-token-read",
            Self::RealTimeOrder => "real-time-order",
            Self::CommitBack => "commit-back",
            Self::FencedCommit => "fenced-commit",
            Self::AlteredValue => "altered-value",
            Self::BucketAudit => "bucket-audit",
        }
    }

    /// What is promised instead, in a few words.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "an offset names one record for ever",
            Self::Gap => "every offset below the end has a record",
            Self::Unseen => "what was acknowledged is there at the end",
            Self::LostWrite => "what was acknowledged is there when later records are",
            Self::Phantom => "what is read was sent",
            Self::FailedWriteSeen => "what did not happen is never read",
            Self::Duplicate => "an idempotent producer's record is there once",
            Self::ProducerOrder => "a producer's records keep their order",
            Self::NonmonotonicPoll => "a consumer never goes back",
            Self::PollSkip => "a consumer misses nothing",
            Self::FalseOutOfRange => "out of range is said of such offsets only",
            Self::HighWatermarkBack => "a node's high watermark never goes back",
            Self::LogStartBack => "a node's log start never goes back",
            Self::LogStartUnasked => "a log start moves when somebody wants it to",
            Self::StaleTokenRead => "a read sees what its token stands for",
            Self::RealTimeOrder => "what is sent after an acknowledgement comes behind it",
            Self::CommitBack => "a group's committed offset never goes back by itself",
            Self::FencedCommit => "a member of an older generation commits nothing",
            Self::AlteredValue => "a value comes back as it was written",
            Self::BucketAudit => "the store holds what metadata says, and nothing unexplained",
        }
    }

    const fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Anomaly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Of which kind.
    pub anomaly: Anomaly,
    /// The partition, where there is one.
    pub partition: Option<String>,
    /// The offsets concerned, from `start` to before `end`.
    pub offsets: Option<Range<u64>>,
    /// The producers whose records are concerned.
    pub producers: Vec<String>,
    /// Lines of the history that show it; the first line is 1.
    pub lines: Vec<u64>,
    /// What is wrong, for a person.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(anomaly: Anomaly, partition: &str, text: String) -> Self {
        let partition = Some(partition.to_owned());
        Self { anomaly, partition, offsets: None, producers: Vec::new(), lines: Vec::new(), text }
    }

    pub(crate) fn offsets(mut self, offsets: Range<u64>) -> Self {
        self.offsets = Some(offsets);
        self
    }

    pub(crate) fn producer(mut self, name: &str) -> Self {
        if !self.producers.iter().any(|known| known == name) {
            self.producers.push(name.to_owned());
        }
        self
    }

    pub(crate) fn line(mut self, line: u32) -> Self {
        let line = u64::from(line);
        if let Err(place) = self.lines.binary_search(&line) {
            self.lines.insert(place, line);
        }
        self
    }
}

/// How much a history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Lines behind the header.
    pub events: u64,
    /// Records that were to be appended.
    pub appended: u64,
    /// Of those, the acknowledged ones.
    pub acked: u64,
    /// Of those, the ones that surely did not happen.
    pub not_happened: u64,
    /// Of those, the ones that may have happened: told so, or never answered.
    pub unknown: u64,
    /// Answers to reads.
    pub polls: u64,
    /// Records in them.
    pub read: u64,
    /// Partitions.
    pub partitions: u64,
    /// Producers.
    pub producers: u64,
    /// Consumers.
    pub consumers: u64,
    /// Nodes that are named.
    pub nodes: u64,
    /// Final reads.
    pub final_reads: u64,
}

/// What one check says of one anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The check, such as `C4`.
    pub check: &'static str,
    /// What it looks for.
    pub anomaly: Anomaly,
    /// How many cases it had to judge. 0: the history has nothing that shows it, and the check says nothing.
    pub judged: u64,
    /// How many of them are wrong.
    pub violations: u64,
}

/// What a history shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing at all is wrong.
    pub clean: bool,
    /// Whether the history has its last line. Without it the recorder did not end in good order, and nobody knows what
    /// is missing.
    pub complete: bool,
    /// How much there was.
    pub counts: Counts,
    /// One for each kind of anomaly, in the order of [`Anomaly::ALL`].
    pub verdicts: Vec<Verdict>,
    /// What is wrong, the first [`Report::SHOWN`] of each kind.
    pub violations: Vec<Violation>,
}

impl Report {
    /// How many violations of one kind a report describes; the others are counted.
    pub const SHOWN: usize = 20;

    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.clean
    }

    /// The verdict on one kind of anomaly.
    #[must_use]
    pub fn verdict(&self, anomaly: Anomaly) -> Verdict {
        self.verdicts[anomaly.place()]
    }

    /// How many violations of this kind there are.
    #[must_use]
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.verdict(anomaly).violations
    }

    /// How many violations there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.violations).fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { events, appended, acked, not_happened, unknown, polls, read, .. } = self.counts;
        match self.total() {
            0 => write!(f, "no violation in {events} events")?,
            1 => write!(f, "1 violation in {events} events")?,
            total => write!(f, "{total} violations in {events} events")?,
        }
        let Counts { partitions, producers, consumers, nodes, final_reads, .. } = self.counts;
        writeln!(
            f,
            ": {appended} records appended ({acked} acknowledged, {not_happened} not happened, {unknown} unknown),"
        )?;
        writeln!(
            f,
            "{read} read in {polls} polls and {final_reads} final reads; {partitions} partitions, {producers} \
             producers, {consumers} consumers, {nodes} nodes"
        )?;
        if !self.complete {
            writeln!(
                f,
                "the history has no last line: its recorder did not end in good order, and more may have happened"
            )?;
        }
        for Verdict { check, anomaly, judged, violations } in &self.verdicts {
            let said = match (judged, violations) {
                (0, 0) => "nothing to judge".to_owned(),
                (judged, 0) => format!("ok, {judged} judged"),
                (judged, violations) => format!("VIOLATED {violations} times, {judged} judged"),
            };
            writeln!(f, "  {check:<4} {anomaly:<20} {said}")?;
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        for Verdict { anomaly, violations, .. } in &self.verdicts {
            let shown = self.violations.iter().filter(|violation| violation.anomaly == *anomaly).count();
            let more = violations.saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
            if more > 0 && shown >= Self::SHOWN {
                writeln!(f, "{anomaly}: and more; {violations} in all")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.anomaly.check(), self.anomaly, self.text)?;
        let (last, before) = match self.lines.split_last() {
            None => return Ok(()),
            Some((last, [])) => return write!(f, " (line {last})"),
            Some(all) => all,
        };
        let before: Vec<String> = before.iter().map(u64::to_string).collect();
        write!(f, " (lines {} and {last})", before.join(", "))
    }
}

/// Counts violations and keeps the first of each kind.
#[derive(Debug)]
pub(crate) struct Tally {
    verdicts: Vec<Verdict>,
    shown: [usize; Anomaly::ALL.len()],
    violations: Vec<Violation>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let verdict =
            |anomaly: Anomaly| Verdict { check: anomaly.check(), anomaly, judged: 0, violations: 0 };
        Self {
            verdicts: Anomaly::ALL.into_iter().map(verdict).collect(),
            shown: [0; Anomaly::ALL.len()],
            violations: Vec::new(),
        }
    }

    /// So many cases were looked at.
    pub(crate) fn judged(&mut self, anomaly: Anomaly, cases: u64) {
        let judged = &mut self.verdicts[anomaly.place()].judged;
        *judged = judged.saturating_add(cases);
    }

    /// So many of them are wrong. `describe` is asked only while there is room.
    pub(crate) fn wrong(&mut self, anomaly: Anomaly, cases: u64, describe: impl FnOnce() -> Violation) {
        let violations = &mut self.verdicts[anomaly.place()].violations;
        *violations = violations.saturating_add(cases);
        if self.shown[anomaly.place()] < Report::SHOWN {
            self.shown[anomaly.place()] += 1;
            self.violations.push(describe());
        }
    }

    /// The report on a history that has its last line.
    pub(crate) fn report(self, counts: Counts) -> Report {
        let Self { verdicts, mut violations, .. } = self;
        violations.sort_by_key(|violation| violation.anomaly);
        let clean = verdicts.iter().all(|verdict| verdict.violations == 0);
        Report { clean, complete: true, counts, verdicts, violations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_places_under_names_of_their_own() {
        for (place, anomaly) in Anomaly::ALL.into_iter().enumerate() {
            assert_eq!(anomaly.place(), place);
            assert!(Anomaly::ALL[..place].iter().all(|other| other.name() != anomaly.name()));
        }
    }

    #[test]
    fn violations_are_counted_beyond_what_is_shown() {
        let mut tally = Tally::new();
        for offset in 0..50 {
            tally.judged(Anomaly::LostWrite, 2);
            tally.wrong(Anomaly::LostWrite, 1, || Violation {
                anomaly: Anomaly::LostWrite,
                partition: Some("t/0".to_owned()),
                offsets: Some(offset..offset + 1),
                producers: Vec::new(),
                lines: vec![3, 9],
                text: format!("offset {offset} is lost"),
            });
        }
        let report = Report { complete: false, ..tally.report(Counts::default()) };
        assert!(!report.is_clean());
        assert_eq!(report.verdict(Anomaly::LostWrite).judged, 100);
        assert_eq!((report.total(), report.violations.len()), (50, Report::SHOWN));
        let text = report.to_string();
        assert!(text.contains("C4 lost-write: offset 0 is lost (lines 3 and 9)"), "{text}");
        assert!(text.contains("lost-write: and more; 50 in all"), "{text}");
        assert!(text.contains("no last line"), "{text}");
    }
}
