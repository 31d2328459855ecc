//! The judge is judged: clean histories pass, and each way to spoil one is found by the check that is meant for it.

mod clean;
mod groups;
mod hand_made;
mod members;
mod mutants;
mod world;

use streamhouse_check::{Checker, Event, Header, Report};

/// What the checks say of these events.
fn judge(events: &[Event<'_>]) -> Report {
    let mut checker = Checker::new(&Header::default());
    for event in events {
        checker.observe(event).unwrap_or_else(|refusal| panic!("{refusal}: {event:?}"));
    }
    checker.finish()
}
