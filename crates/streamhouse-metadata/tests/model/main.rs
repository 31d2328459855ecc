//! The commit protocol as an explicit-state model around the real `apply`: every order of uploads, proposals, answers,
//! crashes, retries and sweeps within a budget, and the harm that each guard prevents, shown by taking it away.
//!
//! `docs/design.md`, sections 4 to 6. `STREAMHOUSE_MODEL=deep` searches further (`just model`).

mod meta;
mod protocol;
mod search;

use protocol::{Batches, Budget, Config, Mutant, Violation};
use search::search;

/// States after which a search stops in the ordinary tests.
const STATES_MAX: usize = 60_000;
/// The same for the deep search.
const STATES_MAX_DEEP: usize = 2_000_000;

#[allow(
    clippy::disallowed_methods,
    reason = "a test has no settings; the variable only says how far to search"
)]
fn is_deep() -> bool {
    std::env::var("STREAMHOUSE_MODEL").is_ok_and(|value| value == "deep")
}

#[track_caller]
fn check_safe(name: &str, config: Config) {
    let deep = is_deep();
    let report = search(&config, if deep { STATES_MAX_DEEP } else { STATES_MAX });
    let how = if report.exhausted { "exhausted" } else { "stopped" };
    println!("{name}: {how} after {} states, {} transitions", report.states, report.transitions);
    if let Some((violation, way)) = report.violation {
        panic!("{name}: {violation:?} after\n{way:#?}");
    }
}

#[track_caller]
fn check_harmful(mutant: Mutant, batches: Batches, budget: Budget, expected: Violation) {
    let config = Config { batches, two_lanes: false, budget, mutant: Some(mutant) };
    let report = search(&config, 400_000);
    let (violation, way) = report.violation.expect("the harm was not found");
    println!("{mutant:?}: {violation:?} in {} steps, {} states", way.len(), report.states);
    assert_eq!(violation, expected, "{way:#?}");
    // The same search with the guard in place shows no harm.
    let safe = search(&Config { mutant: None, ..config }, report.states.max(2_000));
    assert!(safe.violation.is_none(), "{:?}", safe.violation);
}

fn safe(batches: Batches, budget: Budget) -> Config {
    Config { batches, two_lanes: false, budget, mutant: None }
}

#[test]
fn one_idempotent_batch_survives_any_mishap() {
    let budget =
        Budget { resends: 1, hedges: 1, crashes: 1, duplicates: 1, gives_up: 1, ..Budget::default() };
    check_safe("one idempotent batch", safe(Batches::Idempotent(1), budget));
}

#[test]
fn two_idempotent_batches_stay_in_sequence_over_retries_through_either_node() {
    let budget = Budget { resends: 2, crashes: 1, gives_up: 1, ..Budget::default() };
    check_safe("two idempotent batches", safe(Batches::Idempotent(2), budget));
}

#[test]
fn a_plain_batch_is_in_the_log_at_most_once() {
    let budget = Budget {
        resends: 1,
        hedges: 1,
        failures: 1,
        gives_up: 1,
        reproposals: 1,
        duplicates: 1,
        crashes: 1,
        closes: 1,
        ..Budget::default()
    };
    check_safe("one plain batch", safe(Batches::Plain(1), budget));
}

#[test]
fn plain_batches_of_a_connection_stay_in_order() {
    let budget =
        Budget { failures: 1, gives_up: 1, reproposals: 1, duplicates: 1, resends: 1, ..Budget::default() };
    check_safe("three plain batches", safe(Batches::Plain(3), budget));
}

#[test]
fn trims_sweeps_and_readers_do_not_meet() {
    let budget = Budget { trims: 2, readers: 2, hedges: 1, advances: 1, crashes: 1, ..Budget::default() };
    check_safe("readers and the sweep", safe(Batches::Plain(2), budget));
}

#[test]
fn the_merge_lane_has_its_own_slots() {
    let budget = Budget { resends: 1, gives_up: 1, advances: 1, trims: 1, closes: 1, ..Budget::default() };
    let config = Config { two_lanes: true, ..safe(Batches::Idempotent(2), budget) };
    check_safe("two lanes", config);
}

#[test]
fn sweeping_whatever_is_unreferenced_loses_data() {
    let budget = Budget::default();
    check_harmful(Mutant::SweepUnreferenced, Batches::Plain(1), budget, Violation::Unreadable);
}

#[test]
fn sweeping_garbage_as_orphans_takes_it_from_readers() {
    let budget = Budget { trims: 1, readers: 1, advances: 1, ..Budget::default() };
    let expected = Violation::ReaderFindsNothing;
    check_harmful(Mutant::SweepIgnoresGarbageList, Batches::Plain(1), budget, expected);
}

#[test]
fn sweeping_what_is_pinned_takes_it_from_readers() {
    let budget = Budget { trims: 1, readers: 1, ..Budget::default() };
    check_harmful(Mutant::SweepIgnoresPins, Batches::Plain(1), budget, Violation::ReaderFindsNothing);
}

#[test]
fn without_the_incarnation_check_a_swept_object_is_committed() {
    let budget = Budget { crashes: 1, ..Budget::default() };
    check_harmful(Mutant::NoIncarnationCheck, Batches::Plain(1), budget, Violation::Unreadable);
}

#[test]
fn without_the_lo_check_a_swept_object_is_committed() {
    let budget = Budget { gives_up: 1, advances: 1, ..Budget::default() };
    check_harmful(Mutant::NoLoCheck, Batches::Plain(1), budget, Violation::Unreadable);
}

#[test]
fn without_the_lo_check_a_lost_slot_comes_back_behind_its_successor() {
    let budget = Budget { gives_up: 1, ..Budget::default() };
    check_harmful(Mutant::NoLoCheck, Batches::Plain(2), budget, Violation::OutOfOrder);
}

#[test]
fn without_producer_dedupe_a_retry_is_in_the_log_twice() {
    let budget = Budget { resends: 1, ..Budget::default() };
    check_harmful(Mutant::NoProducerDedupe, Batches::Idempotent(1), budget, Violation::Duplicate);
}

#[test]
fn without_prev_a_later_slot_overtakes() {
    check_harmful(Mutant::IgnorePrev, Batches::Plain(2), Budget::default(), Violation::OutOfOrder);
}

#[test]
fn a_repeated_proposal_taken_for_a_new_one_is_in_the_log_twice() {
    let budget = Budget { duplicates: 1, ..Budget::default() };
    check_harmful(Mutant::RepeatIsNew, Batches::Plain(1), budget, Violation::Duplicate);
}

#[test]
fn proposing_before_the_upload_is_confirmed_loses_data() {
    check_harmful(Mutant::ProposeBeforePut, Batches::Plain(1), Budget::default(), Violation::Unreadable);
}

#[test]
fn acking_before_the_commit_acks_what_is_not_there() {
    check_harmful(Mutant::AckBeforeCommit, Batches::Plain(1), Budget::default(), Violation::AckedIsNotThere);
}

#[test]
fn a_restart_under_the_old_incarnation_overwrites_what_is_committed() {
    let budget = Budget { crashes: 1, ..Budget::default() };
    check_harmful(Mutant::RestartKeepsIncarnation, Batches::Plain(2), budget, Violation::NameReused);
}

#[test]
fn a_failed_slot_that_takes_no_later_ones_along_is_overtaken() {
    let budget = Budget { failures: 1, resends: 1, ..Budget::default() };
    check_harmful(Mutant::FailedSlotIsOvertaken, Batches::Plain(2), budget, Violation::OutOfOrder);
}

#[test]
fn telling_a_lost_answer_as_did_not_happen_is_a_lie() {
    let budget = Budget { gives_up: 1, ..Budget::default() };
    check_harmful(Mutant::LostAnswerIsDenied, Batches::Plain(1), budget, Violation::DeniedHappened);
}
