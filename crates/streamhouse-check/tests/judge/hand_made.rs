//! Histories written line by line, in one partition `t/0`, and the smallest of each violation.

use std::mem;

use streamhouse_check::{
    Acked, Anomaly, Append, Audit, Digest, Event, Failed, FinalRead, Happened, Micros, Observed, OpId,
    OutOfRange, Poll, Report, Restart, Trim,
};
use streamhouse_types::{LogIndex, NodeId, Offset};

use crate::judge;

/// Writes events one after the other, each at a later time.
pub(crate) struct Script {
    idempotent: bool,
    time: u64,
    op: u64,
    events: Vec<Event<'static>>,
}

impl Default for Script {
    fn default() -> Self {
        Self { idempotent: true, time: 100, op: 0, events: Vec::new() }
    }
}

/// The value that `append` gives the record of this number.
fn value(producer: &str, number: u64) -> Digest {
    Digest::of(format!("{producer}-{number}").as_bytes())
}

pub(crate) fn poll(
    consumer: &'static str,
    from: u64,
    records: &[(u64, Digest)],
    (begin, end): (u64, u64),
) -> Event<'static> {
    Event::Poll(Poll {
        from: Some(Offset::new(from)),
        records: records.iter().map(|(offset, value)| (Offset::new(*offset), *value)).collect(),
        ..Poll::empty(consumer, "t/0", Micros::new(begin), Micros::new(end))
    })
}

impl Script {
    /// Its producers are not idempotent.
    pub(crate) fn without_idempotence() -> Self {
        Self { idempotent: false, ..Self::default() }
    }

    pub(crate) fn push(&mut self, event: Event<'static>) {
        self.events.push(event);
    }

    pub(crate) fn take(&mut self) -> Vec<Event<'static>> {
        mem::take(&mut self.events)
    }

    fn now(&mut self) -> Micros {
        self.time += 10;
        Micros::new(self.time)
    }

    pub(crate) fn append(&mut self, producer: &'static str, number: u64) -> OpId {
        self.append_value(producer, number, value(producer, number))
    }

    pub(crate) fn append_value(&mut self, producer: &'static str, sequence: u64, value: Digest) -> OpId {
        let (at, op, idempotent) = (self.now(), OpId::new(self.op), self.idempotent);
        self.op += 1;
        let (client, partition) = ("w".into(), "t/0".into());
        let (producer, values) = (producer.into(), vec![value]);
        self.push(Event::Append(Append {
            client,
            op,
            at,
            producer,
            idempotent,
            partition,
            sequence,
            values,
        }));
        op
    }

    pub(crate) fn acked(&mut self, op: OpId, offset: u64) {
        self.ack(op, offset, None);
    }

    pub(crate) fn acked_after_retry(&mut self, op: OpId, offset: u64) {
        self.ack(op, offset, None);
        let Some(Event::Acked(acked)) = self.events.last_mut() else { unreachable!("it was pushed") };
        acked.retried = true;
    }

    fn ack(&mut self, op: OpId, offset: u64, token: Option<u64>) {
        let (at, offset, token) = (self.now(), Offset::new(offset), token.map(LogIndex::new));
        self.push(Event::Acked(Acked {
            client: "w".into(),
            op,
            at,
            offset,
            token,
            node: None,
            retried: false,
        }));
    }

    pub(crate) fn failed_maybe(&mut self, op: OpId) {
        self.fail(op, Happened::Maybe);
    }

    pub(crate) fn failed_surely(&mut self, op: OpId) {
        self.fail(op, Happened::No);
    }

    fn fail(&mut self, op: OpId, happened: Happened) {
        let at = self.now();
        self.push(Event::Failed(Failed { client: "w".into(), op, at, happened, error: None }));
    }

    /// The consumer asks from this offset on and gets these records, one offset after the other.
    pub(crate) fn read(&mut self, consumer: &'static str, from: u64, records: &[(&str, u64)]) {
        let records =
            records.iter().zip(from..).map(|((producer, number), offset)| (offset, value(producer, *number)));
        let records: Vec<_> = records.collect();
        let times = (self.now().get(), self.now().get());
        self.push(poll(consumer, from, &records, times));
    }

    /// Everything is read from offset 0 on.
    pub(crate) fn final_read(&mut self, records: &[(&str, u64)]) {
        let at = self.now();
        self.push(Event::FinalRead(FinalRead { at }));
        self.read("final", 0, records);
    }

    pub(crate) fn restart(&mut self, consumer: &'static str) {
        let at = self.now();
        self.push(Event::Restart(Restart { consumer: consumer.into(), at }));
    }

    pub(crate) fn trim(&mut self, before: u64) {
        let at = self.now();
        self.push(Event::Trim(Trim { partition: "t/0".into(), before: Offset::new(before), at }));
    }

    /// Node 1 says, between these times, that the high watermark is this.
    pub(crate) fn observed(&mut self, (begin, end): (u64, u64), high_watermark: u64) {
        self.observed_marks((begin, end), high_watermark, 0);
    }

    fn observed_marks(&mut self, (begin, end): (u64, u64), high_watermark: u64, log_start: u64) {
        self.push(Event::Observed(Observed {
            node: NodeId::new(1),
            partition: "t/0".into(),
            begin: Micros::new(begin),
            end: Micros::new(end),
            high_watermark: Offset::new(high_watermark),
            log_start: Offset::new(log_start),
        }));
    }

    #[track_caller]
    pub(crate) fn passes(&self) {
        let report = judge(&self.events);
        assert!(report.is_clean(), "{report}");
    }

    /// It shows this, once, and nothing else; the report.
    #[track_caller]
    fn shows(&self, anomaly: Anomaly) -> Report {
        let report = judge(&self.events);
        assert_eq!(report.count(anomaly), 1, "{report}");
        assert_eq!(report.total(), 1, "{report}");
        report
    }
}

/// Three records of one producer at offsets 0, 1 and 2.
fn three_acked() -> Script {
    let mut script = Script::default();
    for number in 0..3 {
        let op = script.append("p", number);
        script.acked(op, number);
    }
    script
}

#[test]
fn a_violation_names_partition_offset_producer_and_lines() {
    let mut script = three_acked();
    script.push(Event::FinalRead(FinalRead { at: Micros::new(900) }));
    script.push(poll("final", 0, &[(0, value("p", 0))], (901, 902)));
    script.restart("final");
    script.push(poll("final", 2, &[(2, value("p", 2))], (903, 904)));
    let report = script.shows(Anomaly::LostWrite);
    let violation = &report.violations[0];
    assert_eq!(violation.partition.as_deref(), Some("t/0"));
    assert_eq!((violation.offsets.clone(), &violation.producers), (Some(1..2), &vec!["p".to_owned()]));
    assert_eq!(violation.lines, [4, 11]);
    assert!(
        report.to_string().contains("C4 lost-write: 1 acknowledged records of t/0 are not read"),
        "{report}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["violations"][0]["anomaly"], "lost-write");
    assert_eq!(json["violations"][0]["offsets"]["start"], 1);
    assert_eq!((&json["clean"], &json["verdicts"][3]["check"]), (&false.into(), &"C4".into()));
}

#[test]
fn a_record_that_is_not_read_at_the_end_is_unseen() {
    let mut script = three_acked();
    script.final_read(&[("p", 0), ("p", 1)]);
    script.shows(Anomaly::Unseen);
}

#[test]
fn a_second_final_read_needs_everything_again() {
    let mut script = three_acked();
    script.final_read(&[("p", 0), ("p", 1), ("p", 2)]);
    script.restart("final");
    script.final_read(&[("p", 0), ("p", 1)]);
    script.shows(Anomaly::Unseen);
}

#[test]
fn an_append_after_a_final_read_ends_it() {
    let mut script = three_acked();
    script.final_read(&[("p", 0), ("p", 1), ("p", 2)]);
    let op = script.append("p", 3);
    script.acked(op, 3);
    script.passes();
    script.restart("final");
    script.final_read(&[("p", 0), ("p", 1), ("p", 2)]);
    script.shows(Anomaly::Unseen);
}

#[test]
fn without_a_final_read_nobody_says_that_something_is_missing() {
    let mut script = three_acked();
    script.read("c", 0, &[("p", 0)]);
    let report = judge(&script.events);
    assert!(report.is_clean());
    assert_eq!(report.verdict(Anomaly::LostWrite).judged, 0);
    assert!(report.to_string().contains("lost-write           nothing to judge"), "{report}");
}

#[test]
fn a_hole_is_a_gap_also_at_the_beginning() {
    let mut script = Script::default();
    let op = script.append("p", 0);
    script.acked(op, 1);
    script.push(Event::FinalRead(FinalRead { at: Micros::new(900) }));
    script.push(poll("final", 1, &[(1, value("p", 0))], (901, 902)));
    script.shows(Anomaly::Gap);
}

#[test]
fn two_acknowledgements_of_one_offset_contradict_each_other() {
    let mut script = Script::default();
    let (one, two) = (script.append("p", 0), script.append("q", 0));
    script.acked(one, 7);
    script.acked(two, 7);
    let report = script.shows(Anomaly::InconsistentOffset);
    assert_eq!(report.violations[0].producers, ["p", "q"]);
}

#[test]
fn a_value_that_is_read_before_it_is_sent_is_a_phantom() {
    let mut script = Script::default();
    script.read("c", 0, &[("p", 0)]);
    script.shows(Anomaly::Phantom);
}

#[test]
fn a_failure_that_is_told_after_its_record_was_read_is_a_lie_too() {
    let mut script = Script::default();
    let op = script.append("p", 0);
    script.read("c", 0, &[("p", 0)]);
    script.failed_surely(op);
    script.shows(Anomaly::FailedWriteSeen);
}

#[test]
fn a_record_sent_once_without_idempotence_is_there_once() {
    let mut script = Script::without_idempotence();
    let op = script.append("p", 0);
    script.read("c", 0, &[("p", 0), ("p", 0)]);
    script.acked(op, 0);
    script.shows(Anomaly::Duplicate);
}

#[test]
fn a_record_that_is_read_elsewhere_than_it_was_acknowledged_is_a_duplicate() {
    let mut script = three_acked();
    script.read("c", 3, &[("p", 1)]);
    script.shows(Anomaly::Duplicate);
}

#[test]
fn an_unknown_write_of_an_idempotent_producer_keeps_its_place_in_the_order() {
    let mut script = Script::default();
    let (first, second) = (script.append("p", 0), script.append("p", 1));
    script.failed_maybe(first);
    script.acked(second, 0);
    script.read("c", 0, &[("p", 1), ("p", 0)]);
    script.shows(Anomaly::ProducerOrder);
}

#[test]
fn asking_elsewhere_without_a_restart_is_a_step_back_or_a_skip() {
    let mut script = three_acked();
    script.read("c", 0, &[("p", 0), ("p", 1)]);
    script.read("c", 1, &[("p", 1)]);
    script.shows(Anomaly::NonmonotonicPoll);
    let mut script = three_acked();
    script.read("c", 0, &[("p", 0)]);
    script.read("c", 2, &[("p", 2)]);
    script.shows(Anomaly::PollSkip);
}

fn out_of_range(position: u64, log_start: u64, high_watermark: u64) -> Event<'static> {
    Event::OutOfRange(OutOfRange {
        consumer: "c".into(),
        partition: "t/0".into(),
        begin: Micros::new(900),
        end: Micros::new(901),
        node: Some(NodeId::new(2)),
        position: Offset::new(position),
        high_watermark: Offset::new(high_watermark),
        log_start: Offset::new(log_start),
        token: None,
    })
}

#[test]
fn a_stale_node_must_not_say_out_of_range() {
    let mut script = three_acked();
    script.push(out_of_range(2, 0, 1));
    script.shows(Anomaly::FalseOutOfRange);
    let mut script = three_acked();
    script.push(out_of_range(2, 0, 2));
    script.shows(Anomaly::FalseOutOfRange);
    let mut script = three_acked();
    script.push(out_of_range(9, 0, 3));
    script.passes();
}

#[test]
fn marks_of_a_node_never_go_back() {
    let mut script = Script::default();
    script.observed((10, 20), 5);
    script.observed((21, 30), 4);
    script.shows(Anomaly::HighWatermarkBack);
    let mut script = Script::default();
    script.trim(3);
    script.observed_marks((200, 210), 5, 3);
    script.observed_marks((211, 220), 5, 2);
    script.shows(Anomaly::LogStartBack);
    let mut script = Script::default();
    script.trim(3);
    script.observed_marks((200, 210), 2, 3);
    script.shows(Anomaly::LogStartBack);
}

#[test]
fn a_log_start_that_nobody_asked_for_hides_no_loss() {
    let mut script = three_acked();
    script.observed_marks((900, 901), 3, 3);
    script.shows(Anomaly::LogStartUnasked);
}

#[test]
fn a_token_binds_every_node_also_when_tokens_come_out_of_order() {
    let mut script = Script::default();
    let (one, two) = (script.append("p", 0), script.append("q", 0));
    let unknown = script.append("r", 0);
    script.ack(two, 1, Some(9));
    script.ack(one, 0, Some(5));
    // 0 is no token: it owes nothing, to nobody.
    script.ack(unknown, 2, Some(0));
    let read = |token: u64, high_watermark: u64| {
        let Event::Poll(mut read) = poll("c", 0, &[], (900, 901)) else { unreachable!() };
        read.token = Some(LogIndex::new(token));
        read.high_watermark = Some(Offset::new(high_watermark));
        Event::Poll(read)
    };
    script.push(read(4, 0));
    script.push(read(5, 1));
    script.push(read(9, 2));
    script.passes();
    script.push(read(5, 0));
    script.shows(Anomaly::StaleTokenRead);
}

#[test]
fn what_begins_after_an_acknowledgement_comes_behind_it() {
    let mut script = Script::default();
    let one = script.append("p", 0);
    script.acked(one, 4);
    let two = script.append("q", 0);
    script.acked(two, 3);
    script.shows(Anomaly::RealTimeOrder);
}

#[test]
fn a_value_that_comes_back_otherwise_is_altered_whoever_says_it_first() {
    let mut script = three_acked();
    script.push(poll("c", 1, &[(1, Digest::of(b"other"))], (900, 901)));
    script.shows(Anomaly::AlteredValue);
    let mut script = Script::default();
    let op = script.append("p", 0);
    script.push(poll("c", 0, &[(0, Digest::of(b"other"))], (900, 901)));
    script.time = 1_000;
    script.acked(op, 0);
    let report = judge(&script.events);
    assert_eq!((report.count(Anomaly::Phantom), report.count(Anomaly::AlteredValue)), (1, 1), "{report}");
}

#[test]
fn an_audit_says_what_is_wrong_with_the_store() {
    let sound = Audit { referenced: 3, present: 3, intact: 3, orphans: 2, ..Audit::default() };
    let faults = |audit: Audit<'static>| judge(&[Event::Audit(audit)]).count(Anomaly::BucketAudit);
    assert_eq!(faults(sound.clone()), 0);
    assert_eq!(faults(Audit { present: 2, ..sound.clone() }), 1);
    assert_eq!(faults(Audit { present: 4, ..sound.clone() }), 1);
    assert_eq!(faults(Audit { intact: 2, ..sound.clone() }), 1);
    assert_eq!(faults(Audit { unexplained: 1, ..sound.clone() }), 1);
    assert_eq!(faults(Audit { orphans_allowed: Some(1), ..sound.clone() }), 1);
    assert_eq!(faults(Audit { orphans_allowed: Some(2), ..sound }), 0);
}
