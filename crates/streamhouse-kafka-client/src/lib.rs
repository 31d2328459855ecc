//! What Kafka clients do, and what they saw: an idempotent producer and a member of a consumer group, for tests.
//!
//! Both go on through lost connections, other leaders and other coordinators as real clients do, and write down what
//! `streamhouse check` judges.
//!
//! Architecture invariant: it knows Kafka's protocol and what was promised to those who speak it, and nothing of how
//! StreamHouse works.

mod cluster;
mod group;
mod member;
mod offer;
mod produce;
pub mod wire;

use streamhouse_check::{Acknowledged, Event, Happened, Micros, OpId, Sending};

pub use cluster::{Cluster, Place};
pub use member::{Habits, Member};
pub use offer::offer;
pub use produce::{Load, Producer};
pub use tokio_util::sync::CancellationToken;

/// Takes down what clients saw.
pub trait Witness: Clone + Send + Sync + 'static {
    /// The time of the history.
    fn now(&self) -> Micros;

    /// Records are about to be sent. Called before the first byte leaves.
    fn append(&self, sending: &Sending<'_>) -> OpId;

    /// They are durable.
    fn acked(&self, op: OpId, acknowledged: Acknowledged);

    /// They were given up.
    fn failed(&self, op: OpId, happened: Happened, error: &str);

    /// Anything else that a history holds.
    fn record(&self, event: Event<'_>);

    /// Something that a campaign wants to have met.
    fn met(&self, what: &str);

    /// Something that must never be told to a client.
    fn wrong(&self, what: String);
}

/// Kafka's error codes, as far as clients act on them.
pub(crate) mod code {
    pub(crate) const NONE: i16 = 0;
    pub(crate) const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub(crate) const NOT_LEADER: i16 = 6;
    pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
    pub(crate) const NETWORK_EXCEPTION: i16 = 13;
    pub(crate) const COORDINATOR_LOADING: i16 = 14;
    pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub(crate) const NOT_COORDINATOR: i16 = 16;
    pub(crate) const ILLEGAL_GENERATION: i16 = 22;
    pub(crate) const UNKNOWN_MEMBER: i16 = 25;
    pub(crate) const REBALANCE_IN_PROGRESS: i16 = 27;
    pub(crate) const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub(crate) const FENCED_LEADER_EPOCH: i16 = 74;
    pub(crate) const MEMBER_ID_REQUIRED: i16 = 79;
    pub(crate) const UNKNOWN: i16 = -1;
}
