//! Commands as the metadata log holds them.
#![no_main]

#[path = "../../crates/streamhouse-metadata/tests/corpus/command.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
