//! Snapshots of the metadata.
#![no_main]

#[path = "../../crates/streamhouse-metadata/tests/corpus/snapshot.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
