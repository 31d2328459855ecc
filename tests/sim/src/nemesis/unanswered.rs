//! A node that is heard by the others and not answered, until its incarnation is closed. What it proposes at first is done,
//! and it must not say that it was not.

use std::time::Duration;

use streamhouse_metadata::{NodeEntry, State};
use streamhouse_types::{Incarnation, Lane, NodeId, SlotSequence};
use turmoil::Sim;

use super::each_pair;
use crate::seed::Dice;
use crate::world::World;

/// How long it is waited for a node that can be left unanswered.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether a node is not answered. One at a time.
#[derive(Default)]
pub(super) enum Silence {
    #[default]
    None,
    /// As soon as there is one that can be left unanswered, unless this time comes first.
    Wanted(Duration),
    /// Until its incarnation is closed.
    Of(Unanswered),
}

impl Silence {
    pub(super) fn want(&mut self, now: Duration) {
        if matches!(self, Self::None) {
            *self = Self::Wanted(now + PATIENCE);
        }
    }

    /// Begins it if it is wanted and can be; says whether it has begun.
    pub(super) fn begin_when_wanted(&mut self, sim: &Sim<'_>, world: &World, dice: &Dice) -> bool {
        let Self::Wanted(until) = self else { return false };
        if sim.elapsed() >= *until {
            *self = Self::None;
            return false;
        }
        let Some(unanswered) = Unanswered::begin(sim, world, dice) else { return false };
        *self = Self::Of(unanswered);
        true
    }

    /// Ends it when it is time to.
    pub(super) fn end_when_over(&mut self, sim: &Sim<'_>, world: &World) {
        if let Self::Of(unanswered) = self
            && !unanswered.lasts(world, sim.elapsed())
        {
            self.end(sim);
        }
    }

    pub(super) fn end(&mut self, sim: &Sim<'_>) {
        if let Self::Of(Unanswered { host, others, .. }) = std::mem::take(self) {
            tracing::info!(node = host, "is answered again");
            each_pair(sim, &others, &[host], |sim, a, b| sim.repair_oneway(a, b));
        }
    }
}

pub(super) struct Unanswered {
    node: NodeId,
    incarnation: Incarnation,
    /// The newest of its slots that was decided when the others fell silent.
    newest: SlotSequence,
    /// Whether one was decided since.
    decided: bool,
    host: String,
    others: Vec<String>,
    /// When it is answered again, closed or not.
    until: Duration,
}

impl Unanswered {
    /// Picks one that follows and has homes, as clients write to it.
    fn begin(sim: &Sim<'_>, world: &World, dice: &Dice) -> Option<Self> {
        let rafts = world.rafts();
        let (leader, raft) = rafts.iter().find(|(_, raft)| raft.is_leader())?;
        let state = raft.state();
        let is_home = |node: &&NodeEntry| state.partitions().any(|partition| partition.home() == node.id());
        let follows = |node: &&NodeEntry| node.id() != *leader && rafts.contains_key(&node.id());
        let homes: Vec<&NodeEntry> =
            state.nodes().filter(follows).filter(is_home).filter(|node| node.is_open()).collect();
        if homes.is_empty() {
            return None;
        }
        let chosen = *dice.pick(&homes);
        let site = world.nodes.iter().find(|site| site.id() == chosen.id())?;
        let others = world.nodes.iter().map(|other| other.name.clone()).filter(|name| *name != site.name);
        let patience = Duration::from_millis(world.plan.close_after_ms * 3 / 2 + 5_000);
        let unanswered = Self {
            node: chosen.id(),
            incarnation: chosen.incarnation(),
            newest: chosen.lane(Lane::Wal)?.newest(),
            decided: false,
            host: site.name.clone(),
            others: others.collect(),
            until: sim.elapsed() + patience,
        };
        let Self { host, others, .. } = &unanswered;
        tracing::info!(node = host, "is not answered");
        each_pair(sim, others, std::slice::from_ref(host), |sim, a, b| sim.partition_oneway(a, b));
        Some(unanswered)
    }

    /// Whether it lasts, as of now.
    fn lasts(&mut self, world: &World, now: Duration) -> bool {
        let rafts = world.rafts();
        let leader = rafts.iter().find(|(node, raft)| **node != self.node && raft.is_leader());
        let Some((_, raft)) = leader else { return now < self.until };
        let state = raft.state();
        let lane = state.lane(self.node, self.incarnation, Lane::Wal);
        self.decided |= lane.is_some_and(|lane| lane.newest() > self.newest);
        if !self.is_closed(&state) {
            return now < self.until;
        }
        world.coverage.count("unanswered: the node's incarnation was closed");
        if self.decided {
            world.coverage.count(
                "unanswered: the node's incarnation was closed, and it had committed what it did not know",
            );
        }
        false
    }

    fn is_closed(&self, state: &State) -> bool {
        state.node(self.node).is_none_or(|node| node.incarnation() > self.incarnation || !node.is_open())
    }
}
