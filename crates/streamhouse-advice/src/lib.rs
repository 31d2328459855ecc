//! What holds a producing client back, and what to change: learned from when its requests come and its answers leave.
//!
//! Architecture invariant: knows of no protocol. It is told of requests and answers, and tells what they amount to.

mod clients;
pub mod metrics;
mod window;

pub use clients::{Clients, HeldBack, Watch};
pub use window::Next;
