//! An S3 server that fails on purpose, a TCP proxy that delays, and links between nodes that can be cut, for tests and
//! benchmarks.
//!
//! Architecture invariant: knows S3 and TCP, and nothing of StreamHouse but its seams. Here, outside `tests/`, waiting
//! for a time is the job itself.

mod control;
pub mod links;
pub mod objects;
pub mod plan;
pub mod proxy;
mod s3;
mod server;

pub use control::Command;
pub use links::{Gate, Links};
pub use objects::{Objects, Place};
pub use plan::{Counters, Delay, Fault, FaultPlan, Faults, Op, OpPlan};
pub use proxy::DelayProxy;
pub use server::{FaultServer, ServerOptions};
