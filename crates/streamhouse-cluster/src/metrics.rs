//! The metrics of this crate. Facts of the cluster come from the node that leads, so that sums over nodes are right.

use std::collections::BTreeMap;

use metrics::{counter, gauge};
use streamhouse_metadata::{Drain, Liveness, NodeEntry, State};

/// Name, kind and help of every metric of this crate. Labels come from closed sets: `state` (serving, dead, draining,
/// stopped).
pub const METRICS: &[(&str, &str, &str)] = &[
    (NODES, "gauge", "Nodes of the cluster by state, as the leader sees them; 0 on all other nodes."),
    (HOMES_MOVED, "counter", "Homes that this node moved while it led."),
    (
        NODES_LOST,
        "counter",
        "Times that a node was called dead while this node led: silent, or alone unable to write to the object store.",
    ),
    (
        PARTITIONS_WITHOUT_HOME,
        "gauge",
        "Partitions at home on a node that takes no requests, as the leader sees them.",
    ),
];

pub(crate) const NODES: &str = "streamhouse_nodes";
pub(crate) const HOMES_MOVED: &str = "streamhouse_homes_moved_total";
pub(crate) const NODES_LOST: &str = "streamhouse_nodes_lost_total";
pub(crate) const PARTITIONS_WITHOUT_HOME: &str = "streamhouse_partitions_without_home";

/// What the leader sees; `None` when this node does not lead (any more).
pub(crate) fn show(state: Option<&State>) {
    let mut counts: BTreeMap<&str, u32> =
        ["serving", "dead", "draining", "stopped"].map(|name| (name, 0)).into();
    let mut homeless = 0_u32;
    if let Some(state) = state {
        for member in state.members().filter(|member| !member.is_removed()) {
            let open = state.node(member.id()).is_some_and(NodeEntry::is_open);
            let name = match (open, member.liveness(), member.drain() != Drain::None) {
                (false, ..) => "stopped",
                (true, Liveness::Dead, _) => "dead",
                (true, Liveness::Alive, true) => "draining",
                (true, Liveness::Alive, false) => "serving",
            };
            *counts.entry(name).or_default() += 1;
        }
        homeless = without_home(state);
    }
    for (name, count) in counts {
        gauge!(NODES, "state" => name).set(f64::from(count));
    }
    gauge!(PARTITIONS_WITHOUT_HOME).set(f64::from(homeless));
}

/// Partitions whose home may not be one.
pub(crate) fn without_home(state: &State) -> u32 {
    let homes: std::collections::BTreeSet<_> = state.eligible_homes().map(NodeEntry::id).collect();
    let homeless = state.partitions().filter(|partition| !homes.contains(&partition.home())).count();
    u32::try_from(homeless).unwrap_or(u32::MAX)
}

pub(crate) fn moved(homes: u32) {
    counter!(HOMES_MOVED).increment(homes.into());
}

pub(crate) fn lost() {
    counter!(NODES_LOST).increment(1);
}
