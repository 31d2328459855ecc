//! What consumers say: that they were given these records, or that their position does not exist.

use streamhouse_types::LogIndex;

use super::appends::Key;
use super::log::Value;
use super::nodes::Said;
use super::{Checker, in_order, position};
use crate::event::{Digest, OutOfRange, Poll, Restart};
use crate::history::Refusal;
use crate::report::{Anomaly, Violation};

/// A consumer in a partition.
#[derive(Debug, Clone, Copy)]
struct Reader {
    consumer: u32,
    partition: u32,
}

/// What every record that is read is judged for.
const READ: [Anomaly; 6] = [
    Anomaly::InconsistentOffset,
    Anomaly::Phantom,
    Anomaly::FailedWriteSeen,
    Anomaly::AlteredValue,
    Anomaly::NonmonotonicPoll,
    Anomaly::PollSkip,
];

impl Checker {
    pub(super) fn poll(&mut self, event: &Poll<'_>) -> Result<(), Refusal> {
        in_order(event.begin, event.end)?;
        let partition = self.partition(&event.partition)?;
        let reader = Reader { consumer: self.consumers.number(&event.consumer)?, partition };
        let said = Said {
            begin: event.begin,
            end: event.end,
            high_watermark: event.high_watermark.map(position).transpose()?,
            log_start: event.log_start.map(position).transpose()?,
        };
        self.hear(event.node, partition, said);
        if let (Some(token), Some(high_watermark)) = (event.token, said.high_watermark) {
            self.judge_token(reader, token, high_watermark);
        }
        let mut next = self.positions.get(&(reader.consumer, partition)).copied();
        if let Some(from) = event.from.map(position).transpose()? {
            self.judge_step(reader, next, from);
            next = Some(from);
        }
        let records = event.records.len() as u64;
        for anomaly in READ {
            self.tally.judged(anomaly, records);
        }
        for (offset, digest) in &event.records {
            let offset = position(*offset)?;
            self.judge_step(reader, next, offset);
            next = Some(offset + 1);
            self.read(partition, offset, *digest);
        }
        if let Some(next) = next {
            self.positions.insert((reader.consumer, partition), next);
        }
        self.counts.polls += 1;
        self.counts.read += records;
        Ok(())
    }

    pub(super) fn out_of_range(&mut self, event: &OutOfRange<'_>) -> Result<(), Refusal> {
        in_order(event.begin, event.end)?;
        let partition = self.partition(&event.partition)?;
        let reader = Reader { consumer: self.consumers.number(&event.consumer)?, partition };
        let (high_watermark, log_start) = (position(event.high_watermark)?, position(event.log_start)?);
        let (begin, end) = (event.begin, event.end);
        self.hear(
            event.node,
            partition,
            Said { begin, end, high_watermark: Some(high_watermark), log_start: Some(log_start) },
        );
        if let Some(token) = event.token {
            self.judge_token(reader, token, high_watermark);
        }
        self.tally.judged(Anomaly::FalseOutOfRange, 1);
        let asked = position(event.position)?;
        let acked = self.partitions[partition as usize].acks.before(begin.get());
        let read = self.positions.get(&(reader.consumer, partition)).copied();
        // Who says "too far" must not be behind what was acknowledged or read before the question.
        let known_end = acked.map_or(0, |step| step.value + 1).max(read.unwrap_or(0));
        let contradicts_itself = (log_start..=high_watermark).contains(&asked);
        let stale = asked > high_watermark && asked <= known_end;
        if contradicts_itself || stale {
            let (line, name) = (self.line, self.partition_names.name(partition));
            let consumer = self.consumers.name(reader.consumer);
            self.tally.wrong(Anomaly::FalseOutOfRange, 1, || {
                let text = format!(
                    "consumer {consumer} was told that offset {asked} of {name} is out of range {log_start} to \
                     {high_watermark}, though records up to {known_end} were known"
                );
                let violation = Violation::new(Anomaly::FalseOutOfRange, name, text).offsets(asked..asked + 1);
                acked.into_iter().fold(violation, |violation, step| violation.line(step.line)).line(line)
            });
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, event: &Restart<'_>) -> Result<(), Refusal> {
        let consumer = self.consumers.number(&event.consumer)?;
        let positions = self.positions.range((consumer, 0)..=(consumer, u32::MAX));
        let forgotten: Vec<_> = positions.map(|(reader, _)| *reader).collect();
        for reader in forgotten {
            self.positions.remove(&reader);
        }
        Ok(())
    }

    /// C10: what the token stands for is seen.
    fn judge_token(&mut self, reader: Reader, token: LogIndex, high_watermark: u64) {
        let tokens = &self.partitions[reader.partition as usize].tokens;
        let Some(owed) = tokens.before(token.get().saturating_add(1)) else { return };
        self.tally.judged(Anomaly::StaleTokenRead, 1);
        if high_watermark >= owed.value {
            return;
        }
        let (line, name) = (self.line, self.partition_names.name(reader.partition));
        let consumer = self.consumers.name(reader.consumer);
        self.tally.wrong(Anomaly::StaleTokenRead, 1, || {
            let text = format!(
                "consumer {consumer} presented token {token} and saw {name} up to {high_watermark}, the token stands \
                 for offsets up to {}",
                owed.value
            );
            let violation = Violation::new(Anomaly::StaleTokenRead, name, text);
            violation.offsets(high_watermark..owed.value).line(owed.line).line(line)
        });
    }

    /// C8: from one offset to the next, neither back nor over records that are there.
    fn judge_step(&mut self, reader: Reader, next: Option<u64>, offset: u64) {
        let Some(next) = next.filter(|next| *next != offset) else { return };
        let partition = &self.partitions[reader.partition as usize];
        // What was dropped is skipped rightly.
        if next < offset && offset <= partition.gone_before() {
            return;
        }
        let (line, name) = (self.line, self.partition_names.name(reader.partition));
        let consumer = self.consumers.name(reader.consumer);
        if next < offset {
            self.tally.wrong(Anomaly::PollSkip, 1, || {
                let text = format!("consumer {consumer} went on in {name} from {next} to {offset}");
                Violation::new(Anomaly::PollSkip, name, text).offsets(next..offset).line(line)
            });
        } else {
            self.tally.wrong(Anomaly::NonmonotonicPoll, 1, || {
                let text =
                    format!("consumer {consumer} was to go on in {name} at {next} and went back to {offset}");
                Violation::new(Anomaly::NonmonotonicPoll, name, text).offsets(offset..next).line(line)
            });
        }
    }

    /// One record is read: C1, C5, C6, C14.
    fn read(&mut self, partition: u32, offset: u64, digest: Digest) {
        let key = Key::new(partition, digest);
        let log = &mut self.partitions[partition as usize].log;
        match log.value(offset) {
            Value::Of(there) if self.appends.key(there) == key => {}
            Value::Of(there) => match self.appends.find(key) {
                Some(claimed) => self.blame_two_records(partition, offset, (there, claimed)),
                None => self.blame_altered(partition, offset, there, Some(digest)),
            },
            Value::Empty => match self.appends.find(key) {
                Some(append) => self.settle(partition, append, offset),
                None => self.blame_phantom(partition, offset, digest),
            },
            Value::Foreign => self.judge_foreign(partition, offset, digest),
        }
        if self.reading {
            let partition = &mut self.partitions[partition as usize];
            partition.log.set_read(offset);
            partition.read_end = partition.read_end.max(offset + 1);
        }
    }

    fn blame_phantom(&mut self, partition: u32, offset: u64, digest: Digest) {
        self.partitions[partition as usize].log.set(offset, Value::Foreign);
        self.foreign.insert((partition, offset), digest);
        let (line, name) = (self.line, self.partition_names.name(partition));
        self.tally.wrong(Anomaly::Phantom, 1, || {
            let text = format!("offset {offset} of {name} was read as {digest}, which nobody had sent");
            Violation::new(Anomaly::Phantom, name, text).offsets(offset..offset + 1).line(line)
        });
    }

    /// A value that nobody sent was seen here before; now this one is.
    fn judge_foreign(&mut self, partition: u32, offset: u64, digest: Digest) {
        let known = self.foreign.get(&(partition, offset)).copied();
        if known == Some(digest) {
            return;
        }
        let (line, name) = (self.line, self.partition_names.name(partition));
        self.tally.wrong(Anomaly::InconsistentOffset, 1, || {
            let known = known.map_or_else(|| "otherwise".to_owned(), |known| known.to_string());
            let text = format!("offset {offset} of {name} was read as {known}, and also as {digest}");
            Violation::new(Anomaly::InconsistentOffset, name, text).offsets(offset..offset + 1).line(line)
        });
    }
}
