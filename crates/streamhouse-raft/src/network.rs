//! Raft between nodes, over gRPC.

mod client;
mod convert;
mod server;

pub(crate) use client::{Connector, Network, read_index_of};
pub use server::RaftRpc;
