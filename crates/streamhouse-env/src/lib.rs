//! The seams: clock, randomness, network, log files.
