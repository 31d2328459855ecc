use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use streamhouse_env::Env;
use streamhouse_metadata::Command;
use streamhouse_types::{Offset, PartitionId, PartitionIndex, Timestamp};

use crate::testing::{Rig, batch, large, make_topic, records, timed};
use crate::{AppendRequest, BrokerSettings, FetchError, FetchRequest, NewTopic, Position};

/// Everything comes from the store.
fn cold() -> BrokerSettings {
    BrokerSettings { tail_cache_bytes: 0, ..BrokerSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_begins_with_the_batch_that_holds_the_offset() {
    for settings in [BrokerSettings::default(), cold()] {
        let rig = Rig::with(settings).await;
        for values in [["a", "b", "c"], ["d", "e", "f"]] {
            rig.append(0, batch(&values)).await.expect("appended");
        }
        let fetched = rig.broker.fetch(rig.request(0, 4)).await.expect("readable");
        assert_eq!(records(&fetched), [(3, "d".into()), (4, "e".into()), (5, "f".into())]);
        assert_eq!((fetched.next_offset.get(), fetched.high_watermark.get(), fetched.records), (6, 6, 3));
        let end = rig.broker.fetch(rig.request(0, 6)).await.expect("readable");
        assert!(end.is_empty());
        assert_eq!(end.next_offset, Offset::new(6));
    }
}

#[tokio::test(start_paused = true)]
async fn tail_reads_ask_the_store_for_nothing() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["a"])).await.expect("appended");
    assert_eq!(rig.values(0).await, ["a"]);
    assert_eq!(rig.blob.gets.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_what_is_asked_for_comes_alone() {
    for settings in [BrokerSettings::default(), cold()] {
        let rig = Rig::with(settings).await;
        for _ in 0..3 {
            rig.append(0, large(200_000)).await.expect("appended");
        }
        let request = FetchRequest { max_bytes: 10, ..rig.request(0, 1) };
        let fetched = rig.broker.fetch(request).await.expect("readable");
        assert_eq!((fetched.records, fetched.next_offset.get()), (1, 2));
        let request = FetchRequest { max_bytes: 450_000, ..rig.request(0, 0) };
        assert_eq!(rig.broker.fetch(request).await.expect("readable").records, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_gets_everything_once_whatever_it_asks_for() {
    for settings in [BrokerSettings::default(), cold()] {
        let rig = Rig::with(settings).await;
        let session = rig.broker.session(1 << 30);
        let mut acks = Vec::new();
        for number in 0..200_usize {
            let value = format!("{number}-{}", "y".repeat(number * 37 % 9_000));
            acks.push(rig.send(&session, 0, batch(&[&value, "small"])).await);
        }
        for ack in acks {
            ack.await.expect("appended");
        }
        for max_bytes in [1, 5_000, 60_000, 1 << 20] {
            let (mut offset, mut seen) = (0, 0);
            while offset < 400 {
                let request = FetchRequest { max_bytes, ..rig.request(0, offset) };
                let fetched = rig.broker.fetch(request).await.expect("readable");
                for (at, value) in records(&fetched) {
                    assert_eq!(at, seen);
                    assert!(value == "small" || value.starts_with(&format!("{}-", at / 2)));
                    seen += 1;
                }
                offset = fetched.next_offset.get();
            }
            assert_eq!(seen, 400);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_is_woken_by_the_high_watermark_and_not_by_its_timer() {
    let rig = Rig::start().await;
    let request = FetchRequest { min_bytes: 1, max_wait: Duration::from_secs(30), ..rig.request(0, 0) };
    let mut waiting = Box::pin(rig.broker.fetch(request));
    assert!((&mut waiting).now_or_never().is_none());
    let begun = Env::system().clock.now();
    rig.append(1, batch(&["elsewhere"])).await.expect("appended");
    assert!((&mut waiting).now_or_never().is_none());
    rig.append(0, batch(&["here"])).await.expect("appended");
    let fetched = waiting.await.expect("readable");
    assert_eq!(records(&fetched), [(0, "here".into())]);
    assert!(Env::system().clock.now() - begun < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_that_gets_nothing_ends_with_its_time() {
    let rig = Rig::start().await;
    let begun = Env::system().clock.now();
    let request = FetchRequest { min_bytes: 1, max_wait: Duration::from_secs(5), ..rig.request(0, 0) };
    assert!(rig.broker.fetch(request).await.expect("readable").is_empty());
    let waited = Env::system().clock.now() - begun;
    assert!((Duration::from_secs(5)..Duration::from_millis(5_100)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn out_of_range_is_said_only_after_the_state_was_shown_to_be_current() {
    let rig = Rig::start().await;
    rig.append(0, batch(&["a"])).await.expect("appended");
    let before = rig.log.read_indexes.load(Ordering::SeqCst);
    let error = rig.broker.fetch(rig.request(0, 7)).await.expect_err("outside");
    assert!(
        matches!(error, FetchError::OutOfRange { high_watermark, .. } if high_watermark.get() == 1),
        "{error}"
    );
    assert_eq!(rig.log.read_indexes.load(Ordering::SeqCst), before + 1);
    let partition = PartitionId::new(rig.topic, PartitionIndex::new(9));
    let error = rig.broker.fetch(FetchRequest { partition, ..rig.request(0, 0) }).await.expect_err("none");
    assert!(matches!(error, FetchError::UnknownPartition { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn records_before_the_log_start_are_out_of_range() {
    let rig = Rig::start().await;
    for value in ["a", "b", "c"] {
        rig.append(0, batch(&[value])).await.expect("appended");
    }
    let start = rig.broker.trim(rig.partition(0), Offset::new(2)).await.expect("trimmed");
    assert_eq!(start, Offset::new(2));
    let error = rig.broker.fetch(rig.request(0, 1)).await.expect_err("trimmed away");
    assert!(matches!(error, FetchError::OutOfRange { .. }), "{error}");
    assert_eq!(records(&rig.broker.fetch(rig.request(0, 2)).await.expect("readable")), [(2, "c".into())]);
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_read_again_and_never_served() {
    let rig = Rig::with(cold()).await;
    rig.append(0, batch(&["true"])).await.expect("appended");
    rig.blob.lies.store(1, Ordering::SeqCst);
    let mut gets = Vec::new();
    for _ in 0..3 {
        let before = rig.blob.gets.load(Ordering::SeqCst);
        assert_eq!(rig.values(0).await, ["true"]);
        gets.push(rig.blob.gets.load(Ordering::SeqCst) - before);
    }
    assert_eq!(gets, [2, 1, 0], "the cache forgets what is wrong");
    let rig = Rig::with(cold()).await;
    rig.append(0, batch(&["true"])).await.expect("appended");
    rig.blob.lies.store(4, Ordering::SeqCst);
    assert_eq!(rig.values(0).await, ["true"], "an answer that is wrong several times in a row is no damage");
    let rig = Rig::with(cold()).await;
    rig.append(0, batch(&["true"])).await.expect("appended");
    {
        let mut objects = rig.blob.objects.lock();
        let object = objects.values_mut().next().expect("an object");
        let mut bytes = object.to_vec();
        bytes[150] ^= 1;
        *object = bytes.into();
    }
    let error = rig.broker.fetch(rig.request(0, 0)).await.expect_err("damaged");
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_damage_and_never_an_empty_answer() {
    let rig = Rig::with(cold()).await;
    rig.append(0, batch(&["gone"])).await.expect("appended");
    rig.blob.objects.lock().clear();
    let error = rig.broker.fetch(rig.request(0, 0)).await.expect_err("gone");
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn positions_become_offsets() {
    let rig = Rig::start().await;
    rig.append(0, timed(&[10, 30, 20])).await.expect("appended");
    rig.append(0, timed(&[40, 60, 50])).await.expect("appended");
    let at = async |position| {
        rig.broker.list_offset(rig.partition(0), position).await.map(|found| found.offset.get())
    };
    let time = async |millis| {
        let found =
            rig.broker.list_offset(rig.partition(0), Position::Time(Timestamp::from_millis(millis))).await;
        let found = found.expect("found");
        (found.offset.get(), found.timestamp.map(Timestamp::as_millis))
    };
    assert_eq!(at(Position::Start).await.unwrap(), 0);
    assert_eq!(at(Position::End).await.unwrap(), 6);
    assert_eq!(at(Position::BeforeEnd(2)).await.unwrap(), 4);
    assert_eq!(at(Position::BeforeEnd(99)).await.unwrap(), 0);
    assert_eq!(at(Position::Offset(Offset::new(6))).await.unwrap(), 6);
    assert!(matches!(at(Position::Offset(Offset::new(7))).await, Err(FetchError::OutOfRange { .. })));
    assert_eq!(time(0).await, (0, Some(10)));
    assert_eq!(time(15).await, (1, Some(30)));
    assert_eq!(time(31).await, (3, Some(40)));
    assert_eq!(time(50).await, (4, Some(60)));
    assert_eq!(time(61).await, (6, None));
    rig.broker.trim(rig.partition(0), Offset::new(2)).await.expect("trimmed");
    assert_eq!(time(15).await, (2, Some(20)));
}

#[tokio::test(start_paused = true)]
async fn append_time_topics_give_every_record_the_time_of_the_log() {
    let rig = Rig::start().await;
    let topic = make_topic(&rig.broker, "stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let partition = PartitionId::new(topic, PartitionIndex::new(0));
    let request = AppendRequest { partition, batch: timed(&[5, 6]), permit: None };
    let session = rig.broker.session(0);
    let appended = rig.broker.append(&session, request).await.expect("admitted").await.expect("appended");
    let fetched = rig.broker.fetch(FetchRequest { partition, ..rig.request(0, 0) }).await.expect("readable");
    assert_eq!(records(&fetched).len(), 2, "the checksum is that of the patched bytes");
    let header = streamhouse_types::batch::read_header(&fetched.bytes.concat()).unwrap();
    assert!(header.attributes.is_log_append_time());
    let stamp = header.max_timestamp;
    assert!(stamp >= appended.append_time);
    let found =
        rig.broker.list_offset(partition, Position::Time(Timestamp::from_millis(7))).await.expect("found");
    assert_eq!((found.offset.get(), found.timestamp), (0, Some(stamp)));
}

#[tokio::test(start_paused = true)]
async fn a_sequential_reader_of_cold_bytes_is_read_ahead_for() {
    let rig = Rig::with(BrokerSettings { flush_bytes: 100_000, ..cold() }).await;
    for _ in 0..40 {
        rig.append(0, large(100_000)).await.expect("appended");
    }
    let mut offset = 0;
    let mut reads = Vec::new();
    while offset < 40 {
        let before = rig.blob.gets.load(Ordering::SeqCst);
        let request = FetchRequest { max_bytes: 100_000, ..rig.request(0, offset) };
        offset = rig.broker.fetch(request).await.expect("readable").next_offset.get();
        reads.push(rig.blob.gets.load(Ordering::SeqCst) - before);
        Env::system().clock.sleep(Duration::from_millis(1)).await;
    }
    assert!(reads.iter().filter(|gets| **gets == 0).count() > 30, "{reads:?}");
    assert!(rig.blob.gets.load(Ordering::SeqCst) <= 42, "each object is read about once");
}

/// Eight partitions side by side in every object, read all at once by a reader that takes `pause_ms` of a partition
/// over each fetch. Returns the bytes that the store gave, for 100 that were served, and how long it took.
async fn read_side_by_side(pause_ms: fn(u32) -> u64) -> (u64, Duration) {
    let settings = BrokerSettings {
        block_cache_bytes: 8 << 20,
        in_flight_bytes: 1 << 30,
        flush_bytes: 64 << 20,
        ..cold()
    };
    let rig = Rig::with(settings).await;
    let new = NewTopic {
        name: "side-by-side".parse().unwrap(),
        partitions: 8,
        settings: Vec::new(),
        request: None,
        validate_only: false,
    };
    let topic = rig.broker.create_topic(new).await.expect("a topic").id;
    let partitions: Vec<_> =
        (0..8).map(|index| PartitionId::new(topic, PartitionIndex::new(index))).collect();
    let session = rig.broker.session(1 << 30);
    for _ in 0..24 {
        let mut acks = Vec::new();
        for partition in partitions.iter().flat_map(|partition| [partition; 4]) {
            let request = AppendRequest { partition: *partition, batch: large(70_000), permit: None };
            acks.push(rig.broker.append(&session, request).await.expect("admitted"));
        }
        for ack in acks {
            ack.await.expect("appended");
        }
    }
    assert!(rig.blob.names().len() < 40, "extents of all partitions lie side by side");
    rig.blob.get_ms.store(20, Ordering::SeqCst);
    let clock = Env::system().clock;
    let begun = clock.now();
    let readers = partitions.iter().map(|partition| {
        let (rig, clock) = (&rig, &clock);
        async move {
            let (mut offset, mut served) = (0, 0);
            while offset < 96 {
                let request = FetchRequest { partition: *partition, ..rig.request(0, offset) };
                let fetched = rig.broker.fetch(request).await.expect("readable");
                offset = fetched.next_offset.get();
                served += fetched.bytes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
                clock.sleep(Duration::from_millis(pause_ms(partition.index.get()))).await;
            }
            served
        }
    });
    let served: u64 = futures::future::join_all(readers).await.into_iter().sum();
    assert!(served > 8 * 96 * 70_000);
    (rig.blob.got_bytes.load(Ordering::SeqCst) * 100 / served, clock.now() - begun)
}

#[tokio::test(start_paused = true)]
async fn partitions_that_lie_side_by_side_are_read_about_once_from_the_store() {
    let (in_step, took) = read_side_by_side(|_| 5).await;
    assert!(in_step <= 115, "{in_step} bytes of the store for 100, in {took:?}");
    assert!(took < Duration::from_millis(300), "{took:?}");
    let (apart, took) = read_side_by_side(|index| 1 + 7 * u64::from(index)).await;
    assert!(apart <= 130, "{apart} bytes of the store for 100, in {took:?}");
}

/// So many readers of records that are a minute old that their budget is spent, while the store does not answer them;
/// and a record of another partition that was just written, and is not in memory either.
#[tokio::test(start_paused = true)]
async fn readers_that_are_far_behind_hold_up_nobody_at_the_end_of_the_log() {
    let now = Env::system().clock.wall();
    let rig = Rig::founded(now.plus_millis(-60_000), cold()).await;
    for _ in 0..3 {
        rig.append(0, large(700_000)).await.expect("appended");
    }
    rig.log.inner.apply(&Command::Tick { now });
    let old = rig.blob.names().len() as u64 + 1;
    rig.append(1, batch(&["new"])).await.expect("appended");
    rig.blob.hold_gets_below(old);
    let budget = &rig.broker.0.reading.cold;
    let readers = budget.total() / (1 << 20) + 4;
    let mut behind: FuturesUnordered<_> = (0..readers).map(|_| rig.broker.fetch(rig.request(0, 0))).collect();
    while budget.in_use() < budget.total() {
        assert!(behind.next().now_or_never().is_none());
        tokio::task::yield_now().await;
    }

    let newest = async { rig.broker.fetch(rig.request(1, 0)).await.expect("readable") };
    let time = Timestamp::from_millis(0);
    let find = async { rig.broker.list_offset(rig.partition(1), Position::Time(time)).await.expect("found") };
    tokio::select! {
        biased;
        (fetched, found) = futures::future::join(newest, find) => {
            assert_eq!(records(&fetched), [(0, "new".into())]);
            assert_eq!(found.offset.get(), 0);
        }
        _ = behind.next() => panic!("a reader at the end waits for those behind"),
    }
    rig.blob.hold_gets_below(0);
    while let Some(fetched) = behind.next().await {
        assert_eq!(fetched.expect("readable").records, 1);
    }
    assert_eq!(budget.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_ahead_beyond_the_budget_of_readers_that_are_behind() {
    let rig = Rig::with(BrokerSettings { flush_bytes: 100_000, ..cold() }).await;
    for _ in 0..40 {
        rig.append(0, large(100_000)).await.expect("appended");
    }
    let read = async |offset: u64| {
        let before = rig.blob.gets.load(Ordering::SeqCst);
        let request = FetchRequest { max_bytes: 100_000, ..rig.request(0, offset) };
        assert_eq!(rig.broker.fetch(request).await.expect("readable").records, 1);
        Env::system().clock.sleep(Duration::from_millis(1)).await;
        rig.blob.gets.load(Ordering::SeqCst) - before
    };
    let budget = &rig.broker.0.reading.cold;
    let all = budget.acquire(budget.total()).await;
    for offset in 0..10 {
        assert_eq!(read(offset).await, 1, "just what was asked for");
    }
    drop(all);
    rig.blob.hold_gets_below(30);
    let ahead = rig.broker.fetch(FetchRequest { max_bytes: 100_000, ..rig.request(0, 9) });
    ahead.await.expect("it is in the cache");
    tokio::task::yield_now().await;
    assert!(budget.in_use() > 1_000_000, "what is read ahead takes its share: {}", budget.in_use());
    rig.blob.hold_gets_below(0);
    while budget.in_use() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(10).await + read(11).await, 0, "it was read ahead");
}
