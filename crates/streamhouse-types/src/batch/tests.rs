use proptest::prelude::*;

use super::header::at;
use super::patch::{put, seal};
use super::*;
use crate::error_code::ErrorCode;
use crate::{Epoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const T: i64 = 1_700_000_000_000;

fn limits() -> BatchLimits {
    BatchLimits::of_topic(16 * 1024 * 1024)
}

fn header(key: &'static str, value: Option<&'static [u8]>) -> RecordHeader {
    RecordHeader { key: Bytes::from_static(key.as_bytes()), value: value.map(Bytes::from_static) }
}

fn build(compression: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.push(&record.as_record_ref()).expect("within the limits");
    }
    builder.build()
}

fn record(value: &[u8], timestamp: i64, offset_delta: u32) -> Record {
    Record {
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Vec::new(),
        timestamp: Timestamp::from_millis(timestamp),
        offset_delta,
    }
}

/// Two records with all there is: keys, no key, an empty value, headers, a timestamp that goes back.
fn two_records() -> Vec<Record> {
    let first = Record { key: Some(Bytes::from_static(b"k1")), ..record(b"hello", T, 0) };
    let headers = vec![header("h", None), header("trace", Some(b"\x00\x01"))];
    vec![first, Record { headers, ..record(b"", T - 5, 1) }]
}

fn read(batch: &RecordBatch) -> Vec<Record> {
    batch.records().expect("records open").collect::<Result<_, _>>().expect("records are sound")
}

fn parse(bytes: impl Into<Bytes>) -> Result<RecordBatch, BatchError> {
    RecordBatch::parse(bytes.into(), &limits())
}

/// A sound batch with some bytes changed, sealed anew.
fn forged<const N: usize>(start: usize, value: [u8; N]) -> Vec<u8> {
    let mut bytes = build(Compression::None, &two_records()).to_vec();
    put(&mut bytes, start, value);
    seal(&mut bytes);
    bytes
}

/// A sealed batch with one record's bytes as given.
fn with_records(compression: Compression, count: u32, records: &[u8]) -> Vec<u8> {
    let mut bytes = build(Compression::None, &two_records())[..HEADER_BYTES].to_vec();
    bytes.extend_from_slice(records);
    let length = u32::try_from(bytes.len()).unwrap() - 12;
    put(&mut bytes, at::LENGTH, length.to_be_bytes());
    put(&mut bytes, at::ATTRIBUTES, u16::from(compression.code()).to_be_bytes());
    put(&mut bytes, at::LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
    put(&mut bytes, at::RECORD_COUNT, count.to_be_bytes());
    seal(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_batch_are_kafkas() {
    // Field by field as Kafka's protocol guide has them; kafka-python writes the same, but for the leader epoch.
    let expected = concat!(
        "0000000000000000", // base offset
        "00000052",         // length of what follows: 82
        "ffffffff",         // leader epoch: none
        "02",               // magic
        "1923dfc4",         // crc-32c from here to the end
        "0000",             // attributes
        "00000001",         // last offset delta
        "0000018bcfe56800", // base timestamp
        "0000018bcfe56800", // max timestamp
        "0000000000001267", // producer id 4711
        "0003",             // producer epoch
        "0000002a",         // base sequence 42
        "00000002",         // record count
        "1a0000",           // length 13, attributes, timestamp delta 0
        "00",               // offset delta 0
        "046b31",           // key
        "0a68656c6c6f",     // value
        "00",               // no headers
        "240009",           // length 18, attributes, timestamp delta -5
        "02",               // offset delta 1
        "01",               // no key
        "00",               // an empty value
        "04",               // two headers
        "026801",           // h, without a value
        "0a7472616365",     // trace
        "040001",           // and its value
    );
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(BatchProducer {
        id: ProducerId::new(4711),
        epoch: ProducerEpoch::new(3),
        first_sequence: Sequence::new(42),
    });
    for record in two_records() {
        builder.push(&record.as_record_ref()).unwrap();
    }
    let built = builder.build();
    assert_eq!(hex(&built), expected);

    let mut stamped = build(Compression::None, &two_records()).to_vec();
    stamp_producer(&mut stamped, ProducerId::new(4711), ProducerEpoch::new(3), Sequence::new(42));
    assert_eq!(hex(&stamped), expected, "stamping later gives the same bytes");

    let batch = parse(built).unwrap();
    let header = batch.header();
    assert_eq!(header.record_count, 2);
    assert_eq!(header.length_bytes, 94);
    assert_eq!(header.max_timestamp, Timestamp::from_millis(T));
    assert_eq!(header.producer.unwrap().first_sequence, Sequence::new(42));
    assert_eq!(read(&batch), two_records());
}

#[test]
fn uncompressed_records_are_slices_of_the_batch() {
    let batch = parse(build(Compression::None, &two_records())).unwrap();
    let range = batch.bytes().as_ptr_range();
    let value = read(&batch)[0].value.clone().unwrap();
    assert!(range.contains(&value.as_ptr()));
}

#[track_caller]
fn refused(bytes: impl Into<Bytes>, code: ErrorCode, text: &str) {
    let error = parse(bytes).expect_err(text);
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn headers_that_no_producer_may_send_are_refused_with_their_reason() {
    let sound = build(Compression::None, &two_records());
    let invalid = ErrorCode::InvalidBatch;
    refused(Bytes::new(), invalid, "announces 61 bytes, there are 0");
    refused(sound.slice(..60), invalid, "announces 61 bytes, there are 60");
    refused(sound.slice(..sound.len() - 1), invalid, "announces 94 bytes, there are 93");
    refused([&sound[..], b"x"].concat(), invalid, "announces 94 bytes, there are 95");
    refused(forged(at::LENGTH, (-1_i32).to_be_bytes()), invalid, "length of the batch cannot be -1");
    refused(forged(at::LENGTH, 48_i32.to_be_bytes()), invalid, "length of the batch cannot be 48");
    refused(forged(at::LENGTH, i32::MAX.to_be_bytes()), ErrorCode::BatchTooLarge, "2147483659 bytes");
    refused(forged(at::MAGIC, [1]), ErrorCode::UnsupportedFormat, "magic 1");
    refused(forged(at::ATTRIBUTES, [0, 0x20]), ErrorCode::UnsupportedFormat, "control batches");
    refused(forged(at::ATTRIBUTES, [0, 0x10]), ErrorCode::UnsupportedFormat, "transactional batches");
    refused(forged(at::ATTRIBUTES, [0, 0x08]), ErrorCode::UnsupportedFormat, "append times");
    refused(forged(at::ATTRIBUTES, [0, 0x40]), ErrorCode::UnsupportedFormat, "delete horizons");
    refused(forged(at::ATTRIBUTES, [0, 0x80]), invalid, "attributes of the batch cannot be 128");
    for code in 5..=7 {
        refused(
            forged(at::ATTRIBUTES, [0, code]),
            ErrorCode::UnsupportedCompression,
            &format!("code {code}"),
        );
    }
    refused(forged(at::LAST_OFFSET_DELTA, (-1_i32).to_be_bytes()), invalid, "last offset delta");
    refused(
        forged(at::LAST_OFFSET_DELTA, 2_i32.to_be_bytes()),
        invalid,
        "2 records and a last offset delta of 2",
    );
    refused(
        forged(at::RECORD_COUNT, (-1_i32).to_be_bytes()),
        invalid,
        "record count of the batch cannot be -1",
    );
    refused(forged(at::RECORD_COUNT, 0_i32.to_be_bytes()), invalid, "record count of the batch cannot be 0");
    refused(forged(at::RECORD_COUNT, 100_001_i32.to_be_bytes()), ErrorCode::BatchTooLarge, "100001 records");
    refused(forged(at::BASE_TIMESTAMP, (-2_i64).to_be_bytes()), invalid, "base timestamp");
    refused(forged(at::MAX_TIMESTAMP, i64::MIN.to_be_bytes()), invalid, "max timestamp");
    refused(
        forged(at::PRODUCER_ID, (-2_i64).to_be_bytes()),
        invalid,
        "producer id of the batch cannot be -2",
    );
    refused(
        forged(at::PRODUCER_ID, 5_i64.to_be_bytes()),
        invalid,
        "producer epoch of the batch cannot be -1",
    );
    let without_sequence = forged(at::PRODUCER_ID, [0, 0, 0, 0, 0, 0, 0, 5, 0, 0]);
    refused(without_sequence, invalid, "base sequence of the batch cannot be -1");
}

#[test]
fn with_no_producer_id_the_other_producer_fields_may_be_anything() {
    let batch = parse(forged(at::PRODUCER_EPOCH, [0, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!(batch.header().producer, None);
}

#[test]
fn a_batch_over_the_topics_limit_is_refused() {
    let bytes = build(Compression::None, &two_records());
    let size = u32::try_from(bytes.len()).unwrap();
    assert!(RecordBatch::parse(bytes.clone(), &BatchLimits::of_topic(size)).is_ok());
    let error = RecordBatch::parse(bytes.clone(), &BatchLimits::of_topic(size - 1)).unwrap_err();
    assert!(matches!(error, BatchError::TooLarge { actual: 94, limit: 93 }), "{error}");
    let one_record = BatchLimits { max_records: 1, ..limits() };
    assert_eq!(RecordBatch::parse(bytes, &one_record).unwrap_err().code(), ErrorCode::BatchTooLarge);
}

#[track_caller]
fn bad_record(count: u32, records: &[u8], expected: RecordFault) {
    for compression in Compression::ALL {
        let mut stored = Vec::new();
        compress::compress(compression, records, &mut stored);
        let taken = parse(with_records(compression, count, &stored));
        let error = if compression == Compression::None {
            taken.unwrap_err()
        } else {
            let mut batch = taken.expect("compressed records stay closed");
            batch.check_compressed(OPENED_BYTES_MAX).unwrap_err()
        };
        assert!(matches!(error, BatchError::Record { fault, .. } if fault == expected), "{error:?}");
    }
}

#[test]
fn records_that_are_not_what_they_claim_are_refused() {
    use RecordFault as Fault;
    let sound = [12, 0, 0, 0, 1, 1, 0]; // length 6: attributes, time, offset, no key, no value, no headers
    assert!(parse(with_records(Compression::None, 1, &sound)).is_ok());
    bad_record(1, &[12, 0, 0, 0, 1, 1], Fault::CutShort);
    bad_record(2, &sound, Fault::CutShort);
    bad_record(1, &[sound, sound].concat(), Fault::TrailingBytes);
    bad_record(2, &[sound, sound].concat(), Fault::OffsetDelta);
    bad_record(1, &[12, 0, 0, 2, 1, 1, 0], Fault::OffsetDelta);
    bad_record(1, &[12, 0, 0, 1, 1, 1, 0], Fault::OffsetDelta);
    bad_record(1, &[11, 0, 0, 0, 1, 1, 0], Fault::Length);
    bad_record(1, &[10, 0, 0, 0, 1, 1, 0], Fault::CutShort);
    bad_record(1, &[14, 0, 0, 0, 1, 1, 0, 0], Fault::Leftover);
    bad_record(1, &[12, 0, 0, 0, 3, 1, 0], Fault::Length);
    bad_record(1, &[12, 0, 0, 0, 1, 2, 0], Fault::CutShort);
    bad_record(1, &[12, 0, 0, 0, 1, 4, 0], Fault::Length);
    bad_record(1, &[12, 0, 0, 0, 1, 1, 1], Fault::Length);
    bad_record(1, &[12, 0, 0, 0, 1, 1, 2], Fault::CutShort);
    bad_record(1, &[16, 0, 0, 0, 1, 1, 2, 1, 1], Fault::Length);
    bad_record(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], Fault::Number);
    // The time: 2^63 - 1 past the base, and more than the base before it.
    let beyond =
        [&[30, 0][..], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[0, 1, 1, 0]].concat();
    bad_record(1, &beyond, Fault::Timestamp);
    let before =
        [&[30, 0][..], &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[0, 1, 1, 0]].concat();
    bad_record(1, &before, Fault::Timestamp);
    let mut headers = vec![0, 0, 0, 1, 1, 0xd2, 0x0f];
    headers.extend([0, 1].repeat(1_001));
    let mut many = vec![0xb2, 0x1f];
    assert_eq!(headers.len(), 2_009);
    many.extend(headers);
    bad_record(1, &many, Fault::TooManyHeaders);
}

#[test]
fn a_wrong_max_timestamp_is_mended_as_kafka_does() {
    for wrong in [-1, T - 1, T + 1, i64::MAX] {
        let batch = parse(forged(at::MAX_TIMESTAMP, wrong.to_be_bytes())).unwrap();
        assert_eq!(batch.header().max_timestamp, Timestamp::from_millis(T));
        assert_eq!(*batch.bytes(), build(Compression::None, &two_records()));
    }
}

#[test]
fn the_log_may_write_base_offset_and_epoch_and_nothing_breaks() {
    let sound = build(Compression::Zstd, &two_records());
    let mut bytes = sound.to_vec();
    patch_base(&mut bytes[..16], Offset::new(1_234_567), Epoch::new(9));
    let batch = parse(bytes.clone()).unwrap();
    assert_eq!(batch.header().base_offset, 1_234_567);
    assert_eq!(batch.header().leader_epoch, 9);
    assert_eq!(read(&batch), two_records());
    assert_eq!(bytes[16..], sound[16..]);
    assert_eq!(bytes[8..12], sound[8..12]);
}

#[test]
fn append_time_is_that_of_every_record_and_leaves_the_deltas() {
    for compression in Compression::ALL {
        let mut bytes = build(compression, &two_records()).to_vec();
        patch_log_append_time(&mut bytes, Timestamp::from_millis(77));
        assert!(parse(bytes.clone()).is_err(), "producers may not send it");
        let mut run = Bytes::from(bytes);
        let batch = RecordBatch::split_first(&mut run, &BatchLimits::MAX).unwrap().unwrap();
        assert_eq!(batch.header().base_timestamp, Timestamp::from_millis(T));
        assert_eq!(batch.header().max_timestamp, Timestamp::from_millis(77));
        assert!(read(&batch).iter().all(|record| record.timestamp == Timestamp::from_millis(77)));
    }
}

#[test]
fn a_run_of_batches_is_taken_apart_one_by_one() {
    let first = build(Compression::None, &two_records());
    let second = build(Compression::Gzip, &[record(b"zeros", T, 0)]);
    let mut run = Bytes::from([&first[..], &second, &first[..50]].concat());
    let mut next = || RecordBatch::split_first(&mut run, &limits());
    assert_eq!(next().unwrap().unwrap().into_bytes(), first);
    assert_eq!(next().unwrap().unwrap().into_bytes(), second);
    assert!(matches!(next(), Err(BatchError::Length { announced: 61, actual: 50 })));
    assert_eq!(run.len(), 50, "what could not be read is still there");
    assert!(RecordBatch::split_first(&mut Bytes::new(), &limits()).unwrap().is_none());
}

#[test]
fn a_malformed_record_ends_the_reading_with_one_error() {
    let sound = [12, 0, 0, 0, 1, 1, 0];
    let stored = with_records(Compression::None, 3, &[sound, [12, 0, 0, 2, 1, 2, 0], sound].concat());
    let batch = RecordBatch::split_first(&mut Bytes::from(stored), &BatchLimits::MAX).unwrap().unwrap();
    let mut records = batch.records().unwrap();
    assert!(records.next().unwrap().is_ok());
    assert!(matches!(records.next(), Some(Err(BatchError::Record { index: 1, .. }))));
    assert!(records.next().is_none());
}

#[test]
fn the_builder_says_its_size_before_it_builds() {
    let mut builder = BatchBuilder::new(Compression::None);
    assert!(builder.is_empty());
    for round in 0..300_i64 {
        let value = vec![7; usize::try_from(round).unwrap()];
        let next = record(&value, T + round * 1_000 - 50_000, 0);
        let expected = builder.len_bytes() + builder.cost_bytes(&next.as_record_ref());
        builder.push(&next.as_record_ref()).unwrap();
        assert_eq!(builder.len_bytes(), expected);
    }
    assert_eq!(builder.records(), 300);
    let announced = builder.len_bytes();
    assert_eq!(builder.build().len(), announced);
}

#[test]
fn compression_never_makes_a_batch_longer() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression);
        builder.push(&record(b"x", T, 0).as_record_ref()).unwrap();
        let before = builder.len_bytes();
        let built = builder.build();
        assert_eq!(built.len(), before);
        assert_eq!(parse(built).unwrap().header().attributes.compression().unwrap(), Compression::None);
        let packed = parse(build(compression, &[record(&[b'a'; 9_000], T, 0)])).unwrap();
        assert_eq!(packed.header().attributes.compression().unwrap(), compression);
    }
}

#[test]
fn the_builder_refuses_what_no_broker_takes_and_stays_as_it_was() {
    let mut builder = BatchBuilder::new(Compression::None);
    assert!(builder.push(&record(b"x", -2, 0).as_record_ref()).is_err());
    let headers = vec![header("h", None); HEADERS_MAX + 1];
    assert!(builder.push(&Record { headers, ..record(b"x", T, 0) }.as_record_ref()).is_err());
    assert_eq!((builder.records(), builder.len_bytes()), (0, HEADER_BYTES));
    let headers = vec![header("h", None); HEADERS_MAX];
    builder.push(&Record { headers, ..record(b"x", -1, 0) }.as_record_ref()).unwrap();
    for _ in 1..100_000 {
        builder.push(&record(b"", 0, 0).as_record_ref()).unwrap();
    }
    let before = builder.len_bytes();
    assert_eq!(
        builder.push(&record(b"", 0, 0).as_record_ref()).unwrap_err().code(),
        ErrorCode::BatchTooLarge
    );
    assert_eq!(builder.len_bytes(), before);
    assert!(parse(builder.build()).is_ok());
}

fn bomb(compression: Compression, packed: &[u8]) -> BatchError {
    let mut batch = parse(with_records(compression, 1, packed)).expect("it is small and sealed");
    let checked = batch.check_compressed(OPENED_BYTES_MAX).unwrap_err();
    let read = batch.records().map(|_| ()).unwrap_err();
    assert_eq!(checked.to_string(), read.to_string());
    read
}

#[test]
fn decompression_bombs_are_defused() {
    let zeros = vec![0; OPENED_BYTES_MAX + 1];
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd, Compression::Snappy] {
        let mut packed = Vec::new();
        compress::compress(compression, &zeros, &mut packed);
        let error = bomb(compression, &packed);
        assert!(matches!(error, BatchError::Bomb { limit, .. } if limit == OPENED_BYTES_MAX), "{error}");
        assert_eq!(error.code(), ErrorCode::BatchTooLarge);
    }
    assert_eq!(decompress::likely_bytes(0), 1024 * 1024);
    assert_eq!(decompress::likely_bytes(10), 1024 * 1024 + 1000);
    assert_eq!(decompress::likely_bytes(usize::MAX), OPENED_BYTES_MAX);
}

#[test]
fn records_that_are_packed_very_well_are_opened_when_there_is_room_for_them() {
    let expected = vec![record(&[0; 3 << 20], T, 0)];
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let mut batch = parse(build(compression, &expected)).unwrap();
        let likely = batch.opened_bytes_likely();
        let refused = batch.check_compressed(likely).unwrap_err();
        assert!(matches!(refused, BatchError::Bomb { limit, .. } if limit == likely), "{refused}");
        batch.check_compressed(OPENED_BYTES_MAX).unwrap();
        assert_eq!(read(&batch), expected);
    }
}

#[test]
fn lengths_that_compressed_data_announces_are_not_believed() {
    // A bare snappy block that says it holds 4 GiB; the same inside the Java framing; a block longer than its frame.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'x'];
    let framed = |length: u32| [&compress::XERIAL_HEADER[..], &length.to_be_bytes(), &lie].concat();
    for packed in [lie.to_vec(), framed(7), framed(8), framed(u32::MAX), framed(6), b"\x82SNAPPY\0".to_vec()]
    {
        assert!(matches!(bomb(Compression::Snappy, &packed), BatchError::Compressed { .. }), "{packed:x?}");
    }
    // zstd frames whose windows are 8 MiB, and 128 MiB as of Java's client at its highest level, none of which is made:
    // descriptor, window, one raw block of one byte.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 0x09, 0x00, 0x00, b'x'];
    for window in [13 << 3, 17 << 3] {
        let opened = decompress::decompress(Compression::Zstd, &frame(window), 1).unwrap();
        assert_eq!(opened, "x", "{window}");
    }
    // Larger ones are read by nobody who is not told to; behind a good frame neither, nor the formats before the first.
    let good = frame(13 << 3);
    let (old, skipped) = ([0x25, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0], [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'?']);
    for bad in [&frame(17 << 3 | 1)[..], &frame(21 << 3), &[good, frame(18 << 3)].concat(), &old, &good[..5]]
    {
        assert!(matches!(bomb(Compression::Zstd, bad), BatchError::Compressed { .. }), "{bad:x?}");
    }
    let opened =
        decompress::decompress(Compression::Zstd, &[&good[..], &skipped, &good].concat(), 2).unwrap();
    assert_eq!(opened, "xx");
    assert!(matches!(bomb(Compression::Zstd, &frame(13 << 3)[..9]), BatchError::Compressed { .. }));
    // The legacy frame of lz4, which allocates 8 MiB at once.
    let legacy = [0x02, 0x21, 0x4c, 0x18, 0x01, 0, 0, 0, 0];
    assert!(matches!(bomb(Compression::Lz4, &legacy), BatchError::Compressed { .. }));
}

#[test]
fn both_framings_of_snappy_are_read() {
    let expected = vec![record(&[b'a'; 70_000], T, 0)];
    let plain = build(Compression::None, &expected);
    let bare = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    let mut framed = Vec::new();
    compress::compress(Compression::Snappy, &plain[HEADER_BYTES..], &mut framed);
    assert!(framed.starts_with(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"));
    for packed in [bare, framed] {
        let mut batch = parse(with_records(Compression::Snappy, 1, &packed)).unwrap();
        batch.check_compressed(OPENED_BYTES_MAX).unwrap();
        assert_eq!(read(&batch), expected);
    }
}

#[test]
fn lz4_blocks_stand_alone_as_javas_client_demands() {
    let batch = build(Compression::Lz4, &[record(&[b'a'; 200_000], T, 0)]);
    let frame = &batch[HEADER_BYTES..];
    assert_eq!(frame[..4], [0x04, 0x22, 0x4d, 0x18]);
    assert_eq!(frame[4] & 0b1110_0000, 0b0110_0000, "version 1, independent blocks");
}

#[test]
fn compressions_have_kafkas_names_and_codes() {
    let names = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (code, (name, compression)) in (0_u8..).zip(names.iter().zip(Compression::ALL)) {
        assert_eq!(name.parse(), Ok(compression));
        assert_eq!(compression.to_string(), *name);
        assert_eq!(compression.code(), code);
        assert_eq!(Compression::from_code(code), Some(compression));
    }
    assert_eq!(Compression::from_code(5), None);
    assert!("GZIP".parse::<Compression>().is_err());
}

fn any_bytes() -> impl Strategy<Value = Option<Bytes>> {
    let bytes = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 100..3_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::option::of(bytes.prop_map(Bytes::from))
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 0..10), any_bytes())
            .prop_map(|(key, value)| RecordHeader { key: key.into(), value }),
        0..4,
    );
    let timestamp = prop_oneof![4 => T..T + 10_000, 1 => -1..=i64::MAX];
    (any_bytes(), any_bytes(), headers, timestamp).prop_map(|(key, value, headers, timestamp)| Record {
        key,
        value,
        headers,
        timestamp: Timestamp::from_millis(timestamp),
        offset_delta: 0,
    })
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(any_record(), 1..40).prop_map(|mut records| {
        for (delta, record) in (0..).zip(&mut records) {
            record.offset_delta = delta;
        }
        records
    })
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_was_built_is_read_back(compression in any_compression(), records in any_records()) {
        let mut batch = parse(build(compression, &records)).unwrap();
        batch.check_compressed(OPENED_BYTES_MAX).unwrap();
        let keyless = (0..).zip(&records).filter(|(_, record)| record.key.is_none()).map(|(index, _)| index);
        prop_assert_eq!(batch.without_key(), keyless.collect::<Vec<u32>>());
        prop_assert_eq!(batch.header().record_count as usize, records.len());
        prop_assert_eq!(batch.header().base_timestamp, records[0].timestamp);
        prop_assert_eq!(Some(batch.header().max_timestamp), records.iter().map(|record| record.timestamp).max());
        prop_assert_eq!(read(&batch), records);
    }

    #[test]
    fn a_changed_byte_is_refused_or_lies_where_the_log_writes(
        compression in any_compression(),
        records in any_records(),
        place in any::<prop::sample::Index>(),
        change in 1..=u8::MAX,
    ) {
        let sound = build(compression, &records);
        let mut bytes = sound.to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        match parse(bytes) {
            Ok(batch) => {
                prop_assert!(place < 8 || (12..16).contains(&place), "byte {} was changed", place);
                prop_assert_eq!(read(&batch), records);
            }
            Err(_) => prop_assert!((8..12).contains(&place) || place >= 16),
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(bytes.clone());
        let _ = RecordBatch::split_first(&mut Bytes::from(bytes), &BatchLimits::MAX);
    }

    #[test]
    fn any_sealed_records_are_judged_without_a_panic(
        compression in any_compression(),
        count in 1..20_u32,
        records in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let stored = Bytes::from(with_records(compression, count, &records));
        if let Ok(mut batch) = parse(stored.clone()) {
            let sound = batch.check_compressed(OPENED_BYTES_MAX).is_ok();
            let readable = batch.records().is_ok_and(|mut records| records.all(|record| record.is_ok()));
            prop_assert!(!sound || readable);
        }
        let batch = RecordBatch::split_first(&mut stored.clone(), &BatchLimits::MAX).unwrap().unwrap();
        prop_assert!(batch.records().map_or(0, Iterator::count) <= count as usize + 1);
    }

    #[test]
    fn records_with_changed_bytes_are_judged_without_a_panic(
        records in any_records(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = build(Compression::None, &records).to_vec();
        for (place, value) in changes {
            let place = HEADER_BYTES + place.index(bytes.len() - HEADER_BYTES);
            bytes[place] = value;
        }
        seal(&mut bytes);
        if let Ok(batch) = parse(bytes) {
            prop_assert_eq!(read(&batch).len(), records.len());
        }
    }
}
