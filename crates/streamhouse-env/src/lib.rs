//! The seams: clock, randomness, network, log files.
//!
//! Architecture invariant: the only crate that asks the machine for the time, for randomness, for sockets or for the
//! files of the Raft log. Everything else is handed an [`Env`], so that a simulation can put its own in. It knows no
//! rule of the business.

mod backoff;
mod clock;
mod fs;
mod net;
mod rng;

use std::sync::Arc;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock};
pub use fs::{FileEntry, FileLock, LogFile, LogFs, StdFs, is_no_room};
pub use net::{Connection, Io, Listener, Net, TcpNet, TcpNetFrom};
pub use rng::{Rng, SeededRng, SystemRng};

/// What a node takes from the machine it runs on. Cloning is cheap; clones share the seams.
#[derive(Debug, Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Sockets.
    pub net: Arc<dyn Net>,
    /// Files of the Raft log and its snapshots.
    pub fs: Arc<dyn LogFs>,
}

impl Env {
    /// The real machine.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
            net: Arc::new(TcpNet),
            fs: Arc::new(StdFs),
        }
    }
}
