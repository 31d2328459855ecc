//! The seams: clock, randomness, network, log files, threads.
//!
//! Architecture invariant: the only crate that asks the machine for the time, for randomness, for sockets, for the
//! files of the Raft log or for threads. Everything else is handed an [`Env`], so that a simulation can put its own in. It knows no
//! rule of the business.

mod backoff;
mod clock;
mod fs;
mod limits;
mod net;
mod rng;
mod threads;

use std::sync::Arc;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock};
pub use fs::{FileEntry, FileLock, LogFile, LogFs, StdFs, is_no_room};
pub use limits::raise_open_files;
pub use net::{Connection, Io, Listener, Net, TcpNet, TcpNetFrom};
pub use rng::{Rng, SeededRng, SystemRng};
pub use threads::{LongRun, LongWork, NoResult, SystemThreads, Threads};

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
    /// Threads for work that blocks.
    pub threads: Arc<dyn Threads>,
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
            threads: Arc::new(SystemThreads),
        }
    }
}
