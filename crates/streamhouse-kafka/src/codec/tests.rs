//! Every version of every request, bytes that are none, and lengths that lie.

mod samples;

use std::path::PathBuf;

use bytes::Bytes;
use kacrab_protocol::generated as g;
use proptest::prelude::*;

use self::samples::{sample, versions};

use super::wire::{Form, Reader, Writer};
use super::*;
use crate::Code;

#[test]
fn every_version_of_every_request_is_read_to_its_end() {
    for api in Api::all() {
        for version in versions(api) {
            let whole = sample(api, version);
            decode(api, version, whole.clone()).unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
            for short in 0..whole.len() {
                assert!(
                    decode(api, version, whole.slice(..short)).is_err(),
                    "{api:?} {version}: {short} bytes of {} were enough",
                    whole.len()
                );
            }
        }
        for version in [-1, api.told().max + 1] {
            assert!(matches!(decode(api, version, Bytes::new()), Err(DecodeError::Unsupported { .. })));
        }
    }
}

#[test]
fn produce_and_fetch_are_read_as_another_reader_writes_them() {
    let named = |version| {
        if version < 13 {
            TopicRef::Name("orders".to_owned())
        } else {
            TopicRef::Id(TopicUuid([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]))
        }
    };
    for version in versions(Api::Produce) {
        let Ok(Request::Produce(query)) = decode(Api::Produce, version, sample(Api::Produce, version)) else {
            panic!("version {version} is not read")
        };
        let partitions = vec![ProducePartition { index: 3, records: Some(Bytes::from_static(b"batch")) }];
        let topics = vec![ProduceTopic { topic: named(version), partitions }];
        assert_eq!(
            query,
            ProduceQuery { transactional_id: None, acks: -1, timeout_ms: 5, topics },
            "{version}"
        );
    }
    for version in versions(Api::Fetch) {
        let Ok(Request::Fetch(query)) = decode(Api::Fetch, version, sample(Api::Fetch, version)) else {
            panic!("version {version} is not read")
        };
        let partitions = vec![FetchPartition { index: 3, leader_epoch: -1, offset: 11, max_bytes: 13 }];
        let expected = FetchQuery {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 99,
            isolation: 1,
            session_id: 0,
            session_epoch: -1,
            topics: vec![FetchTopic { topic: named(version), partitions }],
            rack: if version < 11 { String::new() } else { "a".to_owned() },
        };
        assert_eq!(query, expected, "{version}");
    }
}

#[test]
fn records_are_slices_of_the_request() {
    let body = sample(Api::Produce, 9);
    let Ok(Request::Produce(query)) = decode(Api::Produce, 9, body.clone()) else { panic!("not read") };
    let records = query.topics[0].partitions[0].records.clone().expect("records");
    let (from, to) = (body.as_ptr() as usize, body.as_ptr() as usize + body.len());
    assert!((from..to).contains(&(records.as_ptr() as usize)), "the records were copied");
}

#[test]
fn answers_to_produce_read_back_in_every_version() {
    let refused = ProduceAnswerPartition {
        index: 4,
        code: Code::NOT_LEADER,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors: vec![RecordError { index: 2, message: "key is missing".to_owned() }],
        message: Some("no".to_owned()),
        leader: Some(LeaderHint { node: 2, epoch: 5 }),
    };
    let taken = ProduceAnswerPartition {
        index: 3,
        code: Code::NONE,
        base_offset: 42,
        log_append_time_ms: 9,
        log_start_offset: 1,
        record_errors: Vec::new(),
        message: None,
        leader: None,
    };
    for version in versions(Api::Produce) {
        let topic =
            if version < 13 { TopicRef::Name("t".to_owned()) } else { TopicRef::Id(TopicUuid([1; 16])) };
        let topics = vec![ProduceAnswerTopic { topic, partitions: vec![taken.clone(), refused.clone()] }];
        let node = NodeEndpoint { id: 2, host: "h".to_owned(), port: 9, rack: None };
        let mut bytes = ProduceAnswer { topics, nodes: vec![node] }.encode(version).joined();
        let read = g::ProduceResponseData::read(&mut bytes, version).expect("it reads back");
        assert!(bytes.is_empty(), "{version}: {} bytes are left", bytes.len());
        let [first, second] = &read.responses[0].partition_responses[..] else { panic!("two partitions") };
        assert_eq!(
            (first.index, first.error_code, first.base_offset, first.log_append_time_ms),
            (3, 0, 42, 9)
        );
        assert_eq!((second.index, second.error_code), (4, 6));
        assert_eq!(second.record_errors.len(), usize::from(version >= 8));
        assert_eq!(second.current_leader.leader_id, if version >= 10 { 2 } else { -1 });
        assert_eq!(read.node_endpoints.len(), usize::from(version >= 10));
    }
}

#[test]
fn answers_to_fetch_read_back_in_every_version() {
    for version in versions(Api::Fetch) {
        let topic =
            if version < 13 { TopicRef::Name("t".to_owned()) } else { TopicRef::Id(TopicUuid([1; 16])) };
        let partition = |index, records: &[&'static [u8]], leader| FetchAnswerPartition {
            index,
            code: Code::NONE,
            high_watermark: 7,
            log_start: 2,
            lists_aborted: index == 0,
            records: records.iter().map(|piece| Bytes::from_static(piece)).collect(),
            leader,
            preferred: (index == 1).then_some(6),
        };
        let hint = LeaderHint { node: 2, epoch: 5 };
        let partitions = vec![partition(0, &[b"head", b"", b"tail"], None), partition(1, &[], Some(hint))];
        let topics = vec![FetchAnswerTopic { topic, partitions }];
        let node = NodeEndpoint { id: 2, host: "h".to_owned(), port: 9, rack: Some("r".to_owned()) };
        let mut bytes = FetchAnswer { code: Code::NONE, topics, nodes: vec![node] }.encode(version).joined();
        let read = g::FetchResponseData::read(&mut bytes, version).expect("it reads back");
        assert!(bytes.is_empty(), "{version}: {} bytes are left", bytes.len());
        let [first, second] = &read.responses[0].partitions[..] else { panic!("two partitions") };
        assert_eq!(first.records.as_deref(), Some(&b"headtail"[..]));
        assert_eq!((first.high_watermark, first.last_stable_offset), (7, 7));
        assert_eq!(first.log_start_offset, if version >= 5 { 2 } else { -1 });
        assert_eq!(first.aborted_transactions.as_ref().map(Vec::len), Some(0));
        assert_eq!(second.aborted_transactions, None);
        assert_eq!(second.records.as_deref(), Some(&b""[..]));
        let told = (first.preferred_read_replica, second.preferred_read_replica);
        assert_eq!(told, (-1, if version >= 11 { 6 } else { -1 }));
        assert_eq!(second.current_leader.leader_id, if version >= 12 { 2 } else { -1 });
        assert_eq!(read.node_endpoints.len(), usize::from(version >= 16));
    }
}

#[test]
fn api_versions_is_answered_in_every_version_without_tags() {
    for version in 0..=4 {
        let mut bytes = ApiVersionsAnswer::to(version).encode(version).joined();
        let read = g::ApiVersionsResponseData::read(&mut bytes, version).expect("it reads back");
        assert!(bytes.is_empty());
        assert_eq!(read.error_code, 0);
        let produce = read.api_keys.iter().find(|api| api.api_key == 0).expect("Produce");
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert_eq!(read.api_keys.len(), Api::all().count());
        assert!(read._unknown_tagged_fields.is_empty() && read.supported_features.is_empty());
    }
    // A version from the future: the oldest form, and nothing but how to ask again.
    let mut bytes = ApiVersionsAnswer::to(9).encode(9).joined();
    let read = g::ApiVersionsResponseData::read(&mut bytes, 0).expect("it reads back");
    assert_eq!(read.error_code, 35);
    let apis: Vec<_> =
        read.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    assert_eq!(apis, [(18, 0, 4)]);
}

#[test]
fn lengths_that_lie_are_errors_in_every_request() {
    for api in Api::all() {
        for version in versions(api) {
            let whole = sample(api, version);
            // Wherever a length may stand, a great one.
            for place in 0..whole.len() {
                for bomb in [&[0x7f, 0xff, 0xff, 0xf0][..], &[0xff, 0xff, 0xff, 0xff, 0x0f][..]] {
                    let mut bytes = whole.to_vec();
                    let end = (place + bomb.len()).min(bytes.len());
                    bytes[place..end].copy_from_slice(&bomb[..end - place]);
                    drop(decode(api, version, bytes.into()));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bytes_that_are_no_request_never_panic(
        key in 0..Api::all().count(),
        version in 0_i16..19,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let api = Api::all().nth(key).expect("there are so many");
        drop(decode(api, version, Bytes::from(bytes.clone())));
        drop(RequestHeader::decode(api, version, Bytes::from(bytes)));
    }

    #[test]
    fn a_request_with_a_few_wrong_bytes_never_panics(
        key in 0..Api::all().count(),
        version in 0_usize..19,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let api = Api::all().nth(key).expect("there are so many");
        let served: Vec<i16> = versions(api).collect();
        let version = served[version % served.len()];
        let mut bytes = sample(api, version).to_vec();
        for (place, byte) in changes {
            let place = place % bytes.len().max(1);
            if let Some(there) = bytes.get_mut(place) {
                *there = byte;
            }
        }
        drop(decode(api, version, bytes.into()));
    }
}

#[test]
fn both_forms_are_told_apart() {
    let mut writer = Writer::new(Form::Compact);
    writer.string("ab");
    assert_eq!(&writer.finish().joined()[..], b"\x03ab");
    assert!(Reader::new(Bytes::from_static(b"\x00\x02ab"), Form::Plain).string().is_ok());
}

/// What the fuzz target `kafka_request` does with each input: key, version, body.
fn judge(input: &[u8]) {
    let [key_high, key_low, version_high, version_low, body @ ..] = input else { return };
    let (key, version) = ([*key_high, *key_low], [*version_high, *version_low]);
    if let Some(api) = Api::of_key(i16::from_be_bytes(key)) {
        drop(decode(api, i16::from_be_bytes(version), Bytes::copy_from_slice(body)));
    }
}

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/kafka_request"))
}

#[test]
fn the_fuzz_corpus_is_judged_without_a_panic() {
    let mut judged = 0;
    for entry in std::fs::read_dir(corpus()).expect("the corpus is in the repository") {
        judge(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
        judged += 1;
    }
    assert!(judged >= Api::all().count());
}

/// Each request that is answered has a seed, from which the fuzzer goes on.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to write the seeds"
)]
fn every_request_has_a_seed_as_it_would_be_written_before() {
    for api in Api::all() {
        let version = api.told().max;
        let seed = [&api.key().to_be_bytes()[..], &version.to_be_bytes(), &sample(api, version)].concat();
        let path = corpus().join(api.name());
        if std::env::var("UPDATE_CORPUS").is_ok() {
            std::fs::write(&path, &seed).expect("the seed can be written");
        }
        assert!(std::fs::read(&path).is_ok_and(|stored| stored == seed), "{} has another seed", api.name());
    }
}
