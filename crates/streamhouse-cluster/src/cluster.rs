//! The cluster as a node sees it, and what only the leader can tell or change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use streamhouse_broker::{MetadataLog, ProposeError};
use streamhouse_env::{Clock, Env};
use streamhouse_metadata::{Command, Drain, Outcome, State};
use streamhouse_proto::internal as pb;
use streamhouse_raft::{MembershipError, RaftNode, never_sent};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{ClusterId, LogIndex, NodeId, Timestamp};
use tonic::{Code, Status};

use crate::admission::{Applicant, JoinRefusal, judge};
use crate::clocks::{AgreedTime, Calendar};
use crate::controller::Controller;
use crate::feed::Feed;
use crate::join::JoinError;
use crate::peers::Peers;

/// Longest wait for the leader's answer.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a transfer of leadership may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// How a node that was taken for the leader says that it did nothing, as it does not lead. No broken connection is told so.
pub(crate) const AWAY: Code = Code::FailedPrecondition;
/// How often it is looked at meanwhile.
const TRANSFER_LOOK: Duration = Duration::from_millis(20);

/// What a cluster's handle is made of.
pub struct ClusterOptions {
    /// This node.
    pub node: NodeId,
    /// The machine.
    pub env: Env,
    /// The metadata log, as the broker uses it.
    pub log: Arc<dyn MetadataLog>,
    /// Its members.
    pub raft: RaftNode,
    /// The controller of this node.
    pub controller: Controller,
    /// Connections to the others.
    pub peers: Peers,
    /// What this node applies, for readers.
    pub feed: Feed,
    /// What time it is, while this node leads.
    pub time: AgreedTime,
}

/// The cluster, seen from one node. Clones are the same.
#[derive(Clone)]
pub struct Cluster(Arc<ClusterOptions>);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("node", &self.0.node).finish_non_exhaustive()
    }
}

/// What the leader knows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Which node.
    pub node: NodeId,
    /// Where others reach it.
    pub address: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Up to where its log is that of the leader.
    pub matched: Option<LogIndex>,
    /// Since it answered the leader last.
    pub last_contact: Option<Duration>,
    /// Since its last beat.
    pub last_beat: Option<Duration>,
    /// How far it has applied, by its last beat.
    pub applied: LogIndex,
    /// How many milliseconds its clock is ahead of those of most nodes; below zero when it is behind.
    pub clock_ahead_ms: Option<i64>,
    /// For how long its writes to the object store have failed; `None` while they do not.
    pub writes_failing: Option<Duration>,
}

/// How the nodes agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who leads.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// The newest entry.
    pub last_log: LogIndex,
    /// The newest that a quorum has.
    pub committed: LogIndex,
    /// The newest that the leader has applied.
    pub applied: LogIndex,
    /// The last in the leader's newest snapshot.
    pub snapshot: LogIndex,
    /// All members.
    pub members: Vec<MemberView>,
}

/// Why the leader did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaderError {
    /// Nobody leads, or the leader cannot be asked. It did not happen.
    #[error("the leader cannot be asked: {reason}")]
    Away {
        /// Why.
        reason: String,
    },
    /// The leader gave no answer. What was asked for may have happened.
    #[error("the leader was asked: {reason}")]
    Unanswered {
        /// What came instead.
        reason: String,
    },
    /// It did not happen.
    #[error("{reason}")]
    Refused {
        /// Why, with the fix.
        reason: String,
    },
}

impl Cluster {
    /// The cluster as this node sees it.
    #[must_use]
    pub fn new(options: ClusterOptions) -> Self {
        Self(Arc::new(options))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// The metadata as applied here.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.log.state()
    }

    /// The controller of this node.
    #[must_use]
    pub fn controller(&self) -> &Controller {
        &self.0.controller
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.env.clock
    }

    /// What time it is, as this node finds out while it leads.
    #[must_use]
    pub fn agreed_time(&self) -> AgreedTime {
        self.0.time.clone()
    }

    /// Whether a node whose clock shows this time may come in, or by how many milliseconds it is ahead; `None` while that
    /// cannot be judged, and on nodes that do not lead.
    pub(crate) fn bears(&self, theirs: Timestamp) -> Option<Result<(), i64>> {
        self.0.time.bears(theirs, &**self.clock())
    }

    pub(crate) fn raft(&self) -> &RaftNode {
        &self.0.raft
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.0.feed
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// The metadata log, as the broker uses it.
    #[must_use]
    pub fn log(&self) -> &dyn MetadataLog {
        &*self.0.log
    }

    /// Fills `bytes` by chance.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.0.env.rng.fill(bytes);
    }

    /// Whether another node has a vote.
    #[must_use]
    pub fn has_other_voters(&self) -> bool {
        self.0.raft.members().iter().any(|member| member.is_voter && member.node != self.0.node)
    }

    /// Who leads and where it is reached; `None` while nobody is known to.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, String)> {
        self.0.raft.leadership().borrow().leader.clone()
    }

    /// Whether this node believes that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.0.raft.leadership().borrow().leads
    }

    /// Proposes one command and waits for its outcome.
    ///
    /// # Errors
    /// When there is none: [`ProposeError`] says whether it may have happened.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let lost = ProposeError::Unknown { reason: "the metadata log gave no answer".to_owned() };
        self.0.log.propose(vec![command]).await.pop().unwrap_or(Err(lost))
    }

    /// Lets a node in, or says why not. Only the leader can.
    pub(crate) async fn admit(&self, applicant: &Applicant) -> Result<LogIndex, Status> {
        let away = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let outcome = self.propose(applicant.admission()).await.map_err(|error| away(&error))?;
        judge(&outcome).map_err(|refusal| refusal.status())?;
        let known = self.0.raft.members().into_iter().find(|member| member.node == applicant.node);
        let changed = match known {
            None => self.0.raft.add_learner(applicant.node, &applicant.internal).await,
            Some(member) if member.address != applicant.internal => {
                self.0.raft.set_address(applicant.node, &applicant.internal).await
            }
            Some(_) => Ok(()),
        };
        changed.map_err(|error| away(&error))?;
        Ok(self.0.raft.status().last_log)
    }

    /// Lets this node in, while it leads.
    ///
    /// # Errors
    /// As for any other node.
    pub async fn admit_self(&self, applicant: &Applicant) -> Result<(), JoinError> {
        match self.admit(applicant).await {
            Ok(_) => Ok(()),
            Err(status) => Err(match JoinRefusal::of_status(&status) {
                Some(refusal) => JoinError::Refused(refusal),
                None => JoinError::Unreachable { asked: Vec::new(), last: status.message().to_owned() },
            }),
        }
    }

    /// The cluster's identity, once it has one.
    pub(crate) fn id(&self) -> Option<ClusterId> {
        self.state().cluster()
    }

    /// How the nodes agree, as the leader sees it; on a node that cannot ask the leader, what it knows itself.
    pub async fn view(&self) -> View {
        if self.leads() {
            return self.own_view().await;
        }
        match self.leader_view().await {
            Some(view) => view,
            None => self.own_view().await,
        }
    }

    pub(crate) async fn own_view(&self) -> View {
        let status = self.0.raft.status();
        let contacts: BTreeMap<_, _> =
            self.0.controller.contacts().await.unwrap_or_default().into_iter().collect();
        let own_calendar = Calendar::of(self.clock().wall(), self.clock().now());
        let members = status.members.into_iter().map(|member| {
            let contact = contacts.get(&member.node);
            let own = member.node == self.0.node;
            MemberView {
                node: member.node,
                address: member.address,
                voter: member.is_voter,
                matched: member.matched,
                last_contact: member.last_contact,
                last_beat: if own { Some(Duration::ZERO) } else { contact.map(|contact| contact.silent) },
                applied: if own {
                    status.applied
                } else {
                    contact.map_or(LogIndex::ZERO, |contact| contact.beat.applied)
                },
                clock_ahead_ms: if own {
                    Some(own_calendar)
                } else {
                    contact.and_then(|contact| contact.beat.calendar)
                }
                .and_then(|calendar| self.0.time.ahead(calendar)),
                writes_failing: contact.and_then(|contact| contact.beat.writes.failing),
            }
        });
        View {
            leader: status.leader,
            term: status.term,
            last_log: status.last_log,
            committed: status.committed.unwrap_or(LogIndex::ZERO),
            applied: status.applied,
            snapshot: status.snapshot,
            members: members.collect(),
        }
    }

    async fn leader_view(&self) -> Option<View> {
        let (leader, address) = self.leader()?;
        let mut client = self.0.peers.client(&address)?;
        let answer = client.leader_view(pb::LeaderViewRequest { to: leader.get() });
        let answer = tokio::select! {
            answer = answer => answer.ok()?.into_inner(),
            () = self.clock().sleep(LEADER_TIMEOUT) => return None,
        };
        Some(view_of(answer))
    }

    /// The pin floor of the cluster: what died at or before it, no other node reads any more. `None` while that is not
    /// known, which is always so on nodes that do not lead.
    pub async fn pin_floor(&self) -> Option<LogIndex> {
        // Readers that follow this node have no heartbeat of their own.
        let readers = self.0.feed.pinned().unwrap_or(LogIndex::new(u64::MAX));
        Some(self.0.controller.pin_floor().await.ok().flatten()?.min(readers))
    }

    /// Asks `to` to lead, or any other voter, and waits until it does. Does nothing when it leads already. Cancelling
    /// leaves open who leads.
    ///
    /// # Errors
    /// When there is no such voter, or it does not come to lead in time.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, LeaderError> {
        let unanswered = |reason: String| LeaderError::Unanswered { reason };
        let nobody = || LeaderError::Away { reason: "nobody leads".to_owned() };
        let (leader, address) = self.leader().ok_or_else(nobody)?;
        if leader != self.0.node {
            let change = pb::change_members_request::Change::TransferLeader(to.map_or(0, NodeId::get));
            return self.ask_change(leader, &address, change).await;
        }
        if to == Some(leader) {
            // It may have lost the others without knowing yet.
            let asked = self.0.log.read_index().await;
            return asked.map(|_| leader).map_err(|error| LeaderError::Away { reason: error.to_string() });
        }
        let target = self.successor(to)?;
        tracing::info!(from = %leader, to = %target, "leadership is passed on");
        let asked = self.0.raft.transfer_leader(target).await;
        asked.map_err(not_passed_on)?;
        let led = self.led_by_another(leader).await;
        led.ok_or_else(|| unanswered(format!("node {target} does not come to lead")))
    }

    /// Which voter shall lead.
    fn successor(&self, wanted: Option<NodeId>) -> Result<NodeId, LeaderError> {
        let state = self.state();
        let status = self.0.raft.status();
        let alive = |node: NodeId| {
            let open = state.node(node).is_some_and(streamhouse_metadata::NodeEntry::is_open);
            open && state
                .member(node)
                .is_some_and(|member| member.is_alive() && member.drain() != Drain::Leaving)
        };
        let voters = status.members.iter().filter(|member| member.is_voter && member.node != self.0.node);
        let found = match wanted {
            Some(wanted) => voters.map(|member| member.node).find(|voter| *voter == wanted),
            None => {
                voters.filter(|member| alive(member.node)).max_by_key(|member| member.matched).map(|m| m.node)
            }
        };
        let refused = |reason| LeaderError::Refused { reason };
        let found = found.ok_or_else(|| {
            refused(match wanted {
                Some(node) => format!("node {node} has no vote; see `streamhouse cluster raft status`"),
                None => "there is no other voter that is alive".to_owned(),
            })
        })?;
        if wanted.is_some() && state.member(found).is_some_and(|member| member.drain() == Drain::Operator) {
            let reason =
                format!("node {found} is drained: `streamhouse node undrain {found}` gives it work again");
            return Err(refused(reason));
        }
        if alive(found) {
            return Ok(found);
        }
        Err(refused(format!("node {found} has stopped, is dead or leaves; see `streamhouse node list`")))
    }

    async fn led_by_another(&self, old: NodeId) -> Option<NodeId> {
        let deadline = self.clock().now() + TRANSFER_TIMEOUT;
        while self.clock().now() < deadline {
            match self.leader() {
                Some((leader, _)) if leader != old => return Some(leader),
                _ => self.clock().sleep(TRANSFER_LOOK).await,
            }
        }
        None
    }

    async fn ask_change(
        &self,
        leader: NodeId,
        address: &str,
        change: pb::change_members_request::Change,
    ) -> Result<NodeId, LeaderError> {
        let unanswered = |reason: String| LeaderError::Unanswered { reason };
        let no_address = || LeaderError::Away { reason: format!("`{address}` is no address") };
        let mut client = self.0.peers.client(address).ok_or_else(no_address)?;
        let request = pb::ChangeMembersRequest { to: leader.get(), change: Some(change) };
        let answer = tokio::select! {
            answer = client.change_members(request) => answer,
            () = self.clock().sleep(LEADER_TIMEOUT) => {
                return Err(unanswered(format!("node {leader} gives no answer")));
            }
        };
        match answer {
            Ok(response) => Ok(NodeId::new(response.into_inner().leader_id)),
            Err(status) => match JoinRefusal::of_status(&status) {
                Some(refusal) => Err(LeaderError::Refused { reason: refusal.text }),
                None if never_ran(&status) => Err(LeaderError::Away { reason: status.message().to_owned() }),
                None => Err(unanswered(format!("node {leader}: {}", status.message()))),
            },
        }
    }
}

/// Why leadership was not passed on, where the log was not even asked to, or may have begun.
fn not_passed_on(error: MembershipError) -> LeaderError {
    let reason = error.to_string();
    match error {
        MembershipError::NotLeader { .. } => LeaderError::Away { reason },
        MembershipError::NotVoter { .. } | MembershipError::Behind { .. } => LeaderError::Refused { reason },
        _ => LeaderError::Unanswered { reason },
    }
}

/// Whether a node that was asked has certainly done nothing: it said so, or no connection to it was made.
fn never_ran(status: &Status) -> bool {
    status.code() == AWAY || never_sent(status)
}

impl LeaderError {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Away { reason } => Status::new(AWAY, reason.clone()),
            Self::Unanswered { reason } => Status::unavailable(reason.clone()),
            Self::Refused { reason } => JoinRefusal::new(ErrorCode::QuorumAtRisk, reason.clone()).status(),
        }
    }
}

pub(crate) fn view_of(answer: pb::LeaderViewResponse) -> View {
    let member = |member: pb::MemberView| MemberView {
        node: NodeId::new(member.node_id),
        address: member.address,
        voter: member.voter,
        matched: member.matched_index.map(LogIndex::new),
        last_contact: member.last_contact_ms.map(Duration::from_millis),
        last_beat: member.last_beat_ms.map(Duration::from_millis),
        applied: LogIndex::new(member.applied_index),
        clock_ahead_ms: member.clock_ahead_ms,
        writes_failing: member.writes_failing_ms.map(Duration::from_millis),
    };
    View {
        leader: Some(NodeId::new(answer.leader_id)).filter(|leader| leader.get() != 0),
        term: answer.term,
        last_log: LogIndex::new(answer.last_log_index),
        committed: LogIndex::new(answer.committed_index),
        applied: LogIndex::new(answer.applied_index),
        snapshot: LogIndex::new(answer.snapshot_index),
        members: answer.members.into_iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_silent_or_behind_is_a_refusal_and_nothing_has_happened() {
        let node = NodeId::new(2);
        let refused = [MembershipError::Behind { node }, MembershipError::NotVoter { node }];
        for error in refused.map(not_passed_on) {
            assert!(matches!(error, LeaderError::Refused { .. }), "{error}");
        }
        let away = not_passed_on(MembershipError::NotLeader { leader: None });
        assert!(matches!(away, LeaderError::Away { .. }), "{away}");
        let stopped = not_passed_on(MembershipError::Stopped);
        assert!(matches!(stopped, LeaderError::Unanswered { .. }), "{stopped}");
    }
}
