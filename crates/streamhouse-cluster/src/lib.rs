//! Who is there, and who does what: leases, homes and voters, decided on the node that leads; and how nodes talk to
//! each other apart from Raft.
//!
//! Architecture invariants: nothing here decides safety. A lease that ends too early moves homes, and homes are for
//! order and caches only; every command is judged again in apply. Decisions live in pure files (`lease`, `duties`), the
//! actor only moves their effects. Leases go by differences of the leader's own clock; cluster time goes by the calendars
//! of most nodes, and a node whose calendar is far from them is not let in.

mod admission;
mod beats;
mod clocks;
mod cluster;
mod controller;
mod duties;
mod feed;
mod follow;
mod join;
mod lease;
mod membership;
pub mod metrics;
mod peers;
mod reader;
mod readers;
mod service;
mod settings;

pub use admission::{Applicant, JoinRefusal};
pub use beats::Heart;
pub use clocks::{AgreedTime, is_near};
pub use cluster::{Cluster, ClusterOptions, LeaderError, MemberView, View};
pub use controller::{Controller, ControllerOptions, MemberContact, NotLeading};
pub use feed::Feed;
pub use join::{JoinError, Joined};
pub use lease::{Beat, BeatAnswer, BeatVerdict};
pub use membership::{Leadership, Membership, MembershipFault, RaftMember, RaftMembers};
pub use peers::Peers;
pub use reader::ReaderLog;
pub use readers::{ReaderTold, ReaderView};
pub use service::NodeRpc;
pub use settings::LeaseSettings;
