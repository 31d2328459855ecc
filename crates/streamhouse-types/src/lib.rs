//! The nouns of StreamHouse: ids, offsets, record batches, error codes.
//!
//! Architecture invariant: this crate knows nothing of async, of I/O or of any other StreamHouse crate.
//! Every id and position is a newtype, so that no two of them can be mixed up; parsing is validation.

pub mod batch;
pub mod error_code;
mod ids;
mod names;
pub mod partitioner;
mod position;
mod time;

pub use ids::{
    Attempt, ClusterId, Incarnation, Lane, NodeId, ObjectId, ParseIdError, PartitionId, PartitionIndex, Slot,
    SlotSequence, TopicId,
};
pub use names::{GroupId, GroupIdError, NameError, TopicName};
pub use position::{Epoch, LogIndex, Offset, ProducerEpoch, ProducerId, Sequence};
pub use time::Timestamp;
