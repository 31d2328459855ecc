//! A whole node in this process, spoken to over gRPC and HTTP as anybody would.

mod groups;
mod harness;
mod http;
mod identity;
mod kafka;
mod offline;
mod reading;
mod reflection;
mod topics;
mod writing;
