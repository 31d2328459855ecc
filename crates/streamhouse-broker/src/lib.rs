//! Who takes a batch, when it is stored, and who is told.
//!
//! Architecture invariants: this crate knows nothing of gRPC, Kafka or openraft. Only the flush actor uploads WAL
//! objects and proposes their commits. A record is acknowledged after its commit was applied, never before, and every
//! error says truly whether the write did not happen or may have happened. Decisions live in pure files
//! (`group_commit`, `lane`, `seal`, `plan`, `walk`); actors only move their effects.

mod admission;
mod broker;
mod budget;
mod error;
mod fetch;
mod flush;
mod log;
pub mod metrics;
pub mod objects;
mod partition;
mod pins;
mod producers;
mod requests;
mod restart;
mod session;
mod settings;
mod supervisor;
mod sweep;
mod tail;
mod topics;
mod watermark;

pub mod local_log;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use broker::{Broker, BrokerOptions, PendingAck, PendingUnit, Role};
pub use budget::{ByteBudget, BytePermit};
pub use error::{
    Advice, AppendError, FetchError, NotRegistered, Obstacle, ProducerError, StartError, StorageError,
    TopicError, UnitFault,
};
pub use flush::{Contact, StoreAccess};
pub use log::{MetadataLog, ProposeError, ReadIndexError};
pub use objects::{ObjectReport, ObjectState, StorageSummary};
pub use requests::{
    AppendRequest, Appended, FetchRequest, Fetched, FoundOffset, NewTopic, Position, TopicInfo, UnitAppend,
};
pub use session::Session;
pub use settings::BrokerSettings;
pub use streamhouse_metadata as metadata;
pub use streamhouse_storage::WritesSeen;
pub use sweep::{SweepGate, SweepReport};
pub use topics::Mode;
pub use watermark::{HighWatermarks, Subscription};
