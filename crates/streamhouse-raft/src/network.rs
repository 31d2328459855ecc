//! Raft between nodes, over gRPC.

mod acknowledged;
mod client;
mod connector;
mod convert;
mod forward;
mod guard;
mod incoming;
mod server;
mod stream;

pub(crate) use acknowledged::Acknowledged;
pub(crate) use client::Network;
pub(crate) use connector::Connector;
pub use forward::never_sent;
pub(crate) use forward::{Forwarded, Forwarder, Leader};
pub use guard::{CLUSTER_METADATA, ClusterGuard};
pub(crate) use guard::{Part, Room};
pub use server::RaftRpc;
