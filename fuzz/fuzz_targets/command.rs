//! Commands as the metadata log holds them.
#![no_main]
#![allow(dead_code, reason = "the other function is the body of the target `snapshot`")]

#[path = "../../crates/streamhouse-metadata/tests/corpus/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::command(data));
