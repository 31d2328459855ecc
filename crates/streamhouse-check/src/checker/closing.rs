//! What can be judged only when everything is read: what is missing, and the order of what is there.

use std::ops::Range;

use super::appends::{AppendNo, Appends, Mark};
use super::log::{Entry, Value};
use super::names::Names;
use super::{Checker, Partition};
use crate::report::{Anomaly, Tally, Violation};

impl Checker {
    pub(super) fn begin_final_read(&mut self) {
        self.end_final_read();
        self.reading = true;
        self.counts.final_reads += 1;
        for partition in &mut self.partitions {
            partition.log.clear_read();
            partition.read_end = 0;
        }
    }

    /// C2, C3, C4: judges the final read that is under way, if there is one.
    pub(super) fn end_final_read(&mut self) {
        if !std::mem::take(&mut self.reading) {
            return;
        }
        for (number, partition) in (0..).zip(&self.partitions) {
            let name = self.partition_names.name(number);
            let scene = Scene {
                partition,
                name,
                appends: &self.appends,
                producers: &self.producers,
                line: self.line,
            };
            scene.judge_missing(&mut self.tally);
        }
    }

    /// C7: in each partition the records of a producer lie in the order in which they were sent.
    pub(super) fn judge_order(&mut self) {
        // By producer: the partition and the record seen last. A partition's entries outlive it harmlessly.
        let mut newest: Vec<Option<(u32, AppendNo, u64)>> = Vec::new();
        newest.resize(usize::try_from(self.producers.count()).expect("names are in memory"), None);
        for (number, partition) in (0..).zip(&self.partitions) {
            for Entry { offset, value, .. } in partition.log.entries() {
                let Value::Of(append) = value else { continue };
                if !keeps_order(&self.appends, append, offset) {
                    continue;
                }
                self.tally.judged(Anomaly::ProducerOrder, 1);
                let producer = self.appends.producer(append);
                let before = newest[producer as usize].replace((number, append, offset));
                let Some((_, later, earlier_offset)) =
                    before.filter(|(of, before, _)| *of == number && *before > append)
                else {
                    continue;
                };
                let (name, producer) = (self.partition_names.name(number), self.producers.name(producer));
                let lines = [append, later].map(|append| self.appends.line(append));
                self.tally.wrong(Anomaly::ProducerOrder, 1, || {
                    let text = format!(
                        "in {name} the record at offset {offset} was sent by producer {producer} before the one at \
                         offset {earlier_offset}"
                    );
                    let violation = Violation::new(Anomaly::ProducerOrder, name, text);
                    violation.offsets(earlier_offset..offset + 1).producer(producer).line(lines[0]).line(lines[1])
                });
            }
        }
    }
}

/// Whether the place of this record says something of its producer's order. A repeat does not; and a producer that is
/// not idempotent keeps order only among what it sent once.
fn keeps_order(appends: &Appends, append: AppendNo, offset: u64) -> bool {
    let is = |mark| appends.is(append, mark);
    let sent_once = is(Mark::Acked) && !is(Mark::MayRepeat) && !is(Mark::Twice);
    appends.place(append) == Some(offset) && (is(Mark::Idempotent) || sent_once)
}

/// One partition after a final read.
struct Scene<'a> {
    partition: &'a Partition,
    name: &'a str,
    appends: &'a Appends,
    producers: &'a Names,
    line: u32,
}

/// Neighbouring acknowledged records that are missing for the same reason.
struct Missing {
    anomaly: Anomaly,
    offsets: Range<u64>,
    first: Option<AppendNo>,
}

impl Scene<'_> {
    fn judge_missing(&self, tally: &mut Tally) {
        let (start, end) = (self.partition.gone_before(), self.partition.read_end);
        tally.judged(Anomaly::Gap, end.saturating_sub(start));
        let mut next = start;
        let mut missing: Option<Missing> = None;
        for entry in self.partition.log.entries().filter(|entry| entry.offset >= start) {
            if next < entry.offset.min(end) {
                self.blame_gap(next..entry.offset.min(end), tally);
            }
            next = entry.offset + 1;
            if !entry.acked {
                continue;
            }
            tally.judged(Anomaly::Unseen, 1);
            tally.judged(Anomaly::LostWrite, 1);
            if entry.read {
                continue;
            }
            let anomaly = if entry.offset < end { Anomaly::LostWrite } else { Anomaly::Unseen };
            match missing.as_mut().filter(|run| run.anomaly == anomaly && run.offsets.end == entry.offset) {
                Some(run) => run.offsets.end = next,
                None => {
                    let first = if let Value::Of(append) = entry.value { Some(append) } else { None };
                    let run = Missing { anomaly, offsets: entry.offset..next, first };
                    missing.replace(run).into_iter().for_each(|run| self.blame_missing(run, tally));
                }
            }
        }
        missing.into_iter().for_each(|run| self.blame_missing(run, tally));
    }

    fn blame_gap(&self, offsets: Range<u64>, tally: &mut Tally) {
        tally.wrong(Anomaly::Gap, 1, || {
            let (name, Range { start, end }) = (self.name, offsets.clone());
            let text = format!(
                "nothing lies in {name} from offset {start} to before {end}, though there are records behind"
            );
            Violation::new(Anomaly::Gap, name, text).offsets(offsets).line(self.line)
        });
    }

    fn blame_missing(&self, run: Missing, tally: &mut Tally) {
        let Missing { anomaly, offsets, first } = run;
        let Range { start, end } = offsets;
        tally.wrong(anomaly, end - start, || {
            let what = match anomaly {
                Anomaly::LostWrite => "and records behind them are",
                _ => "at the end of the partition",
            };
            let text = format!(
                "{} acknowledged records of {} are not read at the end, offsets {start} to before {end}, {what}",
                end - start,
                self.name
            );
            let violation = Violation::new(anomaly, self.name, text).offsets(start..end).line(self.line);
            let Some(first) = first else { return violation };
            violation.producer(self.producers.name(self.appends.producer(first))).line(self.appends.line(first))
        });
    }
}
