//! How the process starts, listens and stops.
