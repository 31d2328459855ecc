//! Requests of Kafka clients: key, version, body.
#![no_main]

use bytes::Bytes;
use streamhouse_kafka::{Api, decode};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [key_high, key_low, version_high, version_low, body @ ..] = data else { return };
    let (key, version) = ([*key_high, *key_low], [*version_high, *version_low]);
    if let Some(api) = Api::of_key(i16::from_be_bytes(key)) {
        drop(decode(api, i16::from_be_bytes(version), Bytes::copy_from_slice(body)));
    }
});
