//! Cluster time: moved by the leader's ticks alone.

use streamhouse_types::{ClusterId, Timestamp};

use crate::state::State;
use crate::{Outcome, Refusal};

/// Furthest that one tick moves cluster time, in milliseconds. A leader whose clock is years ahead cannot age
/// everything at once; after a long stop it takes several ticks to catch up.
pub const TICK_ADVANCE_MAX_MS: i64 = 600_000;

impl State {
    pub(crate) fn bootstrap(&mut self, cluster: ClusterId, now: Timestamp) -> Outcome {
        if let Some(cluster) = self.cluster {
            return Outcome::Refused(Refusal::AlreadyBootstrapped { cluster });
        }
        self.cluster = Some(cluster);
        self.time = now.max(Timestamp::default());
        Outcome::Done
    }

    pub(crate) fn tick(&mut self, now: Timestamp) -> Outcome {
        self.time = now.min(self.time.plus_millis(TICK_ADVANCE_MAX_MS)).max(self.time);
        Outcome::Done
    }
}
