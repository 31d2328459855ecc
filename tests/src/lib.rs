//! Shared parts of the end-to-end tests.
//!
//! Architecture invariant: it drives the real binary from outside, through its command line and its clients.

pub mod campaign;
pub mod cluster;
pub mod faulty;
pub mod history;
pub mod house;
pub mod kafka;
pub mod load;
pub mod node;
mod reading;
pub mod shell;
pub mod tail;
