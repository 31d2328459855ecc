//! A client of our own talks to the listener over a broker in memory.

mod harness;

mod altering;
mod connection;
mod growing;
mod metadata;
mod reading;
mod writing;
