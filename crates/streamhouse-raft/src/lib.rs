//! How nodes agree on the order of commands: openraft over the metadata state machine.
//!
//! Architecture invariant: this crate never knows what a topic is. It applies, clones, encodes and decodes the
//! metadata state as a whole, and nothing outside it names a type of the consensus library.

mod checksum;
mod codec;
mod error;
mod files;
mod identity;
mod log;
mod machine;
mod network;
mod node;
mod observer;
mod propose;
mod runtime;
mod settings;
mod snapshot;
mod types;

pub mod metrics;

pub use error::{Failure, MembershipError, ProposeError, ReadError, StartError};
pub use identity::{Identity, IdentityError};
#[doc(hidden)]
pub use log::judge_log_record;
pub use network::{CLUSTER_METADATA, ClusterGuard, RaftRpc, never_sent};
pub use node::{Leadership, RaftMember, RaftMemberStatus, RaftNode, RaftOptions, RaftStatus};
pub use observer::{ApplyObserver, LeaderCommands, SnapshotInfo, SnapshotSink};
pub use propose::{PROPOSAL_BYTES_MAX, PROPOSAL_COMMANDS_MAX};
pub use settings::RaftSettings;
