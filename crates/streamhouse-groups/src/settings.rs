//! What a person can set about consumer groups.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long groups wait for their members, how many they may have, and how long they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSettings {
    /// How long the first rebalance of an empty group waits for more members; each that comes begins the wait anew, up
    /// to the rebalance timeout. Longer: fewer rebalances when many consumers start, a later first record.
    #[serde(with = "humantime_serde")]
    pub initial_rebalance_delay: Duration,
    /// Shortest session timeout that a member may ask for.
    #[serde(with = "humantime_serde")]
    pub session_timeout_min: Duration,
    /// Longest session timeout that a member may ask for.
    #[serde(with = "humantime_serde")]
    pub session_timeout_max: Duration,
    /// Most members of a group.
    pub members_max: usize,
    /// How long offsets are kept after the last member has gone.
    #[serde(with = "humantime_serde")]
    pub offset_retention: Duration,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_secs(3),
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(30 * 60),
            members_max: 1_000,
            offset_retention: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}
