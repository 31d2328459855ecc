//! The metrics of this crate.

use std::collections::{BTreeMap, BTreeSet};

use metrics::{counter, gauge};
use streamhouse_broker::metadata::{GroupPhase, GroupRecord, State};
use streamhouse_types::{GroupId, NodeId, Timestamp, TopicId};

use crate::lag::{lag_of, present};

/// Name, kind (`counter`, `gauge`, `histogram`) and help of every metric of this crate. Labels are `group` and `topic`: only
/// the coordinator of a group tells of it, and as much as the groups themselves are bounded.
pub const METRICS: &[(&str, &str, &str)] = &[
    (GROUPS, "gauge", "Consumer groups that this node coordinates, by state."),
    (MEMBERS, "gauge", "Members of a consumer group."),
    (REBALANCES, "counter", "Rebalances that were completed, by consumer group."),
    (LAG_RECORDS, "gauge", "Records that a consumer group has not read yet, by topic."),
    (
        LAG_SECONDS,
        "gauge",
        "Time since the oldest record was appended that a consumer group has not read, by topic, in seconds; 0 when it has read all.",
    ),
];

const GROUPS: &str = "streamhouse_consumer_groups";
const MEMBERS: &str = "streamhouse_consumer_group_members";
const REBALANCES: &str = "streamhouse_consumer_group_rebalances_total";
const LAG_RECORDS: &str = "streamhouse_consumer_group_lag_records";
const LAG_SECONDS: &str = "streamhouse_consumer_group_lag_seconds";

/// Notes that a group was stored.
pub(crate) fn stored(group: &GroupId, record: &GroupRecord) {
    if record.phase == GroupPhase::Completing {
        counter!(REBALANCES, "group" => group.to_string()).increment(1);
    }
}

/// What was told of groups last, so that what does not hold any more is taken back.
#[derive(Debug, Default)]
pub(crate) struct Told {
    members: BTreeSet<GroupId>,
    lags: BTreeSet<(GroupId, TopicId, String)>,
}

impl Told {
    /// Tells of the groups that `node` owns.
    pub(crate) fn tell(&mut self, state: &State, node: NodeId, wall: Timestamp) {
        let (mut told, mut phases) = (Self::default(), BTreeMap::new());
        for (id, group) in state.groups() {
            if group.owner().is_none_or(|(owner, _)| owner != node) {
                continue;
            }
            let record = group.record();
            *phases.entry(word(record.phase)).or_insert(0_usize) += 1;
            gauge!(MEMBERS, "group" => id.to_string()).set(float(record.members.len() as u64));
            told.members.insert(id.clone());
            let mut topics: BTreeMap<TopicId, (u64, f64)> = BTreeMap::new();
            for lag in lag_of(state, group, present(state, wall)) {
                let topic = topics.entry(lag.partition.topic).or_default();
                topic.0 += lag.records;
                topic.1 = topic.1.max(lag.behind.as_secs_f64());
            }
            for (topic, (records, seconds)) in topics {
                let Some(name) = state.topic(topic).map(|topic| topic.name().to_string()) else { continue };
                lag(id, &name, float(records), seconds);
                told.lags.insert((id.clone(), topic, name));
            }
        }
        for phase in [GroupPhase::Empty, GroupPhase::Completing, GroupPhase::Stable].map(word) {
            gauge!(GROUPS, "state" => phase).set(float(phases.get(phase).copied().unwrap_or(0) as u64));
        }
        // The group has another coordinator now, or is gone.
        for id in self.members.difference(&told.members) {
            gauge!(MEMBERS, "group" => id.to_string()).set(0.0);
        }
        for (id, _, topic) in self.lags.difference(&told.lags) {
            lag(id, topic, 0.0, 0.0);
        }
        *self = told;
    }
}

fn lag(group: &GroupId, topic: &str, records: f64, seconds: f64) {
    gauge!(LAG_RECORDS, "group" => group.to_string(), "topic" => topic.to_owned()).set(records);
    gauge!(LAG_SECONDS, "group" => group.to_string(), "topic" => topic.to_owned()).set(seconds);
}

fn word(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Empty => "empty",
        GroupPhase::Completing => "completing",
        GroupPhase::Stable => "stable",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
fn float(number: u64) -> f64 {
    number as f64
}
