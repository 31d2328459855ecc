//! A client of our own talks to the listener over a broker in memory.

mod harness;

mod adrift;
mod altering;
mod connection;
mod endpoint;
mod groups;
mod growing;
mod log;
mod metadata;
mod net;
mod order;
mod racks;
mod reading;
mod windows;
mod writing;
