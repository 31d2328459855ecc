//! Produce and producer ids.

use bytes::Bytes;
use kacrab_protocol::generated as g;
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, keyed, produce, records, sequenced, text};

async fn producer(client: &mut Client) -> i64 {
    let answer = client.call(&g::InitProducerIdRequestData::default(), 4).await;
    assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
    answer.producer_id
}

/// A batch with some of its bytes changed after it was sealed.
fn changed(place: usize, bytes: &[u8]) -> Bytes {
    let mut changed = batch(Compression::None, 1_000, &["a", "b"]).to_vec();
    changed[place..place + bytes.len()].copy_from_slice(bytes);
    changed.into()
}

/// The same, sealed anew as a producer does: the seal covers everything from the attributes on.
fn resealed(place: usize, bytes: &[u8]) -> Bytes {
    let mut changed = changed(place, bytes).to_vec();
    let crc = crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.into()
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    };
    !bytes.iter().fold(!0, step)
}

#[tokio::test]
async fn records_come_back_as_they_were_sent_with_every_compression_and_version() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let mut offset = 0;
    // Only what gets smaller is compressed.
    let (a, b) = ("a".repeat(300), "b".repeat(300));
    for compression in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let (code, base, time, _) = client.produce("t", batch(compression, 1_000, &[&a, &b])).await;
        assert_eq!((code, base, time), (0, offset, -1), "{compression:?}");
        offset += 2;
    }
    let topic_id = {
        let answer = client.call(&g::MetadataRequestData::default(), 12).await;
        answer.topics[0].topic_id
    };
    for version in 3..=13 {
        let mut request = produce("t", batch(Compression::None, 1_000, &["v"]));
        if version >= 13 {
            request.topic_data[0].name = text("");
            request.topic_data[0].topic_id = topic_id;
        }
        let answer = client.call(&request, version).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset), "{version}");
        offset += 1;
    }
    let all = records(&client.fetch("t", 0, 0).await);
    assert_eq!(all.len(), 21);
    assert_eq!((&all[0], &all[9]), (&(0, a), &(9, b)));
    assert!(all.iter().map(|(offset, _)| *offset).eq(0..21));
}

#[tokio::test]
async fn a_compacted_topic_takes_no_record_without_a_key() {
    let house = House::start().await;
    house.topic("t", 1, &[("cleanup.policy", "compact")]).await;
    house.topic("u", 1, &[]).await;
    let mut client = house.connect();
    for compression in Compression::ALL {
        let mixed = keyed(compression, &[Some("a"), None, None]);
        let answer = client.call(&produce("t", mixed.clone()), 9).await;
        let answer = &answer.responses[0].partition_responses[0];
        let faults: Vec<i32> = answer.record_errors.iter().map(|record| record.batch_index).collect();
        assert_eq!((answer.error_code, answer.base_offset, faults), (87, -1, vec![1, 2]), "{compression}");
        assert_eq!(client.produce("t", keyed(compression, &[Some("a"), Some("")])).await.0, 0);
        assert_eq!(client.produce("u", mixed).await.0, 0);
    }
}

#[tokio::test]
async fn each_fault_of_a_batch_has_its_error() {
    let house = House::start().await;
    house.topic("t", 1, &[("max.message.bytes", "1024")]).await;
    let mut client = house.connect();
    let sound = batch(Compression::None, 1_000, &["a", "b"]);
    let two = Bytes::from([&sound[..], &sound[..]].concat());
    let long = "x".repeat(2_000);
    let ahead = i64::MAX / 2;
    let cases: Vec<(&str, Bytes, i16)> = vec![
        ("no batch", Bytes::new(), 87),
        ("two batches", two, 87),
        ("cut short", sound.slice(..70), 87),
        ("base offset", changed(0, &7_i64.to_be_bytes()), 87),
        ("magic", changed(16, &[1]), 87),
        ("seal", changed(70, &[0xff]), 2),
        ("too large", batch(Compression::None, 1_000, &[&long]), 10),
        ("control", resealed(21, &0x20_i16.to_be_bytes()), 87),
        ("transactional", resealed(21, &0x10_i16.to_be_bytes()), 48),
        ("unknown compression", resealed(21, &0x05_i16.to_be_bytes()), 76),
        ("no records", resealed(57, &0_i32.to_be_bytes()), 87),
        ("negative count", resealed(57, &(-1_i32).to_be_bytes()), 87),
        ("count and delta differ", resealed(57, &1_i32.to_be_bytes()), 87),
        ("no sequence", resealed(43, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]), 87),
        ("garbage", resealed(61, &[0xff]), 87),
        ("compressed garbage", resealed(21, &0x01_i16.to_be_bytes()), 87),
        ("a time far ahead", batch(Compression::None, ahead, &["a"]), 32),
    ];
    for (what, bytes, code) in cases {
        let (found, base, _, message) = client.produce("t", bytes).await;
        assert_eq!((found, base), (code, -1), "{what}: {message:?}");
        assert!(message.is_some(), "{what}");
    }
    let zstd = produce("t", batch(Compression::Zstd, 1_000, &[&"a".repeat(300)]));
    let answer = client.call(&zstd, 6).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 76);
    assert_eq!(client.produce("missing", sound.clone()).await.0, 3);
    let mut request = produce("t", sound.clone());
    request.topic_data[0].partition_data[0].index = 9;
    assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 3);
    let mut request = produce("t", sound.clone());
    request.acks = 2;
    assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 21);
    let mut request = produce("", sound.clone());
    request.topic_data[0].topic_id = kacrab_protocol::KafkaUuid::from_parts(1, 2);
    assert_eq!(client.call(&request, 13).await.responses[0].partition_responses[0].error_code, 100);
    let mut request = produce("t", sound.clone());
    request.transactional_id = Some(text("tx"));
    assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 48);
    // Nothing of all that is in the log.
    assert_eq!(client.produce("t", sound).await.1, 0);
}

#[tokio::test]
async fn one_bad_partition_does_not_fail_its_neighbours_and_says_which_record() {
    let house = House::start().await;
    house.topic("t", 2, &[]).await;
    let mut client = house.connect();
    let mut request = produce("t", resealed(72, &[0x7f]));
    let good = g::PartitionProduceData {
        index: 1,
        records: Some(batch(Compression::None, 1_000, &["good"])),
        ..Default::default()
    };
    request.topic_data[0].partition_data.push(good);
    let answer = client.call(&request, 9).await;
    let [bad, good] = &answer.responses[0].partition_responses[..] else { panic!("two answers") };
    assert_eq!((bad.error_code, good.error_code, good.base_offset), (87, 0, 0));
    assert_eq!(bad.record_errors.len(), 1);
    assert_eq!(bad.record_errors[0].batch_index, 1);
}

#[tokio::test]
async fn an_idempotent_batch_is_stored_once_and_gaps_are_refused() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let id = producer(&mut client).await;
    assert_ne!(id, producer(&mut client).await);
    assert!(id < 1 << 40, "ids of Kafka clients come from their own range");
    for round in 0..2 {
        // The second time they are duplicates, with the offsets they got first.
        for first in 0..5 {
            let (code, base, ..) = client.produce("t", sequenced(id, 0, first, &["x"])).await;
            assert_eq!((code, base), (0, i64::from(first)), "round {round}");
        }
    }
    assert_eq!(client.produce("t", sequenced(id, 0, 5, &["x"])).await.1, 5);
    // Five are remembered: the first is not known any more.
    assert_eq!(client.produce("t", sequenced(id, 0, 0, &["x"])).await.0, 45);
    assert_eq!(client.produce("t", sequenced(id, 0, 7, &["x"])).await.0, 45);
    // A new epoch starts at 0, and then the old one is over.
    assert_eq!(client.produce("t", sequenced(id, 1, 3, &["x"])).await.0, 45);
    assert_eq!(client.produce("t", sequenced(id, 1, 0, &["x"])).await.1, 6);
    assert_eq!(client.produce("t", sequenced(id, 0, 6, &["x"])).await.0, 47);
    // Nobody was ever given this id; of another nothing is known here.
    assert_eq!(client.produce("t", sequenced(1 << 39, 0, 0, &["x"])).await.0, 49);
    let other = producer(&mut client).await;
    assert_eq!(client.produce("t", sequenced(other, 0, 4, &["x"])).await.0, 59);
}

#[tokio::test]
async fn the_log_gives_the_time_where_the_topic_says_so() {
    let house = House::start().await;
    house.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut client = house.connect();
    let (code, base, time, _) = client.produce("t", batch(Compression::None, 5, &["a"])).await;
    assert_eq!((code, base), (0, 0));
    assert!(time > 1_600_000_000_000, "{time}");
    let fetched = client.fetch("t", 0, 0).await;
    let bytes = fetched.records.expect("records");
    let header = streamhouse_types::batch::read_header(&bytes).expect("a batch");
    assert!(header.attributes.is_log_append_time());
    assert_eq!(header.max_timestamp.as_millis(), time);
}

#[tokio::test]
async fn transactional_producers_are_refused_at_once() {
    let house = House::start().await;
    let mut client = house.connect();
    let request = g::InitProducerIdRequestData {
        transactional_id: Some(text("tx")),
        transaction_timeout_ms: 1_000,
        ..Default::default()
    };
    for version in 0..=5 {
        let answer = client.call(&request, version).await;
        assert_eq!((answer.error_code, answer.producer_id), (53, -1));
    }
}
