//! A client of our own talks to the listener over a broker in memory.

mod harness;

mod connection;
mod metadata;
mod reading;
mod writing;
