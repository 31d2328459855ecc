//! What a connection's requests are done in the order of.

use tokio::sync::oneshot;

use crate::codec::Request;

/// Has what is said of a group's offsets done in the order in which it was said: two commits on their way must not
/// overtake each other, nor a lookup or a farewell the commit before it. Joining stands apart, since it may wait for
/// minutes, and so do signs of life.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Ends when the last one is done.
    last: Option<oneshot::Receiver<()>>,
}

/// A request's turn; dropping it makes way for the next.
#[derive(Debug)]
pub(crate) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Order {
    /// The turn of a request, when it has to wait for one.
    pub(crate) fn next(&mut self, request: &Request) -> Option<Turn> {
        let keeps = matches!(
            request,
            Request::OffsetCommit(_)
                | Request::OffsetFetch(_)
                | Request::OffsetDelete(_)
                | Request::LeaveGroup(_)
        );
        keeps.then(|| {
            let (done, last) = oneshot::channel();
            Turn { before: self.last.replace(last), _done: done }
        })
    }
}

impl Turn {
    /// Waits until those before are done, in whatever way. Cancel-safe.
    pub(crate) async fn comes(&mut self) {
        if let Some(before) = &mut self.before {
            // Nothing is ever sent.
            let _done = before.await;
        }
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_those_before_are_done_in_whatever_way() {
        let mut order = Order::default();
        let commit = Request::OffsetCommit(Default::default());
        let turns = [(); 3].map(|()| order.next(&commit).expect("a turn"));
        assert!(order.next(&Request::Heartbeat(Default::default())).is_none());
        assert!(order.next(&Request::JoinGroup(Default::default())).is_none());
        let [mut first, mut second, mut third] = turns;
        first.comes().await;
        assert!(second.comes().now_or_never().is_none() && third.comes().now_or_never().is_none());
        drop(first);
        second.comes().await;
        assert!(third.comes().now_or_never().is_none());
        drop(second);
        third.comes().await;
        third.comes().await;
    }
}
