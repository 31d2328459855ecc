//! The simulated machine: what `streamhouse-env` is handed instead of the real one.

mod clock;
mod disk;
mod net;
mod random;
mod threads;

pub(crate) use clock::{EPOCH_MS, SimClock, Skew};
pub(crate) use disk::Disk;
pub(crate) use net::{OnlyTo, SimNet, Wire};
pub(crate) use threads::{Pace, SimThreads};
