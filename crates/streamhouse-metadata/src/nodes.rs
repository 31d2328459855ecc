//! Nodes and their incarnations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use streamhouse_types::{Incarnation, Lane, NodeId, Slot};

use crate::producers::BLOCK_IDS_MAX;
use crate::state::{Changes, State};
use crate::{LaneEntry, Outcome, ProducerWindow, Refusal, RegisterNode, RequestId, SlotRefusal};

/// How many nodes a cluster can have had.
pub(crate) const NODES_MAX: usize = 10_000;
/// Longest zone, listener name, address or version in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 512;
/// Most addresses of a node.
const ADDRESSES_MAX: usize = 16;

/// A node and its newest incarnation. All earlier incarnations are closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    id: NodeId,
    incarnation: Incarnation,
    request: RequestId,
    zone: String,
    addresses: Vec<(String, String)>,
    /// By `Lane::code`; `None` when the incarnation is closed.
    lanes: Option<[LaneEntry; 3]>,
}

impl NodeEntry {
    /// The node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The newest incarnation, from 1.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the newest incarnation is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lanes.is_some()
    }

    /// The zone it named; may be empty.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Its address for a listener ("kafka", "grpc", "internal").
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<&str> {
        self.addresses.iter().find(|(name, _)| name == listener).map(|(_, address)| address.as_str())
    }

    /// One lane; `None` when the incarnation is closed.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> Option<&LaneEntry> {
        self.lanes.as_ref().map(|lanes| &lanes[usize::from(lane.code())])
    }

    /// Whether the incarnation was opened and can never commit again. One above the newest has yet to open.
    pub(crate) fn has_closed(&self, incarnation: Incarnation) -> bool {
        incarnation < self.incarnation || (incarnation == self.incarnation && self.lanes.is_none())
    }
}

impl RegisterNode {
    fn is_remembered(&self) -> bool {
        self.request != RequestId::default()
    }
}

fn check_texts(register: &RegisterNode) -> Result<(), Refusal> {
    let longest = register.addresses.iter().flat_map(|(name, address)| [name.len(), address.len()]).max();
    if register.zone.len().max(longest.unwrap_or(0)) > TEXT_BYTES_MAX {
        return Err(Refusal::Limit {
            what: "bytes in a node's zone or address".into(),
            limit: TEXT_BYTES_MAX as u64,
        });
    }
    if register.addresses.len() > ADDRESSES_MAX {
        return Err(Refusal::Limit { what: "addresses of a node".into(), limit: ADDRESSES_MAX as u64 });
    }
    Ok(())
}

impl State {
    pub(crate) fn register_node(&mut self, register: &RegisterNode, changes: &mut Changes) -> Outcome {
        if let Err(refusal) = check_texts(register) {
            return Outcome::Refused(refusal);
        }
        if let Some(refusal) = self.refuse_registration(register.node) {
            return Outcome::MemberRefused(refusal);
        }
        let known = self.nodes.get(&register.node);
        if let Some(same) = known.filter(|node| node.request == register.request && register.is_remembered())
        {
            return Outcome::Registered { incarnation: same.incarnation };
        }
        if let Some(refusal) = self.refuse_another_member(register.node) {
            return Outcome::Refused(refusal);
        }
        let incarnation = known.map_or(Incarnation::default(), |node| node.incarnation).next();
        let entry = NodeEntry {
            id: register.node,
            incarnation,
            request: register.request,
            zone: register.zone.clone(),
            addresses: register.addresses.clone(),
            lanes: Some(Default::default()),
        };
        // Replacing the entry closes the incarnation before: its lanes are gone.
        self.nodes.insert(register.node, Arc::new(entry));
        self.groups.writer_closed(register.node);
        self.member_registered(register.node, changes);
        changes.nodes_changed = true;
        Outcome::Registered { incarnation }
    }

    pub(crate) fn close_incarnation(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(entry) = self.nodes.get_mut(&node).filter(|entry| incarnation <= entry.incarnation) else {
            return Outcome::Refused(Refusal::UnknownNode);
        };
        if incarnation == entry.incarnation && entry.lanes.is_some() {
            Arc::make_mut(entry).lanes = None;
            self.groups.writer_closed(node);
            self.member_closed(node, changes);
            changes.nodes_changed = true;
        }
        Outcome::Done
    }

    /// The open incarnation of a node.
    pub(crate) fn open_incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.nodes.get(&node).filter(|entry| entry.is_open()).map(|entry| entry.incarnation)
    }

    /// The lane of a slot, to be changed; `None` unless its incarnation is open.
    pub(crate) fn lane_mut(&mut self, slot: &Slot) -> Option<&mut LaneEntry> {
        let entry = self.nodes.get_mut(&slot.node).filter(|entry| entry.incarnation == slot.incarnation)?;
        // Looked at before it is copied: a refused command copies nothing.
        entry.lanes.as_ref()?;
        let lanes = Arc::make_mut(entry).lanes.as_mut()?;
        Some(&mut lanes[usize::from(slot.lane.code())])
    }

    pub(crate) fn advance_lo(&mut self, slot: &Slot) -> Outcome {
        let Some(lane) = self.lane_mut(slot) else {
            let current = self.open_incarnation(slot.node);
            return Outcome::SlotRefused(SlotRefusal::IncarnationClosed { current });
        };
        lane.advance(slot.sequence);
        Outcome::Done
    }

    pub(crate) fn grant_producer_ids(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        count: u32,
        window: ProducerWindow,
    ) -> Outcome {
        if self.open_incarnation(node) != Some(incarnation) {
            return Outcome::Refused(Refusal::UnknownNode);
        }
        let limit =
            Refusal::Limit { what: "producer ids in a block".into(), limit: u64::from(BLOCK_IDS_MAX) };
        if count == 0 || count > BLOCK_IDS_MAX {
            return Outcome::Refused(limit);
        }
        match self.grants.take(count, window) {
            Some(first) => Outcome::ProducerIds { first, count },
            None => Outcome::Refused(Refusal::Limit { what: "producer ids".into(), limit: 1 << 40 }),
        }
    }
}
