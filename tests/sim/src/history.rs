//! What clients saw, as `streamhouse-check` judges it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use streamhouse_check::History as Written;
use streamhouse_check::{
    Acknowledged, Event, FinalRead, Happened, Header, LogIndex, Memory, Micros, OpId, OutOfRange, Poll,
    Recorder, Report, Restart, Sending,
};
use streamhouse_client::ReadToken;

#[derive(Debug, Default)]
struct Tally {
    sent: AtomicUsize,
    acked: AtomicUsize,
    maybe: AtomicUsize,
    failed: AtomicUsize,
    read: AtomicUsize,
}

/// A history that is being written. Clones write the same one.
#[derive(Debug, Clone)]
pub(crate) struct History {
    recorder: Recorder,
    memory: Memory,
    tally: Arc<Tally>,
    newest: Arc<AtomicU64>,
}

impl History {
    pub(crate) fn new(note: String) -> Self {
        let memory = Memory::default();
        let clock = || {
            let now = turmoil::sim_elapsed().unwrap_or_default();
            Micros::new(u64::try_from(now.as_micros()).expect("a short run"))
        };
        let header = Header { note, ..Header::default() };
        let recorder = Recorder::new(memory.clone(), &header, clock).expect("memory takes everything");
        Self { recorder, memory, tally: Arc::default(), newest: Arc::default() }
    }

    pub(crate) fn now(&self) -> Micros {
        self.recorder.now()
    }

    /// To be called before the first byte leaves.
    pub(crate) fn append(&self, sending: &Sending<'_>) -> OpId {
        tracing::trace!(?sending, "append");
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        self.recorder.append(sending)
    }

    pub(crate) fn acked(&self, op: OpId, acknowledged: Acknowledged) {
        tracing::trace!(?op, ?acknowledged, "acked");
        self.tally.acked.fetch_add(1, Ordering::Relaxed);
        if let Some(token) = acknowledged.token {
            self.newest.fetch_max(token.get(), Ordering::Relaxed);
        }
        self.recorder.acked(op, acknowledged);
    }

    /// The newest token of any acknowledgement.
    pub(crate) fn newest_token(&self) -> ReadToken {
        ReadToken::new(self.newest.load(Ordering::Relaxed))
    }

    pub(crate) fn failed(&self, op: OpId, happened: Happened, error: &str) {
        tracing::trace!(?op, ?happened, error, "failed");
        let tally = if happened == Happened::No { &self.tally.failed } else { &self.tally.maybe };
        tally.fetch_add(1, Ordering::Relaxed);
        self.recorder.failed(op, happened, error);
    }

    pub(crate) fn poll(&self, poll: Poll<'_>) {
        tracing::trace!(?poll, "poll");
        self.tally.read.fetch_add(poll.records.len(), Ordering::Relaxed);
        self.recorder.record(&Event::Poll(poll));
    }

    pub(crate) fn out_of_range(&self, told: OutOfRange<'_>) {
        tracing::trace!(?told, "out of range");
        self.recorder.record(&Event::OutOfRange(told));
    }

    /// What a client saw that is neither an append nor a read.
    pub(crate) fn record(&self, event: &Event<'_>) {
        tracing::trace!(?event, "saw");
        self.recorder.record(event);
    }

    /// The consumer forgets its positions.
    pub(crate) fn restart(&self, consumer: &str) {
        self.recorder.record(&Event::Restart(Restart { consumer: consumer.into(), at: self.now() }));
    }

    pub(crate) fn final_read(&self) {
        self.recorder.record(&Event::FinalRead(FinalRead { at: self.now() }));
    }

    /// Records sent, acknowledged, uncertain, surely failed, read.
    pub(crate) fn counts(&self) -> [usize; 5] {
        let Tally { sent, acked, maybe, failed, read } = &*self.tally;
        [sent, acked, maybe, failed, read].map(|count| count.load(Ordering::Relaxed))
    }

    /// Ends the history and judges it.
    pub(crate) fn judge(&self) -> Vec<String> {
        if let Err(error) = self.recorder.finish() {
            return vec![format!("the history cannot be ended: {error}")];
        }
        // Faults end, and clients go on until they are done: a history in which nothing came to be proves nothing.
        let [sent, acked, _, _, read] = self.counts();
        if acked == 0 || read == 0 {
            return vec![format!("of {sent} records {acked} were acknowledged and {read} read")];
        }
        match Written::check(self.memory.bytes().as_slice()) {
            Ok(report) if report.is_clean() => Vec::new(),
            Ok(report) => faults(&report),
            Err(error) => vec![format!("the history cannot be read: {error}")],
        }
    }

    /// Writes what there is to a file.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.memory.bytes())
    }
}

/// The token as a history holds it; none when the server gave none.
pub(crate) fn written(token: ReadToken) -> Option<LogIndex> {
    (token > ReadToken::default()).then(|| LogIndex::new(token.get()))
}

fn faults(report: &Report) -> Vec<String> {
    let text = report.to_string();
    vec![format!("the history is not clean:\n{text}")]
}
