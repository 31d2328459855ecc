//! How Kafka's protocol is spoken: frames, requests, connections, and what each request means to the broker.
//!
//! Architecture invariant: knows nothing of what lies behind the broker's facade. Kafka's signed numbers, names and
//! error codes end here. Bytes from a client never panic it, and never make it allocate more than they are long:
//! lengths are checked against limits before memory is taken. Record batches pass as slices of the frame they came in;
//! what is read goes out as the pieces that the broker hands over.

mod api;
mod code;
mod codec;
mod connection;
mod frame;
mod handle;
pub mod metrics;
mod order;
mod service;

pub use api::{Api, VersionRange};
pub use code::Code;
pub use codec::{DecodeError, Request, decode};
pub use service::{CheckError, Checking, DIRECT, Kafka, KafkaOptions, Presentation};
