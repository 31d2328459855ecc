//! What a person may turn.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};

/// How the metadata log behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftSettings {
    /// How often a leader shows that it lives. Shorter finds a dead leader sooner and costs messages.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Shortest silence of a leader after which a voter stands for election; at least three heartbeats, so that one
    /// slow message moves nothing, and more than half of the longest by at least a heartbeat.
    #[serde(with = "humantime_serde")]
    pub election_min: Duration,
    /// Longest such silence; each voter draws a time between the two.
    #[serde(with = "humantime_serde")]
    pub election_max: Duration,
    /// Entries after which a snapshot is taken. More makes restarts slower, fewer writes more.
    pub snapshot_entries: u64,
    /// Bytes of commands after which a snapshot is taken even when they are fewer entries.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot for followers that lag a little, which else get the whole snapshot.
    pub keep_entries: u64,
    /// Length of a log file, reserved when it is made. A start reads each file whole, so small ones start faster, take less
    /// memory then and less disk on an idle node; large ones are begun less often.
    pub segment_bytes: u64,
    /// Newest entries kept in memory; older ones are read from the log file when a lagging follower needs them.
    pub cache_bytes: u64,
    /// How long a proposal looks for a leader before it is answered with "did not happen".
    #[serde(with = "humantime_serde")]
    pub propose_timeout: Duration,
    /// How long a command that was appended is waited for before it is answered with "unknown".
    #[serde(with = "humantime_serde")]
    pub commit_timeout: Duration,
    /// Longest a snapshot may take to reach another node.
    #[serde(with = "humantime_serde")]
    pub snapshot_timeout: Duration,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(900),
            election_max: Duration::from_millis(1_200),
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 1_000,
            segment_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            propose_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(30),
            snapshot_timeout: Duration::from_secs(120),
        }
    }
}

impl RaftSettings {
    /// Small files, for a node on a laptop.
    #[must_use]
    pub fn small() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 4 << 20, ..Self::default() }
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// What is wrong, as a sentence for a person.
    pub fn validate(&self) -> Result<(), String> {
        if self.heartbeat < Duration::from_millis(10) {
            return Err("raft.heartbeat must be at least 10ms".to_owned());
        }
        if self.election_min < self.heartbeat * 3 {
            return Err("raft.election_min must be at least three heartbeats".to_owned());
        }
        if self.election_max <= self.election_min {
            return Err("raft.election_max must be longer than raft.election_min".to_owned());
        }
        if self.election_min < self.leader_lease() + self.heartbeat {
            return Err(
                "raft.election_min must be at least half of raft.election_max and a heartbeat".to_owned()
            );
        }
        if !(1 << 16..=1 << 30).contains(&self.segment_bytes) {
            return Err("raft.segment_bytes must lie between 64 KiB and 1 GiB".to_owned());
        }
        if self.snapshot_entries == 0 || self.snapshot_bytes == 0 {
            return Err("raft.snapshot_entries and raft.snapshot_bytes must be above 0".to_owned());
        }
        Ok(())
    }

    /// For so long after a word of its leader a voter votes for nobody else. It is the first part of each silence.
    fn leader_lease(&self) -> Duration {
        self.election_max / 2
    }

    pub(crate) fn to_openraft(&self) -> Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: "streamhouse".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            // The library grants a lease of `election_timeout_max` first, and draws a time between the two after it.
            election_timeout_min: millis(self.election_min.saturating_sub(self.leader_lease())),
            election_timeout_max: millis(self.leader_lease()),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // Further behind than a snapshot plus what is kept, a follower gets the snapshot.
            replication_lag_threshold: self.snapshot_entries.saturating_add(self.keep_entries),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            enable_pre_vote: Some(true),
            allow_log_reversion: Some(false),
            // A leader that starts again may have a commit index behind what it answered before; it must be elected anew.
            enable_leader_restore: Some(false),
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        for settings in [RaftSettings::default(), RaftSettings::small()] {
            settings.validate().expect("valid");
            settings.to_openraft().validate().expect("openraft accepts them");
        }
    }

    #[test]
    fn an_election_sooner_than_three_heartbeats_is_refused() {
        let settings = RaftSettings { election_min: Duration::from_millis(200), ..RaftSettings::default() };
        assert!(settings.validate().is_err_and(|text| text.contains("three heartbeats")));
    }

    #[test]
    fn the_silence_before_an_election_lies_between_the_two_settings() {
        let settings = RaftSettings::default();
        let config = settings.to_openraft();
        let silence = |drawn| Duration::from_millis(config.election_timeout_max + drawn);
        assert_eq!(silence(config.election_timeout_min), settings.election_min);
        assert_eq!(silence(config.election_timeout_max), settings.election_max);
        let settings = RaftSettings { election_max: settings.election_min * 2, ..settings };
        assert!(settings.validate().is_err_and(|text| text.contains("half")));
    }
}
