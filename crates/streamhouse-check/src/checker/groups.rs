//! C12: what was committed for a group never goes back by itself, and who is of an older generation commits nothing.

use std::collections::BTreeMap;

use super::staircase::{Staircase, Step};
use super::{Checker, in_order, position};
use crate::event::{Commit, CommitOutcome, Committed, Micros, Seek};
use crate::history::Refusal;
use crate::report::{Anomaly, Violation};

/// What is known of one group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The newest generation that anybody was of, by time.
    generations: Staircase,
    /// By partition, the highest offset that was acknowledged or told, by time.
    offsets: BTreeMap<u32, Staircase>,
}

/// Part of one answer.
#[derive(Debug, Clone, Copy)]
struct Answer {
    group: u32,
    partition: u32,
    begin: Micros,
    end: Micros,
    /// 0 when nothing is committed.
    offset: u64,
}

impl Checker {
    pub(super) fn commit(&mut self, event: &Commit<'_>) -> Result<(), Refusal> {
        let offset = position(event.offset)?;
        let answer = self.group_answer(&event.group, &event.partition, (event.begin, event.end), offset)?;
        if event.outcome == CommitOutcome::Done {
            self.judge_generation(answer, event.generation);
            self.judge_offset(answer, "an acknowledged commit");
        }
        Ok(())
    }

    pub(super) fn committed(&mut self, event: &Committed<'_>) -> Result<(), Refusal> {
        let offset = event.offset.map_or(Ok(0), position)?;
        let answer = self.group_answer(&event.group, &event.partition, (event.begin, event.end), offset)?;
        let point = answer.end.get();
        let step = Step { point, value: event.generation, line: self.line };
        self.groups[answer.group as usize].generations.raise(step);
        self.judge_offset(answer, "a question for what is committed");
        Ok(())
    }

    pub(super) fn seek(&mut self, event: &Seek<'_>) -> Result<(), Refusal> {
        let (group, partition) = (self.group(&event.group)?, self.partition(&event.partition)?);
        self.groups[group as usize].offsets.remove(&partition);
        Ok(())
    }

    fn group_answer(
        &mut self,
        group: &str,
        partition: &str,
        (begin, end): (Micros, Micros),
        offset: u64,
    ) -> Result<Answer, Refusal> {
        in_order(begin, end)?;
        let (group, partition) = (self.group(group)?, self.partition(partition)?);
        Ok(Answer { group, partition, begin, end, offset })
    }

    /// The number of this group, which is made if it is new.
    fn group(&mut self, name: &str) -> Result<u32, Refusal> {
        let number = self.group_names.number(name)?;
        if number as usize == self.groups.len() {
            self.groups.push(Group::default());
        }
        Ok(number)
    }

    /// A commit that began after somebody was of a newer generation is not acknowledged.
    fn judge_generation(&mut self, answer: Answer, generation: u64) {
        let line = self.line;
        let stairs = &mut self.groups[answer.group as usize].generations;
        let newer = stairs.before(answer.begin.get()).filter(|newer| newer.value > generation);
        stairs.raise(Step { point: answer.end.get(), value: generation, line });
        self.tally.judged(Anomaly::FencedCommit, 1);
        let Some(newer) = newer else { return };
        let (group, partition) =
            (self.group_names.name(answer.group), self.partition_names.name(answer.partition));
        self.tally.wrong(Anomaly::FencedCommit, 1, || {
            let text = format!(
                "generation {generation} of group {group} commits offset {} of {partition}, after one of generation {} \
                 was answered",
                answer.offset, newer.value
            );
            let violation = Violation::new(Anomaly::FencedCommit, partition, text);
            violation.offsets(answer.offset..answer.offset + 1).line(newer.line).line(line)
        });
    }

    /// What began after an offset was acknowledged or told ends with that one or a higher one.
    fn judge_offset(&mut self, answer: Answer, what: &str) {
        let line = self.line;
        let stairs = self.groups[answer.group as usize].offsets.entry(answer.partition).or_default();
        let before = stairs.before(answer.begin.get()).filter(|before| before.value > answer.offset);
        stairs.raise(Step { point: answer.end.get(), value: answer.offset, line });
        self.tally.judged(Anomaly::CommitBack, 1);
        let Some(before) = before else { return };
        let (group, partition) =
            (self.group_names.name(answer.group), self.partition_names.name(answer.partition));
        self.tally.wrong(Anomaly::CommitBack, 1, || {
            let text = format!(
                "{what} of group {group} ends with offset {} of {partition}, after {} had been committed",
                answer.offset, before.value
            );
            let violation = Violation::new(Anomaly::CommitBack, partition, text);
            violation.offsets(answer.offset..before.value).line(before.line).line(line)
        });
    }
}
