//! Proposes commands and says truly what became of them.

use std::time::Duration;

use futures::StreamExt as _;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use streamhouse_metadata::{Command, Outcome};
use streamhouse_types::NodeId;

use crate::error::ProposeError;
use crate::metrics;
use crate::node::RaftNode;
use crate::types::{LoggedCommand, TypeConfig};

/// Waits between tries to find a leader.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// What became of one proposal.
enum Fate {
    Answered(Outcome),
    /// Never appended.
    Rejected(ForwardToLeader<TypeConfig>),
    Unknown,
}

impl RaftNode {
    /// Proposes commands in this order, next to each other unless leadership changes, and waits until each is applied on
    /// this node. One answer per command, in order. While no leader is known it is tried again until the propose timeout.
    ///
    /// Not cancel-safe in this sense: what was proposed may be applied although nobody hears of it.
    pub async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        let clock = &self.inner.env.clock;
        let started = clock.now();
        let deadline = started + self.inner.propose_timeout;
        let logged: Vec<_> = commands.into_iter().map(LoggedCommand::from_command).collect();
        let mut backoff = BACKOFF.0;
        loop {
            let Some(fates) = self.try_propose(&logged).await else {
                return logged.iter().map(|_| Err(ProposeError::Stopped)).collect();
            };
            if !self.worth_another_try(&fates) || clock.now() + backoff >= deadline {
                let seconds = clock.now().saturating_sub(started).as_secs_f64();
                ::metrics::histogram!(metrics::COMMIT_SECONDS).record(seconds);
                return fates.into_iter().map(|fate| self.answer(fate)).collect();
            }
            clock.sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Proposes once; `None` when the node has stopped and took nothing.
    async fn try_propose(&self, logged: &[LoggedCommand]) -> Option<Vec<Fate>> {
        // The core ends some time after its log has failed; what it takes in between is never written, yet it could not
        // say so.
        if self.inner.failure.borrow().is_some() {
            return None;
        }
        let mut answers = self.inner.raft.client_write_many(logged.to_vec()).await.ok()?;
        let mut fates = Vec::with_capacity(logged.len());
        let timeout = self.inner.env.clock.sleep(self.inner.commit_timeout);
        tokio::pin!(timeout);
        while fates.len() < logged.len() {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = &mut timeout => None,
            };
            fates.push(match answer {
                Some(Ok(Ok(response))) => response.response.map_or(Fate::Unknown, Fate::Answered),
                Some(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => Fate::Rejected(forward),
                Some(Ok(Err(_)) | Err(_)) => Fate::Unknown,
                None => break,
            });
        }
        fates.resize_with(logged.len(), || Fate::Unknown);
        Some(fates)
    }

    /// All were rejected, and not because another node leads: between two leaders, or right after an election.
    fn worth_another_try(&self, fates: &[Fate]) -> bool {
        let rejected =
            |fate: &Fate| matches!(fate, Fate::Rejected(forward) if self.elsewhere(forward).is_none());
        !fates.is_empty() && fates.iter().all(rejected)
    }

    /// The other node that leads.
    fn elsewhere(&self, forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
        forward.leader_id.map(NodeId::new).filter(|leader| *leader != self.inner.node)
    }

    fn answer(&self, fate: Fate) -> Result<Outcome, ProposeError> {
        match fate {
            Fate::Answered(outcome) => Ok(outcome),
            Fate::Rejected(forward) => Err(ProposeError::NotHappened { leader: self.elsewhere(&forward) }),
            Fate::Unknown => Err(ProposeError::Unknown),
        }
    }
}
