//! Answers to requests of clients, remembered so that a repeated proposal gets its first one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};
use streamhouse_types::LogIndex;

use crate::{Command, Outcome, Refusal, RequestId, codec};

/// How many answers are remembered, in the order of the log.
pub(crate) const REQUESTS_MAX: usize = 4_096;

/// The id of a request that is not to be remembered.
const NOT_REMEMBERED: RequestId = [0; 16];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    index: LogIndex,
    /// Digest of the command, so that an id used twice for different requests is found out.
    digest: u64,
    outcome: Outcome,
}

/// The newest answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    answers: Arc<BTreeMap<RequestId, Remembered>>,
    order: Arc<BTreeMap<LogIndex, RequestId>>,
}

fn digest(command: &Command) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &codec::encode_command(command))
}

impl Requests {
    /// What was answered to this request before. Refusals are remembered too: a request that was answered *did not
    /// happen* must not happen later by a late copy.
    pub(crate) fn answer(&self, request: &RequestId, command: &Command) -> Option<Outcome> {
        let known = self.answers.get(request)?;
        if known.digest == digest(command) {
            Some(known.outcome.clone())
        } else {
            Some(Outcome::Refused(Refusal::RequestReused))
        }
    }

    /// Remembers an answer, and forgets the oldest past the limit.
    pub(crate) fn remember(
        &mut self,
        request: RequestId,
        command: &Command,
        index: LogIndex,
        outcome: &Outcome,
    ) {
        if request == NOT_REMEMBERED {
            return;
        }
        let answers = Arc::make_mut(&mut self.answers);
        let order = Arc::make_mut(&mut self.order);
        answers.insert(request, Remembered { index, digest: digest(command), outcome: outcome.clone() });
        order.insert(index, request);
        while order.len() > REQUESTS_MAX {
            let (_, oldest) = order.pop_first().expect("the list is over its limit");
            answers.remove(&oldest);
        }
    }

    /// Whether both maps hold the same requests, within the limit; for the invariants.
    pub(crate) fn is_consistent(&self, applied: LogIndex) -> bool {
        let listed = |(id, known): (&RequestId, &Remembered)| {
            known.index <= applied && self.order.get(&known.index) == Some(id)
        };
        self.answers.len() == self.order.len()
            && self.order.len() <= REQUESTS_MAX
            && self.answers.iter().all(listed)
    }
}
