//! Snapshots of the metadata.
#![no_main]
#![allow(dead_code, reason = "the other function is the body of the target `command`")]

#[path = "../../crates/streamhouse-metadata/tests/corpus/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::snapshot(data));
