//! The judge of a run: a history of what clients saw, and the checks that it has to pass.
//!
//! A [`Recorder`] writes what happens while it happens; [`History::check`] reads it once, from front to back, in linear
//! time, and tells every record that was lost, repeated, reordered, altered or never sent. The lines are described in
//! `docs/formats/history.md`.
//!
//! ```
//! use streamhouse_check::{Acknowledged, Digest, Header, History, Memory, Micros, Recorder, Sending};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = Memory::default();
//! let recorder = Recorder::new(text.clone(), &Header::default(), || Micros::new(1))?.client("writer");
//! let op = recorder.append(&Sending {
//!     producer: "p",
//!     idempotent: true,
//!     partition: "orders/0",
//!     sequence: 0,
//!     values: &[Digest::of(b"hello")],
//! });
//! recorder.acked(op, Acknowledged::at(0));
//! recorder.finish()?;
//! let report = History::check(text.bytes().as_slice())?;
//! assert!(report.is_clean(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! Architecture invariant: it knows what was promised and what was seen, and nothing of how StreamHouse works. No clock,
//! no async, no network.

mod checker;
mod event;
mod history;
mod recorder;
mod report;

pub use checker::Checker;
pub use event::{
    Acked, Append, Audit, Commit, CommitOutcome, Committed, Digest, End, Event, Failed, FinalRead, Happened,
    Header, Micros, Observed, OpId, OutOfRange, Poll, Restart, Seek, Trim,
};
pub use history::{History, HistoryError, Refusal};
pub use recorder::{Acknowledged, Memory, Recorder, Sending};
pub use report::{Anomaly, Counts, Report, Verdict, Violation};
pub use streamhouse_types::{LogIndex, NodeId, Offset};
