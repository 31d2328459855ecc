//! What this crate measures.

/// A metric: its name, its kind and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

pub(crate) const IS_LEADER: &str = "streamhouse_raft_is_leader";
pub(crate) const TERM: &str = "streamhouse_raft_term";
pub(crate) const COMMIT_SECONDS: &str = "streamhouse_raft_commit_seconds";
pub(crate) const LOG_BYTES: &str = "streamhouse_raft_log_bytes";
pub(crate) const LOG_SYNC_SECONDS: &str = "streamhouse_raft_log_sync_seconds";
pub(crate) const LEADER_CHANGES: &str = "streamhouse_raft_leader_changes_total";
pub(crate) const APPLY_LAG: &str = "streamhouse_raft_apply_lag_entries";
pub(crate) const SNAPSHOT_INDEX: &str = "streamhouse_raft_snapshot_index";
pub(crate) const SNAPSHOT_BYTES: &str = "streamhouse_raft_snapshot_bytes";
pub(crate) const SNAPSHOT_AGE: &str = "streamhouse_raft_snapshot_age_entries";

/// All metrics of this crate.
pub const ALL: &[Metric] = &[
    Metric { name: IS_LEADER, kind: Kind::Gauge, help: "1 while this node leads the metadata log, else 0." },
    Metric { name: TERM, kind: Kind::Gauge, help: "Current term of the metadata log." },
    Metric {
        name: COMMIT_SECONDS,
        kind: Kind::Histogram,
        help: "Time from a proposal to its applied answer, for proposals made on this node.",
    },
    Metric { name: LOG_BYTES, kind: Kind::Gauge, help: "Bytes of log written to files that still exist." },
    Metric {
        name: LOG_SYNC_SECONDS,
        kind: Kind::Histogram,
        help: "Time one group of log records took to be written and synced.",
    },
    Metric {
        name: LEADER_CHANGES,
        kind: Kind::Counter,
        help: "Times this node saw another leader than before.",
    },
    Metric {
        name: APPLY_LAG,
        kind: Kind::Gauge,
        help: "Entries in the log that are not applied on this node.",
    },
    Metric { name: SNAPSHOT_INDEX, kind: Kind::Gauge, help: "Last entry in the newest snapshot." },
    Metric { name: SNAPSHOT_BYTES, kind: Kind::Gauge, help: "Length of the newest snapshot file." },
    Metric { name: SNAPSHOT_AGE, kind: Kind::Gauge, help: "Entries applied since the newest snapshot." },
];

/// A count as a gauge takes it.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts here stay far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_one_name_and_a_sentence() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(
            ALL.iter()
                .all(|metric| metric.name.starts_with("streamhouse_raft_") && metric.help.ends_with('.'))
        );
    }
}
