//! The open buffer: one for all partitions of the node. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::entry::{Entry, Waiter};
use crate::Session;

/// The batches that wait for the next flush, in the order of their coming.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    entries: VecDeque<Entry>,
    /// The sessions that wait for it.
    sessions: BTreeMap<u64, Session>,
}

impl Buffer {
    pub(crate) fn push(&mut self, entry: Entry) {
        let session = entry.waiter.session();
        self.sessions.entry(session.id()).or_insert_with(|| session.clone());
        self.entries.push_back(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no session that waits for the buffer can send more.
    pub(crate) fn windows_full(&self) -> bool {
        self.sessions.values().all(Session::is_full)
    }

    /// When the oldest batch was handed over.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.entries.front().map(|entry| entry.waiter.admitted())
    }

    /// Takes batches out, from the oldest on, until there are `most_bytes` of them, or `most` of them; at least one.
    pub(crate) fn take(&mut self, most_bytes: u64, most: usize) -> Vec<Entry> {
        let mut taken = Vec::with_capacity(self.entries.len());
        let (mut bytes, mut batches) = (0, 0);
        while bytes < most_bytes
            && batches < most
            && let Some(entry) = self.entries.pop_front()
        {
            bytes += entry.waiter.bytes();
            batches += entry.load.batches.len();
            taken.push(entry);
        }
        self.count_sessions();
        taken
    }

    /// Takes out what must not stay: those handed over before `before`, and those that fail with another batch.
    pub(crate) fn take_failed(&mut self, before: Option<Duration>) -> Vec<Waiter> {
        let (mut failed, mut kept) = (Vec::new(), VecDeque::with_capacity(self.entries.len()));
        for entry in self.entries.drain(..) {
            let late = before.is_some_and(|before| entry.waiter.admitted() <= before);
            if late || entry.waiter.must_fail() {
                // Failing it lets those of its session that follow fail as well.
                for (partition, _) in &entry.load.batches {
                    entry.waiter.session().fail(*partition);
                }
                failed.push(entry.waiter);
            } else {
                kept.push_back(entry);
            }
        }
        self.entries = kept;
        self.count_sessions();
        failed
    }

    fn count_sessions(&mut self) {
        self.sessions.clear();
        for entry in &self.entries {
            let session = entry.waiter.session();
            self.sessions.entry(session.id()).or_insert_with(|| session.clone());
        }
    }
}
