//! Histories of a consumer group, against the reference of its rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_groups::judge_history(data));
