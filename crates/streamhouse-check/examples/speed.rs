//! How fast histories are judged, and what a record costs: one producer a partition, one consumer over all of them,
//! then a final read.
//!
//!     cargo run --release -p streamhouse-check --example speed -- 2000000

#![expect(clippy::disallowed_methods, reason = "a measurement looks at the clock")]

use std::time::Instant;

use streamhouse_check::{
    Acknowledged, Checker, Digest, Event, FinalRead, Header, History, Memory, Micros, Poll, Recorder, Report,
    Sending,
};
use streamhouse_types::{LogIndex, NodeId, Offset};

const PARTITIONS: u64 = 8;
const RECORDS_A_POLL: usize = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let records: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let start = Instant::now();
    let text = record(records)?;
    let recorded = start.elapsed().as_secs_f64();
    let megabytes = text.len() as f64 / 1e6;

    let start = Instant::now();
    let report = History::check(text.as_slice())?;
    let judged = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut history = History::open(text.as_slice())?;
    while history.next_event()?.is_some() {}
    let read = start.elapsed().as_secs_f64();

    let mut history = History::open(text.as_slice())?;
    let mut checker = Checker::new(history.header());
    while let Some(event) = history.next_event()? {
        checker.observe(&event)?;
    }
    let bytes = checker.record_bytes() as f64 / records as f64;
    assert!(report.is_clean(), "{report}");
    let Report { counts, .. } = report;
    // A record is an event each time it is sent, acknowledged or read.
    let facts = (counts.appended + counts.acked + counts.read) as f64;
    println!("{records} records, {} lines, {megabytes:.0} MB", counts.events);
    println!("recorded   {:>7.2} M records/s", records as f64 / recorded / 1e6);
    let lines = counts.events as f64;
    println!(
        "judged     {:>7.2} M lines/s, {:.2} M facts/s, {:.0} MB/s",
        lines / judged / 1e6,
        facts / judged / 1e6,
        megabytes / judged
    );
    println!("of which   {read:.2} s reading lines, {:.2} s checking", judged - read);
    println!("kept       {bytes:.1} bytes a record");
    Ok(())
}

fn value(partition: u64, number: u64) -> Digest {
    Digest::of(format!("{partition}-{number}").as_bytes())
}

/// The history of a sound run.
fn record(records: u64) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let memory = Memory::default();
    let time = std::sync::atomic::AtomicU64::new(0);
    let clock = move || Micros::new(time.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let recorder = Recorder::new(memory.clone(), &Header::default(), clock)?;
    let names: Vec<String> = (0..PARTITIONS).map(|partition| format!("t/{partition}")).collect();
    let per_partition = records / PARTITIONS;
    for first in (0..per_partition).step_by(RECORDS_A_POLL) {
        let last = per_partition.min(first + RECORDS_A_POLL as u64);
        for (partition, name) in (0..).zip(&names) {
            for number in first..last {
                let values = [value(partition, number)];
                let op = recorder.append(&Sending {
                    producer: name,
                    idempotent: true,
                    partition: name,
                    sequence: number,
                    values: &values,
                });
                let token = Some(LogIndex::new(first));
                recorder.acked(op, Acknowledged { token, ..Acknowledged::at(number) });
            }
            read(&recorder, "c", (partition, name), (first..last, last));
        }
    }
    recorder.record(&Event::FinalRead(FinalRead { at: recorder.now() }));
    for first in (0..per_partition).step_by(RECORDS_A_POLL) {
        for (partition, name) in (0..).zip(&names) {
            let offsets = first..per_partition.min(first + RECORDS_A_POLL as u64);
            read(&recorder, "final", (partition, name), (offsets, per_partition));
        }
    }
    recorder.finish()?;
    Ok(memory.bytes())
}

fn read(recorder: &Recorder, consumer: &str, partition: (u64, &str), answer: (std::ops::Range<u64>, u64)) {
    let (offsets, high_watermark) = answer;
    let (partition, name) = partition;
    let begin = recorder.now();
    recorder.record(&Event::Poll(Poll {
        consumer: consumer.into(),
        partition: name.into(),
        begin,
        end: recorder.now(),
        node: Some(NodeId::new(1)),
        from: Some(Offset::new(offsets.start)),
        high_watermark: Some(Offset::new(high_watermark)),
        log_start: Some(Offset::ZERO),
        token: Some(LogIndex::new(offsets.start)),
        records: offsets.map(|number| (Offset::new(number), value(partition, number))).collect(),
    }));
}
