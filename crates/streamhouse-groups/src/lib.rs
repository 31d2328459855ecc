//! Who is in a consumer group, who reads what, and how far they are.
//!
//! Architecture invariant: knows nothing of Kafka's frames, gRPC or openraft. What members must find again after their
//! coordinator is lost (members, generation, assignment, offsets) is in the metadata; what they can do without
//! (heartbeats, timers, requests that wait) is in the coordinator's memory. Two nodes may think that they coordinate a group
//! for a moment: the metadata knows its owner, and only the owner's changes are taken. The rules of a group are pure
//! (`group`); tasks only carry its effects.

mod admin;
mod changes;
mod coordinator;
mod error;
mod facade;
mod group;
mod keeper;
mod lag;
pub mod metrics;
mod placement;
mod registry;
mod requests;
mod settings;
pub mod subscription;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use admin::{GroupDescription, GroupState, GroupStatus, GroupSummary, MemberDescription};
pub use error::{GroupAdminError, GroupError, GroupObstacle, OffsetRefusal};
pub use facade::{Groups, GroupsOptions};
pub use lag::PartitionLag;
pub use placement::coordinator;
pub use requests::{
    CommitRequest, HeartbeatRequest, JoinRequest, Joined, JoinedMember, LeaveRequest, Leaver, MemberRef,
    Newcomers, SyncRequest, Synced,
};
pub use settings::GroupSettings;

/// Has a history that is read from bytes happen to a group and to the reference of its rules, for the fuzz target `group`.
///
/// # Panics
/// When the two differ.
#[cfg(fuzzing)]
pub fn judge_history(data: &[u8]) {
    group::tests::fuzz::run(data);
}
