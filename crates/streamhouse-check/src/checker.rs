//! The checks. One pass, one step for each event; what is kept of a record is about 40 bytes.
//!
//! Here is what producers say. `reads.rs` holds what consumers say, `groups.rs` what groups of them say, `nodes.rs` what
//! nodes and the store say, `closing.rs` what can be judged when all is read.

mod appends;
mod closing;
mod groups;
mod log;
mod names;
mod nodes;
mod reads;
mod staircase;

use std::collections::BTreeMap;

use streamhouse_types::{LogIndex, NodeId, Offset};

use crate::event::{Acked, Append, Digest, End, Event, Failed, Happened, Header, Micros, OpId, Trim};
use crate::history::Refusal;
use crate::report::{Anomaly, Counts, Report, Tally, Violation};
use appends::{AppendNo, Appends, Mark, NewAppend};
use groups::Group;
use log::{Log, Value};
use names::Names;
use nodes::NodeView;
use staircase::{Staircase, Step};

/// Judges a history event by event, in the order of its lines.
#[derive(Debug)]
pub struct Checker {
    header: Header,
    /// The line of the event that is looked at; the header is line 1.
    line: u32,
    complete: bool,
    /// Whether a final read is under way.
    reading: bool,
    counts: Counts,
    tally: Tally,
    clients: Names,
    producers: Names,
    consumers: Names,
    partition_names: Names,
    partitions: Vec<Partition>,
    appends: Appends,
    /// Appends without an outcome so far.
    open: BTreeMap<(u32, OpId), OpenAppend>,
    /// By producer and partition, the newest sequence number.
    sequences: BTreeMap<(u32, u32), u64>,
    /// Values that nobody sent, by partition and offset.
    foreign: BTreeMap<(u32, u64), Digest>,
    /// By consumer and partition, the offset that comes next.
    positions: BTreeMap<(u32, u32), u64>,
    nodes: BTreeMap<(NodeId, u32), NodeView>,
    group_names: Names,
    groups: Vec<Group>,
}

/// What is known of one partition.
#[derive(Debug, Default)]
struct Partition {
    log: Log,
    /// The highest offset acknowledged, by time.
    acks: Staircase,
    /// The end of what is acknowledged, by read token.
    tokens: Staircase,
    /// The highest log start that anybody saw.
    log_start: u64,
    /// The highest offset before which a trim was asked for.
    trimmed: u64,
    /// The end of what the final read saw.
    read_end: u64,
}

impl Partition {
    /// Records before this offset may be gone.
    fn gone_before(&self) -> u64 {
        self.log_start.max(self.trimmed)
    }
}

/// An append that nobody has answered yet.
#[derive(Debug, Clone, Copy)]
struct OpenAppend {
    at: Micros,
    partition: u32,
    first: AppendNo,
    records: u32,
}

impl Checker {
    /// A checker that has seen the first line and nothing else.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self {
            header: header.clone(),
            line: 1,
            complete: false,
            reading: false,
            counts: Counts::default(),
            tally: Tally::new(),
            clients: Names::default(),
            producers: Names::default(),
            consumers: Names::default(),
            partition_names: Names::default(),
            partitions: Vec::new(),
            appends: Appends::default(),
            open: BTreeMap::new(),
            sequences: BTreeMap::new(),
            foreign: BTreeMap::new(),
            positions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            group_names: Names::default(),
            groups: Vec::new(),
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When it makes no sense. The history cannot be judged then, and the checker is of no more use.
    pub fn observe(&mut self, event: &Event<'_>) -> Result<(), Refusal> {
        self.line = self.line.checked_add(1).ok_or(Refusal::TooMany { what: "lines" })?;
        if self.complete {
            return Err(Refusal::BadValue { what: "nothing may follow the last line" });
        }
        match event {
            Event::Append(event) => self.append(event)?,
            Event::Acked(event) => self.acked(event)?,
            Event::Failed(event) => self.failed(event)?,
            Event::Poll(event) => self.poll(event)?,
            Event::OutOfRange(event) => self.out_of_range(event)?,
            Event::Restart(event) => self.restart(event)?,
            Event::Trim(event) => self.trim(event)?,
            Event::FinalRead(_) => self.begin_final_read(),
            Event::Observed(event) => self.observed(event)?,
            Event::Audit(event) => self.audit(event),
            Event::Commit(event) => self.commit(event)?,
            Event::Committed(event) => self.committed(event)?,
            Event::Seek(event) => self.seek(event)?,
            Event::End(end) => return self.end(*end),
        }
        self.counts.events += 1;
        Ok(())
    }

    /// The verdict on all that was taken.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.end_final_read();
        self.judge_order();
        let counts = Counts {
            unknown: self.counts.appended - self.counts.acked - self.counts.not_happened,
            partitions: self.partition_names.count(),
            producers: self.producers.count(),
            consumers: self.consumers.count(),
            nodes: self.node_count(),
            ..self.counts
        };
        Report { complete: self.complete, ..self.tally.report(counts) }
    }

    /// Bytes of memory that grow with the records: about 40 for each that is appended and acknowledged.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.appends.bytes() + self.partitions.iter().map(|partition| partition.log.bytes()).sum::<usize>()
    }

    fn end(&mut self, end: End) -> Result<(), Refusal> {
        if end.events != self.counts.events {
            return Err(Refusal::WrongCount { said: end.events, found: self.counts.events });
        }
        self.complete = true;
        Ok(())
    }

    fn append(&mut self, event: &Append<'_>) -> Result<(), Refusal> {
        // Who appends is not done yet: what was read so far was all there was.
        self.end_final_read();
        let client = self.clients.number(&event.client)?;
        let producer = self.producers.number(&event.producer)?;
        let partition = self.partition(&event.partition)?;
        let too_many = Refusal::BadValue { what: "an append has 1 to 1,000,000 values" };
        let records =
            u32::try_from(event.values.len()).ok().filter(|records| (1..=1_000_000).contains(records));
        let records = records.ok_or(too_many)?;
        self.take_sequence(event, (producer, partition), records)?;
        let mut first = None;
        for digest in &event.values {
            let idempotent = event.idempotent;
            let new = NewAppend { partition, digest: *digest, producer, idempotent, line: self.line };
            let added = self.appends.add(new);
            let append = added.map_err(|refused| refused.into_refusal(*digest, &event.partition))?;
            first.get_or_insert(append);
        }
        let first = first.expect("there is a value at least");
        let open = OpenAppend { at: event.at, partition, first, records };
        if self.open.insert((client, event.op), open).is_some() {
            return Err(Refusal::RepeatedOp { client: event.client.to_string(), op: event.op.get() });
        }
        self.counts.appended += u64::from(records);
        Ok(())
    }

    fn take_sequence(&mut self, event: &Append<'_>, who: (u32, u32), records: u32) -> Result<(), Refusal> {
        let newest = event.sequence.checked_add(u64::from(records) - 1);
        let newest = newest.ok_or(Refusal::BadValue { what: "sequence numbers end at 2^64" })?;
        match self.sequences.insert(who, newest) {
            Some(last) if last >= event.sequence => Err(Refusal::SequenceBack {
                producer: event.producer.to_string(),
                partition: event.partition.to_string(),
                sequence: event.sequence,
                last,
            }),
            _ => Ok(()),
        }
    }

    fn close(&mut self, client: &str, op: OpId, at: Micros) -> Result<OpenAppend, Refusal> {
        let number = self.clients.number(client)?;
        let unknown = || Refusal::UnknownOp { client: client.to_owned(), op: op.get() };
        let open = self.open.remove(&(number, op)).ok_or_else(unknown)?;
        if at < open.at {
            return Err(Refusal::BadValue { what: "an operation ends before it began" });
        }
        Ok(open)
    }

    fn acked(&mut self, event: &Acked<'_>) -> Result<(), Refusal> {
        let open = self.close(&event.client, event.op, event.at)?;
        let first = position(event.offset)?;
        let last = position(Offset::new(first + u64::from(open.records) - 1))?;
        self.judge_real_time(&open, first);
        let line = self.line;
        let partition = &mut self.partitions[open.partition as usize];
        partition.acks.raise(Step { point: event.at.get(), value: last, line });
        // Token 0 stands for nothing at all.
        if let Some(token) = event.token.filter(|token| *token > LogIndex::ZERO) {
            partition.tokens.raise(Step { point: token.get(), value: last + 1, line });
        }
        for record in 0..open.records {
            let append = open.first.after(record);
            self.appends.mark(append, Mark::Acked);
            if event.retried {
                self.appends.mark(append, Mark::MayRepeat);
            } else if self.appends.is(append, Mark::Twice) && !self.appends.is(append, Mark::Idempotent) {
                let first_place = self.appends.place(append).unwrap_or_default();
                self.blame_duplicate(open.partition, append, (first_place, first + u64::from(record)));
            }
            self.ack_record(open.partition, append, first + u64::from(record));
        }
        self.counts.acked += u64::from(open.records);
        Ok(())
    }

    /// C11: what began after an acknowledgement was there comes behind it.
    fn judge_real_time(&mut self, open: &OpenAppend, offset: u64) {
        self.tally.judged(Anomaly::RealTimeOrder, 1);
        let before = self.partitions[open.partition as usize].acks.before(open.at.get());
        let Some(before) = before.filter(|before| before.value >= offset) else { return };
        let (line, begun) = (self.line, self.appends.line(open.first));
        let name = self.partition_names.name(open.partition);
        let producer = self.producers.name(self.appends.producer(open.first));
        self.tally.wrong(Anomaly::RealTimeOrder, 1, || {
            let text = format!(
                "an append of producer {producer} to {name} got offset {offset}, though it began after offset {} was \
                 acknowledged",
                before.value
            );
            let violation = Violation::new(Anomaly::RealTimeOrder, name, text).offsets(offset..before.value + 1);
            violation.producer(producer).line(before.line).line(begun).line(line)
        });
    }

    /// One acknowledged record takes its offset.
    fn ack_record(&mut self, partition: u32, append: AppendNo, offset: u64) {
        self.tally.judged(Anomaly::InconsistentOffset, 1);
        match self.partitions[partition as usize].log.value(offset) {
            Value::Of(other) if other != append => {
                return self.blame_two_records(partition, offset, (other, append));
            }
            Value::Of(_) => {}
            Value::Foreign => {
                let digest = self.foreign.remove(&(partition, offset));
                self.blame_altered(partition, offset, append, digest);
                self.settle(partition, append, offset);
            }
            Value::Empty => self.settle(partition, append, offset),
        }
        let log = &mut self.partitions[partition as usize].log;
        log.set_acked(offset);
        if self.reading {
            // Acknowledged while everything is read: the read may have been past it.
            log.set_read(offset);
        }
    }

    fn failed(&mut self, event: &Failed<'_>) -> Result<(), Refusal> {
        let open = self.close(&event.client, event.op, event.at)?;
        for record in 0..open.records {
            let append = open.first.after(record);
            match event.happened {
                Happened::Maybe => self.appends.mark(append, Mark::MayRepeat),
                Happened::No => {
                    self.appends.mark(append, Mark::Failed);
                    if let Some(offset) = self.appends.place(append) {
                        self.blame_failed(open.partition, append, offset);
                    }
                }
            }
        }
        if event.happened == Happened::No {
            self.counts.not_happened += u64::from(open.records);
        }
        Ok(())
    }

    fn trim(&mut self, event: &Trim<'_>) -> Result<(), Refusal> {
        let number = self.partition(&event.partition)?;
        let before = position(event.before)?;
        let partition = &mut self.partitions[number as usize];
        partition.trimmed = partition.trimmed.max(before);
        Ok(())
    }

    /// A record is seen at an offset that was empty: it lies there from now on.
    fn settle(&mut self, partition: u32, append: AppendNo, offset: u64) {
        self.partitions[partition as usize].log.set(offset, Value::Of(append));
        self.tally.judged(Anomaly::Duplicate, 1);
        if self.appends.is(append, Mark::Failed) {
            self.blame_failed(partition, append, offset);
        }
        let Some(first) = self.appends.place(append) else {
            return self.appends.set_place(append, offset);
        };
        if first == offset {
            return;
        }
        self.appends.mark(append, Mark::Twice);
        // Without idempotence a second try may be there as well, as long as there may have been one.
        let is = |mark| self.appends.is(append, mark);
        if is(Mark::Idempotent) || is(Mark::Acked) && !is(Mark::MayRepeat) {
            self.blame_duplicate(partition, append, (first, offset));
        }
    }

    fn blame_duplicate(&mut self, partition: u32, append: AppendNo, offsets: (u64, u64)) {
        let (first, second) = offsets;
        let text = format!(
            "one record lies at offsets {first} and {second} of {}",
            self.partition_names.name(partition)
        );
        self.blame(Anomaly::Duplicate, (partition, second), append, text);
    }

    fn blame_failed(&mut self, partition: u32, append: AppendNo, offset: u64) {
        let name = self.partition_names.name(partition);
        let text =
            format!("offset {offset} of {name} holds a record whose error said that it did not happen");
        self.blame(Anomaly::FailedWriteSeen, (partition, offset), append, text);
    }

    fn blame_altered(&mut self, partition: u32, offset: u64, written: AppendNo, read: Option<Digest>) {
        let written_value = self.appends.key(written).digest(partition);
        let name = self.partition_names.name(partition);
        let read = read.map_or_else(|| "another".to_owned(), |digest| digest.to_string());
        let text = format!(
            "offset {offset} of {name} was read as {read}, what was written there is {written_value}"
        );
        self.blame(Anomaly::AlteredValue, (partition, offset), written, text);
    }

    fn blame_two_records(&mut self, partition: u32, offset: u64, records: (AppendNo, AppendNo)) {
        let [there, claimed] = [records.0, records.1].map(|append| {
            let producer = self.producers.name(self.appends.producer(append));
            format!("the record of producer {producer} that line {} sends", self.appends.line(append))
        });
        let name = self.partition_names.name(partition);
        let text = format!("offset {offset} of {name} holds {there}, and also {claimed}");
        let also = self.producers.name(self.appends.producer(records.1));
        let (line, sent) = (self.line, [records.0, records.1].map(|append| self.appends.line(append)));
        let producer = self.producers.name(self.appends.producer(records.0));
        self.tally.wrong(Anomaly::InconsistentOffset, 1, || {
            let violation =
                Violation::new(Anomaly::InconsistentOffset, name, text).offsets(offset..offset + 1);
            violation.producer(producer).producer(also).line(sent[0]).line(sent[1]).line(line)
        });
    }

    /// Something is wrong with one record at one offset, as this line shows.
    fn blame(&mut self, anomaly: Anomaly, place: (u32, u64), append: AppendNo, text: String) {
        let (partition, offset) = place;
        let name = self.partition_names.name(partition);
        let producer = self.producers.name(self.appends.producer(append));
        let (sent, line) = (self.appends.line(append), self.line);
        self.tally.wrong(anomaly, 1, || {
            let violation = Violation::new(anomaly, name, text).offsets(offset..offset + 1);
            violation.producer(producer).line(sent).line(line)
        });
    }

    /// The number of this partition, which is made if it is new.
    fn partition(&mut self, name: &str) -> Result<u32, Refusal> {
        let number = self.partition_names.number(name)?;
        if number as usize == self.partitions.len() {
            self.partitions.push(Partition::default());
        }
        Ok(number)
    }
}

/// The raw offset, if it is one.
fn position(offset: Offset) -> Result<u64, Refusal> {
    if offset > Offset::MAX {
        return Err(Refusal::BadValue { what: "an offset is less than 2^63" });
    }
    Ok(offset.get())
}

/// An answer cannot come before its question.
fn in_order(begin: Micros, end: Micros) -> Result<(), Refusal> {
    if end < begin {
        return Err(Refusal::BadValue { what: "an operation ends before it began" });
    }
    Ok(())
}
