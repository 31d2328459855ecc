//! The library's messages and ours, one way and back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, EntryPayload};
use streamhouse_metadata::codec::{decode_outcome, encode_outcome};
use streamhouse_proto::internal as pb;
use streamhouse_types::{LogIndex, NodeId};

use super::forward::{Forwarded, Leader};
use crate::propose::Fate;
use crate::types::{
    Entry, LogId, LoggedCommand, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id,
};

/// A message without something that it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has no valid {0}")]
pub(crate) struct Missing(pub(crate) &'static str);

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, node_id: leader.voted_for, committed: vote.is_committed() }
}

pub(crate) fn vote_from(vote: Option<pb::Vote>) -> Result<Vote, Missing> {
    let vote = vote.ok_or(Missing("vote"))?;
    let make = if vote.committed { Vote::new_committed } else { Vote::new };
    Ok(make(vote.term, vote.node_id))
}

pub(crate) fn id_to(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.committed_leader_id().term, index: id.index() }
}

pub(crate) fn id_from(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

fn membership_to(membership: &Membership) -> pb::Membership {
    let sets = membership.get_joint_config().iter();
    let members = membership.nodes();
    pb::Membership {
        voter_sets: sets.map(|set| pb::NodeSet { node_ids: set.iter().copied().collect() }).collect(),
        members: members.map(|(id, node)| pb::Member { node_id: *id, address: node.addr.clone() }).collect(),
    }
}

fn membership_from(membership: Option<pb::Membership>) -> Result<Membership, Missing> {
    let membership = membership.ok_or(Missing("membership"))?;
    let sets: Vec<BTreeSet<u64>> =
        membership.voter_sets.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, BasicNode> = membership
        .members
        .into_iter()
        .map(|member| (member.node_id, BasicNode { addr: member.address }))
        .collect();
    Membership::new(sets, members).map_err(|_| Missing("membership"))
}

fn entry_to(entry: Entry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(command) => pb::entry::Payload::Command(command.bytes().clone()),
        EntryPayload::Membership(membership) => pb::entry::Payload::Membership(membership_to(&membership)),
    };
    pb::Entry { log_id: Some(id_to(&entry.log_id)), payload: Some(payload) }
}

fn entry_from(entry: pb::Entry) -> Result<Entry, Missing> {
    let log_id = id_from(entry.log_id.ok_or(Missing("log id"))?);
    let payload = match entry.payload.ok_or(Missing("payload"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        // Of its own: it stays in memory longer than the buffer that it came in should.
        pb::entry::Payload::Command(bytes) => {
            EntryPayload::Normal(LoggedCommand::from_bytes(Bytes::copy_from_slice(&bytes)))
        }
        pb::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from(Some(membership))?)
        }
    };
    Ok(Entry { log_id, payload })
}

/// To follower `to`, which has acknowledged the log up to `acknowledged`.
pub(crate) fn append_to(
    request: AppendEntriesRequest<TypeConfig>,
    to: u64,
    acknowledged: Option<u64>,
) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        vote: Some(vote_to(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(id_to),
        entries: request.entries.into_iter().map(entry_to).collect(),
        leader_commit: request.leader_commit.as_ref().map(id_to),
        to,
        acknowledged: acknowledged.unwrap_or_default(),
    }
}

pub(crate) fn append_from(
    request: pb::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Missing> {
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote)?,
        prev_log_id: request.prev_log_id.map(id_from),
        entries: request.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(id_from),
    })
}

pub(crate) fn appended_to(response: AppendEntriesResponse<TypeConfig>) -> pb::AppendEntriesResponse {
    use pb::append_entries_response::{Conflict, PartialSuccess, Result, Success};
    let result = match response {
        AppendEntriesResponse::Success => Result::Success(Success {}),
        AppendEntriesResponse::PartialSuccess(matching) => {
            Result::PartialSuccess(PartialSuccess { matching: matching.as_ref().map(id_to) })
        }
        AppendEntriesResponse::Conflict => Result::Conflict(Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Result::HigherVote(vote_to(&vote)),
    };
    pb::AppendEntriesResponse { result: Some(result) }
}

pub(crate) fn appended_from(
    response: pb::AppendEntriesResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, Missing> {
    use pb::append_entries_response::Result;
    Ok(match response.result.ok_or(Missing("result"))? {
        Result::Success(_) => AppendEntriesResponse::Success,
        Result::PartialSuccess(partial) => {
            AppendEntriesResponse::PartialSuccess(partial.matching.map(id_from))
        }
        Result::Conflict(_) => AppendEntriesResponse::Conflict,
        Result::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from(Some(vote))?),
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>, to: u64) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(id_to),
        leader_transfer: request.leadership_transfer,
        to,
    }
}

pub(crate) fn vote_request_from(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Missing> {
    Ok(VoteRequest {
        vote: vote_from(request.vote)?,
        last_log_id: request.last_log_id.map(id_from),
        leadership_transfer: request.leader_transfer,
    })
}

pub(crate) fn voted_to(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(id_to),
    }
}

pub(crate) fn voted_from(response: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, Missing> {
    Ok(VoteResponse {
        vote: vote_from(response.vote)?,
        vote_granted: response.granted,
        last_log_id: response.last_log_id.map(id_from),
    })
}

pub(crate) fn meta_to(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    let stored = &meta.last_membership;
    pb::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(id_to),
        last_membership_log_id: stored.log_id().as_ref().map(id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

pub(crate) fn meta_from(meta: Option<pb::SnapshotMeta>) -> Result<SnapshotMeta, Missing> {
    let meta = meta.ok_or(Missing("snapshot meta"))?;
    let membership = membership_from(meta.membership)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.map(id_from),
        last_membership: StoredMembership::new(meta.last_membership_log_id.map(id_from), membership),
    })
}

pub(crate) fn transfer_to(
    request: &TransferLeaderRequest<TypeConfig>,
    receiver: u64,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from: Some(vote_to(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(id_to),
        receiver,
    }
}

pub(crate) fn transfer_from(
    request: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Missing> {
    let last = request.last_log_id.map(id_from);
    Ok(TransferLeaderRequest::new(vote_from(request.from)?, request.to, last))
}

pub(crate) fn transferred_to(
    response: Result<(), TransferLeaderError<TypeConfig>>,
) -> pb::TransferLeaderResponse {
    use pb::transfer_leader_response::{Accepted, LogNotFlushed, Result, VoteChanged};
    let result = match response {
        Ok(()) => Result::Accepted(Accepted {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => Result::VoteChanged(VoteChanged {
            expected: Some(vote_to(&expected)),
            actual: Some(vote_to(&actual)),
        }),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Result::LogNotFlushed(LogNotFlushed {
                expected: expected.as_ref().map(id_to),
                actual: actual.as_ref().map(id_to),
            })
        }
    };
    pb::TransferLeaderResponse { result: Some(result) }
}

pub(crate) fn transferred_from(
    response: pb::TransferLeaderResponse,
) -> Result<Result<(), TransferLeaderError<TypeConfig>>, Missing> {
    use pb::transfer_leader_response::Result;
    Ok(match response.result.ok_or(Missing("result"))? {
        Result::Accepted(_) => Ok(()),
        Result::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: vote_from(changed.expected)?,
            actual: vote_from(changed.actual)?,
        }),
        Result::LogNotFlushed(behind) => Err(TransferLeaderError::LogNotFlushed {
            expected: behind.expected.map(id_from),
            actual: behind.actual.map(id_from),
        }),
    })
}

pub(crate) fn proposed_to(fates: Vec<Fate>) -> pb::ProposeResponse {
    use pb::propose_response::{Answer, Answers, Lost, Result, answer};
    let last_index = fates.iter().filter_map(Fate::index).max().unwrap_or(LogIndex::ZERO).get();
    let answers = fates.into_iter().map(|fate| {
        let answer = match fate {
            Fate::Answered(outcome, _) => answer::Answer::Outcome(encode_outcome(&outcome)),
            Fate::Unknown => answer::Answer::Lost(Lost {}),
        };
        Answer { answer: Some(answer) }
    });
    let answers = Answers { answers: answers.collect(), last_index };
    pb::ProposeResponse { result: Some(Result::Answers(answers)) }
}

pub(crate) fn refused_to(reason: String, leader: Option<Leader>) -> pb::ProposeResponse {
    use pb::propose_response::{Refusal, Result};
    let term = leader.as_ref().map_or(0, |leader| leader.term);
    let leader = leader.map(|leader| pb::Member { node_id: leader.node.get(), address: leader.address });
    pb::ProposeResponse { result: Some(Result::Refusal(Refusal { reason, term, leader })) }
}

/// What became of `count` commands. An answer that does not make sense is none.
pub(crate) fn proposed_from(response: pb::ProposeResponse, count: usize) -> Forwarded {
    use pb::propose_response::{Answer, Result, answer};
    match response.result {
        Some(Result::Refusal(refusal)) => Forwarded::Refused(refusal.leader.map(|leader| Leader {
            term: refusal.term,
            node: NodeId::new(leader.node_id),
            address: leader.address,
        })),
        Some(Result::Answers(answers)) if answers.answers.len() == count => {
            let last = LogIndex::new(answers.last_index);
            let fate = |answer: Answer| match answer.answer {
                Some(answer::Answer::Outcome(bytes)) => {
                    decode_outcome(&bytes).map_or(Fate::Unknown, |outcome| Fate::Answered(outcome, last))
                }
                Some(answer::Answer::Lost(_)) | None => Fate::Unknown,
            };
            Forwarded::Answered(answers.answers.into_iter().map(fate).collect(), last)
        }
        Some(Result::Answers(_)) | None => Forwarded::Lost,
    }
}

#[cfg(test)]
mod tests {
    use streamhouse_metadata::Outcome;

    use super::*;

    #[test]
    fn answers_to_a_proposal_cross_the_wire_unchanged() {
        let fates = vec![
            Fate::Answered(Outcome::Done, LogIndex::new(7)),
            Fate::Unknown,
            Fate::Answered(Outcome::Done, LogIndex::new(9)),
        ];
        let Forwarded::Answered(back, last) = proposed_from(proposed_to(fates.clone()), 3) else {
            panic!("they were answered")
        };
        assert_eq!(last, LogIndex::new(9));
        assert!(matches!(
            &back[..],
            [Fate::Answered(Outcome::Done, _), Fate::Unknown, Fate::Answered(Outcome::Done, _)]
        ));
        let mismatched = proposed_from(proposed_to(fates), 2);
        assert!(matches!(mismatched, Forwarded::Lost), "too many answers are no answer: {mismatched:?}");
        let leader = Leader { term: 4, node: NodeId::new(2), address: "b:2".to_owned() };
        let refused = proposed_from(refused_to("another leads".to_owned(), Some(leader.clone())), 1);
        assert!(matches!(refused, Forwarded::Refused(Some(found)) if found == leader));
        assert!(matches!(proposed_from(pb::ProposeResponse::default(), 1), Forwarded::Lost));
    }

    #[test]
    fn an_append_crosses_the_wire_unchanged() {
        let nodes = BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2"))]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid");
        let command = LoggedCommand::from_bytes(Bytes::from_static(b"x"));
        let payloads =
            [EntryPayload::Blank, EntryPayload::Normal(command), EntryPayload::Membership(membership)];
        let entries: Vec<_> =
            (5..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(2, index), payload }).collect();
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(1, 4)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let back = append_from(append_to(request, 2, None)).expect("complete");
        assert_eq!((back.vote, back.prev_log_id), (Vote::new_committed(2, 1), Some(log_id(1, 4))));
        assert_eq!((back.entries, back.leader_commit), (entries, None));
    }

    #[test]
    fn an_empty_message_is_refused_not_believed() {
        assert_eq!(append_from(pb::AppendEntriesRequest::default()).map(|_| ()), Err(Missing("vote")));
        assert!(vote_request_from(pb::VoteRequest::default()).is_err());
        assert!(appended_from(pb::AppendEntriesResponse::default()).is_err());
        assert!(meta_from(None).is_err());
        assert!(entry_from(pb::Entry::default()).is_err());
    }

    #[test]
    fn votes_and_transfers_cross_the_wire_unchanged() {
        let mut request = VoteRequest::new(Vote::new(3, 2), Some(log_id(2, 9)));
        request.leadership_transfer = true;
        assert_eq!(vote_request_from(vote_request_to(&request, 1)), Ok(request));
        let response = VoteResponse::new(Vote::new(3, 2), None, true);
        assert_eq!(voted_from(voted_to(&response)), Ok(response));
        let transfer = TransferLeaderRequest::new(Vote::new_committed(3, 2), 1, Some(log_id(3, 7)));
        assert_eq!(transfer_from(transfer_to(&transfer, 3)), Ok(transfer));
        let refused = Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(3, 7)), actual: None });
        assert_eq!(transferred_from(transferred_to(refused.clone())), Ok(refused));
    }
}
