use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use streamhouse_env::Env;
use streamhouse_types::{
    Attempt, ClusterId, Incarnation, Lane, NodeId, ObjectId, Offset, PartitionId, PartitionIndex, Slot,
    SlotSequence, Timestamp, TopicId,
};

use super::*;
use crate::{Key, Payload, Purpose, PutOptions, Store, StoreSettings};

fn header() -> ObjectHeader {
    let slot = Slot {
        node: NodeId::new(3),
        incarnation: Incarnation::new(7),
        lane: Lane::Wal,
        sequence: SlotSequence::new(42),
    };
    ObjectHeader {
        cluster: ClusterId::from_bytes(*b"0123456789abcdef"),
        object: ObjectId { slot, attempt: Attempt::new(1) },
        created: Timestamp::from_millis(1_780_000_000_000),
    }
}

fn partition(topic: u64, index: u32) -> PartitionId {
    PartitionId::new(TopicId::new(topic), PartitionIndex::new(index))
}

fn extent(partition: PartitionId, pieces: &[&'static [u8]]) -> NewExtent {
    NewExtent {
        partition,
        batches: u32::try_from(pieces.len()).unwrap(),
        records: 5,
        max_timestamp: Timestamp::from_millis(1_779_999_999_999),
        pieces: pieces.iter().map(|piece| Bytes::from_static(piece)).collect(),
    }
}

fn example() -> BuiltObject {
    let mut builder = ObjectBuilder::new();
    assert_eq!(builder.push(extent(partition(1, 0), &[b"first ", b"extent"])), HEADER_BYTES);
    assert_eq!(builder.push(extent(partition(1, 2), &[b"second"])), HEADER_BYTES + 12);
    builder.push_result(CommitResult {
        sequence: SlotSequence::new(41),
        attempt: Attempt::new(0),
        runs: vec![PlacedRun { position: HEADER_BYTES, length: 100, records: 9, base: Offset::new(1_000) }],
    });
    builder.finish()
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    payload.pieces().concat()
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_bytes_of_an_object_are_those_that_version_1_always_wrote() {
    insta::assert_snapshot!(hex(&bytes_of(&example().payload(&header()))));
}

#[test]
fn an_object_reads_back_what_it_was_built_from() {
    let built = example();
    let bytes = bytes_of(&built.payload(&header()));
    assert_eq!(bytes.len() as u64, built.length());
    let (read, footer) = decode_object(&bytes).unwrap();
    assert_eq!(read, header());
    assert_eq!(footer.index.extents, built.extents());
    assert_eq!(footer.trailer.body_crc, built.body_crc());
    assert_eq!(built.body_crc(), crc32c(b"first extentsecond"));
    let first = footer.index.extents[0];
    assert_eq!((first.position, first.length, first.crc), (HEADER_BYTES, 12, crc32c(b"first extent")));
    assert_eq!(footer.index.results[0].runs[0].base, Offset::new(1_000));
}

#[test]
fn two_attempts_at_a_slot_differ_in_the_header_only() {
    let (built, mut second) = (example(), header());
    second.object.attempt = Attempt::new(2);
    let (one, two) = (bytes_of(&built.payload(&header())), bytes_of(&built.payload(&second)));
    let body = usize::try_from(HEADER_BYTES).unwrap();
    assert_ne!(one[..body], two[..body]);
    assert_eq!(one[body..], two[body..]);
}

#[test]
fn building_an_object_copies_no_batch() {
    let batch = Bytes::from(vec![1; 100]);
    let mut builder = ObjectBuilder::new();
    builder.push(NewExtent { pieces: vec![batch.clone()], ..extent(partition(1, 0), &[]) });
    let payload = builder.finish().payload(&header());
    assert!(payload.pieces().iter().any(|piece| piece.as_ptr() == batch.as_ptr()));
}

#[test]
fn the_checksum_of_the_body_is_that_of_its_bytes_however_large_the_extents_are() {
    let mut builder = ObjectBuilder::new();
    for (index, length) in [3 << 20, 7, 512 << 10, (512 << 10) - 1, 1 << 20].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..=250).cycle().skip(index).take(length).collect();
        let pieces = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
        builder.push(NewExtent { pieces, ..extent(partition(1, u32::try_from(index).unwrap()), &[]) });
    }
    let end = usize::try_from(builder.end()).unwrap();
    let built = builder.finish();
    let bytes = bytes_of(&built.payload(&header()));
    assert_eq!(built.body_crc(), crc32c(&bytes[usize::try_from(HEADER_BYTES).unwrap()..end]));
    assert!(decode_object(&bytes).is_ok());
}

#[test]
fn an_object_without_extents_is_an_object() {
    let bytes = bytes_of(&ObjectBuilder::new().finish().payload(&header()));
    assert!(decode_object(&bytes).unwrap().1.index.extents.is_empty());
}

#[test]
#[should_panic(expected = "order of their partitions")]
fn extents_out_of_order_are_a_mistake_of_the_caller() {
    let mut builder = ObjectBuilder::new();
    builder.push(extent(partition(2, 0), &[b"x"]));
    builder.push(extent(partition(1, 9), &[b"x"]));
}

#[test]
fn every_changed_byte_is_noticed() {
    let bytes = bytes_of(&example().payload(&header()));
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 0x40;
        assert!(decode_object(&changed).is_err(), "byte {position}");
    }
}

#[test]
fn every_cut_and_every_surplus_is_noticed() {
    let bytes = bytes_of(&example().payload(&header()));
    for length in 0..bytes.len() {
        assert!(decode_object(&bytes[..length]).is_err(), "{length} bytes");
        assert!(decode_object(&bytes[length..]).is_err() || length == 0, "without the first {length} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode_object(&longer).is_err());
}

#[test]
fn each_kind_of_damage_has_its_error() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<u8>), expected: fn(&ObjectError) -> bool) {
        let mut bytes = bytes_of(&example().payload(&header()));
        change(&mut bytes);
        let error = decode_object(&bytes).unwrap_err();
        assert!(expected(&error), "{error}");
    }
    check(|bytes| bytes.truncate(70), |e| matches!(e, ObjectError::Length { part: "object header", .. }));
    check(|bytes| bytes[0] = 0, |e| matches!(e, ObjectError::Magic { part: "object header" }));
    check(|bytes| bytes[8] = 9, |e| matches!(e, ObjectError::Version { version: 9, .. }));
    check(|bytes| bytes[10] = 1, |e| matches!(e, ObjectError::Checksum { part: "object header", .. }));
    check(|bytes| bytes[81] = 0, |e| matches!(e, ObjectError::Checksum { part: "extent", .. }));
    check(|bytes| bytes[100] = 1, |e| matches!(e, ObjectError::Checksum { part: "object index", .. }));
}

#[test]
fn an_index_may_announce_what_it_likes_without_memory_being_taken() {
    let index = [0xFF; 8];
    let trailer = ObjectTrailer::of(HEADER_BYTES, 0, &index);
    let error = ObjectIndex::decode(&trailer, &index).unwrap_err();
    assert!(matches!(error, ObjectError::Length { part: "object index", .. }), "{error}");
}

#[test]
fn extents_must_fill_the_body() {
    let mut index = ObjectIndex { extents: example().extents().to_vec(), results: Vec::new() };
    index.extents.pop();
    let bytes = index.encode();
    let trailer = ObjectTrailer::of(HEADER_BYTES + 18, 0, &bytes);
    assert!(ObjectIndex::decode(&trailer, &bytes).is_err());
    index.extents[0].position += 1;
    let bytes = index.encode();
    let trailer = ObjectTrailer::of(HEADER_BYTES + 12, 0, &bytes);
    assert!(ObjectIndex::decode(&trailer, &bytes).is_err());
}

async fn stored(bytes: Vec<u8>) -> (Store, Key, u64) {
    let env = Env::system();
    let store = crate::open(&StoreSettings::at("memory://"), &env).await.unwrap();
    let key: Key = "object".parse().unwrap();
    let deadline = env.clock.now() + Duration::from_secs(30);
    let length = bytes.len() as u64;
    let options = PutOptions { purpose: Purpose::Produce, deadline };
    store.put(&key, &Payload::from(Bytes::from(bytes)), options).await.unwrap();
    (store, key, length)
}

fn object_of(extents: u32) -> Vec<u8> {
    let mut builder = ObjectBuilder::new();
    for index in 0..extents {
        builder.push(extent(partition(1, index), &[b"batch"]));
    }
    bytes_of(&builder.finish().payload(&header()))
}

#[tokio::test]
async fn header_and_footer_are_read_from_a_store_however_long_the_index_is() {
    for extents in [0, 1, 1_000, 5_000] {
        let (store, key, length) = stored(object_of(extents)).await;
        assert_eq!(read_header(&store, &key, Purpose::Verify).await.unwrap(), header());
        let footer = read_footer(&store, &key, length, Purpose::Verify).await.unwrap();
        assert_eq!(footer.index.extents.len(), extents as usize);
    }
}

#[tokio::test]
async fn a_damaged_object_is_told_by_its_name() {
    let mut bytes = object_of(10);
    let middle_of_index = bytes.len() - 100;
    bytes[middle_of_index] ^= 1;
    bytes[20] ^= 1;
    let (store, key, length) = stored(bytes).await;
    let error = read_footer(&store, &key, length, Purpose::Verify).await.unwrap_err();
    assert!(matches!(&error, ReadObjectError::Damaged { key: named, .. } if *named == key), "{error}");
    assert!(read_header(&store, &key, Purpose::Verify).await.is_err());
    assert!(read_footer(&store, &key, length - 1, Purpose::Verify).await.is_err());
}

fn arbitrary_extent() -> impl Strategy<Value = NewExtent> {
    let pieces = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50).prop_map(Bytes::from), 1..5);
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<i64>(), pieces).prop_map(
        |(topic, index, batches, records, max_timestamp, pieces)| NewExtent {
            partition: partition(topic, index),
            batches,
            records,
            max_timestamp: Timestamp::from_millis(max_timestamp),
            pieces,
        },
    )
}

fn arbitrary_result() -> impl Strategy<Value = CommitResult> {
    let run = (any::<u64>(), any::<u32>(), any::<u32>(), 0..=Offset::MAX.get());
    let runs = prop::collection::vec(run, 0..4);
    (any::<u64>(), any::<u32>(), runs).prop_map(|(sequence, attempt, runs)| CommitResult {
        sequence: SlotSequence::new(sequence),
        attempt: Attempt::new(attempt),
        runs: runs
            .into_iter()
            .map(|(position, length, records, base)| PlacedRun {
                position,
                length,
                records,
                base: Offset::new(base),
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn any_object_reads_back_what_it_was_built_from(
        mut extents in prop::collection::vec(arbitrary_extent(), 0..8),
        results in prop::collection::vec(arbitrary_result(), 0..4),
    ) {
        extents.sort_by_key(|extent| extent.partition);
        let mut builder = ObjectBuilder::new();
        let positions: Vec<u64> = extents.iter().map(|extent| builder.push(extent.clone())).collect();
        results.iter().for_each(|result| builder.push_result(result.clone()));
        let built = builder.finish();
        let bytes = bytes_of(&built.payload(&header()));
        let (read, footer) = decode_object(&bytes).unwrap();
        prop_assert_eq!(read, header());
        prop_assert_eq!(&footer.index.results, &results);
        for ((entry, extent), position) in footer.index.extents.iter().zip(&extents).zip(positions) {
            let start = usize::try_from(entry.position).unwrap();
            prop_assert_eq!(entry.position, position);
            prop_assert_eq!(&bytes[start..start + entry.length as usize], &extent.pieces.concat()[..]);
            prop_assert_eq!((entry.partition, entry.batches, entry.records), (extent.partition, extent.batches, extent.records));
            prop_assert_eq!(entry.max_timestamp, extent.max_timestamp);
        }
        prop_assert_eq!(footer.index.extents.len(), extents.len());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_object(&bytes);
        let _ = ObjectFooter::decode(&bytes, bytes.len() as u64);
    }

    #[test]
    fn no_index_with_a_good_checksum_makes_the_decoder_panic(index in prop::collection::vec(0u8..4, 0..300), position in any::<u64>()) {
        let trailer = ObjectTrailer::of(position, 0, &index);
        let _ = ObjectIndex::decode(&trailer, &index);
    }
}
