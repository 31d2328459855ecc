//! The load generator: how much, how fast, and whether all of it came back.
//!
//! [`run`] writes records of its own making to a topic and reads them back. Each record carries its number and a hash
//! over itself and all before it, so that one that is lost, repeated, out of order or altered is found.
//!
//! Architecture invariant: it speaks to a cluster through the client alone, prints nothing and knows no command line.

mod acks;
mod chain;
mod latency;
mod load;
mod report;
mod run;
mod tail;

pub use acks::{Acked, Acks, Listener, Room};
pub use chain::HEAD_BYTES;
pub use latency::{Latencies, Percentiles};
pub use load::{Load, Plan};
pub use report::{Integrity, Report, Side, Stored, rate};
pub use run::{BenchError, Measured, Progress, Reading, Seams, run};
pub use tail::Tailed;
