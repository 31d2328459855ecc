//! How a node that starts is let in.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use streamhouse_env::Clock;
use streamhouse_proto::internal as pb;
use streamhouse_types::{ClusterId, LogIndex};
use tonic::{Code, Status};

use crate::admission::{Applicant, JoinRefusal};
use crate::peers::Peers;

/// Longest wait for one answer: the leader has the admission agreed on before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a member answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The cluster.
    pub cluster: ClusterId,
    /// The leader's newest entry then: who has applied it knows of the admission.
    pub index: LogIndex,
}

/// Why a node is not a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The cluster does not want it.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// Nobody who could say answered.
    #[error("no member of the cluster answers at {}: {last}", asked.join(", "))]
    Unreachable {
        /// Where it was asked.
        asked: Vec<String>,
        /// What the last of them said.
        last: String,
    },
}

impl Peers {
    /// Asks the members at `addresses` one after the other, all of those that share a name, and whoever they say leads,
    /// until one lets the applicant in. Cancelling leaves open whether it was.
    ///
    /// # Errors
    /// When it is refused, or none of them leads or knows who does.
    pub async fn join(
        &self,
        applicant: &Applicant,
        addresses: Vec<String>,
        clock: &dyn Clock,
    ) -> Result<Joined, JoinError> {
        let mut asked: BTreeSet<String> = BTreeSet::new();
        let mut waiting: VecDeque<String> = addresses.into();
        let own = self.resolve(&applicant.internal, clock).await;
        let mut last = "no address to ask is known".to_owned();
        while let Some(address) = waiting.pop_front() {
            if address == applicant.internal || !asked.insert(address.clone()) {
                continue;
            }
            let nodes = self.nodes_at(&address, &own, clock).await;
            if nodes.first() != Some(&address) {
                waiting.extend(nodes);
                continue;
            }
            match self.ask(applicant, &address, clock).await {
                Ok(pb::JoinResponse { leader: Some(leader), .. }) => {
                    last = format!("{address} says that node {} leads", leader.node_id);
                    waiting.push_front(leader.internal_address);
                }
                Ok(response) => match joined(&response) {
                    Some(joined) => return Ok(joined),
                    None => last = format!("{address} gave no cluster id"),
                },
                Err(status) => {
                    if let Some(refusal) = JoinRefusal::of_status(&status) {
                        return Err(JoinError::Refused(refusal));
                    }
                    self.drop_connection(&address);
                    last = format!("{address}: {}", described(&status));
                }
            }
        }
        let asked: Vec<String> = asked.into_iter().collect();
        // An only address is named already.
        let last = match &asked[..] {
            [only] => last.strip_prefix(&format!("{only}: ")).map_or(last.clone(), str::to_owned),
            _ => last,
        };
        Err(JoinError::Unreachable { asked, last })
    }

    async fn ask(
        &self,
        applicant: &Applicant,
        address: &str,
        clock: &dyn Clock,
    ) -> Result<pb::JoinResponse, Status> {
        let Some(mut client) = self.client(address) else {
            return Err(Status::invalid_argument("that is no address"));
        };
        let request = applicant.request(clock.wall());
        tokio::select! {
            answer = client.join(request) => answer.map(tonic::Response::into_inner),
            () = clock.sleep(ANSWER_TIMEOUT) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

fn joined(response: &pb::JoinResponse) -> Option<Joined> {
    let bytes: [u8; 16] = response.cluster_id.as_ref().try_into().ok()?;
    Some(Joined { cluster: ClusterId::from_bytes(bytes), index: LogIndex::new(response.log_index) })
}

/// The text of a status with what caused it, each once.
fn described(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut connected = true;
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        connected &= !error.is::<tonic::ConnectError>();
        let part = error.to_string();
        if !text.contains(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        cause = error.source();
    }
    let broke = connected && std::error::Error::source(status).is_some();
    // No node says so, whatever it makes of the request.
    let foreign = matches!(status.code(), Code::Unimplemented | Code::Internal | Code::Unknown);
    if text.is_empty() {
        text = status.code().to_string();
    }
    if broke || foreign {
        return format!("what answers there is not the listener that nodes have for each other ({text})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_listener_for_nodes_is_told_from_one_that_cannot_be_reached() {
        let foreign = "what answers there is not the listener that nodes have for each other";
        let no_service = described(&Status::unimplemented(""));
        assert!(no_service.starts_with(foreign) && !no_service.contains("()"), "{no_service}");
        let broken = Status::from_error("the other side closed the connection".into());
        let text = described(&broken);
        assert!(text.starts_with(foreign), "{text}");
        assert_eq!(text.matches("the other side closed").count(), 1, "{text}");
        assert_eq!(described(&Status::unavailable("it is not ready")), "it is not ready");
    }
}
