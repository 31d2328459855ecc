//! An S3 server that fails on purpose, a TCP proxy that delays, links between nodes that can be cut, and a disk that loses
//! what was not synced, for tests and
//! benchmarks.
//!
//! Architecture invariant: knows S3, TCP and files, and nothing of StreamHouse but its seams. Here, outside `tests/`, waiting
//! for a time is the job itself.

mod control;
mod disk;
pub mod links;
pub mod objects;
pub mod plan;
pub mod proxy;
mod s3;
mod server;

pub use control::Command;
pub use disk::{MemoryFs, Unsynced};
pub use links::{Gate, Links};
pub use objects::{Objects, Place};
pub use plan::{Counters, Delay, Fault, FaultPlan, Faults, LATE_MAX, Op, OpPlan};
pub use proxy::DelayProxy;
pub use server::{FaultServer, ServerOptions};
