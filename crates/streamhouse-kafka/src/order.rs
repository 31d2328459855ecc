//! What a connection's requests are done in the order of.

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Api;
use crate::connection::{Answer, Reply};

/// Has the requests of a connection done as if one came after the other, as a client may rely on that sends one before
/// the one ahead is answered: what it reads or changes it reads or changes after those changes.
///
/// Writes go side by side among themselves, since their batches are handed over in their order. What may wait for
/// long, a fetch, a join or a sync, waits for those ahead and holds up nobody once it waits; until a fetch has read what
/// is there, nothing behind it changes that. A sign of life neither waits nor holds up.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Ends when the last request that is neither a write nor waits for long is done.
    last: Option<Done>,
    /// Ends when the last write after that one is, and with it those before.
    written: Option<Done>,
    /// The fetches after that one, until they have read.
    fetches: TaskTracker,
}

type Done = Shared<BoxFuture<'static, ()>>;

/// One to say it, and any number to wait for it: for ever, when it is never said.
fn done() -> (oneshot::Sender<()>, Done) {
    let (said, heard) = oneshot::channel();
    let wait = async {
        if heard.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    (said, wait.boxed().shared())
}

/// A request's turn. Those that wait for it never come when it is dropped before it is done: nobody knows then what has
/// happened, and the connection ends.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    before: [Option<Done>; 3],
    done: Option<oneshot::Sender<()>>,
    /// Held by a fetch that has not read. One that fails has changed nothing, and whoever waits for it goes on.
    reading: Option<TaskTrackerToken>,
}

impl Order {
    /// The turn of a request.
    pub(crate) fn next(&mut self, api: Api) -> Turn {
        let (last, written) = (self.last.clone(), self.written.clone());
        match api {
            Api::Heartbeat => Turn::default(),
            Api::Fetch => {
                let reading = Some(self.fetches.token());
                Turn { before: [last, written, None], reading, ..Turn::default() }
            }
            Api::JoinGroup | Api::SyncGroup => Turn { before: [last, written, None], ..Turn::default() },
            Api::Produce => {
                let (done, written) = done();
                self.written = Some(written);
                Turn { before: [last, None, None], done: Some(done), ..Turn::default() }
            }
            _ => {
                let (done, next) = done();
                (self.last, self.written) = (Some(next), None);
                let fetches = std::mem::take(&mut self.fetches);
                fetches.close();
                let fetched = async move { fetches.wait().await }.boxed().shared();
                Turn { before: [last, written, Some(fetched)], done: Some(done), ..Turn::default() }
            }
        }
    }
}

impl Turn {
    /// Waits until those before are done. Cancel-safe.
    pub(crate) async fn comes(&mut self) {
        for before in &mut self.before {
            if let Some(done) = before {
                done.await;
            }
            *before = None;
        }
    }

    /// The fetch has read what was there, or waits for what is not.
    pub(crate) fn read(&mut self) {
        self.reading = None;
    }

    /// The request has this answer. One that ends the connection is the last that is done.
    pub(crate) fn answered(self, answer: &Answer) {
        if !matches!(answer.reply, Reply::End) {
            self.done();
        }
    }

    /// The request is done.
    pub(crate) fn done(mut self) {
        if let Some(done) = self.done.take() {
            // Nobody may wait for it.
            let _unheard = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_next(turn: &mut Turn) -> bool {
        turn.comes().now_or_never().is_some()
    }

    #[test]
    fn a_turn_comes_when_those_before_are_done() {
        let mut order = Order::default();
        let [mut first, mut second, mut third] = [(); 3].map(|()| order.next(Api::OffsetCommit));
        assert!(is_next(&mut order.next(Api::Heartbeat)));
        assert!(is_next(&mut first) && !is_next(&mut second) && !is_next(&mut third));
        first.done();
        assert!(is_next(&mut second) && !is_next(&mut third));
        second.done();
        assert!(is_next(&mut third) && is_next(&mut third));
    }

    #[test]
    fn after_one_that_was_given_up_nothing_comes() {
        let mut order = Order::default();
        let (first, mut second) = (order.next(Api::OffsetCommit), order.next(Api::DeleteTopics));
        drop(first);
        assert!(!is_next(&mut second) && !is_next(&mut second));
    }

    #[test]
    fn writes_go_side_by_side_and_the_rest_waits_for_them() {
        let mut order = Order::default();
        let (mut first, mut second) = (order.next(Api::Produce), order.next(Api::Produce));
        assert!(is_next(&mut first) && is_next(&mut second));
        let mut drops = order.next(Api::DeleteRecords);
        let mut third = order.next(Api::Produce);
        first.done();
        assert!(!is_next(&mut drops) && !is_next(&mut third));
        second.done();
        assert!(is_next(&mut drops) && !is_next(&mut third));
        drops.done();
        assert!(is_next(&mut third));
    }

    #[test]
    fn a_change_waits_until_the_fetches_ahead_have_read_and_they_wait_for_none_behind() {
        let mut order = Order::default();
        let (mut first, mut second) = (order.next(Api::Fetch), order.next(Api::Fetch));
        let mut drops = order.next(Api::DeleteRecords);
        let mut third = order.next(Api::Fetch);
        assert!(is_next(&mut first) && is_next(&mut second));
        first.read();
        assert!(!is_next(&mut drops));
        // It has failed.
        drop(second);
        assert!(is_next(&mut drops) && !is_next(&mut third));
        drops.done();
        assert!(is_next(&mut third) && is_next(&mut order.next(Api::Produce)));
        assert!(!is_next(&mut order.next(Api::DeleteTopics)));
    }

    #[test]
    fn what_may_wait_for_long_waits_for_those_ahead_and_holds_up_nobody() {
        let mut order = Order::default();
        let create = order.next(Api::CreateTopics);
        let (mut join, mut sync) = (order.next(Api::JoinGroup), order.next(Api::SyncGroup));
        assert!(!is_next(&mut join) && !is_next(&mut sync));
        create.done();
        assert!(is_next(&mut join) && is_next(&mut order.next(Api::Metadata)));
    }
}
