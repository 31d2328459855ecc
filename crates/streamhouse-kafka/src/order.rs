//! What a connection's requests are done in the order of.

use futures::FutureExt as _;
use futures::future::Shared;
use tokio::sync::oneshot;

use crate::codec::Request;

/// Has the requests of a connection done as if one came after the other, as a client may rely on that sends one before
/// the one ahead is answered: what it reads or changes it reads or changes after those changes.
///
/// Writes go side by side among themselves, since their batches are handed over in their order. What may wait for
/// long, a fetch, a join or a sync, waits for those ahead and holds up nobody; a sign of life does neither.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Ends when the last request that is neither a write nor waits for long is done.
    last: Option<Done>,
    /// Ends when the last write after that one is, and with it those before.
    written: Option<Done>,
}

type Done = Shared<oneshot::Receiver<()>>;

/// A request's turn; dropping it makes way for those that wait for it.
#[derive(Debug)]
pub(crate) struct Turn {
    before: [Option<Done>; 2],
    _done: Option<oneshot::Sender<()>>,
}

impl Order {
    /// The turn of a request.
    pub(crate) fn next(&mut self, request: &Request) -> Turn {
        match request {
            Request::Heartbeat(_) => Turn { before: [None, None], _done: None },
            Request::Fetch(_) | Request::JoinGroup(_) | Request::SyncGroup(_) => {
                Turn { before: [self.last.clone(), self.written.clone()], _done: None }
            }
            Request::Produce(_) => {
                let (done, written) = oneshot::channel();
                self.written = Some(written.shared());
                Turn { before: [self.last.clone(), None], _done: Some(done) }
            }
            _ => {
                let (done, last) = oneshot::channel();
                let before = [self.last.replace(last.shared()), self.written.take()];
                Turn { before, _done: Some(done) }
            }
        }
    }
}

impl Turn {
    /// Waits until those before are done, in whatever way. Cancel-safe.
    pub(crate) async fn comes(&mut self) {
        for before in &mut self.before {
            if let Some(done) = before {
                // Nothing is ever sent.
                let _done = done.await;
            }
            *before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ProduceQuery;

    fn is_next(turn: &mut Turn) -> bool {
        turn.comes().now_or_never().is_some()
    }

    #[test]
    fn a_turn_comes_when_those_before_are_done_in_whatever_way() {
        let mut order = Order::default();
        let commit = Request::OffsetCommit(Default::default());
        let [mut first, mut second, mut third] = [(); 3].map(|()| order.next(&commit));
        assert!(is_next(&mut order.next(&Request::Heartbeat(Default::default()))));
        assert!(is_next(&mut first) && !is_next(&mut second) && !is_next(&mut third));
        drop(first);
        assert!(is_next(&mut second) && !is_next(&mut third));
        drop(second);
        assert!(is_next(&mut third) && is_next(&mut third));
    }

    #[test]
    fn writes_go_side_by_side_and_the_rest_waits_for_them() {
        let mut order = Order::default();
        let write = || {
            let topics = Vec::new();
            Request::Produce(ProduceQuery { transactional_id: None, acks: -1, timeout_ms: 0, topics })
        };
        let (mut first, mut second) = (order.next(&write()), order.next(&write()));
        assert!(is_next(&mut first) && is_next(&mut second));
        let mut drops = order.next(&Request::DeleteRecords(Default::default()));
        let mut third = order.next(&write());
        drop(first);
        assert!(!is_next(&mut drops) && !is_next(&mut third));
        drop(second);
        assert!(is_next(&mut drops) && !is_next(&mut third));
        drop(drops);
        assert!(is_next(&mut third));
    }

    #[test]
    fn what_may_wait_for_long_waits_for_those_ahead_and_holds_up_nobody() {
        let mut order = Order::default();
        let create = order.next(&Request::CreateTopics(Default::default()));
        let mut join = order.next(&Request::JoinGroup(Default::default()));
        let mut sync = order.next(&Request::SyncGroup(Default::default()));
        assert!(!is_next(&mut join) && !is_next(&mut sync));
        drop(create);
        assert!(is_next(&mut join) && is_next(&mut order.next(&Request::Metadata(Default::default()))));
    }
}
