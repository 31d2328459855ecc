//! The newest applied entries of this node, for readers that follow it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_types::LogIndex;
use tokio::sync::watch;

use crate::readers::{ReaderTold, ReaderView};

/// Bytes of commands that are kept; who is further behind gets a snapshot.
const KEPT_BYTES: usize = 8 << 20;
/// What an entry counts beside its bytes.
const ENTRY_BYTES: usize = 64;

/// The newest applied entries, and which readers follow them. Clones share everything.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    newest: watch::Sender<LogIndex>,
    /// The readers that follow this node, by number of the stream.
    followers: Mutex<BTreeMap<u64, Follower>>,
}

/// A reader that follows this node.
#[derive(Debug, Default)]
struct Follower {
    /// What died at or before this index is not read by it.
    pinned: LogIndex,
    applied: LogIndex,
    heard: Duration,
    told: Option<ReaderTold>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Index of the last entry before the first one kept.
    before: u64,
    /// `None` where the entry carries no command.
    entries: VecDeque<Option<Bytes>>,
    bytes: usize,
}

/// Entries behind an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The last entry that it brings the reader to.
    pub(crate) last: LogIndex,
    /// Those that carry commands, in order.
    pub(crate) commands: Vec<(LogIndex, Bytes)>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Arc::new(Shared {
            ring: Mutex::default(),
            newest: watch::Sender::new(LogIndex::ZERO),
            followers: Mutex::default(),
        }))
    }
}

impl Ring {
    fn begin_after(&mut self, index: LogIndex) {
        *self = Self { before: index.get(), ..Self::default() };
    }

    fn push(&mut self, index: LogIndex, command: Option<Bytes>) {
        let next = self.before + self.entries.len() as u64 + 1;
        if index.get() != next {
            self.begin_after(LogIndex::new(index.get().saturating_sub(1)));
        }
        self.bytes += ENTRY_BYTES + command.as_ref().map_or(0, Bytes::len);
        self.entries.push_back(command);
        while self.bytes > KEPT_BYTES && self.entries.len() > 1 {
            let oldest = self.entries.pop_front().expect("more than one entry is kept");
            self.bytes -= ENTRY_BYTES + oldest.map_or(0, |command| command.len());
            self.before += 1;
        }
    }

    /// The entries behind `index`, about `bytes` of them; `None` when some of them are gone.
    fn after(&self, index: LogIndex, bytes: usize) -> Option<Stretch> {
        let skip = usize::try_from(index.get().checked_sub(self.before)?).ok()?;
        let mut stretch = Stretch { last: index, commands: Vec::new() };
        let mut taken = 0;
        for (place, command) in self.entries.iter().enumerate().skip(skip) {
            if taken >= bytes {
                break;
            }
            stretch.last = LogIndex::new(self.before + place as u64 + 1);
            if let Some(command) = command {
                taken += command.len() + ENTRY_BYTES;
                stretch.commands.push((stretch.last, command.clone()));
            }
        }
        Some(stretch)
    }
}

impl Feed {
    /// An entry was applied; `None` when it carries no command.
    pub fn applied(&self, index: LogIndex, command: Option<&Bytes>) {
        self.0.ring.lock().push(index, command.cloned());
        self.0.newest.send_replace(index);
    }

    /// The whole state was replaced by that after `index`.
    pub fn replaced(&self, index: LogIndex) {
        self.0.ring.lock().begin_after(index);
        self.0.newest.send_replace(index);
    }

    pub(crate) fn newest(&self) -> watch::Receiver<LogIndex> {
        self.0.newest.subscribe()
    }

    /// The entries behind `index`, about `bytes` of them; `None` when some of them are gone.
    pub(crate) fn after(&self, index: LogIndex, bytes: usize) -> Option<Stretch> {
        self.0.ring.lock().after(index, bytes)
    }

    /// Keeps what a reader may read of from deletion, until the guard goes. It begins at 0: nothing at all is deleted
    /// before the reader has said where it stands.
    pub(crate) fn pin(&self, stream: u64) -> ReaderPin {
        self.0.followers.lock().insert(stream, Follower::default());
        ReaderPin { feed: self.clone(), stream }
    }

    /// What died at or before this index is read by no reader that follows this node; `None` when none does.
    #[must_use]
    pub fn pinned(&self) -> Option<LogIndex> {
        self.0.followers.lock().values().map(|follower| follower.pinned).min()
    }

    /// Those that follow this node and have said who they are.
    pub(crate) fn readers(&self, now: Duration) -> Vec<ReaderView> {
        let view = |follower: &Follower| {
            let silent = now.saturating_sub(follower.heard);
            Some(ReaderView { told: follower.told.clone()?, applied: follower.applied, silent })
        };
        self.0.followers.lock().values().filter_map(view).collect()
    }
}

/// The place of a reader that follows this node.
#[derive(Debug)]
pub(crate) struct ReaderPin {
    feed: Feed,
    stream: u64,
}

impl ReaderPin {
    /// The reader says who it is.
    pub(crate) fn introduce(&self, told: Option<ReaderTold>, now: Duration) {
        let mut followers = self.feed.0.followers.lock();
        let follower = followers.entry(self.stream).or_default();
        (follower.told, follower.heard) = (told, now);
    }

    /// The reader says how far it is, and that it reads nothing that died at or before `pinned`. That never goes back.
    pub(crate) fn advance(&self, pinned: LogIndex, applied: LogIndex, now: Duration) {
        let mut followers = self.feed.0.followers.lock();
        let follower = followers.entry(self.stream).or_default();
        follower.pinned = follower.pinned.max(pinned);
        (follower.applied, follower.heard) = (applied, now);
    }
}

impl Drop for ReaderPin {
    fn drop(&mut self) {
        self.feed.0.followers.lock().remove(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_types::NodeId;

    use super::*;

    fn index(number: u64) -> LogIndex {
        LogIndex::new(number)
    }

    fn command(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_reader_gets_what_is_behind_its_index_and_a_snapshot_when_that_is_gone() {
        let feed = Feed::default();
        feed.replaced(index(10));
        feed.applied(index(11), Some(&command("a")));
        feed.applied(index(12), None);
        feed.applied(index(13), Some(&command("b")));
        let all = feed.after(index(10), 1 << 20).expect("kept");
        assert_eq!(all.commands, [(index(11), command("a")), (index(13), command("b"))]);
        assert_eq!(all.last, index(13));
        let one = feed.after(index(10), 1).expect("kept");
        assert_eq!((one.last, one.commands.len()), (index(11), 1));
        assert_eq!(feed.after(index(13), 1 << 20).expect("nothing new").last, index(13));
        assert_eq!(feed.after(index(9), 1 << 20), None, "what was before is gone");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let feed = Feed::default();
        let large = Bytes::from(vec![0; 1 << 20]);
        for number in 1..=20 {
            feed.applied(index(number), Some(&large));
        }
        assert_eq!(feed.after(index(1), 1), None);
        assert!(feed.after(index(15), 1).is_some());
    }

    #[test]
    fn a_reader_pins_everything_until_it_says_where_it_stands_and_nothing_once_it_is_gone() {
        let feed = Feed::default();
        assert_eq!(feed.pinned(), None);
        let (first, second) = (feed.pin(1), feed.pin(2));
        let advance = |pin: &ReaderPin, to| pin.advance(index(to), index(to + 1), Duration::from_secs(to));
        advance(&first, 9);
        assert_eq!(feed.pinned(), Some(index(0)));
        advance(&second, 7);
        advance(&second, 3);
        assert_eq!(feed.pinned(), Some(index(7)));
        assert_eq!(feed.readers(Duration::from_secs(4)), [], "they have not said who they are");
        let told = ReaderTold {
            node: NodeId::new(9),
            version: "1.0.0".to_owned(),
            zone: String::new(),
            grpc: "127.0.0.1:9094".to_owned(),
        };
        second.introduce(Some(told.clone()), Duration::from_secs(3));
        let view = ReaderView { told, applied: index(4), silent: Duration::from_secs(1) };
        assert_eq!(feed.readers(Duration::from_secs(4)), [view]);
        drop(second);
        assert_eq!(feed.pinned(), Some(index(9)));
        drop(first);
        assert_eq!(feed.pinned(), None);
    }
}
