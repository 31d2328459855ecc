//! What must always hold, as far as the state can show it. Tests run this after every apply, and a snapshot that
//! was read is held against it before it is used.
//!
//! The numbers are those of the table in `docs/design.md`, section 9. I1, I9 and I12 concern what clients saw and
//! I8 two replicas; the protocol model in `tests/model/` checks those.

mod fleet;
mod groups;
mod log;
mod objects;
mod step;

use std::fmt::Display;

use streamhouse_types::{NodeId, TopicId};

use crate::lanes::DECISIONS_MAX;
use crate::topics::CLUSTER_PARTITIONS_MAX;
use crate::{LaneEntry, NodeEntry, State};

pub use step::{check_span, check_step};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Its number in the design, such as "I2".
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

type Check = Result<(), Violation>;

/// Fails with `what` unless `holds`.
#[expect(clippy::fn_params_excessive_bools, reason = "the one parameter is what is asserted")]
fn ensure<W: Display>(holds: bool, invariant: &'static str, what: impl FnOnce() -> W) -> Check {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what().to_string() }) }
}

/// Checks the whole state.
///
/// # Errors
/// The first violation found.
pub fn check(state: &State) -> Result<(), Violation> {
    check_topics(state)?;
    state.nodes.iter().try_for_each(|(id, node)| check_node(*id, node))?;
    fleet::check(state)?;
    state.partitions().try_for_each(|partition| log::check(state, partition))?;
    objects::check(state)?;
    groups::check(state)?;
    ensure(state.requests.is_consistent(state.applied()), "I10", || "remembered requests disagree")?;
    ensure(
        state.cluster().is_some() || *state == untouched(state),
        "I8",
        || "changed before it was bootstrapped",
    )
}

/// What a state that was never bootstrapped looks like.
fn untouched(state: &State) -> State {
    State { applied: state.applied(), ..State::new() }
}

fn check_topics(state: &State) -> Check {
    let mut names = 0;
    for (id, topic) in &*state.topics {
        let named = topic.id() == *id && state.names.get(topic.name()) == Some(id);
        ensure(named, "I2", || format!("topic {id} is not found by its name"))?;
        let given = *id >= TopicId::new(1) && *id < state.topic_next;
        ensure(given, "I2", || format!("topic id {id} was never given out"))?;
        ensure(topic.settings().check().is_ok(), "I8", || format!("topic {id} has impossible settings"))?;
        ensure(topic.partitions().len() > 0, "I2", || format!("topic {id} has no partition"))?;
        for (index, partition) in topic.partitions().enumerate() {
            let at = (partition.id().topic, u64::from(partition.id().index.get()));
            let placed = at == (*id, index as u64);
            ensure(placed, "I2", || format!("partition {} is at {id}/{index}", partition.id()))?;
        }
        names += 1;
    }
    ensure(state.names.len() == names, "I2", || "a name leads to no topic")?;
    let partitions = state.partitions().count() as u64;
    let counted = state.partition_count == partitions && partitions <= CLUSTER_PARTITIONS_MAX;
    ensure(counted, "I10", || format!("{partitions} partitions counted as {}", state.partition_count))
}

fn check_node(id: NodeId, node: &NodeEntry) -> Check {
    let entered = node.id() == id && node.incarnation().get() > 0;
    ensure(entered, "I9", || format!("node {id} is entered as {}/{}", node.id(), node.incarnation()))?;
    for lane in streamhouse_types::Lane::ALL {
        if let Some(entry) = node.lane(lane) {
            check_lane(entry)
                .map_err(|what| Violation { invariant: "I9", what: format!("node {id} {lane}: {what}") })?;
        }
    }
    Ok(())
}

fn check_lane(lane: &LaneEntry) -> Result<(), &'static str> {
    let remembered = || lane.decisions().map(|(sequence, _)| sequence);
    let (first, last) = (remembered().next(), remembered().last());
    if lane.lo().get() == 0 {
        return Err("slot 0 may commit");
    }
    if first.is_some_and(|first| first < lane.lo()) {
        return Err("an answer below lo is remembered");
    }
    // The newest slot is remembered until lo passes it.
    if last.is_some_and(|last| last != lane.newest()) || (last.is_none() && lane.newest() >= lane.lo()) {
        return Err("the newest answer is not that of the newest slot");
    }
    if remembered().count() > DECISIONS_MAX { Err("too many answers are remembered") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
