//! What the followers have acknowledged to the node that leads.
//!
//! A follower that comes back with less has lost what it once agreed to: its data directory is an older copy, or its disk
//! does not keep what it says it keeps. It is told with each request what it has acknowledged, and stops by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::Vote;

/// Up to which index each follower has acknowledged the log, in the leader's newest term. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Under which this node leads, or led last.
    vote: Option<Vote>,
    by_follower: BTreeMap<u64, u64>,
}

impl Acknowledged {
    /// A follower told the leader of `vote` that it has all up to `index`.
    pub(crate) fn note(&self, vote: Vote, follower: u64, index: u64) {
        let mut book = self.0.lock();
        if book.vote != Some(vote) {
            *book = Book { vote: Some(vote), by_follower: BTreeMap::new() };
        }
        let known = book.by_follower.entry(follower).or_default();
        *known = index.max(*known);
    }

    /// Up to where a follower has told the leader of `vote` that it has all; `None` when it has told nothing.
    pub(crate) fn of(&self, vote: Vote, follower: u64) -> Option<u64> {
        let book = self.0.lock();
        book.by_follower.get(&follower).filter(|_| book.vote == Some(vote)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_to_another_leader_does_not_count() {
        let (book, old, new) =
            (Acknowledged::default(), Vote::new_committed(1, 1), Vote::new_committed(2, 1));
        assert_eq!(book.of(old, 2), None);
        book.note(old, 2, 9);
        book.note(old, 2, 7);
        assert_eq!([book.of(old, 2), book.of(old, 3), book.of(new, 2)], [Some(9), None, None]);
        book.note(new, 3, 4);
        assert_eq!([book.of(old, 2), book.of(new, 2), book.of(new, 3)], [None, None, Some(4)]);
    }
}
