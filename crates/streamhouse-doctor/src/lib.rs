//! Whether Kafka clients can use a cluster from this machine, and what to change where they cannot.
//!
//! Architecture invariant: does what a client does, and nothing that changes anything. What a listener sends is bounded
//! and never trusted; each step has a deadline.

mod advice;
mod bootstrap;
mod obstacle;
mod report;
mod wire;

pub use advice::advise;
pub use bootstrap::{Options, examine};
pub use obstacle::{Obstacle, obstacle};
pub use report::{Finding, Report, Verdict};
