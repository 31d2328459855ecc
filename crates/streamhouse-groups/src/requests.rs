//! What members ask for, and what they are answered.

use std::time::Duration;

use bytes::Bytes;
use streamhouse_broker::metadata::OffsetCommit;
use streamhouse_types::{GroupId, PartitionId};

/// A consumer wants to be a member, or to stay one in the next generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group.
    pub group: GroupId,
    /// The id that it was given; "" for a new member.
    pub member: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// How its client calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// How long it may take to join again when there is a rebalance.
    pub rebalance_timeout: Duration,
    /// What the group is for, "consumer" mostly.
    pub protocol_type: String,
    /// The protocols it knows, most wanted first, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// How it is let in when it has no id.
    pub newcomers: Newcomers,
}

/// How a member without an id is let in. A static member always is at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomers {
    /// It is given an id first, and joins with that: a client that joins twice by mistake is then known.
    MustReturn,
    /// At once.
    AtOnce,
}

/// A generation has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member: String,
    /// The generation, from 1.
    pub generation: u32,
    /// What the group is for.
    pub protocol_type: String,
    /// The protocol that all members know.
    pub protocol: String,
    /// The member that assigns.
    pub leader: String,
    /// Whether the assignment stands although this member leads: a static one that came back under a new id.
    pub skip_assignment: bool,
    /// Everybody, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
}

impl Joined {
    /// For clients that cannot be told to let the assignment stand: nobody is told to lead then.
    #[must_use]
    pub fn without_skip(self) -> Self {
        if !self.skip_assignment {
            return self;
        }
        Self { leader: String::new(), skip_assignment: false, members: Vec::new(), ..self }
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub id: String,
    /// The name under which it comes back, when it is static.
    pub instance: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// Who speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberRef {
    /// The id that it was given; "" for somebody who is no member.
    pub id: String,
    /// The name under which a static member comes back.
    pub instance: Option<String>,
    /// The generation that it knows; `None` for one that no group has.
    pub generation: Option<u32>,
}

/// A member wants its assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: GroupId,
    /// Who asks.
    pub member: MemberRef,
    /// What it takes the group for, when it says so.
    pub protocol_type: Option<String>,
    /// What it takes for the chosen protocol, when it says so.
    pub protocol: Option<String>,
    /// Assignments by member, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// What a member is to do in this generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// What the group is for.
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// What the leader assigned, byte for byte; may be empty.
    pub assignment: Bytes,
}

/// A member is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// Who is there.
    pub member: MemberRef,
}

/// Members go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group: GroupId,
    /// Who goes.
    pub members: Vec<Leaver>,
}

/// A member that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// Its id; "" for a static member that somebody else takes out.
    pub id: String,
    /// The name of a static member.
    pub instance: Option<String>,
}

/// Offsets are to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group.
    pub group: GroupId,
    /// Who commits; without id and generation somebody outside, which a group with members refuses.
    pub member: MemberRef,
    /// The offsets.
    pub offsets: Vec<OffsetCommit>,
    /// Partitions of which it is forgotten how far the group has read, on the same word.
    pub forget: Vec<PartitionId>,
}
