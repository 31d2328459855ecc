//! What consumers are given, written down for the checker, some hundred records at once.

use std::collections::BTreeMap;

use streamhouse_check::{Digest, Event, LogIndex, Micros, Poll, Recorder, Restart};
use streamhouse_client::{ConsumedRecord, Offset, PartitionIndex, PartitionProgress, ReadToken};

/// One reading of a topic.
pub(crate) struct Reading {
    recorder: Recorder,
    consumer: String,
    topic: String,
    token: ReadToken,
    polls: BTreeMap<PartitionIndex, Part>,
}

/// What was read of a partition and is not written down yet.
struct Part {
    begin: Micros,
    records: Vec<(Offset, Digest)>,
    high_watermark: Option<Offset>,
}

/// The token as a history holds it; none when the server gave none.
pub(crate) fn written(token: ReadToken) -> Option<LogIndex> {
    (token > ReadToken::default()).then(|| LogIndex::new(token.get()))
}

impl Reading {
    const RECORDS: usize = 500;

    /// `consumer` begins to read a topic anew, at least as new as the token.
    pub(crate) fn begin(recorder: &Recorder, consumer: &str, topic: &str, token: ReadToken) -> Self {
        recorder.record(&Event::Restart(Restart { consumer: consumer.into(), at: recorder.now() }));
        Self {
            recorder: recorder.clone(),
            consumer: consumer.into(),
            topic: topic.into(),
            token,
            polls: BTreeMap::new(),
        }
    }

    pub(crate) fn take(
        &mut self,
        record: &ConsumedRecord,
        progress: &BTreeMap<PartitionIndex, PartitionProgress>,
    ) {
        let new = || Part { begin: self.recorder.now(), records: Vec::new(), high_watermark: None };
        let part = self.polls.entry(record.partition).or_insert_with(new);
        part.records.push((record.offset, Digest::of(record.value.as_deref().unwrap_or_default())));
        part.high_watermark = progress.get(&record.partition).map(|progress| progress.high_watermark);
        if part.records.len() >= Self::RECORDS {
            self.write(record.partition);
        }
    }

    /// Writes down what has been read so far.
    pub(crate) fn write_all(&mut self) {
        while let Some(partition) = self.polls.keys().next().copied() {
            self.write(partition);
        }
    }

    fn write(&mut self, partition: PartitionIndex) {
        let Some(Part { begin, records, high_watermark }) = self.polls.remove(&partition) else { return };
        let (name, end) = (format!("{}/{partition}", self.topic), self.recorder.now());
        let token = written(self.token);
        let poll = Poll { records, high_watermark, token, ..Poll::empty(&self.consumer, &name, begin, end) };
        self.recorder.record(&Event::Poll(poll));
    }
}
