//! Who has been heard of lately, as the leader knows it. Pure: time is an argument, on the leader's own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use streamhouse_broker::WritesSeen;
use streamhouse_metadata::{Command, Liveness, NodeEntry, State};
use streamhouse_types::{Incarnation, LogIndex, NodeId};

use crate::LeaseSettings;
use crate::clocks::Calendar;

/// What a node says of itself with each beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Who it is.
    pub node: NodeId,
    /// Under which incarnation it writes.
    pub incarnation: Incarnation,
    /// How far it has applied the metadata.
    pub applied: LogIndex,
    /// Nothing that died at or before this index is read by it, or by the readers that follow it.
    pub pinned: LogIndex,
    /// What its clock shows; `None` from releases that do not tell.
    pub calendar: Option<Calendar>,
    /// How its writes to the object store have gone, at the time of the beat.
    pub writes: WritesSeen,
}

/// What the leader answers to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatAnswer {
    /// How the incarnation stands.
    pub verdict: BeatVerdict,
    /// Whether the node is to show that its writes to the object store go through, as those of another fail.
    pub prove_writes: bool,
}

/// How the incarnation of a beat stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatVerdict {
    /// The incarnation is open.
    Open,
    /// It is closed: the node must register again.
    Closed,
}

/// What is known of one node.
#[derive(Debug, Clone, Copy)]
struct Lease {
    incarnation: Incarnation,
    /// When it was heard of last, or granted a lease.
    heard: Duration,
    /// Its newest beat in this term.
    beat: Option<Beat>,
}

/// Which nodes can write to the object store, as far as the leader knows.
#[derive(Debug, PartialEq, Eq)]
enum Writing {
    /// At least one can; these have failed for long.
    AllBut(BTreeSet<NodeId>),
    /// No node that may be a home: the store is gone, and each keeps what it has.
    Nobody,
    /// Some fail, and whether others can is not known.
    Unknown,
}

impl Writing {
    fn is_cut_off(&self, node: NodeId) -> bool {
        matches!(self, Self::AllBut(failing) if failing.contains(&node))
    }
}

/// The leases that this leader has granted.
#[derive(Debug)]
pub(crate) struct Leases {
    settings: LeaseSettings,
    nodes: BTreeMap<NodeId, Lease>,
    judged: Duration,
    /// Whether the writes of some node fail, so that the others are to show theirs.
    prove_writes: bool,
    /// Who can write, as judged last.
    writing: Writing,
}

impl Leases {
    pub(crate) fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            judged: Duration::ZERO,
            prove_writes: false,
            writing: Writing::Unknown,
        }
    }

    /// A new term of this leader: it has heard of nobody yet, so everybody gets a full lease.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.nodes.clear();
        self.judged = now;
        self.prove_writes = false;
    }

    /// A node shows that it lives.
    pub(crate) fn beat(&mut self, beat: Beat, now: Duration, state: &State) -> BeatAnswer {
        BeatAnswer { verdict: self.hear(beat, now, state), prove_writes: self.prove_writes }
    }

    fn hear(&mut self, beat: Beat, now: Duration, state: &State) -> BeatVerdict {
        let open = state.node(beat.node).filter(|node| node.is_open()).map(NodeEntry::incarnation);
        if open != Some(beat.incarnation) {
            // One that this leader has yet to hear of is not closed.
            let newer = state.node(beat.node).is_none_or(|node| beat.incarnation > node.incarnation());
            return if newer { BeatVerdict::Open } else { BeatVerdict::Closed };
        }
        let lease = Lease { incarnation: beat.incarnation, heard: now, beat: Some(beat) };
        self.nodes.insert(beat.node, lease);
        BeatVerdict::Open
    }

    /// What the silence of some and the return of others ask for. `own` is the leader, which needs no lease.
    pub(crate) fn judge(&mut self, now: Duration, state: &State, own: NodeId) -> Vec<Command> {
        // A leader that was paused has heard nobody, which says nothing about them.
        if now.saturating_sub(self.judged) > self.settings.lease / 2 {
            self.begin(now);
        }
        self.judged = now;
        self.writing = self.writing(now, state);
        let writing = &self.writing;
        let mut commands = Vec::new();
        for node in state.nodes().filter(|node| node.is_open()) {
            let (id, incarnation) = (node.id(), node.incarnation());
            let Some(member) = state.member(id) else { continue };
            let fresh = Lease { incarnation, heard: now, beat: None };
            let lease = self.nodes.entry(id).or_insert(fresh);
            if lease.incarnation != incarnation {
                *lease = fresh;
            }
            let silent = if id == own { Duration::ZERO } else { now.saturating_sub(lease.heard) };
            let may_live =
                lease.beat.is_some_and(|beat| beat.writes.failing.is_none() || *writing == Writing::Nobody);
            let judge = |liveness| Command::JudgeNode { node: id, incarnation, liveness };
            let lost = silent > self.settings.lease || writing.is_cut_off(id);
            if silent > self.settings.close_after {
                commands.push(Command::CloseIncarnation { node: id, incarnation });
            } else if lost && member.is_alive() {
                commands.push(judge(Liveness::Dead));
            } else if !lost && may_live && !member.is_alive() {
                commands.push(judge(Liveness::Alive));
            }
        }
        self.nodes.retain(|id, _| state.node(*id).is_some_and(NodeEntry::is_open));
        commands
    }

    /// Whether this node could not write when leases were judged last, while another could.
    pub(crate) fn is_cut_off(&self, node: NodeId) -> bool {
        self.writing.is_cut_off(node)
    }

    /// Who can write to the object store, of the nodes that can be heard.
    fn writing(&mut self, now: Duration, state: &State) -> Writing {
        let patience = self.settings.store;
        let heard = |lease: &Lease| now.saturating_sub(lease.heard);
        let near = self.nodes.iter().filter(|(_, lease)| heard(lease) <= self.settings.lease);
        let told: Vec<(NodeId, WritesSeen, Duration)> =
            near.filter_map(|(id, lease)| Some((*id, lease.beat?.writes, heard(lease)))).collect();
        let failing = |seen: &WritesSeen, than: Duration| seen.failing.is_some_and(|span| span > than);
        self.prove_writes = told.iter().any(|(_, seen, _)| failing(seen, patience / 2));
        let fails =
            |home: &NodeEntry| told.iter().any(|(id, seen, _)| *id == home.id() && seen.failing.is_some());
        if state.eligible_homes().all(fails) {
            return Writing::Nobody;
        }
        let works = |(id, seen, heard): &(NodeId, WritesSeen, Duration)| {
            let lately = seen.succeeded.is_some_and(|ago| ago.saturating_add(*heard) <= patience / 2);
            seen.failing.is_none() && lately && state.eligible_homes().any(|home| home.id() == *id)
        };
        if !told.iter().any(works) {
            return Writing::Unknown;
        }
        Writing::AllBut(
            told.iter().filter(|(_, seen, _)| failing(seen, patience)).map(|(id, ..)| *id).collect(),
        )
    }

    /// Up to which index what died may be deleted, as far as other nodes go: every open incarnation but `own` has said
    /// that it reads nothing older. `None` while one of them has not said so in this term.
    pub(crate) fn pin_floor(&self, state: &State, own: NodeId) -> Option<LogIndex> {
        let mut floor = state.applied();
        for node in state.nodes().filter(|node| node.is_open() && node.id() != own) {
            let lease = self.nodes.get(&node.id()).filter(|lease| lease.incarnation == node.incarnation())?;
            floor = floor.min(lease.beat?.pinned);
        }
        Some(floor)
    }

    /// What the clocks of the nodes show that were heard of lately. One that does not tell shows what the leader's does.
    pub(crate) fn calendars(&self, now: Duration, own: Calendar) -> Vec<(NodeId, Calendar)> {
        let near =
            self.nodes.iter().filter(|(_, lease)| now.saturating_sub(lease.heard) <= self.settings.lease);
        near.filter_map(|(id, lease)| Some((*id, lease.beat?.calendar.unwrap_or(own)))).collect()
    }

    /// Since when a node is silent, and its newest beat; `None` when it never beat in this term.
    pub(crate) fn contact(&self, node: NodeId, now: Duration) -> Option<(Duration, Beat)> {
        let lease = self.nodes.get(&node)?;
        lease.beat.map(|beat| (now.saturating_sub(lease.heard), beat))
    }
}

#[cfg(test)]
mod tests;
