//! Frames and records of the Raft log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_raft::judge_log_record(data));
