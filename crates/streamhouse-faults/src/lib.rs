//! An S3 server that fails on purpose, and a TCP proxy that delays, for tests and benchmarks.
//!
//! Architecture invariant: knows S3 and TCP, and nothing of StreamHouse but its seams. Here, outside `tests/`, waiting
//! for a time is the job itself.

mod control;
pub mod objects;
pub mod plan;
pub mod proxy;
mod s3;
mod server;

pub use control::Command;
pub use objects::{Objects, Place};
pub use plan::{Counters, Delay, Fault, FaultPlan, Faults, Op, OpPlan};
pub use proxy::DelayProxy;
pub use server::{FaultServer, ServerOptions};
