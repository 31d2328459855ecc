//! Histories of runs, line by line and as a whole.
#![no_main]

#[path = "../../crates/streamhouse-check/tests/corpus/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
