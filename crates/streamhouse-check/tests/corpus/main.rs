//! Replays the fuzz corpus of the target `history`, and freezes how version 1 is written.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it does not expect")]

mod body;

use std::path::Path;

use streamhouse_check::{
    Acked, Acknowledged, Anomaly, Audit, Commit, CommitOutcome, Committed, Digest, Event, FinalRead,
    Happened, Header, History, HistoryError, Memory, Micros, Observed, OutOfRange, Poll, Recorder, Refusal,
    Report, Restart, Seek, Sending, Trim,
};
use streamhouse_types::{LogIndex, NodeId, Offset};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/history");

#[test]
fn the_fuzz_corpus_is_judged_without_a_panic() {
    let mut replayed = 0;
    for file in std::fs::read_dir(CORPUS).expect("the corpus is in the repository") {
        body::run(
            &std::fs::read(file.expect("the folder can be listed").path()).expect("the file can be read"),
        );
        replayed += 1;
    }
    assert!(replayed >= 8, "{replayed} files were found");
}

/// Every kind of line, with every field.
fn everything() -> Vec<u8> {
    let memory = Memory::default();
    let header = Header { retention: true, note: "every kind of line".to_owned(), ..Header::default() };
    let recorder = Recorder::new(memory.clone(), &header, || Micros::new(1_000)).unwrap().client("writer");
    let values = [Digest::of(b"first"), Digest::of(b"second")];
    let send = |partition, sequence| Sending {
        producer: "p",
        idempotent: true,
        partition,
        sequence,
        values: &values,
    };
    let op = recorder.append(&send("orders/0", 0));
    let (token, node) = (Some(LogIndex::new(17)), Some(NodeId::new(3)));
    recorder.acked(op, Acknowledged { token, node, retried: true, ..Acknowledged::at(0) });
    let op = recorder.append(&send("orders/1", 7));
    recorder.failed(op, Happened::Maybe, "no answer within 10 s");
    let op = recorder.append(&send("orders/2", 0));
    recorder.failed(op, Happened::No, "the topic is \"gone\"");
    let (begin, end, at) = (Micros::new(1_100), Micros::new(1_200), Micros::new(1_300));
    let (consumer, partition) = ("c".into(), "orders/0".into());
    let (high_watermark, log_start) = (Some(Offset::new(2)), Some(Offset::ZERO));
    let records = vec![(Offset::new(0), values[0]), (Offset::new(1), values[1])];
    let from = Some(Offset::ZERO);
    let poll =
        Poll { consumer, partition, begin, end, node, from, records, high_watermark, log_start, token };
    recorder.record(&Event::Poll(poll));
    let (high_watermark, log_start, position) = (Offset::new(2), Offset::ZERO, Offset::new(9));
    let (consumer, partition) = ("c".into(), "orders/0".into());
    recorder.record(&Event::OutOfRange(OutOfRange {
        consumer,
        partition,
        begin,
        end,
        node,
        position,
        high_watermark,
        log_start,
        token,
    }));
    recorder.record(&Event::Restart(Restart { consumer: "c".into(), at }));
    recorder.record(&Event::Trim(Trim { partition: "orders/0".into(), before: Offset::new(1), at }));
    recorder.record(&Event::FinalRead(FinalRead { at }));
    let (node, partition) = (NodeId::new(3), "orders/0".into());
    recorder.record(&Event::Observed(Observed { node, partition, begin, end, high_watermark, log_start }));
    recorder.record(&Event::Audit(Audit {
        at,
        referenced: 3,
        present: 3,
        intact: 2,
        orphans: 1,
        orphans_allowed: Some(1),
        unexplained: 0,
        faults: vec!["1-1-wal-7-0: wrong checksum".into()],
    }));
    recorder.finish().unwrap();
    memory.bytes()
}

/// The lines of groups, which came later.
fn groups() -> Vec<u8> {
    let memory = Memory::default();
    let recorder = Recorder::new(memory.clone(), &Header::default(), || Micros::new(1_000)).unwrap();
    let (begin, end, at) = (Micros::new(1_100), Micros::new(1_200), Micros::new(1_300));
    for (generation, outcome) in [(1, CommitOutcome::Done), (2, CommitOutcome::No), (3, CommitOutcome::Maybe)]
    {
        let (group, partition, offset) = ("billing".into(), "orders/0".into(), Offset::new(7));
        recorder.record(&Event::Commit(Commit { group, partition, generation, offset, begin, end, outcome }));
    }
    for offset in [Some(Offset::new(7)), None] {
        let (group, partition, generation) = ("billing".into(), "orders/0".into(), 3);
        recorder.record(&Event::Committed(Committed { group, partition, generation, begin, end, offset }));
    }
    recorder.record(&Event::Seek(Seek { group: "billing".into(), partition: "orders/0".into(), at }));
    recorder.finish().unwrap();
    memory.bytes()
}

/// The seed of this name, which would be written alike today.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says to write the seeds"
)]
fn seed(name: &str, bytes: &[u8]) -> Report {
    let path = Path::new(CORPUS).join(name);
    if std::env::var("UPDATE_CORPUS").is_ok() {
        std::fs::write(&path, bytes).expect("the seed can be written");
    }
    let stored = std::fs::read(&path).expect("the seed is in the repository");
    assert!(stored == bytes, "it would be written differently today");
    History::check(stored.as_slice()).expect("it is read")
}

/// What was written once must be read for ever; a new version of the format gets seeds of its own.
#[test]
fn a_history_that_was_written_before_is_still_written_and_read_alike() {
    let report = seed("v1-everything", &everything());
    assert!(report.complete);
    assert_eq!((report.counts.events, report.counts.appended, report.counts.final_reads), (13, 6, 1));
    let report = seed("v1-groups", &groups());
    assert!(report.complete);
    assert_eq!((report.counts.events, report.verdict(Anomaly::FencedCommit).judged), (6, 1));
}

const HEADER: &str = "{\"history\":{\"version\":1}}\n";
const APPEND: &str = r#"{"append":{"client":"w","op":1,"at":5,"producer":"p","idempotent":true,"partition":"t/0","sequence":3,"values":["00000000000000aa"]}}"#;

/// The line and the reason for which this history is refused.
#[track_caller]
fn refused(text: &str) -> (u64, Refusal) {
    match History::check(text.as_bytes()) {
        Err(HistoryError::Refused { line, refusal }) => (line, refusal),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refuses(lines: &[&str], line: u64, part: &str) {
    let (at, refusal) = refused(&format!("{HEADER}{}\n", lines.join("\n")));
    assert!(refusal.to_string().contains(part), "{refusal}");
    assert_eq!(at, line, "{refusal}");
}

#[test]
fn what_is_no_history_is_told_from_its_first_line() {
    for text in
        ["", "\n", "hello\n", "{}", "{\"append\":{}}\n", "{\"history\":{\"version\":1,\"color\":2}}\n"]
    {
        let (line, refusal) = refused(text);
        assert!(line == 1 && matches!(refusal, Refusal::NoHeader { .. }), "{text:?}: {refusal}");
    }
    let later = "{\"history\":{\"version\":2,\"of\":\"the future\"}}\n";
    assert_eq!(refused(later), (1, Refusal::Version { version: 2 }));
}

#[test]
fn a_line_that_is_no_event_is_named() {
    refuses(&[APPEND, r#"{"explode":{}}"#], 3, "unknown event `explode`, expected one of `append`");
    refuses(&[APPEND, ""], 3, "EOF");
    refuses(&[r#"{"restart":{"consumer":"c"}}"#], 2, "missing field `at`");
    refuses(&[r#"{"restart":{"consumer":"c","at":1,"why":2}}"#], 2, "unknown field `why`");
    refuses(&[r#"{"restart":{"consumer":"","at":1}}"#], 2, "a name has");
    refuses(&[&APPEND.replace("00000000000000aa", "aa")], 2, "16 hexadecimal digits");
    refuses(&[&APPEND.replace("[\"00000000000000aa\"]", "[]")], 2, "1 to 1,000,000 values");
    let cut = format!("{HEADER}{APPEND}\n{}", &APPEND[..60]);
    assert_eq!(refused(&cut), (3, Refusal::CutShort));
}

#[test]
fn a_line_without_an_end_is_given_up() {
    let mut text = format!("{HEADER}{APPEND}\n").into_bytes();
    text.resize(text.len() + (17 << 20), b' ');
    let error = History::check(text.as_slice()).unwrap_err();
    assert!(matches!(error, HistoryError::Refused { line: 3, refusal: Refusal::TooLong }), "{error}");
}

#[test]
fn lines_that_contradict_each_other_are_refused() {
    let acked = |op: u64, at: u64, offset: u64| {
        let (op, at, offset) = (streamhouse_check::OpId::new(op), Micros::new(at), Offset::new(offset));
        let acked = Acked { client: "w".into(), op, at, offset, token: None, node: None, retried: false };
        serde_json::to_string(&Event::Acked(acked)).unwrap()
    };
    refuses(&[APPEND, &acked(2, 9, 0)], 3, "operation 2 of client w is not open");
    refuses(&[APPEND, &acked(1, 9, 0), &acked(1, 9, 0)], 4, "operation 1 of client w is not open");
    refuses(&[APPEND, &acked(1, 4, 0)], 3, "ends before it began");
    refuses(&[APPEND, &acked(1, 9, u64::MAX)], 3, "less than 2^63");
    let two = APPEND.replace("[\"", "[\"00000000000000bb\",\"");
    refuses(&[&two, &acked(1, 9, (1 << 63) - 1)], 3, "less than 2^63");
    refuses(&[APPEND, &APPEND.replace("\"op\":1", "\"op\":2")], 3, "does not come after 3");
    let again = APPEND.replace("\"sequence\":3", "\"sequence\":4");
    refuses(&[APPEND, &again], 3, "before, on line 2; all values must differ");
    refuses(&[APPEND, &again.replace("aa", "ab")], 3, "operation 1 of client w is open already");
    refuses(
        &[&two.replace("\"sequence\":3", "\"sequence\":18446744073709551615")],
        2,
        "sequence numbers end",
    );
    refuses(&[APPEND, r#"{"end":{"events":7}}"#], 3, "says 7 events, there are 1");
    refuses(&[APPEND, r#"{"end":{"events":1}}"#, r#"{"final_read":{"at":9}}"#], 4, "nothing may follow");
}

#[test]
fn a_history_without_its_last_line_is_judged_and_said_to_be_incomplete() {
    let text = format!("{HEADER}{APPEND}");
    let report = History::check(text.as_bytes()).unwrap();
    assert!(report.is_clean() && !report.complete);
    assert_eq!(report.counts.unknown, 1);
}
