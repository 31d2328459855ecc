//! Nodes and their incarnations.

use serde::{Deserialize, Serialize};
use streamhouse_types::{Incarnation, Lane, NodeId};

use crate::{LaneEntry, RequestId};

/// A node and its newest incarnation. All earlier incarnations are closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) request: RequestId,
    pub(crate) zone: String,
    pub(crate) addresses: Vec<(String, String)>,
    /// By `Lane::code`; `None` when the incarnation is closed.
    pub(crate) lanes: Option<[LaneEntry; 3]>,
}

impl NodeEntry {
    /// The node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The newest incarnation.
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
}
