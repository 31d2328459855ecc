//! Asks the leader: to propose what came to a node that does not lead, and up to where a read must have applied.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use streamhouse_proto::internal as pb;
use streamhouse_types::{LogIndex, NodeId};
use tonic::{Code, ConnectError, Status};

use super::connector::{Client, Connector};
use super::convert;
use crate::propose::Fate;

/// Who leads, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) address: String,
}

/// What became of commands that were sent to another node.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// They were appended there; one fate for each, and the last index that has an outcome.
    Answered(Vec<Fate>, LogIndex),
    /// None of them was appended; perhaps by word of who leads.
    Refused(Option<Leader>),
    /// They were sent, and there is no answer.
    Lost,
}

/// Talks to whoever leads, over one connection that it keeps.
#[derive(Debug)]
pub(crate) struct Forwarder {
    connector: Connector,
    line: Mutex<Option<(String, Client)>>,
}

impl Forwarder {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, line: Mutex::new(None) }
    }

    /// Lets `leader` propose `commands`, which are small enough, once. Has no deadline of its own; dropped, it leaves open
    /// whether they were proposed.
    pub(crate) async fn propose(&self, leader: &Leader, commands: Vec<Bytes>) -> Forwarded {
        let Some(mut client) = self.client(&leader.address) else { return Forwarded::Refused(None) };
        let count = commands.len();
        let request = pb::ProposeRequest { to: leader.node.get(), commands };
        match client.propose(request).await {
            Ok(response) => convert::proposed_from(response.into_inner(), count),
            Err(status) => {
                self.give_up(&leader.address);
                if never_ran(&status) {
                    tracing::debug!(leader = %leader.node, %status, "the leader did not take a proposal");
                    Forwarded::Refused(None)
                } else {
                    Forwarded::Lost
                }
            }
        }
    }

    /// Asks up to where a current read must have applied; `None` when there is no such answer within `deadline`.
    pub(crate) async fn read_index(&self, leader: &Leader, deadline: Duration) -> Option<LogIndex> {
        let mut client = self.client(&leader.address)?;
        let answer = client.read_index(pb::ReadIndexRequest { to: leader.node.get() });
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Some(LogIndex::new(answer.into_inner().index)),
            Ok(Err(_)) | Err(_) => {
                self.give_up(&leader.address);
                None
            }
        }
    }

    /// Makes the next call to `address` over a new connection. Calls under way stay on the old one.
    pub(crate) fn give_up(&self, address: &str) {
        let mut line = self.line.lock();
        if line.as_ref().is_some_and(|(known, _)| known == address) {
            *line = None;
        }
    }

    fn client(&self, address: &str) -> Option<Client> {
        let mut line = self.line.lock();
        if let Some((known, client)) = &*line
            && known == address
        {
            return Some(client.clone());
        }
        let client = self.connector.client(address)?;
        *line = Some((address.to_owned(), client.clone()));
        Some(client)
    }
}

/// Whether a call that failed certainly did nothing: it was not sent, or refused by a check that comes before all work. No
/// broken connection is told as one of these codes.
fn never_ran(status: &Status) -> bool {
    let checked =
        matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented);
    checked || never_sent(status)
}

/// Whether a call to another node failed before it was sent, as no connection could be made.
#[must_use]
pub fn never_sent(status: &Status) -> bool {
    let mut causes = std::iter::successors(status.source(), |cause| (**cause).source());
    causes.any(|cause| cause.is::<ConnectError>())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use streamhouse_env::{Net as _, SystemClock, TcpNet};

    use super::*;

    fn forwarder() -> Forwarder {
        Forwarder::new(Connector::new(Arc::new(TcpNet), Arc::new(SystemClock)))
    }

    fn leader(address: String) -> Leader {
        Leader { term: 1, node: NodeId::new(1), address }
    }

    #[tokio::test]
    async fn what_could_not_be_sent_did_not_happen() {
        let listener = TcpNet.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let forwarded = forwarder().propose(&leader(address), vec![Bytes::new()]).await;
        assert!(matches!(forwarded, Forwarded::Refused(None)), "{forwarded:?}");
        let forwarded = forwarder().propose(&leader("no address".to_owned()), vec![Bytes::new()]).await;
        assert!(matches!(forwarded, Forwarded::Refused(None)), "{forwarded:?}");
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_may_have_happened() {
        let listener = TcpNet.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let leader = leader(listener.local_addr().expect("bound").to_string());
        let (forwarder, cut) = (forwarder(), async {
            use tokio::io::AsyncReadExt as _;
            let mut connection = listener.accept().await.expect("a connection");
            connection.read_u8().await.expect("the request comes");
        });
        let (forwarded, ()) = tokio::join!(forwarder.propose(&leader, vec![Bytes::new()]), cut);
        assert!(matches!(forwarded, Forwarded::Lost), "{forwarded:?}");
    }

    #[test]
    fn only_refusals_of_our_own_say_that_nothing_happened() {
        for code in [Code::FailedPrecondition, Code::InvalidArgument, Code::Unimplemented] {
            assert!(never_ran(&Status::new(code, "")), "{code:?}");
        }
        for code in
            [Code::Unavailable, Code::Cancelled, Code::ResourceExhausted, Code::Internal, Code::Unknown]
        {
            assert!(!never_ran(&Status::new(code, "")), "{code:?}");
        }
    }
}
