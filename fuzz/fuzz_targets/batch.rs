//! The batch validator and the record iterator, under every compression.
#![no_main]

#[path = "../../crates/streamhouse-types/tests/corpus/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
