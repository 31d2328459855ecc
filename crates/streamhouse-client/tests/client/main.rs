//! The client against a server that misbehaves.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "the modules of one test binary")]

mod admin;
mod cluster;
mod fake;
mod groups;
mod producer;
mod reader;
