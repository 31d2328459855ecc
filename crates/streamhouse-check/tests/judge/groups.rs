//! C12: what members of groups commit, and are told.

use streamhouse_check::{Anomaly, Commit, CommitOutcome, Committed, Event, Micros, Offset, Report, Seek};

use crate::judge;

fn commit(generation: u64, offset: u64, (begin, end): (u64, u64), outcome: CommitOutcome) -> Event<'static> {
    Event::Commit(Commit {
        group: "g".into(),
        partition: "t/0".into(),
        generation,
        offset: Offset::new(offset),
        begin: Micros::new(begin),
        end: Micros::new(end),
        outcome,
    })
}

fn done(generation: u64, offset: u64, times: (u64, u64)) -> Event<'static> {
    commit(generation, offset, times, CommitOutcome::Done)
}

fn told(generation: u64, offset: Option<u64>, (begin, end): (u64, u64)) -> Event<'static> {
    Event::Committed(Committed {
        group: "g".into(),
        partition: "t/0".into(),
        generation,
        begin: Micros::new(begin),
        end: Micros::new(end),
        offset: offset.map(Offset::new),
    })
}

#[track_caller]
fn shows(events: &[Event<'_>], anomaly: Anomaly) -> Report {
    let report = judge(events);
    assert_eq!((report.count(anomaly), report.total()), (1, 1), "{report}");
    report
}

#[track_caller]
fn passes(events: &[Event<'_>]) {
    let report = judge(events);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_group_that_goes_on_where_it_was_is_clean() {
    let events = [
        told(1, None, (10, 11)),
        done(1, 5, (20, 21)),
        told(2, Some(5), (30, 31)),
        done(2, 5, (40, 41)),
        done(2, 9, (50, 51)),
    ];
    passes(&events);
    let report = judge(&events);
    assert_eq!(report.verdict(Anomaly::CommitBack).judged, 5);
    assert_eq!(report.verdict(Anomaly::FencedCommit).judged, 3);
}

#[test]
fn an_acknowledged_commit_that_is_forgotten_or_older_is_told_is_a_step_back() {
    let lost = [done(1, 5, (20, 21)), told(2, None, (30, 31))];
    let report = shows(&lost, Anomaly::CommitBack);
    assert_eq!(report.violations[0].lines, [2, 3]);
    assert!(report.to_string().contains("C12 commit-back: a question"), "{report}");
    shows(&[done(1, 5, (20, 21)), told(2, Some(4), (30, 31))], Anomaly::CommitBack);
    shows(&[told(1, Some(5), (20, 21)), told(2, Some(4), (30, 31))], Anomaly::CommitBack);
}

#[test]
fn what_overlaps_may_come_in_any_order() {
    passes(&[done(1, 5, (20, 40)), told(1, None, (30, 31)), done(1, 3, (35, 50))]);
}

#[test]
fn an_uncertain_commit_binds_nobody_until_it_is_told() {
    passes(&[commit(1, 5, (20, 21), CommitOutcome::Maybe), told(2, None, (30, 31))]);
    passes(&[commit(1, 5, (20, 21), CommitOutcome::No), told(2, None, (30, 31))]);
    // It came late, and took an acknowledged one back.
    let late =
        [commit(1, 5, (20, 21), CommitOutcome::Maybe), done(1, 9, (30, 31)), told(2, Some(5), (40, 41))];
    shows(&late, Anomaly::CommitBack);
}

#[test]
fn a_member_of_an_older_generation_commits_nothing() {
    let zombie = [told(2, None, (10, 11)), done(1, 5, (20, 21))];
    let report = shows(&zombie, Anomaly::FencedCommit);
    assert!(report.violations[0].text.starts_with("generation 1 of group g"), "{report}");
    // It was on its way when the next generation began.
    passes(&[told(2, None, (15, 16)), done(1, 5, (14, 21))]);
    // Refused, or who knows: nothing was promised.
    passes(&[told(2, None, (10, 11)), commit(1, 5, (20, 21), CommitOutcome::No)]);
}

#[test]
fn after_a_seek_any_offset_may_be_told() {
    let seek = Event::Seek(Seek { group: "g".into(), partition: "t/0".into(), at: Micros::new(25) });
    passes(&[done(1, 5, (20, 21)), seek, told(2, Some(2), (30, 31))]);
}

#[test]
fn groups_and_partitions_do_not_bind_each_other() {
    let other = |group: &'static str, partition: &'static str| {
        Event::Committed(Committed {
            group: group.into(),
            partition: partition.into(),
            generation: 1,
            begin: Micros::new(30),
            end: Micros::new(31),
            offset: None,
        })
    };
    passes(&[done(1, 5, (20, 21)), other("h", "t/0"), other("g", "t/1")]);
}
