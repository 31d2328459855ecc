//! Reads topics as a member of a consumer group: the members share the partitions among them, and go on where the group
//! left off.
//!
//! ```no_run
//! use streamhouse_client::StreamHouse;
//! use streamhouse_consumer::{GroupConsumer, GroupEvent};
//!
//! # async fn example() -> Result<(), streamhouse_client::Error> {
//! let house = StreamHouse::connect("localhost:9094").await?;
//! let mut billing = GroupConsumer::builder(&house, "billing").topics(["orders"]).join();
//! loop {
//!     if let GroupEvent::Batch { topic, batch } = billing.next().await? {
//!         for record in batch.records()? {
//!             println!("{topic}: {:?}", record?.value);
//!         }
//!         billing.commit().await?;
//!     }
//! }
//! # }
//! ```
//!
//! Members speak Kafka's classic group protocol with the bytes of its protocol type `consumer`, so that clients of both
//! kinds may be in one group, and either may lead.
//!
//! Architecture invariant: it speaks to a cluster through the client alone; who reads what is decided in pure functions.

mod assign;
mod consumer;
mod membership;
mod protocol;

pub use consumer::{GroupConsumer, GroupConsumerBuilder, GroupEvent};
