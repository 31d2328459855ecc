//! Proposes commands, here or on the node that leads, and says truly what became of them.

use std::time::Duration;

use futures::StreamExt as _;
use openraft::errors::{ClientWriteError, ForwardToLeader};
use streamhouse_metadata::{Command, Outcome};
use streamhouse_types::{LogIndex, NodeId};

use crate::error::ProposeError;
use crate::metrics;
use crate::network::{Forwarded, Leader};
use crate::node::{Inner, Leadership, RaftNode};
use crate::types::{LoggedCommand, TypeConfig};

/// Most commands of one proposal.
pub const PROPOSAL_COMMANDS_MAX: usize = 4_096;
/// Most bytes that the commands of one proposal may have together, encoded.
pub const PROPOSAL_BYTES_MAX: usize = 16 << 20;

/// Waits between tries to find a leader.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// A leader gives up a command after its commit timeout; the answer may take this much longer to come.
const ANSWER_SLACK: Duration = Duration::from_secs(1);
/// How long an old leader is still listened to when a new one is known: it may have committed just before.
const OLD_LEADER_GRACE: Duration = Duration::from_millis(250);

/// What became of one command that was appended.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// Applied at that index.
    Answered(Outcome, LogIndex),
    Unknown,
}

impl Fate {
    pub(crate) fn index(&self) -> Option<LogIndex> {
        match self {
            Self::Answered(_, index) => Some(*index),
            Self::Unknown => None,
        }
    }
}

/// What became of one try with all commands: they are appended together or not at all.
pub(crate) enum Attempt {
    /// Appended; one fate for each.
    Taken(Vec<Fate>),
    /// None of them was appended; by word of who leads, when that is known and is another node.
    Refused(Option<Leader>),
    /// None of them was appended: this node has stopped.
    Stopped,
}

/// Checks that one proposal is not too large for the way to the leader and through the log.
///
/// # Errors
/// [`ProposeError::TooLarge`].
pub(crate) fn check_size(lengths: impl ExactSizeIterator<Item = usize>) -> Result<usize, ProposeError> {
    let (commands, bytes) = (lengths.len(), lengths.sum());
    if commands > PROPOSAL_COMMANDS_MAX || bytes > PROPOSAL_BYTES_MAX {
        return Err(ProposeError::TooLarge { commands, bytes });
    }
    Ok(bytes)
}

impl RaftNode {
    /// Proposes commands in this order, next to each other, and waits until each is applied on this node. One answer per
    /// command, in order. On a node that does not lead they are sent to the one that does. While no leader takes them it
    /// is tried again until the propose timeout, and for half a second only where the proposal before found none in all that
    /// time either; what was taken is waited for until the commit timeout. A follower that does not come to apply the
    /// commands by then answers "unknown". A leader that no majority of the voters answers any more takes nothing.
    ///
    /// Not cancel-safe in this sense: what was proposed may be applied although nobody hears of it.
    pub async fn propose(&self, commands: Vec<Command>) -> Vec<Result<Outcome, ProposeError>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let logged: Vec<_> = commands.into_iter().map(LoggedCommand::from_command).collect();
        let started = self.inner.env.clock.now();
        let settled = match check_size(logged.iter().map(|command| command.bytes().len())) {
            Ok(_) => self.settle(&logged, started + self.inner.patience()).await,
            Err(error) => Err(error),
        };
        let seconds = self.inner.env.clock.now().saturating_sub(started).as_secs_f64();
        ::metrics::histogram!(metrics::COMMIT_SECONDS).record(seconds);
        match settled {
            Ok(fates) => fates.into_iter().map(answer).collect(),
            Err(error) => vec![Err(error); logged.len()],
        }
    }

    /// Tries until somebody took the commands, at least once and until `deadline`.
    async fn settle(&self, logged: &[LoggedCommand], deadline: Duration) -> Result<Vec<Fate>, ProposeError> {
        let inner = &self.inner;
        let mut leadership = inner.leadership.subscribe();
        let mut backoff = BACKOFF.0;
        loop {
            leadership.mark_unchanged();
            let mut leader = match inner.try_here(logged).await {
                Attempt::Taken(fates) => {
                    inner.found_leader();
                    return Ok(fates);
                }
                Attempt::Stopped => return Err(ProposeError::Stopped),
                Attempt::Refused(leader) => leader,
            };
            let told = leader.as_ref().map(|leader| leader.node);
            // Follows the word of others only to later terms, so this comes to an end.
            while let Some(asked) = leader.take() {
                match inner.try_there(&asked, logged).await {
                    Forwarded::Answered(fates, last) => {
                        inner.found_leader();
                        // Who is answered may read here at once, so an outcome that is not applied here is not told.
                        let patience = inner.env.clock.now() + inner.commit_timeout;
                        let applied = self.wait_applied(last, patience).await;
                        return if applied { Ok(fates) } else { Err(ProposeError::Unknown) };
                    }
                    Forwarded::Lost => return Err(ProposeError::Unknown),
                    Forwarded::Refused(next) => {
                        let later = |next: &Leader| next.term > asked.term && next.node != inner.node;
                        leader = next.filter(|next| later(next) && inner.env.clock.now() < deadline);
                    }
                }
            }
            if inner.env.clock.now() + backoff >= deadline {
                inner.found_no_leader();
                return Err(ProposeError::NotHappened { leader: told });
            }
            tokio::select! {
                () = inner.env.clock.sleep(backoff) => backoff = (backoff * 2).min(BACKOFF.1),
                // Somebody new leads, or leads elsewhere: no reason to wait. It fails when the node stops.
                Ok(()) = leadership.changed() => {
                    backoff = BACKOFF.0;
                }
            }
        }
    }
}

impl Inner {
    /// Proposes once, if this node leads.
    pub(crate) async fn try_here(&self, logged: &[LoggedCommand]) -> Attempt {
        // The core ends some time after its log has failed; what it takes in between is never written, yet it could not
        // say so.
        if self.failure.borrow().is_some() {
            return Attempt::Stopped;
        }
        if self.leads_alone() {
            return Attempt::Refused(None);
        }
        let mut batch = self.due_commands();
        let due = batch.len();
        batch.extend_from_slice(logged);
        let count = batch.len();
        let mut fates = Vec::with_capacity(count);
        let timeout = self.env.clock.sleep(self.commit_timeout);
        tokio::pin!(timeout);
        let mut answers = tokio::select! {
            biased;
            taken = self.raft.client_write_many(batch) => match taken {
                Ok(answers) => answers,
                Err(_) => return Attempt::Stopped,
            },
            // The core is stuck and its queue full.
            () = &mut timeout => return Attempt::Taken(vec![Fate::Unknown; logged.len()]),
        };
        while fates.len() < count {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = &mut timeout => None,
            };
            fates.push(match answer {
                Some(Ok(Ok(written))) => {
                    let index = LogIndex::new(written.log_id.index());
                    written.response.map_or(Fate::Unknown, |outcome| Fate::Answered(outcome, index))
                }
                // Said of all of them or of none.
                Some(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => {
                    return Attempt::Refused(self.elsewhere(forward));
                }
                Some(Ok(Err(_)) | Err(_)) => Fate::Unknown,
                None => break,
            });
        }
        fates.resize(count, Fate::Unknown);
        Attempt::Taken(fates.split_off(due))
    }

    /// Sends the commands to the node that leads, and waits as long as it may have an answer.
    async fn try_there(&self, leader: &Leader, logged: &[LoggedCommand]) -> Forwarded {
        let commands = logged.iter().map(|command| command.bytes().clone()).collect();
        let forwarded = tokio::select! {
            biased;
            forwarded = self.forwarder.propose(leader, commands) => return forwarded,
            () = self.superseded(leader) => Forwarded::Lost,
            () = self.env.clock.sleep(self.commit_timeout + ANSWER_SLACK) => Forwarded::Lost,
        };
        self.forwarder.give_up(&leader.address);
        forwarded
    }

    /// Waits until another node leads, and then for as long as an answer of the old leader may still be on its way.
    async fn superseded(&self, old: &Leader) {
        let mut leadership = self.leadership.subscribe();
        let another = |now: &Leadership| {
            now.term >= old.term && now.leader.as_ref().is_some_and(|(node, _)| *node != old.node)
        };
        loop {
            if leadership.wait_for(another).await.is_err() {
                std::future::pending::<()>().await;
            }
            self.env.clock.sleep(OLD_LEADER_GRACE).await;
            // What is known here may be older than who was asked.
            if another(&leadership.borrow()) {
                return;
            }
        }
    }

    /// What the leader proposes of its own accord before anything else.
    fn due_commands(&self) -> Vec<LoggedCommand> {
        match &self.leader_commands {
            Some(commands) if self.raft.is_leader() => {
                let due = commands.due(&self.view.state.read());
                due.into_iter().map(LoggedCommand::from_command).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The other node that leads.
    pub(crate) fn elsewhere(&self, forward: ForwardToLeader<TypeConfig>) -> Option<Leader> {
        let node = forward.leader_id.map(NodeId::new).filter(|leader| *leader != self.node)?;
        let term = self.leadership.borrow().term;
        Some(Leader { term, node, address: forward.leader_node?.addr })
    }
}

fn answer(fate: Fate) -> Result<Outcome, ProposeError> {
    match fate {
        Fate::Answered(outcome, _) => Ok(outcome),
        Fate::Unknown => Err(ProposeError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_is_bounded_in_number_and_bytes() {
        assert_eq!(check_size([PROPOSAL_BYTES_MAX].into_iter()), Ok(PROPOSAL_BYTES_MAX));
        let error = check_size([PROPOSAL_BYTES_MAX, 1].into_iter()).expect_err("too many bytes");
        assert_eq!(error, ProposeError::TooLarge { commands: 2, bytes: PROPOSAL_BYTES_MAX + 1 });
        assert!(check_size(vec![0; PROPOSAL_COMMANDS_MAX].into_iter()).is_ok());
        assert!(check_size(vec![0; PROPOSAL_COMMANDS_MAX + 1].into_iter()).is_err());
    }
}
