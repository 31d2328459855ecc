//! What is right passes, however odd it looks.

use streamhouse_check::{Anomaly, Checker, Digest, Event, Header, History, Memory, Micros, Recorder};

use crate::hand_made::{Script, poll};
use crate::{judge, world};

#[test]
fn clean_histories_pass_and_every_check_has_something_to_judge() {
    let mut judged = [0; Anomaly::ALL.len()];
    for seed in 0..150 {
        let report = judge(&world::history(seed));
        assert!(report.is_clean(), "seed {seed}: {report}");
        assert!(report.counts.acked > 50 && report.counts.not_happened > 0 && report.counts.unknown > 0);
        for (judged, verdict) in judged.iter_mut().zip(&report.verdicts) {
            *judged += verdict.judged;
        }
    }
    for (anomaly, judged) in Anomaly::ALL.into_iter().zip(judged) {
        assert!(judged >= 50, "{anomaly}: {judged} judged");
    }
}

#[test]
fn a_history_says_the_same_when_it_is_written_and_read_again() {
    for seed in 0..20 {
        let events = world::history(seed);
        let memory = Memory::default();
        let recorder = Recorder::new(memory.clone(), &Header::default(), || Micros::new(0)).unwrap();
        events.iter().for_each(|event| recorder.record(event));
        recorder.finish().unwrap();
        let text = memory.bytes();
        let mut history = History::open(text.as_slice()).unwrap();
        for event in &events {
            assert_eq!(history.next_event().unwrap().as_ref(), Some(event));
        }
        let mut report = History::check(text.as_slice()).unwrap();
        assert!(report.complete);
        report.complete = false;
        assert_eq!(report, judge(&events));
    }
}

#[test]
fn a_record_costs_at_most_40_bytes() {
    let mut checker = Checker::new(&Header::default());
    let mut script = Script::default();
    let records: u32 = 1_000_000;
    for number in 0..records {
        let op = script.append("p", u64::from(number));
        script.acked(op, u64::from(number));
        script.take().iter().for_each(|event| checker.observe(event).unwrap());
    }
    let each = checker.record_bytes() / records as usize;
    assert!((24..=40).contains(&each), "{each} bytes a record");
    assert!(checker.finish().is_clean());
}

#[test]
fn a_write_with_an_unknown_outcome_may_show_up_later_or_never() {
    let mut script = Script::default();
    let (kept, shows_up, never) = (script.append("p", 0), script.append("q", 0), script.append("r", 0));
    script.acked(kept, 0);
    script.failed_maybe(shows_up);
    script.failed_maybe(never);
    let unanswered = script.append("s", 0);
    script.read("c", 0, &[("p", 0)]);
    script.read("c", 1, &[("q", 0), ("s", 0)]);
    script.final_read(&[("p", 0), ("q", 0), ("s", 0)]);
    let _nobody_answers = unanswered;
    script.passes();
}

#[test]
fn a_producer_without_idempotence_may_repeat_what_it_sent_again() {
    let mut script = Script::without_idempotence();
    let (unsure, again) = (script.append("p", 0), script.append("p", 1));
    script.failed_maybe(unsure);
    script.acked_after_retry(again, 3);
    script.final_read(&[("p", 0), ("p", 1), ("p", 0), ("p", 1)]);
    script.passes();
}

#[test]
fn a_consumer_may_begin_anywhere_and_again_after_a_restart() {
    let mut script = Script::default();
    for number in 0..6 {
        let op = script.append("p", number);
        script.acked(op, number);
    }
    script.read("c", 3, &[("p", 3), ("p", 4)]);
    script.read("c", 5, &[("p", 5)]);
    script.restart("c");
    script.read("c", 1, &[("p", 1)]);
    script.read("d", 6, &[]);
    script.passes();
}

#[test]
fn what_was_trimmed_may_be_gone_and_is_skipped_rightly() {
    let mut script = Script::default();
    for number in 0..6 {
        let op = script.append("p", number);
        script.acked(op, number);
    }
    script.read("c", 0, &[("p", 0)]);
    script.trim(4);
    script.read("c", 4, &[("p", 4)]);
    script.push(Event::FinalRead(streamhouse_check::FinalRead { at: Micros::new(900) }));
    script.push(poll("f", 4, &[(4, Digest::of(b"p-4")), (5, Digest::of(b"p-5"))], (901, 902)));
    script.passes();
}

#[test]
fn offsets_above_the_last_read_may_be_empty() {
    let mut script = Script::default();
    let (first, unsure, last) = (script.append("p", 0), script.append("q", 0), script.append("r", 0));
    script.acked(first, 0);
    script.failed_maybe(unsure);
    script.acked(last, 2);
    script.read("c", 0, &[("p", 0)]);
    script.passes();
}

#[test]
fn answers_that_overlap_may_come_in_any_order() {
    let mut script = Script::default();
    script.observed((10, 90), 5);
    script.observed((20, 95), 3);
    script.observed((91, 96), 5);
    script.passes();
}

#[test]
fn what_surely_failed_may_be_sent_again_as_it_is() {
    let mut script = Script::default();
    let op = script.append("p", 0);
    script.failed_surely(op);
    let again = script.append_value("p", 1, Digest::of(b"p-0"));
    script.acked(again, 0);
    script.final_read(&[("p", 0)]);
    script.passes();
}
