//! Header, index and trailer of stored objects.
#![no_main]

#[path = "../../crates/streamhouse-storage/tests/corpus/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
